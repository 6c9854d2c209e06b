//! What is wrong in a file that a person wrote, and where.
//!
//! A parser collects every [`Problem`] of its file and hands them over at once, as a
//! [`SourceError`], or as a [`Warning`] where the file can be used all the same. Both carry the
//! text they speak of, so that `miette` draws the excerpt; their `Display` is one plain line per
//! problem, `Procfile:3:1: …`.
//!
//! # Invariants
//!
//! * What is drawn is never what a hostile file wants: control bytes, bidirectional overrides
//!   and bytes that are not UTF-8 are drawn as `?`, one for each byte, so spans keep their place.
//! * The text of an env file is masked before it gets here (see [`crate::dotenv`]): a value is
//!   never drawn.
//! * [`Problem::span`] counts bytes in the file as it is on disk, a byte order mark included;
//!   [`Problem::column`] counts characters from 1, the mark left out.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, MietteError, MietteSpanContents, Severity};

const MARK: &[u8] = "\u{feff}".as_bytes();
const LONGEST_QUOTE: usize = 60;
/// Most bytes of a file that a person writes. Every release carries what its files say.
pub const MAX_FILE: usize = 512 * 1024;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The bytes that are wrong.
    pub span: Range<usize>,
    /// What is wrong, in a lowercase sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Other places that have a part in it, each with a word on which.
    pub also: Vec<(Range<usize>, String)>,
}

impl Problem {
    fn labels(&self, source: &Source) -> Vec<LabeledSpan> {
        let label = |text: Option<String>, span: &Range<usize>| {
            let span = source.drawn_span(span);
            (text, span)
        };
        let (_, here) = label(None, &self.span);
        let here = LabeledSpan::new_primary_with_span(Some("here".to_owned()), here);
        let also = self.also.iter().map(|(span, text)| {
            let (text, span) = label(Some(text.clone()), span);
            LabeledSpan::new_with_span(text, span)
        });
        std::iter::once(here).chain(also).collect()
    }
}

/// The file that problems were found in, as it may be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    name: String,
    drawn: Arc<str>,
    mark: usize,
}

impl Source {
    fn drawn_span(&self, span: &Range<usize>) -> Range<usize> {
        let floor = |offset: usize| {
            let offset = offset.saturating_sub(self.mark).min(self.drawn.len());
            (0..=offset).rev().find(|&at| self.drawn.is_char_boundary(at)).unwrap_or(0)
        };
        floor(span.start)..floor(span.end.max(span.start))
    }
}

impl miette::SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, MietteError> {
        let text: &str = &self.drawn;
        let inner = miette::SourceCode::read_span(text, span, before, after)?;
        // miette counts columns in bytes.
        let column = if before == 0 {
            let head = text.get(..span.offset()).unwrap_or_default();
            head.chars().rev().take_while(|&letter| letter != '\n').count()
        } else {
            inner.column()
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            column,
            inner.line_count(),
        )))
    }
}

/// A file that cannot be used, with everything that is wrong in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    source: Source,
    problems: Vec<Drawn>,
}

/// A problem with what it needs to be drawn alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Drawn {
    problem: Problem,
    labels: Vec<LabeledSpan>,
}

impl SourceError {
    /// The problems, in the order of the file; at least one.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().map(|drawn| &drawn.problem)
    }

    /// The file's name, as shown.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The same with another name to show, such as the path the user gave.
    #[must_use]
    pub fn named(mut self, file: impl Into<String>) -> Self {
        self.source.name = file.into();
        self
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Problem { line, column, message, .. }) in self.problems().enumerate() {
            let newline = if place == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{line}:{column}: {message}", self.source.name)?;
        }
        Ok(())
    }
}

impl std::error::Error for SourceError {}

impl Diagnostic for SourceError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match &self.problems[..] {
            [only] => only.help(),
            _ => None,
        }
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match &self.problems[..] {
            [only] => only.labels(),
            _ => None,
        }
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match &self.problems[..] {
            [_] => None,
            many => Some(Box::new(many.iter().map(|drawn| drawn as &dyn Diagnostic))),
        }
    }
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Drawn {}

