use super::*;
use crate::check::Status;
use crate::facts::read::FromJson;
use serde_json::{Value, json};

/// cuda-compat 13.0.
const PATH: &str = "/usr/local/cuda-13.0/compat/libcuda.so.580.65.06";

fn library(mapped: bool) -> Value {
    json!({"folder": "/usr/local/cuda-13.0/compat", "path": PATH, "release": "580.65.06", "mapped": mapped, "cuda": "13.0", "drivers": [535, 550, 570, 575, 580], "devices": [1, 2, 7, 8, 9, 10, 11, 12, 13, 14]})
}

/// One that says nothing of itself.
fn silent(mapped: bool) -> Value {
    json!({"folder": "/usr/local/cuda-13.0/compat", "path": PATH, "release": "580.65.06", "mapped": mapped})
}

fn read(libraries: &[Value]) -> Vec<Compat> {
    FromJson::from_json(json!(libraries)).unwrap()
}

/// A machine with this kernel driver and brand, and these libraries in the image.
fn facts(release: &str, serves: &str, brand: &str, libraries: &[Value]) -> Facts {
    let device = json!({
        "driver": {"path": "/usr/lib/libcuda.so.1", "api_version": serves, "device_count": 1},
        "devices": [{"ordinal": 0, "name": "GPU", "capability": "8.9"}], "helper": {"end": "done"},
        "nvml": {"driver_release": release}, "nvml_devices": [{"index": 0, "brand": brand}],
        "nvml_helper": {"end": "done"}, "compat": libraries
    });
    Facts {
        device: FromJson::from_json(device).unwrap(),
        ..Facts::default()
    }
}

fn cuda(major: u16, minor: u16) -> CudaVersion {
    CudaVersion { major, minor }
}

fn error(code: i32) -> CallError {
    CallError {
        call: "cuInit".into(),
        code,
        name: String::new(),
        description: String::new(),
    }
}

#[test]
fn what_libcuda_serves_is_told_with_the_kernels_driver() {
    let said = |release: &str, version| served(version, &facts(release, "13.0", "tesla", &[]));
    assert_eq!(
        said("535.261.03", cuda(13, 0)),
        "supports CUDA 13.0 by forward compatibility over driver 535.261.03"
    );
    assert_eq!(said("580.65.06", cuda(13, 0)), "supports CUDA 13.0");
    assert_eq!(said("565.57.01", cuda(12, 7)), "supports CUDA 12.7");
    assert_eq!(served(cuda(13, 0), &Facts::default()), "supports CUDA 13.0");
}

#[test]
fn an_error_of_a_compat_library_is_its_own() {
    let said = |code, release: &str, brand: &str, library: Value| {
        let facts = facts(release, "13.0", brand, &[library]);
        explained(&error(code), &facts).map_or(String::new(), |[_, message, _]| message)
    };
    assert_eq!(
        said(803, "595.58.03", "nvidia", library(true)),
        format!(
            "the image's libcuda for CUDA 13.0 ({PATH}) does not support this machine: its ELF note names drivers 535, 550, 570, \
             575, 580, and the kernel's is 595.58.03"
        )
    );
    let consumer = said(804, "570.26", "geforce", library(true));
    assert!(
        consumer.ends_with(": its ELF note leaves out GPUs of the brand geforce"),
        "{consumer}"
    );
    // Its note names them, or there is none, and it does not work all the same.
    for (code, library) in [
        (803, library(true)),
        (804, library(true)),
        (803, silent(true)),
        (804, silent(true)),
    ] {
        let message = said(code, "570.26", "nvidia", library);
        assert!(
            message.ends_with("it does not work over kernel driver 570.26 with these GPUs"),
            "{message}"
        );
    }
    // The driver's own libcuda, and other errors.
    assert_eq!(said(803, "595.58.03", "nvidia", library(false)), "");
    assert_eq!(said(802, "595.58.03", "nvidia", library(true)), "");
}

