//! Text from foreign code: bounded, and in the form that the facts promise.

/// Longest text that is taken over from a library, in bytes.
pub const LONGEST: usize = 4096;

/// What stands before the first NUL, at most [`LONGEST`] bytes of it; what is not UTF-8 becomes U+FFFD.
pub fn until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().take(LONGEST).position(|&byte| byte == 0);
    let end = end.unwrap_or(bytes.len().min(LONGEST));
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// Writes 16 bytes the way nvidia-smi does: `GPU-01234567-89ab-cdef-0123-456789abcdef`.
pub fn uuid(prefix: &str, bytes: [u8; 16]) -> String {
    let mut text = String::from(prefix);
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Brings a PCI address to lower case and a domain of four digits, more only if it needs them: NVML writes
/// `00000000:3B:00.0` for what CUDA writes `0000:3b:00.0`. What is no such address is passed on as it is.
pub fn pci_bus_id(text: &str) -> String {
    let normal = text.split_once(':').and_then(|(domain, rest)| {
        let domain = u32::from_str_radix(domain, 16).ok()?;
        Some(format!("{domain:04x}:{}", rest.to_ascii_lowercase()))
    });
    normal.unwrap_or_else(|| text.to_owned())
}

/// Whether a CUDA device of this name is a MIG instance: `NVIDIA H100 NVL MIG 3g.47gb`.
pub fn names_a_mig_instance(name: &str) -> bool {
    name.split_whitespace().any(|word| word == "MIG")
}
