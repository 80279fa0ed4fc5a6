//! Signals by their numbers and as the kernel's sets: nix's enumeration ends before the real-time ones.

use std::fmt;

use nix::sys::signal::Signal;

/// The last signal (signal(7), `_NSIG`).
pub const LAST: i32 = 64;
/// The first real-time signal that the C library leaves to programs: it keeps 32 and 33 for itself.
pub const FIRST_REAL_TIME: i32 = 34;

/// A signal's number, from 1 to [`LAST`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Number(pub i32);

impl From<Signal> for Number {
    fn from(signal: Signal) -> Self {
        Self(signal as i32)
    }
}

impl Number {
    /// 128 + N, as shells have it for a process that this signal ended.
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0).unwrap_or(u8::MAX)
    }
}

/// `SIGTERM`; `SIGRTMIN+3` as kill(1) names real-time signals.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (Signal::try_from(self.0), self.0) {
            (Ok(signal), _) => f.write_str(signal.as_str()),
            (Err(_), FIRST_REAL_TIME) => f.write_str("SIGRTMIN"),
            (Err(_), LAST) => f.write_str("SIGRTMAX"),
            (Err(_), number @ FIRST_REAL_TIME..LAST) => {
                write!(f, "SIGRTMIN+{}", number - FIRST_REAL_TIME)
            }
            (Err(_), number) => write!(f, "signal {number}"),
        }
    }
}

/// A set of signals, bit N-1 for signal N, as the kernel takes it on 64-bit machines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// None.
    pub const NONE: Self = Self(0);
    /// All; SIGKILL and SIGSTOP among them, which the kernel passes over.
    pub const ALL: Self = Self(u64::MAX);

    /// This set and one more.
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << (signal as i32 - 1))
    }

    /// This set and all from `first` to [`LAST`].
    pub const fn from(self, first: i32) -> Self {
        Self(self.0 | u64::MAX << (first - 1))
    }

    /// Whether it holds this one.
    pub fn contains(self, number: Number) -> bool {
        (1..=LAST).contains(&number.0) && self.0 & 1 << (number.0 - 1) != 0
    }

    /// Those that it holds, by number.
    pub fn iter(self) -> impl Iterator<Item = Number> {
        (1..=LAST)
            .map(Number)
            .filter(move |number| self.contains(*number))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Set({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_and_an_exit_code() {
        for (number, name, exit) in [
            (1, "SIGHUP", 129),
            (15, "SIGTERM", 143),
            (32, "signal 32", 160),
            (34, "SIGRTMIN", 162),
            (37, "SIGRTMIN+3", 165),
            (64, "SIGRTMAX", 192),
        ] {
            assert_eq!(Number(number).to_string(), name);
            assert_eq!(Number(number).exit_code(), exit);
        }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = Set::NONE.with(Signal::SIGHUP).with(Signal::SIGTERM).from(63);
        let numbers: Vec<i32> = set.iter().map(|n| n.0).collect();
        assert_eq!(numbers, [1, 15, 63, 64]);
        assert_eq!(set.0, 1 | 1 << 14 | 1 << 62 | 1 << 63);
        assert!(!set.contains(Number(0)) && !set.contains(Number(65)) && !set.contains(Number(-1)));
        assert_eq!(Set::ALL.iter().count(), 64);
        assert_eq!(Set::NONE.iter().count(), 0);
    }
}
