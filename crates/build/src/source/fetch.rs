//! Fetches from git servers that a stranger names, into a repository of its own.
//!
//! git fetches in the same sandbox as it reads a push, with the network of a build: the internet, and of
//! the machine what the operator lists. Nothing but https is spoken, also behind a redirect. Bytes and
//! time are bounded for all fetches of one kind and build together.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tolv_model::service::{HostServices, services_in};
use tolv_sandbox::Cancel;

use super::remote::Remote;
use crate::caps::{Caps, bytes, time};
use crate::exec::named_files;
use crate::files;
use crate::repository::{GitAccess, GitCommand, GitSandbox, Repository};
use crate::{Error, source::shown};

/// Between two looks at how much git has fetched.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of git's about a fetch that failed.
const MAX_LINES: usize = 3;

/// Variables of the operator's that a fetch gets: proxies, and which certificates are trusted.
const PASSED: [&str; 10] = [
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "https_proxy",
    "no_proxy",
];

/// Settings of a fetch.
const SETTINGS: [&str; 9] = [
    "protocol.allow=never",
    "protocol.https.allow=always",
    "credential.helper=",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "http.sslVerify=true",
    "fetch.unpackLimit=1",
    "fetch.recurseSubmodules=no",
    "fetch.fsckObjects=false",
];

/// Of one build, what it may reach and take for fetches of one kind together.
pub(crate) struct Fetches<'a> {
    /// What is fetched, for messages: `the commit's submodules`.
    pub(crate) what: &'static str,
    /// The operator's variables for registries and proxies.
    env: &'a BTreeMap<String, OsString>,
    /// Services of the machine that a URL may name.
    host_services: &'a HostServices,
    caps: &'a Caps,
    pub(crate) cancel: &'a Cancel,
    /// When all of them have to be there.
    deadline: Instant,
    /// Bytes on the disk that were fetched so far.
    taken: u64,
}

impl<'a> Fetches<'a> {
    pub(crate) fn new(
        what: &'static str,
        env: &'a BTreeMap<String, OsString>,
        host_services: &'a HostServices,
        (caps, cancel): (&'a Caps, &'a Cancel),
    ) -> Self {
        let deadline = Instant::now() + caps.time;
        Self { what, env, host_services, caps, cancel, deadline, taken: 0 }
    }

    /// An empty repository in a new folder.
    pub(crate) fn repository(&self, dir: &Path, sandbox: &GitSandbox) -> Result<Repository, Error> {
        files::remove(dir)?;
        fs::DirBuilder::new().mode(0o700).create(dir).map_err(Error::io("create", dir))?;
        let new = Repository::at(dir, sandbox.clone());
        let init = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"];
        let made = new.ask(&GitCommand::new(GitAccess::Create, init))?;
        match made.code {
            0 => Ok(new),
            _ => Err(Error::Source(format!("git: {}", made.said))),
        }
    }

    /// Counts what a repository has fetched, once it is whole.
    pub(crate) fn take(&mut self, new: &Repository) {
        self.taken = self.taken.saturating_add(new.disk_use());
    }

