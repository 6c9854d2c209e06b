//! State: apps, deploys, config, the release ledger, operations, tokens, the audit log; and blobs.
//!
//! One [`Store`] over SQLite (the default) or PostgreSQL: the same schema, the same statements,
//! the same tests. Each method is one transaction. Config values are sealed with the
//! [`SecretKey`] before they leave this crate for the database.
//!
//! ```text
//!  apps ─▶ deploys ─▶ configs (versions, sealed)
//!             ├─▶ drains (addresses, sealed)
//!             ├─▶ runs (before they start, and how they ended)
//!             ├─▶ operations (queued, running, over)
//!             └─▶ releases (append-only chain) ─▶ outcomes (said once)
//! ```
//!
//! # Invariants
//!
//! * A method that has returned `Ok` is on the disk.
//! * A row of the ledger is never updated; the database itself refuses.
//! * No value of a config variable is in the database in clear, in an error or in a log.
//! * Where a ledger ends is kept outside the database too, and no row of it can be made without the
//!   key.
//! * One platform writes: release numbers are given under one lock.

#![warn(missing_docs)]

mod anchor;
mod apps;
mod audit;
pub mod blobs;
mod columns;
mod config;
mod cron;
mod db;
mod drains;
mod error;
mod idempotency;
mod lease;
mod ledger;
mod listed;
mod operations;
mod releases;
mod reserve;
mod row_mac;
mod rows;
mod runs;
mod schema;
mod secret;
mod slugs;
mod spent;
mod status;
mod tokens;
mod types;
mod url;

pub use cron::{CronRun, NewCronRun, Recorded};
pub use db::Store;
pub use error::{Error, KeyError};
pub use lease::{Holder, Lease};
pub use ledger::Ledger;
pub use listed::Listed;
pub use runs::{NewRun, Run};
pub use secret::{SecretKey, random};
pub use status::{Connections, DatabaseStatus, OldestOperation};
pub use types::{
    App, AuditLine, CopyFrom, Deploy, Drain, DrainProgress, ForgedRow, ForgedToken, Idempotent,
    NewRelease, Operation, Release, Releasing, Slug, Stored, StoredToken, Token,
};
pub use url::{DatabaseUrl, DatabaseUrlError};
