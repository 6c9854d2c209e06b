//! What the supervisor and a shim say to each other: one JSON object per packet of a
//! `SOCK_SEQPACKET` pair, and the payload that a shim is launched with. A shim with a door gets another
//! such socket there, once the first is at its end.
//!
//! Some messages are [`frozen`]: every version understands them in every other. All others belong to
//! one version, which each of them says: `{"v":6,"is":{"arm":{"lines":3}}}`.
//!
//! | supervisor → shim | |
//! |---|---|
//! | `stop` (frozen) | the signal to the leader; after the grace, kill everything |
//! | `heard` (frozen) | to `exited`: a shim with a door says it to each that comes until one has heard it |
//! | `kill` | kill everything |
//! | `signal` | the signal to the leader's process group |
//! | `arm` | ring once when it has written more than `lines` lines |
//! | `count` | say at once how much it has written, as a bell |
//! | `door` | listen on the socket that comes with this: the one before was removed from the disk |
//! | end of file | as `stop` with [`TETHER`], where the shim has no door |
//!
//! | shim → supervisor | |
//! |---|---|
//! | `hello` (frozen) | what it runs; the first word at the door |
//! | `exited` (frozen) | everything is gone and all output is in the log; the last word |
//! | `started` | the app runs |
//! | `exec_failed` | it could not be executed; the last word |
//! | `bell` | it has written more than was armed for; how much |
//! | `memory` | it is at its limit; what it holds, in bytes |
//! | `killed` | the kernel has killed processes for want of memory; how many, and the limit |
//! | `fork_refused` | it has as many processes and threads as it may; said once |

pub(crate) mod frozen;

use std::hint::black_box;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tolv_logs::store::{self, Count};

use self::frozen::{Exited, Identity};

/// The version, in the last five digits. It stands in the program as text: what a program speaks can
/// be looked up without running it, and a test makes a program of another version of it.
#[used]
static PROTOCOL: [u8; 24] = *b"tolv shim protocol 00006";

/// Changes when either side would misread what is not frozen, the log's records included.
pub(crate) fn version() -> u32 {
    // Read from where it stands, whatever the compiler knows of it.
    let digits = &black_box(&PROTOCOL)[19..];
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit.wrapping_sub(b'0')))
}

/// Grace of an app whose supervisor went away, where no other can come.
pub(crate) const TETHER: Duration = Duration::from_millis(500);

/// Longest packet.
pub(crate) const PACKET: usize = 4096;

/// One packet: a frozen message as it is, any other with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet<F, V> {
    Frozen(F),
    Versioned(V),
}

/// To the shim.
pub(crate) type ToShim = Packet<frozen::Order, Order>;
/// From the shim.
pub(crate) type FromShim = Packet<frozen::Word<Ended>, Word>;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    is: T,
}

impl<F: Serialize + DeserializeOwned, V: Serialize + DeserializeOwned> Packet<F, V> {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let bytes = match self {
            Self::Frozen(message) => serde_json::to_vec(message),
            Self::Versioned(message) => {
                serde_json::to_vec(&Versioned { v: version(), is: message })
            }
        };
        // Numbers and strings alone: there is nothing that JSON does not have.
        bytes.unwrap_or_default()
    }

    /// Nothing where it is of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if let Ok(message) = serde_json::from_slice(bytes) {
            return Some(Self::Frozen(message));
        }
        let message: Versioned<V> = serde_json::from_slice(bytes).ok()?;
        (message.v == version()).then_some(Self::Versioned(message.is))
    }
}

impl<V> From<frozen::Order> for Packet<frozen::Order, V> {
    fn from(order: frozen::Order) -> Self {
        Self::Frozen(order)
    }
}

impl From<Order> for ToShim {
    fn from(order: Order) -> Self {
        Self::Versioned(order)
    }
}

impl From<frozen::Word<Ended>> for FromShim {
    fn from(word: frozen::Word<Ended>) -> Self {
        Self::Frozen(word)
    }
}

impl From<Word> for FromShim {
    fn from(word: Word) -> Self {
        Self::Versioned(word)
    }
}

/// To a shim of this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Kill,
    Signal { signal: i32 },
    Arm { lines: u64 },
    Count,
    Door,
}

/// From a shim of this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    Started { pid: i32 },
    ExecFailed { errno: i32, what: String },
    Bell(Written),
    Memory { held: u64, limit: u64 },
    Killed { kills: u64, limit: u64 },
    ForkRefused { limit: u64 },
}

impl Word {
    /// What of `what` fits a packet, however its letters are escaped.
    pub(crate) fn exec_failed(errno: i32, what: &str) -> Self {
        Self::ExecFailed { errno, what: what.chars().take(PACKET / 8).collect() }
    }
}

/// Output of one process of the formation over all its starts, or of all one-offs of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Taken in from it.
    pub written: Count,
    /// Neither the disk nor the memory took it.
    pub lost: Count,
}

/// How it all ended, with what this version adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    #[serde(flatten)]
    pub(crate) exited: Exited,
    /// How many processes the kernel killed for want of memory, of which nothing was said before.
    #[serde(default)]
    pub(crate) oom_kills: u64,
    /// Whether that is how it ended.
    #[serde(default)]
    pub(crate) out_of_memory: bool,
    /// What they could use together, in bytes; 0 where that has no limit.
    #[serde(default)]
    pub(crate) memory_limit: u64,
}

/// What a shim runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) head: Head,
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) env: Vec<Vec<u8>>,
}

/// What the app's stdin, stdout and stderr are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Io {
    /// Nothing, and two pipes that the shim reads.
    Log,
    /// Three pipes that come with the launch.
    Pipes,
    /// A terminal of the sandbox; its other end goes out by the socket that comes with the launch.
    Terminal { rows: u16, columns: u16 },
}

/// The part of [`Orders`] that is text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) version: u32,
    /// `web.1`.
    pub(crate) process: String,
    pub(crate) cwd: String,
    /// With a door, whose listening socket comes with the launch. Without one it ends its app when
    /// the supervisor goes.
    pub(crate) identity: Option<Identity>,
    /// Of which release.
    pub(crate) release: u32,
    /// Tells its hand in the log apart.
    pub(crate) writer: u64,
    pub(crate) log: store::Limits,
    pub(crate) io: Io,
    /// Number of arguments; the strings after them are the environment.
    arguments: usize,
}

impl Head {
    pub(crate) fn new(
        process: String,
        release: u32,
        cwd: String,
        writer: u64,
        log: store::Limits,
    ) -> Self {
        let (version, identity, io, arguments) = (version(), None, Io::Log, 0);
        Self { version, process, cwd, identity, release, writer, log, io, arguments }
    }
}

impl Orders {
    /// One line of JSON, then each string with a NUL behind it; none of them can have one.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let head = Head { arguments: self.argv.len(), ..self.head.clone() };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        for text in self.argv.iter().chain(&self.env) {
            bytes.extend(text);
            bytes.push(0);
        }
        Ok(bytes)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|&b| b == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        let strings = bytes[end + 1..].strip_suffix(&[0])?;
        let mut argv: Vec<Vec<u8>> = strings.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
        let env = (head.arguments <= argv.len()).then(|| argv.split_off(head.arguments))?;
        (head.version == version() && !argv.is_empty()).then_some(Self { head, argv, env })
    }
}

#[cfg(test)]
mod tests;
