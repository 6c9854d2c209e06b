//! A process type's command line, and how the shell gets it.
//!
//! `sh -c "<command>"` leaves a shell between the supervisor and the app where the shell does not
//! replace itself by its last command (dash does not), and SIGTERM then ends the shell and not
//! the server. So a *simple command* is run as `sh -c "exec <command>"`.
//!
//! Simple is decided carefully: a command that is taken for compound only keeps its shell, while
//! `exec` before a compound one would change what it does. Assignments stay in front:
//! `A=1 exec server` gives the server `A`, in dash, bash and busybox.

/// Words that mean something to the shell itself, where a command's name stands.
const OWN_WORDS: &[&str] = &[
    "!", ".", ":", "[[", "alias", "bg", "break", "builtin", "case", "cd", "command", "continue",
    "coproc", "declare", "do", "done", "elif", "else", "enable", "esac", "eval", "exec", "exit",
    "export", "fc", "fg", "fi", "for", "function", "getopts", "hash", "if", "in", "jobs", "let",
    "local", "read", "readonly", "return", "select", "set", "shift", "source", "then", "time",
    "times", "trap", "type", "typeset", "ulimit", "umask", "unalias", "unset", "until", "wait",
    "while", "{", "}",
];

/// What `sh -c` gets for `command`, so that a simple command replaces the shell.
pub fn script(command: &str) -> String {
    match name_of_simple(command) {
        Some(at) => {
            let (assignments, rest) = command.split_at(at);
            format!("{assignments}exec {rest}")
        }
        None => command.to_owned(),
    }
}

/// Where the name stands in a simple command; nothing where the command is not surely simple.
fn name_of_simple(command: &str) -> Option<usize> {
    let bytes = command.as_bytes();
    let (mut at, mut name) = (0, None);
    while at < bytes.len() {
        if bytes[at] == b' ' || bytes[at] == b'\t' {
            at += 1;
            continue;
        }
        if bytes[at] == b'#' {
            break;
        }
        let end = word_end(bytes, at)?;
        let word = &command[at..end];
        if name.is_none() && !is_assignment(word) {
            // A name that the shell makes up (`$CMD`, `~/bin/x`, `> file`) may be anything.
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./+@:,%[]".contains(&b) || b > 127;
            if !word.bytes().all(plain) || OWN_WORDS.contains(&word) {
                return None;
            }
            name = Some(at);
        }
        at = end;
    }
    name
}

/// Where the word at `at` ends; nothing where an operator or a substitution stands in it.
fn word_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' => break,
            b'\n' | b'\r' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>' | b'`' | 0 => {
                return None;
            }
            b'$' if bytes.get(at + 1) == Some(&b'(') => return None,
            b'\\' => match bytes.get(at + 1) {
                None | Some(b'\n' | b'\r') => return None,
                Some(_) => at += 2,
            },
            b'\'' => at = 1 + at + 1 + bytes[at + 1..].iter().position(|&b| b == b'\'')?,
            b'"' => at = double_quoted(bytes, at + 1)?,
            _ => at += 1,
        }
    }
    Some(at)
}

/// The place behind the closing quote.
fn double_quoted(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            b'`' | 0 => return None,
            b'$' if bytes.get(at + 1) == Some(&b'(') => return None,
            _ => at += 1,
        }
    }
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests;
