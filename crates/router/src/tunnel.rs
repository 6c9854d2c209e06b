//! After `101 Switching Protocols`: bytes both ways until either side has had enough.

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::patience::{Download, Upload};
use crate::pump::{Progress, Way, fill_from};

/// Copies one way until the sender closes, then tells the receiver. `read` holds what the sender
/// sent early. An error is an end like any other: no tunnel says which.
pub(crate) async fn copy(
    way: Way,
    from: &mut ReadHalf<'_>,
    read: &mut BytesMut,
    to: &mut WriteHalf<'_>,
    progress: &Progress,
) {
    loop {
        waits(way, progress, false);
        while read.has_remaining() {
            match to.write(read).await {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    read.advance(count);
                    progress.touch();
                    if way == Way::Down {
                        progress.add_bytes(count);
                    }
                }
            }
        }
        waits(way, progress, true);
        match fill_from(from, read).await {
            Ok(0) | Err(_) => break,
            Ok(_) => progress.touch(),
        }
    }
    // The other direction may go on; it ends when its own sender does.
    drop(to.shutdown().await);
}

fn waits(way: Way, progress: &Progress, for_sender: bool) {
    match (way, for_sender) {
        (Way::Up, true) => progress.set_upload(Upload::Reading),
        (Way::Up, false) => progress.set_upload(Upload::Writing),
        (Way::Down, true) => progress.set_download(Download::Reading),
        (Way::Down, false) => progress.set_download(Download::Writing),
    }
}
