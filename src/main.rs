//! The pipeline, from top to bottom.
fn main() {}
