//! stub
use std::io::{self, Write};
use std::path::PathBuf;
/// stub
pub fn run(
    _: &[PathBuf],
    _: &[crate::facts::ComputeCapability],
    _: bool,
    _: &mut dyn Write,
    _: &mut dyn Write,
) -> io::Result<u8> {
    Ok(70)
}