impl Diagnostic for Drawn {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let hint = self.problem.hint.as_ref()?;
        Some(Box::new(hint))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// Something in a usable file that does not do what its author thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    source: Source,
    drawn: Drawn,
}

impl Warning {
    /// What it is and where.
    pub fn problem(&self) -> &Problem {
        &self.drawn.problem
    }

    /// The same with another file name to show.
    #[must_use]
    pub fn named(mut self, file: impl Into<String>) -> Self {
        self.source.name = file.into();
        self
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { line, column, message, .. } = self.problem();
        write!(f, "{}:{line}:{column}: {message}", self.source.name)
    }
}

impl std::error::Error for Warning {}

impl Diagnostic for Warning {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Warning)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.drawn.help()
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.drawn.labels()
    }
}

/// The problems of one file while it is read.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    file: &'static str,
    /// No more than [`MAX_FILE`] of them.
    bytes: &'a [u8],
    size: usize,
    mark: usize,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// Starts on a file; a byte order mark is left out of [`Report::text`].
    pub(crate) fn new(file: &'static str, bytes: &'a [u8]) -> Self {
        let (mark, bytes) = match bytes.strip_prefix(MARK) {
            Some(rest) => (MARK.len(), rest),
            None => (0, bytes),
        };
        let size = bytes.len();
        let bytes = &bytes[..size.min(MAX_FILE)];
        Self { file, bytes, size, mark, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The file without its byte order mark. Spans handed to this type count from its start.
    pub(crate) fn text(&self) -> &'a [u8] {
        self.bytes
    }

    /// Adds an error; the result may be given a hint and further places. Past the most that a
    /// file reports, nothing is added.
    pub(crate) fn error(&mut self, span: Range<usize>, message: impl Into<String>) -> Noted<'_> {
        if self.errors.len() == MOST_PROBLEMS {
            return Noted { mark: self.mark, problem: None };
        }
        let problem = self.problem(span, message.into());
        self.errors.push(problem);
        Noted { mark: self.mark, problem: self.errors.last_mut() }
    }

    /// Adds a warning; as [`Report::error`].
    pub(crate) fn warn(&mut self, span: Range<usize>, message: impl Into<String>) -> Noted<'_> {
        if self.warnings.len() == MOST_PROBLEMS {
            return Noted { mark: self.mark, problem: None };
        }
        let problem = self.problem(span, message.into());
        self.warnings.push(problem);
        Noted { mark: self.mark, problem: self.warnings.last_mut() }
    }

    /// Line and column of an offset, both from 1.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let head = &self.bytes[..offset.min(self.bytes.len())];
        let line_start = head.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let line = 1 + head.iter().filter(|&&byte| byte == b'\n').count();
        (line, 1 + characters(&head[line_start..]))
    }

    /// Whether the whole file is here; otherwise the error that it is too large.
    pub(crate) fn is_whole(&mut self) -> bool {
        if self.size > MAX_FILE {
            let message = format!("the file has {} bytes, more than {MAX_FILE}", self.size);
            self.error(0..0, message).hint("move what is long into files of its own");
        }
        self.size <= MAX_FILE
    }

    /// The whole text if it is UTF-8; otherwise an error for each place where it is not.
    pub(crate) fn utf8(&mut self) -> Option<&'a str> {
        if !self.is_whole() {
            return None;
        }
        if is_utf16(self.bytes) {
            self.error(0..2, "the file is UTF-16").hint("save it as UTF-8");
            return None;
        }
        if let Ok(text) = std::str::from_utf8(self.bytes) {
            return Some(text);
        }
        let mut offset = 0;
        for chunk in self.bytes.utf8_chunks() {
            offset += chunk.valid().len();
            let invalid = chunk.invalid();
            if !invalid.is_empty() && self.errors.len() < MOST_PROBLEMS {
                let span = offset..offset + invalid.len();
                self.error(span, format!("byte {:#04x} is not UTF-8", invalid[0]))
                    .hint("save the file as UTF-8");
            }
            offset += invalid.len();
        }
        None
    }

    /// The end: the value if nothing is wrong, with the warnings, or everything that is wrong.
    pub(crate) fn finish<T>(self, value: T) -> Result<(T, Vec<Warning>), SourceError> {
        let drawn = drawable(self.bytes);
        self.finish_drawn(value, drawn)
    }

    /// As [`Report::finish`] with the text to draw given; it must be as long as the file's.
    pub(crate) fn finish_drawn<T>(
        mut self,
        value: T,
        drawn: String,
    ) -> Result<(T, Vec<Warning>), SourceError> {
        debug_assert_eq!(drawn.len(), self.bytes.len(), "spans must keep their place");
        let source = Source { name: self.file.to_owned(), drawn: drawn.into(), mark: self.mark };
        let draw = |problem: Problem| Drawn { labels: problem.labels(&source), problem };
        if self.errors.is_empty() {
            let warning = |problem| Warning { source: source.clone(), drawn: draw(problem) };
            self.warnings.sort_by_key(|problem| problem.span.start);
            return Ok((value, self.warnings.into_iter().map(warning).collect()));
        }
        self.errors.sort_by_key(|problem| problem.span.start);
        let problems = self.errors.into_iter().map(draw).collect();
        Err(SourceError { source, problems })
    }

    /// Whether an error was found.
    pub(crate) fn failed(&self) -> bool {
        !self.errors.is_empty()
    }

    fn problem(&self, span: Range<usize>, message: String) -> Problem {
        let (line, column) = self.place(span.start);
        let span = span.start + self.mark..span.end + self.mark;
        Problem { line, column, span, message, hint: None, also: Vec::new() }
    }
}

