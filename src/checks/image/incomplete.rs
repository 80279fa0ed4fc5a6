//! `package-incomplete`: files of an installed package are gone, or its metadata says nothing.

use super::ImageContext;
use crate::check::{Code, Finding, Severity};
use crate::facts::Distribution;
use crate::text::{counted, verb};

/// How many files a finding names.
const NAMED: usize = 3;

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    scene
        .stack
        .packages
        .iter()
        .filter_map(|rule| scene.installed.get(rule.normalized.as_str()))
        .filter(|dist| dist.missing_count > 0)
        .map(|dist| incomplete(dist))
        .chain(
            scene
                .image
                .distributions
                .iter()
                .filter_map(|dist| speechless(scene, dist)),
        )
        .collect()
}

/// A package whose metadata is not there, empty, or no metadata: whatever it would have said passes unjudged.
fn speechless(scene: &ImageContext<'_>, dist: &Distribution) -> Option<Finding> {
    // What this user could not read is told by itself.
    let told = |problem: &&String| problem.contains("(os error ") && !problem.contains("(os error 2)");
    let problem = dist.problems.iter().find(|problem| !told(problem))?;
    let severity = match scene.rule(&dist.name) {
        Some(_) => Code::PackageIncomplete.severity(),
        None => Severity::Warn,
    };
    let name = if dist.name.is_empty() {
        &dist.path
    } else {
        &dist.name
    };
    Some(
        Finding::problem_as(Code::PackageIncomplete, severity, name)
            .observed(problem)
            .required("metadata with a name and a version")
            .message(format!("the metadata of {name} cannot be judged: {problem}"))
            .hint(format!(
                "In the Dockerfile: pip install --force-reinstall --no-deps {name}, or remove {} if it is a leftover.",
                dist.path
            )),
    )
}

fn incomplete(dist: &Distribution) -> Finding {
    let count = dist.missing_count;
    // The facts name the first few alone, and count them all.
    let named = dist.missing.get(..NAMED).unwrap_or(&dist.missing);
    let files = match count.saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    };
    Finding::problem(Code::PackageIncomplete, dist.name.clone())
        .observed(format!("{files}: not there"))
        .required(format!("the libraries and packages that {}/RECORD lists", dist.path))
        .message(format!(
            "{} of {} {} that its RECORD lists {} not there: {files}",
            counted(count, "file"),
            dist.name,
            dist.version,
            verb(count, "is", "are")
        ))
        .hint(format!(
            "In the Dockerfile: pip install --force-reinstall --no-deps '{}=={}', and no later step that removes its files. \
             If they were removed on purpose, to save space: --warn package-incomplete.",
            dist.name, dist.version
        ))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;

    fn with(missing: &[&str], count: usize) -> Vec<Finding> {
        let facts = image(|i| {
            let torch = dist_mut(i, "torch");
            torch.missing = missing.iter().map(ToString::to_string).collect();
            torch.missing_count = count;
            // Not one of the manifest's.
            dist_mut(i, "numpy").missing_count = 1;
        });
        judge(&ImageContext::new(&stack(), &facts.image))
    }

    #[test]
    fn what_is_whole_is_not_spoken_of() {
        assert_eq!(with(&[], 0), []);
    }

    #[test]
    fn the_first_three_are_named_and_all_are_counted() {
        let found = with(&["torch/_C.so"], 1);
        assert_eq!(of(&found, Code::PackageIncomplete), [(Status::Fail, "torch")]);
        assert_eq!(
            found[0].message,
            "1 file of torch 2.5.0 that its RECORD lists is not there: torch/_C.so"
        );
        assert!(
            found[0].hint.contains("--no-deps 'torch==2.5.0'"),
            "{}",
            found[0].hint
        );
        let three = with(&["a", "b", "c"], 3);
        assert!(
            three[0].message.ends_with("not there: a, b, c"),
            "{}",
            three[0].message
        );
        let many = with(&["a", "b", "c", "d"], 90);
        assert_eq!(
            many[0].message,
            "90 files of torch 2.5.0 that its RECORD lists are not there: a, b, c and 87 more"
        );
    }

    #[test]
    fn facts_that_count_more_than_they_name_are_borne() {
        assert!(with(&[], 5)[0].message.starts_with("5 files"));
    }
}
