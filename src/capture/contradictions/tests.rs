use std::collections::BTreeMap;

use super::super::tests::{copy, dist, facts, failures, failures_of, made};
use super::*;
use crate::capture::contradictions;
use crate::check::Severity;
use crate::facts::{Distribution, LibraryKind};

fn spconv_refuses(image: &mut ImageFacts) {
    let spconv = image
        .distributions
        .iter_mut()
        .find(|d| d.name == "spconv-cu124")
        .unwrap();
    spconv.requires = vec!["cumm-cu124<0.8.0,>=0.7.11".into()];
    let cumm = image
        .distributions
        .iter_mut()
        .find(|d| d.name == "cumm-cu124")
        .unwrap();
    cumm.version = "0.8.2".into();
}

fn version(captured: &Captured, name: &str) -> String {
    let rule = captured
        .stack
        .packages
        .iter()
        .find(|rule| rule.name == name)
        .unwrap();
    rule.version()
}

#[test]
fn a_pair_that_refuses_each_other_is_told_and_not_pinned() {
    let (found, captured) = failures_of(spconv_refuses);
    let codes: Vec<_> = found.iter().map(|f| (f.code, f.subject.as_str())).collect();
    assert_eq!(codes, [(Code::RequiresDist, "spconv-cu124")]);
    // The manifest must not pass what it says.
    let facts = facts(spconv_refuses);
    let judged = image::judge(&captured.stack, captured.stack.archs.as_ref(), &facts);
    assert!(
        judged.iter().any(|f| f.code == Code::RequiresDist && f.failed()),
        "{:?}",
        captured.stack
    );
    assert_eq!(version(&captured, "spconv-cu124"), "==2.3.8");
    let note = captured.notes().find(|note| note.contains("is not pinned"));
    assert_eq!(note.is_some(), version(&captured, "cumm-cu124") == "*");
    assert_eq!(
        exception(&found[0], &facts.image).unwrap(),
        r#""accept": [{"code": "requires-dist", "package": "cumm-cu124", "reason": "why it works here"}]"#
    );
}

#[test]
fn what_is_accepted_is_pinned() {
    for severity in [Severity::Info, Severity::Warn] {
        let facts = facts(spconv_refuses);
        let mut captured = made(&facts, &BTreeMap::new()).unwrap();
        let overrides = Overrides(BTreeMap::from([(Code::RequiresDist, severity)]));
        assert_eq!(contradictions(&mut captured, &[], &overrides, &facts), []);
        assert_eq!(version(&captured, "cumm-cu124"), "==0.8.2");
    }
}

#[test]
fn two_of_one_name_and_another_torch_fail() {
    let twice = |i: &mut ImageFacts| {
        let other = Distribution {
            path: i
                .distributions
                .last()
                .unwrap()
                .path
                .replace("torch-scatter-2", "torch_scatter-2"),
            ..dist("torch-scatter", "2.1.1")
        };
        i.distributions.push(other);
    };
    assert!(
        failures(twice).contains(&"package-duplicate"),
        "{:?}",
        failures(twice)
    );
    let other_torch = |i: &mut ImageFacts| {
        i.distributions.push(Distribution {
            requires: vec!["torch (==2.6.0)".into()],
            ..dist("torchvision", "0.21.0")
        });
    };
    let (found, captured) = failures_of(other_torch);
    assert_eq!(found[0].code, Code::RequiresDist, "{found:?}");
    assert_eq!(version(&captured, "torchvision"), "==0.21.0");
    let judged = image::judge(&captured.stack, None, &facts(other_torch));
    assert!(judged.iter().any(|f| f.code == Code::RequiresDist && f.failed()));
}

/// Copies of libcudart that are of two major versions leave `cuda.runtime` out, and tags are held against torch all the
/// same; of one major version they make a range.
#[test]
fn tags_are_judged_where_the_libraries_disagree() {
    let with = |copied: (u16, u16), tag: &str| {
        let version = format!("2.1.2+pt25{tag}");
        failures(|i| {
            i.libraries
                .push(copy(LibraryKind::Cudart, "/sp/c/libcudart.so", Some(copied)));
            let scatter = i
                .distributions
                .iter_mut()
                .find(|d| d.name == "torch-scatter")
                .unwrap();
            scatter.version = version;
        })
    };
    assert_eq!(with((13, 0), "cu130"), ["package-cuda-tag"]);
    assert_eq!(with((13, 0), "cu124"), [""; 0]);
    let beside = failures(|i| {
        i.libraries
            .push(copy(LibraryKind::Cudart, "/sp/c/libcudart.so", Some((13, 0))));
        i.distributions.push(dist("faiss-gpu-cu13", "1.14.1"));
    });
    assert_eq!(beside, [""; 0]);
    assert_eq!(with((12, 1), "cu118"), ["package-cuda-tag"]);
    assert_eq!(with((12, 1), "cu121"), [""; 0]);
}

#[test]
fn a_damaged_library_is_told_although_no_version_is_known() {
    let broken = |i: &mut ImageFacts| {
        i.libraries = vec![copy(LibraryKind::Cudart, "/sp/a/libcudart.so.12", None)];
    };
    let facts = facts(broken);
    let probe = crate::capture::probe().unwrap();
    let probed = image::judge(&probe, probe.archs.as_ref(), &facts);
    let mut captured = made(&facts, &BTreeMap::new()).unwrap();
    let found = contradictions(&mut captured, &probed, &Overrides::default(), &facts);
    assert_eq!(found[0].code, Code::CudartVersion, "{found:?}");
    assert!(
        exception(&found[0], &facts.image)
            .unwrap()
            .contains(r#""library": "/sp/a/libcudart.so.12""#)
    );
}

/// One entry per library would hide that it is nowhere.
#[test]
fn what_is_nowhere_has_no_entry() {
    let facts = facts(|_| ());
    let missing = |subject: &str, parties: &[&str]| {
        let finding = Finding::problem(Code::LibraryMissing, subject);
        exception(&finding.with(parties.iter().copied()), &facts.image)
    };
    assert_eq!(missing("libcublasLt.so.12", &["libcublasLt.so.12"]), None);
    assert_eq!(missing("libcublasLt.so.12", &[]), None);
    assert_eq!(missing("torch", &["libcublasLt.so.12"]), None);
    let of_package = missing("libcublasLt.so.12", &["libcublasLt.so.12", "torch"]);
    assert_eq!(
        of_package.unwrap(),
        r#""accept": [{"code": "library-missing", "package": "torch", "reason": "why it works here"}]"#
    );
}
