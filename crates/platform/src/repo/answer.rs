//! git's answer to a push or a fetch, on its way to the client.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tolv_model::source::is_hostile;

use super::body::CHUNK;

/// Most bytes of what git says about an error.
const MAX_SAID: usize = 2048;
/// How long a client may take to read the next piece of its answer.
const IDLE: Duration = Duration::from_secs(30);

/// Puts a line for whoever pushes (band 2 of the side band, which every git asks for) before the
/// flush that ends git's answer.
pub(super) fn remark(last: &[u8], text: &str) -> Vec<u8> {
    let body = last.strip_suffix(b"0000").unwrap_or(last);
    let line = format!("\u{2}error: {text}\n");
    [body, format!("{:04x}{line}", line.len() + 4).as_bytes(), b"0000"].concat()
}

/// How many of these bytes are whole packets of git's (gitprotocol-common), the flush that ends an
/// answer left out. What is no packet is as whole as anything.
pub(super) fn whole(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(length) = bytes.get(end..end + 4) {
        let length =
            std::str::from_utf8(length).ok().and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let Some(length) = length else { return bytes.len() };
        let next = end + usize::from(length).max(4);
        if next > bytes.len() || (next == bytes.len() && length == 0) {
            break;
        }
        end = next;
    }
    end
}

/// Why git refuses a ref whose history a shallow clone has not in full, as in its report.
const SHALLOW: &[u8] = b"shallow update not allowed";
/// What to do about that.
pub(super) const SHALLOW_HINT: &str = "this clone is shallow: run `git fetch --unshallow` in it and \
     push again (in CI, check out the whole history: `fetch-depth: 0`)";

/// Most bytes of a fetch that are held back behind what may be git's last word.
const MAX_HELD: usize = 256 * 1024;
/// The band of an answer that ends it with an error; the others have data and remarks.
const ERROR_BAND: u8 = 3;

/// Where an answer to a fetch has come to.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// What of it is not sent yet: the beginning of a packet, the last flush, an error.
    pub(super) last: Vec<u8>,
    /// The packets are those of a side band.
    is_banded: bool,
    /// It has ended with an error of git's.
    has_error: bool,
    /// What comes is no packets.
    is_raw: bool,
    /// Nobody takes it.
    pub(super) is_gone: bool,
}

impl Fetched {
    /// How many of the bytes in `last` can be sent.
    fn ready(&mut self) -> usize {
        let whole = whole(&self.last);
        let mut at = 0;
        while at < whole {
            let head = self.last.get(at..at + 4).and_then(|head| std::str::from_utf8(head).ok());
            let Some(length) = head.and_then(|head| usize::from_str_radix(head, 16).ok()) else {
                self.is_raw = true;
                return whole;
            };
            let end = at + length.max(4);
            let body = self.last.get(at + 4..end).unwrap_or_default();
            match body.first() {
                Some(&ERROR_BAND) if self.is_banded && self.last.len() - at <= MAX_HELD => {
                    return at;
                }
                Some(1 | 2) => self.is_banded = true,
                _ if body == b"packfile\n" => self.is_banded = true,
                _ if body.starts_with(b"ERR ") => self.has_error = true,
                _ => {}
            }
            at = end;
        }
        whole
    }

    /// What is left to be sent, where git has ended because of `why`.
    pub(super) fn end_with(self, why: &str) -> Vec<u8> {
        if self.is_raw || self.has_error {
            return self.last;
        }
        let text = match self.is_banded {
            true => format!("\u{3}{why}\n"),
            false => format!("ERR {why}\n"),
        };
        format!("{:04x}{text}", text.len() + 4).into_bytes()
    }
}

