//! Becoming the service: find the command as execvp(3) would, set the manifest's environment, execute.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::exit_code::ExitCode;
use crate::process::closed;
use crate::process::limits::ResourceLimit;
use crate::process::supervisor;
use crate::processor::OWN;
use crate::sys::{self, SpawnError};

/// The service command could not become this process.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LaunchError {
    /// of [`ExitCode`], as POSIX shells and Docker use them
    pub exit_code: u8,
    /// what was seen
    pub message: String,
    /// what to do
    pub hint: String,
}

/// The container's limits are the operator's.
const NO_PROCESS: u8 = ExitCode::Node.code();

impl LaunchError {
    /// Whether it is `--init` alone that cannot be had: the service needs no other process.
    pub fn is_no_process(&self) -> bool {
        self.exit_code == NO_PROCESS
    }

    fn not_found(message: String, hint: impl Into<String>) -> Self {
        Self {
            exit_code: ExitCode::NotFound.code(),
            message,
            hint: hint.into(),
        }
    }

    fn no_process(errno: Errno) -> Self {
        let hint = ResourceLimit::of(errno).map_or(
            "raise the limits on processes, memory and descriptors",
            ResourceLimit::hint,
        );
        Self {
            exit_code: NO_PROCESS,
            message: format!("no process could be made for the service: {errno}"),
            hint: format!("{hint}; or leave --init out"),
        }
    }

    fn not_executable(message: String, hint: impl Into<String>) -> Self {
        Self {
            exit_code: ExitCode::NotExecutable.code(),
            message,
            hint: hint.into(),
        }
    }
}

/// What POSIX shells use where PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the file that `command` names: itself if it holds a slash, else the first executable of `path`.
///
/// # Errors
/// [`LaunchError`] with 127 where there is none, with 126 where all there are cannot be executed.
pub fn resolve(command: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, LaunchError> {
    let shown = command.to_string_lossy();
    if command.is_empty() {
        return Err(LaunchError::not_found(
            "the service command is an empty string".into(),
            "name a program",
        ));
    }
    if command.as_bytes().contains(&b'/') {
        return match executable(Path::new(command)) {
            Ok(()) => Ok(PathBuf::from(command)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(LaunchError::not_found(
                format!("the service command {shown} does not exist"),
                "correct the path in CMD, in `command:`/`args:` or after `docker run IMAGE`",
            )),
            Err(errno) => Err(refused(Path::new(command), errno)),
        };
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut denied = None;
    for folder in path.as_bytes().split(|&b| b == b':') {
        // An empty element is the current folder (environ(7)).
        let folder = if folder.is_empty() {
            Path::new(".")
        } else {
            Path::new(OsStr::from_bytes(folder))
        };
        let candidate = folder.join(command);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(errno @ (Errno::EACCES | Errno::EISDIR)) => denied = denied.or(Some((candidate, errno))),
            Err(_) => {}
        }
    }
    match denied {
        Some((candidate, errno)) => Err(refused(&candidate, errno)),
        None => Err(LaunchError::not_found(
            format!(
                "the service command `{shown}` is in no folder of PATH ({})",
                path.to_string_lossy()
            ),
            if command.as_bytes().starts_with(b"-") {
                "a command that begins with `-` is an option of a program: was the image's former ENTRYPOINT lost? Put that program before it: ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\", \"PROGRAM\"]"
            } else {
                "correct the command, or install it into the image"
            },
        )),
    }
}

/// Whether execve(2) has a chance: there, a regular file, and with a permission to execute it.
fn executable(path: &Path) -> Result<(), Errno> {
    let facts = std::fs::metadata(path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    if facts.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

fn refused(path: &Path, errno: Errno) -> LaunchError {
    let shown = path.display();
    match errno {
        Errno::EISDIR => LaunchError::not_executable(
            format!("the service command {shown} is a folder"),
            "name a program",
        ),
        Errno::EACCES => {
            let uid = nix::unistd::geteuid();
            match closed::on_the_way(path) {
                Some(folder) => LaunchError::not_executable(
                    format!(
                        "the service command {shown} leads below {}, which uid {uid} may not enter",
                        folder.display()
                    ),
                    format!(
                        "if uv installed this interpreter, {}; or run the service as the owner of that folder",
                        closed::REMEDY
                    ),
                ),
                None => LaunchError::not_executable(
                    format!("the service command {shown} may not be executed by uid {uid}"),
                    "chmod +x it in the image; if it is, its folder or its mount (noexec) forbids it",
                ),
            }
        }
        _ => LaunchError::not_executable(
            format!("the service command {shown} cannot be executed: {errno}"),
            "",
        ),
    }
}

/// A variable of the manifest that replaced another value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overwritten {
    /// its name; values are not for logs
    pub name: String,
}

/// The service's environment: what was given, byte for byte and in its order, plus the manifest's variables.
pub fn environment(
    given: &[CString],
    manifest: &BTreeMap<String, String>,
) -> (Vec<CString>, Vec<Overwritten>) {
    let mut env: Vec<CString> = Vec::with_capacity(given.len() + manifest.len());
    let mut overwritten = Vec::new();
    let mut placed: Vec<&str> = Vec::new();
    for variable in given {
        let bytes = variable.as_bytes();
        let ours = manifest.iter().find(|(name, _)| {
            bytes
                .strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&b'='))
        });
        let Some((name, value)) = ours else {
            env.push(variable.clone());
            continue;
        };
        let pair = assignment(name, value);
        if pair.as_ref() != Some(variable) && !overwritten.iter().any(|o: &Overwritten| o.name == *name) {
            overwritten.push(Overwritten { name: name.clone() });
        }
        // A name that stands twice is set once.
        if !placed.contains(&name.as_str()) {
            env.extend(pair);
            placed.push(name);
        }
    }
    for (name, value) in manifest
        .iter()
        .filter(|(name, _)| !placed.contains(&name.as_str()))
    {
        env.extend(assignment(name, value));
    }
    (env, overwritten)
}

/// `None` only for a NUL byte, which the manifest's parser refuses.
fn assignment(name: &str, value: &str) -> Option<CString> {
    CString::new(format!("{name}={value}")).ok()
}

/// The value of a variable in an environment.
pub fn lookup<'a>(env: &'a [CString], name: &str) -> Option<&'a OsStr> {
    env.iter().find_map(|variable| {
        let rest = variable
            .as_bytes()
            .strip_prefix(name.as_bytes())?
            .strip_prefix(b"=")?;
        Some(OsStr::from_bytes(rest))
    })
}

