//! Which Python a command line runs: seen through wrappers, `sh -c`, `#!` lines and pip's long ones.
//!
//! This is a guess that costs nothing when it fails, since the next place is tried then. So it reads the forms that
//! Dockerfiles have and leaves the shell's language alone.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::interpreter::{is_executable, is_python_name};
use super::{Candidate, Environment, Isolation, PythonQuery};
use crate::discover::files;

/// Deepest nesting of wrappers that is followed.
const MAX_WRAPPERS: usize = 8;
/// Longest `#!` line and long-shebang line together, in bytes; the kernel itself reads 256.
const MAX_SHEBANG: usize = 4096;

/// A program that runs the command behind its own arguments.
struct Wrapper {
    names: &'static [&'static str],
    /// options whose value is the next argument
    valued: &'static [&'static str],
    /// its own arguments before the command
    positionals: usize,
}

const WRAPPERS: [Wrapper; 10] = [
    Wrapper {
        names: &["tini", "tini-static", "docker-init"],
        valued: &["-p", "-e"],
        positionals: 0,
    },
    Wrapper {
        names: &["dumb-init"],
        valued: &["-r", "--rewrite"],
        positionals: 0,
    },
    Wrapper {
        names: &["catatonit", "nohup", "setsid", "time"],
        valued: &[],
        positionals: 0,
    },
    Wrapper {
        names: &["gosu", "su-exec"],
        valued: &[],
        positionals: 1,
    },
    Wrapper {
        names: &["nice"],
        valued: &["-n", "--adjustment"],
        positionals: 0,
    },
    Wrapper {
        names: &["ionice"],
        valued: &["-c", "-n", "--class", "--classdata"],
        positionals: 0,
    },
    Wrapper {
        names: &["stdbuf"],
        valued: &["-i", "-o", "-e"],
        positionals: 0,
    },
    Wrapper {
        names: &["timeout"],
        valued: &["-k", "-s", "--kill-after", "--signal"],
        positionals: 1,
    },
    Wrapper {
        names: &["taskset"],
        valued: &[],
        positionals: 1,
    },
    Wrapper {
        names: &["numactl"],
        valued: &["-N", "-m", "-C", "-i", "-p"],
        positionals: 0,
    },
];

/// Why Python, started by this very command, would not read what `PYTHONPATH` puts before its own `site`; `None` where
/// nothing stands in the way.
pub fn hindrance(query: &PythonQuery<'_>) -> Option<String> {
    let mut env = query.env.clone();
    let (program, arguments) = query.command.split_first()?;
    let Some(path) = locate(query, &env, program) else {
        return Some(format!("{} is not found", Path::new(program).display()));
    };
    let candidate = if base_name(program).is_some_and(is_python_name) {
        // A shell script of that name may do anything.
        if files::read_head(&path, 4).is_ok_and(|(head, _)| head != b"\x7fELF") {
            return Some(format!("{} is no interpreter but a script", path.display()));
        }
        Candidate {
            path,
            isolation: isolation(arguments),
            env: std::mem::take(&mut env),
            script_folder: None,
        }
    } else {
        match of_script(query, &env, &path) {
            Ok(candidate) => candidate,
            Err(why) => return Some(why),
        }
    };
    let Isolation {
        ignores_environment,
        no_site,
        ..
    } = candidate.isolation;
    match (ignores_environment, no_site) {
        (true, _) => Some("its Python is told to ignore PYTHONPATH (-E or -I)".to_string()),
        (_, true) => Some("its Python is told to leave out the site module (-S)".to_string()),
        _ => None,
    }
}

/// The interpreter of the service command. `None` when there is no command.
pub fn interpreter(query: &PythonQuery<'_>) -> Option<Result<Candidate, String>> {
    let mut env = query.env.clone();
    let argv = unwrap_wrappers(query.command, &mut env);
    let (program, arguments) = argv.split_first()?;
    let candidate = of_program(query, env, program, arguments);
    let names_python = base_name(program).is_some_and(is_python_name);
    Some(candidate.map_err(|why| match shell_of(query.command) {
        // `cd is not found` would be of no use to anybody.
        Some(shell) if !names_python => format!("`{shell} -c` does not tell which Python it starts"),
        _ => why,
    }))
}

