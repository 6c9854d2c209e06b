//! The part of the protocol that never changes, so that a platform and a shim of any two versions
//! can live together until the process has been replaced.
//!
//! # Where
//!
//! A shim of the formation listens on a `SOCK_SEQPACKET` unix socket in the folder of its engine. The
//! socket's name is [`Hello::writer`] as 16 hexadecimal digits. One supervisor at a time is let in;
//! when its end is closed, the next is. The kernel adds the pid of the shim to each packet
//! (`SO_PASSCRED`): what runs is below that pid, and its network namespace is the process's.
//!
//! # What
//!
//! A packet is one JSON value of at most [`PACKET`](super::PACKET) bytes. These, and nothing else,
//! are frozen:
//!
//! ```text
//! shim → supervisor, the first packet, at once
//!   {"hello":{"version":6,"process":"web.1","release":3,"writer":7,
//!             "identity":{"plan":"<64 hexadecimal digits>","port":20001},
//!             "written":{"written":{"lines":3,"bytes":9},"lost":{"lines":0,"bytes":0}},
//!             "stopping":false}}
//! supervisor → shim
//!   {"stop":{"signal":15,"grace_ms":30000}}
//! shim → supervisor, the last packet
//!   {"exited":{"code":7,"signal":null,"written":{…}}}
//! supervisor → shim, the answer to it
//!   "heard"
//! ```
//!
//! # Rules
//!
//! * A later version may add keys to these objects. It removes none and gives none another meaning.
//!   A reader ignores keys that it does not know.
//! * Everything else belongs to one version and says which (see [`Packet`](super::Packet)). A reader
//!   ignores packets of other versions and packets that it cannot read at all.
//! * `stop` sends the signal to the leader, and after the grace period kills everything below the
//!   shim. Of several the earliest deadline counts: signal 9 with a grace of 0 kills now.
//! * `exited` says that everything is gone and all output is in the log. The shim ends once it has
//!   read `heard`, or after a day; until then it says `exited` to each supervisor that comes. A
//!   connection that ends without `exited` is the shim's death.
//! * `plan` is compared within one version only: another may compute it in another way.
//! * `written` counts what the shim took from the process since it began. What a reader of the log
//!   does not find of it is lost, whatever format the log is in.

use serde::{Deserialize, Serialize};
use tolv_model::slug::Digest;

use super::Written;

/// To the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Stop { signal: i32, grace_ms: u64 },
    Heard,
}

/// From the shim. What a shim of this version adds to its end is in `E`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word<E = Exited> {
    Hello(Hello),
    Exited(E),
}

/// What a shim says of itself to a supervisor that did not launch it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Of everything that is not frozen.
    pub(crate) version: u32,
    /// `web.1`.
    pub(crate) process: String,
    /// Of which release.
    pub(crate) release: u32,
    /// Its id as a writer of the log.
    pub(crate) writer: u64,
    /// What it was launched with.
    pub(crate) identity: Identity,
    /// What it has written until now.
    pub(crate) written: Written,
    /// Whether it was told to end.
    pub(crate) stopping: bool,
}

/// By what a process is known to whoever did not start it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Of all that it is to run.
    pub(crate) plan: Digest,
    /// Its `$PORT`.
    pub(crate) port: u16,
}

/// How it all ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// The leader's exit code, if it exited.
    pub(crate) code: Option<i32>,
    /// The signal that ended it, if one did.
    pub(crate) signal: Option<i32>,
    /// What was written to the log.
    pub(crate) written: Written,
}

#[cfg(test)]
mod tests;
