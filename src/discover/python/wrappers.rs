//! Programs that run the command behind their own arguments: one table of their options and of the rule by which each
//! chooses an environment.
//!
//! See the manual pages of util-linux, coreutils, sudo, strace and Xvfb-run; the READMEs of tini, dumb-init, gosu and
//! s6; `--help` of uv, conda, micromamba, pixi, hatch, pdm, poetry, rye and pipenv; NVIDIA's guides of Nsight Systems and
//! Nsight Compute.

use std::ffi::OsString;

/// Which environment the command runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// the wrapper's own
    Same,
    /// one with another PATH, which the machine's configuration sets
    Reset,
    /// the project's, by uv's rules
    Uv,
    /// a named one, by conda's rules
    Conda,
    /// the same by the rules of micromamba and mamba 2
    Mamba,
    /// the project's, by pixi's rules
    Pixi,
    /// the project's, by pdm's rules
    Pdm,
    /// the project's, by poetry's rules
    Poetry,
    /// the project's, by pipenv's rules
    Pipenv,
    /// the project's `.venv`, always
    Rye,
    /// one that files do not show
    Hidden,
}

/// A program that runs the command behind its own arguments.
#[derive(Debug)]
pub struct Wrapper {
    pub names: &'static [&'static str],
    /// the words of which one must come first; empty where there is none
    pub commands: &'static [&'static str],
    /// short options that take a value, as getopt(3) has them
    pub letters: &'static str,
    /// long options that take a value, which may be the next argument
    pub long: &'static [&'static str],
    /// its own arguments before the command
    pub positionals: usize,
    /// each option takes a value, or that is not known: the command is the first word that is an executable
    pub scans: bool,
    /// it executes the command in its own process, and as the same user
    pub in_place: bool,
    pub rule: Rule,
}

const PLAIN: Wrapper = Wrapper {
    names: &[],
    commands: &[],
    letters: "",
    long: &[],
    positionals: 0,
    scans: false,
    in_place: false,
    rule: Rule::Same,
};

/// Runs the command in its own process.
const IN_PLACE: Wrapper = Wrapper {
    in_place: true,
    ..PLAIN
};

/// `TOOL run`.
const TOOL: Wrapper = Wrapper {
    commands: &["run"],
    ..PLAIN
};

/// Its options are too many to list.
const SCANS: Wrapper = Wrapper { scans: true, ..PLAIN };