/// Becomes the service. Returns only when that failed.
pub fn exec(path: &Path, argv: &[OsString], env: &[CString]) -> LaunchError {
    let become_it = |file: &CStr, argv: &[CString], env: &[CString]| {
        let errno = sys::exec_service(file, argv, env, supervisor::ENDING);
        Err::<Infallible, _>(SpawnError::Exec(errno))
    };
    match start(path, argv, env, become_it) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// Has `execute` execute the service: the file, or the shell for a script that names no interpreter.
///
/// # Errors
/// What `execute` said of it, as a sentence about the file.
pub fn start<T>(
    path: &Path,
    argv: &[OsString],
    env: &[CString],
    execute: impl Fn(&CStr, &[CString], &[CString]) -> Result<T, SpawnError>,
) -> Result<T, LaunchError> {
    let strings: Option<Vec<CString>> = argv.iter().map(|a| CString::new(a.as_bytes()).ok()).collect();
    let file = CString::new(path.as_os_str().as_bytes()).ok();
    let (Some(mut strings), Some(file)) = (strings, file) else {
        return Err(LaunchError::not_executable(
            "an argument holds a NUL byte".into(),
            "",
        ));
    };
    let errno = match execute(&file, &strings, env) {
        Ok(started) => return Ok(started),
        Err(SpawnError::Fork(errno)) => return Err(LaunchError::no_process(errno)),
        Err(SpawnError::Exec(errno)) => errno,
    };
    if errno != Errno::ENOEXEC || !is_script_without_shebang(path) {
        return Err(explain(path, errno, env));
    }
    // What execvp(3) and shells do with a script that does not name its interpreter.
    let mut with_shell = vec![c"/bin/sh".to_owned(), file];
    with_shell.extend(strings.drain(1.min(strings.len())..));
    execute(c"/bin/sh", &with_shell, env).map_err(|error| match error {
        SpawnError::Fork(errno) => LaunchError::no_process(errno),
        SpawnError::Exec(Errno::ENOENT) => LaunchError::not_found(
            format!(
                "{} names no interpreter, and there is no /bin/sh to run it",
                path.display()
            ),
            "begin it with #! and the path of an interpreter that the image has, or install a shell",
        ),
        SpawnError::Exec(errno) => explain(path, errno, env),
    })
}

/// The beginning of a file: enough for a shebang line or an ELF header.
fn head(path: &Path) -> Vec<u8> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC);
    let mut bytes = Vec::new();
    if let Ok(file) = options.open(path) {
        let _ = file.take(4096).read_to_end(&mut bytes);
    }
    bytes
}

