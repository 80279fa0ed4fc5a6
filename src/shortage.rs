//! What a machine can be short of where one more process is wanted, told from the error that came back.

use nix::errno::Errno;

/// What there is too little of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// EMFILE, ENFILE
    Descriptors,
    /// EAGAIN of fork(2)
    Processes,
    /// ENOMEM
    Memory,
    /// E2BIG of execve(2)
    ArgumentSpace,
}

impl Shortage {
    /// What an error of pipe, fork, memfd_create or execve means; `None` for what no limit explains.
    pub fn of(errno: Errno) -> Option<Self> {
        Some(match errno {
            Errno::EMFILE | Errno::ENFILE => Self::Descriptors,
            Errno::EAGAIN => Self::Processes,
            Errno::ENOMEM => Self::Memory,
            Errno::E2BIG => Self::ArgumentSpace,
            _ => return None,
        })
    }

    /// The same of an error that was put into words: `pipe: EMFILE: Too many open files`.
    pub fn told_by(detail: &str) -> Option<Self> {
        let names = [
            ("EMFILE", Self::Descriptors),
            ("ENFILE", Self::Descriptors),
            ("EAGAIN", Self::Processes),
            ("ENOMEM", Self::Memory),
            ("E2BIG", Self::ArgumentSpace),
        ];
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        detail
            .split(|c| !is_name(c))
            .find_map(|word| names.iter().find(|(name, _)| *name == word))
            .map(|(_, shortage)| *shortage)
    }

    /// Whether there may be enough once another child has ended.
    pub fn is_passing(self) -> bool {
        self != Self::ArgumentSpace
    }

    /// What to do.
    pub fn hint(self) -> &'static str {
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
        ] {
            assert!(Shortage::of(errno).is_some());
            assert_eq!(Shortage::told_by(detail), Shortage::of(errno), "{detail}");
        }
        for other in [
            "memory file: EACCES: Permission denied",
            "/opt/EMFILES/python: exec: ENOENT: No such file or directory",
            "",
        ] {
            assert_eq!(Shortage::told_by(other), None, "{other}");
        }
        assert_eq!(Shortage::of(Errno::EACCES), None);
    }
}
