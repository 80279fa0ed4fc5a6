//! What keeps `run` and `check` from being done at all: no finding, since nothing was looked at.

use cuda_entrypoint::cli::config::SettingError;
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::process::supervisor::StartError;

use super::words::termination_text;

/// Why, for whom, and what to do about it.
pub struct Refusal {
    /// 64, 70 or 78
    pub exit: u8,
    /// how the termination message begins
    pub kind: &'static str,
    pub message: String,
    pub hint: String,
}

impl Refusal {
    /// Too few descriptors, or a seccomp profile without signalfd(2).
    pub fn without_supervisor(error: Option<StartError>) -> Self {
        Self {
            exit: ExitCode::Software.code(),
            kind: "supervision",
            message: error.map_or_else(
                || "cannot supervise children".to_string(),
                |error| format!("cannot supervise children: {error}"),
            ),
            hint: "raise the limits on descriptors and memory, or allow signalfd in the seccomp profile"
                .to_string(),
        }
    }

    /// As the termination log has it.
    pub fn text(&self) -> String {
        termination_text(self.exit, self.kind, &self.message, &self.hint)
    }
}

impl From<SettingError> for Refusal {
    fn from(error: SettingError) -> Self {
        Self {
            exit: error.exit_code(),
            kind: "setting",
            message: error.to_string(),
            hint: error.hint,
        }
    }
}
