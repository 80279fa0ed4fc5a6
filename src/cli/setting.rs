//! One setting as written, and what is wrong with it.

use std::ffi::OsString;
use std::fmt;

use crate::exit_code::ExitCode;

/// Where a setting was written; a wrong flag is the caller's, a wrong variable the deployment's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `--mode`
    Flag(&'static str),
    /// `CUDA_ENTRYPOINT_MODE`
    Variable(String),
}

impl Origin {
    /// 64 where the caller wrote a flag, 78 where a deployment set a variable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Flag(_) => ExitCode::Usage.code(),
            Self::Variable(_) => ExitCode::Config.code(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One setting as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// its value
    pub value: OsString,
    /// where it was written
    pub origin: Origin,
}

impl Setting {
    /// The error of an invalid value. `reason` follows the option's name.
    pub(super) fn invalid(&self, reason: &str, hint: String) -> SettingError {
        let (value, origin) = (self.value.to_string_lossy(), &self.origin);
        SettingError {
            origin: origin.clone(),
            message: format!("invalid value `{value}` for {origin}{reason}"),
            hint,
        }
    }
}

/// An invalid value. A flag's is exit 64, a variable's 78.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SettingError {
    /// where it was written
    pub origin: Origin,
    /// what was wrong with it
    pub message: String,
    /// what to write instead
    pub hint: String,
}

impl SettingError {
    /// As [`Origin::exit_code`].
    pub fn exit_code(&self) -> u8 {
        self.origin.exit_code()
    }
}
