//! Bodies: a few bytes, or a file read piece by piece as the client takes it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

/// The body of an answer.
pub(crate) type Body = Either<Full<Bytes>, FileBody>;

/// Read at once; also what is small enough to be read while the file is looked up.
pub(crate) const PIECE: usize = 128 * 1024;

/// A range of a file. A file that became shorter meanwhile is an error, which cuts the answer
/// off: the length has been promised.
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(file: File, at: u64, length: u64) -> Self {
        Self { file: Arc::new(file), at, left: length, reading: None }
    }
}

/// Reads exactly this piece.
pub(crate) fn read(file: &File, at: u64, length: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; length];
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let reading = this.reading.get_or_insert_with(|| {
            let (file, at) = (Arc::clone(&this.file), this.at);
            let length = usize::try_from(this.left).unwrap_or(PIECE).min(PIECE);
            spawn_blocking(move || read(&file, at, length))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        let piece = read.map_err(io::Error::other).flatten();
        let Ok(bytes) = &piece else {
            this.left = 0;
            return Poll::Ready(Some(piece.map(Frame::data)));
        };
        this.at += bytes.len() as u64;
        this.left -= bytes.len() as u64;
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
