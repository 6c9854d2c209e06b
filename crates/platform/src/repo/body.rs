//! The body of a request for git: how fast it has to arrive, how long it may be, and how much of it
//! the disk has space for.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flate2::write::GzDecoder;
use rustix::fs::statvfs;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::commands::Commands;
use super::hook::{MAX_COMMAND_BYTES, MAX_COMMANDS};

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 64 * 1024;
/// Compressed bytes that are unpacked at once: what comes out is at most a thousand times as much.
const COMPRESSED: usize = 1024;
/// Bytes that arrive before git is started: all of most fetches, and the beginning of a push.
const FIRST_BYTES: usize = 64 * 1024;
/// The time that a client may take for each [`MIN_BYTES`]. Time that git takes does not count.
const RATE_WINDOW: Duration = Duration::from_secs(30);
/// Bytes that have to arrive within each [`RATE_WINDOW`].
const MIN_BYTES: usize = 32 * 1024;
/// Bytes of a push between two looks at the disk.
const DISK_CHECK_BYTES: usize = 1 << 20;
/// Time between two looks at the disk while git works on a whole push.
const DISK_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Why the body of a request was not taken whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client is silent or too slow.
    #[error(
        "the request arrived too slowly: at least {} KiB have to arrive every {} seconds",
        MIN_BYTES >> 10,
        RATE_WINDOW.as_secs()
    )]
    TooSlow,
    /// More bytes than a request may have.
    #[error("the request is too long: it has more than {} MiB", .0 >> 20)]
    TooLong(u64),
    /// The connection broke, or the body is not what its headers say.
    #[error("the request cannot be read: {0}")]
    Broken(#[source] io::Error),
    /// It names more refs than a push may have.
    #[error("a push has at most {MAX_COMMANDS} refs: push them in parts")]
    ManyRefs,
    /// What it says of its refs is too long.
    #[error(
        "the refs of a push take at most {} MiB, with their names: push them in parts",
        MAX_COMMAND_BYTES >> 20
    )]
    LongRefs,
    /// git works for too long on too little.
    #[error(
        "git worked on it for {seconds} seconds, as long as it may for {mib} MiB \
         (TOLV_GIT_SECONDS), and was stopped"
    )]
    TooMuchWork {
        /// The bound.
        seconds: u64,
        /// What has arrived.
        mib: u64,
    },
    /// Somebody has ended it.
    #[error("{0}")]
    Stopped(&'static str),
    /// What the app pushed takes as much as it may.
    #[error(
        "the app's repository takes the {} MiB that it may (TOLV_REPOSITORY_MIB): remove branches and \
         tags, or deploys",
        .most >> 20
    )]
    RepositoryFull {
        /// Bytes.
        most: u64,
    },
    /// The disk has less space than is kept free.
    #[error("the disk of the platform is full ({free} MiB free, {min} MiB are kept free)")]
    DiskFull {
        /// Free now.
        free: u64,
        /// Kept free.
        min: u64,
    },
}

/// The disk of the repositories, and how much of it stays free.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// A folder on it.
    pub(super) folder: PathBuf,
    /// Bytes that stay free.
    pub(super) min_free: u64,
}

impl Disk {
    /// Checks that the disk has more space than is kept free.
    pub(super) fn check(&self) -> Result<(), BodyError> {
        let stat = statvfs(&self.folder).map_err(|errno| BodyError::Broken(errno.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        match free >= self.min_free {
            true => Ok(()),
            false => Err(BodyError::DiskFull { free: free >> 20, min: self.min_free >> 20 }),
        }
    }

    /// Returns when the disk is full.
    pub(super) async fn until_full(&self) -> BodyError {
        loop {
            if let Err(full) = self.check() {
                return full;
            }
            sleep(DISK_CHECK_INTERVAL).await;
        }
    }
}

/// How full a repository gets, by all pushes to it together.
#[derive(Debug)]
pub(super) struct Filling {
    most: u64,
    taken: u64,
    /// Bytes of all pushes since the repository had none, and how many there were.
    fed: Arc<AtomicU64>,
    before: u64,
}

impl Filling {
    /// Of one that takes so many bytes of the disk now.
    pub(super) fn new(most: u64, taken: u64, fed: Arc<AtomicU64>) -> Self {
        let before = fed.load(Ordering::Relaxed);
        Self { most, taken, fed, before }
    }

    fn add(&self, bytes: usize) -> Result<(), BodyError> {
        let bytes = bytes as u64;
        let fed = self.fed.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let (most, is_small) = (self.most, bytes < DISK_CHECK_BYTES as u64);
        match self.taken.saturating_add(fed - self.before) > most && !is_small {
            true => Err(BodyError::RepositoryFull { most }),
            false => Ok(()),
        }
    }
}

/// How long git may work on a push: for each of its MiB a second, and a while besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkTime {
    /// For the smallest push.
    pub(super) least: Duration,
    /// For the largest.
    pub(super) most: Duration,
}

impl WorkTime {
    fn of(self, bytes: u64) -> Duration {
        self.most.min(self.least + Duration::from_secs(bytes >> 20))
    }
}

/// What bounds a push that is fed to git.
pub(super) struct Bounds<'a> {
    pub(super) disk: &'a Disk,
    pub(super) filling: &'a Filling,
    pub(super) time: WorkTime,
}

