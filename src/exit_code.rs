//! The exit codes: one row each, with what it means and who must act.
//!
//! Help, the report's schema and the catalogue of findings take the numbers from here, and a test below holds the tables
//! of docker/reference.md and docker/kubernetes against these rows. 64, 70, 73, 74 and 78 mean what sysexits.h says; the others
//! avoid the numbers that Docker and shells use for themselves.

use std::fmt::Write as _;

/// Declares the codes.
macro_rules! exit_codes {
    ($($(#[doc = $doc:literal])* $variant:ident $code:literal $who:literal $retry:ident;)*) => {
        /// Why a process of this program ended.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum ExitCode { $($(#[doc = $doc])* $variant,)* }

        impl ExitCode {
            /// All codes in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The one with this number, if there is one.
            pub fn of(code: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|exit| exit.code() == code)
            }

            /// The number.
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// What it means, in a few words.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// Who must act; empty where no action is needed.
            pub fn who(self) -> &'static str {
                match self { $(Self::$variant => $who,)* }
            }

            /// Whether the same image with the same settings could succeed at another attempt.
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }
        }
    };
}

/// Whether another attempt of the same image with the same settings could succeed. The pod failure policy of
/// docker/kubernetes/job.yaml follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// it succeeded, or no service is started by the commands that end so
    NoService,
    /// every node would end in the same way
    Never,
    /// the node is the reason
    OtherNode,
}

exit_codes! {
    /// all checks passed (check); otherwise the service's own code
    Passed 0 "" NoService;
    /// invalid usage
    Usage 64 "caller" Never;
    /// a resource limit, or an internal error
    Software 70 "operator, or report a bug" Never;
    /// install cannot write its files
    CantCreate 73 "caller" NoService;
    /// standard output cannot be written
    Output 74 "caller" NoService;
    /// invalid manifest or variable
    Config 78 "author of the manifest or variable" Never;
    /// the image is not the stack it claims to be
    Image 81 "image builder" Never;
    /// no usable driver or GPU here
    Node 82 "operator" OtherNode;
    /// this image does not support this GPU's architecture
    NodeType 83 "scheduler: another node type" OtherNode;
    /// the smoke test failed for a reason in the software
    Smoke 84 "image builder or service author" Never;
    /// a deadline expired
    Deadline 85 "operator" OtherNode;
    /// the service command cannot be executed
    NotExecutable 126 "caller" Never;
    /// the service command is not found
    NotFound 127 "caller" Never;
}

/// The rows as people read them: code, meaning, who acts. The last one stands for every signal.
pub fn rows() -> impl Iterator<Item = [String; 3]> {
    ExitCode::ALL
        .iter()
        .map(|exit| [exit.code().to_string(), exit.meaning().into(), exit.who().into()])
        .chain([[
            "128+N".into(),
            "signal N ended it during the checks (SIGTERM: 143)".into(),
            String::new(),
        ]])
}

/// The table of `--help`.
pub fn table() -> String {
    let width = ExitCode::ALL
        .iter()
        .map(|exit| exit.meaning().len())
        .max()
        .unwrap_or(0)
        + 2;
    let mut text = "exit codes, one for each party who must act:\n".to_string();
    for [code, meaning, who] in rows() {
        let line = format!("{code:<7}{meaning:<width$}{who}");
        let _ = writeln!(text, "  {}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a Markdown table whose first column is headed `heading`, without that heading.
    fn table_of(document: &str, heading: &str) -> Vec<String> {
        let start = format!("| {heading} | ");
        let rows = document
            .lines()
            .skip_while(|line| !line.starts_with(&start))
            .skip(2);
        rows.take_while(|line| line.starts_with('|'))
            .map(str::to_string)
            .collect()
    }

    #[test]
    fn the_numbers_are_in_order_and_below_those_of_signals() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|exit| exit.code()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(numbers.iter().all(|n| *n < 128), "{numbers:?}");
    }

    #[test]
    fn the_table_of_the_reference_is_this_one() {
        let expected: Vec<String> = rows()
            .map(|[code, meaning, who]| format!("| {code} | {meaning} | {who} |").replace("  |", " |"))
            .collect();
        assert_eq!(
            table_of(include_str!("../docker/reference.md"), "code"),
            expected,
            "the table of docker/reference.md should be:\n{}",
            expected.join("\n")
        );
    }

    #[test]
    fn kubernetes_retries_what_another_node_could_change() {
        let with = |retry| -> Vec<String> {
            let codes = ExitCode::ALL.iter().filter(|exit| exit.retry() == retry);
            codes.map(|exit| exit.code().to_string()).collect()
        };
        let (never, other_node) = (with(Retry::Never), with(Retry::OtherNode));
        let lists = |document: &str| -> Vec<String> {
            let lists = document.lines().filter_map(|line| {
                let values = line.split_once("values: [")?.1.split_once(']')?.0;
                values
                    .starts_with(|c: char| c.is_ascii_digit())
                    .then(|| values.to_string())
            });
            lists.collect()
        };
        assert_eq!(
            lists(include_str!("../docker/kubernetes/job.yaml")),
            [never.join(", "), other_node.join(", ")],
            "FailJob, Count"
        );
        assert_eq!(
            lists(include_str!("../docker/kubernetes/jobset.yaml")),
            [never.join(", ")],
            "FailJob"
        );
        // Another attempt in the same place never helps against the type of the node.
        let in_place: Vec<&str> = other_node
            .iter()
            .map(String::as_str)
            .filter(|code| *code != "83")
            .collect();
        assert_eq!(
            lists(include_str!(
                "../docker/kubernetes/components/restart-rules/kustomization.yaml"
            )),
            [in_place.join(", ")],
            "Restart"
        );
        let node = format!("  {}) result=1 ;;", other_node.join(" | "));
        assert!(
            include_str!("../docker/validator/gpu-node-check")
                .lines()
                .any(|line| line == node),
            "docker/validator/gpu-node-check has no line `{node}`"
        );
        let readme = table_of(include_str!("../docker/kubernetes/README.md"), "exit code");
        let mut explained: Vec<u8> = readme
            .iter()
            .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
            .map(|code| code.trim().parse().unwrap())
            .collect();
        explained.sort_unstable();
        let all = [never, other_node].concat();
        let mut all: Vec<u8> = all.iter().map(|code| code.parse().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(explained, all, "the table of docker/kubernetes/README.md");
    }
}
