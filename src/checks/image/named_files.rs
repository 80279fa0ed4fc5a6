//! `file-missing`.

use super::{ImageContext, listed};
use crate::check::{Code, Finding};

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    scene
        .stack
        .files
        .iter()
        .map(|name| {
            let looked_for = scene.image.files.iter().find(|file| file.name == *name);
            match looked_for.map(|file| &file.path) {
                Some(Some(path)) => Finding::pass(Code::FileMissing, name)
                    .observed(path)
                    .required("the file in site-packages")
                    .message(format!("{name} is there")),
                Some(None) => missing(scene, name),
                None => Finding::unknown(Code::FileMissing, name)
                    .required("the file in site-packages")
                    .message(format!("{name} was not looked for")),
            }
        })
        .collect()
}

/// The manifest's `libraries`: each pattern has to name a file.
pub fn libraries(scene: &ImageContext<'_>) -> Vec<Finding> {
    let named = &scene.image.named_libraries;
    let empty = named.iter().filter(|named| named.paths.is_empty());
    let mut findings: Vec<Finding> = empty
        .map(|named| {
            let pattern = &named.pattern;
            Finding::problem(Code::FileMissing, pattern)
                .observed("no file")
                .required("a library or program by this path")
                .message(format!("no file matches {pattern}"))
                .hint("Correct the path in the manifest's `libraries`, or put the file into the image.")
        })
        .collect();
    let paths: Vec<String> = named
        .iter()
        .flat_map(|named| named.paths.iter().cloned())
        .collect();
    if findings.is_empty() && !paths.is_empty() {
        findings.push(
            Finding::pass(Code::FileMissing, "libraries")
                .observed(listed(&paths, 8))
                .required("a library or program for each pattern")
                .message(format!(
                    "libraries: {} {} there",
                    paths.len(),
                    if paths.len() == 1 { "is" } else { "are" }
                )),
        );
    }
    findings
}

fn missing(scene: &ImageContext<'_>, name: &str) -> Finding {
    let folders = listed(&scene.image.python.site_packages, 8);
    // The import name is as near as a path comes to the package that should have brought it.
    let owner = name.split('/').next().unwrap_or_default();
    Finding::problem(Code::FileMissing, name)
        .observed(format!("not in {folders}"))
        .required("the file in site-packages")
        .message(format!("{name} is in no site-packages folder"))
        .hint(format!(
            "Reinstall the package that brings {owner}/ in the version that has this file, and see that no later \
             Dockerfile step removes headers or sources."
        ))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;

    #[test]
    fn there_gone_and_never_looked_for() {
        for (files, status) in [
            (
                vec![named("cumm/include/tensorview/core/all.h", true)],
                Status::Pass,
            ),
            (
                vec![named("cumm/include/tensorview/core/all.h", false)],
                Status::Fail,
            ),
            (vec![], Status::Unknown),
        ] {
            let findings = judge(&ImageContext::new(
                &stack(),
                &image(|i| i.files = files.clone()).image,
            ));
            let expected = [(status, "cumm/include/tensorview/core/all.h")];
            assert_eq!(of(&findings, Code::FileMissing), expected);
        }
    }
}
