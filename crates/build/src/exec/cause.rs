//! Which lines of a failed step's output tell why it failed.
//!
//! A tool says the reason once and then, for dozens of lines, where its logs are and which of its
//! own commands failed because of it. The reason is the first line that says the most: one that the
//! builder explains, else one of a form that compilers, interpreters and package managers give their
//! errors, else any that speaks of an error. Output without such a line is told by its last ones.

use std::collections::VecDeque;

/// Lines that are told where none says why.
const LAST: usize = 5;
/// Lines after the reason that are told with it: what a compiler or interpreter adds.
const MORE: usize = 3;
/// Most bytes of a line that are told.
const MAX_LINE: usize = 500;

/// How much a line says about the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// It speaks of an error.
    Word,
    /// It has the form of an error.
    Form,
    /// The builder knows what to do about it.
    Known,
}

/// Collects what is to be told, line by line.
#[derive(Debug)]
pub(super) struct Cause<'a> {
    hints: &'a [(&'static str, String)],
    /// How much it says; of known ones, the place of its hint; the lines.
    best: Option<(Weight, usize, Vec<String>)>,
    last: VecDeque<String>,
    python: Python,
}

/// What a Python program or the build of a Python package says.
#[derive(Debug, Default)]
struct Python {
    /// How far the last place of a traceback is indented: what was raised stands behind the places,
    /// less far.
    place: Option<usize>,
    /// What was raised last.
    raised: Option<String>,
    /// The package that uv could not build.
    unbuilt: Option<String>,
    /// The first error of a compiler.
    compiled: Option<String>,
}

impl Python {
    fn take(&mut self, text: &str) {
        let inner = text.trim_start();
        let indent = text.len() - inner.len();
        if inner.starts_with("File \"") {
            self.place = Some(indent);
        } else if self.place.is_some_and(|place| indent < place) {
            self.place = None;
            self.raised = Some(inner.to_owned());
        }
        if let Some(at) = text.find("Failed to build") {
            self.unbuilt = Some(text[at..].to_owned());
        } else if self.compiled.is_none() && text.contains(": error:") {
            self.compiled = Some(inner.to_owned());
        }
    }

    fn told(self) -> Option<Vec<String>> {
        let compiled = self.compiled.filter(|_| self.unbuilt.is_some());
        let why = self.raised.or(compiled)?;
        Some(self.unbuilt.into_iter().chain([why]).collect())
    }
}

impl<'a> Cause<'a> {
    pub(super) fn new(hints: &'a [(&'static str, String)]) -> Self {
        Self { hints, best: None, last: VecDeque::new(), python: Python::default() }
    }

    /// Takes the next line of output.
    pub(super) fn take(&mut self, line: &[u8]) {
        let text = plain(line);
        // npm, pnpm and yarn repeat the script that they run: it says nothing about its end.
        if text.trim().is_empty() || text.starts_with("> ") || text.starts_with("$ ") {
            return;
        }
        let fits = |part: &str| !part.is_empty() && text.contains(part);
        let known = self.hints.iter().position(|(part, _)| fits(part));
        if known.is_some() {
            self.python.raised = None;
        }
        self.python.take(&text);
        let noise = is_noise(&text);
        let weight = match known {
            Some(_) => Some(Weight::Known),
            None if noise => None,
            None if has_form(&text) => Some(Weight::Form),
            None if speaks_of_error(&text) => Some(Weight::Word),
            None => None,
        };
        let at = known.unwrap_or(usize::MAX);
        match (&mut self.best, weight) {
            (None, Some(weight)) => self.best = Some((weight, at, vec![text.clone()])),
            // A tool may fail first where it has another way, and that one fails then.
            (Some((best, place, lines)), Some(weight))
                if weight > *best || weight == *best && at < *place =>
            {
                (*best, *place, *lines) = (weight, at, vec![text.clone()]);
            }
            (Some((_, _, lines)), _) if lines.len() <= MORE && !noise => lines.push(text.clone()),
            _ => {}
        }
        if !noise {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(text);
        }
    }

    /// The lines to tell, and what to do about them. Of several known reasons the one that the
    /// builder names first is helped with.
    pub(super) fn told(self) -> (Vec<String>, Option<String>) {
        let help = |at: usize| self.hints.get(at).map(|(_, help)| help.clone());
        // A hint without a text fits any failure.
        let any = self.hints.iter().find(|(part, _)| part.is_empty()).map(|(_, help)| help.clone());
        if let Some(lines) = self.python.told() {
            let known = self.best.filter(|(weight, ..)| *weight == Weight::Known);
            return (lines, known.and_then(|(_, at, _)| help(at)).or(any));
        }
        match self.best {
            Some((_, at, lines)) => (lines, help(at).or(any)),
            None => (self.last.into(), any),
        }
    }
}

