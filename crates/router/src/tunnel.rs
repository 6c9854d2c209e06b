//! After `101 Switching Protocols`: bytes both ways until either side has had enough, or, where
//! they are a WebSocket's frames, until the router closes it.
//!
//! ```text
//!  copy ── asked to close, between two frames ──▶ close frame ──▶ discard until the sender closes
//!    │                                                               │ and its receiver has, too
//!    └── the sender ends ──▶ shut down                               └──▶ shut down
//! ```
//!
//! Each direction closes by itself. Bytes that are not frames make the tunnel a plain one, into which
//! the router puts nothing.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::patience::{Download, Upload};
use crate::pump::{Direction, Progress, fill_from};
use crate::websocket::{Frames, close_frame};

/// For the closing handshake of a WebSocket that the router closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// For the process to close its side, once the client has closed its own.
const PROCESS_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The closing of one WebSocket, as its two directions share it.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    asked: CancellationToken,
    /// The code of the close frames.
    code: AtomicU16,
    /// A close frame of the router's is on its way.
    is_sent: AtomicBool,
    /// The bytes of a direction are not frames.
    is_plain: AtomicBool,
    /// The client, and the process, has sent its last frame.
    client_ended: CancellationToken,
    process_ended: CancellationToken,
}

impl Closing {
    /// Closes the WebSocket with `code` as soon as a frame ends, and resolves when there has been
    /// time enough: with whether the client took part in the handshake. Not where the tunnel is
    /// a plain one.
    pub(crate) async fn close(&self, code: u16) -> bool {
        self.code.store(code, Ordering::Relaxed);
        self.asked.cancel();
        let process_ends = async {
            self.client_ended.cancelled().await;
            sleep(PROCESS_CLOSE_TIMEOUT).await;
        };
        let in_time = tokio::time::timeout(CLOSE_TIMEOUT, process_ends).await.is_ok();
        if self.is_plain() && !self.is_sent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        in_time
    }

    fn is_plain(&self) -> bool {
        self.is_plain.load(Ordering::Relaxed)
    }

    fn is_asked(&self) -> bool {
        self.asked.is_cancelled() && !self.is_plain()
    }

    /// Cancelled when the sender of `direction` has sent its last frame.
    fn ended(&self, direction: Direction) -> &CancellationToken {
        match direction {
            Direction::Up => &self.client_ended,
            Direction::Down => &self.process_ended,
        }
    }
}

/// One direction of a tunnel.
pub(crate) struct Flow<'a, 's> {
    pub(crate) direction: Direction,
    pub(crate) from: &'a mut ReadHalf<'s>,
    /// What the sender sent early.
    pub(crate) read: &'a mut BytesMut,
    pub(crate) to: &'a mut WriteHalf<'s>,
    pub(crate) progress: &'a Progress,
    /// Where the two speak WebSocket.
    pub(crate) closing: Option<&'a Closing>,
}

impl Flow<'_, '_> {
    /// Copies until the sender closes, then tells the receiver. Fails when either connection breaks.
    pub(crate) async fn copy(self) -> io::Result<()> {
        let mut frames = Frames::new(self.direction);
        loop {
            self.waits(false);
            while self.read.has_remaining() {
                let mut most = self.read.len();
                if let Some(closing) = self.closing.filter(|closing| closing.is_asked()) {
                    if frames.is_between() {
                        return self.close(closing, frames).await;
                    }
                    match frames.rest_of_frame(self.read) {
                        Ok(rest) => most = rest,
                        Err(_) => closing.is_plain.store(true, Ordering::Relaxed),
                    }
                }
                let count = self.to.write(&self.read[..most]).await?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                if let Some(closing) = self.closing
                    && !closing.is_plain()
                    && frames.follow(&self.read[..count]).is_err()
                {
                    closing.is_plain.store(true, Ordering::Relaxed);
                }
                self.read.advance(count);
                self.moved(count);
            }
            self.waits(true);
            let Some(closing) = self.closing.filter(|closing| !closing.is_plain()) else {
                if fill_from(self.from, self.read).await? == 0 {
                    break;
                }
                self.progress.touch();
                continue;
            };
            let filled = tokio::select! {
                biased;
                filled = fill_from(self.from, self.read) => filled?,
                () = closing.asked.cancelled(), if frames.is_between() => {
                    // The other direction may have turned out not to be frames meanwhile.
                    match closing.is_plain() {
                        true => continue,
                        false => return self.close(closing, frames).await,
                    }
                }
            };
            if filled == 0 {
                // It ended at the very moment.
                if closing.is_asked() && frames.is_between() {
                    return self.close(closing, frames).await;
                }
                break;
            }
            self.progress.touch();
        }
        if let Some(closing) = self.closing {
            closing.ended(self.direction).cancel();
        }
        // The other direction may go on; it ends when its own sender does.
        self.to.shutdown().await
    }

    /// Sends a close frame between two frames, unless the sender has sent one itself, and drops what
    /// the sender sends up to its own. A connection that breaks is an end like any other.
    async fn close(self, closing: &Closing, mut frames: Frames) -> io::Result<()> {
        let Self { direction, from, read, to, progress, .. } = self;
        if !frames.has_close() {
            let frame = close_frame(direction, closing.code.load(Ordering::Relaxed));
            closing.is_sent.store(true, Ordering::Relaxed);
            if to.write_all(&frame).await.is_ok() && direction == Direction::Down {
                progress.add_bytes(frame.len());
            }
            progress.touch();
        }
        let sender_ends = async {
            while !frames.has_close() && frames.follow(read).is_ok() {
                read.clear();
                if frames.has_close() || !fill_from(from, read).await.is_ok_and(|count| count > 0) {
                    break;
                }
            }
            closing.ended(direction).cancel();
        };
        let receiver = closing.ended(match direction {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        });
        let receiver_ends = async {
            receiver.cancelled().await;
            to.shutdown().await.ok();
        };
        tokio::join!(sender_ends, receiver_ends);
        Ok(())
    }

    fn moved(&self, count: usize) {
        self.progress.touch();
        if self.direction == Direction::Down {
            self.progress.add_bytes(count);
        }
    }

    fn waits(&self, for_sender: bool) {
        match (self.direction, for_sender) {
            (Direction::Up, true) => self.progress.set_upload(Upload::Reading),
            (Direction::Up, false) => self.progress.set_upload(Upload::Writing),
            (Direction::Down, true) => self.progress.set_download(Download::Reading),
            (Direction::Down, false) => self.progress.set_download(Download::Writing),
        }
    }
}
