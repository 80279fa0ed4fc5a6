//! cuda-entrypoint: checks that a CUDA image, its driver and its GPU fit together, then becomes the service.
//!
//! One direction: [`discover`] and [`helper`] find facts, [`checks`] judge them with pure functions, [`report`] prints
//! findings, and [`process::launch`] becomes the service. The binary's `src/commands.rs` turns the outcome into an exit
//! code. So each failure is a value of [`facts::Facts`], and needs neither an image nor a GPU:
//!
//! ```
//! use cuda_entrypoint::check::{Code, Status};
//! use cuda_entrypoint::facts::{Distribution, Facts};
//! use cuda_entrypoint::{checks, stack::Stack};
//!
//! let stack = Stack::parse(r#"{"schema": 1, "name": "app", "packages": {"torch": "==2.5.0"}}"#)?;
//! let mut facts = Facts::default();
//! facts.image.python.site_packages = vec!["/usr/lib/python3/dist-packages".to_string()];
//! facts.image.distributions = vec![Distribution {
//!     name: "torch".to_string(),
//!     version: "2.4.1".to_string(),
//!     ..Distribution::default()
//! }];
//! let findings = checks::image::judge(&stack, None, &facts);
//! let failed = findings.iter().find(|finding| finding.status == Status::Fail).unwrap();
//! assert_eq!(failed.code, Code::PackageVersion);
//! assert_eq!(failed.code.exit_code().code(), 81);
//! # Ok::<(), cuda_entrypoint::stack::StackError>(())
//! ```

pub mod facts;
pub mod hidden;
pub mod processor;

#[cfg(feature = "entrypoint")]
pub use nearest::nearest;

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
pub mod cuda_errors;
#[cfg(feature = "entrypoint")]
pub mod discover;
#[cfg(feature = "entrypoint")]
pub mod draft;
#[cfg(feature = "entrypoint")]
pub mod exit_code;
#[cfg(feature = "entrypoint")]
pub mod helper;
#[cfg(feature = "entrypoint")]
pub mod kernels;
#[cfg(feature = "entrypoint")]
pub mod logging;
#[cfg(feature = "entrypoint")]
mod nearest;
#[cfg(feature = "entrypoint")]
pub mod nvidia;
#[cfg(feature = "entrypoint")]
pub mod order;
#[cfg(feature = "entrypoint")]
pub mod packages;
#[cfg(feature = "entrypoint")]
pub mod packed;
#[cfg(feature = "entrypoint")]
pub mod pipeline;
#[cfg(feature = "entrypoint")]
pub mod process;
#[cfg(feature = "entrypoint")]
pub mod receipt;
#[cfg(feature = "entrypoint")]
pub mod report;
#[cfg(feature = "entrypoint")]
pub mod signal;
#[cfg(feature = "entrypoint")]
pub mod smoke;
#[cfg(feature = "entrypoint")]
pub mod stack;
#[cfg(feature = "entrypoint")]
pub mod sys;
#[cfg(feature = "entrypoint")]
pub mod text;
#[cfg(feature = "entrypoint")]
pub mod unpack;
#[cfg(feature = "entrypoint")]
pub mod version;