/// A line as text, without colours, cut where it is too long.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if plain.len() >= MAX_LINE {
            plain.push('…');
            break;
        }
        match c {
            // ECMA-48: a control sequence ends with a letter, or another byte of the same column.
            '\u{1b}' => {
                if rest.next() == Some('[') {
                    rest.find(|c| ('@'..='~').contains(c));
                }
            }
            c => plain.push(c),
        }
    }
    plain.trim_end().to_owned()
}

/// What managers say about themselves once something else has failed.
fn is_noise(text: &str) -> bool {
    let text = text.trim_start();
    const BEGINNINGS: [&str; 14] = [
        "npm error code",
        "npm error path",
        "npm error command",
        "npm error workspace",
        "npm error location",
        "npm error Lifecycle script",
        "npm error A complete log",
        "npm ERR! code",
        "npm ERR! path",
        "npm ERR! command",
        "npm ERR! A complete log",
        "npm warn",
        "npm notice",
        "error Command failed",
    ];
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        || ["ELIFECYCLE", "info Visit https://yarnpkg.com"].iter().any(|part| text.contains(part))
        || ["npm error", "npm ERR!"].contains(&text)
        // node-gyp's own account of itself.
        // Where RubyGems is when it says that a gem was not built.
        || is_place_of_gem(text)
        || ["gyp info ", "gyp ERR! cwd", "gyp ERR! node", "gyp ERR! System", "gyp ERR! command"]
            .iter()
            .any(|part| text.contains(part))
}

/// Whether RubyGems says where it compiles a gem, and with which command.
fn is_place_of_gem(text: &str) -> bool {
    text.starts_with("current directory:")
        || text.contains(" -r ./siteconf")
        || text.starts_with('/') && text.contains("/gems/ruby/") && !text.contains(": ")
        || text.starts_with("*** extconf.rb failed ***")
}

/// Whether a line has a form in which tools give their errors.
fn has_form(text: &str) -> bool {
    const FORMS: [&str; 24] = [
        "error TS",
        "error[E",
        "fatal error:",
        ": error:",
        "error while loading shared libraries",
        "Cannot find module",
        "Cannot find package",
        "Module not found",
        "ModuleNotFoundError:",
        "ImportError:",
        "SyntaxError:",
        "TypeError:",
        "ReferenceError:",
        "RuntimeError:",
        "ERR_PNPM_",
        "ERR_MODULE_NOT_FOUND",
        "✘ [ERROR]",
        "heap out of memory",
        "No space left on device",
        "No such file or directory",
        "Permission denied",
        "command not found",
        ": not found",
        "[vite]: Rollup failed",
    ];
    FORMS.iter().any(|form| text.contains(form))
        || text.trim_start().starts_with("Error: ")
        || text.trim_start().starts_with("error: ")
        || text.trim_start().starts_with("fatal: ")
        || text.starts_with("npm error ")
        || text.starts_with("npm ERR! ")
        // Yarn's own codes: an `➤` at the beginning, and the letters of an error.
        || text.starts_with("➤ YN") && text.contains("✘")
}

