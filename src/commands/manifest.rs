//! Which manifest is in force; `stack show`.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cuda_entrypoint::cli::Settings;
use cuda_entrypoint::cli::config::{self, Format, StackChoice};
use cuda_entrypoint::discover;
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::process::limits::ResourceLimit;
use cuda_entrypoint::report::EMBEDDED;
use cuda_entrypoint::stack::{self, Stack};

use super::refusal::Refusal;
use super::words::{complain, print, say};

/// The manifest of an image that brings its own.
pub const DEFAULT_STACK: &str = "/etc/cuda-entrypoint/stack.json";

/// The manifest in force and where it came from.
pub struct Loaded {
    pub stack: Stack,
    pub source: String,
    /// who else may write it
    pub doubt: Option<String>,
}

/// Reads the manifest: `--stack`, else the image's own, else the embedded one.
pub fn load_stack(given: &StackChoice) -> Result<Loaded, Refusal> {
    // A link that leads nowhere or a folder that may not be searched is a mistake to be told, not an absence.
    let absent = || {
        let kind = std::fs::symlink_metadata(DEFAULT_STACK).map_err(|e| e.kind());
        matches!(kind, Err(ErrorKind::NotFound | ErrorKind::NotADirectory))
    };
    let path = match given {
        StackChoice::File(path) => path,
        StackChoice::None => {
            return Ok(Loaded {
                stack: Stack::none(),
                source: stack::NONE.to_string(),
                doubt: None,
            });
        }
        StackChoice::Default if !absent() => Path::new(DEFAULT_STACK),
        StackChoice::Default => {
            let stack = Stack::embedded().map_err(|e| Refusal {
                exit: ExitCode::Config.code(),
                kind: "manifest",
                message: format!("the embedded manifest {e}"),
                hint: String::new(),
            })?;
            return Ok(Loaded {
                stack,
                source: EMBEDDED.to_string(),
                doubt: None,
            });
        }
    };
    let shown = path.display().to_string();
    // What is judged is the file that is read, whatever links lead to it or are changed meanwhile.
    let (bytes, doubt) = discover::files::open_regular(path)
        .and_then(|file| {
            let (bytes, _) = discover::files::head_of(&file, stack::MAX_BYTES + 1)?;
            Ok((bytes, doubt(&file.metadata()?, &shown)))
        })
        .map_err(|error| {
            // What is short is nothing that its author could mend.
            let (exit, hint) = match ResourceLimit::of_io(&error) {
                Some(shortage) => (ExitCode::Software.code(), shortage.hint()),
                None if error.kind() == ErrorKind::PermissionDenied => (
                    ExitCode::Config.code(),
                    "let this user read it: chmod a+r the file, chmod a+x its folders",
                ),
                None => (
                    ExitCode::Config.code(),
                    "mount it, or correct --stack or CUDA_ENTRYPOINT_STACK",
                ),
            };
            Refusal {
                exit,
                kind: "manifest",
                message: format!("cannot read the manifest {shown}: {error}"),
                hint: hint.to_string(),
            }
        })?;
    match Stack::parse_bytes(&bytes) {
        Ok(stack) => Ok(Loaded {
            stack,
            source: shown,
            doubt,
        }),
        Err(error) => Err(Refusal {
            exit: ExitCode::Config.code(),
            kind: "manifest",
            message: format!("{shown} {error}"),
            hint: error.hint,
        }),
    }
}

/// A manifest says what runs here: its commands, and the variables of the service. One that others may write is no reason
/// to stop a service whose own files mostly lie beside it with the same owner; but it has to be known.
pub fn doubt(manifest: &std::fs::Metadata, shown: &str) -> Option<String> {
    let us = nix::unistd::geteuid().as_raw();
    discover::files::others_may_write(manifest, us).then(|| {
        format!(
            "the manifest {shown} is owned by uid {}, mode {:o}: users other than uid {us} and root may write it, and \
             with it what is checked and run here (chown root, chmod 644)",
            manifest.uid(),
            manifest.mode() & 0o7777
        )
    })
}

pub fn stack_show(settings: &Settings) -> u8 {
    let (choice, format) = match config::shown_stack(settings) {
        Ok(shown) => shown,
        Err(error) => {
            complain(&error.to_string(), &error.hint);
            return error.exit_code();
        }
    };
    let loaded = match load_stack(&choice) {
        Ok(loaded) => loaded,
        Err(refusal) => {
            complain(&refusal.message, &refusal.hint);
            return refusal.exit;
        }
    };
    if let Some(doubt) = &loaded.doubt {
        say(doubt);
    }
    if loaded.stack.as_found {
        say(
            "with --stack none there is no manifest; `cuda-entrypoint stack capture` writes one for this image",
        );
    }
    let mut stack = loaded.stack;
    let mut source = loaded.source;
    if let Some(setting) = settings.archs.last() {
        match settings.archs() {
            Ok(list) => stack.archs = list,
            Err(error) => {
                complain(&error.to_string(), &error.hint);
                return error.exit_code();
            }
        }
        source = format!("{source}, archs from {}", setting.origin);
    }
    if format == Format::Json {
        match serde_json::to_value(&stack) {
            Ok(value) => print(&format!("{value:#}\n")),
            Err(error) => {
                complain(&format!("cannot write the manifest as JSON: {error}"), "");
                ExitCode::Software.code()
            }
        }
    } else {
        print(&stack::table(&stack, &source))
    }
}
