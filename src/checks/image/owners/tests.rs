use super::super::fixtures::*;
use super::*;
use crate::check::Status;
use crate::facts::{Distribution, Facts};

const SITE: &str = "/opt/venv/lib/python3.11/site-packages";
const NCCL: &str = "nvidia/nccl/lib/libnccl.so.2";

fn owner(name: &str, version: &str, size: u64) -> FileOwner {
    FileOwner {
        name: name.into(),
        version: version.into(),
        size: Some(size),
    }
}

fn requiring(name: &str, version: &str, requires: &[&str]) -> Distribution {
    Distribution {
        requires: requires.iter().map(ToString::to_string).collect(),
        ..dist(name, version)
    }
}

fn file(name: &str, size: u64, owners: &[FileOwner]) -> OwnedFile {
    OwnedFile {
        path: format!("{SITE}/{name}"),
        size,
        owners: owners.to_vec(),
    }
}

fn mapped(name: &str) -> LoadedObject {
    LoadedObject {
        program: None,
        name: "libnccl.so.2".into(),
        path: Some(format!("{SITE}/torch/lib/../../{name}")),
        real: None,
        needed_by: Vec::new(),
        found_by: None,
        shadowed: Vec::new(),
    }
}

/// torch, which pins cu13's NCCL, and xgboost, which requires cu12's in any version.
fn two(size: u64, with_xgboost: bool, is_mapped: bool) -> Facts {
    image(|i| {
        let torch = "nvidia-nccl-cu13==2.30.7; platform_system == \"Linux\"";
        i.distributions = vec![
            requiring("torch", "2.15.0", &[torch]),
            dist("nvidia-nccl-cu12", "2.21.5"),
            dist("nvidia-nccl-cu13", "2.30.7"),
        ];
        if with_xgboost {
            let xgboost = requiring(
                "xgboost",
                "3.2.0",
                &["nvidia-nccl-cu12; platform_system == 'Linux'"],
            );
            i.distributions.push(xgboost);
        }
        let owners = [
            owner("nvidia-nccl-cu12", "2.21.5", 100),
            owner("nvidia-nccl-cu13", "2.30.7", 200),
        ];
        i.owned = vec![file(NCCL, size, &owners)];
        i.loaded = if is_mapped { vec![mapped(NCCL)] } else { Vec::new() };
    })
}

fn judged(facts: &Facts) -> Vec<Finding> {
    let stack = stack();
    judge(&ImageContext::new(&stack, &facts.image))
}

fn one(facts: &Facts) -> Finding {
    let mut findings = judged(facts);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

#[test]
fn the_wrong_copy_is_named_with_its_owner_and_a_remedy() {
    let finding = one(&two(100, false, true));
    assert_eq!((finding.status, finding.subject.as_str()), (Status::Fail, NCCL));
    assert_eq!(
        finding.message,
        format!(
            "nvidia-nccl-cu12 2.21.5 and nvidia-nccl-cu13 2.30.7 both install {NCCL}: the copy of nvidia-nccl-cu12 2.21.5 \
             is there, and torch requires nvidia-nccl-cu13==2.30.7"
        )
    );
    assert_eq!(
        finding.hint,
        "In the Dockerfile: pip uninstall -y nvidia-nccl-cu12 nvidia-nccl-cu13 && pip install --force-reinstall --no-deps \
         'nvidia-nccl-cu13==2.30.7'."
    );
}

#[test]
fn what_another_package_requires_is_not_removed() {
    let finding = one(&two(100, true, true));
    assert_eq!(finding.status, Status::Fail);
    assert!(!finding.hint.contains("uninstall"), "{}", finding.hint);
    assert!(
        finding.hint.contains("since xgboost requires it"),
        "{}",
        finding.hint
    );
}

#[test]
fn the_right_copy_is_information() {
    for with_xgboost in [false, true] {
        let finding = one(&two(200, with_xgboost, true));
        assert_eq!((finding.status, finding.hint.as_str()), (Status::Info, ""));
    }
}

#[test]
fn what_sizes_do_not_tell_is_a_warning() {
    let finding = one(&two(150, false, true));
    assert_eq!(finding.status, Status::Warn);
    assert!(
        finding.message.contains("cannot be determined"),
        "{}",
        finding.message
    );
}

#[test]
fn a_library_that_nothing_maps_is_a_warning_unless_the_manifest_decides() {
    // Pinned by a package that the manifest names, by one that it does not name.
    assert_eq!(one(&two(100, false, false)).status, Status::Fail);
    let mut other = two(100, false, false);
    other.image.distributions[0].name = "other".into();
    assert_eq!(one(&other).status, Status::Warn);
    other.image.loaded = vec![mapped(NCCL)];
    assert_eq!(one(&other).status, Status::Fail);
    let mut stack = stack();
    stack.packages.push(rule("onnxruntime-gpu", "*"));
    let facts = image(|i| {
        i.distributions = vec![dist("onnxruntime", "1.20.1"), dist("onnxruntime-gpu", "1.20.1")];
        let owners = [
            owner("onnxruntime", "1.20.1", 1),
            owner("onnxruntime-gpu", "1.20.1", 2),
        ];
        i.owned = vec![file("onnxruntime/capi/x.so", 1, &owners)];
    });
    let findings = judge(&ImageContext::new(&stack, &facts.image));
    assert_eq!(findings[0].status, Status::Fail, "{findings:#?}");
}

#[test]
fn files_of_the_same_owners_are_one_finding() {
    let mut facts = two(100, false, true);
    let owners = facts.image.owned[0].owners.clone();
    for number in 0..9 {
        facts
            .image
            .owned
            .push(file(&format!("nvidia/x/lib/lib{number}.so"), 100, &owners));
    }
    let finding = one(&facts);
    assert!(finding.message.contains("10 libraries ("), "{}", finding.message);
    assert!(finding.observed.contains("lib8.so"), "{}", finding.observed);
}

#[test]
fn a_stripped_library_is_information() {
    let facts = image(|i| {
        i.owned = vec![
            file(NCCL, 90, &[owner("nvidia-nccl-cu12", "2.21.5", 100)]),
            file("torch/lib/a.so", 7, &[owner("torch", "2.5.0", 8)]),
            file("torch/lib/b.so", 7, &[owner("torch", "2.5.0", 9)]),
        ];
    });
    let findings = judged(&facts);
    let all = of(&findings, Code::FileOwner);
    assert_eq!(all, [(Status::Info, "nvidia-nccl-cu12"), (Status::Info, "torch")]);
    assert_eq!(
        findings[1].observed,
        "torch/lib/a.so: 7 bytes, recorded 8; torch/lib/b.so: 7 bytes, recorded 9"
    );
}

#[test]
fn libraries_that_have_nothing_to_do_with_cuda_are_not_judged() {
    let facts = image(|i| {
        let owners = [
            owner("opencv-python", "4.10", 1),
            owner("opencv-python-headless", "4.10", 2),
        ];
        i.owned = vec![file("cv2/cv2.abi3.so", 1, &owners)];
    });
    assert_eq!(judged(&facts), []);
}

#[test]
fn versions_of_one_name_are_told_by_their_library() {
    let facts = image(|i| {
        let owners = [
            owner("nvidia-nccl-cu12", "2.20.5", 1),
            owner("nvidia-nccl-cu12", "2.21.5", 2),
        ];
        i.owned = vec![file(NCCL, 2, &owners)];
    });
    let stack = stack();
    let scene = ImageContext::new(&stack, &facts.image);
    assert_eq!(version_in_place(&scene, "nvidia-nccl-cu12"), Some("2.21.5"));
    assert_eq!(judge(&scene), []);
}
