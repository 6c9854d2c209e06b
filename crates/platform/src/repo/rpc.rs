//! git's smart HTTP protocol: a request's body into `git`, its output back.
//!
//! A push belongs to the platform from the moment it begins: the task that carries it is its own,
//! and goes on when whoever pushed is gone.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;

use bytes::Bytes;
use flate2::write::GzDecoder;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixListener;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tolv_model::name::Deploy;

use super::hook::{Asked, Told};
use super::plan::RefCommand;
use super::{RepoError, Repos, failed};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks between git and a slow client.
const CHUNKS: usize = 16;
/// Lines between the platform and the hook.
const LINES: usize = 256;
/// Most bytes of one push.
const MAX_PUSH: &str = "receive.maxInputSize=2147483648";

/// Which of git's two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Fetch and clone.
    Upload,
    /// Push.
    Receive,
}

impl Service {
    /// Its name in URLs: `git-receive-pack`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "git-upload-pack",
            Self::Receive => "git-receive-pack",
        }
    }
}

/// A push, as the platform decides about it.
pub struct Push {
    /// Its refs.
    pub commands: Vec<RefCommand>,
    /// What `-o` gave.
    pub options: Vec<String>,
    /// Lines for whoever pushes.
    pub say: mpsc::Sender<String>,
}

/// What became of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefResult {
    /// Its full name.
    pub name: String,
    /// Why it was refused; nothing where it was done.
    pub refused: Option<String>,
}

/// A request's body.
type Body = Pin<Box<dyn AsyncRead + Send>>;

/// One request of git's.
pub struct Rpc {
    /// Whose repository.
    pub deploy: Deploy,
    /// What for.
    pub service: Service,
    /// The header `Git-Protocol`.
    pub protocol: Option<String>,
    /// Whether the body is compressed with gzip.
    pub gzip: bool,
    /// The body.
    pub body: Pin<Box<dyn AsyncRead + Send>>,
}

/// The body of the answer, piece by piece.
pub type Answer = mpsc::Receiver<Bytes>;

impl Repos {
    fn service(
        &self,
        deploy: &Deploy,
        service: Service,
        protocol: Option<&str>,
    ) -> std::process::Command {
        let mut command = self.git(&self.dir(&deploy.app));
        command.env("GIT_NAMESPACE", deploy.name.as_str());
        // Its only use is to say `version=2`; anything else is dropped.
        if let Some(protocol @ ("version=1" | "version=2")) = protocol {
            command.env("GIT_PROTOCOL", protocol);
        }
        match service {
            Service::Upload => {
                command.args(["-c", "transfer.hideRefs=refs/tolv", "upload-pack"]);
            }
            Service::Receive => {
                command.arg("-c").arg({
                    let mut hooks = std::ffi::OsString::from("core.hooksPath=");
                    hooks.push(self.folder.join("hooks"));
                    hooks
                });
                for setting in [
                    "receive.procReceiveRefs=refs",
                    "receive.advertisePushOptions=true",
                    "receive.denyDeletes=false",
                    "receive.denyNonFastForwards=false",
                    "receive.denyDeleteCurrent=ignore",
                    "receive.denyCurrentBranch=ignore",
                    "receive.fsckObjects=true",
                    "receive.fsck.zeroPaddedFilemode=warn",
                    "receive.fsck.missingSpaceBeforeDate=warn",
                    "receive.fsck.badTimezone=warn",
                    "receive.autogc=false",
                    "transfer.hideRefs=refs/tolv",
                    MAX_PUSH,
                ] {
                    command.args(["-c", setting]);
                }
                command.arg("receive-pack");
            }
        }
        command.arg("--stateless-rpc");
        command
    }

