//! Buildpacks in the pipeline: which ones, where they come from, and those that run before a builder
//! looks at the codebase.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tolv_model::app_json::AppJson;
use tolv_model::buildpack::{self, Buildpack, Source};
use tolv_model::slug::Entry;
use tolv_sandbox::Mount;

use super::Pipeline;
use crate::exec::named_files;
use crate::packs::{Pack, Wanted, Work, missing_part};
use crate::plan::Plan;
use crate::repository::{GitLimits, GitSandbox};
use crate::slugs::pack;
use crate::snapshot::{self, Stamps};
use crate::source::Source as Codebase;
use crate::source::buildpacks::Repositories;
use crate::tree::Tree;
use crate::{Error, Event, files};

impl Pipeline<'_> {
    /// The buildpacks of a codebase: the operator's, else those of `.buildpacks`, else of app.json.
    pub(super) fn wanted(&self, tree: &Tree, app_json: &AppJson) -> Result<Wanted, Error> {
        if !self.request.buildpacks.is_empty() {
            return Ok(Wanted::of(&self.request.buildpacks));
        }
        if let Some(text) = tree.text(buildpack::FILE)? {
            let list = buildpack::parse_list(&text).map_err(Error::Source)?;
            if !list.is_empty() {
                return Ok(Wanted::of(&list));
            }
        }
        Ok(Wanted::of(&app_json.buildpacks))
    }

    /// Fetches the buildpacks that are not Tolv's own builders, each into a folder of this build.
    pub(super) fn fetch_packs(
        &self,
        wanted: &Wanted,
        tree: &Tree,
        commit: Option<&str>,
        events: &mut dyn FnMut(Event),
    ) -> Result<Work, Error> {
        let mut work = Work::new(commit);
        let all: Vec<&Buildpack> = wanted.first.iter().chain(&wanted.last).collect();
        if all.is_empty() {
            return Ok(work);
        }
        let request = self.request;
        let sandbox = match &request.source {
            Codebase::Pushed { repository, .. } => repository.sandbox().clone(),
            Codebase::Commit { .. } | Codebase::WorkingTree { .. } => GitSandbox {
                spawner: request.spawner.clone(),
                level: request.level,
                limits: GitLimits::default(),
            },
        };
        let mut repositories = None;
        for (place, buildpack) in all.into_iter().enumerate() {
            let dir = self.folder(&format!("buildpacks/{place}"))?;
            let (commit, paths) = match buildpack.source() {
                Source::Git { url, reference, .. } => {
                    let repositories = match &mut repositories {
                        Some(open) => open,
                        none => none.insert(Repositories::open(
                            &self.home,
                            sandbox.clone(),
                            (&request.host.registry, &request.host_services),
                            (&request.caps, &request.cancel),
                            events,
                        )?),
                    };
                    let (commit, paths) =
                        repositories.get((url, reference.as_deref()), &dir, events)?;
                    (Some(commit), paths)
                }
                Source::Folder(folder) => {
                    let part = part(tree, folder);
                    snapshot::place(&part, &dir, &Stamps::default())?;
                    (None, part.entries().keys().cloned().collect())
                }
            };
            if let Some(missing) = missing_part(&paths) {
                let why = match buildpack.source() {
                    Source::Folder(folder) if paths.is_empty() => format!(
                        "there is no folder `{folder}` in the codebase; for a buildpack that is not \
                         Heroku's, write the https URL of its git repository"
                    ),
                    _ => format!("it has no `{missing}`"),
                };
                return Err(Error::Source(format!("`{buildpack}` is not a buildpack: {why}")));
            }
            let seen = match request.level.has_own_root() {
                true => format!("/buildpacks/{place}").into(),
                false => dir.clone(),
            };
            let release = paths.contains(b"bin/release".as_slice());
            let pack = Pack { name: buildpack.to_string(), commit, dir, seen, release };
            events(Event::Heading(pack.heading()));
            work.add(pack);
        }
        if let Some(repositories) = repositories {
            repositories.finish()?;
        }
        let env = self.folder("env")?;
        let vars = request.config.vars.iter().filter(|(name, _)| name.enters_builds());
        for (name, value) in vars {
            let path = env.join(name.as_str());
            std::fs::write(&path, value.as_bytes()).map_err(Error::io("write", &path))?;
            files::set_mode(&path, 0o644)?;
        }
        // Whatever the umask is: a step with a uid of its own reads it.
        files::set_mode(&env, 0o755)?;
        let seen = match request.level.has_own_root() {
            true => "/env".into(),
            false => env.clone(),
        };
        work.set_env(env, seen);
        Ok(work)
    }

    /// Runs the first buildpacks on a copy of the codebase: what they leave is the codebase of the
    /// builder behind them.
    pub(super) fn stage(
        &self,
        tree: &Tree,
        work: &mut Work,
        count: usize,
        events: &mut dyn FnMut(Event),
    ) -> Result<Tree, Error> {
        let begin = Instant::now();
        let cancelled = || self.cancelled();
        let _lock = self.lock_cache(events)?;
        let app = self.slot.path().join("app");
        files::remove_until(&app, &cancelled)?;
        snapshot::place(tree, &app, &Stamps::default())?;
        let plan = Plan::new("buildpacks", 1);
        let commit = work.commit().map(str::to_owned);
        let executor = self.executor(commit.as_deref(), &cancelled);
        let mut mounts = named_files(&self.request.host.registry);
        mounts.push(Mount::read_write(&self.cache, &self.layout.cache));
        mounts.push(Mount::read_write(&app, &self.layout.app));
        for _ in 0..count {
            work.run_next(&executor, &plan, (&mounts, &app), events)?;
        }
        let entries = pack(&app, &plan, &self.layout, &self.request.caps, &cancelled)?;
        let staged = self.slot.path().join("staged");
        files::set_mode(&app, 0o755)?;
        std::fs::rename(&app, &staged).map_err(Error::io("move", &app))?;
        let spent = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.resolved_ms.fetch_add(spent, Ordering::Relaxed);
        let entries = entries.into_iter().filter(|(_, entry)| *entry != Entry::Directory);
        Ok(Tree::new(staged, entries.collect()))
    }
}

/// A folder of a codebase.
fn part(tree: &Tree, folder: &str) -> Tree {
    if folder.is_empty() {
        return tree.clone();
    }
    let below = format!("{folder}/").into_bytes();
    let entries = tree.entries().iter().filter_map(|(path, entry)| {
        Some((path.strip_prefix(below.as_slice())?.to_vec(), entry.clone()))
    });
    Tree::new(tree.root().join(folder), entries.collect())
}
