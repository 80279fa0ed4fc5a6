//! The command line: what may be written on it, how it is read, what it comes to, and its help.
//!
//! [`commands`] and [`options`] are tables of what there is, [`kind`] says what a value can be. [`parse`](mod@parse) and [`variables`] collect settings as written,
//! [`config`] makes values of them.

pub mod commands;
pub mod config;
pub mod help;
pub mod kind;
pub mod options;
pub mod parse;
pub mod setting;
pub mod smoke;
pub mod table;
pub mod variables;

pub use commands::{Command, SchemaOf, StageChoice};
pub use options::{OPTIONS, Settings};
pub use parse::{Invocation, UsageError, parse, salvage};
