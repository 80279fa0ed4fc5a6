//! Which Python a command line runs: seen through wrappers, `sh -c`, `#!` lines and pip's long ones.
//!
//! A command that starts no Python leaves the choice to the next place. One that starts a Python of which the environment
//! cannot be determined does not: what would be judged then is a guess.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::interpreter::{is_called_python, is_executable, is_python_name};
use super::wrappers::{self, Rule, Wrapper};
use super::{Candidate, Environment, Isolation, PythonQuery, rules, shell};
use crate::discover::files;
use crate::sys;

/// Deepest nesting of wrappers that is followed.
const MAX_WRAPPERS: usize = 8;
/// Longest `#!` line and long-shebang line together, in bytes; the kernel itself reads 256.
const MAX_SHEBANG: usize = 4096;
/// Longest start script that is looked at, in bytes.
const MAX_SCRIPT: usize = 64 << 10;

/// Why Python, started by this very command, would not read what `PYTHONPATH` puts before its own `site`; `None` where
/// nothing stands in the way.
pub fn hindrance(query: &PythonQuery<'_>) -> Option<String> {
    isolated_candidate(query).err()
}

fn isolated_candidate(query: &PythonQuery<'_>) -> Result<(), String> {
    let mut env = query.env.clone();
    let mut argv = query.command.to_vec();
    for _ in 0..MAX_WRAPPERS {
        match in_place(query, &mut env, &argv)? {
            Some(next) if !next.is_empty() => argv = next,
            _ => break,
        }
    }
    let Some((program, arguments)) = argv.split_first() else {
        return Ok(());
    };
    let is_python = base_name(program).is_some_and(is_python_name);
    let Some(path) = locate(query, &env, program) else {
        // A shell may have gone to another folder, or have another PATH.
        return match is_python && argv != query.command {
            true => Ok(()),
            false => Err(format!("{} is not found", Path::new(program).display())),
        };
    };
    let (path, isolation) = if is_python {
        // A shell script of that name may do anything.
        if files::read_head(&path, 4).is_ok_and(|(head, _)| head != b"\x7fELF") {
            return Err(format!("{} is a script, not an interpreter", path.display()));
        }
        (path, isolation(arguments))
    } else {
        let candidate = of_script(query, &env, &path)?;
        (candidate.path, candidate.isolation)
    };
    if isolation.ignores_environment {
        return Err("its Python ignores PYTHONPATH (-E or -I)".to_string());
    }
    if isolation.no_site {
        return Err("its Python skips the site module (-S)".to_string());
    }
    let privileged =
        CString::new(path.as_os_str().as_bytes()).is_ok_and(|path| sys::grants_privileges(&path));
    match privileged {
        true => Err(format!(
            "{} is executed with privileges of its own",
            path.display()
        )),
        false => Ok(()),
    }
}

/// The command that a wrapper, or a shell, executes in its own process before it does anything else; `None` for what is
/// neither.
///
/// # Errors
/// That it may do something else first, or executes nothing in its own process, as a sentence.
fn in_place(
    query: &PythonQuery<'_>,
    env: &mut Environment,
    argv: &[OsString],
) -> Result<Option<Vec<OsString>>, String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Ok(None);
    };
    let name = base_name(program).unwrap_or_default();
    if name == "env" {
        return Ok(behind_env(arguments, env));
    }
    if is_shell(name) {
        return in_shell(query, env, arguments)
            .map(Some)
            .ok_or_else(|| format!("{name} does not execute Python before anything else"));
    }
    if let Some(wrapper) = wrappers::find(name) {
        return match wrapper.in_place {
            true => Ok(Some(wrapper.split(arguments, &|_| true).behind)),
            false => Err(format!(
                "{name} starts its Python as a process of its own, or as another user"
            )),
        };
    }
    if is_python_name(name) {
        return Ok(None);
    }
    // A script of the shell's, as the kernel executes it.
    let script = locate(query, env, program).filter(|path| !has_long_shebang(path));
    let head = script
        .as_ref()
        .and_then(|path| files::read_head(path, MAX_SHEBANG).ok());
    let head = head.map(|(head, _)| files::lossy(head)).unwrap_or_default();
    let shebang = head.lines().next().and_then(|line| line.strip_prefix("#!"));
    let mut words: Vec<OsString> = shebang
        .unwrap_or_default()
        .split_whitespace()
        .map(OsString::from)
        .collect();
    let interpreter = unwrap_env(&words, env);
    if !interpreter
        .first()
        .and_then(|w| base_name(w))
        .is_some_and(is_shell)
    {
        return Ok(None);
    }
    words = interpreter;
    words.extend(script.map(OsString::from));
    words.extend(arguments.iter().cloned());
    Ok(Some(words))
}

