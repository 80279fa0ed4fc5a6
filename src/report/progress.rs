//! What takes long: on a terminal one line, rewritten in place, and gone before anything else is said; elsewhere a line in
//! the log for a file that storage does not give.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::discover::reading::{self, Reading};
use crate::sys;
use crate::text::sanitize;

/// Nobody needs to be told what takes less.
const AFTER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);
/// Where nobody watches, a file that takes less is not told, and what takes longer is looked for so often.
const SLOW: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(1);
/// ECMA-48: carriage return, and EL (erase to the end of the line).
const ERASE: &str = "\r\x1b[K";
/// Columns of a terminal that does not tell.
pub const USUAL_COLUMNS: usize = 80;

/// Whether a line stands on the terminal. There is one standard error, whoever writes to it.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Takes the line away, if one stands there. To be called before anything is written to standard error.
pub fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(ERASE.as_bytes());
    }
}

/// The line, shorter than `columns` so that no terminal breaks it: what does not fit is left out of its middle, since
/// a path tells most by its end.
pub fn line(elapsed: Duration, what: &str, columns: usize) -> String {
    let text = sanitize(&format!("cuda-entrypoint: {} s: {what}", elapsed.as_secs()));
    let room = columns.saturating_sub(1);
    // East Asian characters take two columns; others beyond ASCII are given two for want of a table.
    let width = |c: char| if c.is_ascii() { 1 } else { 2 };
    if text.chars().map(width).sum::<usize>() <= room {
        return text;
    }
    let fitting = |chars: &mut dyn Iterator<Item = char>, room: usize| -> String {
        let mut left = room;
        chars
            .take_while(|&c| {
                let fits = width(c) <= left;
                left = left.saturating_sub(width(c));
                fits
            })
            .collect()
    };
    let room = room.saturating_sub(width('…'));
    let head = fitting(&mut text.chars(), room / 2);
    let tail: String = fitting(&mut text.chars().rev(), room - room / 2);
    format!("{head}…{}", tail.chars().rev().collect::<String>())
}

/// What is said of a place that is being read: of one that hangs, else of the last one.
pub fn reading(reading: &Reading) -> Option<String> {
    let hanging = reading::longest().filter(|(_, since)| since.elapsed() > AFTER);
    let path = hanging.map(|(path, _)| path).or_else(|| reading.path())?;
    Some(format!("reading {}", path.display()))
}

/// When to show a line and what it then says.
#[derive(Debug)]
pub struct Progress {
    since: Instant,
    watched: bool,
    next: Instant,
    told: Told,
}

/// What the log was told of slow files: one after 10 s, 20 s later the next or the same again, then 60 s later, and so on.
#[derive(Debug, Default)]
struct Told {
    times: u32,
    last: Option<Instant>,
}

impl Told {
    /// For how long a file has been read, where that is to be told now.
    fn is_due(&mut self, since: Instant, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(since);
        let pause = 2 * SLOW * 3_u32.saturating_pow(self.times.saturating_sub(1));
        let is_early = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < pause);
        if elapsed < SLOW || is_early {
            return None;
        }
        self.times = (self.times + 1).min(8);
        self.last = Some(now);
        Some(elapsed)
    }
}

impl Progress {
    /// `watched`: whether there is somebody at a terminal; otherwise only the log is told, and of slow files alone.
    pub fn new(watched: bool) -> Self {
        let since = Instant::now();
        Self {
            since,
            watched,
            next: since + if watched { AFTER } else { SLOW },
            told: Told::default(),
        }
    }

    /// When to call [`Progress::show`] next.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// Whether it is time for that.
    pub fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Shows what is being done now, or nothing.
    pub fn show(&mut self, what: Option<String>) {
        let now = Instant::now();
        if !self.watched {
            self.next = now + LOOK;
            return self.tell(now);
        }
        self.next = now + EVERY;
        let Some(what) = what else { return clear() };
        let mut stderr = std::io::stderr().lock();
        let columns = sys::terminal_columns(stderr.as_fd()).unwrap_or(USUAL_COLUMNS);
        SHOWN.store(true, Ordering::Relaxed);
        let line = line(now.saturating_duration_since(self.since), &what, columns);
        let _ = stderr.write_all(format!("{ERASE}{line}").as_bytes());
    }