#[test]
fn what_lies_unused_in_the_image_is_a_way_out_or_none() {
    let said = |release: &str, brand: &str, library: Value, wanted| {
        way_out(wanted, &facts(release, "12.2", brand, &[library])).unwrap_or_default()
    };
    let works = said("535.261.03", "nvidia", library(false), cuda(13, 0));
    assert!(
        works.contains(" supports this driver: put /usr/local/cuda-13.0/compat first"),
        "{works}"
    );
    let other = said("560.28.03", "nvidia", library(false), cuda(13, 0));
    assert!(
        other.ends_with("and the kernel's is 560.28.03: error 803"),
        "{other}"
    );
    let consumer = said("535.261.03", "geforcertx", library(false), cuda(13, 0));
    assert!(
        consumer.ends_with("of the brand geforcertx: error 804"),
        "{consumer}"
    );
    let told = said("535.261.03", "tesla", silent(false), cuda(13, 0));
    assert!(
        told.contains("may support this driver, on data centre GPUs"),
        "{told}"
    );
    assert_eq!(said("535.261.03", "nvidia", library(false), cuda(14, 0)), "");
    assert_eq!(said("535.261.03", "nvidia", library(true), cuda(13, 0)), "");
    let nobody = json!({"folder": "/c/compat", "path": "/c/compat/libcuda.so.1"});
    assert_eq!(said("535.261.03", "nvidia", nobody, cuda(13, 0)), "");
    assert_eq!(
        said(
            "535.261.03",
            "nvidia",
            json!({"folder": "/c/compat"}),
            cuda(13, 0)
        ),
        ""
    );
}

#[test]
fn a_library_that_only_the_modules_get_is_predicted() {
    let said = |release: &str, brand: &str, library: Value| {
        let mut facts = facts(release, "13.0", brand, &[library]);
        let loaded = json!({"name": "libcuda.so.1", "path": "/env/lib/libcuda.so.1", "real": PATH});
        facts.image.loaded = vec![FromJson::from_json(loaded).unwrap()];
        facts.image.compat.clone_from(&facts.device.compat);
        predicted(&facts)
    };
    let finding = said("595.58.03", "nvidia", library(false)).unwrap();
    assert_eq!((finding.status, finding.code), (Status::Warn, Code::GpuNotReady));
    assert!(
        finding
            .message
            .contains("where cuInit returns 803: its ELF note names"),
        "{}",
        finding.message
    );
    let finding = said("570.26", "geforce", library(false)).unwrap();
    assert!(
        finding
            .message
            .contains("where cuInit returns 804: its ELF note leaves out"),
        "{}",
        finding.message
    );
    // It serves them; it has answered; it says nothing; it is the driver's own release.
    assert_eq!(said("570.26", "tesla", library(false)), None);
    assert_eq!(said("595.58.03", "nvidia", library(true)), None);
    assert_eq!(said("595.58.03", "nvidia", silent(false)), None);
    let own = json!({"folder": "/c", "path": PATH, "release": "595.58.03", "drivers": [535]});
    assert_eq!(said("595.58.03", "nvidia", own), None);
    assert_eq!(
        predicted(&facts("595.58.03", "13.0", "nvidia", &[library(false)])),
        None
    );
}

#[test]
fn folders_that_do_not_do_what_they_are_for() {
    let said = |libraries: &[Value]| -> Vec<String> {
        let all = of_image(&read(libraries)).into_iter();
        all.map(|f| format!("{:?} {}: {}", f.status, f.subject, f.message))
            .collect()
    };
    let other = |folder: &str| {
        let path = format!("{folder}/libcuda.so.575.57.08");
        json!({"folder": folder, "path": path, "release": "575.57.08"})
    };
    assert_eq!(said(&[library(false)]), [""; 0]);
    let empty = said(&[json!({"folder": "/usr/local/cuda/compat"})]);
    assert!(
        empty[0].starts_with("Info /usr/local/cuda/compat: this folder for forward compatibility is empty"),
        "{empty:?}"
    );
    let twice = said(&[library(false), other("/usr/local/cuda-13.0/compat")]);
    assert!(
        twice.len() == 1
            && twice[0].starts_with("Warn /usr/local/cuda-13.0/compat: this folder holds several"),
        "{twice:?}"
    );
    let two = said(&[library(false), other("/usr/local/cuda-12.9/compat")]);
    assert!(
        two.len() == 1 && two[0].starts_with("Info forward compatibility: several folders"),
        "{two:?}"
    );
}

#[test]
fn whom_a_library_serves_is_said_at_build() {
    let compat = read(&[library(false)]);
    let said = in_front(PATH, &compat);
    assert!(
        said.contains("with no other driver than 535, 550, 570, 575, 580 (errors"),
        "{said}"
    );
    assert!(in_front(PATH, &[]).contains("than its own notes allow"));
    let (named, drivers) = below(cuda(13, 0), &compat).unwrap();
    assert_eq!(
        (named.contains("580.65.06"), drivers.as_str()),
        (true, "535, 550, 570, 575")
    );
    assert_eq!(below(cuda(14, 0), &compat), None);
    assert_eq!(below(cuda(12, 0), &compat), None);
}
