//! What a buildpack prints, in Heroku's style, as events: `-----> Heading`, seven spaces before a line,
//! ` !     warning`.

use crate::Event;

/// Most lines of one warning.
const MAX_WARNING: usize = 40;
/// A warning that this many lines at most stand behind is the reason of a failure.
const NEAR: usize = 5;

/// Translates events of a script's output.
pub(super) struct Style<'a> {
    events: &'a mut dyn FnMut(Event),
    /// Lines of a warning that is not over yet.
    warning: Vec<String>,
    /// The last warning.
    last: Vec<String>,
    /// Lines behind it.
    behind: usize,
}

impl<'a> Style<'a> {
    pub(super) fn new(events: &'a mut dyn FnMut(Event)) -> Self {
        Self { events, warning: Vec::new(), last: Vec::new(), behind: 0 }
    }

    pub(super) fn take(&mut self, event: Event) {
        let Event::Line(line) = event else {
            self.end_warning();
            return (self.events)(event);
        };
        if let Some(text) = warning(&line) {
            if self.warning.len() == MAX_WARNING {
                self.end_warning();
            }
            self.warning.push(text);
            return;
        }
        self.end_warning();
        self.behind += 1;
        let heading = line.strip_prefix(b"-----> ").or_else(|| line.strip_prefix(b"=====> "));
        (self.events)(match heading {
            Some(heading) => Event::Heading(String::from_utf8_lossy(heading).into_owned()),
            None => Event::Line(match line.strip_prefix(b"       ") {
                Some(inner) => inner.to_vec(),
                None => line,
            }),
        });
    }

    fn end_warning(&mut self) {
        let mut lines = std::mem::take(&mut self.warning);
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let begin = lines.iter().take_while(|line| line.is_empty()).count();
        let lines = lines.split_off(begin);
        if lines.is_empty() {
            return;
        }
        (self.events)(Event::Warning(lines.join("\n")));
        (self.last, self.behind) = (lines, 0);
    }

    /// What the script said last as a warning, where little stands behind that.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.end_warning();
        if self.behind <= NEAR { self.last } else { Vec::new() }
    }
}

/// The text of a line of a warning.
fn warning(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b" !").or_else(|| line.strip_prefix(b"!"))?;
    let is_warning = rest.is_empty() || rest.starts_with(b"  ") || rest.starts_with(b"\t");
    let text = String::from_utf8_lossy(rest);
    let text = text.strip_prefix("     ").unwrap_or(&text);
    is_warning.then(|| text.trim_end().trim_start_matches('\t').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styled(lines: &[&str]) -> (Vec<Event>, Vec<String>) {
        let mut events = Vec::new();
        let mut take = |event| events.push(event);
        let mut style = Style::new(&mut take);
        lines.iter().for_each(|line| style.take(Event::line(*line)));
        let reason = style.finish();
        (events, reason)
    }

    #[test]
    fn headings_lines_and_warnings() {
        let lines = [
            "-----> Node",
            "       v22",
            "plain",
            "!important",
            " !     Old",
            " !",
            " !       npm i",
        ];
        let (events, reason) = styled(&lines);
        let heading = |text: &str| Event::Heading(text.to_owned());
        let warning = Event::Warning("Old\n\n  npm i".to_owned());
        let line = Event::line;
        assert_eq!(
            events,
            [heading("Node"), line("v22"), line("plain"), line("!important"), warning]
        );
        assert_eq!(reason, ["Old", "", "  npm i"]);
    }

    #[test]
    fn a_warning_long_before_the_end_is_no_reason() {
        let mut lines = vec![" !     Old"];
        lines.extend(["x"; NEAR + 1]);
        assert!(styled(&lines).1.is_empty());
        assert!(styled(&["", " !"]).1.is_empty());
    }
}
