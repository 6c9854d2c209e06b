//! One process of one release, as it will be launched.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tolv_model::command::script;
use tolv_model::env::{Env, EnvError, EnvName};
use tolv_model::name::ProcessName;
use tolv_model::process_env::{Facts, STACK_PATH, process_env};
use tolv_model::profile::sourced;
use tolv_model::service::services_of;
use tolv_model::slug::Digest;
use tolv_sandbox::{Exec, Level, Limits, Network, Spec, view};

use crate::protocol::{Head, Orders};
use crate::target::{Settings, Target};

/// Where every process starts, as the contract says.
const HOME: &str = "/app";
/// Longest name that the kernel takes for a host.
const HOST_NAME: usize = 64;

/// What one process runs.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) target: Arc<Target>,
    pub(crate) name: ProcessName,
    pub(crate) command: String,
}

impl Plan {
    /// Whether a process of the other plan is one of this.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.target.release, &other.target.release);
        self.name == other.name
            && self.command == other.command
            && ours.number == theirs.number
            && ours.slug == theirs.slug
            && ours.config == theirs.config
    }

    /// By which another platform knows that a process runs this, at this level of isolation.
    pub(crate) fn digest(&self, level: Level) -> Digest {
        let release = &self.target.release;
        let facts = [
            level.to_string(),
            release.deploy.to_string(),
            release.number.0.to_string(),
            release.slug.to_string(),
            format!("{:?}", self.limits()),
            self.name.to_string(),
            self.command.clone(),
        ];
        let facts = facts.map(String::into_bytes).into_iter().chain(release.config.to_execve());
        // The length in front of each: no two lists give the same bytes.
        let bytes = facts.flat_map(|fact| [fact.len().to_le_bytes().to_vec(), fact].concat());
        Digest::of(&bytes.collect::<Vec<_>>())
    }

    /// How much it may take.
    pub(crate) fn limits(&self) -> &Limits {
        self.target.limits.of(&self.name.process_type)
    }

    /// The sandbox of a process with this port.
    pub(crate) fn spec(&self, settings: &Settings, port: u16) -> Spec {
        let mut hostname = self.name.to_string();
        hostname.truncate(HOST_NAME);
        Spec {
            stack: self.target.stack.clone(),
            mounts: self.target.mounts.clone(),
            limits: self.limits().clone(),
            network: match &settings.host_services {
                None => Network::Machine,
                Some(allowed) => {
                    let services = self.services().into_iter().map(|(_, service)| service);
                    // What the process is to listen on itself is nobody's else.
                    let services =
                        services.filter(|service| allowed.allow(service) && service.port() != port);
                    Network::Own {
                        services: services.collect::<BTreeSet<_>>().into_iter().collect(),
                    }
                }
            },
            hostname,
            ..Spec::new(settings.level, &self.target.release.deploy.to_string())
        }
    }

    /// The services of the machine that its config names.
    pub(crate) fn services(&self) -> Vec<(EnvName, SocketAddr)> {
        services_of(&self.target.release.config)
    }

    /// Ports at which it finds services: its own is another.
    pub(crate) fn service_ports(&self) -> BTreeSet<u16> {
        self.services().iter().map(|(_, service)| service.port()).collect()
    }

    /// What is said of a service that it names and may not reach.
    pub(crate) fn refused_services(&self, settings: &Settings) -> Vec<String> {
        let Some(allowed) = &settings.host_services else { return Vec::new() };
        let refused = self.services().into_iter().filter(|(_, service)| !allowed.allow(service));
        refused
            .map(|(name, service)| {
                format!(
                    "Warning: {name} names {service} on this machine, which processes do not \
                     reach; the operator allows it by adding {service} to TOLV_HOST_SERVICES"
                )
            })
            .collect()
    }

    pub(crate) fn env(&self, settings: &Settings, port: u16) -> Result<Env, EnvError> {
        let Target { mounts, slug_env, slug_path, .. } = &*self.target;
        let limits = self.limits();
        let seen = |target: &str| {
            view(settings.level, mounts, Path::new(target)).to_string_lossy().into_owned()
        };
        // Lists of paths too, as in NODE_PATH.
        let seen_all = |value: &str| {
            let part =
                |part: &str| if part.starts_with('/') { seen(part) } else { part.to_owned() };
            value.split(':').map(part).collect::<Vec<_>>().join(":")
        };
        let slug_env = slug_env.iter().map(|(name, value)| {
            let value = if value.starts_with('/') { seen_all(value) } else { value.clone() };
            (name.clone(), value)
        });
        process_env(&Facts {
            release: &self.target.release,
            process: &self.name,
            port,
            home: &seen(HOME),
            slug_env: &slug_env.collect(),
            slug_path: &slug_path.iter().map(|folder| seen(folder)).collect::<Vec<_>>(),
            stack_path: match settings.level.has_own_root() {
                true => STACK_PATH,
                false => &settings.search_path,
            },
            memory: limits.memory,
            // Without a limit of its own it may have all that the machine has.
            cpu_percent: limits.cpu_percent.or_else(|| limits.memory.and_then(|_| cores())),
        })
    }

    /// The words of one of its processes, behind what is sourced first.
    pub(crate) fn words(&self, settings: &Settings, words: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let home = view(settings.level, &self.target.mounts, Path::new(HOME));
        let seen = |path: &String| home.join(path).into_os_string().into_encoded_bytes();
        sourced(&self.target.profile.iter().map(seen).collect::<Vec<_>>(), words)
    }

    /// What the shim is told.
    pub(crate) fn orders(
        &self,
        settings: &Settings,
        port: u16,
        writer: u64,
    ) -> Result<Orders, EnvError> {
        let cwd = view(settings.level, &self.target.mounts, Path::new(HOME));
        Ok(Orders {
            head: Head::new(
                self.name.to_string(),
                self.target.release.number.0,
                cwd.to_string_lossy().into_owned(),
                writer,
                settings.log_limits(),
            ),
            argv: self.words(
                settings,
                vec![b"/bin/sh".to_vec(), b"-c".to_vec(), script(&self.command).into_bytes()],
            ),
            env: self.env(settings, port)?.to_execve(),
        })
    }

    /// A program beside the process, for a health check.
    pub(crate) fn beside(
        &self,
        settings: &Settings,
        port: u16,
        argv: &[String],
    ) -> Result<Exec, EnvError> {
        Ok(Exec {
            argv: self.words(settings, argv.iter().map(|word| word.clone().into_bytes()).collect()),
            env: self.env(settings, port)?.to_execve(),
            cwd: view(settings.level, &self.target.mounts, Path::new(HOME)),
        })
    }
}

/// Of this machine, in percent of one.
fn cores() -> Option<u32> {
    let cores = std::thread::available_parallelism().ok()?;
    u32::try_from(cores.get()).ok()?.checked_mul(100)
}

#[cfg(test)]
mod tests;