fn is_script_without_shebang(path: &Path) -> bool {
    let head = head(path);
    let first_line = head.split(|&b| b == b'\n').next().unwrap_or_default();
    // One that names an interpreter is never the shell's to run: it may be in another language.
    !head.starts_with(b"\x7fELF") && !head.is_empty() && !first_line.contains(&0) && shebang(&head).is_none()
}

/// What follows `#!` in the first line; `None` where nothing does.
fn shebang(head: &[u8]) -> Option<&[u8]> {
    let rest = head.strip_prefix(b"#!")?;
    let line = rest.split(|&b| b == b'\n').next()?.trim_ascii();
    (!line.is_empty()).then_some(line)
}

/// The program of a shebang line, without its argument.
fn interpreter(line: &[u8]) -> &Path {
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t'));
    Path::new(OsStr::from_bytes(
        line.get(..end.unwrap_or(line.len())).unwrap_or_default(),
    ))
}

/// Turns execve(2)'s errno into a sentence about this file.
fn explain(path: &Path, errno: Errno, env: &[CString]) -> LaunchError {
    let shown = path.display();
    let head = head(path);
    let shebang = shebang(&head);
    match errno {
        Errno::ENOENT if path.exists() => match shebang {
            Some(line) => {
                let line = String::from_utf8_lossy(line);
                let hint = if line.ends_with('\r')
                    || head
                        .split(|&b| b == b'\n')
                        .next()
                        .is_some_and(|l| l.ends_with(b"\r"))
                {
                    "the script has Windows line ends: convert it to LF"
                } else {
                    "correct the first line of the script, or install that interpreter into the image"
                };
                LaunchError::not_found(
                    format!("{shown} names the interpreter `{line}`, which does not exist"),
                    hint,
                )
            }
            None => LaunchError::not_found(
                format!("{shown} exists, but the loader that it names does not"),
                "it was built for another C library or another architecture than this image's",
            ),
        },
        Errno::ENOENT | Errno::ENOTDIR => {
            LaunchError::not_found(format!("the service command {shown} does not exist any more"), "")
        }
        Errno::E2BIG => {
            let size: usize = env.iter().map(|v| v.as_bytes_with_nul().len()).sum();
            LaunchError::not_executable(
                format!(
                    "arguments and environment are too large for execve: the environment has {size} bytes"
                ),
                "shorten them; on Kubernetes, enableServiceLinks: false drops a variable set for every service",
            )
        }
        Errno::ENOEXEC if shebang.is_some() => LaunchError::not_executable(
            format!(
                "{shown} names the interpreter `{}`, which is not an executable for this machine (exec format error)",
                interpreter(shebang.unwrap_or_default()).display()
            ),
            format!(
                "it is damaged or was built for another processor: build or pull the image for {}",
                OWN.platform
            ),
        ),
        Errno::EACCES if shebang.is_some() && executable(path).is_ok() => LaunchError::not_executable(
            format!(
                "{shown} names the interpreter `{}`, which may not be executed by uid {}",
                interpreter(shebang.unwrap_or_default()).display(),
                nix::unistd::geteuid()
            ),
            "chmod +x the interpreter in the image; if it is, its folder or a mount (noexec) forbids it",
        ),
        Errno::ENOEXEC => LaunchError::not_executable(
            format!("{shown} is not an executable for this machine (exec format error)"),
            match head.starts_with(b"\x7fELF") {
                true => format!(
                    "it was built for another processor: build or pull the image for {}",
                    OWN.platform
                ),
                false => "it is empty or damaged".to_string(),
            },
        ),
        other => refused(path, other),
    }
}

