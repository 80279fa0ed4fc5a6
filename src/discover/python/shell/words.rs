//! The words of a shell's text, unexpanded, and the signs between its commands.
//!
//! Source: POSIX, "Shell Command Language", 2.3 "Token Recognition".

/// A word as it is written, quotes included, or a sign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    Word(String),
    /// `;`, `&&`, `||`, `|`, `&`, `(`, `)`, `;;` or a line's end, which is `;` here
    Sign(&'static str),
}

/// Most tokens that are looked at.
const MOST: usize = 4_000;

const SIGNS: [&str; 9] = ["&&", "||", "|&", ";;", ";", "&", "|", "(", ")"];

/// Splits a text. Redirections and comments are left out, and so are here-documents.
pub fn tokens(text: &str) -> Vec<Token> {
    let text = text.replace("\r\n", "\n").replace("\\\n", " ");
    let mut rest = text.as_str();
    let mut tokens = Vec::new();
    let mut documents: Vec<String> = Vec::new();
    while tokens.len() < MOST {
        rest = rest.trim_start_matches([' ', '\t', '\r']);
        if let Some(behind) = rest.strip_prefix('\n') {
            rest = behind;
            for end in documents.drain(..) {
                rest = behind_document(rest, &end);
            }
            tokens.push(Token::Sign(";"));
        } else if rest.starts_with('#') {
            rest = rest.find('\n').and_then(|at| rest.get(at..)).unwrap_or_default();
        } else if let Some(behind) = redirection(rest) {
            let is_document = behind.1;
            let target = behind.0.trim_start_matches([' ', '\t', '-']);
            let end = word_end(target);
            if is_document {
                let word = target.get(..end).unwrap_or_default();
                documents.push(word.replace(['\'', '"', '\\'], ""));
            }
            rest = target.get(end..).unwrap_or_default();
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            rest = rest.get(sign.len()..).unwrap_or_default();
            tokens.push(Token::Sign(sign));
        } else if rest.is_empty() {
            break;
        } else {
            let end = word_end(rest).max(rest.chars().next().map_or(1, char::len_utf8));
            let (word, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
            tokens.push(Token::Word(word.to_string()));
            rest = behind;
        }
    }
    tokens
}

/// What follows a redirection's sign, and whether it is that of a here-document.
fn redirection(text: &str) -> Option<(&str, bool)> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest
        .strip_prefix('&')
        .filter(|rest| rest.starts_with('>'))
        .unwrap_or(rest);
    if rest.starts_with("<(") || rest.starts_with(">(") {
        return None;
    }
    let signs = [
        ("<<<", false),
        ("<<", true),
        (">>", false),
        (">|", false),
        (">&", false),
        ("<&", false),
        (">", false),
        ("<", false),
    ];
    signs
        .into_iter()
        .find_map(|(sign, is_document)| Some((rest.strip_prefix(sign)?, is_document)))
}

fn behind_document<'a>(text: &'a str, end: &str) -> &'a str {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        if line.trim() == end {
            break;
        }
    }
    text.get(at..).unwrap_or_default()
}

/// Where a word ends: at a blank or a sign that no quotes and no brackets hold.
fn word_end(text: &str) -> usize {
    let mut quote = None;
    let mut open = 0_usize;
    let mut before = ' ';
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') | (Some('`'), '`') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => escaped = true,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(' | '{') if before == '$' || open > 0 => open += 1,
            (None, '(') if matches!(before, '<' | '>') => open += 1,
            (None, ')' | '}') if open > 0 => open -= 1,
            (None, c) if open == 0 && (c.is_whitespace() || ";&|()<>".contains(c)) => return at,
            _ => {}
        }
        before = c;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let shown: Vec<String> = tokens(text)
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => format!("[{word}]"),
                Token::Sign(sign) => sign.to_string(),
            })
            .collect();
        shown.join("")
    }

    #[test]
    fn words_and_signs() {
        for (text, expected) in [
            ("cd /x && exec python -u", "[cd][/x]&&[exec][python][-u]"),
            ("a 'b c' \"d $(e f) g\"", "[a]['b c'][\"d $(e f) g\"]"),
            ("a $(b | c) ${d:-e f}", "[a][$(b | c)][${d:-e f}]"),
            ("a # b\nc", "[a];[c]"),
            ("a >log 2>&1 <in &", "[a]&"),
            ("a <<EOF b\nc d\nEOF\ne", "[a][b];[e]"),
            ("a\\\n b\r\nc", "[a][b];[c]"),
            ("case x in a|b) c;; esac", "[case][x][in][a]|[b])[c];;[esac]"),
            ("f() { a; }", "[f]()[{][a];[}]"),
            ("'open", "['open]"),
            ("a#b", "[a#b]"),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