/// The shell that is given a line of its own (`-c`), behind the wrappers.
fn shell_of(command: &[OsString]) -> Option<String> {
    let mut argv = command.to_vec();
    for _ in 0..MAX_WRAPPERS {
        let (program, arguments) = argv.split_first()?;
        let name = base_name(program)?;
        if is_shell(name) {
            return shell_line(arguments).map(|_| name.to_string());
        }
        argv = unwrap_one(program, arguments, &mut Environment::default())?;
    }
    None
}

fn of_program(
    query: &PythonQuery<'_>,
    env: Environment,
    program: &OsStr,
    arguments: &[OsString],
) -> Result<Candidate, String> {
    let path = locate(query, &env, program)
        .ok_or_else(|| format!("{} is not found", Path::new(program).display()))?;
    if base_name(program).is_some_and(is_python_name) {
        let (isolation, script) = options(arguments);
        return Ok(Candidate {
            path,
            script_folder: script.and_then(|script| script_folder(query, &env, isolation, script)),
            env,
            isolation,
        });
    }
    of_script(query, &env, &path)
}

/// The Python that a script's first lines name.
///
/// # Errors
/// That it is none, as a sentence.
pub fn of_script(query: &PythonQuery<'_>, env: &Environment, path: &Path) -> Result<Candidate, String> {
    let shown = path.display();
    let (head, _) = files::read_head(path, MAX_SHEBANG).map_err(|e| format!("{shown}: {e}"))?;
    let head = files::lossy(head);
    let mut lines = head.lines();
    let Some(shebang) = lines.next().and_then(|l| l.strip_prefix("#!")) else {
        return Err(format!("{shown} is not a Python program"));
    };
    let mut words: Vec<OsString> = shebang.split_whitespace().map(OsString::from).collect();
    let mut env = env.clone();
    let shell = words.first().and_then(|w| base_name(w)).is_some_and(is_shell);
    if shell {
        // pip and uv write this where the interpreter's path is too long, or has a blank, for the kernel.
        let Some(python) = lines.next().and_then(|line| long_shebang(line, path)) else {
            return Err(format!("{shown} is a shell script"));
        };
        words = vec![python.into()];
    } else if words.first().and_then(|w| base_name(w)) == Some("env") {
        words = unwrap_wrappers(&words, &mut env);
    }
    match words.split_first() {
        Some((program, arguments)) if base_name(program).is_some_and(is_python_name) => {
            let interpreter = locate(query, &env, program).ok_or_else(|| {
                format!(
                    "{shown} wants {}, which is not found",
                    Path::new(program).display()
                )
            })?;
            let isolation = isolation(arguments);
            Ok(Candidate {
                path: interpreter,
                script_folder: script_folder(query, &env, isolation, path.as_os_str()),
                env,
                isolation,
            })
        }
        _ => Err(format!("{shown} is not a Python program: #!{}", shebang.trim())),
    }
}

/// As execvp finds it: with a slash from the working folder, without one on `PATH`.
fn locate(query: &PythonQuery<'_>, env: &Environment, program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        let path = query.absolute(Path::new(program));
        // A broken link is handed on, so that it can be named.
        return path.symlink_metadata().is_ok().then_some(path);
    }
    query.on_path(env, program).find(|p| is_executable(p))
}

fn base_name(program: &OsStr) -> Option<&str> {
    Path::new(program).file_name()?.to_str()
}

fn is_shell(name: &str) -> bool {
    matches!(name, "sh" | "bash" | "dash" | "ash" | "zsh")
}

/// The command behind its wrappers; what they set is set in `env`.
pub fn unwrap_wrappers(command: &[OsString], env: &mut Environment) -> Vec<OsString> {
    let mut argv = command.to_vec();
    for _ in 0..MAX_WRAPPERS {
        let Some((program, arguments)) = argv.split_first() else {
            break;
        };
        match unwrap_one(program, arguments, env) {
            Some(next) if !next.is_empty() => argv = next,
            _ => break,
        }
    }
    argv
}

