//! Which Python a shell's text starts: as much of the shell's language as start scripts use to choose one.
//!
//! Nothing is executed. Assignments, `cd`, `source`, activation and `exec` are followed; a value that only a command could
//! tell is unknown, and so is then what depends on it.
//!
//! Sources: POSIX, "Shell Command Language"; the `activate` scripts of venv, virtualenv and conda.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{Unresolved, base_name, locate, resolve};
use super::{Candidate, Environment, PythonQuery, is_python_name, rules};
use crate::discover::files;

mod stays;
mod words;
pub use stays::stays_beside_its_command;
use words::{Token, tokens};

/// Longest script that is looked at, in bytes.
const MAX_SCRIPT: usize = 64 << 10;
/// Most commands that are looked for on PATH.
const MAX_COMMANDS: usize = 200;
/// Deepest nesting of `$(…)` that is followed.
const MAX_NESTING: usize = 8;

/// Builtins and programs that start no Python; not to look for them keeps a long script quick.
const HARMLESS: [&str; 29] = [
    "[", "[[", "test", "echo", "printf", "true", "false", ":", "mkdir", "rm", "cp", "mv", "ln", "chmod",
    "chown", "cat", "sleep", "wait", "trap", "ulimit", "umask", "shopt", "local", "return", "read", "grep",
    "sed", "kill", "date",
];

/// A Python that the text starts.
struct Started {
    candidate: Candidate,
    /// it takes the shell's place
    exec: bool,
    /// only under a condition, or beside what follows
    aside: bool,
}

struct Reader<'q> {
    query: PythonQuery<'q>,
    env: Environment,
    /// variables of the shell that are not exported
    own: Environment,
    /// none where it is unknown
    folder: Option<PathBuf>,
    arguments: Vec<OsString>,
    /// `$0`, where it is a script
    script: Option<PathBuf>,
    /// why PATH is not known
    doubt: Option<String>,
    /// words of the condition that was read last
    tested: Vec<OsString>,
    started: Vec<Started>,
    unresolved: Option<String>,
    /// a command that is not known, and how many Pythons were started before it
    open: Option<(usize, String)>,
    left: usize,
    depth: usize,
    /// how deep in `$(…)` an expansion is
    nesting: Cell<usize>,
}

/// What a shell's options say of the words behind them.
#[derive(Clone, Copy, Default)]
struct Options {
    /// `-c`: the first of them is a line
    is_line: bool,
    /// `-l`
    is_login: bool,
}

/// A shell's options, and the words behind them.
fn options(arguments: &[OsString]) -> (Options, &[OsString]) {
    let mut rest = arguments;
    let mut found = Options::default();
    while let Some((option, behind)) = rest.split_first() {
        let Some(letters) = option.to_str().and_then(|o| o.strip_prefix(['-', '+'])) else {
            break;
        };
        rest = behind;
        if letters == "-login" {
            found.is_login = true;
        } else if letters.is_empty() || letters == "-" {
            break;
        } else if matches!(letters, "-rcfile" | "-init-file")
            || !letters.starts_with('-') && letters.ends_with(['o', 'O'])
        {
            rest = behind.get(1..).unwrap_or_default();
        }
        if !letters.starts_with('-') {
            found.is_line |= letters.contains('c');
            found.is_login |= letters.contains('l');
        }
    }
    (found, rest)
}

/// What a shell with these arguments starts.
///
/// # Errors
/// That it starts none, or that it cannot be determined.
pub fn of_arguments(
    query: &PythonQuery<'_>,
    env: Environment,
    name: &str,
    arguments: &[OsString],
    depth: usize,
) -> Result<Candidate, Unresolved> {
    let (Options { is_line, is_login }, rest) = options(arguments);
    let Some((first, rest)) = rest.split_first() else {
        return Err(Unresolved::NotPython(format!(
            "{name} reads its commands from its input"
        )));
    };
    if is_line {
        let subject = format!("`{name} -c`");
        let line = first.to_string_lossy().into_owned();
        let arguments = rest.get(1..).unwrap_or_default();
        return in_login(is_login, env, &|env| {
            of_text(query, env, &subject, &line, None, arguments, depth)
        });
    }
    let script = query.absolute(Path::new(first));
    in_login(is_login, env, &|env| of_script(query, env, &script, rest, depth))
}

/// A login shell reads /etc/profile and the user's, which set PATH in most images.
fn in_login(
    is_login: bool,
    env: Environment,
    read: &dyn Fn(Environment) -> Result<Candidate, Unresolved>,
) -> Result<Candidate, Unresolved> {
    if !is_login {
        return read(env);
    }
    either(env, "a login shell may set another PATH (/etc/profile)", read)
}

