//! For tests only: polling with a deadline, temp homes, free ports, and a running `tolv` to test.
//!
//! Nothing here knows Tolv's own types: a test that uses it looks at Tolv from the outside, as a
//! user does. Helpers panic with a text that says what was waited for or done; none returns an
//! error that a test would only unwrap.

#![warn(missing_docs)]

mod poll;

pub use poll::poll;
