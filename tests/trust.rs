//! Whose files the entrypoint believes and executes, and what it never tells.

mod helper;
mod manifest;
mod secrets;