/// The answer, if it is the same with this PATH and with the one that most systems set.
pub fn either(
    env: Environment,
    why: &str,
    read: &dyn Fn(Environment) -> Result<Candidate, Unresolved>,
) -> Result<Candidate, Unresolved> {
    let mut other = env.clone();
    other.set(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    match (read(env), read(other)) {
        (Ok(one), Ok(two)) if one.path == two.path => Ok(one),
        (Err(Unresolved::NotPython(one)), Err(Unresolved::NotPython(_))) => Err(Unresolved::NotPython(one)),
        (Err(one @ Unresolved::Unknown(_)), _) => Err(one),
        _ => Err(Unresolved::Unknown(why.to_string())),
    }
}

/// What a script of the shell's starts.
///
/// # Errors
/// As [`of_arguments`].
pub fn of_script(
    query: &PythonQuery<'_>,
    env: Environment,
    script: &Path,
    arguments: &[OsString],
    depth: usize,
) -> Result<Candidate, Unresolved> {
    let shown = script.display().to_string();
    let (text, more) = files::read_head(script, MAX_SCRIPT)
        .map_err(|error| Unresolved::NotPython(format!("{shown}: {error}")))?;
    if more {
        return Err(Unresolved::Unknown(format!("{shown} is too long a script")));
    }
    let text = files::lossy(text);
    // The kernel takes the carriage return for a part of the interpreter's name.
    if text
        .lines()
        .next()
        .is_some_and(|_| text.split('\n').next().is_some_and(|line| line.ends_with('\r')))
    {
        return Err(Unresolved::NotPython(format!(
            "{shown} has Windows line ends, and cannot be executed"
        )));
    }
    of_text(query, env, &shown, &text, Some(script), arguments, depth)
}

fn of_text(
    query: &PythonQuery<'_>,
    env: Environment,
    subject: &str,
    text: &str,
    script: Option<&Path>,
    arguments: &[OsString],
    depth: usize,
) -> Result<Candidate, Unresolved> {
    let mut reader = Reader {
        query: query.clone(),
        env,
        own: Environment::default(),
        folder: Some(query.cwd.to_path_buf()),
        arguments: arguments.to_vec(),
        script: script.map(Path::to_path_buf),
        doubt: None,
        tested: Vec::new(),
        started: Vec::new(),
        unresolved: None,
        open: None,
        left: MAX_COMMANDS,
        depth,
        nesting: Cell::new(0),
    };
    if reader.env.get("BASH_ENV").is_some() {
        reader.doubt = Some("BASH_ENV names a file that is read first".to_string());
    }
    reader.text(text);
    reader.verdict(subject)
}

impl Reader<'_> {
    /// The Python of the last command, if those that stand aside do not start another one.
    fn verdict(mut self, subject: &str) -> Result<Candidate, Unresolved> {
        let open = self.open.filter(|(before, _)| *before == self.started.len());
        if let Some(why) = self.unresolved.or(open.map(|(_, why)| why)) {
            return Err(Unresolved::Unknown(format!("{subject}: {why}")));
        }
        let Some(last) = self.started.pop() else {
            return Err(Unresolved::NotPython(format!(
                "{subject} starts no Python that can be seen"
            )));
        };
        let mut others = self
            .started
            .iter()
            .filter(|one| last.aside || one.exec || one.aside);
        match others.all(|one| one.candidate.path == last.candidate.path) {
            true => Ok(last.candidate),
            false => Err(Unresolved::Unknown(format!(
                "{subject} starts more than one Python"
            ))),
        }
    }

    /// Goes through a text, command by command.
    fn text(&mut self, text: &str) {
        let tokens = tokens(text);
        let mut at = 0;
        // Open control structures; `case` where one is that.
        let mut open: Vec<&str> = Vec::new();
        let mut is_pattern = false;
        let mut after_or = false;
        while at < tokens.len() {
            if is_pattern {
                // Up to the bracket behind a pattern, unless there is none any more.
                match tokens.get(at) {
                    Some(Token::Word(word)) if word == "esac" => {
                        open.pop();
                        is_pattern = false;
                    }
                    Some(Token::Sign(")")) => is_pattern = false,
                    _ => {}
                }
                at += 1;
                continue;
            }
            match tokens.get(at) {
                Some(Token::Sign(sign)) => {
                    match *sign {
                        "(" => open.push("("),
                        ")" if open.last() == Some(&"(") => drop(open.pop()),
                        ";;" => is_pattern = open.last() == Some(&"case"),
                        _ => {}
                    }
                    after_or = *sign == "||" || after_or && *sign == "&&";
                    at += 1;
                }
                Some(Token::Word(word)) => match word.as_str() {
                    "if" | "while" | "until" | "{" => {
                        if word == "if" {
                            self.tested.clear();
                        }
                        open.push(if word == "{" { "{" } else { "if" });
                        at += 1;
                    }
                    "then" | "else" | "elif" | "do" | "!" | "time" => at += 1,
                    "fi" | "done" | "}" => {
                        open.pop();
                        at += 1;
                    }
                    "esac" => {
                        open.pop();
                        at += 1;
                    }
                    "case" | "for" | "select" => {
                        let is_case = word == "case";
                        open.push(if is_case { "case" } else { "if" });
                        let ends = |token: &Token| match token {
                            Token::Word(word) => is_case && word == "in",
                            Token::Sign(_) => !is_case,
                        };
                        let rest = tokens.get(at..).unwrap_or_default();
                        at += rest.iter().position(ends).unwrap_or(rest.len()) + 1;
                        is_pattern = is_case;
                    }
                    _ => {
                        let rest = tokens.get(at..).unwrap_or_default();
                        let words: Vec<&str> = rest
                            .iter()
                            .map_while(|token| match token {
                                Token::Word(word) => Some(word.as_str()),
                                Token::Sign(_) => None,
                            })
                            .collect();
                        at += words.len();
                        let next = tokens.get(at);
                        let is_function = next == Some(&Token::Sign("("));
                        let is_beside = matches!(next, Some(Token::Sign("&")));
                        let is_nested = open.iter().any(|kind| *kind != "{");
                        if is_function {
                            at += 2;
                        } else if self.command(&words, is_nested || after_or, is_beside) {
                            return;
                        }
                    }
                },
                None => break,
            }
        }
    }

    /// Follows one command; true where nothing comes after it.
    fn command(&mut self, words: &[&str], nested: bool, beside: bool) -> bool {
        let assignments = words.iter().take_while(|word| assignment(word).is_some()).count();
        let (before, words) = words.split_at_checked(assignments).unwrap_or_default();
        if words.is_empty() {
            before.iter().for_each(|word| self.assign(word, false, nested));
            return false;
        }
        let kept = (self.env.clone(), self.own.clone());
        for word in before {
            self.assign(word, true, false);
        }
        let ends = self.simple(words, nested, beside);
        if assignments > 0 {
            (self.env, self.own) = kept;
        }
        ends
    }

    fn simple(&mut self, words: &[&str], nested: bool, beside: bool) -> bool {
        let mut argv: Vec<Option<OsString>> = Vec::new();
        for word in words {
            self.expand(word, &mut argv);
        }
        let Some(first) = argv.first().cloned() else {
            return false;
        };
        let Some(first) = first else {
            // The command is a variable's, such as "$PYTHON"; what stands behind it may still show a Python.
            let word = words.first().unwrap_or(&"");
            self.open = Some((self.started.len(), format!("the value of {word} is unknown")));
            return false;
        };
        let known: Vec<OsString> = argv.iter().map(|word| word.clone().unwrap_or_default()).collect();
        let rest = known.get(1..).unwrap_or_default();
        match first.to_str().unwrap_or_default() {
            "cd" | "pushd" => self.change(
                argv.iter()
                    .skip(1)
                    .find(|w| w.as_ref().is_none_or(|w| w != "--" && w != "-P")),
            ),
            "export" | "declare" | "typeset" | "readonly" => {
                for word in words.iter().skip(1) {
                    match assignment(word) {
                        Some(_) => self.assign(word, true, nested),
                        None => {
                            if let Some(value) = self.own.get(word).map(OsStr::to_os_string) {
                                self.env.set(*word, value);
                            }
                        }
                    }
                }
            }
            "unset" => {
                for name in rest {
                    self.env.unset(name);
                    self.own.unset(name);
                }
            }
            "set" => {
                if let Some(at) = rest.iter().position(|word| word == "--") {
                    self.arguments = rest.get(at + 1..).unwrap_or_default().to_vec();
                }
            }
            "shift" => {
                let count = rest.first().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(1);
                self.arguments = self.arguments.get(count..).unwrap_or_default().to_vec();
            }
            "." | "source" => self.source(
                argv.get(1).cloned().flatten(),
                rest.get(1..).unwrap_or_default(),
                nested,
            ),
            "eval" => {
                let is_hook = words.iter().any(|word| word.contains("hook"));
                if !is_hook {
                    self.doubt
                        .get_or_insert("`eval` may set another PATH".to_string());
                }
            }
            "conda" | "mamba" | "micromamba" if rest.first().is_some_and(|word| word == "activate") => {
                self.activate_conda(&first, argv.get(2).cloned(), nested);
            }
            "exit" | "return" => return !nested,
            "exec" => {
                let mut rest = rest;
                while let Some((option, behind)) =
                    rest.split_first().filter(|(o, _)| o.as_bytes().starts_with(b"-"))
                {
                    rest = if option == "-a" {
                        behind.get(1..).unwrap_or_default()
                    } else {
                        behind
                    };
                }
                if rest.is_empty() {
                    return false;
                }
                let at = known.len() - rest.len();
                if argv.get(at).is_some_and(Option::is_none) {
                    self.unresolved
                        .get_or_insert("the command behind exec is unknown".to_string());
                    return !nested;
                }
                self.start(rest, true, nested || beside);
                return !nested;
            }
            "command" | "builtin" => self.start(rest, false, nested || beside),
            "[" | "[[" | "test" => self.tested.extend(known),
            name if HARMLESS.contains(&name) => {}
            _ => self.start(&known, false, nested || beside),
        }
        false
    }

    fn start(&mut self, argv: &[OsString], exec: bool, aside: bool) {
        let Some(program) = argv.first().filter(|_| self.left > 0) else {
            return;
        };
        self.left -= 1;
        let is_path = program.as_bytes().contains(&b'/');
        let is_named = base_name(program).is_some_and(is_python_name);
        let relative = is_path && !program.as_bytes().starts_with(b"/");
        let unknown = match (&self.folder, &self.doubt) {
            (None, _) if relative => Some("the working folder is unknown".to_string()),
            (_, Some(doubt)) if !is_path && (is_named || exec) => Some(doubt.clone()),
            _ => None,
        };
        if let Some(why) = unknown {
            if is_named || exec {
                self.unresolved.get_or_insert(why);
            }
            return;
        }
        let folder = self.folder.clone().unwrap_or_else(|| PathBuf::from("/"));
        let query = PythonQuery {
            cwd: &folder,
            ..self.query.clone()
        };
        match resolve(&query, self.env.clone(), argv, self.depth) {
            Ok(candidate) => self.started.push(Started {
                candidate,
                exec,
                aside,
            }),
            Err(Unresolved::Unknown(why)) => drop(self.unresolved.get_or_insert(why)),
            Err(Unresolved::NotPython(why)) if is_named => drop(self.unresolved.get_or_insert(why)),
            Err(Unresolved::NotPython(_)) => {}
        }
    }

    fn change(&mut self, to: Option<&Option<OsString>>) {
        let to = match to {
            Some(Some(to)) => Some(PathBuf::from(to)),
            Some(None) => None,
            None => self.lookup("HOME").map(PathBuf::from),
        };
        self.folder = match (to, self.folder.take()) {
            (Some(to), _) if to.is_absolute() => Some(to),
            (Some(to), Some(from)) if to != Path::new("-") => Some(from.join(to)),
            _ => None,
        };
    }

    /// Reads another file as a part of this text.
    fn source(&mut self, file: Option<OsString>, arguments: &[OsString], nested: bool) {
        let file = file.filter(|file| file.as_bytes().starts_with(b"/") || self.folder.is_some());
        let Some(file) = file else {
            self.doubt
                .get_or_insert("it reads a file whose path is unknown".to_string());
            return;
        };
        let folder = self.folder.clone().unwrap_or_default();
        let path = PythonQuery {
            cwd: &folder,
            ..self.query.clone()
        }
        .absolute(Path::new(&file));
        let prefix = path
            .parent()
            .and_then(Path::parent)
            .map(Path::to_path_buf)
            .unwrap_or_default();
        if path.file_name() == Some(OsStr::new("activate")) {
            if prefix.join("conda-meta").is_dir() {
                let name = arguments.first().cloned();
                return self.activate_conda(path.as_os_str(), Some(name), nested);
            }
            return match path.is_file() {
                true => self.activate(&prefix, nested),
                false if nested => {}
                false => drop(
                    self.doubt
                        .get_or_insert(format!("{} does not exist", path.display())),
                ),
            };
        }
        // These only define conda's function.
        if matches!(
            path.file_name().and_then(OsStr::to_str),
            Some("conda.sh" | "mamba.sh" | "micromamba.sh")
        ) {
            self.own
                .set("CONDA_EXE", prefix.parent().unwrap_or(&prefix).join("bin/conda"));
            return;
        }
        let text = files::read_head(&path, MAX_SCRIPT).ok().filter(|(_, more)| !more);
        match text.filter(|_| self.depth > 0) {
            Some((text, _)) => {
                self.depth -= 1;
                self.text(&files::lossy(text));
                self.depth += 1;
            }
            None if nested => {}
            None => drop(
                self.doubt
                    .get_or_insert(format!("{} cannot be read", path.display())),
            ),
        }
    }

    fn activate(&mut self, prefix: &Path, nested: bool) {
        let under = |word: &OsString| {
            let folder = self.folder.clone().unwrap_or_default();
            folder.join(word).starts_with(prefix)
        };
        if nested && !self.tested.iter().any(under) {
            self.doubt
                .get_or_insert(format!("{} is activated under a condition", prefix.display()));
        }
        rules::activate(&mut self.env, prefix);
    }

    fn activate_conda(&mut self, tool: &OsStr, name: Option<Option<OsString>>, nested: bool) {
        let root = self
            .lookup("CONDA_EXE")
            .map(PathBuf::from)
            .or_else(|| locate(&self.query, &self.env, tool))
            .and_then(|tool| rules::conda_above(&tool))
            .or_else(|| self.lookup("MAMBA_ROOT_PREFIX").map(PathBuf::from));
        let home = self.lookup("HOME").map(PathBuf::from);
        let name = match name {
            Some(None) if base_name(tool) != Some("activate") => None,
            Some(Some(name)) => Some(name),
            _ => Some(OsString::from("base")),
        };
        let prefix = name
            .as_deref()
            .and_then(|name| rules::named(&self.env, name, root.as_deref(), home.as_deref()));
        match prefix.filter(|prefix| prefix.is_dir()) {
            Some(prefix) => self.activate(&prefix, nested),
            None => {
                let name = name.unwrap_or_default();
                self.doubt.get_or_insert(format!(
                    "conda's environment {} is not found",
                    Path::new(&name).display()
                ));
            }
        }
    }

    fn lookup(&self, name: &str) -> Option<OsString> {
        self.own
            .get(name)
            .or_else(|| self.env.get(name))
            .map(OsStr::to_os_string)
    }

    fn assign(&mut self, word: &str, export: bool, nested: bool) {
        let Some((name, raw)) = assignment(word) else {
            return;
        };
        let (name, more) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
        let mut values = Vec::new();
        self.expand(&format!("\"{}\"", unquoted(raw)), &mut values);
        let value = values.pop().flatten().filter(|_| !more);
        let chooses = matches!(name, "PATH" | "VIRTUAL_ENV" | "CONDA_PREFIX");
        if name == "PATH" && (value.is_none() || nested) {
            self.doubt
                .get_or_insert("it sets a PATH that is not known".to_string());
        }
        match value.filter(|_| !nested || chooses) {
            Some(value) if export || chooses || self.env.get(name).is_some() => self.env.set(name, value),
            Some(value) => self.own.set(name, value),
            None => {
                // A value that is not known, or that is one of several.
                self.env.unset(OsStr::new(name));
                self.own.unset(OsStr::new(name));
            }
        }
    }

    /// The words that a word becomes; none in the place of one that is not known.
    fn expand(&self, word: &str, to: &mut Vec<Option<OsString>>) {
        match word {
            "\"$@\"" | "$@" | "\"${@}\"" | "$*" | "${@}" => {
                return to.extend(self.arguments.iter().cloned().map(Some));
            }
            _ => {}
        }
        let mut text = String::new();
        let mut rest = word;
        let mut quote = None;
        let mut splits = false;
        if let Some(behind) = rest
            .strip_prefix('~')
            .filter(|b| b.is_empty() || b.starts_with('/'))
        {
            text.push_str(&self.lookup("HOME").unwrap_or_default().to_string_lossy());
            rest = behind;
        }
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            match (quote, c) {
                (Some(q), c) if q == c => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (Some('\''), c) => text.push(c),
                (_, '\\') => {
                    let next = rest.chars().next().unwrap_or_default();
                    rest = rest.get(next.len_utf8()..).unwrap_or_default();
                    text.push(next);
                }
                (_, '`') => return to.push(None),
                (_, '$') => {
                    let Some((value, behind)) = self.variable(rest) else {
                        return to.push(None);
                    };
                    splits |= quote.is_none();
                    text.push_str(&value);
                    rest = behind;
                }
                (_, c) => text.push(c),
            }
        }
        match splits {
            true => to.extend(text.split_whitespace().map(|part| Some(OsString::from(part)))),
            false => to.push(Some(OsString::from(text))),
        }
    }

    /// The value of what follows a `$`, and what stands behind that.
    fn variable<'t>(&self, text: &'t str) -> Option<(String, &'t str)> {
        if let Some(rest) = text.strip_prefix('(') {
            let end = closing(rest, '(', ')')?;
            let nesting = self.nesting.get();
            self.nesting.set(nesting + 1);
            let value =
                (nesting < MAX_NESTING).then(|| self.substitution(rest.get(..end).unwrap_or_default()));
            self.nesting.set(nesting);
            return Some((value??, rest.get(end + 1..)?));
        }
        if let Some(rest) = text.strip_prefix('{') {
            let end = closing(rest, '{', '}')?;
            let (inner, behind) = (rest.get(..end)?, rest.get(end + 1..)?);
            let length = name_length(inner);
            let (name, modifier) = inner.split_at_checked(length)?;
            let value = self.named(if length == 0 { inner } else { name });
            let default = modifier.strip_prefix(":-").or_else(|| modifier.strip_prefix('-'));
            return match (value, modifier, default) {
                (Some(value), "" | "[0]", _) => Some((value, behind)),
                (Some(value), _, Some(_)) => Some((value, behind)),
                (None, _, Some(default)) if !default.contains(['$', '`', '"']) => {
                    Some((default.to_string(), behind))
                }
                _ => None,
            };
        }
        let length = name_length(text).max(usize::from(text.starts_with(|c: char| c.is_ascii_digit())));
        let (name, behind) = text.split_at_checked(length)?;
        Some((self.named(name)?, behind))
    }

    fn named(&self, name: &str) -> Option<String> {
        match name {
            "0" | "BASH_SOURCE" => Some(self.script.as_ref()?.to_string_lossy().into_owned()),
            "PWD" => Some(self.folder.as_ref()?.to_string_lossy().into_owned()),
            _ => match name.parse::<usize>() {
                Ok(number) => Some(
                    self.arguments
                        .get(number.checked_sub(1)?)?
                        .to_string_lossy()
                        .into_owned(),
                ),
                Err(_) => Some(self.lookup(name)?.to_string_lossy().into_owned()),
            },
        }
    }

    /// The few commands by which scripts ask for their own folder.
    fn substitution(&self, text: &str) -> Option<String> {
        let tokens = tokens(text);
        let words: Vec<&str> = tokens
            .iter()
            .map(|token| match token {
                Token::Word(word) => word.as_str(),
                Token::Sign(sign) => sign,
            })
            .filter(|word| !matches!(*word, "--" | "-f" | "-P" | "-e"))
            .collect();
        let value = |word: &str| {
            let mut words = Vec::new();
            self.expand(word, &mut words);
            words
                .pop()
                .flatten()
                .map(|word| word.to_string_lossy().into_owned())
        };
        let folder = self.folder.as_deref();
        let real = |path: String| {
            folder?
                .join(path)
                .canonicalize()
                .ok()?
                .to_str()
                .map(str::to_string)
        };
        match words.as_slice() {
            ["pwd"] => Some(folder?.to_str()?.to_string()),
            ["dirname", path] => Some(Path::new(&value(path)?).parent()?.to_str()?.to_string()),
            ["realpath" | "readlink", path] => real(value(path)?),
            ["cd", path, "&&" | ";", "pwd"] => real(value(path)?),
            _ => None,
        }
    }
}

/// The name and the value of `NAME=VALUE`, or of `NAME+=VALUE`.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let bare = name.strip_suffix('+').unwrap_or(name);
    (!bare.is_empty() && name_length(bare) == bare.len()).then_some((name, value))
}

fn name_length(text: &str) -> usize {
    let is_first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    if is_first { end } else { 0 }
}

/// Where the bracket closes that was open before this text.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The text between double quotes that surround a whole value.
fn unquoted(raw: &str) -> &str {
    let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
    inner
        .or_else(|| {
            raw.strip_prefix('\'')?
                .strip_suffix('\'')
                .filter(|raw| !raw.contains('$'))
        })
        .unwrap_or(raw)
}

#[cfg(test)]
mod tests;
