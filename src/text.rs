//! Text for people: what makes foreign text harmless, and how lines and times are written.
//!
//! Text of files, libraries and processes may hold anything. It is made harmless once on each way out: what is judged,
//! by the constructors and setters of [`crate::check::Finding`]; what discovery keeps as facts, by [`one_line`] where it is
//! read; the JSON report and all else that is printed, by the printer.

use std::fmt::Display;
use std::time::Duration;

/// `1 wheel`, `2 wheels`, `3 libraries`: a number with its noun.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    format!("{count} {}", number_of(&count, noun))
}

/// A noun in the number of what is counted: `library` of one, `libraries` of several.
pub fn number_of<N: PartialEq + From<u8>>(count: &N, noun: &str) -> String {
    if *count == N::from(1) {
        return noun.to_string();
    }
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with("ch") || noun.ends_with(['s', 'x']) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// The verb or pronoun that agrees with what is counted.
pub fn verb<'v>(count: usize, of_one: &'v str, of_several: &'v str) -> &'v str {
    match count {
        1 => of_one,
        _ => of_several,
    }
}

/// Takes what could steer a terminal or reorder a line out of text: control characters (C0, DEL, C1), line separators
/// and bidirectional overrides are written as Rust would escape them, `\u{1b}` or `\n`.
pub fn sanitize(text: &str) -> String {
    // Nearly all text is plain ASCII, and there is a lot of it in the facts.
    if is_plain(text) {
        return text.to_string();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            clean.extend(c.escape_debug());
        } else {
            clean.push(c);
        }
    }
    clean
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// Control characters, line separators, and what turns the direction of writing. All are in the basic plane.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}'
        )
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// The first `most` characters, with an ellipsis where there are more.
pub fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_string(),
    }
}

/// Text of at most `most` characters, with an ellipsis in place of its middle where it is longer: what a sentence states
/// stands at its ends.
pub fn without_middle(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_string();
    }
    let tail = most / 3;
    let head = most.saturating_sub(tail + 1);
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// Text of at most `most` characters, if it becomes so by shorter paths: the longest ones first lose all but their last
/// two parts.
pub fn with_short_paths(text: &str, most: usize) -> String {
    let mut text = text.to_string();
    while text.chars().count() > most {
        let words = text.split([' ', '(', ')', ',', ';', ':']);
        let shorter = words.filter_map(|word| {
            let (rest, name) = word.strip_prefix('/')?.rsplit_once('/')?;
            let (dropped, folder) = rest.rsplit_once('/')?;
            (!dropped.is_empty() && !name.is_empty())
                .then(|| (word.to_string(), format!("…/{folder}/{name}")))
        });
        let Some((long, short)) = shorter.max_by_key(|(word, _)| word.len()) else {
            break;
        };
        text = text.replace(&long, &short);
    }
    text
}

/// Foreign text as one line of at most `most` characters that is safe to print.
pub fn one_line(text: &str, most: usize) -> String {
    if text.len() <= most && is_plain(text) {
        return text.to_string();
    }
    // Text may be long: one character more than is kept says that there are more.
    let head = text.char_indices().nth(most.saturating_add(1));
    let head = head.and_then(|(at, _)| text.get(..at)).unwrap_or(text);
    clip(&sanitize(head), most)
}

/// Milliseconds with the precision that a person reads: `0.4 ms`, `153 ms`, `9.6 s`.
pub fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 10_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}

/// A paragraph in lines of at most `width` characters. Code in backquotes is not divided, so that it can be copied.
pub fn wrap(paragraph: &str, width: usize) -> String {
    let mut pieces: Vec<String> = Vec::new();
    let mut in_code = false;
    for word in paragraph.split_whitespace() {
        match pieces.last_mut() {
            Some(piece) if in_code => *piece = format!("{piece} {word}"),
            _ => pieces.push(word.to_string()),
        }
        in_code ^= word.matches('`').count() % 2 == 1;
    }
    let mut text = String::new();
    let mut used = 0;
    for piece in pieces {
        let length = piece.chars().count();
        if used == 0 {
            used = length;
        } else if used + 1 + length <= width {
            text.push(' ');
            used += 1 + length;
        } else {
            text.push('\n');
            used = length;
        }
        text.push_str(&piece);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_agree_with_their_numbers() {
        for (count, noun, text) in [
            (0, "wheel", "0 wheels"),
            (1, "library", "1 library"),
            (2, "library", "2 libraries"),
            (2, "copy", "2 copies"),
            (3, "process", "3 processes"),
            (2, "GPU", "2 GPUs"),
            (1, "GPU", "1 GPU"),
            (2, "key", "2 keys"),
        ] {
            assert_eq!(counted(count, noun), text);
        }
    }

    #[test]
    fn long_texts_lose_their_middle() {
        assert_eq!(without_middle("abcdefghij", 10), "abcdefghij");
        assert_eq!(without_middle("abcdefghijk", 10), "abcdef…ijk");
        assert_eq!(without_middle("äöüäöüäöü", 6), "äöü…öü");
        assert_eq!(without_middle("abc", 0), "…");
    }

    #[test]
    fn long_paths_lose_their_beginning() {
        let text = "libx: /a/long/path/to/lib/libx.so (/b/c/d/e.so) is 12.4";
        assert_eq!(with_short_paths(text, 60), text);
        assert_eq!(
            with_short_paths(text, 50),
            "libx: …/lib/libx.so (/b/c/d/e.so) is 12.4"
        );
        assert_eq!(
            with_short_paths(text, 1),
            "libx: …/lib/libx.so (…/d/e.so) is 12.4"
        );
        for text in ["/a/b", "/a/b/", "//", "/", "a/b/c/d", ""] {
            assert_eq!(with_short_paths(text, 0), text);
        }
    }

    #[test]
    fn lines_are_filled_and_code_stays_whole() {
        assert_eq!(wrap("one two\nthree  four", 9), "one two\nthree\nfour");
        assert_eq!(wrap("run `a b c` now", 9), "run\n`a b c`\nnow");
        assert_eq!(wrap("(`--warn x`, y)", 5), "(`--warn x`,\ny)");
        assert_eq!(wrap("ünïcödé ✓ ok", 9), "ünïcödé ✓\nok");
        assert_eq!(wrap(" \n", 9), "");
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(
            sanitize("plain — ünïcödé ✓ 'a' \"b\""),
            "plain — ünïcödé ✓ 'a' \"b\""
        );
        let nasty = "a\x1b[31mred\nline\r\x07\u{7f}\u{9b}2J\u{202e}gnp";
        let clean = sanitize(nasty);
        assert_eq!(clean, r"a\u{1b}[31mred\nline\r\u{7}\u{7f}\u{9b}2J\u{202e}gnp");
        assert_eq!(sanitize(&clean), clean);
    }

    #[test]
    fn a_line_is_as_long_as_it_may_be() {
        assert_eq!(one_line("a\x1b[31m\nb", 80), r"a\u{1b}[31m\nb");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("abc", 3), "abc");
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line("äöüß", 3), "äöü…");
        assert_eq!(one_line("\n\n\n", 3), r"\n\…");
        assert_eq!(clip("abcd", 3), "abc…");
    }
}
