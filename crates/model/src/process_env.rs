//! The environment of one process: what the builder, the config and the platform say, in this
//! order, the later one winning.
//!
//! `PATH` is put together instead: the slug's folders first, then the config's `PATH` or the
//! stack's.

use std::collections::BTreeMap;

use crate::env::{Env, EnvError};
use crate::name::ProcessName;
use crate::release::Release;

/// Where the programs of the stack are.
pub const STACK_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Memory that one worker of a server is given by default, in bytes: as Heroku's `WEB_MEMORY`.
const PER_WORKER: u64 = 512 << 20;

/// What the platform knows about the process.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What it runs.
    pub release: &'a Release,
    /// Its name: `web.1`.
    pub process: &'a ProcessName,
    /// The port it must bind.
    pub port: u16,
    /// Its home, as it sees it: `/app`, or where the slug is without a root of its own.
    pub home: &'a str,
    /// Environment that the slug gives.
    pub slug_env: &'a BTreeMap<String, String>,
    /// Folders that the slug puts in front of `PATH`, as the process sees them.
    pub slug_path: &'a [String],
    /// `PATH` where config has none.
    pub stack_path: &'a str,
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// CPU limit, 100 for one core.
    pub cpu_percent: Option<u32>,
}

/// Makes the environment.
///
/// # Errors
///
/// The slug's environment has a bad name, or all of it is too large; never because of what the
/// platform adds alone.
pub fn process_env(facts: &Facts<'_>) -> Result<Env, EnvError> {
    let Facts { release, process, .. } = facts;
    let mut env = Env::default();
    env.set("LANG".parse()?, "C.UTF-8")?;
    env.set("PYTHONUNBUFFERED".parse()?, "1")?;
    for (name, value) in facts.slug_env {
        env.set(name.parse()?, value.as_bytes())?;
    }
    for (name, value) in release.config.iter() {
        env.set(name.clone(), value.as_bytes())?;
    }
    let base = release.config.get("PATH").map_or(facts.stack_path.as_bytes(), |p| p.as_bytes());
    let path = facts.slug_path.iter().map(String::as_bytes).chain([base]);
    env.set("PATH".parse()?, path.collect::<Vec<_>>().join(&b':'))?;
    if let (None, Some(workers)) =
        (env.get("WEB_CONCURRENCY"), concurrency(facts.memory, facts.cpu_percent))
    {
        env.set("WEB_CONCURRENCY".parse()?, workers.to_string())?;
    }
    let number = release.number.to_string();
    let name = process.to_string();
    let commit = release.commit.as_deref();
    for (key, value) in [
        ("HOME", Some(facts.home)),
        ("PORT", Some(&*facts.port.to_string())),
        ("TOLV_APP", Some(release.deploy.app.as_str())),
        ("TOLV_DEPLOY", Some(release.deploy.name.as_str())),
        ("TOLV_RELEASE", Some(&number)),
        ("TOLV_COMMIT", commit),
        ("TOLV_PROCESS", Some(&name)),
        ("TOLV_SLUG", Some(&release.slug.to_string())),
        ("DYNO", Some(&name)),
        ("HEROKU_RELEASE_VERSION", Some(&number)),
        ("HEROKU_SLUG_COMMIT", commit),
    ] {
        if let Some(value) = value {
            env.set(key.parse()?, value)?;
        }
    }
    Ok(env)
}

/// How many workers a server may start: as many as the memory holds, two a core at most.
fn concurrency(memory: Option<u64>, cpu_percent: Option<u32>) -> Option<u64> {
    let by_memory = memory.map(|bytes| bytes / PER_WORKER);
    let by_cpu = cpu_percent.map(|percent| u64::from(percent).div_ceil(50));
    let workers = match (by_memory, by_cpu) {
        (None, None) => return None,
        (Some(one), None) | (None, Some(one)) => one,
        (Some(memory), Some(cpu)) => memory.min(cpu),
    };
    Some(workers.clamp(1, 64))
}

#[cfg(test)]
mod tests;
