//! The text of a moment, quickly: it is made for every line.

use crate::line::Micros;

/// Writes moments as `2026-01-01T12:00:00.123456`.
#[derive(Debug)]
pub(crate) struct Stamp {
    /// The last second that was formatted, and its text without the fraction.
    second: (i64, String),
}

impl Stamp {
    pub(crate) fn new() -> Self {
        Self { second: (i64::MIN, String::new()) }
    }

    /// Appends the moment, without its zone.
    pub(crate) fn write(&mut self, time: Micros, out: &mut Vec<u8>) {
        let (second, micros) = (time.0.div_euclid(1_000_000), time.0.rem_euclid(1_000_000));
        if self.second.0 != second {
            let stamp = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            self.second = (second, stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        }
        out.extend(self.second.1.as_bytes());
        // By hand: formatting costs more than all the rest.
        let (mut digits, mut rest) = (*b".000000", micros);
        for place in digits[1..].iter_mut().rev() {
            *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        out.extend(digits);
    }
}
