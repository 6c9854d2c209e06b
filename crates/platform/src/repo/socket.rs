//! Where the hook of a push reaches the platform.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::hook::{Asked, MAX_ASKED, Told};
use super::rpc::{Push, RefResult, SOON};
use super::{RepoError, Repos, failed};

/// Lines between the platform and the hook.
const LINES: usize = 256;
/// Most connections at once that have not yet sent the secret.
const MAX_UNVERIFIED: usize = 16;
/// How long a connection may take to send the secret.
const SECRET_TIMEOUT: Duration = Duration::from_secs(1);

/// Of the next push's folder.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Whether this process has made the folder of a push with this number.
pub(super) fn is_own(number: &str) -> bool {
    number.parse::<u64>().is_ok_and(|number| number < NEXT.load(Ordering::Relaxed))
}

/// The socket that one push's hook connects to, in a folder of its own that git's sandbox sees;
/// gone when dropped.
pub(super) struct Socket {
    folder: PathBuf,
    listener: UnixListener,
    /// The hook sends this first: where the sandbox is weak, other programs of its user can connect.
    secret: String,
}

impl Socket {
    /// `uid` is the one that the hook has, where that is not ours.
    pub(super) fn bind(repos: &Repos, uid: Option<u32>) -> Result<Self, RepoError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = repos.pushes().join(format!("{}-{number}", std::process::id()));
        super::remove(&folder)?;
        let path = folder.join("socket");
        let bind = || {
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            for mine in [&path, &folder] {
                std::os::unix::fs::lchown(mine, uid, uid)?;
            }
            Ok(listener)
        };
        let secret = make_secret().map_err(failed("make a secret for", &path))?;
        let listener = bind().map_err(failed("listen on", &path))?;
        Ok(Self { folder, listener, secret })
    }

    /// The secret that the hook sends first. It belongs in the hook's environment alone.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Waits for the connection that sends the secret, and closes every other one.
    async fn accept(&self) -> io::Result<UnixStream> {
        let mut unverified = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if unverified.len() < MAX_UNVERIFIED => {
                    unverified.spawn(has_secret(accepted?.0, self.secret.clone()));
                }
                Some(checked) = unverified.join_next() => {
                    if let Ok(Some(stream)) = checked {
                        return Ok(stream);
                    }
                }
            }
        }
    }

    /// Hears what the hook asks, once, and answers it. What it says is a stranger's.
    pub(super) async fn decide<F, T>(
        &self,
        connected: oneshot::Sender<()>,
        decide: F,
    ) -> io::Result<()>
    where
        F: FnOnce(Push) -> T,
        T: Future<Output = Vec<RefResult>>,
    {
        let (read, mut write) = self.accept().await?.into_split();
        let mut line = Vec::new();
        timeout(SOON, BufReader::new(read.take(MAX_ASKED)).read_until(b'\n', &mut line)).await??;
        let asked = Asked::parse(&line)?;
        // From here on the time is the operation's.
        connected.send(()).ok();
        let (say, mut said) = mpsc::channel(LINES);
        let decided = decide(Push { commands: asked.commands, options: asked.options, say });
        tokio::pin!(decided);
        let results = loop {
            tokio::select! {
                biased;
                Some(text) = said.recv() => {
                    // The hook may have been killed; the decision goes on.
                    tell(&mut write, &Told::Say(text)).await.ok();
                }
                results = &mut decided => break results,
            }
        };
        while let Ok(text) = said.try_recv() {
            tell(&mut write, &Told::Say(text)).await.ok();
        }
        let results = results.into_iter().map(|result| (result.name, result.refused)).collect();
        tell(&mut write, &Told::Results(results)).await
    }
}

/// Returns the connection if it sends the secret in time.
async fn has_secret(mut stream: UnixStream, secret: String) -> Option<UnixStream> {
    let mut said = vec![0; secret.len()];
    timeout(SECRET_TIMEOUT, stream.read_exact(&mut said)).await.ok()?.ok()?;
    bool::from(said.ct_eq(secret.as_bytes())).then_some(stream)
}

/// Makes a secret: 256 random bits in hex.
fn make_secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn tell(write: &mut OwnedWriteHalf, told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    write.write_all(&line).await
}

impl Drop for Socket {
    fn drop(&mut self) {
        super::remove(&self.folder).ok();
    }
}
