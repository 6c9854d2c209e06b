//! After `101 Switching Protocols`: bytes both ways until either side has had enough.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::patience::{Download, Upload};
use crate::pump::{Direction, Progress, fill_from};

/// Copies one way until the sender closes, then tells the receiver. `read` holds what the sender
/// sent early. Fails when either connection breaks.
pub(crate) async fn copy(
    direction: Direction,
    from: &mut ReadHalf<'_>,
    read: &mut BytesMut,
    to: &mut WriteHalf<'_>,
    progress: &Progress,
) -> io::Result<()> {
    loop {
        waits(direction, progress, false);
        while read.has_remaining() {
            let count = to.write(read).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            read.advance(count);
            progress.touch();
            if direction == Direction::Down {
                progress.add_bytes(count);
            }
        }
        waits(direction, progress, true);
        if fill_from(from, read).await? == 0 {
            break;
        }
        progress.touch();
    }
    // The other direction may go on; it ends when its own sender does.
    to.shutdown().await
}

fn waits(direction: Direction, progress: &Progress, for_sender: bool) {
    match (direction, for_sender) {
        (Direction::Up, true) => progress.set_upload(Upload::Reading),
        (Direction::Up, false) => progress.set_upload(Upload::Writing),
        (Direction::Down, true) => progress.set_download(Download::Reading),
        (Direction::Down, false) => progress.set_download(Download::Writing),
    }
}
