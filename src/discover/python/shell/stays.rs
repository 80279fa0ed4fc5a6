//! Whether a shell stays beside the command that it was given with `-c`, or has become it.
//!
//! Seen with `sh -c 'sleep 1'` and `sh -c 'cd / && sleep 1'`: dash 0.5.12 of Debian forks for both, bash 5.2 executes the
//! last simple command in its own place. No shell does so for a pipeline, a loop or a command in the background.

use std::ffi::OsString;
use std::path::Path;

use super::super::command::{base_name, is_shell};
use super::options;
use super::words::{Token, tokens};

/// Words with which a command begins that the shell itself carries out to its end.
const COMPOUND: [&str; 9] = ["if", "while", "until", "for", "case", "select", "{", "[[", "!"];

/// Whether the service command is a shell with `-c` that is there as long as its service is, and handles no signal.
/// `program` is its file.
pub fn stays_beside_its_command(program: &Path, service: &[OsString]) -> bool {
    let Some((name, arguments)) = service.split_first() else {
        return false;
    };
    let (options, rest) = options(arguments);
    let line = rest.first().filter(|_| options.is_line);
    let Some(line) = line.filter(|_| base_name(name).is_some_and(is_shell)) else {
        return false;
    };
    // Debian's sh is a link to it.
    let file = program.canonicalize();
    let is_dash = file.is_ok_and(|file| file.file_name().is_some_and(|name| name == "dash"));
    stays(&line.to_string_lossy(), is_dash)
}

fn stays(line: &str, forks_for_the_last: bool) -> bool {
    let tokens = tokens(line);
    let mut is_first = true;
    let mut is_compound = false;
    for (at, token) in tokens.iter().enumerate() {
        let word = match token {
            Token::Sign(sign) => {
                is_compound |= matches!(*sign, "|" | "|&" | "&" | "(" | ")");
                is_first = true;
                continue;
            }
            Token::Word(word) => word.as_str(),
        };
        // It has a handler of its own, or leaves its place to the service, if only in one branch.
        if word == "trap" || (word == "exec" && matches!(tokens.get(at + 1), Some(Token::Word(_)))) {
            return false;
        }
        is_compound |= is_first && COMPOUND.contains(&word);
        is_first = false;
    }
    !tokens.is_empty() && (is_compound || forks_for_the_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_becomes_its_command_does_not_stay() {
        // Under dash, and under a shell that executes the last command in its own place.
        for (line, dash, other) in [
            ("python serve.py", true, false),
            ("cd /app && A=1 python serve.py", true, false),
            ("./prepare; python serve.py >log 2>&1", true, false),
            ("exec python serve.py", false, false),
            ("cd /app && exec python serve.py", false, false),
            ("if [ -n \"$A\" ]; then exec a; else exec b; fi", false, false),
            ("exec >log; python serve.py", true, false),
            ("trap 'kill $p' TERM; python serve.py & p=$!; wait", false, false),
            ("python serve.py | tee log", true, true),
            ("python serve.py & wait", true, true),
            ("while true; do python serve.py; done", true, true),
            ("(cd /app; python serve.py)", true, true),
            ("python -c 'import x; x.exec(1)'", true, false),
            ("echo exec; python serve.py", true, false),
            ("", false, false),
        ] {
            assert_eq!((stays(line, true), stays(line, false)), (dash, other), "{line}");
        }
    }

    #[test]
    fn only_a_shell_with_a_line_counts() {
        let said = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            stays_beside_its_command(Path::new("/bin/sh"), &words)
        };
        for words in [
            &["/bin/sh", "-c", "a | b"][..],
            &["bash", "-lc", "a | b"],
            &["sh", "-e", "-c", "a & wait", "name", "argument"],
        ] {
            assert!(said(words), "{words:?}");
        }
        for words in [
            &[][..],
            &["/bin/sh"],
            &["/bin/sh", "-c"],
            &["/bin/sh", "script.sh", "-c", "a | b"],
            &["python", "-c", "a | b"],
        ] {
            assert!(!said(words), "{words:?}");
        }
    }
}