    /// What a client asks first: which refs there are.
    ///
    /// # Errors
    ///
    /// git's.
    pub async fn advertise(
        &self,
        deploy: &Deploy,
        service: Service,
        protocol: Option<&str>,
    ) -> Result<Vec<u8>, RepoError> {
        let mut command = self.service(deploy, service, protocol);
        command.arg("--http-backend-info-refs").arg(self.dir(&deploy.app));
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(RepoError::NoGit)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(RepoError::Git { what: service.as_str().to_owned(), said });
        }
        let mut body = Vec::new();
        if protocol != Some("version=2") {
            let line = format!("# service={}\n", service.as_str());
            body.extend(format!("{:04x}{line}0000", line.len() + 4).bytes());
        }
        body.extend(output.stdout);
        Ok(body)
    }

    /// Carries one request in a task of `tasks`. A push is decided by `decide`.
    ///
    /// # Errors
    ///
    /// git cannot be started.
    pub fn serve<F, T>(&self, rpc: Rpc, tasks: &TaskTracker, decide: F) -> Result<Answer, RepoError>
    where
        F: FnOnce(Push) -> T + Send + 'static,
        T: Future<Output = Vec<RefResult>> + Send,
    {
        let mut command = self.service(&rpc.deploy, rpc.service, rpc.protocol.as_deref());
        command.arg(self.dir(&rpc.deploy.app));
        let socket = match rpc.service {
            Service::Upload => None,
            Service::Receive => Some(Socket::bind(self)?),
        };
        if let Some(socket) = &socket {
            command.env("TOLV_PUSH", &socket.path);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        // A fetch is its client's; a push goes on.
        command.kill_on_drop(rpc.service == Service::Upload);
        let mut child = command.spawn().map_err(RepoError::NoGit)?;
        let stdin = child.stdin.take();
        let (chunks, answer) = mpsc::channel(CHUNKS);
        let (body, gzip) = (rpc.body, rpc.gzip);
        let is_push = rpc.service == Service::Receive;
        tasks.spawn(async move {
            let feed = async {
                if let Some(stdin) = stdin {
                    // git says itself what it misses.
                    feed(body, stdin, gzip).await.ok();
                }
            };
            let decided = async {
                if let Some(socket) = socket {
                    socket.decide(decide).await.ok();
                }
            };
            let drained = drain(&mut child, chunks, is_push);
            tokio::pin!(decided);
            tokio::select! {
                // git has ended: nobody asks any more, and an operation goes on by itself.
                ((), ()) = async { tokio::join!(feed, drained) } => {}
                () = async { (&mut decided).await; std::future::pending::<()>().await } => {}
            }
            child.wait().await.ok();
        });
        Ok(answer)
    }
}

/// The body into git.
async fn feed(mut body: Body, mut stdin: ChildStdin, gzip: bool) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut decoder = gzip.then(|| GzDecoder::new(Vec::new()));
    loop {
        let read = body.read(&mut chunk).await?;
        let piece = &chunk[..read];
        match &mut decoder {
            None => stdin.write_all(piece).await?,
            Some(decoder) => {
                decoder.write_all(piece)?;
                if read == 0 {
                    decoder.try_finish()?;
                }
                let plain = std::mem::take(decoder.get_mut());
                stdin.write_all(&plain).await?;
            }
        }
        if read == 0 {
            return stdin.shutdown().await;
        }
    }
}

/// git's output to the client; where that is gone, a push's goes nowhere.
async fn drain(child: &mut Child, chunks: mpsc::Sender<Bytes>, is_push: bool) {
    let Some(mut stdout) = child.stdout.take() else { return };
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
        let gone = chunks.send(Bytes::copy_from_slice(&chunk[..read])).await.is_err();
        if gone && !is_push {
            return;
        }
    }
}

/// The socket that one push's hook connects to; gone when dropped.
struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    fn bind(repos: &Repos) -> Result<Self, RepoError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = repos.folder.join(format!("push-{}-{number}", std::process::id()));
        let bind = |_| UnixListener::bind(&path);
        let cleared = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let listener = cleared.and_then(bind).map_err(failed("listen on", &path))?;
        Ok(Self { path, listener })
    }

    async fn decide<F, T>(&self, decide: F) -> io::Result<()>
    where
        F: FnOnce(Push) -> T,
        T: Future<Output = Vec<RefResult>>,
    {
        let (stream, _) = self.listener.accept().await?;
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).await?;
        let asked: Asked = serde_json::from_str(&line)?;
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

async fn tell(write: &mut OwnedWriteHalf, told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    write.write_all(&line).await
}

impl Drop for Socket {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}
