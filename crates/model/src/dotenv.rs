//! Env files, such as `.env`: config variables for a developer's own deploy.
//!
//! ```text
//! # a comment
//! NAME=value
//! export NAME=value                 # `export` changes nothing
//! PLAIN=everything up to the end of the line, without blanks at its end
//! HASH=a#b                          # a comment begins after a blank
//! SINGLE='as it is: $HOME \n, and
//! over several lines'
//! DOUBLE="with escapes: \n \r \t \\ \" \$, and
//! over several lines"
//! EMPTY=
//! ```
//!
//! | part | rule |
//! |---|---|
//! | file | any bytes but NUL; lines end with LF or CR LF; a UTF-8 byte order mark is skipped |
//! | name | `[A-Za-z_][A-Za-z0-9_]*`, directly before its `=`; once in a file |
//! | value | begins directly after the `=`; quoted if its first byte is `'` or `"` |
//! | plain value | taken as it is to the end of the line or to a blank and `#`; quotes inside it are part of it |
//! | single quotes | everything up to the next `'` is taken as it is |
//! | double quotes | a backslash begins one of the six escapes above; everything else is taken as it is |
//! | after a closing quote | blanks, and after a blank a comment |
//!
//! There is no interpolation: `$NAME`, `$(command)` and backquotes are taken as they are. What is
//! inside quotes keeps its line ends, a CR included. What is none of this is an error.
//!
//! # Invariants
//!
//! A value never shows in an error: of the file's text only names, `export`, `=` and quotes are
//! kept, every other byte is drawn as `*`.

use std::collections::HashMap;
use std::ops::Range;

use crate::env::EnvName;
use crate::source::{Report, SourceError};

/// Name to show where the caller has none.
pub const FILE: &str = ".env";

/// Longest wrong name that may be shown: what is longer may be a part of a secret.
const LONGEST_SHOWN: usize = 40;

/// Reads an env file: names and values in the order of the file.
///
/// The limits of an environment and the platform's own names are not checked here but by
/// [`crate::env::Env`].
///
/// # Errors
///
/// Everything that is outside the grammar, with its place; see [`SourceError::named`].
pub fn parse(bytes: &[u8]) -> Result<Vec<(EnvName, Vec<u8>)>, SourceError> {
    let mut report = Report::new(FILE, bytes);
    let text = report.text();
    let mut reader = Reader {
        text,
        at: 0,
        shown: vec![false; text.len()],
        first: HashMap::new(),
        pairs: Vec::new(),
        report: &mut report,
    };
    if matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        reader.report.error(0..2, "the file is UTF-16").hint("save it as UTF-8");
    } else if reader.report.is_whole() {
        while reader.at < text.len() {
            reader.line();
        }
    }
    let Reader { shown, pairs, .. } = reader;
    let drawn = masked(text, &shown);
    report.finish_drawn(pairs, drawn).map(|(pairs, _)| pairs)
}

/// The text of the same length with everything hidden that is not to be shown.
fn masked(text: &[u8], shown: &[bool]) -> String {
    let draw = |(&byte, &shown): (&u8, &bool)| match byte {
        b'\n' | b'\t' | b' ' => char::from(byte),
        b'\r' => ' ',
        b'!'..=b'~' if shown => char::from(byte),
        _ => '*',
    };
    text.iter().zip(shown).map(draw).collect()
}

struct Reader<'a, 'r, 'b> {
    text: &'a [u8],
    at: usize,
    /// Which bytes an error may show.
    shown: Vec<bool>,
    /// Where each name was first given.
    first: HashMap<EnvName, Range<usize>>,
    pairs: Vec<(EnvName, Vec<u8>)>,
    report: &'r mut Report<'b>,
}

