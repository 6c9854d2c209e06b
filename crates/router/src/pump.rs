//! Moving a body from one connection to the other, and who is waited for meanwhile.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::access::Code;
use crate::body::{Decoder, Encoder, Piece};
use crate::head::Bad;
use crate::patience::{Download, Upload, verdict};
use crate::settings::TimeOuts;

/// How much is read at once, and how much is written at once.
const READ: usize = 16 * 1024;
const WRITE: usize = 64 * 1024;

/// What the two directions of one exchange tell each other, and the access line.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    /// Milliseconds after `began` of the last byte in either direction.
    last: AtomicU64,
    upload: AtomicU8,
    download: AtomicU8,
    /// All of the request is with the process.
    sent: AtomicBool,
    /// The process was passed over before it answered.
    recovered: AtomicBool,
    /// The status sent to the client; 0 before.
    status: AtomicU16,
    /// Body bytes sent to the client.
    bytes: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            upload: AtomicU8::new(0),
            download: AtomicU8::new(0),
            sent: AtomicBool::new(false),
            recovered: AtomicBool::new(false),
            status: AtomicU16::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// A byte moved.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Nothing is sent and nothing has come: a request goes out, again or for the first time.
    pub(crate) fn restart(&self) {
        self.set_upload(Upload::Reading);
        self.set_download(Download::Awaited);
        self.sent.store(false, Ordering::Relaxed);
        self.touch();
    }

    /// All of the request is with the process.
    pub(crate) fn set_sent(&self) {
        self.set_upload(Upload::Over);
        self.sent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_recovered(&self) -> bool {
        self.recovered.load(Ordering::Relaxed)
    }

    pub(crate) fn set_upload(&self, upload: Upload) {
        self.upload.store(upload as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_download(&self, download: Download) {
        self.download.store(download as u8, Ordering::Relaxed);
    }

    pub(crate) fn upload(&self) -> Upload {
        match self.upload.load(Ordering::Relaxed) {
            0 => Upload::Reading,
            1 => Upload::Writing,
            _ => Upload::Over,
        }
    }

    fn download(&self) -> Download {
        match self.download.load(Ordering::Relaxed) {
            0 => Download::Awaited,
            1 => Download::Reading,
            _ => Download::Writing,
        }
    }

    pub(crate) fn set_status(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> Option<u16> {
        Some(self.status.load(Ordering::Relaxed)).filter(|status| *status > 0)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Resolves when the exchange has been silent for too long.
    pub(crate) async fn silence(&self, limits: &TimeOuts) -> Code {
        loop {
            let (limit, code) = verdict(self.upload(), self.download(), limits);
            let last = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed));
            let now = Instant::now();
            if now >= last + limit {
                return code;
            }
            // Whom the exchange waits for may change meanwhile: look again after the shortest.
            let next = limit.min(limits.first_byte).min(limits.idle);
            tokio::time::sleep_until((last + limit).min(now + next)).await;
        }
    }
}

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// Why a body did not arrive whole.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The sender's framing is wrong.
    Bad(Bad),
    /// The sender closed, or its connection broke.
    Sender,
    /// The receiver's connection broke.
    Receiver,
}

/// Bytes on their way to one side.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    /// How many of them are body, at the end of what was appended last.
    body: usize,
}

/// One body from here to there.
pub(crate) struct Pump<'a> {
    pub(crate) direction: Direction,
    pub(crate) decoder: Decoder,
    pub(crate) encoder: Encoder,
    pub(crate) progress: &'a Progress,
}

impl Pump<'_> {
    /// Writes `out`, then the body that begins in `read`, until it is over.
    pub(crate) async fn run(
        &mut self,
        from: &mut ReadHalf<'_>,
        read: &mut BytesMut,
        to: &mut WriteHalf<'_>,
        out: &mut Outgoing,
    ) -> Result<(), Broken> {
        loop {
            let over = self.fill(read, out);
            self.flush(to, out).await?;
            match over {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // What came before the fault has been passed on.
                Err(bad) => return Err(Broken::Bad(bad)),
            }
            self.waits_for_sender();
            match fill_from(from, read).await {
                Ok(0) if self.decoder.ends_at_close() => {
                    self.encoder.end(&crate::head::Fields::default(), &mut out.bytes);
                    return self.flush(to, out).await;
                }
                Ok(0) | Err(_) => return Err(Broken::Sender),
                Ok(_) => self.progress.touch(),
            }
        }
    }

    /// Encodes what `read` holds, up to one write's worth; whether the body is over.
    fn fill(&mut self, read: &mut BytesMut, out: &mut Outgoing) -> Result<bool, Bad> {
        loop {
            match self.decoder.next(read)? {
                Piece::Data(data) => {
                    self.encoder.data(&data, &mut out.bytes);
                    if self.encoder != Encoder::Nothing {
                        out.body += data.len();
                    }
                }
                Piece::End(trailers) => {
                    self.encoder.end(&trailers, &mut out.bytes);
                    return Ok(true);
                }
                Piece::More => return Ok(false),
            }
        }
    }

    async fn flush(&self, to: &mut WriteHalf<'_>, out: &mut Outgoing) -> Result<(), Broken> {
        self.waits_for_receiver();
        let counted = self.progress.bytes();
        let around = out.bytes.len().saturating_sub(out.body);
        let mut written = 0;
        while written < out.bytes.len() {
            let end = out.bytes.len().min(written + WRITE);
            match to.write(&out.bytes[written..end]).await {
                Ok(0) | Err(_) => return Err(Broken::Receiver),
                Ok(count) => written += count,
            }
            self.progress.touch();
            if self.direction == Direction::Down {
                let body = written.saturating_sub(around) as u64;
                self.progress.bytes.store(counted + body, Ordering::Relaxed);
            }
        }
        out.bytes.clear();
        out.body = 0;
        out.bytes.shrink_to(WRITE);
        Ok(())
    }

    fn waits_for_sender(&self) {
        match self.direction {
            Direction::Up => self.progress.set_upload(Upload::Reading),
            Direction::Down => self.progress.set_download(Download::Reading),
        }
    }

    fn waits_for_receiver(&self) {
        match self.direction {
            Direction::Up => self.progress.set_upload(Upload::Writing),
            Direction::Down => self.progress.set_download(Download::Writing),
        }
    }
}

/// Reads what there is into `read`, which takes no memory before there is something.
pub(crate) async fn fill_from(from: &mut ReadHalf<'_>, read: &mut BytesMut) -> io::Result<usize> {
    if read.is_empty() && read.capacity() == 0 {
        from.readable().await?;
    }
    read.reserve(READ);
    from.read_buf(read).await
}