/// The command behind this wrapper; `None` for what is none.
fn unwrap_one(program: &OsStr, arguments: &[OsString], env: &mut Environment) -> Option<Vec<OsString>> {
    match base_name(program)? {
        "env" => behind_env(arguments, env),
        name if is_shell(name) => behind_shell(arguments, env),
        name => WRAPPERS
            .iter()
            .find(|w| w.names.contains(&name))
            .map(|w| behind_options(arguments, w.valued, w.positionals)),
    }
}

fn behind_options(arguments: &[OsString], valued: &[&str], positionals: usize) -> Vec<OsString> {
    let mut rest = arguments;
    while let Some((first, behind)) = rest.split_first() {
        let text = first.to_str().unwrap_or_default();
        rest = if text == "--" {
            rest = behind;
            break;
        } else if valued.contains(&text) {
            behind.get(1..).unwrap_or_default()
        } else if text.starts_with('-') {
            behind
        } else {
            break;
        };
    }
    rest.get(positionals..).unwrap_or_default().to_vec()
}

/// `env -i NAME=VALUE -- command`, `env -S command`.
fn behind_env(arguments: &[OsString], env: &mut Environment) -> Option<Vec<OsString>> {
    let mut rest = behind_options(arguments, &["-u", "--unset", "-C", "--chdir"], 0);
    // -S makes words of one argument; in a `#!` line it already came as words.
    if let Some(position) = arguments.iter().position(|a| a == "-S" || a == "--split-string") {
        let words = arguments.get(position + 1..)?.iter();
        rest = words
            .flat_map(|a| {
                a.to_string_lossy()
                    .split_whitespace()
                    .map(OsString::from)
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    let assignments = rest.iter().take_while(|word| assign(word, env)).count();
    Some(rest.split_off(assignments))
}

/// `sh -c 'NAME=VALUE exec command argument…'`: the plain words at its start.
fn behind_shell(arguments: &[OsString], env: &mut Environment) -> Option<Vec<OsString>> {
    let script = shell_line(arguments)?;
    let mut words: Vec<OsString> = script
        .split_whitespace()
        .take_while(|word| !word.contains(|c: char| ";|&<>()$`\"'\\*?#{}!".contains(c)))
        .map(OsString::from)
        .collect();
    let assignments = words.iter().take_while(|word| assign(word, env)).count();
    words.drain(..assignments);
    if words.first().is_some_and(|w| w == "exec") {
        words.remove(0);
    }
    Some(words)
}

/// What follows a shell's `-c`.
fn shell_line(arguments: &[OsString]) -> Option<&str> {
    let is_c = |a: &&OsString| {
        a.to_str()
            .is_some_and(|a| a.starts_with('-') && !a.starts_with("--") && a.contains('c'))
    };
    let option = arguments
        .iter()
        .take_while(|a| a.as_encoded_bytes().starts_with(b"-"))
        .position(|a| is_c(&a))?;
    arguments.get(option + 1)?.to_str()
}

/// Takes `NAME=VALUE` into `env`; says no to any other word.
fn assign(word: &OsStr, env: &mut Environment) -> bool {
    let Some((name, value)) = word.to_str().and_then(|w| w.split_once('=')) else {
        return false;
    };
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name {
        env.set(name, value);
    }
    is_name
}

/// The interpreter in `'''exec' /path/to/python "$0" "$@"`.
fn long_shebang(line: &str, script: &Path) -> Option<String> {
    let rest = line
        .strip_prefix("'''exec'")
        .or_else(|| line.strip_prefix("\"exec\""))?;
    // uv's relocatable form: the folder of the script itself, its links followed.
    let folder = script.canonicalize().ok()?.parent()?.to_str()?.to_string();
    interpreter_of_exec(rest, &folder)
}

/// The same of what follows `'''exec'`, for a script in this folder.
pub fn interpreter_of_exec(rest: &str, folder: &str) -> Option<String> {
    let here = r#""$(dirname -- "$(realpath -- "$0")")""#;
    let rest = rest.replace(here, &format!("'{folder}'"));
    first_shell_word(rest.trim_start())
}

/// The first word, its quotes removed; nothing where the shell would have to expand something.
pub fn first_shell_word(text: &str) -> Option<String> {
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => break,
            (Some('"') | None, '$' | '`' | '\\') => return None,
            (_, c) => word.push(c),
        }
    }
    (quote.is_none() && !word.is_empty()).then_some(word)
}

/// What Python's own options, before its script, `-c` or `-m`, say of the environment.
///
/// Source: the Python documentation, "Command line and environment".
pub fn isolation(arguments: &[OsString]) -> Isolation {
    options(arguments).0
}

/// The same, and the script whose folder Python looks into first.
fn options(arguments: &[OsString]) -> (Isolation, Option<&OsStr>) {
    let mut found = Isolation::default();
    let mut safe_path = false;
    let mut rest = arguments.iter();
    loop {
        let Some(argument) = rest.next() else {
            return (found, None);
        };
        let Some(cluster) = argument.to_str().and_then(|a| a.strip_prefix('-')) else {
            return (found, Some(argument.as_os_str()).filter(|_| !safe_path));
        };
        if cluster.is_empty() || cluster.starts_with('-') {
            return (found, None);
        }
        let mut letters = cluster.chars();
        while let Some(letter) = letters.next() {
            match letter {
                'I' => {
                    found.ignores_environment = true;
                    found.no_user_site = true;
                    safe_path = true;
                }
                'P' => safe_path = true,
                'S' => found.no_site = true,
                'E' => found.ignores_environment = true,
                's' => found.no_user_site = true,
                'c' | 'm' => {
                    found.working_folder = !safe_path;
                    return (found, None);
                }
                'W' | 'X' => {
                    // The value is the rest of the cluster, or else the next argument.
                    if letters.as_str().is_empty() {
                        rest.next();
                    }
                    break;
                }
                _ => {}
            }
        }
    }
}

/// What Python puts in front of its path for a script: the folder that it lies in, its links followed, or the folder that
/// it is itself. Nothing where that cannot be told, and with PYTHONSAFEPATH.
///
/// Source: the Python documentation, "The initialization of the sys.path module search path".
fn script_folder(
    query: &PythonQuery<'_>,
    env: &Environment,
    isolation: Isolation,
    script: &OsStr,
) -> Option<PathBuf> {
    if !isolation.ignores_environment && env.get("PYTHONSAFEPATH").is_some_and(|v| !v.is_empty()) {
        return None;
    }
    let path = query.absolute(Path::new(script));
    if path.is_dir() {
        return Some(path);
    }
    let real = path.canonicalize().ok()?;
    // A zip is a place of its own.
    let is_text = files::read_head(&real, 2).is_ok_and(|(head, _)| head != b"PK");
    real.parent().filter(|_| is_text).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn wrappers_are_seen_through() {
        for (command, expected) in [
            ("python app.py", "python app.py"),
            ("tini -g -- python app.py", "python app.py"),
            (
                "/usr/bin/tini -p SIGTERM -- /opt/venv/bin/python -m x",
                "/opt/venv/bin/python -m x",
            ),
            ("dumb-init -r 15:2 python x", "python x"),
            ("gosu app:app python x", "python x"),
            ("nice -n 10 ionice -c 3 python x", "python x"),
            ("timeout -k 5 60 python x", "python x"),
            ("taskset -c 0-3 python x", "python x"),
            ("numactl --cpunodebind=0 -m 0 python x", "python x"),
            ("env -i -u A B=1 C= python x", "python x"),
            ("env -S B=1 python -I x", "python -I x"),
            ("env", "env"),
            ("tini", "tini"),
            ("nginx -c python", "nginx -c python"),
        ] {
            assert_eq!(
                unwrap_wrappers(&words(command), &mut Environment::default()),
                words(expected),
                "{command}"
            );
        }
        let nested = vec![OsString::from("tini"); 1000];
        assert!(!unwrap_wrappers(&nested, &mut Environment::default()).is_empty());
    }

    #[test]
    fn the_shell_form_of_cmd() {
        let behind = |script: &str| {
            let argv = ["/bin/sh", "-ec", script].map(OsString::from);
            let mut env = Environment::default();
            let argv = unwrap_wrappers(&argv, &mut env);
            (argv, env)
        };
        assert_eq!(
            behind("exec python3 app.py --port $PORT").0,
            words("python3 app.py --port")
        );
        let (argv, env) = behind("PYTHONPATH=/x python -m a; sleep 1");
        assert_eq!(argv, words("python -m"));
        assert_eq!(env.get("PYTHONPATH"), Some("/x".as_ref()));
        assert_eq!(behind("\"$PYTHON\" x").0.first(), Some(&"/bin/sh".into()));
        assert_eq!(
            unwrap_wrappers(&words("sh run.sh -c x"), &mut Environment::default()),
            words("sh run.sh -c x")
        );
    }

    #[test]
    fn long_shebangs() {
        let script = Path::new("/dev/null");
        for (line, expected) in [
            (
                r#"'''exec' /very/long/python3 "$0" "$@""#,
                Some("/very/long/python3"),
            ),
            (
                r#"'''exec' "/with blank/python3" "$0" "$@""#,
                Some("/with blank/python3"),
            ),
            (
                r#"'''exec' '/with blank/python3' "$0" "$@""#,
                Some("/with blank/python3"),
            ),
            (
                r#"'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python3' "$0" "$@""#,
                Some("/dev/python3"),
            ),
            (r#"'''exec' "$HOME/python" "$0""#, None),
            (r#"'''exec' "/open/python"#, None),
            ("'''exec'", None),
            ("exec python", None),
        ] {
            assert_eq!(long_shebang(line, script).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn options_of_python() {
        for (arguments, ignores_environment, no_user_site, no_site, working_folder) in [
            ("-I app.py", true, true, false, false),
            ("-uE app.py", true, false, false, false),
            ("-s -m x", false, true, false, true),
            ("-X importtime -E x", true, false, false, false),
            ("-Ximporttime -s x", false, true, false, false),
            ("-W error::E x -I", false, false, false, false),
            ("-m x -I", false, false, false, true),
            ("-c -I", false, false, false, true),
            ("-I -m x", true, true, false, false),
            ("-uP -m x", false, false, false, false),
            ("-um x", false, false, false, true),
            ("app.py -I", false, false, false, false),
            ("app.py -m x", false, false, false, false),
            ("--version -I", false, false, false, false),
            ("- -I", false, false, false, false),
            ("-S x", false, false, true, false),
            ("", false, false, false, false),
        ] {
            let expected = Isolation {
                ignores_environment,
                no_user_site,
                no_site,
                working_folder,
            };
            assert_eq!(isolation(&words(arguments)), expected, "{arguments}");
        }
    }

    #[test]
    fn what_keeps_python_from_a_hand_off() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_string()
        };
        let python = write("python3", b"\x7fELF");
        let wrapper = write("python3.9", b"#!/bin/sh\n");
        let console = write("serve", format!("#!{python}\n").as_bytes());
        let isolated = write("isolated", format!("#!{python} -sE\n").as_bytes());
        let shell = write("start.sh", b"#!/bin/sh\npython3 app.py\n");
        for (command, part) in [
            (format!("{python} -m app"), None),
            (format!("{python} -u -X dev app.py -I"), None),
            (console, None),
            (format!("{python} -I app.py"), Some("PYTHONPATH")),
            (format!("{python} -S app.py"), Some("-S")),
            (isolated, Some("-E or -I")),
            (format!("{wrapper} app.py"), Some("script")),
            (shell, Some("shell script")),
            ("sh -c python3".to_string(), Some("not a Python program")),
            ("/does/not/exist".to_string(), Some("not found")),
        ] {
            let env = Environment::from_iter([("PATH", "/bin:/usr/bin")]);
            let query = PythonQuery {
                explicit: None,
                command: &words(&command),
                env: &env,
                cwd: Path::new("/"),
                usual_places: &[],
            };
            let found = hindrance(&query);
            match part {
                None => assert_eq!(found, None, "{command}"),
                Some(part) => assert!(
                    found.as_deref().is_some_and(|f| f.contains(part)),
                    "{command}: {found:?}"
                ),
            }
        }
    }
}
