//! The smoke through the binary: a real Python with packages that act out a script, and a driver that does.

mod commands;
mod ending;
mod environment;
mod failures;
mod frameworks;
mod order;
mod passes;
mod policy;
mod resources;
mod symbols;
mod versions;
mod waiting;
