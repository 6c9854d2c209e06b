//! What commands print: tables, JSON, moments.

use std::io::IsTerminal as _;

use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Failure, harmless};

/// What a list says of an app or a deploy whose row is not the platform's.
pub(crate) const CHANGED_OUTSIDE: &str = "changed outside of the platform: tolv releases verify";

/// A value as JSON, with its line end.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Failure::new(error.to_string()))
}

/// Rows under heads, each column as wide as its widest cell; the last is not padded.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let rows: Vec<Vec<String>> = [heads]
        .into_iter()
        .chain(rows.iter().cloned())
        .map(|row| row.iter().map(|cell| harmless(cell).replace('\n', " ")).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            let pad = widths[column].saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How long ago on a terminal, RFC 3339 elsewhere.
pub(crate) fn moment(at: Timestamp) -> String {
    match std::io::stdout().is_terminal() {
        true => ago(Timestamp::now().as_second().saturating_sub(at.as_second())),
        false => at.to_string(),
    }
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..=1 => "now".to_owned(),
        2..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// The first digits of a commit.
pub(crate) fn short(commit: Option<&str>) -> String {
    commit.map_or_else(|| "-".to_owned(), |commit| commit.chars().take(10).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_are_harmless() {
        let rows =
            [vec!["a".to_owned(), "x\x1b[31m".to_owned()], vec!["long".into(), String::new()]];
        assert_eq!(table(&["A", "B"], &rows), "A     B\na     x[31m\nlong\n");
    }

    #[test]
    fn moments_are_near_or_far() {
        let texts = [0, 60, 3600, 90_000, 900_000].map(ago);
        assert_eq!(texts, ["now", "60 s ago", "60 min ago", "25 h ago", "10 days ago"]);
    }
}
