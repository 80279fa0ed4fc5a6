use super::*;
use crate::facts::read::FromJson;
use serde_json::json;

/// What nvidia/cuda:12.4.1 sets.
const CUDA_12_4: &str = include_str!("../../../tests/fixtures/require/valid/nvidia-cuda-12.4.1.txt");

/// An image with a torch of this CUDA, or none, and copies of libcudart with their versions; `*` is mapped.
fn image(torch: Option<&str>, copies: &[&str]) -> ImageFacts {
    let distributions = torch.map(|cuda| {
        json!({"name": "torch", "version": "2.9.0", "path": "/sp/torch-2.9.0.dist-info", "module_version": "2.9.0+cu",
            "module_cuda": cuda})
    });
    let (mut libraries, mut loaded) = (Vec::new(), Vec::new());
    for (number, copy) in copies.iter().enumerate() {
        let version = copy.trim_end_matches('*');
        let major = version.split('.').next().unwrap();
        let path = format!("/sp/{number}/libcudart.so.{major}");
        libraries.push(json!({"kind": "cudart", "path": path, "origin": "wheel",
            "answer": {"index": number, "path": path, "version": version}}));
        if copy.ends_with('*') {
            loaded.push(json!({"name": format!("libcudart.so.{major}"), "path": path}));
        }
    }
    let whole = json!({"python": {"working_folder": false, "site_packages": ["/sp"]}, "files": [],
        "distributions": distributions.into_iter().collect::<Vec<_>>(), "libraries": libraries, "loaded": loaded,
        "helper": {"end": "done"}, "kernels": []});
    ImageFacts::from_json(whole).unwrap()
}

fn on_driver(image: ImageFacts, release: &str, serves: &str) -> Facts {
    let device = json!({
        "driver": {"path": "/usr/lib/libcuda.so.1", "api_version": serves, "device_count": 1},
        "devices": [{"ordinal": 0, "name": "NVIDIA L4", "capability": "8.9"}],
        "helper": {"end": "done"}, "nvml": {"driver_release": release}, "nvml_devices": [], "nvml_helper": {"end": "done"}
    });
    Facts {
        image,
        device: FromJson::from_json(device).unwrap(),
        ..Facts::default()
    }
}

