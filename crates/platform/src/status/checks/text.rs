//! Numbers as people read them.

use std::time::Duration;

use super::super::Unknown;
use super::super::probe::LOOK_TIMEOUT;
use super::Health;

pub(super) fn why(unknown: &Unknown) -> String {
    match unknown {
        Unknown::Silent(silent) => format!("has not answered {}", silence(*silent)),
        Unknown::Failed(error) => format!("does not answer: {error}"),
    }
}

/// Whoever asks first knows only that the time for an answer is over; how long the silence is, those
/// know who ask later.
fn silence(since: Duration) -> String {
    match since < 2 * LOOK_TIMEOUT {
        true => format!("within {}", milliseconds(LOOK_TIMEOUT)),
        false => format!("for {}", duration(since)),
    }
}

/// Of what is read from `/proc`.
pub(super) fn not_known(unknown: &Unknown) -> (Health, String) {
    match unknown {
        Unknown::Silent(silent) => {
            (Health::Warn, format!("not known: no answer {}", silence(*silent)))
        }
        Unknown::Failed(error) => (Health::Warn, format!("not known: {error}")),
    }
}

/// `1 shim`, `2 shims`, `2 processes`.
pub(super) fn count(number: u64, what: &str) -> String {
    let end = match number {
        1 => "",
        _ if what.ends_with(['s', 'h', 'x']) => "es",
        _ => "s",
    };
    format!("{number} {what}{end}")
}

/// Three digits or so: `812M`, `11.6G`.
pub(super) fn bytes(number: u64) -> String {
    match number >> 20 {
        mib @ ..10_240 => format!("{mib}M"),
        mib => format!("{}.{}G", mib >> 10, ((mib & 1023) * 10) >> 10),
    }
}

pub(super) fn milliseconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 2.0 => format!("{:.0} ms", seconds * 1e3),
        _ => self::duration(duration),
    }
}

pub(super) fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
