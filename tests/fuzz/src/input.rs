//! What targets have in common: inputs taken apart, and what every text must be.

use serde_json::Value;

/// Takes an input apart from its front. Behind its end there are zeros, so that every input means something.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut all = [0; N];
        let (taken, rest) = self.0.split_at(self.0.len().min(N));
        all[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        all
    }

    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// As many bytes as the next one says.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.u8()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// All of it that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// The parts between bytes that neither text nor JSON has use for.
pub fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&b| b == 0xff)
}

pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&0xff)
}

/// Whether a terminal would obey it, or show what follows in another order.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Nothing in one line of text may steer a terminal.
#[track_caller]
pub fn is_clean(text: &str) {
    assert!(!text.contains(steers), "{text:?}");
}

/// The same of text with line ends.
#[track_caller]
pub fn lines_are_clean(text: &str) {
    text.split('\n').for_each(is_clean);
}

/// No control character: what facts and errors promise before they are shown.
#[track_caller]
pub fn is_printable(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// The same value, but for the last bit of a fraction: reading JSON rounds.
#[track_caller]
pub fn are_alike(a: &Value, b: &Value) {
    assert!(alike(a, b), "{a:#}\n{b:#}");
}

fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-14 + f64::MIN_POSITIVE,
            _ => false,
        },
        _ => a == b,
    }
}

/// Changes a document here and there, as the input says: structure that bytes alone would hardly come to.
pub fn changed(mut document: Value, input: &mut Input<'_>) -> Value {
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let mut left = usize::from(input.u16());
        let count = nodes(&document);
        left %= count.max(1);
        let operation = input.u8();
        if let Some(node) = node(&mut document, &mut left) {
            change(node, operation, input);
        }
    }
    document
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(entries) => entries.values().map(nodes).sum(),
        _ => 0,
    }
}

fn node<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| node(item, left)),
        Value::Object(entries) => entries.values_mut().find_map(|entry| node(entry, left)),
        _ => None,
    }
}

fn change(node: &mut Value, operation: u8, input: &mut Input<'_>) {
    match operation % 10 {
        0 => *node = Value::Null,
        1 => *node = Value::from(input.u8() & 1 == 1),
        2 => *node = Value::from(i64::from(input.u8()) - 16),
        3 => *node = Value::from(input.u64()),
        4 => *node = Value::from(f64::from_bits(input.u64())),
        5 => {
            // In the middle of what is there: most texts have a form.
            let at = usize::from(input.u8());
            let new = input.text();
            if let Value::String(text) = node {
                let at = text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
                text.insert_str(at, &new);
            }
        }
        6 => match node {
            Value::Array(items) => {
                if let Some(item) = items.get(usize::from(input.u8()) % items.len().max(1)).cloned() {
                    items.push(item);
                }
            }
            Value::Object(entries) => {
                let at = usize::from(input.u8()) % entries.len().max(1);
                if let Some((_, value)) = entries.iter().nth(at) {
                    let value = value.clone();
                    entries.insert(input.text(), value);
                }
            }
            _ => {}
        },
        7 => match node {
            Value::Array(items) => drop(items.pop()),
            Value::Object(entries) => {
                let at = usize::from(input.u8()) % entries.len().max(1);
                if let Some(key) = entries.keys().nth(at).cloned() {
                    entries.shift_remove(&key);
                }
            }
            Value::String(text) => {
                text.pop();
            }
            _ => {}
        },
        _ => *node = Value::from(input.text()),
    }
}
