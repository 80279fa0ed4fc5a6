//! The pages of `explain`: what a person wrote about a finding, src/check/explain/CODE.md, and around it what the
//! catalogue's row says.

use super::{Code, Severity};
use crate::text::wrap;

const WIDTH: usize = 100;
/// What a page begins with after its introduction, and ends with where it has something of its own to say.
const WHY: &str = "**Why it matters.**";
const WRONG: &str = "**If it is wrong.**";

/// The page of `explain CODE`: what it means, why it matters, how to fix it. Markdown.
pub fn explain(code: Code) -> String {
    // A test sees to it that every code has a page.
    let page = crate::packed::page(code.name()).unwrap_or_else(|| format!("{}\n\n{WHY}\n", code.summary()));
    let (introduction, rest) = page.split_once(WHY).unwrap_or((&page, ""));
    let (rest, own) = rest.split_once(WRONG).unwrap_or((rest, ""));
    let wrong = wrap(&format!("{WRONG} {own} {}", overriding(code)), WIDTH);
    format!(
        "# {code}\n\n{}\n\n{}\n\n{WHY}{}\n\n{wrong}\n",
        introduction.trim_end(),
        wrap(&facts(code), WIDTH),
        rest.trim_end()
    )
}

/// What the row says.
fn facts(code: Code) -> String {
    let exit = code.exit_code();
    let exception = match code.exception() {
        "" => String::new(),
        exception => format!("; {exception}"),
    };
    format!(
        "Stage: {}. Default: {}{exception}. Exit code: {} ({}).",
        code.stage().name(),
        code.severity().name(),
        exit.code(),
        exit.who()
    )
}

/// How to give the finding another weight than its row.
fn overriding(code: Code) -> String {
    let exit = code.exit_code().code();
    let accept = match code.accepted_by() {
        [] => String::new(),
        keys => format!(
            " An exception for one {} belongs in the manifest, with its reason: `accept`.",
            keys.join(" or ")
        ),
    };
    let overriding = match code.severity() {
        Severity::Fail => format!(
            "Start the service anyway with `--warn {code}` (or `CUDA_ENTRYPOINT_WARN={code}`, a comma-separated list); \
             `--allow {code}` (`CUDA_ENTRYPOINT_ALLOW`) reports it as information."
        ),
        Severity::Warn => format!(
            "`--allow {code}` (or `CUDA_ENTRYPOINT_ALLOW={code}`, a comma-separated list) reports it as information; `--deny {code}` \
             (`CUDA_ENTRYPOINT_DENY`) makes it a failure with exit code {exit}."
        ),
        Severity::Info => format!(
            "`--warn {code}` (or `CUDA_ENTRYPOINT_WARN={code}`, a comma-separated list) makes it a warning; `--deny {code}` \
             (`CUDA_ENTRYPOINT_DENY`) makes it a failure with exit code {exit}."
        ),
    };
    overriding + &accept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page is found by its code's name, fits a terminal, says all that a person needs, and leaves to the row what
    /// the row says.
    #[test]
    fn every_code_has_a_page_and_the_row_is_not_repeated_there() {
        for code in Code::all() {
            let own = crate::packed::page(code.name())
                .unwrap_or_else(|| panic!("src/check/explain/{code}.md is not there"));
            assert!(!own.starts_with('#'), "{code}: the heading is printed");
            for printed in ["Stage: ", "Default: "] {
                assert!(
                    !own.lines().any(|line| line.starts_with(printed)),
                    "{code}: `{printed}` is printed from the row of src/check/catalogue.rs"
                );
            }
            let page = explain(code);
            for part in [WHY, "**What was compared.**", "**How to fix it.**", WRONG] {
                assert_eq!(page.matches(part).count(), 1, "{code}: {part}");
            }
            let order = [
                page.find("\nStage: "),
                page.find(WHY),
                page.find("**What was compared.**"),
                page.find("**How to fix it.**"),
                page.find(WRONG),
            ];
            assert!(order.is_sorted(), "{code}: {order:?}");
            assert!(
                (15..=50).contains(&page.lines().count()),
                "{code}: {} lines",
                page.lines().count()
            );
            for line in page.lines() {
                assert!(line.chars().count() <= WIDTH, "{code}: {line}");
            }
            assert_eq!(
                page.matches("```").count() % 2,
                0,
                "{code}: a fence is not closed"
            );
            assert!(!page.contains("\n\n\n"), "{code}: two empty lines");
        }
    }

    #[test]
    fn the_row_stands_on_the_page() {
        let page = explain(Code::EditableTrap);
        assert!(page.starts_with("# editable-trap\n\n"), "{page}");
        let facts = "\n\nStage: image. Default: fail; warn if the manifest sets both JIT variables. Exit code: 81 (image\nbuilder).\n\n";
        assert!(page.contains(facts), "{page}");
        for (code, sentence) in [
            (Code::EditableTrap, "`--warn editable-trap`"),
            (Code::ArchUnlisted, "makes it a failure with exit code 83."),
            (
                Code::ShmSmall,
                "`--warn shm-small` (or `CUDA_ENTRYPOINT_WARN=shm-small`",
            ),
        ] {
            let page = explain(code);
            let last = page.rsplit("\n\n").next().unwrap().replace('\n', " ");
            assert!(last.starts_with(WRONG) && last.contains(sentence), "{last}");
        }
    }

    /// `explain OTHER` and names in backquotes lead somewhere.
    #[test]
    fn pages_name_codes_that_exist() {
        for code in Code::all() {
            for rest in explain(code).split("`explain ").skip(1) {
                let name = rest.split('`').next().unwrap();
                assert!(name.parse::<Code>().is_ok(), "{code}: explain {name}");
            }
            for option in ["--allow ", "--warn ", "--deny "] {
                for rest in explain(code).split(option).skip(1) {
                    assert!(rest.starts_with(code.name()), "{code}: {option}{rest:.30}");
                }
            }
        }
    }
}
