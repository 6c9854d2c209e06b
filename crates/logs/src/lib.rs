//! Process streams as an event stream (factor XI): framing, spool, views.
//!
//! ```text
//! pipe ─▶ Framer ─▶ spool::Writer ─▶ segment files ─▶ spool::Reader ─▶ Line ─▶ View
//!         (shim, one per process)                      (supervisor, any tail)
//! ```
//!
//! The spool is the buffer between a process and whoever reads it: a writer never waits for a
//! reader, and what a slow reader misses is counted by sequence numbers.
//!
//! # Invariants
//!
//! * Bytes stay bytes, from the pipe to the JSON view.
//! * One stream's unfinished line is never glued to another's, nor to the next start's.
//! * Delivered lines + counted drops = written lines.

#![warn(missing_docs)]

pub mod framer;
pub mod line;
pub mod spool;
pub mod view;

pub use line::{Line, Marks, Micros, Source, Stream};
pub use view::{Form, View};