/// Most errors, and most warnings, that one file reports: a wrong file, such as a picture, is not
/// worth a book, and the place of each takes a pass over the file.
pub(crate) const MOST_PROBLEMS: usize = 20;

/// The problem just added, if it was, for a hint and further places.
#[derive(Debug)]
pub(crate) struct Noted<'a> {
    mark: usize,
    problem: Option<&'a mut Problem>,
}

impl Noted<'_> {
    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(problem) = &mut self.problem {
            problem.hint = Some(hint.into());
        }
        self
    }

    /// Another place that has a part in it.
    pub(crate) fn also(mut self, span: Range<usize>, text: &str) -> Self {
        let span = span.start + self.mark..span.end + self.mark;
        if let Some(problem) = &mut self.problem {
            problem.also.push((span, text.to_owned()));
        }
        self
    }
}

/// Whether a file that should be text is UTF-16: by its byte order mark, or because every second one
/// of its first bytes is zero, as in ASCII text.
pub fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, b, c, d, ..] => matches!((a, b, c, d), (0, 1.., 0, 1..) | (1.., 0, 1.., 0)),
        _ => false,
    }
}

/// Characters in bytes that may not be UTF-8; each wrong byte is one.
fn characters(bytes: &[u8]) -> usize {
    bytes.utf8_chunks().map(|chunk| chunk.valid().chars().count() + chunk.invalid().len()).sum()
}

/// The bytes as text that does no harm on a terminal, of the same length in bytes.
pub(crate) fn drawable(bytes: &[u8]) -> String {
    let mut drawn = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' | '\t' => drawn.push(letter),
                '\r' => drawn.push(' '),
                letter if is_hostile(letter) => {
                    drawn.extend(std::iter::repeat_n('?', letter.len_utf8()));
                }
                letter => drawn.push(letter),
            }
        }
        drawn.extend(std::iter::repeat_n('?', chunk.invalid().len()));
    }
    drawn
}

/// Control characters, and those that turn the order of a line around or cannot be seen.
pub fn is_hostile(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Text from a file inside a message: harmless, and not longer than 60 characters.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = drawable(text.as_bytes())
        .chars()
        .map(|letter| if letter == '\n' || letter == '\t' { ' ' } else { letter })
        .take(LONGEST_QUOTE)
        .collect();
    if text.chars().nth(LONGEST_QUOTE).is_some() {
        quoted.push('…');
    }
    quoted
}