fn stack() -> Stack {
    Stack::parse(r#"{"schema": 1, "name": "t", "packages": {"torch": "*", "own": "*"}}"#).unwrap()
}

fn said(finding: &Finding) -> String {
    format!("{:?}: {}", finding.status, finding.message)
}

#[test]
fn the_floor_is_that_of_what_is_used() {
    for (torch, copies, floor) in [
        (Some("12.4"), &["12.4*"][..], "12.4 least 12.0"),
        // conda's libcudart, and a copy that nothing maps
        (Some("12.4"), &["12.9*", "13.0"], "12.9 least 12.0"),
        (Some("12.4"), &["12.4*", "13.0*"], "12.4 least 12.0, beside 13.0"),
        (Some("13.0"), &["12.8*"], "13.0 least 13.0"),
        (None, &["12.4", "12.9*", "13.0"], "12.9 least 12.0"),
        (None, &["12.4", "12.9"], "12.9 least 12.0"),
        (None, &["12.4", "13.0"], "13.0 least 13.0, a guess"),
        (None, &["10.2"], "10.2 least 10.2"),
        (None, &[], "none"),
    ] {
        let image = image(torch, copies);
        let shown = Floor::of(&image, &stack()).map_or("none".to_string(), |floor| {
            let beside = floor.beside.map(|(cuda, _)| format!(", beside {cuda}"));
            let guess = if floor.is_guess { ", a guess" } else { "" };
            format!(
                "{} least {}{}{guess}",
                floor.cuda,
                floor.least(),
                beside.unwrap_or_default()
            )
        });
        assert_eq!(shown, floor, "{torch:?} {copies:?}");
    }
}

/// A service of other packages is not kept from a driver that serves them.
#[test]
fn a_torch_that_the_manifest_does_not_name_does_not_count() {
    let other = Stack::parse(r#"{"schema": 1, "name": "t", "packages": {"tensorflow": "*"}}"#).unwrap();
    let image = image(Some("13.0"), &["12.9*", "13.0"]);
    let floor = |stack: &Stack| Floor::of(&image, stack).map(|floor| floor.cuda.to_string());
    assert_eq!(floor(&other).as_deref(), Some("12.9"));
    assert_eq!(floor(&stack()).as_deref(), Some("13.0"));
    assert_eq!(floor(&Stack::default()).as_deref(), Some("13.0"));
    let facts = on_driver(image.clone(), "535.261.03", "12.2");
    assert!(!on_machine(&other, &facts, &[]).unwrap().problem);
    assert!(on_machine(&stack(), &facts, &[]).unwrap().problem);
}

#[test]
fn an_image_says_what_it_needs() {
    let needs = |torch, copies: &[&str]| {
        let facts = Facts {
            image: image(torch, copies),
            ..Facts::default()
        };
        let findings = of_image(&stack(), None, &facts);
        assert!(findings.iter().all(|f| f.stage == Stage::Image), "{findings:?}");
        findings.iter().map(said).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        needs(Some("12.4"), &["12.4*"]),
        "Info: this image needs driver >= 550.54.14, or >= 525.60.13 by minor version compatibility, without PTX"
    );
    assert_eq!(
        needs(Some("13.0"), &[]),
        "Info: this image needs driver >= 580.65.06"
    );
    assert_eq!(
        needs(Some("12.0"), &[]),
        "Info: this image needs driver >= 525.60.13"
    );
    assert_eq!(
        needs(Some("13.9"), &[]),
        "Info: this image needs a driver for CUDA 13.9, or >= 580.65.06 by minor version compatibility, without PTX"
    );
    assert_eq!(needs(None, &["10.2*"]), "Info: this image needs driver >= 440.33");
    // Nobody knows which of them is used.
    assert_eq!(needs(None, &["12.4", "13.0"]), "");
    assert!(
        needs(Some("12.4"), &["12.4*", "13.0*"])
            .ends_with("; /sp/1/libcudart.so.13 needs driver >= 580.65.06")
    );
    let nothing = Stack::parse(r#"{"schema": 1, "name": "t"}"#).unwrap();
    let facts = Facts {
        image: image(Some("12.4"), &[]),
        ..Facts::default()
    };
    assert_eq!(of_image(&nothing, None, &facts), []);
}

#[test]
fn ptx_that_a_package_depends_on_is_named() {
    let kernels = |package: &str, code: serde_json::Value| {
        let mut module = json!({"path": format!("/sp/{package}/_C.so"), "package": package, "fatbins": 4, "with_kernels": 4});
        for (key, value) in code.as_object().unwrap() {
            module[key] = value.clone();
        }
        FromJson::from_json(module).unwrap()
    };
    let needs = |code: serde_json::Value, archs: &str| {
        let mut image = image(Some("12.4"), &["12.4*"]);
        image.kernels = vec![kernels("own", code), kernels("other", json!({"ptx": {"5.0": 4}}))];
        let facts = Facts {
            image,
            ..Facts::default()
        };
        let archs: ArchList = archs.parse().unwrap();
        of_image(&stack(), Some(&archs), &facts).remove(0).message
    };
    let isa = |version: &str| json!([{"arch": "9.0", "version": version, "fatbins": 4}]);
    let code = |version| json!({"sass": {"8.0": 4}, "ptx": {"9.0": 4}, "ptx_isa": isa(version)});
    let message = needs(code("8.7"), "8.0;9.0;12.0");
    assert!(
        message.ends_with("; PTX 8.7 (CUDA 12.8) of own (_C.so) for 9.0 needs driver >= 570.26"),
        "{message}"
    );
    // SASS serves what is listed; PTX that each driver of the major version compiles; PTX of unknown version.
    for (code, archs) in [
        (code("8.7"), "8.0;8.6"),
        (code("8.0"), "9.0"),
        (json!({"ptx": {"9.0": 4}}), "9.0"),
    ] {
        let message = needs(code, archs);
        assert!(message.ends_with("without PTX"), "{message}");
    }
}

#[test]
fn the_images_conditions_are_held_against_it() {
    let conditions = |torch, variables: &[(&str, &str)]| {
        let facts = Facts {
            image: image(Some(torch), &[]),
            environment: variables
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
            ..Facts::default()
        };
        let findings = of_image(&stack(), None, &facts);
        findings.get(1).map_or(String::new(), |f| {
            format!("{}: {} | {}", f.subject, said(f), f.observed)
        })
    };
    let require = |torch, value| conditions(torch, &[("NVIDIA_REQUIRE_CUDA", value)]);
    assert_eq!(
        require("13.0", "cuda>=12.0"),
        "NVIDIA_REQUIRE_CUDA: Warn: NVIDIA_REQUIRE_CUDA lets this image start on drivers that do not support it: torch needs CUDA \
         13.0 | cuda>=12.0 admits driver 525.60.13, which supports CUDA 12.0"
    );
    // Alternatives for single brands and branches rest on forward compatibility.
    let refuses = require("12.8", CUDA_12_4.trim());
    assert_eq!(
        refuses,
        "NVIDIA_REQUIRE_CUDA: Info: NVIDIA_REQUIRE_CUDA refuses drivers before 550.54.14, but for GPUs that it names; the \
         image's libraries run from 525.60.13 (CUDA 12.0) on | cuda>=12.4 and 30 other alternatives"
    );
    assert!(require("13.0", CUDA_12_4.trim()).contains("admits driver 550.54.14, which supports CUDA 12.4"));
    assert!(conditions("13.0", &[("CUDA_VERSION", "12.4.1")]).starts_with("CUDA_VERSION: Warn"));
    assert!(require("12.4", "driver>=470").starts_with("NVIDIA_REQUIRE_CUDA: Warn"));
    for (torch, value) in [
        ("13.0", "cuda>=13.0"),
        ("12.8", "cuda>=12.0"),
        ("12.8", "brand=tesla,driver>=470"),
        ("12.8", "cuda>=99"),
        ("12.8", "arch>=8.0"),
        ("12.8", "nonsense"),
        ("12.8", ""),
    ] {
        let said = require(torch, value);
        assert_eq!(said, "", "{torch} {value}");
    }
    let disabled = [
        ("NVIDIA_REQUIRE_CUDA", "cuda>=12.0"),
        ("NVIDIA_DISABLE_REQUIRE", "true"),
    ];
    assert_eq!(conditions("13.0", &disabled), "");
}

#[test]
fn a_driver_below_the_floor_is_refused_and_no_other() {
    for (torch, copies, release, serves, expected) in [
        (
            "12.4",
            &["12.4*"][..],
            "550.54.15",
            "12.4",
            "Pass: the driver supports what",
        ),
        (
            "12.4",
            &["12.4*"],
            "535.261.03",
            "12.2",
            "Pass: CUDA 12.4 runs on this driver by minor version",
        ),
        (
            "12.6",
            &["12.6*"],
            "525.60.13",
            "12.0",
            "Pass: CUDA 12.6 runs on this driver by minor version",
        ),
        (
            "12.4",
            &["12.4*"],
            "520.61.05",
            "11.8",
            "Fail: the driver supports CUDA 11.8, and torch is built for CUDA 12.4",
        ),
        ("13.0", &[], "580.65.06", "13.0", "Pass"),
        (
            "13.2",
            &[],
            "580.65.06",
            "13.0",
            "Pass: CUDA 13.2 runs on this driver by minor version",
        ),
        ("13.0", &[], "575.51.03", "12.9", "Fail"),
        (
            "12.8",
            &["12.8*", "13.0*"],
            "570.26",
            "12.8",
            "Warn: the driver supports CUDA 12.8, and /sp/1/libcudart.so.13 is built for CUDA 13.0",
        ),
        ("12.8", &["12.8*", "13.0*"], "580.65.06", "13.0", "Pass"),
    ] {
        let facts = on_driver(image(Some(torch), copies), release, serves);
        let finding = on_machine(&stack(), &facts, &[]).unwrap();
        assert!(
            said(&finding).starts_with(expected),
            "{torch} {serves}: {finding:?}"
        );
        if finding.problem {
            for text in [&finding.observed, &finding.required, &finding.hint] {
                assert!(!text.is_empty(), "{finding:?}");
            }
        }
    }
}

#[test]
fn one_fault_is_one_finding() {
    let facts = on_driver(image(Some("13.0"), &[]), "535.261.03", "12.2");
    let fails = |facts: &Facts, said: &[Finding]| on_machine(&stack(), facts, said).is_some();
    assert!(fails(&facts, &[Finding::pass(Code::DriverTooOld, "driver")]));
    assert!(!fails(&facts, &[Finding::problem(Code::DriverTooOld, "driver")]));
    let mut without = facts.clone();
    without.device.devices.clear();
    assert!(!fails(&without, &[]));
    let mut guess = facts;
    guess.image = image(None, &["12.4", "13.0"]);
    assert!(!fails(&guess, &[]));
}
