//! git's answer to a push or a fetch, on its way to the client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::body::CHUNK;

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

/// git's output to the client; where that is gone, a push's goes nowhere. Of a push the flush that ends
/// the answer is kept in `last`, or as much of a packet as has come of it; `is_shallow` says whether git
/// refused a ref of it because the clone is shallow.
pub(super) async fn drain(
    stdout: &mut pipe::Receiver,
    chunks: &mpsc::Sender<Bytes>,
    is_push: bool,
    last: &mut Vec<u8>,
    is_shallow: &AtomicBool,
) {
    let mut chunk = vec![0; CHUNK];
    let mut is_gone = false;
    while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
        last.extend_from_slice(&chunk[..read]);
        let piece = last.drain(..if is_push { whole(last) } else { last.len() });
        let piece = Bytes::from_iter(piece);
        if is_push && piece.windows(SHALLOW.len()).any(|text| text == SHALLOW) {
            is_shallow.store(true, Ordering::Relaxed);
        }
        // A client that takes nothing is gone.
        is_gone = is_gone
            || !piece.is_empty() && !matches!(timeout(IDLE, chunks.send(piece)).await, Ok(Ok(())));
        if is_gone && !is_push {
            return;
        }
    }
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
}
