//! What this machine gives, found out by doing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupFacts;
use crate::error::Error;
use crate::ids;
use crate::init::Exec;
use crate::level::{Choice, Level, Reason};
use crate::network::{Network, NetworkChoice};
use crate::run::{Cancel, Job, run};
use crate::spawner::Spawner;
use crate::spec::{Mount, Spec};
use crate::sys;

/// For a program to run in a level that is tried.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// The version of Landlock that has scopes: signals and abstract sockets.
const SCOPES: i32 = 6;

/// What this machine gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Per level: `None` if it can be had, else what failed.
    pub levels: BTreeMap<Level, Option<Reason>>,
    /// Per level that can be had and has its own root: `None` if a mount can get a writable layer
    /// ([`Access::Private`](crate::Access::Private)), else what failed.
    pub layers: BTreeMap<Level, Option<Reason>>,
    /// Limits and group killing.
    pub cgroups: CgroupFacts,
    /// The Landlock version of the kernel; 0 if there is none.
    pub landlock: i32,
    /// What the operator asked for of networks.
    pub network_choice: NetworkChoice,
    /// Why processes at level strict have no networks of their own; nothing where they have.
    pub network: Option<String>,
}

impl Machine {
    /// Tries every level in a throw-away child.
    ///
    /// # Errors
    ///
    /// Only if the spawner itself fails; a level that cannot be had is a finding.
    pub fn probe(spawner: &Spawner, network_choice: NetworkChoice) -> Result<Self, Error> {
        let tried: Vec<_> = std::thread::scope(|scope| {
            let tries =
                Level::ALL.map(|level| (level, scope.spawn(move || attempt(spawner, level))));
            tries
                .into_iter()
                .map(|(level, thread)| (level, thread.join().unwrap_or(Err(Error::Lost))))
                .collect()
        });
        let (mut levels, mut layers) = (BTreeMap::new(), BTreeMap::new());
        for (level, result) in tried {
            let attempt = result?;
            if level.has_own_root() && attempt.refusal.is_none() {
                layers.insert(level, attempt.no_layer);
            }
            levels.insert(level, attempt.refusal);
        }
        let strict = levels.get(&Level::Strict).cloned().flatten();
        let network = match strict {
            None => spawner.network(network_choice)?,
            Some(_) => Some("only at level strict".to_owned()),
        };
        let (cgroups, landlock) = (spawner.cgroups()?, sys::landlock_abi().0);
        Ok(Self { levels, layers, cgroups, landlock, network_choice, network })
    }

    /// The level to use, and what is missing with it and why.
    ///
    /// # Errors
    ///
    /// [`Error::Level`] if the level asked for cannot be had, [`Error::NoLevel`] if nothing but
    /// `none` can.
    pub fn choose(&self, choice: Choice) -> Result<(Level, Vec<String>), Error> {
        let level = match choice {
            Choice::Exactly(level) => match self.levels.get(&level) {
                Some(Some(reason)) => {
                    return Err(Error::Level { level, reason: reason.clone() });
                }
                Some(None) | None => level,
            },
            Choice::Auto => {
                let mut can = self.levels.iter().filter(|(_, reason)| reason.is_none());
                let best = can.next().map(|(level, _)| *level).filter(|best| *best != Level::None);
                best.ok_or_else(|| Error::NoLevel(self.refusals().join("; ")))?
            }
        };
        match (self.network_choice, self.no_network(level)) {
            (NetworkChoice::Own, Some(why)) => Err(Error::Network(why.to_owned())),
            _ => Ok((level, self.missing(level))),
        }
    }

    /// Why processes of a level have no networks of their own; nothing where they have.
    fn no_network(&self, level: Level) -> Option<&str> {
        match level {
            Level::Strict => self.network.as_deref(),
            Level::User | Level::Landlock | Level::None => Some("only at level strict"),
        }
    }

    fn refusals(&self) -> Vec<String> {
        let refused = |(level, reason): (&Level, &Option<Reason>)| {
            reason.as_ref().map(|reason| format!("{level}: {reason}"))
        };
        self.levels.iter().filter_map(refused).collect()
    }

