//! What the unit tests of this crate share: a release, and an engine that cannot start anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tolv_model::env::Env;
use tolv_model::formation::{First, Formation};
use tolv_model::name::{Deploy, DeployName};
use tolv_model::release::{Release, ReleaseNumber};
use tolv_model::slug::{Digest, SlugId};
use tolv_sandbox::{Level, Mount, Spawner};

use crate::plan::Plan;
use crate::target::{Settings, Target, TypeLimits};

/// Settings whose spawner has ended: every launch fails.
pub(crate) fn settings(level: Level, logs: &Path) -> Settings {
    let spawner = Spawner::start(Path::new("/bin/true"), &[]).unwrap();
    Settings::new(spawner, level, logs.to_owned())
}

/// One of each type.
pub(crate) fn release(number: u32, types: &[(&str, &str)]) -> Release {
    let types: BTreeMap<_, _> = types
        .iter()
        .map(|(kind, command)| (kind.parse().unwrap(), (*command).to_owned()))
        .collect();
    Release {
        deploy: Deploy { app: "shop".parse().unwrap(), name: DeployName::local() },
        number: ReleaseNumber(number),
        slug: SlugId(Digest::of(b"slug")),
        commit: None,
        config: Env::default(),
        formation: Formation::first(types.keys(), First::Each),
        process_types: types,
    }
}

pub(crate) fn target(release: Release) -> Target {
    Target {
        release: Arc::new(release),
        stack: Vec::new(),
        mounts: vec![
            Mount::read_only("/srv/slug", "/app"),
            Mount::read_only("/srv/layer", "/layers/abc"),
        ],
        slug_env: BTreeMap::new(),
        slug_path: Vec::new(),
        profile: Vec::new(),
        checks: BTreeMap::new(),
        limits: TypeLimits::default(),
    }
}

/// A process of release 1 with an empty config.
pub(crate) fn plan(name: &str, command: &str) -> Plan {
    Plan {
        target: Arc::new(target(release(1, &[("web", "serve"), ("worker", "work")]))),
        name: name.parse().unwrap(),
        command: command.to_owned(),
    }
}
