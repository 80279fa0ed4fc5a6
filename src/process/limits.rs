//! What a machine can be short of where one more process is wanted, told from the error that came back.

use nix::errno::Errno;

/// What there is too little of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResourceLimit {
    /// EMFILE, ENFILE
    Descriptors,
    /// EAGAIN of fork(2)
    Processes,
    /// ENOMEM
    Memory,
    /// E2BIG of execve(2)
    ArgumentSpace,
    /// EFBIG, SIGXFSZ: RLIMIT_FSIZE
    FileSize,
    /// SIGXCPU: RLIMIT_CPU
    CpuTime,
}

impl ResourceLimit {
    /// What an error of pipe, fork, memfd_create or execve means; `None` for what no limit explains.
    pub fn of(errno: Errno) -> Option<Self> {
        Some(match errno {
            Errno::EMFILE | Errno::ENFILE => Self::Descriptors,
            Errno::EAGAIN => Self::Processes,
            Errno::ENOMEM => Self::Memory,
            Errno::E2BIG => Self::ArgumentSpace,
            Errno::EFBIG => Self::FileSize,
            _ => return None,
        })
    }

    /// The same of an error that was put into words: `pipe: EMFILE: Too many open files`, `write: File too large (os error
    /// 27)`.
    pub fn told_by(detail: &str) -> Option<Self> {
        let names = [
            ("EMFILE", Self::Descriptors),
            ("ENFILE", Self::Descriptors),
            ("EAGAIN", Self::Processes),
            ("ENOMEM", Self::Memory),
            ("E2BIG", Self::ArgumentSpace),
            ("EFBIG", Self::FileSize),
        ];
        let by_number = |words: &str| Self::of(Errno::from_raw(words.split_once(')')?.0.parse().ok()?));
        if let Some(shortage) = detail.split("(os error ").skip(1).find_map(by_number) {
            return Some(shortage);
        }
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        detail
            .split(|c| !is_name(c))
            .find_map(|word| names.iter().find(|(name, _)| *name == word))
            .map(|(_, shortage)| *shortage)
    }

    /// The same of an error of the standard library's.
    pub fn of_io(error: &std::io::Error) -> Option<Self> {
        error.raw_os_error().map(Errno::from_raw).and_then(Self::of)
    }

    /// An error of the system in words, and what to do about it where a limit is the reason.
    pub fn explained(error: &std::io::Error) -> String {
        match Self::of_io(error) {
            Some(shortage) => format!("{error}: {}", shortage.hint()),
            None => error.to_string(),
        }
    }

    /// Whether there may be enough once another child has ended.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Descriptors | Self::Processes | Self::Memory)
    }

    /// What to do.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Descriptors => {
                "raise the limit on open files, to 64 or more: docker run --ulimit nofile=1024, or `ulimit -n`"
            }
            Self::Processes => {
                "raise the limit on processes: docker run --pids-limit, podPidsLimit of the kubelet, or `ulimit -u`"
            }
            Self::Memory => {
                "raise the container's memory limit, or `ulimit -v` where an address space limit is set"
            }
            Self::ArgumentSpace => {
                "the environment is too large to start a program with: shorten it; on Kubernetes, enableServiceLinks: false drops a variable set for every service"
            }
            Self::FileSize => {
                "raise the limit on the size of files: `ulimit -f unlimited`, docker run --ulimit fsize=-1"
            }
            Self::CpuTime => {
                "raise the limit on processor time: `ulimit -t unlimited`, docker run --ulimit cpu=-1"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_error_are_told_from_their_neighbours() {
        for (errno, detail) in [
            (Errno::EMFILE, "memory file: EMFILE: Too many open files"),
            (Errno::EAGAIN, "/usr/bin/python3: exec: EAGAIN: Try again"),
            (Errno::ENOMEM, "memory file: ENOMEM: Out of memory"),
            (Errno::E2BIG, "memory file: E2BIG: Argument list too long"),
            (
                Errno::EFBIG,
                "memory file: write: File too large (os error 27); file beside this binary: none",
            ),
        ] {
            assert!(ResourceLimit::of(errno).is_some());
            assert_eq!(
                ResourceLimit::told_by(detail),
                ResourceLimit::of(errno),
                "{detail}"
            );
        }
        for other in [
            "memory file: EACCES: Permission denied",
            "/opt/EMFILES/python: exec: ENOENT: No such file or directory",
            "",
        ] {
            assert_eq!(ResourceLimit::told_by(other), None, "{other}");
        }
        assert_eq!(ResourceLimit::of(Errno::EACCES), None);
    }
}