/// What `env` of a `#!` line executes.
fn unwrap_env(words: &[OsString], env: &mut Environment) -> Vec<OsString> {
    match words.split_first() {
        Some((program, arguments)) if base_name(program) == Some("env") => {
            behind_env(arguments, env).unwrap_or_default()
        }
        _ => words.to_vec(),
    }
}

/// What a shell with these arguments executes in its own process, if that is what it does first.
fn in_shell(query: &PythonQuery<'_>, env: &Environment, arguments: &[OsString]) -> Option<Vec<OsString>> {
    // bash reads that file first.
    if env.get("BASH_ENV").is_some() {
        return None;
    }
    let mut rest = arguments;
    let mut is_text = false;
    while let Some((option, behind)) = rest.split_first() {
        let Some(letters) = option.to_str()?.strip_prefix('-') else {
            break;
        };
        // Others, such as -l, have it read files, and -i asks a terminal.
        if letters.is_empty() || !letters.chars().all(|c| "ceux".contains(c)) {
            return None;
        }
        is_text |= letters.contains('c');
        rest = behind;
    }
    let (first, rest) = rest.split_first()?;
    if is_text {
        // The word behind the text is its $0.
        return exec_of_text(first.to_str()?, rest.get(1..).unwrap_or_default());
    }
    let (text, more) = files::read_head(&query.absolute(Path::new(first)), MAX_SCRIPT).ok()?;
    exec_of_text(std::str::from_utf8(&text).ok()?, rest).filter(|_| !more)
}

/// The command that a shell's text executes first, `exec` in front of it; `None` where it may do something before. Nothing
/// but settings of the shell's own process may stand before it, and nothing in it that makes a process.
pub fn exec_of_text(text: &str, arguments: &[OsString]) -> Option<Vec<OsString>> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        if rest.starts_with('#') {
            rest = rest.split_once('\n')?.1;
            continue;
        }
        if let Some(command) = rest.strip_prefix("exec").filter(|c| c.starts_with([' ', '\t'])) {
            return words_of_exec(command, arguments);
        }
        let end = rest.find(['\n', ';']).unwrap_or(rest.len());
        let end = rest.find("&&").map_or(end, |and| and.min(end));
        let (setting, behind) = rest.split_at_checked(end)?;
        if !is_setting(setting) {
            return None;
        }
        rest = behind.strip_prefix("&&").unwrap_or(behind);
    }
}

/// Whether this changes nothing but the shell's own process.
fn is_setting(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_known = matches!(first, "set" | "export" | "cd" | "umask" | "ulimit")
        || assign(OsStr::new(first), &mut Environment::default());
    let even = |quote| command.matches(quote).count().is_multiple_of(2);
    let is_name = |c: char| c.is_ascii_alphabetic() || c == '_';
    let mut variables = command.split('$').skip(1);
    is_known
        && even('"')
        && even('\'')
        && !command.contains(['`', '&', '|', '<', '>', '(', ')', '{', '}', '\\'])
        && variables.all(|rest| rest.starts_with(is_name))
}

/// The words behind `exec`, as far as they say what they are.
fn words_of_exec(command: &str, arguments: &[OsString]) -> Option<Vec<OsString>> {
    let command = command.replace("\\\n", " ");
    let line = command.lines().next()?;
    let may_fork = ["$(", "`", "<(", ">(", "|"]
        .iter()
        .any(|sign| line.contains(sign));
    let sends_away = line
        .match_indices('&')
        .any(|(at, _)| !line.get(..at).is_some_and(|before| before.ends_with('>')));
    if may_fork || sends_away {
        return None;
    }
    let mut words = line.split_whitespace().peekable();
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        if option != "-a" {
            return None;
        }
        words.next()?;
    }
    let mut argv = Vec::new();
    for word in words {
        match word {
            "\"$@\"" | "$@" => argv.extend(arguments.iter().cloned()),
            _ if is_plain(word) => argv.push(OsString::from(word)),
            _ => break,
        }
    }
    (!argv.is_empty()).then_some(argv)
}

