//! "Did you mean": one measure of likeness for commands, options, variables, findings, keys and names.

/// The candidate that `given` was probably meant to be: it is a few slips away (one in a word of up to four letters, two
/// in a longer one; capitals do not count), or it begins with `given` as a whole word, as `cudart-version` with `cudart`.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| Some((slips(&given, &candidate.to_ascii_lowercase())?, candidate)))
        .min_by_key(|(slips, candidate)| (*slips, candidate.len()))
        .map(|(_, candidate)| candidate)
}

/// How far apart the two are, if they are near.
fn slips(given: &str, candidate: &str) -> Option<usize> {
    let allowed = if candidate.len() <= 4 { 1 } else { 2 };
    // A text of a megabyte is not compared letter by letter; a letter may have two bytes.
    if given.len().abs_diff(candidate.len()) <= 2 * allowed {
        let slips = strsim::osa_distance(given, candidate);
        if slips <= allowed && slips < candidate.len() {
            return Some(slips);
        }
    }
    let rest = candidate.strip_prefix(given)?;
    (!given.is_empty() && rest.starts_with('-')).then_some(allowed + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_or_two_are_seen_through() {
        let known = ["run", "gpu", "mode", "off", "stack", "TERMINATION_LOG", "Hopper"];
        for (given, expected) in [
            ("rum", Some("run")),
            ("urn", Some("run")),
            ("RUN", Some("run")),
            ("mod", Some("mode")),
            ("of", Some("off")),
            ("stakc", Some("stack")),
            ("stacs", Some("stack")),
            ("TERMINATIONLOG", Some("TERMINATION_LOG")),
            ("hoper", Some("Hopper")),
            ("m\u{f6}de", Some("mode")),
            ("moo", None),
            ("python", None),
            ("STOCKS_", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), expected, "{given}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 24), known), None);
        assert_eq!(nearest("", [""]), None);
    }

    #[test]
    fn leading_words_of_a_name_will_do() {
        let known = [
            "cudart-version",
            "cudart",
            "package-missing",
            "package-version-of",
        ];
        assert_eq!(nearest("package", known), Some("package-missing"));
        assert_eq!(nearest("cudart", ["cudart-version"]), Some("cudart-version"));
        // Fewer slips come first, and half a word is none.
        assert_eq!(nearest("cudar", known), Some("cudart"));
        assert_eq!(nearest("pack", known), None);
    }
}