    /// One `git fetch`, watched: git's exit status, and what it said about an error.
    pub(crate) fn fetch(
        &self,
        new: &Repository,
        remote: &Remote,
        options: &[&str],
        refs: &[&str],
    ) -> Result<(i32, String), Error> {
        let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
        let fixed = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        let words = settings.chain(fixed).chain(options.iter().copied());
        let words = words.chain([remote.as_str()]).chain(refs.iter().copied());
        let mut command = GitCommand::new(GitAccess::Create, words);
        let passed = |(name, value): (&String, &OsString)| {
            let name = PASSED.iter().find(|known| *known == name)?;
            Some((*name, value.clone()))
        };
        command.env = self.env.iter().filter_map(passed).collect();
        let given: BTreeMap<_, _> =
            command.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        // Where git's library does not know the others' name for the same file.
        if !given.contains_key("GIT_SSL_CAINFO")
            && let Some(file) = given.get("SSL_CERT_FILE").or_else(|| given.get("CURL_CA_BUNDLE"))
        {
            command.env.push(("GIT_SSL_CAINFO", file.clone()));
        }
        command.mounts = named_files(&given);
        command.services = Some(self.services(&given, remote));
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Limit {
                what: format!("the time to fetch {}", self.what),
                limit: time(self.caps.time),
            });
        }
        command.time = Some(left.min(new.sandbox().limits.time));
        self.watched(new, &command)
    }

    /// Proxies on this machine as the operator names them, and what the operator lets a URL name.
    fn services(&self, env: &BTreeMap<String, OsString>, remote: &Remote) -> Vec<SocketAddr> {
        let proxies = env.values().filter_map(|value| value.to_str()).flat_map(services_in);
        let named = services_in(remote.as_str());
        let named = named.into_iter().filter(|service| self.host_services.allow(service));
        proxies.chain(named).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Removes what this build did not need from the folder of what is kept, where all of it takes too
    /// much.
    pub(crate) fn trim(&self, folder: &Path, is_used: &dyn Fn(&Path) -> bool) -> Result<(), Error> {
        if files::disk_use(folder) <= self.caps.slug {
            return Ok(());
        }
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))?.flatten() {
            if !is_used(&entry.path()) {
                files::remove_until(&entry.path(), &|| self.cancel.is_cancelled())?;
            }
        }
        Ok(())
    }

    /// Runs git until it ends, is cancelled, or has fetched too much.
    fn watched(&self, new: &Repository, command: &GitCommand) -> Result<(i32, String), Error> {
        let inner = Cancel::new().map_err(Error::io("make", "a cancel handle"))?;
        let over = Mutex::new(None);
        let (done, watching) = channel::<()>();
        let ended = std::thread::scope(|scope| {
            let (stop, over) = (inner.clone(), &over);
            let watcher = std::thread::Builder::new().name("watch".to_owned());
            let watcher = watcher.spawn_scoped(scope, move || {
                while let Err(RecvTimeoutError::Timeout) = watching.recv_timeout(LOOK) {
                    let why = match self.cancel.is_cancelled() {
                        true => Some(Error::Cancelled),
                        false => self.over_budget(new),
                    };
                    if why.is_some() {
                        *over.lock().unwrap_or_else(PoisonError::into_inner) = why;
                        stop.cancel();
                        return;
                    }
                }
            });
            watcher.map_err(Error::io("start", "a thread"))?;
            let ended =
                new.stream(command, None, &mut |_| std::ops::ControlFlow::Continue(()), &inner);
            drop(done);
            ended
        });
        match over.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(why),
            // It may have ended between two looks.
            None => ended.and_then(|ended| self.over_budget(new).map_or(Ok(ended), Err)),
        }
    }

    fn over_budget(&self, new: &Repository) -> Option<Error> {
        if self.taken.saturating_add(new.disk_use()) > self.caps.slug {
            return Some(Error::Limit {
                what: format!("the size of {} together", self.what),
                limit: format!("{} (TOLV_BUILD_MIB)", bytes(self.caps.slug)),
            });
        }
        let stat = rustix::fs::statvfs(new.dir()).ok()?;
        (stat.f_bavail.saturating_mul(stat.f_frsize) < self.caps.min_free).then(|| Error::Limit {
            what: "the disk's free room (TOLV_MIN_FREE), which has to stay,".to_owned(),
            limit: bytes(self.caps.min_free),
        })
    }
}

/// The last lines of what git said about an error.
pub(crate) fn last_lines(said: &str) -> String {
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(MAX_LINES)..].join("; ");
    shown(last.as_bytes())
}

/// Whether a server wants to know who asks: it says that also of what is not there.
pub(crate) fn wants_credentials(said: &str) -> bool {
    said.contains("could not read Username") || said.contains("Authentication failed")
}

/// Whether a repository has a commit.
pub(crate) fn has(repository: &Repository, commit: &str) -> Result<bool, Error> {
    let object = format!("{commit}^{{commit}}");
    let answer = repository.ask(&GitCommand::new(GitAccess::Read, ["cat-file", "-e", &object]))?;
    Ok(answer.code == 0)
}
