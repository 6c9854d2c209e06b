//! What a platform is told, and what it says.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tolv_build::StateFolder;
use tolv_logs::Line;
use tolv_model::name::Deploy;
use tolv_model::service::HostServices;
use tolv_sandbox::{Choice, NetworkChoice};
use tolv_store::{DatabaseUrl, SecretKey};

use crate::codebase::Codebase;
use crate::sizing::Sizing;

/// Where slugs are kept besides the state folder.
#[derive(Clone)]
pub struct Blobs {
    /// `s3://bucket/prefix` or `file:///folder`.
    pub url: String,
    /// Options of the store, as its name and value: end point, region, keys.
    pub options: Vec<(String, String)>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blobs({})", self.url)
    }
}

/// Where the router listens.
#[derive(Clone, Debug)]
pub enum Http {
    /// On the first free port of the loopback from 8080 on.
    Free,
    /// There, or nowhere.
    At(SocketAddr),
    /// On what another platform listens on, and hands on.
    Socket(Arc<TcpListener>),
}

/// Everything [`Platform::start`](super::Platform::start) has to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state folder.
    pub home: StateFolder,
    /// For sockets while the disk of the state folder, which is given, takes none: a folder in memory
    /// that is this platform's alone, and need not be there yet.
    pub aside: fn(&Path) -> Option<PathBuf>,
    /// The database; `db.sqlite` in the state folder without it.
    pub database: Option<DatabaseUrl>,
    /// The key of the config; the file `secret-key` in the state folder without it.
    pub secret_key: Option<SecretKey>,
    /// The store of slugs and build logs; the state folder without it.
    pub blobs: Option<Blobs>,
    /// The codebase that is all this platform runs, as `tolv up` has it: one deploy, which is
    /// reached under every host, begins anew at each start, and is built from the folder as it is.
    pub codebase: Option<Codebase>,
    /// Where the router listens.
    pub http: Http,
    /// Deploys are reached under `<app>.<domain>` and `<app>-<deploy>.<domain>`; that of a
    /// codebase under `<app>.<domain>`.
    pub domain: String,
    /// How much to isolate.
    pub sandbox: Choice,
    /// Whether processes have networks of their own.
    pub network: NetworkChoice,
    /// Which services of this machine apps may reach, where their config names them.
    pub host_services: HostServices,
    /// This program, whatever is at its path meanwhile: what the spawner is started from.
    pub image: PathBuf,
    /// What a build may know of this machine.
    pub host: tolv_build::Host,
    /// What a build may take.
    pub caps: tolv_build::Caps,
    /// What git may take on what was pushed.
    pub git: tolv_build::GitLimits,
    /// A push is refused while the disk has fewer bytes free than this.
    pub min_free: u64,
    /// Most bytes of each deploy's log.
    pub log_bytes: u64,
    /// Releases of each deploy whose slugs are kept.
    pub keep_releases: u32,
    /// How the machine is shared out.
    pub sizing: Sizing,
}

/// A line for the platform's own standard output.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whose; nothing for lines of the platform as a whole.
    pub deploy: Option<Deploy>,
    /// What.
    pub line: Line,
}
