//! Finds where in a JSON text a path points.
//!
//! serde_json says how far it had read when something failed, which is behind the value, or behind the whole object
//! around it. People want the place itself, so the text is walked once more along the path. Everything before the
//! failure is known to be well-formed; what comes after it may be anything, and then there is no answer.

use serde_path_to_error::{Path, Segment};

/// What is wrong at the end of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// the key
    Key,
    /// its value
    Value,
}

/// Byte offset of what `path` names, or `None` where the text does not have it. Of a key that is given twice, the
/// last one before `behind` counts: that is the one that serde had just read.
pub(super) fn locate(text: &str, path: &Path, behind: usize, target: Target) -> Option<usize> {
    let mut walk = Walk { text, at: 0 };
    walk.blanks();
    let mut key_at = walk.at;
    for segment in path {
        match segment {
            Segment::Map { key } | Segment::Enum { variant: key } => {
                let (found, value_at) = walk.member(key, behind)?;
                key_at = found;
                walk.at = value_at;
            }
            Segment::Seq { index } => {
                walk.element(*index)?;
                key_at = walk.at;
            }
            Segment::Unknown => return None,
        }
    }
    Some(match target {
        Target::Key => key_at,
        Target::Value => walk.at,
    })
}

/// Byte offset of serde_json's line (from 1) and column (bytes read of that line); the end of the text where it has
/// no such place.
pub(super) fn offset(text: &str, line: usize, column: usize) -> usize {
    let mut start = 0;
    for (number, content) in (1..).zip(text.split_inclusive('\n')) {
        if number == line {
            return (start + column).min(text.len());
        }
        start += content.len();
    }
    text.len()
}

/// Line and column, in characters and both from 1, of a byte offset.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl Walk<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Skips a string and returns it decoded.
    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.skip_string()?;
        serde_json::from_str(self.text.get(start..self.at)?).ok()
    }

    fn skip_string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        self.blanks();
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' | b',' if depth == 0 => return Some(()),
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
    }

    /// Offsets of the last member `key` that starts before `behind`, and of its value.
    fn member(&mut self, key: &str, behind: usize) -> Option<(usize, usize)> {
        self.eat(b'{')?;
        let mut found = None;
        loop {
            self.blanks();
            let key_at = self.at;
            if key_at >= behind {
                return found;
            }
            let Some(name) = self.string() else { return found };
            let value_at = match self.eat(b':') {
                Some(()) => {
                    self.blanks();
                    self.at
                }
                // The failure is in the key itself, and what follows is not JSON.
                None => key_at,
            };
            if name == key {
                found = Some((key_at, value_at));
            }
            if self.skip_value().is_none() || self.eat(b',').is_none() {
                return found;
            }
        }
    }

    /// Moves to the start of element `index`.
    fn element(&mut self, index: usize) -> Option<()> {
        self.eat(b'[')?;
        for _ in 0..index {
            self.skip_value()?;
            self.eat(b',')?;
        }
        self.blanks();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_newlines() {
        let text = "{\n  \"é\": ü\n}";
        let at = text.find('ü').unwrap();
        assert_eq!(line_and_column(text, at), (2, 8));
        assert_eq!(line_and_column(text, at + 1), (2, 8), "inside a character");
        assert_eq!(line_and_column(text, usize::MAX), (3, 2));
        assert_eq!(line_and_column("", 0), (1, 1));
    }

    #[test]
    fn offsets_beyond_the_text_are_its_end() {
        assert_eq!(offset("ab\ncd", 2, 1), 4);
        assert_eq!(offset("ab\ncd", 2, 99), 5);
        assert_eq!(offset("ab\ncd", 9, 1), 5);
        assert_eq!(offset("", 1, 0), 0);
    }
}
