//! Process streams as an event stream (factor XI): framing, store, views.
//!
//! ```text
//! pipe ─▶ Framer ─▶ store::Writer ─▶ segment files ─▶ store::Reader ─▶ Line ─▶ View
//!         (shim, one per process)    of the deploy     (platform, any tail, any drain)
//! ```
//!
//! The store stands between the processes and whoever reads: a writer never waits for a reader,
//! and what a slow reader misses is counted by the writers' numbers.
//!
//! # Invariants
//!
//! * Bytes stay bytes, from the pipe to the JSON view.
//! * One stream's unfinished line is never glued to another's, nor to the next start's.
//! * Delivered lines + counted drops = written lines.

#![warn(missing_docs)]

pub mod drain;
pub mod framer;
pub mod line;
mod stamp;
pub mod store;
pub mod view;

pub use line::{Line, Marks, Micros, Source, Stream};
pub use view::{Form, View};
