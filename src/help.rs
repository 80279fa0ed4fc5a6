//! Help that a person can learn from. The options come from [`crate::cli::OPTIONS`].

use std::fmt::Write as _;

use crate::check::{Code, Stage};
use crate::cli::{OPTIONS, OptionSpec, PREFIX};

/// `--help`
pub fn overview() -> String {
    format!(
        "\
cuda-entrypoint {version}
Proves that a CUDA image, its driver and its GPU fit together, then becomes the service.

usage:
  cuda-entrypoint run   [OPTIONS] -- COMMAND [ARG]...   check, then exec COMMAND
  cuda-entrypoint check [OPTIONS] [--stage STAGE]       check, print, exit
  cuda-entrypoint kernels [--archs LIST] [--json] PATH...
                                                        which SASS and PTX architectures a library carries
  cuda-entrypoint explain [CODE]                        what a finding means and how to mend it
  cuda-entrypoint stack show [--json]                   the manifest in force
  cuda-entrypoint stack capture [--python PATH]         a manifest made from this environment
  cuda-entrypoint schema stack|report                   the JSON Schema of the manifest, of the report
  cuda-entrypoint install DIR                           this binary and its helper as files
  cuda-entrypoint help COMMAND                          the options of a command

in a Dockerfile:
  RUN cuda-entrypoint check --stage image
  ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]

{exits}
break-glass: {PREFIX}MODE=warn reports and starts the service anyway, {PREFIX}MODE=off looks at nothing.
",
        version = env!("CARGO_PKG_VERSION"),
        exits = EXIT_CODES,
    )
}

const EXIT_CODES: &str = "\
exit codes, one for each party who must act:
   0      all checks passed (check); otherwise the service's own code
  64      bad usage                                          the caller
  78      a bad manifest or variable                         its author
  70      a fault of cuda-entrypoint                         us
  81      the image is not the stack it claims to be         the image's builder
  82      no usable driver or GPU here                       the operator
  83      this image does not support this GPU               the scheduler: another node type
  84      the smoke failed for a reason in the software      the image's builder
  85      a deadline passed                                  the operator
  126     the service command cannot be executed             the caller
  127     the service command is not found                   the caller
  128+N   signal N ended it during the checks
";

