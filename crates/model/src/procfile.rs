//! The `Procfile`: which processes an app has (factors VI and VIII).
//!
//! One line is `<type>: <command>`; the command is a line for the shell and is kept as it is.
//! Blank lines, `#` comments, CRLF, a byte order mark and a missing last newline are fine.
//! Everything else is an error with its place: no line is dropped in silence.
//!
//! Sources: the contract of Heroku's Cedar stack and Foreman's `Procfile` grammar,
//! `^([A-Za-z0-9_-]+):\s*(.+)$`.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::name::{NameError, ProcessType};
use crate::source::{Report, SourceError, quote};

/// The name of the file, in the root of an app.
pub const FILE: &str = "Procfile";
/// Longest command, in bytes. `execve` itself refuses strings of 128 KiB.
pub const MAX_COMMAND: usize = 64 * 1024;
/// Most bytes of all commands together: every release carries them.
pub const MAX_COMMANDS: usize = 128 * 1024;
/// Most process types of an app, and most schedules.
pub const MAX_TYPES: usize = 256;

const SHAPE: &str = "a line is `<type>: <command>`, as in `web: node server.js`";

/// An app's process types and their commands; at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Procfile {
    /// Process type → command, a line for the shell.
    pub types: BTreeMap<ProcessType, String>,
    order: Vec<ProcessType>,
}

impl Procfile {
    /// Reads a `Procfile`.
    ///
    /// # Errors
    ///
    /// Every line that is not what it should be, and every type that is there twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, SourceError> {
        let mut report = Report::new(FILE, bytes);
        let mut procfile = Self::default();
        let mut seen: BTreeMap<ProcessType, Range<usize>> = BTreeMap::new();
        if let Some(text) = report.utf8() {
            let mut offset = 0;
            for line in text.split_inclusive('\n') {
                if let Some((process_type, span, command)) = entry(&mut report, line, offset) {
                    match seen.get(&process_type) {
                        Some(first) => {
                            report
                                .error(
                                    span,
                                    format!("process type `{process_type}` is given twice"),
                                )
                                .hint("remove one of the two lines, or rename its type")
                                .also(first.clone(), "first given here");
                        }
                        None if seen.len() == MAX_TYPES => {
                            report
                                .error(span, format!("more than {MAX_TYPES} process types"))
                                .hint("an app that has more is several apps");
                            break;
                        }
                        None => {
                            seen.insert(process_type.clone(), span);
                            procfile.order.push(process_type.clone());
                            procfile.types.insert(process_type, command.to_owned());
                        }
                    }
                }
                offset += line.len();
            }
            let size: usize = procfile.types.values().map(String::len).sum();
            if size > MAX_COMMANDS {
                let message = format!("the commands have {size} bytes, more than {MAX_COMMANDS}");
                report.error(0..0, message).hint("write scripts into files of their own");
            }
            if procfile.types.is_empty() && !report.failed() {
                report.error(0..0, "no process type is given").hint(SHAPE);
            }
        }
        report.finish(procfile).map(|(procfile, _)| procfile)
    }

    /// Types and commands in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&ProcessType, &str)> {
        self.order.iter().filter_map(|kind| Some((kind, self.types.get(kind)?.as_str())))
    }

    /// The command of a type.
    pub fn command(&self, process_type: &ProcessType) -> Option<&str> {
        self.types.get(process_type).map(String::as_str)
    }
}

/// Reads one line: its type, where that is, and its command. Nothing, if it is blank, a comment
/// or wrong.
fn entry<'a>(
    report: &mut Report<'_>,
    line: &'a str,
    offset: usize,
) -> Option<(ProcessType, Range<usize>, &'a str)> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let at = |start: usize, end: usize| offset + start..offset + end;
    let whole = at(line.len() - line.trim_start().len(), line.trim_end().len().max(1));
    if line.trim().is_empty() || line.trim_start().starts_with('#') {
        return None;
    }
    if let Some(place) = line.find(['\0', '\r']) {
        let (what, hint) = if line[place..].starts_with('\0') {
            ("a NUL byte", "no command can carry it: remove it")
        } else {
            ("a carriage return inside it", "end lines with a line feed (LF, or CR LF)")
        };
        report.error(at(place, place + 1), format!("the line has {what}")).hint(hint);
        return None;
    }
    let Some((name, command)) = line.split_once(':') else {
        report.error(whole, "the line has no `:` after a process type").hint(SHAPE);
        return None;
    };
    let span = at(0, name.len().max(1));
    let process_type: ProcessType = match name.parse() {
        Ok(process_type) => process_type,
        Err(error) => {
            let message = match error {
                NameError::Empty { .. } => "the line has no process type before its `:`".to_owned(),
                NameError::TooLong { max, .. } => {
                    format!("process type `{}` is longer than {max} characters", quote(name))
                }
                NameError::BadCharacter { bad, .. } => {
                    format!("process type `{}` has {bad:?}", quote(name))
                }
            };
            let hint = if name.trim().parse::<ProcessType>().is_ok() {
                format!("remove the spaces around `{}`", name.trim())
            } else {
                format!("{SHAPE}; a type is made of A-Z, a-z, 0-9, `_` and `-`")
            };
            report.error(span, message).hint(hint);
            return None;
        }
    };
    let command = command.trim();
    if command.is_empty() {
        report.error(at(0, line.len()), format!("process type `{process_type}` has no command"));
        return None;
    }
    if command.len() > MAX_COMMAND {
        let message = format!("the command has {} bytes, more than {MAX_COMMAND}", command.len());
        report.error(at(name.len(), name.len() + 1), message).hint("move it into a script");
        return None;
    }
    Some((process_type, span, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_bounds() {
        let parse = |text: &str| Procfile::parse(text.as_bytes());
        let lines = |count: usize| (0..count).map(|n| format!("t{n}: true\n")).collect::<String>();
        assert_eq!(parse(&lines(MAX_TYPES)).unwrap().types.len(), MAX_TYPES);
        let error = parse(&lines(1_000_000)).unwrap_err().to_string();
        assert!(error.contains("more than 524288"), "{error}");
        let error = parse(&lines(MAX_TYPES + 2)).unwrap_err().to_string();
        assert_eq!(error, "Procfile:257:1: more than 256 process types");
        let long = "x".repeat(MAX_COMMAND);
        let error = parse(&format!("a: {long}\nb: {long}\nc: x\n")).unwrap_err().to_string();
        assert_eq!(error, "Procfile:1:1: the commands have 131073 bytes, more than 131072");
    }
}
