//! Where text leaves the program: errors to stderr, results to stdout, events line by line.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tolv_build::Event;
use tolv_model::source::SourceError;
use tolv_platform::Bar;

/// Status of a program whose output nobody reads any more: 128 + SIGPIPE.
pub(crate) const UNREAD: u8 = 141;

/// Prints an error with its causes and, where known, what to do; returns exit status 1.
pub(crate) fn fail(error: &(dyn Error + 'static), hint: Option<&str>) -> ExitCode {
    error_text(error, hint);
    ExitCode::FAILURE
}

/// Prints an error with its causes and, where known, what to do.
pub(crate) fn error_text(error: &(dyn Error + 'static), hint: Option<&str>) {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(diagnostic) = diagnostic(cause) {
            text.push_str(&excerpt(diagnostic));
        } else if !said.ends_with(&cause.to_string()) {
            text.push_str(&format_args!("  cause: {cause}\n").to_string());
        }
        said = cause.to_string();
        source = cause.source();
    }
    if let Some(hint) = hint {
        text.push_str(&format_args!("  hint: {hint}\n").to_string());
    }
    io::stderr().write_all(text.as_bytes()).ok();
}

/// Prints what a person is to know beside the result, to standard error.
pub(crate) fn note(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok();
}

/// The cause as an error with a place in a file, boxed or not.
fn diagnostic<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a SourceError> {
    cause
        .downcast_ref::<SourceError>()
        .or_else(|| cause.downcast_ref::<Box<SourceError>>().map(AsRef::as_ref))
}

/// A source error drawn as an excerpt of its file.
fn excerpt(error: &SourceError) -> String {
    let handler = miette::GraphicalReportHandler::new_themed(if io::stderr().is_terminal() {
        miette::GraphicalTheme::unicode()
    } else {
        miette::GraphicalTheme::unicode_nocolor()
    });
    let mut text = String::new();
    match handler.render_report(&mut text, error) {
        Ok(()) => text,
        Err(_) => format!("  cause: {error}\n"),
    }
}

/// Prints an error and, where known, what to do; returns exit status 1.
pub(crate) fn fail_text(text: &str, hint: Option<&str>) -> ExitCode {
    let hint = hint.map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
    io::stderr().write_all(format!("error: {text}\n{hint}").as_bytes()).ok();
    ExitCode::FAILURE
}

/// Writes a result to standard output.
pub(crate) fn print(text: &str) -> ExitCode {
    print_bytes(text.as_bytes())
}

/// Writes a result to standard output, whatever its bytes are.
pub(crate) fn print_bytes(bytes: &[u8]) -> ExitCode {
    match write(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(UNREAD),
        Err(error) => fail_text(&format!("standard output: {error}"), None),
    }
}

/// Writes a part of a result to standard output.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// Shows a build: `-----> Heading`, seven spaces before each line, a bar on a terminal.
pub(crate) struct BuildView {
    bar: Option<ProgressBar>,
}

impl BuildView {
    /// A view; its bar is drawn on stderr, when that is a terminal.
    pub(crate) fn new() -> Self {
        Self { bar: None }
    }

    /// One event as text with its line end; nothing for what only moves the bar.
    pub(crate) fn show(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        if let Event::Progress { done, total, what } = event {
            self.bar(&Bar { done: *done, total: *total, what: what.clone() });
            return Ok(());
        }
        self.clear();
        for line in event.text().split(|&byte| byte == b'\n') {
            out.write_all(&[&harmless(line)[..], b"\n"].concat())?;
        }
        Ok(())
    }

    /// Before a line is written where the bar is.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Moves the bar.
    pub(crate) fn bar(&mut self, Bar { done, total, what }: &Bar) {
        let (done, total) = (*done, *total);
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("       {spinner} {wide_msg} {bar:24} {pos}/{len}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(what.clone());
        if total > 0 && done >= total {
            bar.finish_and_clear();
            self.bar = None;
        }
    }
}

/// The bytes without those that move a cursor or start an escape sequence; tabs stay.
pub(crate) fn harmless(line: &[u8]) -> Vec<u8> {
    line.iter().copied().filter(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)).collect()
}
