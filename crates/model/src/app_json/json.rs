//! JSON (RFC 8259) where every value knows its place in the file, with comments (`// …` and
//! `/* … */`) and a comma after the last element, as other platforms' users have them.
//!
//! A small reader of its own because the point is the span of each key and value, which an
//! error about a wrong type needs. Without those two it accepts what `serde_json` accepts (a
//! property test holds the two together), with one difference on purpose: an object's key given
//! twice is an error.

use std::collections::HashMap;
use std::ops::Range;

use crate::source::{Report, quote};

/// Deepest nesting, as in `serde_json`.
const MOST_LEVELS: usize = 127;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written: what it is to be is the reader's business.
    Number(String),
    String(String),
    Array(Vec<Node>),
    Object(Vec<Member>),
}

/// One key of an object with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) node: Node,
}

/// A syntax error; there is at most one, as nothing after it can be trusted.
struct Wrong {
    span: Range<usize>,
    message: String,
    hint: Option<&'static str>,
}

/// Reads a whole text. Errors, also keys given twice, go to the report.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut reader = Reader { text, at: 0, levels: 0, report };
    let result = reader.value().and_then(|node| {
        reader.blanks();
        match reader.peek() {
            None => Ok(node),
            Some(_) => Err(reader.wrong("there is text after the end of the JSON value")),
        }
    });
    match result {
        Ok(node) => Some(node),
        Err(Wrong { span, message, hint }) => {
            let noted = report.error(span, message);
            if let Some(hint) = hint {
                noted.hint(hint);
            }
            None
        }
    }
}

struct Reader<'a, 'r, 'b> {
    text: &'a str,
    at: usize,
    levels: usize,
    report: &'r mut Report<'b>,
}