/// A request's body. What it says is a stranger's.
pub(super) struct Incoming {
    body: Pin<Box<dyn AsyncRead + Send>>,
    decoder: Option<GzDecoder<Vec<u8>>>,
    /// What was read, and how much of it was unpacked.
    chunk: Vec<u8>,
    unpacked: usize,
    /// Most bytes, unpacked, and how many of them may still come.
    max_bytes: u64,
    left: u64,
    /// What is left of the current [`RATE_WINDOW`].
    time_left: Duration,
    bytes_in_window: usize,
    is_over: bool,
    /// Bytes that git was fed with, and how long it made us wait with them.
    fed: u64,
    waited: Duration,
}

impl Incoming {
    pub(super) fn new(body: Pin<Box<dyn AsyncRead + Send>>, gzip: bool, max_bytes: u64) -> Self {
        Self {
            body,
            decoder: gzip.then(|| GzDecoder::new(Vec::new())),
            chunk: Vec::new(),
            unpacked: 0,
            max_bytes,
            left: max_bytes,
            time_left: RATE_WINDOW,
            bytes_in_window: 0,
            is_over: false,
            fed: 0,
            waited: Duration::ZERO,
        }
    }

    /// What git may still work, once it was fed with all of a push.
    pub(super) fn work_left(&self, time: WorkTime) -> Duration {
        time.of(self.fed).saturating_sub(self.waited)
    }

    /// That it has worked for longer.
    pub(super) fn too_much_work(&self, time: WorkTime) -> BodyError {
        let (seconds, mib) = (time.of(self.fed).as_secs(), self.fed.div_ceil(1 << 20));
        BodyError::TooMuchWork { seconds, mib }
    }

    /// Waits for the beginning: the whole body, or [`FIRST_BYTES`] of it.
    pub(super) async fn begin(&mut self) -> Result<Vec<u8>, BodyError> {
        let mut first = Vec::new();
        while first.len() < FIRST_BYTES {
            match self.next().await? {
                Some(piece) => first.extend(piece),
                None => break,
            }
        }
        Ok(first)
    }

    /// Feeds git with the whole body, of which `first` has already arrived. A push is fed within its
    /// `bounds`.
    pub(super) async fn feed(
        &mut self,
        first: Vec<u8>,
        bounds: Option<Bounds<'_>>,
        mut stdin: pipe::Sender,
    ) -> Result<(), BodyError> {
        let mut next = Some(first);
        let mut unchecked = 0;
        let mut commands = Commands::default();
        while let Some(piece) = next {
            for part in piece.chunks(CHUNK) {
                unchecked += part.len();
                let Some(Bounds { disk, filling, time }) = &bounds else {
                    if stdin.write_all(part).await.is_err() {
                        return Ok(());
                    }
                    continue;
                };
                commands.take(part)?;
                if unchecked >= DISK_CHECK_BYTES {
                    disk.check()?;
                    filling.add(unchecked)?;
                    unchecked = 0;
                }
                self.fed += part.len() as u64;
                let begun = Instant::now();
                let written = timeout(self.work_left(*time), stdin.write_all(part)).await;
                self.waited += begun.elapsed();
                match written {
                    Ok(Ok(())) => {}
                    // git has ended, and says why.
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(self.too_much_work(*time)),
                }
            }
            next = self.next().await?;
        }
        if let Some(bounds) = bounds {
            bounds.filling.add(unchecked)?;
        }
        Ok(())
    }

    /// Reads the rest and drops it: a client that sends reads the answer afterwards.
    pub(super) async fn discard(&mut self) {
        self.decoder = None;
        while let Ok(Some(_)) = self.next().await {}
    }