static WRAPPERS: &[Wrapper] = &[
    Wrapper {
        names: &["tini", "tini-static", "docker-init"],
        letters: "pe",
        ..PLAIN
    },
    Wrapper {
        names: &["dumb-init"],
        letters: "r",
        long: &["rewrite"],
        ..PLAIN
    },
    Wrapper {
        // setsid(1) forks where it leads its process group, as the first process of a container does.
        names: &["catatonit", "setsid", "catchsegv", "ddtrace-run"],
        ..PLAIN
    },
    Wrapper {
        names: &["time"],
        letters: "fo",
        long: &["format", "output"],
        ..PLAIN
    },
    Wrapper {
        names: &["nohup"],
        ..IN_PLACE
    },
    Wrapper {
        names: &["gosu", "su-exec", "s6-setuidgid", "setuidgid"],
        positionals: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["chpst"],
        letters: "uUben/lLmdofpcrt",
        ..PLAIN
    },
    Wrapper {
        names: &["setpriv"],
        long: &[
            "ambient-caps",
            "apparmor-profile",
            "bounding-set",
            "egid",
            "euid",
            "groups",
            "inh-caps",
            "pdeathsig",
            "ptracer",
            "regid",
            "reuid",
            "rgid",
            "ruid",
            "seccomp-filter",
            "securebits",
            "selinux-label",
        ],
        ..PLAIN
    },
    Wrapper {
        // The user's command, or with -c a line for the user's shell, which the shell's own reading takes up.
        names: &["runuser"],
        letters: "ugGsTw",
        long: &["user", "group", "supp-group", "shell", "whitelist-environment"],
        ..PLAIN
    },
    Wrapper {
        names: &["sudo"],
        letters: "CDghpRrtTUu",
        long: &[
            "chdir",
            "chroot",
            "close-from",
            "command-timeout",
            "group",
            "host",
            "other-user",
            "prompt",
            "role",
            "type",
            "user",
        ],
        rule: Rule::Reset,
        ..PLAIN
    },
    Wrapper {
        names: &["doas"],
        letters: "Cu",
        rule: Rule::Reset,
        ..PLAIN
    },
    Wrapper {
        names: &["nice"],
        letters: "n",
        long: &["adjustment"],
        ..IN_PLACE
    },
    Wrapper {
        names: &["ionice"],
        letters: "cnpPu",
        long: &["class", "classdata"],
        ..IN_PLACE
    },
    Wrapper {
        names: &["stdbuf"],
        letters: "ioe",
        long: &["input", "output", "error"],
        ..IN_PLACE
    },
    Wrapper {
        names: &["timeout"],
        letters: "ks",
        long: &["kill-after", "signal"],
        positionals: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["taskset"],
        positionals: 1,
        ..IN_PLACE
    },
    Wrapper {
        names: &["chrt"],
        letters: "TPD",
        long: &["sched-runtime", "sched-period", "sched-deadline"],
        positionals: 1,
        ..IN_PLACE
    },
    Wrapper {
        names: &["numactl"],
        letters: "NmCipPwfLMoS",
        long: &[
            "cpunodebind",
            "file",
            "interleave",
            "length",
            "membind",
            "offset",
            "physcpubind",
            "preferred",
            "preferred-many",
            "shm",
            "weighted-interleave",
        ],
        ..IN_PLACE
    },
    Wrapper {
        names: &["prlimit"],
        letters: "o",
        long: &["output"],
        ..IN_PLACE
    },
    Wrapper {
        names: &["flock"],
        letters: "wE",
        long: &["wait", "timeout", "conflict-exit-code"],
        positionals: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["xvfb-run"],
        letters: "efnpsw",
        long: &[
            "auth-file",
            "error-file",
            "server-args",
            "server-num",
            "wait",
            "xauth-protocol",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["strace", "ltrace"],
        letters: "abeEIoOpPsSuUX",
        long: &[
            "attach",
            "columns",
            "env",
            "interruptible",
            "output",
            "string-limit",
            "summary-columns",
            "summary-sort-by",
            "trace",
            "trace-path",
            "user",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["nsys"],
        commands: &["profile", "launch"],
        ..SCANS
    },
    Wrapper {
        names: &["perf"],
        commands: &["record", "stat", "trace"],
        ..SCANS
    },
    Wrapper {
        names: &["py-spy"],
        commands: &["record", "top"],
        ..SCANS
    },
    Wrapper {
        names: &[
            "ncu",
            "nv-nsight-cu-cli",
            "compute-sanitizer",
            "opentelemetry-instrument",
            "valgrind",
            "gdb",
            "cuda-gdb",
            "mpirun",
            "mpiexec",
            "orterun",
            "srun",
        ],
        ..SCANS
    },
    Wrapper {
        names: &["uv"],
        letters: "wifPCp",
        long: &[
            "cache-dir",
            "color",
            "config-file",
            "config-setting",
            "config-settings-package",
            "default-index",
            "directory",
            "env-file",
            "exclude-newer",
            "exclude-newer-package",
            "extra",
            "extra-index-url",
            "find-links",
            "fork-strategy",
            "group",
            "allow-insecure-host",
            "index",
            "index-strategy",
            "index-url",
            "keyring-provider",
            "link-mode",
            "no-binary-package",
            "no-build-isolation-package",
            "no-build-package",
            "no-editable-package",
            "no-extra",
            "no-group",
            "no-sources-package",
            "only-group",
            "package",
            "prerelease",
            "prerelease-package",
            "project",
            "python",
            "python-platform",
            "refresh-package",
            "reinstall-package",
            "resolution",
            "upgrade-group",
            "upgrade-package",
            "with",
            "with-editable",
            "with-requirements",
        ],
        rule: Rule::Uv,
        ..TOOL
    },
    Wrapper {
        names: &["conda"],
        letters: "np",
        long: &["name", "prefix", "cwd"],
        rule: Rule::Conda,
        ..TOOL
    },
    Wrapper {
        names: &["micromamba", "mamba"],
        letters: "npreEa",
        long: &["name", "prefix", "root-prefix", "rc-file", "cwd", "env", "attach"],
        rule: Rule::Mamba,
        ..TOOL
    },
    Wrapper {
        names: &["pixi"],
        letters: "em",
        long: &[
            "auth-file",
            "color",
            "concurrent-downloads",
            "concurrent-solves",
            "environment",
            "manifest-path",
            "pypi-keyring-provider",
        ],
        rule: Rule::Pixi,
        ..TOOL
    },
    Wrapper {
        names: &["pdm"],
        letters: "pc",
        long: &["project", "config", "venv"],
        rule: Rule::Pdm,
        ..TOOL
    },
    Wrapper {
        names: &["poetry"],
        letters: "CP",
        long: &["directory", "project"],
        rule: Rule::Poetry,
        ..TOOL
    },
    Wrapper {
        names: &["pipenv"],
        long: &["python", "pypi-mirror"],
        rule: Rule::Pipenv,
        ..TOOL
    },
    Wrapper {
        names: &["rye"],
        letters: "f",
        long: &["pyproject"],
        rule: Rule::Rye,
        ..TOOL
    },
    Wrapper {
        names: &["hatch", "tox", "nox", "uvx", "pipx"],
        rule: Rule::Hidden,
        ..PLAIN
    },
    Wrapper {
        // They start what their configuration names.
        names: &[
            "supervisord",
            "circusd",
            "honcho",
            "runsvdir",
            "s6-svscan",
            "chroot",
            "make",
            "just",
        ],
        rule: Rule::Hidden,
        ..PLAIN
    },
];

/// What stands before the command.
#[derive(Debug, Default)]
pub struct Given {
    /// options with their values; short ones by their letter, long ones by their name
    pub options: Vec<(String, OsString)>,
    /// the command; where the wrapper wants a word first, and another one is there, that word and what follows
    pub behind: Vec<OsString>,
    /// another word stands where one of [`Wrapper::commands`] must
    pub is_other_command: bool,
}

impl Given {
    /// The value of the last of these options.
    pub fn value(&self, names: &[&str]) -> Option<&OsString> {
        let mut all = self.options.iter().rev();
        all.find(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value)
    }

    /// Whether any of these is given.
    pub fn has(&self, names: &[&str]) -> bool {
        self.value(names).is_some()
    }
}

/// The wrapper of this name.
pub fn find(name: &str) -> Option<&'static Wrapper> {
    WRAPPERS.iter().find(|wrapper| wrapper.names.contains(&name))
}

impl Wrapper {
    /// Splits its arguments from the command. `is_program` tells an executable from a value, for those that scan.
    pub fn split(&self, arguments: &[OsString], is_program: &dyn Fn(&OsString) -> bool) -> Given {
        let mut given = Given::default();
        let mut rest = arguments;
        if !self.commands.is_empty() {
            rest = self.options(rest, &mut given);
            match rest.split_first() {
                Some((word, behind)) if self.commands.iter().any(|command| word == command) => rest = behind,
                _ => {
                    given.is_other_command = !rest.is_empty();
                    given.behind = rest.to_vec();
                    return given;
                }
            }
        }
        if self.scans {
            let ends = rest.iter().position(|word| word == "--").map(|at| at + 1);
            let at = ends.or_else(|| rest.iter().position(|word| !is_option(word) && is_program(word)));
            given.behind = at.and_then(|at| rest.get(at..)).unwrap_or_default().to_vec();
            return given;
        }
        rest = self.options(rest, &mut given);
        given.behind = rest.get(self.positionals..).unwrap_or_default().to_vec();
        given
    }

    /// Takes options up to the first word that is none, or behind `--`.
    fn options<'a>(&self, arguments: &'a [OsString], given: &mut Given) -> &'a [OsString] {
        let mut rest = arguments;
        while let Some((word, behind)) = rest.split_first().filter(|(word, _)| is_option(word)) {
            rest = behind;
            if word == "--" {
                break;
            }
            let text = word.to_string_lossy();
            let (name, value) = match text.strip_prefix("--") {
                Some(long) => match long.split_once('=') {
                    Some((name, value)) => (name.to_string(), Some(OsString::from(value))),
                    None => (long.to_string(), None),
                },
                None => self.cluster(text.get(1..).unwrap_or_default(), given),
            };
            let takes = match text.starts_with("--") {
                true => self.long.contains(&name.as_str()),
                false => !name.is_empty() && self.letters.contains(name.as_str()),
            };
            let value = match value {
                None if takes => {
                    let next = rest.split_first();
                    rest = next.map_or(rest, |(_, behind)| behind);
                    next.map(|(value, _)| value.clone()).unwrap_or_default()
                }
                value => value.unwrap_or_default(),
            };
            given.options.push((name, value));
        }
        rest
    }

    /// The last letter of a cluster, and its value where that is a part of the word.
    fn cluster(&self, letters: &str, given: &mut Given) -> (String, Option<OsString>) {
        let mut last = String::new();
        for (at, letter) in letters.char_indices() {
            if !last.is_empty() {
                given.options.push((std::mem::take(&mut last), OsString::new()));
            }
            last = letter.to_string();
            let value = letters.get(at + letter.len_utf8()..).unwrap_or_default();
            if self.letters.contains(letter) && !value.is_empty() {
                return (last, Some(OsString::from(value)));
            }
        }
        (last, None)
    }
}

fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_in_one_row() {
        let mut names: Vec<_> = WRAPPERS.iter().flat_map(|w| w.names).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn options_and_their_values_are_not_the_command() {
        for (line, behind) in [
            (
                "uv run --no-sync --extra gpu -p 3.12 python app.py",
                "python app.py",
            ),
            ("uv -q --project /app run -- app.py -x", "app.py -x"),
            ("conda run -n svc --no-capture-output python x", "python x"),
            ("conda run --name=svc python x", "python x"),
            ("micromamba run -n base -e A=1 python x", "python x"),
            ("setpriv --reuid=1 --regid 1 --clear-groups python x", "python x"),
            ("sudo -EHu svc python x", "python x"),
            ("sudo -nusvc -- python x", "python x"),
            ("runuser -u svc -- python x", "python x"),
            ("s6-setuidgid svc python x", "python x"),
            ("chrt -f 10 python x", "python x"),
            ("chrt --fifo 10 python x", "python x"),
            ("numactl -N0 --membind 0 python x", "python x"),
            ("strace -ff -e trace=open -o log python x", "python x"),
            ("strace -fo log python x", "python x"),
            ("xvfb-run -a -s 0x24 python x", "python x"),
            (
                "nsys profile -t cuda,nvtx -o out --stats true python x",
                "python x",
            ),
            ("ncu --set full -f -o out python x", "python x"),
            ("mpirun -np 2 -- python x", "python x"),
            ("pixi run -e gpu serve", "serve"),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let (name, arguments) = words.split_first().unwrap();
            let wrapper = find(name.to_str().unwrap()).unwrap();
            let given = wrapper.split(arguments, &|word| word == "python");
            let expected: Vec<OsString> = behind.split(' ').map(OsString::from).collect();
            assert_eq!(given.behind, expected, "{line}");
        }
    }
}