    /// What a level does not give here: what the level lacks by its nature, then limits.
    fn missing(&self, level: Level) -> Vec<String> {
        let mut missing = Vec::new();
        match (level, self.layers.get(&level)) {
            (_, Some(Some(reason))) => {
                missing.push(format!("`/app` is read-only to processes ({reason})"));
            }
            (Level::Landlock, _) => missing.push("`/app` is read-only to processes".to_owned()),
            _ => {}
        }
        match level {
            Level::Strict => {}
            Level::User if ids::gives_uids() => {}
            Level::User => missing.push("all apps share one uid".to_owned()),
            Level::Landlock => missing
                .push("processes share the machine's process table, /tmp and host name".to_owned()),
            Level::None => missing.push("processes can do whatever their user can".to_owned()),
        }
        if level == Level::Landlock && self.landlock < SCOPES {
            missing.push(format!(
                "processes may signal others of the platform's user (version {SCOPES} of Landlock \
                 keeps them from it)"
            ));
        }
        if let (Some(why), NetworkChoice::Auto | NetworkChoice::Own) =
            (self.no_network(level), self.network_choice)
        {
            missing.push(format!("processes share the machine's network ({why})"));
        }
        let has = |name: &str| self.cgroups.controllers.iter().any(|have| have == name);
        let lacking: Vec<_> =
            ["memory", "pids", "cpu"].into_iter().filter(|name| !has(name)).collect();
        if !lacking.is_empty() {
            // The first says enough; `describe` has them all.
            let why = self.cgroups.reasons.first();
            let why = why.map_or_else(String::new, |reason| format!(" ({reason})"));
            missing.push(format!("no limit on {}{why}", lacking.join(", ")));
        }
        missing
    }

    /// Lines for `tolv status`: each level with what it gives or why it cannot be had, then
    /// cgroups and Landlock.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (level, reason) in &self.levels {
            lines.push(match reason {
                None => format!("{level:<9} yes  {}", gives(*level)),
                Some(reason) => format!("{level:<9} no   {reason}"),
            });
        }
        let controllers = match self.cgroups.controllers.as_slice() {
            [] => "no limits".to_owned(),
            names => format!("limits on {}", names.join(", ")),
        };
        let kill = if self.cgroups.kill { "; a group is killed in one step" } else { "" };
        lines.push(format!("cgroups   {:<4} {controllers}{kill}", self.cgroups.kind.as_str()));
        for reason in &self.cgroups.reasons {
            lines.push(format!("               not: {reason}"));
        }
        let can = self.levels.keys().find_map(|level| self.layers.get(level));
        lines.push(match can {
            Some(None) => "app       yes  /app has a private writable layer".to_owned(),
            Some(Some(reason)) => format!("app       no   /app is read-only: {reason}"),
            None => "app       no   /app is read-only: only at levels strict and user".to_owned(),
        });
        lines.push(match &self.network {
            None => "network   yes  one a process: the internet, nothing of the machine".to_owned(),
            Some(why) => format!("network   no   processes share the machine's: {why}"),
        });
        lines.push(match self.landlock {
            0 => "landlock  no   not in this kernel, or switched off".to_owned(),
            version => format!("landlock  yes  version {version} of the kernel's interface"),
        });
        lines
    }
}

fn gives(level: Level) -> &'static str {
    match level {
        Level::Strict => {
            "uid per app; own mounts, processes, ipc, host name; read-only root; seccomp"
        }
        Level::User => {
            "user namespace; own mounts, processes, ipc, host name; read-only root; seccomp"
        }
        Level::Landlock => "landlock, seccomp, no new privileges, rlimits",
        Level::None => "a process group and rlimits; only when asked for by name",
    }
}

/// Where a try may write, while the disk of the state folder takes nothing: what runs on that disk was
/// there before, and goes on.
const ELSEWHERE: [&str; 3] = ["/tmp", "/run", "/dev/shm"];