fn speaks_of_error(text: &str) -> bool {
    ["Error", "error", "ERR!", "ERROR", "failed", "Failed", "panicked at"]
        .iter()
        .any(|word| text.contains(word))
        && !["0 errors", "no errors", "0 failed"].iter().any(|good| text.contains(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(hints: &[(&'static str, String)], output: &str) -> (Vec<String>, Option<String>) {
        let mut cause = Cause::new(hints);
        for line in output.lines() {
            cause.take(line.as_bytes());
        }
        cause.told()
    }

    #[test]
    fn the_line_that_tells_why_is_found_however_much_follows() {
        let rest = "npm error gyp ERR! stack     at ChildProcess.onExit\n".repeat(60);
        let output = format!(
            "npm error code 1\nnpm error path /app/node_modules/sqlite3\nnpm error gyp info it \
             worked\nnpm error gyp ERR! find Python\nnpm error gyp ERR! find Python You need to \
             install the latest version of Python.\n{rest}npm error A complete log of this run\n"
        );
        let hints =
            [("not found: make", "make!".to_owned()), ("find Python", "python!".to_owned())];
        let (lines, help) = told(&hints, &output);
        assert_eq!(lines[0], "npm error gyp ERR! find Python");
        assert!(lines.len() <= 1 + MORE, "{lines:?}");
        assert_eq!(help.as_deref(), Some("python!"));
    }

    #[test]
    fn errors_of_common_tools_are_known_by_their_form() {
        for (output, first) in [
            (
                "ok\nsrc/a.ts(3,1): error TS2304: Cannot find name 'x'.\nnpm error code 2\n",
                "src/a.ts",
            ),
            (
                "\u{1b}[31mx.c:1:10: fatal error: zlib.h: No such file\u{1b}[0m\nmake: *** failed\n",
                "x.c:1:10",
            ),
            ("12 warnings, 0 errors\nsh: 1: vite: not found\n ELIFECYCLE  failed\n", "sh: 1: vite"),
            ("some error happened\nError: Cannot find module 'x'\n", "Error: Cannot find"),
            (
                "Traceback\n  File x\nModuleNotFoundError: No module named 'y'\n",
                "ModuleNotFoundError",
            ),
        ] {
            let (lines, _) = told(&[], output);
            assert!(lines[0].starts_with(first), "{output}: {lines:?}");
        }
    }

    #[test]
    fn output_without_a_reason_is_told_by_its_last_lines() {
        let mut output: String = (0..50).map(|at| format!("line {at}\n")).collect();
        output.push_str(
            "last words\nnpm error Lifecycle script `build` failed with error:\nnpm error code 3\n",
        );
        let (lines, help) = told(&[], &output);
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (LAST, Some("last words")));
        assert_eq!(help, None);
    }

    #[test]
    fn what_a_python_program_raised_is_behind_its_places() {
        let hints = [("KeyError", "set it".to_owned()), ("", "look".to_owned())];
        let text = "Traceback (most recent call last):\n  File \"/app/a.py\", line 4, in <module>\n\
                    \u{20}   raise KeyError(x)\n    ~~~~^^\nKeyError: 'SECRET'\nError: bye\n";
        let (lines, help) = told(&hints, text);
        assert_eq!(
            (lines, help.as_deref()),
            (vec!["KeyError: 'SECRET'".to_owned()], Some("set it"))
        );
        assert_eq!(told(&hints, "nothing\n").1.as_deref(), Some("look"));

        let hints = [("Failed to build", "no wheel".to_owned())];
        let head = "  × Failed to build `a==1`\n  ├─▶ The build backend returned an error\n";
        let text = "      Traceback (most recent call last):\n        File \"<string>\", line 1\n\
                    \u{20}     ModuleNotFoundError: No module named 'pkg_resources'\n\nhint: x\n";
        let (lines, help) = told(&hints, &format!("{head}{text}"));
        let why = "ModuleNotFoundError: No module named 'pkg_resources'";
        assert_eq!(lines, ["Failed to build `a==1`", why]);
        assert_eq!(help.as_deref(), Some("no wheel"));
        let compiler = "  a.c:1:2: error: no member `x`\n".repeat(90);
        let (lines, _) = told(&hints, &format!("{head}{compiler}"));
        assert_eq!(lines, ["Failed to build `a==1`", "a.c:1:2: error: no member `x`"]);
    }

    #[test]
    fn the_script_itself_is_no_reason() {
        let hints = [("not found", "install it".to_owned())];
        let (lines, help) = told(&hints, "> echo not found; error\n\n$ fatal: not found\nbye\n");
        assert_eq!((lines, help), (vec!["bye".to_owned()], None));
    }

    #[test]
    fn a_long_line_is_cut() {
        let (lines, _) = told(&[], &format!("error: {}", "é".repeat(100_000)));
        assert!(lines[0].len() < MAX_LINE + 10);
    }
}