impl Reader<'_, '_, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes blanks and comments. A comment without an end stays, and is an error there.
    fn blanks(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let length = match rest.as_bytes() {
                [b' ' | b'\t' | b'\n' | b'\r', ..] => Some(1),
                [b'/', b'/', ..] => Some(rest.find('\n').unwrap_or(rest.len())),
                [b'/', b'*', ..] => rest[2..].find("*/").map(|end| 2 + end + 2),
                _ => None,
            };
            let Some(length) = length else { return };
            self.at += length;
        }
    }

    /// The letter at the place where the reader is, or the end of the text, as a span.
    fn here(&self) -> Range<usize> {
        let len = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        self.at..self.at + len
    }

    fn wrong(&self, message: impl Into<String>) -> Wrong {
        let rest = &self.text[self.at..];
        let hint = match rest.as_bytes() {
            [b'/', b'*', ..] => Some("this comment has no closing `*/`"),
            [b'#', ..] => Some("a comment begins with `//`"),
            [b'\'', ..] => Some("JSON has no single quotes: use double quotes"),
            _ => None,
        };
        let message = message.into();
        let message =
            if rest.is_empty() { format!("{message}, but the file ends here") } else { message };
        Wrong { span: self.here(), message, hint }
    }

    fn value(&mut self) -> Result<Node, Wrong> {
        self.blanks();
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.word()?,
            _ => return Err(self.wrong("expected a JSON value")),
        };
        Ok(Node { span: start..self.at, value })
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Wrong>) -> Result<Value, Wrong> {
        if self.levels == MOST_LEVELS {
            return Err(self.wrong(format!("nested deeper than {MOST_LEVELS} levels")));
        }
        self.levels += 1;
        let value = read(self);
        self.levels -= 1;
        value
    }

    /// After a value in an array or object: whether another one follows.
    fn another(&mut self, close: u8, expected: &str) -> Result<bool, Wrong> {
        self.blanks();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.blanks();
                let is_last = self.peek() == Some(close);
                self.at += usize::from(is_last);
                Ok(!is_last)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.wrong(expected)),
        }
    }

    fn array(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        self.blanks();
        let mut nodes = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(nodes));
        }
        loop {
            nodes.push(self.value()?);
            if !self.another(b']', "expected `,` or `]`")? {
                return Ok(Value::Array(nodes));
            }
        }
    }

    fn object(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        self.blanks();
        let mut members: Vec<Member> = Vec::new();
        let mut seen: HashMap<String, Range<usize>> = HashMap::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            self.blanks();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a key in double quotes"));
            }
            let key = self.string()?;
            let span = start..self.at;
            self.blanks();
            if self.peek() != Some(b':') {
                return Err(self.wrong("expected `:` after the key"));
            }
            self.at += 1;
            let node = self.value()?;
            if let Some(first) = seen.get(&key) {
                self.report
                    .error(span.clone(), format!("key `{}` is given twice", quote(&key)))
                    .hint("remove one of the two")
                    .also(first.clone(), "first given here");
            } else {
                seen.insert(key.clone(), span.clone());
                members.push(Member { key, span, node });
            }
            if !self.another(b'}', "expected `,` or `}`")? {
                return Ok(Value::Object(members));
            }
        }
    }

    fn word(&mut self) -> Result<Value, Wrong> {
        let rest = &self.text[self.at..];
        let len = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let value = match &rest[..len] {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word => {
                let message = format!("`{}` is not a JSON value", quote(word));
                let hint = Some("put text in double quotes");
                return Err(Wrong { span: self.at..self.at + len, message, hint });
            }
        };
        self.at += len;
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, Wrong> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while reader.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                reader.at += 1;
            }
            reader.at - from
        };
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        let whole = digits(self);
        let mut fine = whole > 0 && !(zero && whole > 1);
        if fine && self.peek() == Some(b'.') {
            self.at += 1;
            fine = digits(self) > 0;
        }
        if fine && matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            fine = digits(self) > 0;
        }
        if !fine || self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            let span = start..self.at.max(start + 1);
            let message = "this is not a JSON number".to_owned();
            return Err(Wrong { span, message, hint: Some("put text in double quotes") });
        }
        Ok(Value::Number(self.text[start..self.at].to_owned()))
    }

    fn string(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
            let Some(plain) = plain else {
                return Err(self.unended(start));
            };
            string.push_str(&rest[..plain]);
            self.at += plain;
            match rest.as_bytes()[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok(string);
                }
                b'\\' => string.push(self.escape(start)?),
                b'\n' | b'\r' => return Err(self.unended(start)),
                byte => {
                    let mut wrong = self.wrong(format!("a control byte {byte:#04x} in a string"));
                    wrong.hint = Some("write it as an escape: `\\t`, `\\n` or `\\u00XX`");
                    return Err(wrong);
                }
            }
        }
    }

    fn unended(&self, start: usize) -> Wrong {
        let end = self.text[start..].find(['\n', '\r']).map_or(self.text.len(), |len| start + len);
        Wrong {
            span: start..end,
            message: "the string has no closing `\"` on its line".to_owned(),
            hint: Some("write a line end inside a string as `\\n`"),
        }
    }

    fn escape(&mut self, start: usize) -> Result<char, Wrong> {
        let from = self.at;
        self.at += 1;
        let Some(byte) = self.peek() else {
            return Err(self.unended(start));
        };
        let letter = match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(from),
            _ => {
                return Err(Wrong {
                    span: from..self.here().end,
                    message: "this escape is not one of JSON's".to_owned(),
                    hint: Some("write `\\\\` for a backslash"),
                });
            }
        };
        self.at += 1;
        Ok(letter)
    }

    /// `\uXXXX`, or two of them for one letter; the reader is at the `u`.
    fn unicode(&mut self, from: usize) -> Result<char, Wrong> {
        let unit = |at: usize| {
            let digits = self.text.get(at..at + 4)?;
            let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if hex { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        let first = unit(self.at + 1);
        let (code, end) = match first {
            Some(high @ 0xd800..=0xdbff) => {
                let low = match self.text.get(self.at + 5..self.at + 7) {
                    Some("\\u") => unit(self.at + 7).filter(|low| (0xdc00..=0xdfff).contains(low)),
                    _ => None,
                };
                let code = low.map(|low| 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                (code, self.at + 11)
            }
            first => (first, self.at + 5),
        };
        match code.and_then(char::from_u32) {
            Some(letter) => {
                self.at = end;
                Ok(letter)
            }
            None => Err(Wrong {
                span: from..self.at + 1,
                message: "this `\\u` escape is not a letter".to_owned(),
                hint: Some("it takes four hex digits, or two such escapes that form a pair"),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