/// Why a command's Python is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unresolved {
    /// it starts none, as far as can be seen: another place may name one
    NotPython(String),
    /// it starts one, and which one cannot be determined
    Unknown(String),
}

impl From<String> for Unresolved {
    fn from(why: String) -> Self {
        Self::NotPython(why)
    }
}

/// The interpreter of the service command. `None` when there is no command.
pub fn interpreter(query: &PythonQuery<'_>) -> Option<Result<Candidate, Unresolved>> {
    if query.command.is_empty() {
        return None;
    }
    Some(resolve(query, query.env.clone(), query.command, MAX_WRAPPERS))
}

/// The Python that a command starts, seen through wrappers, shells and scripts, `depth` of them at most.
///
/// # Errors
/// That it starts none, or that it cannot be determined.
pub fn resolve(
    query: &PythonQuery<'_>,
    mut env: Environment,
    argv: &[OsString],
    depth: usize,
) -> Result<Candidate, Unresolved> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Unresolved::NotPython("there is no command".to_string()));
    };
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Unresolved::Unknown(
            "too many wrappers around the command".to_string(),
        ));
    };
    let name = base_name(program).unwrap_or_default();
    if name == "env" {
        let behind = behind_env(arguments, &mut env).unwrap_or_default();
        return resolve(query, env, &behind, depth);
    }
    if is_shell(name) {
        return shell::of_arguments(query, env, name, arguments, depth);
    }
    if matches!(name, "su" | "runuser")
        && let Some(line) = line_of_su(arguments)
    {
        return shell::of_arguments(query, env, name, &line, depth);
    }
    if let Some(wrapper) = wrappers::find(name) {
        return behind_wrapper(query, env, wrapper, program, arguments, depth);
    }
    if let Some(script) = locate(query, &env, program).filter(|path| is_shell_script(path)) {
        return shell::of_script(query, env, &script, arguments, depth);
    }
    let found = of_program(query, env.clone(), program, arguments);
    // A program that is not known, and is given a Python by its path, starts it.
    found.or_else(|why| {
        let is_python =
            |word: &&OsString| word.as_bytes().contains(&b'/') && base_name(word).is_some_and(is_python_name);
        let at = arguments.iter().position(|word| is_python(&word));
        let behind = at.and_then(|at| arguments.get(at..));
        let behind = behind.filter(|words| words.first().is_some_and(|w| locate(query, &env, w).is_some()));
        behind.map_or(Err(why.into()), |words| resolve(query, env, words, depth))
    })
}

/// `-c LINE` of su(1) and runuser(1), as a shell is given it.
fn line_of_su(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let at = arguments
        .iter()
        .position(|word| word == "-c" || word == "--command")?;
    let line = arguments.get(at + 1)?.clone();
    let is_login = arguments
        .iter()
        .any(|word| word == "-" || word == "-l" || word == "--login");
    Some(vec![OsString::from(if is_login { "-lc" } else { "-c" }), line])
}

