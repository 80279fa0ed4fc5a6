//! What this build is called.

/// SemVer of what is promised: options, variables, exit codes, finding codes, the manifest and the report.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The abbreviated commit and its date; none where the build does not name them. `make build` does.
pub fn commit() -> Option<&'static str> {
    option_env!("CUDA_ENTRYPOINT_COMMIT").filter(|commit| !commit.is_empty())
}

/// `0.2.0 (1a2b3c4 2026-01-31)`
pub fn full() -> String {
    match commit() {
        Some(commit) => format!("{VERSION} ({commit})"),
        None => VERSION.to_string(),
    }
}
