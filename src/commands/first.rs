//! What PID 1 of a container has to be told: the kernel ignores a signal for which PID 1 has no handler (pid_namespaces(7)).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{getpid, getppid};

use cuda_entrypoint::discover::python::{is_shell, stays_beside_its_command};

/// Programs that end of SIGTERM, and so have no handler for it.
const WITHOUT_HANDLER: [&str; 2] = ["sleep", "tail"];
/// Longest command line that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Says before the service starts in this process's place that SIGTERM will not end it, where that can be told.
pub fn warn_of_lost_signals(program: &Path, service: &[OsString]) {
    if getpid().as_raw() != 1 {
        return;
    }
    let name = service.first().and_then(|word| Path::new(word).file_name());
    let name = name.and_then(OsStr::to_str).unwrap_or_default();
    let what = if stays_beside_its_command(program, service) {
        format!("`{name} -c` stays PID 1 beside its command, ignores SIGTERM and does not pass it on")
    } else if WITHOUT_HANDLER.contains(&name) {
        format!("`{name}` ignores SIGTERM as PID 1")
    } else {
        return;
    };
    let exec = match is_shell(name) {
        true => ", or begin its last command with `exec`",
        false => "",
    };
    tracing::warn!(
        "{what}: every stop takes the whole grace period (10 s in Docker, 30 s in Kubernetes) and ends with SIGKILL; add --init or set CUDA_ENTRYPOINT_INIT=1{exec}"
    );
}

/// What to do where no service command was given.
pub fn without_service() -> (&'static str, &'static str) {
    let is_shell_form =
        getppid().as_raw() == 1 && command_line_of_pid_1().is_some_and(|line| is_shell_line(&line));
    if is_shell_form {
        return (
            "no service command was given: the ENTRYPOINT is in shell form (PID 1 is `/bin/sh -c`), which drops CMD and the arguments of docker run",
            "write it as a JSON array: ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]",
        );
    }
    let hint = if getpid().as_raw() == 1 {
        "set CMD in the Dockerfile, `args:` in the pod, or name it: docker run IMAGE COMMAND; an ENTRYPOINT in shell form (not a JSON array) drops all of these"
    } else {
        "set CMD in the Dockerfile, `args:` in the pod, or name it: docker run IMAGE COMMAND"
    };
    ("no service command was given", hint)
}

fn command_line_of_pid_1() -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let file = File::open("/proc/1/cmdline").ok()?;
    file.take(LONGEST).read_to_end(&mut line).ok()?;
    Some(line)
}

/// Whether these words, each ended by a NUL, are those with which Docker runs a command in shell form.
fn is_shell_line(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == 0);
    let shell = words.next().map(|word| Path::new(OsStr::from_bytes(word)));
    let name = shell.and_then(Path::file_name).and_then(OsStr::to_str);
    name.is_some_and(is_shell) && words.next() == Some(b"-c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_shell_form_is_told_by_its_words() {
        for line in [
            &b"/bin/sh\0-c\0cuda-entrypoint run\0"[..],
            b"/bin/bash\0-c\0x\0python\0serve.py\0",
        ] {
            assert!(is_shell_line(line));
        }
        for line in [
            &b""[..],
            b"/bin/sh\0",
            b"/bin/sh\0start.sh\0-c\0",
            b"/sbin/docker-init\0--\0cuda-entrypoint\0run\0",
            b"cuda-entrypoint\0-c\0",
        ] {
            assert!(!is_shell_line(line), "{}", String::from_utf8_lossy(line));
        }
    }
}