/// What a wrapper starts, in the environment that it chooses.
fn behind_wrapper(
    query: &PythonQuery<'_>,
    mut env: Environment,
    wrapper: &Wrapper,
    program: &OsStr,
    arguments: &[OsString],
    depth: usize,
) -> Result<Candidate, Unresolved> {
    let name = base_name(program).unwrap_or_default();
    let is_program = |word: &OsString| {
        base_name(word).is_some_and(is_python_name)
            || locate(query, &env, word).is_some_and(|path| is_executable(&path))
    };
    let given = wrapper.split(arguments, &is_program);
    let unknown = |why: &str| Unresolved::Unknown(format!("`{name}` {why}"));
    if given.is_other_command {
        return Err(match wrapper.rule {
            Rule::Same => Unresolved::NotPython(format!("`{name}` runs no command")),
            _ => unknown("chooses what it starts by a rule that is not known"),
        });
    }
    let assignments = given
        .behind
        .iter()
        .take_while(|word| assign(word, &mut env))
        .count();
    let behind = given.behind.get(assignments..).unwrap_or_default();
    if behind.is_empty() && wrapper.rule != Rule::Hidden {
        return Err(Unresolved::NotPython(format!("`{name}` is given no command")));
    }
    if wrapper.rule == Rule::Reset {
        let why = format!("`{name}` may set another PATH (secure_path)");
        return shell::either(env, &why, &|env| resolve(query, env, behind, depth));
    }
    let tool = locate(query, &env, program);
    let folder = rules::environment(query, &env, wrapper.rule, tool.as_deref(), &given)
        .map_err(|why| unknown(&why))?;
    let Some(folder) = folder else {
        return resolve(query, env, behind, depth);
    };
    // pdm keeps the path of an interpreter.
    let prefix = match folder.is_dir() {
        true => folder.clone(),
        false => folder
            .parent()
            .and_then(Path::parent)
            .unwrap_or(&folder)
            .to_path_buf(),
    };
    rules::activate(&mut env, &prefix);
    match resolve(query, env.clone(), behind, depth) {
        // A task, a script or a program of the environment's.
        Err(Unresolved::NotPython(_)) => Ok(Candidate {
            path: folder,
            env,
            isolation: Isolation::default(),
            script_folder: None,
        }),
        found => found,
    }
}

/// Whether the kernel has a shell read this file, and it does not lead to a Python by its second line.
fn is_shell_script(path: &Path) -> bool {
    let Ok((head, _)) = files::read_head(path, MAX_SHEBANG) else {
        return false;
    };
    let head = files::lossy(head);
    let mut lines = head.lines();
    let shebang = lines.next().and_then(|line| line.strip_prefix("#!"));
    let mut words = shebang.unwrap_or_default().split_whitespace();
    let mut first = words.next().unwrap_or_default();
    if first.ends_with("/env") {
        first = words
            .find(|word| !word.starts_with('-') && !word.contains('='))
            .unwrap_or_default();
    }
    base_name(OsStr::new(first)).is_some_and(is_shell)
        && lines.next().is_none_or(|line| long_shebang(line, path).is_none())
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
pub fn locate(query: &PythonQuery<'_>, env: &Environment, program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        let path = query.absolute(Path::new(program));
        // A broken link is handed on, so that it can be named.
        return path.symlink_metadata().is_ok().then_some(path);
    }
    let mut paths = query.on_path(env, program);
    // One that this user cannot reach is named, unless another one takes its place.
    let first = paths.next()?;
    match is_executable(&first) {
        true => Some(first),
        false => paths.find(|path| is_executable(path)).or(Some(first)),
    }
}

pub fn base_name(program: &OsStr) -> Option<&str> {
    Path::new(program).file_name()?.to_str()
}

/// Whether a program of this name is a shell.
pub fn is_shell(name: &str) -> bool {
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
        name => wrappers::find(name)
            .filter(|wrapper| wrapper.rule == Rule::Same)
            .map(|wrapper| wrapper.split(arguments, &|_| true).behind),
    }
}

/// What GNU's env executes with these arguments. Its options end at the first word that is none; what stands behind the
/// command is the command's own. A `#!` line of several words may come here as these words.
///
/// Source: coreutils' manual, "env invocation".
fn behind_env(arguments: &[OsString], env: &mut Environment) -> Option<Vec<OsString>> {
    let mut rest: VecDeque<OsString> = arguments.iter().cloned().collect();
    while let Some(word) = rest.front().map(|word| word.to_string_lossy().into_owned()) {
        if !word.starts_with('-') {
            break;
        }
        rest.pop_front();
        if word == "--" {
            break;
        }
        // The option's letter, and its value where it is a part of the word.
        let (option, value) = match word.strip_prefix("--") {
            Some(long) => {
                let (name, value) = long
                    .split_once('=')
                    .map_or((long, None), |(name, value)| (name, Some(value)));
                let letter = match name {
                    "unset" => 'u',
                    "split-string" => 'S',
                    "chdir" => 'C',
                    "argv0" => 'a',
                    "ignore-environment" => 'i',
                    _ => continue,
                };
                (letter, value)
            }
            // A dash alone is -i. Of a cluster only the last letter can have a value: those before it are flags.
            None => {
                let letters = word.get(1..).unwrap_or_default();
                if letters.is_empty() || letters.split(['u', 'S', 'C', 'a']).next()?.contains('i') {
                    clear(env);
                }
                let Some(at) = letters.find(['u', 'S', 'C', 'a']) else {
                    continue;
                };
                let (option, value) = letters.split_at(at).1.split_at(1);
                (
                    option.chars().next()?,
                    Some(value).filter(|value| !value.is_empty()),
                )
            }
        };
        if option == 'i' {
            clear(env);
            continue;
        }
        let value = match value {
            Some(value) => OsString::from(value),
            None => rest.pop_front().unwrap_or_default(),
        };
        match option {
            'u' => env.unset(&value),
            'S' => {
                for word in split_string(&value.to_string_lossy(), env).into_iter().rev() {
                    rest.push_front(word);
                }
            }
            _ => {}
        }
    }
    let mut rest = Vec::from(rest);
    let assignments = rest.iter().take_while(|word| assign(word, env)).count();
    Some(rest.split_off(assignments))
}

