//! The network of a sandboxed process.
//!
//! At level strict a process has a network namespace of its own. A veth pair leads out of it, the
//! machine's kernel forwards and masquerades, and one nftables table of the spawner's own says what
//! is let through: the internet, and nothing of the machine, of its neighbours or of the link.
//!
//! ```text
//!  app ── eth0 ═══ tv<id>-<n> ── forward: not the machine, not tv* ── masquerade ── the internet
//!   └── 127.0.0.1:5432 (relay) ─────────────────────────────────────▶ 127.0.0.1:5432 of the machine
//! ```
//!
//! Both ends of a pair have the same hardware address and ask nobody for another (`IFF_NOARP`), so
//! that neither an address on the machine's end nor a gateway is needed.
//!
//! Services of the machine that a process is allowed are reached at the loopback address they have
//! outside: a small relay listens there, in the process's namespace, and connects on the machine.
//!
//! # Sources
//!
//! rtnetlink(7), veth(4), nft(8). 198.18.0.0/15 is set aside for tests between networks (RFC 2544),
//! and 203.0.113.0/24 for documentation (RFC 5737): no service on the internet has such an address.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, OnceLock};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

pub(crate) mod host;
pub(crate) mod link;
pub(crate) mod names;
mod netlink;
mod nfnetlink;
mod nft;
pub(crate) mod relay;
mod rules_state;

pub use rules_state::{RulesState, rules_of};

/// Which network a sandboxed process is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The machine's own.
    Machine,
    /// One of its own at level strict, where the machine gives that; the machine's elsewhere.
    Own {
        /// Loopback addresses of the machine that it reaches too, at the same address.
        services: Vec<SocketAddr>,
    },
    /// That of another sandbox; at level strict.
    Joined {
        /// Which; it travels beside the spec.
        #[serde(skip)]
        namespace: Option<NetworkNamespace>,
    },
    /// Nobody's: not even itself is reached. At levels strict and user, where the kernel has network
    /// namespaces; the machine's elsewhere.
    Nowhere,
}

impl Network {
    /// A network of its own, with nothing of the machine.
    pub fn own() -> Self {
        Self::Own { services: Vec::new() }
    }
}

/// Whether processes have networks of their own, as the operator asks for it (`TOLV_NETWORK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkChoice {
    /// Where the level and the machine give it.
    #[default]
    Auto,
    /// Yes, or a refusal.
    Own,
    /// No: every process is in the machine's network.
    Machine,
}

impl std::str::FromStr for NetworkChoice {
    type Err = UnknownNetwork;

    fn from_str(text: &str) -> Result<Self, UnknownNetwork> {
        match text {
            "auto" => Ok(Self::Auto),
            "own" => Ok(Self::Own),
            "machine" => Ok(Self::Machine),
            other => Err(UnknownNetwork(other.chars().take(40).collect())),
        }
    }
}

/// A text that is no [`NetworkChoice`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network: use auto, own or machine")]
pub struct UnknownNetwork(String);

/// The network namespace of a sandbox, which exists for as long as this does.
#[derive(Clone)]
pub struct NetworkNamespace {
    file: Arc<OwnedFd>,
    inode: u64,
}

impl fmt::Debug for NetworkNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

impl PartialEq for NetworkNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

impl Eq for NetworkNamespace {}

/// The namespace that this program was started in.
fn home() -> io::Result<&'static File> {
    static HOME: OnceLock<File> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Ok(home);
    }
    let opened = File::open("/proc/self/ns/net")?;
    Ok(HOME.get_or_init(|| opened))
}

impl NetworkNamespace {
    /// That of a process; nothing where it is this program's own.
    ///
    /// # Errors
    ///
    /// The system's, as for a process that has ended.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        let file = File::open(format!("/proc/{pid}/ns/net"))?;
        let inode = file.metadata()?.ino();
        let own = home()?.metadata()?.ino();
        Ok((inode != own).then(|| Self { file: Arc::new(file.into()), inode }))
    }

    /// Tells it apart from every other one that exists.
    pub fn id(&self) -> u64 {
        self.inode
    }

    /// A TCP socket whose every connection is made inside: the calling thread visits the namespace
    /// for the time of one system call. It is closed on exec, and does not block.
    ///
    /// # Errors
    ///
    /// The system's; a program without the capability to enter namespaces may not.
    pub fn tcp_socket(&self, address: &SocketAddr) -> io::Result<OwnedFd> {
        self.visit(|| {
            let family = match address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(socket_with(family, SocketType::STREAM, flags, None)?)
        })
    }

    fn visit<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        visit(&*self.file, act)
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Does something with this thread inside a namespace.
pub(crate) fn visit<T>(namespace: impl AsFd, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let network = Some(LinkNameSpaceType::Network);
    let home = home()?;
    move_into_link_name_space(namespace.as_fd(), network)?;
    let _back = WayBack(home);
    act()
}

/// Takes this thread back when dropped, whatever happened meanwhile.
struct WayBack(&'static File);

impl Drop for WayBack {
    fn drop(&mut self) {
        let network = Some(LinkNameSpaceType::Network);
        if move_into_link_name_space(self.0.as_fd(), network).is_err() {
            // A thread that stayed there would act for a stranger from then on. The kernel does not
            // refuse the way back to one that it has just let out.
            std::process::abort();
        }
    }
}
