//! Requests to processes: listener, routing table, forwarding, access lines.
//!
//! ```text
//!  client ──▶ listen ──▶ head ──▶ table ──▶ hold ──▶ balance ──▶ exchange ──▶ process
//!                         │         │        │           │           │
//!                         └── H26   └── H31  └── H20     └── H21     └── access line
//! ```
//!
//! HTTP/1.1 on both sides, with a core of its own that does no I/O (`head`, `message`, `body`,
//! `headers`): requests are refused or made unambiguous here, so that no two readers of one
//! connection can disagree about where a request ends. Bodies are streamed, never held.
//!
//! The table is swapped whole while requests run; see [`Router::set_table`]. Nothing here starts
//! or stops a process, and nothing is kept on disk.
//!
//! # Invariants
//!
//! * Every request that was read, or could not be read, ends in exactly one [`AccessLine`].
//! * A request is read by a process at most once. It is sent again, once, only if it is idempotent, has
//!   no body, and went out on a used connection that was closed without reading it.
//! * A backend that left the table gets no request that had not chosen it before; when
//!   [`Router::unused`] resolves, none is in flight on it.
//!
//! # Sources
//!
//! * RFC 9110, 9111 and 9112; Heroku's "HTTP Routing" and "Error Codes" for names and figures.

#![warn(missing_docs)]

mod access;
mod balance;
mod body;
mod clients;
mod connection;
mod dialer;
mod error_page;
mod exchange;
mod framing;
mod handed;
mod head;
mod headers;
mod health;
mod ids;
mod inner;
mod listen;
mod live;
mod message;
mod patience;
mod pump;
mod reach;
mod router;
mod settings;
mod table;
mod tunnel;
mod websocket;

pub use access::{AccessLine, Code, Protocol};
pub use clients::Connections;
pub use dialer::{Dialer, Dialing};
pub use handed::Handed;
pub use router::{Drained, Router};
pub use settings::{Network, NetworkError, Settings, TimeOuts};
pub use table::{Backend, Route, State, Table, host_name};
