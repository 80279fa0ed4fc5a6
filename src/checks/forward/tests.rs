use super::*;
use crate::check::Status;
use crate::facts::read::FromJson;
use serde_json::{Value, json};

/// cuda-compat 13.0.
const PATH: &str = "/usr/local/cuda-13.0/compat/libcuda.so.580.65.06";

fn library(mapped: bool) -> Value {
    json!({"path": PATH, "release": "580.65.06", "mapped": mapped, "note":
        {"cuda": "13.0", "drivers": [535, 550, 570, 575, 580], "devices": [1, 2, 7, 8, 9, 10, 11, 12, 13, 14]}})
}

fn folder(path: &str, libraries: &[Value]) -> CompatFolder {
    FromJson::from_json(json!({"path": path, "libraries": libraries})).unwrap()
}

/// A machine with this kernel driver and brand, and these libraries in the image.
fn facts(release: &str, serves: &str, brand: &str, libraries: &[Value]) -> Facts {
    let device = json!({
        "driver": {"path": "/usr/lib/libcuda.so.1", "api_version": serves, "device_count": 1},
        "devices": [{"ordinal": 0, "name": "GPU", "capability": "8.9"}], "helper": {"end": "done"},
        "nvml": {"driver_release": release}, "nvml_devices": [{"index": 0, "brand": brand}],
        "nvml_helper": {"end": "done"}, "compat": [{"path": "/usr/local/cuda-13.0/compat", "libraries": libraries}]
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
        "serves CUDA 13.0 by forward compatibility over driver 535.261.03"
    );
    assert_eq!(said("580.65.06", cuda(13, 0)), "serves CUDA 13.0");
    assert_eq!(said("565.57.01", cuda(12, 7)), "serves CUDA 12.7");
    assert_eq!(served(cuda(13, 0), &Facts::default()), "serves CUDA 13.0");
}

#[test]
fn an_error_of_a_compat_library_is_its_own() {
    let said = |code, release: &str, brand: &str, library: Value| {
        explained(&error(code), &facts(release, "13.0", brand, &[library])).map(|said| said.message)
    };
    let newer = said(803, "595.58.03", "nvidia", library(true)).unwrap();
    assert_eq!(
        newer,
        format!(
            "the image's libcuda 580.65.06 for CUDA 13.0 ({PATH}) does not serve kernel driver 595.58.03: its ELF note names \
             drivers 535, 550, 570, 575, 580"
        )
    );
    let named = said(803, "570.26", "nvidia", library(true)).unwrap();
    assert!(
        named.contains("names kernel driver 570.26 in its ELF note, and does not work over it"),
        "{named}"
    );
    let consumer = said(804, "570.26", "geforce", library(true)).unwrap();
    assert!(
        consumer.contains("does not serve this GPU (geforce)"),
        "{consumer}"
    );
    let silent = json!({"path": PATH, "mapped": true});
    let without = said(803, "595.58.03", "nvidia", silent.clone()).unwrap();
    assert!(
        without.ends_with("does not work over kernel driver 595.58.03"),
        "{without}"
    );
    assert!(said(804, "570.26", "tesla", silent).is_some());
    // The driver's own libcuda, and other errors.
    assert_eq!(said(803, "595.58.03", "nvidia", library(false)), None);
    assert_eq!(said(802, "595.58.03", "nvidia", library(true)), None);
}

#[test]
fn what_lies_unused_in_the_image_is_a_way_out_or_none() {
    let said = |release: &str, brand: &str, library: Value, wanted| {
        way_out(wanted, &facts(release, "12.2", brand, &[library])).unwrap_or_default()
    };
    let works = said("535.261.03", "nvidia", library(false), cuda(13, 0));
    assert!(
        works.contains("serves this driver by its ELF note: put /usr/local/cuda-13.0/compat first"),
        "{works}"
    );
    let other = said("560.28.03", "nvidia", library(false), cuda(13, 0));
    assert!(other.ends_with("over 560.28.03 it ends in error 803"), "{other}");
    let consumer = said("535.261.03", "geforcertx", library(false), cuda(13, 0));
    assert!(consumer.ends_with("where it ends in error 804"), "{consumer}");
    let old = json!({"path": PATH, "release": "580.65.06"});
    assert!(said("535.261.03", "tesla", old, cuda(13, 0)).contains("may serve it"));
    assert_eq!(said("535.261.03", "nvidia", library(false), cuda(14, 0)), "");
    assert_eq!(said("535.261.03", "nvidia", library(true), cuda(13, 0)), "");
    let nobody = json!({"path": PATH});
    assert_eq!(said("535.261.03", "nvidia", nobody, cuda(13, 0)), "");
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
            .ends_with("the kernel's is 595.58.03: cuInit returns 803 there"),
        "{}",
        finding.message
    );
    let finding = said("570.26", "geforce", library(false)).unwrap();
    assert!(
        finding.message.ends_with("(geforce): cuInit returns 804 there"),
        "{}",
        finding.message
    );
    // It serves them; it has answered; it says nothing; it is the driver's own release.
    assert_eq!(said("570.26", "tesla", library(false)), None);
    assert_eq!(said("595.58.03", "nvidia", library(true)), None);
    assert_eq!(said("595.58.03", "nvidia", json!({"path": PATH})), None);
    let own = json!({"path": PATH, "release": "595.58.03", "note": {"drivers": [535]}});
    assert_eq!(said("595.58.03", "nvidia", own), None);
    assert_eq!(
        predicted(&facts("595.58.03", "13.0", "nvidia", &[library(false)])),
        None
    );
}

