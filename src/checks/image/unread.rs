//! `storage-fault`, `file-unreadable`: what could not be read, and so was not judged.
//!
//! A disk or a network that fails is no fault of the image, whatever seems to be missing then; so it is told first.

use nix::errno::Errno;

use super::ImageContext;
use crate::check::{Code, Finding};
use crate::facts::{HelperEnd, ModuleKernels};
use crate::process::limits::ResourceLimit;

/// Why something could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// the storage behind it fails
    Storage,
    /// its file system may execute nothing
    NoExec,
    /// a limit of this container leaves no room to read
    ResourceLimit(ResourceLimit),
    /// this user may not
    Permission,
    /// another error of the system
    Other,
}

impl Trouble {
    /// By errno(3).
    fn of(errno: i32) -> Self {
        match Errno::from_raw(errno) {
            Errno::EIO
            | Errno::ESTALE
            | Errno::ETIMEDOUT
            | Errno::ENOTCONN
            | Errno::ECONNABORTED
            | Errno::EREMOTEIO
            | Errno::ENODATA
            | Errno::EBADMSG
            | Errno::EUCLEAN
            | Errno::ESHUTDOWN
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENXIO
            | Errno::ENODEV => Self::Storage,
            Errno::EACCES | Errno::EPERM => Self::Permission,
            errno => ResourceLimit::of(errno).map_or(Self::Other, Self::ResourceLimit),
        }
    }

    /// By what the loader says: strerror(3) of the same, or that it cannot map what is to be executed.
    pub fn told_by(text: &str) -> Option<Self> {
        const STORAGE: [&str; 4] = [
            "Input/output error",
            "Stale file handle",
            "Connection timed out",
            "Transport endpoint is not connected",
        ];
        if STORAGE.iter().any(|words| text.contains(words)) {
            Some(Self::Storage)
        } else if text.contains("failed to map segment from shared object") {
            Some(Self::NoExec)
        } else if text.contains("cannot open shared object file: Permission denied") {
            Some(Self::Permission)
        } else {
            None
        }
    }
}

/// Findings, those of the storage first.
pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let image = scene.image;
    let mut all: Vec<(Trouble, &str, String)> = Vec::new();
    let mut add = |trouble: Trouble, path, why: String| {
        if all.iter().all(|(known, of, _)| (*known, *of) != (trouble, path)) {
            all.push((trouble, path, why));
        }
    };
    let words = |errno: i32| Errno::from_raw(errno).desc().to_string();
    for unread in &image.unread {
        add(Trouble::of(unread.errno), &unread.path, words(unread.errno));
    }
    for module in &image.kernels {
        if let Some(errno) = module.errno {
            add(Trouble::of(errno), &module.path, words(errno));
        }
    }
    let refused = image
        .loader
        .refused
        .iter()
        .map(|r| (r.path.as_str(), r.reason.as_str()));
    let answers = image
        .libraries
        .iter()
        .filter_map(|l| Some((l.path.as_str(), l.answer.as_ref()?.error.as_deref()?)));
    for (path, reason) in refused.chain(answers) {
        if let Some(trouble) = Trouble::told_by(reason) {
            add(trouble, path, reason.to_string());
        }
    }
    if let HelperEnd::Crashed {
        signal: nix::libc::SIGBUS,
        step,
    } = &image.helper.end
    {
        // A library that was cut off does the same; whether this one was is known where the kernels were looked at.
        let is_cut = |module: &ModuleKernels| module.error.is_some() && step.contains(&module.path);
        if !image.kernels.is_empty() && !image.kernels.iter().any(is_cut) {
            let why = "SIGBUS: what was mapped could not be read";
            add(Trouble::Storage, step, why.to_string());
        }
    }
    let mut findings = Vec::new();
    for trouble in [
        Trouble::Storage,
        Trouble::NoExec,
        Trouble::ResourceLimit(ResourceLimit::Descriptors),
        Trouble::ResourceLimit(ResourceLimit::Processes),
        Trouble::ResourceLimit(ResourceLimit::Memory),
        Trouble::Permission,
        Trouble::Other,
    ] {
        let mut group = all.iter().filter(|(kind, ..)| *kind == trouble);
        if let Some((_, path, why)) = group.next() {
            findings.push(finding(trouble, path, why, group.count()));
        }
    }
    findings
}