/// `--help` of one command.
pub fn command(name: &str) -> String {
    match name {
        "run" => format!(
            "\
usage: cuda-entrypoint run [OPTIONS] -- COMMAND [ARG]...

Checks image, driver, GPU and architecture, runs the manifest's smoke, sets its variables and becomes COMMAND: same
process, no descriptor, signal mask or child left behind. Writes to stderr alone: warnings, that a smoke starts, and one
line when all holds; else what fails and what to do.

Every option has a variable: --device-timeout is {PREFIX}DEVICE_TIMEOUT. A flag beats its variable, a
variable beats the manifest. An empty variable is as good as none.

{options}{EXIT_CODES}",
            options = options()
        ),
        "check" => format!(
            "\
usage: cuda-entrypoint check [OPTIONS] [--stage STAGE] [-- COMMAND...]

Checks, prints a table (or with --format json the report) on stdout, and exits with the code of the first stage that
failed. After a failed stage the next ones are looked at all the same. COMMAND is not run: it only tells which Python
the service would use.

  --stage STAGE        image   files of the image; needs no GPU: for the end of a Dockerfile
                       device  driver, GPUs, architecture
                       smoke   what the manifest says is to be run, and nothing else
                       all     everything (default)
                       health  NVML and the driver's device nodes, not CUDA: for exec probes
  --json               as --format json

{options}{EXIT_CODES}",
            options = options()
        ),
        "kernels" => "\
usage: cuda-entrypoint kernels [--archs LIST] [--json] PATH...

Prints which SASS and PTX architectures each CUDA library carries, and how many of its fatbins serve each architecture
of LIST (default: the stack's). PATH is a file, or a folder that is searched for shared libraries. Needs no GPU and no
CUDA toolkit.

  --archs LIST         as TORCH_CUDA_ARCH_LIST: 7.5;8.0;9.0
  --json               one JSON object
"
        .to_string(),
        "explain" => "\
usage: cuda-entrypoint explain [CODE]

Without CODE the list of findings; with it, what the finding means, how it was judged and how to mend it.
"
        .to_string(),
        "stack" => "\
usage: cuda-entrypoint stack show [--stack FILE] [--archs LIST] [--json]
       cuda-entrypoint stack capture [--python PATH] [-- COMMAND...]

show prints the manifest in force: --stack, else CUDA_ENTRYPOINT_STACK, else /etc/cuda-entrypoint/stack.json, else the
embedded one. --json prints it as JSON, to start a manifest of one's own from.

capture prints a manifest made from this environment, which then passes `check --stage image` here: versions of the
CUDA libraries as they answer themselves, the architectures that all kernels serve by SASS, Python, and the packages of
the CUDA stack with their exact versions. What had to be left out is said on stderr. It looks at the Python of --python,
else of COMMAND (which is not run), VIRTUAL_ENV, CONDA_PREFIX, PATH. Exit code 81: there is nothing of CUDA, or
something fails that no manifest can allow.

  cuda-entrypoint stack capture > stack.json
  cuda-entrypoint check --stage image --stack stack.json

  --python PATH         interpreter or environment folder
  --device-timeout DURATION
                        deadline of the libraries' answers (default: 60s)
  --helper-path FILE    run this copy of the helper
"
        .to_string(),
        "schema" => "\
usage: cuda-entrypoint schema stack|report

Prints the JSON Schema (draft 2020-12) of the manifest or of the report.
"
        .to_string(),
        "install" => "\
usage: cuda-entrypoint install DIR

Writes cuda-entrypoint and cuda-helper into DIR, which is made if it is not there: an emptyDir that the container of an
image without this binary mounts as well, or a folder on disk for --helper-path. Prints what it wrote.
"
        .to_string(),
        _ => overview(),
    }
}

/// The options, grouped as in the table.
fn options() -> String {
    let mut text = String::new();
    let mut group = "";
    let width = OPTIONS.iter().map(|o| left_column(o).len()).max().unwrap_or(0) + 2;
    for option in OPTIONS {
        if option.group != group {
            group = option.group;
            let _ = writeln!(text, "{group}:");
        }
        let left = left_column(option);
        let default = match option.default {
            "" => String::new(),
            value => format!(" (default: {value})"),
        };
        let mut lines = option.help.lines();
        let first = lines.next().unwrap_or_default();
        let one_line = option.help.lines().count() == 1;
        let _ = writeln!(
            text,
            "{left:<width$}{first}{}",
            if one_line { default.as_str() } else { "" }
        );
        let rest: Vec<&str> = lines.collect();
        for (index, line) in rest.iter().enumerate() {
            let end = if index + 1 == rest.len() {
                default.as_str()
            } else {
                ""
            };
            let _ = writeln!(text, "{:width$}{line}{end}", "");
        }
    }
    text.push('\n');
    text
}

fn left_column(option: &OptionSpec) -> String {
    format!("  --{} {}", option.flag, option.value)
        .trim_end()
        .to_string()
}

/// `explain` without a code.
pub fn findings() -> String {
    let mut text = String::new();
    let width = Code::all().map(|c| c.name().len()).max().unwrap_or(0);
    for stage in [Stage::Image, Stage::Device, Stage::Arch, Stage::Smoke] {
        let _ = writeln!(text, "{}", stage.name());
        for code in Code::all().filter(|c| c.stage() == stage) {
            let severity = format!("{:?}", code.severity()).to_lowercase();
            let _ = writeln!(
                text,
                "  {:<width$}  {severity:<4}  {}  {}",
                code.name(),
                code.exit_code(),
                code.summary(),
            );
        }
        text.push('\n');
    }
    text.push_str(
        "cuda-entrypoint explain CODE says more. --allow, --warn and --deny CODE change the severity.\n",
    );
    text
}
