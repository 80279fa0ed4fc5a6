//! A terminal of one's own, as `docker run -it` gives it to PID 1.
#![allow(unsafe_code)] // setsid(2) and ioctl(2) between fork and exec

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::fcntl::OFlag;
use nix::libc;
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};

use super::run::eventually;

/// A session on a terminal: all that it writes is kept.
pub struct Session {
    pub child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    /// Starts a command as the leader of a new session whose terminal is its standard input, output and error.
    pub fn start(command: &mut Command) -> Self {
        Self::begin(command, true)
    }

    /// The same with the terminal as standard input alone. Nothing reads it, so that it hangs up when this is dropped.
    pub fn start_unread(command: &mut Command) -> Self {
        Self::begin(command, false)
    }

    fn begin(command: &mut Command, whole: bool) -> Self {
        // Close-on-exec from the beginning: other threads start programs meanwhile.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let side = || {
            File::options()
                .read(true)
                .write(true)
                .custom_flags(nix::libc::O_NOCTTY)
                .open(&name)
        };
        command.stdin(side().unwrap());
        if whole {
            command.stdout(side().unwrap()).stderr(side().unwrap());
        }
        // SAFETY: plain system calls.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().unwrap();
        // The command holds the other side as well, and with it the terminal's last breath.
        command.stdin(Stdio::null());
        let screen = Arc::new(Mutex::new(Vec::new()));
        if whole {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let (mut reader, seen) = (
                File::from(master.as_fd().try_clone_to_owned().unwrap()),
                screen.clone(),
            );
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                // A terminal that nobody holds any more reads as an error.
                while let Ok(length @ 1..) = reader.read(&mut chunk) {
                    seen.lock().unwrap().extend_from_slice(&chunk[..length]);
                }
            });
        }
        Self {
            child,
            keyboard: File::from(OwnedFd::from(master)),
            screen,
        }
    }

    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Changes the window's size.
    pub fn resize(&self, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: reads one struct of this layout.
        let done = unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0);
    }

    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until the screen shows this.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let shown = eventually(|| self.screen().contains(text));
        assert!(shown, "no {text:?} on the screen:\n{}", self.screen());
    }

    /// Hangs up.
    pub fn hang_up(self) -> Child {
        self.child
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        for _ in 0..6000 {
            status = self.child.try_wait().unwrap();
            if status.is_some() {
                break;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        let Some(status) = status else {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            panic!("it hangs:\n{}", self.screen());
        };
        status.code()
    }
}