fn finding(trouble: Trouble, path: &str, why: &str, more: usize) -> Finding {
    let code = match trouble {
        Trouble::Storage | Trouble::NoExec | Trouble::ResourceLimit(_) => Code::StorageFault,
        Trouble::Permission | Trouble::Other => Code::FileUnreadable,
    };
    let others = match more {
        0 => String::new(),
        1 => ", and one more".to_string(),
        more => format!(", and {more} more"),
    };
    let hint = match trouble {
        Trouble::Storage => "Look at the disk, the network or the image store behind it (dmesg, the logs of kubelet or containerd), then \
             start again, or on another node: this says nothing of the image."
            .to_string(),
        Trouble::ResourceLimit(shortage) => format!("This says nothing of the image: {}.", shortage.hint()),
        Trouble::NoExec => {
            "Mount that file system without noexec; where it is not, raise the limit on memory (docker run --memory, ulimit -v).".to_string()
        }
        Trouble::Permission => format!(
            "In the Dockerfile: RUN chmod a+rX {path}, and the folders above it; or start the container as a user who may read it."
        ),
        Trouble::Other => "See what the error means for this file: errno(3).".to_string(),
    };
    let finding = Finding::problem(code, path)
        .observed(why)
        .required("files of the image that can be read")
        .message(format!(
            "{path} could not be read, and so was not judged: {why}{others}"
        ))
        .hint(hint);
    match trouble {
        Trouble::Storage | Trouble::ResourceLimit(_) => finding.retryable(),
        _ => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::{Outcome, Status};
    use crate::facts::{RefusedObject, Unread};

    fn unread(path: &str, errno: i32) -> Unread {
        Unread {
            path: path.into(),
            errno,
        }
    }

    #[test]
    fn storage_comes_first_and_is_the_operators() {
        let facts = image(|i| {
            i.unread = vec![
                unread("/sp/shut", 13),
                unread("/sp/a", 5),
                unread("/sp/b", 116),
                unread("/sp/z", 75),
            ];
            // A consequence of it.
            dist_mut(i, "torch").missing = vec!["torch/__init__.py".into()];
            dist_mut(i, "torch").missing_count = 1;
        });
        let findings = super::super::judge(&stack(), None, &facts);
        let outcome = Outcome::of(&findings);
        assert_eq!(outcome.exit_code, 82);
        let first = &findings[0];
        assert_eq!(
            (first.code, first.subject.as_str(), first.retryable),
            (Code::StorageFault, "/sp/a", true)
        );
        assert!(
            first.message.contains("Input/output error, and one more")
                || first.message.contains("I/O error, and one more"),
            "{}",
            first.message
        );
        assert_eq!(
            of(&findings, Code::FileUnreadable),
            [(Status::Fail, "/sp/shut"), (Status::Fail, "/sp/z")]
        );
        assert!(
            findings[1].hint.contains("chmod a+rX /sp/shut"),
            "{}",
            findings[1].hint
        );
    }

    #[test]
    fn a_limit_of_the_container_is_no_fault_of_the_image() {
        let facts = image(|i| {
            i.unread = vec![Unread {
                path: "/sp".into(),
                errno: 24,
            }];
        });
        let findings = super::super::judge(&stack(), None, &facts);
        assert_eq!(of(&findings, Code::StorageFault), [(Status::Fail, "/sp")]);
        assert!(
            findings[0].hint.contains("limit on open files"),
            "{}",
            findings[0].hint
        );
    }

    #[test]
    fn the_loaders_and_the_helpers_words_count_as_well() {
        let facts = image(|i| {
            i.loader.refused = vec![
                RefusedObject {
                    path: "/sp/x.so".into(),
                    reason: "failed to map segment from shared object".into(),
                },
                RefusedObject {
                    path: "/sp/y.so".into(),
                    reason: "file too short".into(),
                },
            ];
            i.kernels = vec![ModuleKernels {
                path: "/sp/k.so".into(),
                errno: Some(5),
                error: Some("cannot be read: Input/output error (os error 5)".into()),
                ..ModuleKernels::default()
            }];
            i.helper.end = HelperEnd::Crashed {
                signal: 7,
                step: "dlopen /sp/z.so".into(),
            };
        });
        let cut = image(|i| {
            i.kernels = vec![ModuleKernels {
                path: "/sp/z.so".into(),
                error: Some("damaged ELF file".into()),
                ..ModuleKernels::default()
            }];
            i.helper.end = facts.image.helper.end.clone();
        });
        assert_eq!(
            of(
                &judge(&ImageContext::new(&stack(), &cut.image)),
                Code::StorageFault
            ),
            []
        );
        let scene = ImageContext::new(&stack(), &facts.image).image.clone();
        let stack = stack();
        let found = judge(&ImageContext::new(&stack, &scene));
        assert_eq!(
            of(&found, Code::StorageFault),
            [(Status::Fail, "/sp/k.so"), (Status::Fail, "/sp/x.so")]
        );
        assert!(found[1].hint.contains("noexec"));
    }
}