    /// The next piece, unpacked; nothing at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        while !self.is_over {
            if self.unpacked == self.chunk.len() {
                self.read().await?;
            }
            let piece = self.unpack().map_err(BodyError::Broken)?;
            let left = self.left.checked_sub(piece.len() as u64);
            self.left = left.ok_or(BodyError::TooLong(self.max_bytes))?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Reads as much as there is, within the time that the client has.
    async fn read(&mut self) -> Result<(), BodyError> {
        self.chunk.resize(CHUNK, 0);
        let begun = Instant::now();
        let read = timeout(self.time_left, self.body.read(&mut self.chunk)).await;
        let read = read.map_err(|_| BodyError::TooSlow)?;
        let read = read.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => BodyError::TooSlow,
            _ => BodyError::Broken(error),
        })?;
        self.chunk.truncate(read);
        self.unpacked = 0;
        self.is_over = read == 0;
        self.time_left = self.time_left.saturating_sub(begun.elapsed());
        self.bytes_in_window += read;
        if self.bytes_in_window >= MIN_BYTES {
            (self.time_left, self.bytes_in_window) = (RATE_WINDOW, 0);
        }
        Ok(())
    }

    /// Some of what was read, unpacked.
    fn unpack(&mut self) -> io::Result<Vec<u8>> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(std::mem::take(&mut self.chunk));
        };
        if self.is_over {
            decoder.try_finish()?;
        }
        let end = self.chunk.len().min(self.unpacked + COMPRESSED);
        decoder.write_all(&self.chunk[self.unpacked..end])?;
        self.unpacked = end;
        Ok(std::mem::take(decoder.get_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_fill_a_repository_together() {
        let (mib, fed) = (1 << 20, Arc::default());
        let filling = |taken| Filling::new(10 << 20, taken, Arc::clone(&fed));
        let pushes = [filling(7 << 20), filling(7 << 20)];
        assert!(pushes[0].add(2 * mib).is_ok() && pushes[1].add(mib).is_ok());
        assert!(pushes.iter().all(|push| push.add(mib).is_err()));
        // What only removes is small.
        assert!(pushes[0].add(99).is_ok());
        // What came before is in what is taken; what nobody can count is more than any bound.
        assert!(filling(9 << 20).add(mib).is_ok());
        assert!(filling(u64::MAX).add(mib).is_err());
    }

    async fn fed(body: Vec<u8>, gzip: bool, most: u64) -> (Result<(), BodyError>, u64) {
        let (stdin, mut git) = pipe::pipe().unwrap();
        let mut incoming = Incoming::new(Box::pin(io::Cursor::new(body)), gzip, most);
        let count = async {
            let (mut chunk, mut count) = (vec![0; CHUNK], 0);
            while let Ok(read @ 1..) = git.read(&mut chunk).await {
                count += read as u64;
            }
            count
        };
        let feed = async {
            let first = incoming.begin().await?;
            incoming.feed(first, None, stdin).await
        };
        tokio::join!(feed, count)
    }

    #[tokio::test]
    async fn a_body_ends_at_its_limit_packed_or_not() {
        let plain = vec![b'x'; 3 << 20];
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&plain).unwrap();
        let packed = packed.finish().unwrap();
        assert!(packed.len() < 10_000);
        for (body, gzip) in [(plain, false), (packed, true)] {
            let (ended, count) = fed(body.clone(), gzip, 3 << 20).await;
            assert!(ended.is_ok() && count == 3 << 20, "{ended:?} {count}");
            let (ended, count) = fed(body, gzip, 2 << 20).await;
            assert!(matches!(ended, Err(BodyError::TooLong(_))) && count <= 2 << 20, "{count}");
        }
        let (ended, _) = fed(b"no gzip".to_vec(), true, 100).await;
        assert!(matches!(ended, Err(BodyError::Broken(_))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_trickles_is_given_up() {
        let (body, mut client) = tokio::io::duplex(1 << 20);
        let mut incoming = Incoming::new(Box::pin(body), false, 1 << 20);
        let begun = Instant::now();
        let trickle = async {
            client.write_all(&[b'x'; 1 << 15]).await.unwrap();
            loop {
                sleep(Duration::from_secs(5)).await;
                client.write_all(b"x").await.unwrap();
            }
        };
        tokio::select! {
            error = incoming.begin() => assert!(matches!(error, Err(BodyError::TooSlow))),
            () = trickle => {}
        }
        assert_eq!(begun.elapsed(), RATE_WINDOW);
    }
}