/// The words of `env -S`: quotes and escapes as there, and variables in braces.
///
/// Source: coreutils' manual, "-S/--split-string usage in scripts".
fn split_string(text: &str, env: &Environment) -> Vec<OsString> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match (quote, c) {
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (quote, '\\') => {
                let next = rest.chars().next().unwrap_or_default();
                rest = rest.get(next.len_utf8()..).unwrap_or_default();
                match (quote, next) {
                    (None, 'c') => break,
                    (None, '_') => words.extend(word.take()),
                    (Some('"'), '_') => word.get_or_insert_default().push(' '),
                    (Some('\''), next) if next != '\'' && next != '\\' => {
                        word.get_or_insert_default().extend(['\\', next]);
                    }
                    (_, next) => word.get_or_insert_default().push(next),
                }
            }
            (None | Some('"'), '$') if rest.starts_with('{') => {
                let (name, behind) = rest
                    .get(1..)
                    .and_then(|rest| rest.split_once('}'))
                    .unwrap_or_default();
                rest = behind;
                let value = env.get(name).unwrap_or_default();
                word.get_or_insert_default().push_str(&value.to_string_lossy());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words.into_iter().map(OsString::from).collect()
}

/// As `env -i`. execvp(3) then looks for programs where the C library says.
fn clear(env: &mut Environment) {
    env.clear();
    env.set("PATH", "/bin:/usr/bin");
}

/// `sh -c 'NAME=VALUE exec command argument…'`: the plain words at its start.
fn behind_shell(arguments: &[OsString], env: &mut Environment) -> Option<Vec<OsString>> {
    let script = shell_line(arguments)?;
    let mut words: Vec<OsString> = script
        .split_whitespace()
        .take_while(|word| is_plain(word))
        .map(OsString::from)
        .collect();
    let assignments = words.iter().take_while(|word| assign(word, env)).count();
    words.drain(..assignments);
    if words.first().is_some_and(|w| w == "exec") {
        words.remove(0);
    }
    Some(words)
}

/// Whether a shell takes this word as it is.
fn is_plain(word: &str) -> bool {
    !word.contains(|c: char| ";|&<>()$`\"'\\*?#{}!".contains(c))
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

/// Whether a script is one of those that a shell executes and that lead to a Python by their second line.
pub fn has_long_shebang(script: &Path) -> bool {
    let Ok((head, _)) = files::read_head(script, MAX_SHEBANG) else {
        return false;
    };
    let head = files::lossy(head);
    let mut lines = head.lines();
    let is_script = lines.next().is_some_and(|line| line.starts_with("#!"));
    is_script
        && lines
            .next()
            .is_some_and(|line| long_shebang(line, script).is_some())
}

/// Whether a program of this name (its file's, and the one that it was called by) is a Python, or may execute one in its
/// own process.
pub fn may_lead_to_python(file: &str, called: &str) -> bool {
    // One file with many programs in it.
    let name = match file {
        "busybox" | "coreutils" => called,
        _ => file,
    };
    let wrapper = wrappers::find(name);
    is_called_python(name.trim_start_matches('.'))
        || name == "env"
        || is_shell(name)
        || wrapper.is_some_and(|w| w.in_place)
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
        if cluster == "-check-hash-based-pycs" {
            // The one long option that is no command; its value is the next argument.
            rest.next();
            continue;
        }
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
    // It is a place of its own.
    if files::is_zip(&real) {
        return Some(path);
    }
    real.parent().map(Path::to_path_buf)
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
            ("--check-hash-based-pycs never -I x", true, true, false, false),
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
    fn what_a_shell_executes_first() {
        let arguments = words("python app.py");
        for (text, expected) in [
            ("exec python app.py", Some("python app.py")),
            (
                "set -euo pipefail\n\n# About it.\nexec \"$@\" # all",
                Some("python app.py"),
            ),
            (
                "exec -a name python -m svc \"$@\"",
                Some("python -m svc python app.py"),
            ),
            (
                "cd /app && A=1; export B=$A && exec python $OPTIONS -I",
                Some("python"),
            ),
            (
                "umask 022; exec python \\\n  -u \\\n  app.py >>log 2>&1",
                Some("python -u app.py"),
            ),
            ("export A='b;c'; exec python", None),
            ("python app.py", None),
            ("executor python", None),
            ("mkdir x; exec python", None),
            ("export A=$(date); exec python", None),
            ("export A=`date`; exec python", None),
            ("A=${B:=c} exec python", None),
            ("cd /app || exit 1; exec python", None),
            ("set -e > x; exec python", None),
            ("exec python --port $(port)", None),
            ("exec python `port`", None),
            ("exec python <(date)", None),
            ("exec python | tee log", None),
            ("exec python &", None),
            ("exec -c python", None),
            ("exec \"$PYTHON\" app.py", None),
            ("# only words", None),
            ("", None),
        ] {
            assert_eq!(exec_of_text(text, &arguments), expected.map(words), "{text}");
        }
    }

    #[test]
    fn what_may_lead_to_a_python() {
        for (file, called, may) in [
            ("python3.11", "", true),
            (".python3.11-wrapped", "python", true),
            ("pypy3.10", "python", true),
            ("bash", "sh", true),
            ("env", "env", true),
            ("coreutils", "env", true),
            ("busybox", "nice", true),
            ("busybox", "httpd", false),
            ("timeout", "python", false),
            ("nginx", "python", false),
        ] {
            assert_eq!(may_lead_to_python(file, called), may, "{file}");
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
        let start = write(
            "exec.sh",
            format!(
                "#!/bin/bash -e\n# Starts it.\nset -u; cd /\nexport A=\"$HOME\" && exec {python} \"$@\"\n"
            )
            .as_bytes(),
        );
        let forks = write(
            "forks.sh",
            b"#!/usr/bin/env bash\nmkdir -p /x\nexec python3 app.py\n",
        );
        let special = write("python3.8", b"\x7fELF");
        std::fs::set_permissions(&special, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
        for (command, part) in [
            (format!("{python} -m app"), None),
            (format!("{python} -u -X dev app.py -I"), None),
            (console, None),
            (format!("{python} -I app.py"), Some("PYTHONPATH")),
            (format!("{python} -S app.py"), Some("-S")),
            (isolated, Some("-E or -I")),
            (format!("{wrapper} app.py"), Some("script")),
            (shell, Some("sh does not execute Python before anything else")),
            (format!("{start} app.py"), None),
            (format!("sh {start} app.py"), None),
            (format!("{start} -I app.py"), Some("-E or -I")),
            (format!("bash -l {start} app.py"), Some("bash does not")),
            (forks, Some("bash does not")),
            ("sh -c python3".to_string(), Some("sh does not")),
            (
                format!("env A=1 nice -n 5 nohup stdbuf -o L {python} app.py"),
                None,
            ),
            (
                format!("taskset -c 0 ionice -c 3 numactl -m 0 {python} app.py"),
                None,
            ),
            (format!("nice {python} -E app.py"), Some("-E or -I")),
            (format!("timeout 60 {python} app.py"), Some("timeout starts")),
            (format!("setsid {python} app.py"), Some("setsid starts")),
            (format!("tini -- {python} app.py"), Some("tini starts")),
            (format!("gosu app {python} app.py"), Some("gosu starts")),
            (special, Some("privileges of its own")),
            ("/does/not/exist".to_string(), Some("not found")),
            ("python2.9 app.py".to_string(), Some("not found")),
            ("sh -c 'exec serve'".to_string(), Some("sh does not")),
            ("nice serve".to_string(), Some("not found")),
            ("nice python2.9".to_string(), None),
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
