//! When an exchange has taken too long, and whose fault it is. Pure: moments come in.

use std::time::Duration;

use crate::access::Code;
use crate::settings::TimeOuts;

/// Where the request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// The router waits for the client.
    Reading,
    /// The router waits for the process to take what it has.
    Writing,
    /// All of it was sent, or the process takes no more.
    Over,
}

/// Where the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Download {
    /// No byte of its head has come.
    Awaited,
    /// The router waits for the process.
    Reading,
    /// The router waits for the client to take what it has.
    Writing,
}

/// Why an exchange that has been silent for long enough fails, and how long is long enough.
pub(crate) fn verdict(upload: Upload, download: Download, limits: &TimeOuts) -> (Duration, Code) {
    match (download, upload) {
        (Download::Awaited, Upload::Reading) => (limits.idle, Code::H28),
        (Download::Awaited, Upload::Writing | Upload::Over) => (limits.first_byte, Code::H12),
        (Download::Reading, _) => (limits.idle, Code::H15),
        (Download::Writing, _) => (limits.idle, Code::H28),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_waited_for_is_at_fault() {
        let limits = TimeOuts::default();
        let (thirty, fifty_five) = (Duration::from_secs(30), Duration::from_secs(55));
        for (download, upload, wanted) in [
            (Download::Awaited, Upload::Reading, (fifty_five, Code::H28)),
            (Download::Awaited, Upload::Writing, (thirty, Code::H12)),
            (Download::Awaited, Upload::Over, (thirty, Code::H12)),
            (Download::Reading, Upload::Reading, (fifty_five, Code::H15)),
            (Download::Reading, Upload::Over, (fifty_five, Code::H15)),
            (Download::Writing, Upload::Over, (fifty_five, Code::H28)),
        ] {
            assert_eq!(verdict(upload, download, &limits), wanted, "{download:?} {upload:?}");
        }
    }
}
