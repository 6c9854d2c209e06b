//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use crate::histogram::Counted;

/// The media type of the metrics.
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as text, family by family.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// A label's name and value.
pub(super) type Label<'a> = (&'static str, &'a str);

impl Text {
    /// Begins a family: everything until the next has this name.
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
        Family { text: &mut self.0, name }
    }

    pub(super) fn done(self) -> String {
        self.0
    }
}

/// The samples of one name.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// One sample.
    pub(super) fn put(&mut self, labels: &[Label<'_>], value: impl Into<f64>) {
        self.sample("", labels, None, value.into());
    }

    /// One counter or size: whole, and as exact as the format can say it.
    pub(super) fn count(&mut self, labels: &[Label<'_>], value: u64) {
        let start = self.start("", labels, None);
        writeln!(self.text, "{start} {value}").ok();
    }

    /// The samples of one histogram.
    pub(super) fn histogram(&mut self, labels: &[Label<'_>], counted: &Counted) {
        for (edge, count) in &counted.up_to {
            let start = self.start("_bucket", labels, Some(&edge.to_string()));
            writeln!(self.text, "{start} {count}").ok();
        }
        let start = self.start("_bucket", labels, Some("+Inf"));
        writeln!(self.text, "{start} {}", counted.count).ok();
        self.sample("_sum", labels, None, counted.sum);
        let start = self.start("_count", labels, None);
        writeln!(self.text, "{start} {}", counted.count).ok();
    }

    fn sample(&mut self, end: &str, labels: &[Label<'_>], edge: Option<&str>, value: f64) {
        let start = self.start(end, labels, edge);
        writeln!(self.text, "{start} {value}").ok();
    }

    fn start(&self, end: &str, labels: &[Label<'_>], edge: Option<&str>) -> String {
        let all = labels.iter().copied().chain(edge.map(|edge| ("le", edge)));
        let pairs: Vec<_> =
            all.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        match pairs.is_empty() {
            true => format!("{}{end}", self.name),
            false => format!("{}{end}{{{}}}", self.name, pairs.join(",")),
        }
    }
}

/// `\`, `"` and line ends, as the format wants them.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_escapes() {
        let mut text = Text::default();
        let mut family = text.family("tolv_x_total", "counter", "How many.");
        family.count(&[], u64::MAX);
        family.count(&[("a", "b\\\"\nc"), ("d", "")], 1);
        text.family("tolv_y", "gauge", "How much.").put(&[], 0.5);
        let counted = Counted { up_to: vec![(0.005, 1), (1.0, 3)], count: 4, sum: 2.5 };
        text.family("tolv_z_seconds", "histogram", "How long.").histogram(&[("a", "b")], &counted);
        assert_eq!(
            text.done(),
            "# HELP tolv_x_total How many.\n# TYPE tolv_x_total counter\n\
             tolv_x_total 18446744073709551615\n\
             tolv_x_total{a=\"b\\\\\\\"\\nc\",d=\"\"} 1\n\
             # HELP tolv_y How much.\n# TYPE tolv_y gauge\ntolv_y 0.5\n\
             # HELP tolv_z_seconds How long.\n# TYPE tolv_z_seconds histogram\n\
             tolv_z_seconds_bucket{a=\"b\",le=\"0.005\"} 1\n\
             tolv_z_seconds_bucket{a=\"b\",le=\"1\"} 3\n\
             tolv_z_seconds_bucket{a=\"b\",le=\"+Inf\"} 4\n\
             tolv_z_seconds_sum{a=\"b\"} 2.5\ntolv_z_seconds_count{a=\"b\"} 4\n"
        );
    }
}
