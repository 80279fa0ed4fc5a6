//! Image.
/// Judges nothing yet.
pub fn judge(_: &crate::stack::Stack, _: &crate::facts::Facts) -> Vec<crate::check::Finding> {
    Vec::new()
}