/// Whether a command is this very program: `docker run IMAGE cuda-entrypoint check` comes as the service of a `run`. False
/// where there is no /proc to tell.
pub fn is_this_program(command: &OsStr, path: Option<&OsStr>) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .map(|found| (found.dev(), found.ino()))
    };
    let Some(own) = file(Path::new("/proc/self/exe")) else {
        return false;
    };
    resolve(command, path).is_ok_and(|program| file(&program) == Some(own))
}

/// An environment as pairs; strings without `=` are left out.
pub fn to_os_pairs(env: &[CString]) -> impl Iterator<Item = (OsString, OsString)> {
    env.iter().filter_map(|v: &CString| split(v))
}

fn split(variable: &CStr) -> Option<(OsString, OsString)> {
    let bytes = variable.to_bytes();
    let at = bytes.iter().position(|&b| b == b'=')?;
    let (name, value) = (bytes.get(..at)?, bytes.get(at + 1..)?);
    Some((
        OsString::from_vec(name.to_vec()),
        OsString::from_vec(value.to_vec()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn strings(all: &[&str]) -> Vec<CString> {
        all.iter().map(|s| CString::new(*s).unwrap()).collect()
    }

    #[test]
    fn the_environment_keeps_order_duplicates_and_oddities() {
        let given = strings(&["A=1", "ODD", "JIT=0", "A=2", "JITTER=x", "JIT=9", "=weird"]);
        let manifest = BTreeMap::from([
            ("JIT".to_string(), "1".to_string()),
            ("NEW".to_string(), "n".to_string()),
        ]);
        let (env, overwritten) = environment(&given, &manifest);
        assert_eq!(
            env,
            strings(&["A=1", "ODD", "JIT=1", "A=2", "JITTER=x", "=weird", "NEW=n"])
        );
        assert_eq!(overwritten, [Overwritten { name: "JIT".into() }]);
        assert_eq!(
            environment(
                &strings(&["JIT=1"]),
                &BTreeMap::from([("JIT".into(), "1".into())])
            )
            .1,
            []
        );
        assert_eq!(lookup(&env, "A"), Some(OsStr::new("1")));
        assert_eq!(lookup(&env, "B"), None);
    }

    #[test]
    fn commands_are_found_as_execvp_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for (dir, mode) in [(&a, 0o644), (&b, 0o755)] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("tool"), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(dir.join("tool"), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(a.join("folder")).unwrap();
        let path = |dirs: &[&Path]| std::env::join_paths(dirs).unwrap();
        // A file that may not be executed is passed over while there is another.
        assert_eq!(
            resolve(OsStr::new("tool"), Some(&path(&[&a, &b]))).unwrap(),
            b.join("tool")
        );
        assert_eq!(
            resolve(OsStr::new("tool"), Some(&path(&[&a])))
                .unwrap_err()
                .exit_code,
            126
        );
        assert_eq!(
            resolve(OsStr::new("folder"), Some(&path(&[&a])))
                .unwrap_err()
                .exit_code,
            126
        );
        assert_eq!(
            resolve(OsStr::new("other"), Some(&path(&[&a, &b])))
                .unwrap_err()
                .exit_code,
            127
        );
        assert_eq!(
            resolve(a.join("other").as_os_str(), None).unwrap_err().exit_code,
            127
        );
        assert_eq!(
            resolve(a.join("tool/x").as_os_str(), None).unwrap_err().exit_code,
            127
        );
        assert_eq!(resolve(a.as_os_str(), None).unwrap_err().exit_code, 126);
        assert_eq!(resolve(OsStr::new(""), None).unwrap_err().exit_code, 127);
        assert!(resolve(OsStr::new("sh"), None).is_ok());
    }
}