#[test]
fn folders_that_do_not_do_what_they_are_for() {
    let said = |folders: &[CompatFolder]| -> Vec<String> {
        let all = of_image(folders).into_iter();
        all.map(|f| format!("{:?} {}: {}", f.status, f.subject, f.message))
            .collect()
    };
    let (a, b) = ("/usr/local/cuda-13.0/compat", "/usr/local/cuda-12.9/compat");
    let other = json!({"path": "/usr/local/cuda-12.9/compat/libcuda.so.575.57.08", "release": "575.57.08"});
    assert_eq!(said(&[folder(a, &[library(false)])]), [""; 0]);
    let empty = said(&[folder(a, &[])]);
    assert_eq!(
        empty,
        [
            "Info /usr/local/cuda-13.0/compat: /usr/local/cuda-13.0/compat is for forward compatibility, and empty: older drivers \
          are not served by it"
        ]
    );
    let twice = said(&[folder(a, &[library(false), other.clone()])]);
    assert!(
        twice[0].starts_with("Warn /usr/local/cuda-13.0/compat: ") && twice.len() == 1,
        "{twice:?}"
    );
    let two = said(&[folder(a, &[library(false)]), folder(b, &[other])]);
    assert!(
        two[0].starts_with("Info /usr/local/cuda-13.0/compat: 2 folders hold"),
        "{two:?}"
    );
    let broken = json!({"path": PATH, "problem": "it is not an ELF file"});
    let broken = said(&[folder(a, &[broken])]);
    assert!(
        broken[0].ends_with("cannot be read, so whom it serves is unknown"),
        "{broken:?}"
    );
}

#[test]
fn whom_a_library_in_front_serves_is_said_at_build() {
    let said = in_front(PATH, &[folder("/usr/local/cuda-13.0/compat", &[library(false)])]);
    assert!(
        said.starts_with(
            "it serves CUDA 13.0 by forward compatibility over kernel drivers 535, 550, 570, 575, 580"
        ),
        "{said}"
    );
    assert!(in_front(PATH, &[]).starts_with("it runs on data centre GPUs alone"));
    let folders = [folder("/usr/local/cuda-13.0/compat", &[library(false)])];
    let (named, drivers) = below(cuda(13, 0), &folders).unwrap();
    assert_eq!(
        (named.contains("580.65.06"), drivers.as_str()),
        (true, "535, 550, 570, 575")
    );
    assert_eq!(below(cuda(14, 0), &folders), None);
    assert_eq!(below(cuda(12, 0), &folders), None);
}
