//! For tests only: polling with a deadline, temp homes, free ports, and a running `tolv` to test.
//!
//! Nothing here knows Tolv's own types: a test that uses it looks at Tolv from the outside, as a
//! user does. Helpers panic with a text that says what was waited for or done; none returns an
//! error that a test would only unwrap.

#![warn(missing_docs)]

mod free_port;
pub mod git;
mod git_server;
mod home;
pub mod http;
mod machine;
mod poll;
pub mod postgres;
pub mod receiver;
pub mod rsyslog;
mod s3;
mod screen;
pub mod serve;
mod tolv;
mod toolchains;
mod version;

pub use free_port::free_port;
pub use git_server::GitServer;
pub use home::Home;
pub use machine::OwnMachine;
pub use poll::poll;
pub use postgres::Postgres;
pub use receiver::Receiver;
pub use rsyslog::Rsyslog;
pub use s3::S3;
pub use screen::Screen;
pub use serve::Serve;
pub use tolv::{Line, Stream, Tolv};
pub use toolchains::toolchains;
pub use version::of_other_version;
