//! The glibc helper: the only place that loads CUDA libraries.
fn main() {}
