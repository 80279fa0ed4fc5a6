//! The documentation: what is generated of it is as the code's own tables have it, and its commands run as they stand.
#![cfg(feature = "entrypoint")]

mod commands;
mod completions;
mod generated;