impl Reader<'_, '_, '_> {
    /// Reads one line, or more where a quoted value has more. Always gets on.
    fn line(&mut self) {
        self.blanks();
        if self.at_line_end() || self.text[self.at] == b'#' {
            self.skip_line();
            return;
        }
        self.export();
        let Some((name, span)) = self.name() else {
            self.skip_line();
            return;
        };
        let Some(value) = self.value() else { return };
        if let Some(first) = self.first.get(&name) {
            self.report
                .error(span, format!("`{name}` is given twice"))
                .hint("remove one of the two")
                .also(first.clone(), "first given here");
            return;
        }
        self.first.insert(name.clone(), span);
        self.pairs.push((name, value));
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn at_line_end(&self) -> bool {
        matches!(&self.text[self.at..], [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..])
    }

    /// Where this line ends, its line end left out.
    fn line_end(&self) -> usize {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        self.at + rest[..len].strip_suffix(b"\r").unwrap_or(&rest[..len]).len()
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |len| len + 1);
    }

    fn show(&mut self, span: Range<usize>) {
        self.shown[span].fill(true);
    }

    /// Skips the word `export` where a name follows.
    fn export(&mut self) {
        let start = self.at;
        if let Some([b' ' | b'\t', ..]) = self.text[start..].strip_prefix(b"export") {
            self.at += "export".len();
            self.blanks();
            if let Some(b'=' | b'\n' | b'\r') | None = self.text.get(self.at) {
                self.at = start;
            } else {
                self.show(start..start + "export".len());
            }
        }
    }

    /// Reads a name and its `=`.
    fn name(&mut self) -> Option<(EnvName, Range<usize>)> {
        let (start, end) = (self.at, self.line_end());
        let line = &self.text[start..end];
        let Some(len) = line.iter().position(|&byte| byte == b'=') else {
            self.report
                .error(start..end, "the line has no `=` after a variable name")
                .hint("a line is `NAME=value`; put a value of several lines in quotes");
            return None;
        };
        let span = start..start + len;
        let name = str::from_utf8(&line[..len]).unwrap_or("\u{fffd}");
        if let Ok(name) = name.parse::<EnvName>() {
            self.show(start..start + len + 1);
            self.at = span.end + 1;
            return Some((name, span));
        }
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-. ".contains(byte);
        if len <= LONGEST_SHOWN && line[..len].iter().all(harmless) {
            self.show(start..start + len + 1);
        }
        if name.is_empty() {
            self.report
                .error(start..start + 1, "the line has no variable name before its `=`")
                .hint("a line is `NAME=value`");
        } else if name.trim_ascii_end().parse::<EnvName>().is_ok() {
            let blank = start + name.trim_ascii_end().len();
            self.report
                .error(blank..span.end, "there is a blank between the variable name and its `=`")
                .hint("remove it");
        } else {
            self.report
                .error(span, "what is before the `=` is not a variable name")
                .hint("use letters, digits and `_`, no digit first; put a value of several lines in quotes");
        }
        None
    }

    /// Reads a value and the rest of its last line; nothing if it is wrong.
    fn value(&mut self) -> Option<Vec<u8>> {
        match self.text.get(self.at) {
            Some(&quote @ (b'\'' | b'"')) => self.quoted(quote),
            Some(b' ' | b'\t') => {
                let start = self.at;
                self.blanks();
                let blanks = start..self.at;
                let empty = self.at_line_end() || self.text[self.at] == b'#';
                self.skip_line();
                if empty {
                    return Some(Vec::new());
                }
                self.report
                    .error(blanks, "there is a blank between the `=` and the value")
                    .hint("remove it, or put the value in quotes if the blank is a part of it");
                None
            }
            _ => {
                let (start, end) = (self.at, self.line_end());
                let line = &self.text[start..end];
                let comment = line.windows(2).position(|two| matches!(two, [b' ' | b'\t', b'#']));
                let value = trim_end(&line[..comment.unwrap_or(line.len())]);
                let nul = value.iter().position(|&byte| byte == 0).map(|at| start + at);
                self.skip_line();
                match nul {
                    Some(nul) => self.nul(nul),
                    None => Some(value.to_vec()),
                }
            }
        }
    }

    fn nul(&mut self, at: usize) -> Option<Vec<u8>> {
        self.report
            .error(at..at + 1, "the value has a NUL byte, which no process environment can carry")
            .hint("remove it");
        None
    }

    fn quoted(&mut self, quote: u8) -> Option<Vec<u8>> {
        let start = self.at;
        self.show(start..start + 1);
        self.at += 1;
        let mut value = Vec::new();
        let mut wrong = false;
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                let quote = char::from(quote);
                self.report
                    .error(start..start + 1, format!("the value has no closing `{quote}`"))
                    .hint("close it; what begins with a quote ends with the same");
                return None;
            };
            match byte {
                0 => {
                    self.nul(self.at);
                    wrong = true;
                }
                b'\\' if quote == b'"' => match self.escape() {
                    Some(byte) => value.push(byte),
                    None => wrong = true,
                },
                byte if byte == quote => break,
                byte => value.push(byte),
            }
            self.at += 1;
        }
        self.show(self.at..self.at + 1);
        self.at += 1;
        let after = self.at;
        self.blanks();
        let fine = self.at_line_end() || (self.at > after && self.text[self.at] == b'#');
        if !fine {
            self.report
                .error(after..self.line_end(), "there is text after the closing quote")
                .hint("a quote inside double quotes is written `\\\"`; a comment begins after a blank");
            wrong = true;
        }
        self.skip_line();
        (!wrong).then_some(value)
    }

    /// The byte that an escape stands for; leaves the reader at its last byte.
    fn escape(&mut self) -> Option<u8> {
        let start = self.at;
        let byte = match self.text.get(start + 1) {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(&byte @ (b'\\' | b'"' | b'$')) => byte,
            _ => {
                self.report
                    .error(start..start + 1, "this backslash begins no escape")
                    .hint("write `\\\\` for a backslash, or put the value in single quotes");
                return None;
            }
        };
        self.at += 1;
        Some(byte)
    }
}

/// Without blanks at the end; other white space is a part of the value.
fn trim_end(value: &[u8]) -> &[u8] {
    let len =
        value.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    &value[..len]
}

/// Appends a line that [`parse`] reads back as this variable. The value has no NUL byte.
pub fn write(name: &EnvName, value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.as_str().bytes());
    out.push(b'=');
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,=?&".contains(byte);
    if value.iter().all(plain) {
        out.extend(value);
    } else {
        out.push(b'"');
        for &byte in value {
            match byte {
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                b'\\' | b'"' | b'$' => out.extend([b'\\', byte]),
                byte => out.push(byte),
            }
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