    fn tell(&mut self, now: Instant) {
        let Some((path, since)) = reading::longest() else {
            return;
        };
        if let Some(elapsed) = self.told.is_due(since, now) {
            let path = sanitize(&path.to_string_lossy());
            tracing::warn!(
                path,
                "still reading {path} after {} s: its storage is slow or does not answer",
                elapsed.as_secs()
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.watched {
            clear();
        }
    }
}

/// Does work that knows nothing of this, beside a thread that shows what it is at.
pub fn beside<T>(watched: bool, what: impl Fn() -> Option<String> + Send, work: impl FnOnce() -> T) -> T {
    if !watched {
        return work();
    }
    std::thread::scope(|scope| {
        let (done, working) = mpsc::channel::<()>();
        let show = move || {
            let mut progress = Progress::new(true);
            while let Err(RecvTimeoutError::Timeout) =
                working.recv_timeout(progress.due().saturating_duration_since(Instant::now()))
            {
                progress.show(what());
            }
        };
        // Without a thread the work is done in silence.
        let _ = sys::thread("progress").spawn_scoped(scope, show);
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Duration = Duration::from_millis(3_900);

    #[test]
    fn a_line_that_fits_is_whole() {
        let text = "cuda-entrypoint: 3 s: reading /a";
        assert_eq!(line(SECONDS, "reading /a", 80), text);
        assert_eq!(line(SECONDS, "reading /a", text.len() + 1), text);
    }

    #[test]
    fn no_line_is_as_long_as_the_terminal_is_wide() {
        let path = format!(
            "reading /opt/{}/lib/libtorch_cuda.so",
            "site-packages/".repeat(20)
        );
        let long = line(SECONDS, &path, 80);
        assert!(long.starts_with("cuda-entrypoint: 3 s: reading /opt/"), "{long}");
        assert!(
            long.contains('…') && long.ends_with("/lib/libtorch_cuda.so"),
            "{long}"
        );
        for what in [
            path.as_str(),
            "数据数据数据数据数据数据数据数据数据数据",
            "",
            "\u{1b}[2J\n",
        ] {
            for columns in 0..120 {
                let line = line(SECONDS, what, columns);
                let width: usize = line.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum();
                // The mark of what was left out is there even where there is no room for it.
                assert!(width < columns.max(3), "{columns}: {line}");
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }

    #[test]
    fn nobody_is_told_before_a_second_or_without_a_terminal() {
        let mut unwatched = Progress::new(false);
        assert_eq!(unwatched.due(), unwatched.since + SLOW);
        assert!(!unwatched.is_due());
        unwatched.show(Some("nobody sees it".into()));
        let watched = Progress::new(true);
        assert_eq!(watched.due(), watched.since + AFTER);
    }

    #[test]
    fn a_slow_file_is_told_at_growing_intervals() {
        let begin = Instant::now();
        let second = |n: u64| begin + Duration::from_secs(n);
        let mut told = Told::default();
        let times: Vec<u64> = (0..1000)
            .filter(|&n| told.is_due(begin, second(n)).is_some())
            .collect();
        assert_eq!(times, [10, 30, 90, 270, 810]);
        // Many files that each take long are no reason for many lines.
        let mut told = Told::default();
        let times: Vec<u64> = (0..300)
            .filter(|&n| told.is_due(second(n - n % 12), second(n)).is_some())
            .collect();
        assert_eq!(times, [10, 34, 94, 274]);
        assert_eq!(
            Told::default().is_due(begin, second(12)),
            Some(Duration::from_secs(12))
        );
    }

    #[test]
    fn work_beside_is_done_and_its_result_handed_on() {
        for watched in [false, true] {
            assert_eq!(beside(watched, || None, || 7), 7);
        }
    }
}
