//! What a shim writes to the log of its deploy.

use tolv_logs::framer::Batch;
use tolv_logs::store::{Tag, Writer};
use tolv_logs::{Micros, Source, Stream};

use crate::protocol::Written;

/// The shim's hand in the log of its deploy.
pub(super) struct Hand {
    pub(super) process: String,
    pub(super) release: u32,
    pub(super) writer: Writer,
}

impl Hand {
    pub(super) fn append(&mut self, stream: Stream, time: Micros, batch: Batch<'_>) {
        let (process, release) = (&self.process, Some(self.release));
        self.writer.append(Tag { source: Source::App, process, release }, stream, time, batch);
    }

    pub(super) fn end(&mut self) {
        let (process, release) = (&self.process, Some(self.release));
        let tag = Tag { source: Source::App, process, release };
        self.writer.end(tag, Micros::now());
    }

    pub(super) fn written(&self) -> Written {
        Written { written: self.writer.taken(), lost: self.writer.lost() }
    }
}