/// git's output to a fetch's client, as long as that takes it.
pub(super) async fn drain_fetch(
    stdout: &mut pipe::Receiver,
    chunks: &mpsc::Sender<Bytes>,
    fetched: &mut Fetched,
) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
        fetched.last.extend_from_slice(&chunk[..read]);
        let ready = fetched.ready();
        let piece = Bytes::from_iter(fetched.last.drain(..ready));
        // A client that takes nothing is gone.
        if !piece.is_empty() && !matches!(timeout(IDLE, chunks.send(piece)).await, Ok(Ok(()))) {
            fetched.is_gone = true;
            return;
        }
    }
}

/// git's output to whoever pushes; where that is gone, it goes nowhere. The flush that ends the answer
/// is kept in `last`, or as much of a packet as has come of it; `is_shallow` says whether git refused a
/// ref of it because the clone is shallow.
pub(super) async fn drain_push(
    stdout: &mut pipe::Receiver,
    chunks: &mpsc::Sender<Bytes>,
    last: &mut Vec<u8>,
    is_shallow: &AtomicBool,
) {
    let mut chunk = vec![0; CHUNK];
    let mut is_gone = false;
    while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
        last.extend_from_slice(&chunk[..read]);
        let piece = last.drain(..whole(last));
        let piece = Bytes::from_iter(piece);
        if piece.windows(SHALLOW.len()).any(|text| text == SHALLOW) {
            is_shallow.store(true, Ordering::Relaxed);
        }
        // A client that takes nothing is gone.
        is_gone = is_gone
            || !piece.is_empty() && !matches!(timeout(IDLE, chunks.send(piece)).await, Ok(Ok(())));
    }
}

/// What git says about an error, as far as it is short.
pub(super) async fn hear(stderr: OwnedFd) -> String {
    let mut said = Vec::new();
    if let Ok(mut stderr) = pipe::Receiver::from_owned_fd(stderr) {
        let mut chunk = [0; 1024];
        while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
            let room = MAX_SAID.saturating_sub(said.len());
            said.extend_from_slice(&chunk[..read.min(room)]);
        }
    }
    let said = String::from_utf8_lossy(&said).trim().replace(is_hostile, " ");
    said.trim_start_matches("fatal: ").to_owned()
}

/// Reads the rest of git's output and drops it.
pub(super) async fn discard_output(stdout: &mut pipe::Receiver) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(1..) = stdout.read(&mut chunk).await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_handed_on_in_whole_packets() {
        for (bytes, end) in [
            (&b""[..], 0),
            (b"00", 0),
            (b"0000", 0),
            (b"0006ab", 6),
            (b"0006ab0000", 6),
            (b"0006ab00000006cd", 16),
            (b"0006ab0007", 6),
            (b"0006a", 0),
            (b"fatal: no", 9),
        ] {
            assert_eq!(whole(bytes), end, "{bytes:?}");
        }
    }

    #[test]
    fn a_remark_comes_before_the_end() {
        assert_eq!(remark(b"0000", "x"), b"000e\x02error: x\n0000");
        assert_eq!(remark(b"", "x"), b"000e\x02error: x\n0000");
    }

    #[test]
    fn a_fetch_that_fails_ends_with_why() {
        let ended = |sent: &[u8]| {
            let mut fetched = Fetched { last: sent.to_vec(), ..Fetched::default() };
            let ready = fetched.ready();
            fetched.last.drain(..ready);
            (ready, String::from_utf8(fetched.end_with("why")).unwrap())
        };
        let plain = "000cERR why\n".to_owned();
        let banded = "0009\u{3}why\n".to_owned();
        assert_eq!(ended(b""), (0, plain.clone()));
        assert_eq!(ended(b"0008NAK\n00"), (8, plain));
        assert_eq!(ended(b"000dpackfile\n0006"), (13, banded.clone()));
        assert_eq!(ended(b"0006\x01x0009\x03gone"), (6, banded));
        assert_eq!(ended(b"000cERR git\n0000"), (12, "0000".to_owned()));
        assert_eq!(ended(b"PACK...."), (8, String::new()));
    }
}