/// A folder that a try may write to, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    /// In the state folder; where that is on a disk that takes no new folder and file, elsewhere.
    fn new(hidden: Option<&Path>, level: Level) -> Result<Self, Reason> {
        let mut refused = None;
        for within in hidden.into_iter().chain(ELSEWHERE.map(Path::new)) {
            match Self::within(within, level) {
                Ok(scratch) => return Ok(scratch),
                Err(error) => {
                    let stage = format!("make a folder in {}", within.display());
                    refused.get_or_insert(Reason::new(stage, sys::errno(&error)));
                }
            }
        }
        Err(refused.unwrap_or_else(|| Reason::new("make a folder", libc::ENOENT)))
    }

    fn within(within: &Path, level: Level) -> std::io::Result<Self> {
        let path = within.join(format!("probe-{}-{level}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let scratch = Self(path);
        // A disk may have room for the folder and for nothing in it.
        let file = scratch.0.join("space");
        fs::write(&file, "x")?;
        fs::remove_file(file)?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is an empty folder.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// What was found of a level.
#[derive(Default)]
struct Attempt {
    /// Why it cannot be had.
    refusal: Option<Reason>,
    /// Why it gives no writable layer.
    no_layer: Option<Reason>,
}

/// Runs a program in a level that writes to a mount, as every build and process does, and to a layer
/// above another.
fn attempt(spawner: &Spawner, level: Level) -> Result<Attempt, Error> {
    let refused = |reason| Ok(Attempt { refusal: Some(reason), no_layer: None });
    let scratch = match Scratch::new(spawner.hidden(), level) {
        Ok(scratch) => scratch,
        Err(reason) => return refused(reason),
    };
    let (written, layer) = (scratch.0.join("written"), scratch.0.join("layer"));
    for folder in [&written, &layer, &layer.join("below")] {
        // For whoever gets there, as a slug.
        let readable = fs::Permissions::from_mode(0o755);
        if let Err(error) =
            fs::create_dir(folder).and_then(|()| fs::set_permissions(folder, readable))
        {
            return refused(Reason::io("make a folder", &error));
        }
    }
    let mut spec = Spec::new(level, "probe");
    spec.mounts.push(Mount::read_write(&written, "/probe"));
    let mut argv = vec![b"touch".to_vec(), bytes(spec.view(Path::new("/probe/file")))];
    if level.has_own_root() {
        spec.mounts.push(Mount::private(&layer, "/layer"));
        argv.push(b"/layer/below/file".to_vec());
    }
    let exec = Exec { argv, env: vec![b"PATH=/usr/bin:/bin".to_vec()], cwd: "/".into() };
    spec.network = Network::Machine;
    let job = Job { spec, exec, time_limit: Some(TIME_LIMIT) };
    let cancel =
        Cancel::new().map_err(|source| Error::Io { what: "make an event descriptor", source })?;
    let mut said = Vec::new();
    match run(spawner, &job, &mut |_, bytes| said.extend_from_slice(bytes), &cancel) {
        Ok(status) if status.success() => Ok(Attempt::default()),
        Ok(_) if written.join("file").exists() => {
            let said = String::from_utf8_lossy(&said);
            let said = said.trim().chars().take(200).collect::<String>();
            Ok(Attempt { refusal: None, no_layer: Some(Reason::new(said, 0)) })
        }
        Ok(status) => {
            let status = status.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
            refused(Reason::new(format!("`touch` in a mount ended with {status}"), 0))
        }
        Err(Error::Enter { reason, .. }) => refused(reason),
        Err(Error::Io { what, source }) => refused(Reason::io(what, &source)),
        Err(Error::TimeLimit(limit)) => {
            refused(Reason::new(format!("run a program within {limit:?}"), libc::ETIMEDOUT))
        }
        Err(Error::Exec(bad)) => refused(Reason::new(bad.what, bad.errno)),
        Err(Error::Lost) => refused(Reason::new("the sandbox ended without a status", 0)),
        Err(other) => Err(other),
    }
}

fn bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_encoded_bytes()
}
