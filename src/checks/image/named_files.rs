//! `file-missing`: the manifest's files, and the programs of its own commands.

use super::{ImageContext, listed};
use crate::check::{Code, Finding};
use crate::facts::NamedFile;
use crate::stack::SmokeEntry;
use crate::stack::is_interpreter;
use crate::text::counted;

/// Programs that are not there. That there is no interpreter at all is told by `python-missing`.
pub fn programs(scene: &ImageContext<'_>) -> Vec<Finding> {
    let python = &scene.image.python;
    let is_told = |name: &str| python.interpreter.is_none() && is_interpreter(name);
    let programs = scene.image.programs.iter();
    programs
        .filter(|program| program.path.is_none() && !is_told(&program.name))
        .map(|program| without_program(scene, program))
        .collect()
}

fn without_program(scene: &ImageContext<'_>, program: &NamedFile) -> Finding {
    let name = &program.name;
    let runs_it = |entry: &&SmokeEntry| match entry {
        SmokeEntry::Command { argv, .. } => argv.first() == Some(name),
        SmokeEntry::Builtin(_) | SmokeEntry::Native(_) => false,
    };
    let entries = scene.stack.smoke.iter().filter(runs_it);
    let entries: Vec<String> = entries.map(|entry| entry.name().to_string()).collect();
    let place = match name.contains('/') {
        true => "there is no such executable file",
        false => "no folder of PATH has an executable file of this name",
    };
    let hint = match is_interpreter(name) {
        true => {
            "Write \"python\" as the first word of its argv: it stands for the interpreter of the environment that is \
             checked, wherever the image has it."
        }
        false => {
            "Put the program into the image, or correct the argv of the entry in the manifest's `smoke`."
        }
    };
    Finding::problem(Code::FileMissing, name)
        .observed(place)
        .required("a program that can be executed")
        .message(format!(
            "{name}, which the smoke {} runs, is not in the image: {place}",
            listed(&entries, 4)
        ))
        .hint(hint)
}

/// The manifest's `files`.
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
                .hint(match named.directory {
                    true => format!(
                        "It is a directory: name the files in it, such as {}/*.so.",
                        pattern.trim_end_matches('/')
                    ),
                    false => {
                        "Correct the path in the manifest's `libraries`, or put the file into the image."
                            .to_string()
                    }
                })
        })
        .collect();
    findings.extend(named.iter().filter(|named| named.cut).map(|named| {
        let (pattern, count) = (&named.pattern, named.paths.len());
        Finding::problem(Code::FileMissing, pattern)
            .observed(format!("more than {count} files"))
            .required("patterns whose files can all be judged")
            .message(format!(
                "{pattern} matches more than {count} files, and the rest was not judged"
            ))
            .hint("Name the libraries that the service loads, in several patterns of fewer files each.")
    }));
    let paths: Vec<String> = named
        .iter()
        .flat_map(|named| named.paths.iter().cloned())
        .collect();
    if findings.is_empty() && !paths.is_empty() {
        findings.push(
            Finding::pass(Code::FileMissing, "libraries")
                .observed(listed(&paths, 8))
                .required("a library or program for each pattern")
                .message(format!("libraries: {} found", counted(paths.len(), "file"))),
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

    #[test]
    fn the_program_of_a_command_has_to_be_there() {
        let judged = |argv: &[&str], path: Option<&str>, interpreter: Option<&str>| {
            let mut stack = stack();
            stack.smoke = vec![command(argv)];
            let facts = image(|i| {
                i.python.interpreter = interpreter.map(String::from);
                i.programs = vec![NamedFile {
                    name: argv[0].to_string(),
                    path: path.map(String::from),
                }];
            });
            programs(&ImageContext::new(&stack, &facts.image))
        };
        let python = Some("/opt/venv/bin/python");
        assert_eq!(judged(&["selftest"], Some("/usr/bin/selftest"), python), []);
        let findings = judged(&["selftest", "--all"], None, python);
        assert_eq!(of(&findings, Code::FileMissing), [(Status::Fail, "selftest")]);
        assert!(findings[0].message.contains("in the image"), "{findings:?}");
        // Captured on another machine.
        let findings = judged(&["/home/a/.venv/bin/python", "-c", "import x"], None, python);
        assert!(findings[0].hint.starts_with("Write \"python\""), "{findings:?}");
        // That there is none is `python-missing`.
        assert_eq!(judged(&["python", "-m", "x"], None, None), []);
    }
}
