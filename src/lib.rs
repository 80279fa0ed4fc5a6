//! cuda-entrypoint: proves that a CUDA image, its driver and its GPU fit together, then becomes the service.
//!
//! One direction: [`discover`] and [`helper`] find facts, [`checks`] judge them with pure functions, [`report`] says
//! so, [`launch`] becomes the service. The binary's `src/commands.rs` turns what came of it into an exit code.

pub mod facts;

#[cfg(feature = "entrypoint")]
mod entrypoint {
    /// The candidate most like `given`, if any is close enough to be what was meant.
    pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        // 0.8 lets a slip or two through in words of five letters and more, and keeps unrelated words apart.
        const CLOSE: f64 = 0.8;
        candidates
            .into_iter()
            .map(|c| (strsim::jaro_winkler(given, c), c))
            .filter(|(score, _)| *score >= CLOSE)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, c)| c)
    }
}
#[cfg(feature = "entrypoint")]
pub use entrypoint::nearest;

#[cfg(feature = "entrypoint")]
pub mod arch;
#[cfg(feature = "entrypoint")]
pub mod capture;
#[cfg(feature = "entrypoint")]
pub mod check;
#[cfg(feature = "entrypoint")]
pub mod checks;
#[cfg(feature = "entrypoint")]
pub mod cli;
#[cfg(feature = "entrypoint")]
pub mod config;
#[cfg(feature = "entrypoint")]
pub mod crew;
#[cfg(feature = "entrypoint")]
pub mod cuda_errors;
#[cfg(feature = "entrypoint")]
pub mod discover;
#[cfg(feature = "entrypoint")]
pub mod help;
#[cfg(feature = "entrypoint")]
pub mod helper;
#[cfg(feature = "entrypoint")]
pub mod init;
#[cfg(feature = "entrypoint")]
pub mod install;
#[cfg(feature = "entrypoint")]
pub mod kernels;
#[cfg(feature = "entrypoint")]
pub mod launch;
#[cfg(feature = "entrypoint")]
pub mod logging;
#[cfg(feature = "entrypoint")]
pub mod packed;
#[cfg(feature = "entrypoint")]
pub mod pipeline;
#[cfg(feature = "entrypoint")]
pub mod receipt;
#[cfg(feature = "entrypoint")]
pub mod report;
#[cfg(feature = "entrypoint")]
pub mod shortage;
#[cfg(feature = "entrypoint")]
pub mod signal;
#[cfg(feature = "entrypoint")]
pub mod smoke;
#[cfg(feature = "entrypoint")]
pub mod stack;
#[cfg(feature = "entrypoint")]
pub mod sys;
