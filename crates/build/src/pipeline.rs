//! The whole way from a source to a slug.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tolv_model::app_json::{AppJson, Generator, Variable};
use tolv_model::buildpack::Buildpack;
use tolv_model::env::{Env, EnvName};
use tolv_model::name::ProcessType;
use tolv_model::procfile::Procfile;
use tolv_model::profile;
use tolv_model::service::HostServices;
use tolv_model::slug::{Declared, Digest, Manifest, SlugId};
use tolv_model::stack::StackName;
use tolv_sandbox::{Cancel, Level, Mount, Spawner};

use crate::caps::Caps;
use crate::exec::{Executor, named_files};
use crate::files::{self, Lock};
use crate::layers::{Layers, Workshop, link};
use crate::needs::Places;
use crate::packs::Work;
use crate::plan::Plan;
use crate::proof::Proofs;
use crate::resolution::Resolution;
use crate::slots::Slot;
use crate::slugs::{Slugs, pack};
use crate::snapshot::{self, Stamps};
use crate::source::git::Git;
use crate::source::submodules::Submodules;
use crate::source::{Source, shown};
use crate::stacks::{STACKS, Stack};
use crate::toolchains::{Layout, SYSTEM, Toolchains};
use crate::tree::Tree;
use crate::{Error, Event, builders, scripts};

mod declarations;
mod packs;
mod resolve;
mod stack;

pub(crate) use declarations::process_types;
use declarations::{Files, declared, procfile, procfile_of, unknown_types};
use resolve::Made;
pub use resolve::lock;
use stack::stack;

/// Where the processes of a slug see it.
pub(crate) const APP: &str = "/app";
/// Where they see its layers.
pub(crate) const LAYERS: &str = "/layers";

/// What a build may know of the machine that it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The running `tolv`.
    pub program: PathBuf,
    /// The operator's `PATH`: git is looked for there.
    pub search_path: OsString,
    /// The operator's home folder.
    pub user_home: Option<PathBuf>,
    /// Variables for registries, proxies and CA certificates, those that
    /// [`passes`](crate::passes) names.
    pub registry: BTreeMap<String, OsString>,
    /// The folder of toolchains that the operator names, which several platforms may share.
    pub toolchains: Option<PathBuf>,
    /// The stack that builds take place on; the machine's own programs without one.
    pub stack: Option<StackName>,
    /// The folder of stacks that the operator names, which several platforms may share.
    pub stacks: Option<PathBuf>,
}

impl Host {
    /// The folder of stacks of a platform with this state folder.
    pub fn stacks(&self, home: &Path) -> PathBuf {
        self.stacks.clone().unwrap_or_else(|| home.join(STACKS))
    }

    /// The folder of toolchains of a platform with this state folder.
    pub fn toolchains(&self, home: &Path) -> PathBuf {
        self.toolchains.clone().unwrap_or_else(|| home.join(TOOLCHAINS))
    }
}

/// The name of the folder of toolchains in a state folder.
pub const TOOLCHAINS: &str = "toolchains";

/// What is to be built, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The codebase.
    pub source: Source,
    /// The app's folder: its slugs, its layers, its cache. What a build of another app could write
    /// to is none of it.
    pub home: PathBuf,
    /// Where fetched toolchains are. No step can write there: apps share it.
    pub toolchains: PathBuf,
    /// Where stacks are.
    pub stacks: PathBuf,
    /// Forks the sandboxed steps.
    pub spawner: Spawner,
    /// How strongly they are shut in.
    pub level: Level,
    /// The machine.
    pub host: Host,
    /// Limits.
    pub caps: Caps,
    /// Ends the build when it is pulled.
    pub cancel: Cancel,
    /// What of the app's slugs and layers was proven.
    pub proofs: Proofs,
    /// Services of the machine that the URL of a submodule or buildpack may name, where it is fetched.
    pub host_services: HostServices,
    /// What builds it, where the operator says so; else the codebase does.
    pub buildpacks: Vec<Buildpack>,
    /// Config that it gets.
    pub config: BuildConfig,
}

/// The config that a build gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildConfig {
    /// The variables.
    pub vars: Env,
    /// For each a digest of its value under a key that nobody else has: what says it in the slug.
    pub digests: BTreeMap<EnvName, String>,
}

impl BuildConfig {
    /// What everything is keyed with that sees it; nothing where there is none.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let text = || format!("tolv build config 1\n{:?}", self.digests);
        (!self.digests.is_empty()).then(|| Digest::of(text().as_bytes()))
    }

    /// A key with that.
    fn keyed(&self, key: Digest) -> Digest {
        self.digest().map_or(key, |config| Digest::of(format!("{key}\n{config}").as_bytes()))
    }
}

/// A slug, with what its release needs to know.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its identity.
    pub slug: SlugId,
    /// What is in it.
    pub manifest: Manifest,
    /// The codebase's app.json; the default where there is none.
    pub app_json: AppJson,
    /// `<hex>`, `<hex>+dirty`, or nothing for a codebase without commits.
    pub commit: Option<String>,
    /// Its tree on the host.
    pub dir: PathBuf,
    /// What its processes see beside the stack: the slug, its layers, its toolchains.
    pub mounts: Vec<Mount>,
    /// What should be looked at, as told in [`Event::Warning`]s.
    pub warnings: Vec<String>,
}

/// Makes a slug of a source. Blocks; of two builds of one app at once, one waits.
///
/// # Errors
///
/// Every variant of [`Error`]; no half-made slug or layer is left.
pub fn build(request: &Request, events: &mut dyn FnMut(Event)) -> Result<Built, Error> {
    let mut warnings = Vec::new();
    let mut events = |event: Event| {
        if let Event::Warning(text) = &event {
            warnings.push(text.clone());
        }
        events(event);
    };
    let mut pipeline = Pipeline::open(request, &mut events)?;
    let built = pipeline.run(&mut events);
    if pipeline.cancelled() {
        pipeline.slot.end_soon();
    }
    built.map(|built| Built { warnings, ..built })
}

struct Pipeline<'a> {
    request: &'a Request,
    home: PathBuf,
    slugs: Slugs,
    layers: Layers,
    slot: Slot,
    layout: Layout,
    /// The cache on the host.
    cache: PathBuf,
    toolchains: PathBuf,
    stack: Option<Stack>,
    /// Milliseconds that making a lock, or buildpacks before a builder, took, which count as time of the
    /// build.
    resolved_ms: AtomicU64,
}

impl<'a> Pipeline<'a> {
    fn open(request: &'a Request, events: &mut dyn FnMut(Event)) -> Result<Self, Error> {
        files::make_folder(&request.home)?;
        let home = request.home.canonicalize().map_err(Error::io("look at", &request.home))?;
        let slugs = Slugs::open(&home)?;
        let layers = Layers::open(slugs.folder())?;
        let slot = Slot::take_until(&home.join("builds"), &|| request.cancel.is_cancelled())?;
        // One for each layout: tools bake paths in, and where steps have a uid of their own, the
        // others cannot write what they leave.
        let own_root = request.level.has_own_root();
        let cache = home.join("cache").join(if own_root { "sandboxed" } else { "plain" });
        let layout = if own_root {
            Layout::sandboxed()
        } else {
            Layout {
                app: slot.path().join("app"),
                layers: layers.folder().to_owned(),
                cache: cache.clone(),
            }
        };
        files::check_own(&request.toolchains)?;
        files::make_folder(&request.toolchains)?;
        let toolchains = request.toolchains.canonicalize();
        let toolchains = toolchains.map_err(Error::io("look at", &request.toolchains))?;
        let stack = stack(request, events)?;
        let resolved_ms = AtomicU64::new(0);
        Ok(Self {
            request,
            home,
            slugs,
            layers,
            slot,
            layout,
            cache,
            toolchains,
            stack,
            resolved_ms,
        })
    }

    fn cancelled(&self) -> bool {
        self.request.cancel.is_cancelled()
    }

    fn git(&self) -> Git {
        let host = &self.request.host;
        Git { path: host.search_path.clone(), home: host.user_home.clone() }
    }

    /// The codebase's files, and the commit that they are of.
    fn tree(&self, events: &mut dyn FnMut(Event)) -> Result<(Tree, Option<String>), Error> {
        let (request, host) = (self.request, &self.request.host);
        let (caps, cancel) = (&request.caps, &request.cancel);
        let services = &request.host_services;
        let mut submodules =
            Submodules::new(&self.home, &host.registry, services, (caps, cancel), &mut *events);
        let export = self.folder("export")?;
        let git = self.git();
        let listing = request.source.list(&git, &export, caps, cancel, Some(&mut submodules))?;
        submodules.finish()?;
        let tree = snapshot::take(&listing, caps, &|| self.cancelled())?;
        for warning in &listing.warnings {
            events(Event::Warning(warning.clone()));
        }
        if let Some(warning) = lfs_warning(&tree) {
            events(Event::Warning(warning));
        }
        Ok((tree, listing.commit))
    }

    /// Lets a builder look at the machine; the locks that it asks for are made of `tree`.
    fn with_toolchains<T>(
        &self,
        tree: &Tree,
        made: Made,
        events: &mut dyn FnMut(Event),
        ask: impl FnOnce(&mut Toolchains<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let host = &self.request.host;
        let mut resolve = |wanted: &Resolution, events: &mut dyn FnMut(Event)| {
            self.resolve(tree, wanted, made, events)
        };
        ask(&mut Toolchains {
            folder: self.toolchains.clone(),
            system: SYSTEM.iter().map(PathBuf::from).collect(),
            proofs: &self.request.proofs,
            user_home: host.user_home.clone(),
            env: &host.registry,
            tolv: host.program.clone(),
            layout: self.layout.clone(),
            config: self.request.config.digest(),
            stack: self.stack.as_ref().map(|stack| stack.id.digest()),
            events,
            cancelled: &|| self.cancelled(),
            resolver: &mut resolve,
            require_lock: self.request.caps.require_lock,
            ignored: &|name| match &self.request.source {
                Source::WorkingTree { dir } => {
                    dir.join(name).is_file() && self.git().is_ignored(dir, name)
                }
                Source::Pushed { .. } | Source::Commit { .. } => false,
            },
        })
    }

    /// What runs the steps of the build, within what is left of its time.
    fn executor<'b>(
        &'b self,
        commit: Option<&'b str>,
        cancelled: &'b (dyn Fn() -> bool + Sync),
    ) -> Executor<'b> {
        let request = self.request;
        let spent = Duration::from_millis(self.resolved_ms.load(Ordering::Relaxed));
        Executor {
            spawner: &request.spawner,
            level: request.level,
            identity: format!("build {}", self.home.display()),
            layout: &self.layout,
            stack: self.stack.as_ref(),
            env: &request.host.registry,
            caps: request.caps,
            cancelled,
            deadline: Instant::now() + request.caps.time.saturating_sub(spent),
            cache: &self.cache,
            commit,
            config: &request.config.vars,
        }
    }

    /// Waits until no other build of the app uses its cache, and makes it ready.
    fn lock_cache(&self, events: &mut dyn FnMut(Event)) -> Result<Lock, Error> {
        let cancelled = || self.cancelled();
        let lock = Lock::take(&self.home.join("cache.lock"), &cancelled, &mut || {
            events(Event::Heading("Waiting for another build".to_owned()));
        })?;
        if files::disk_use(&self.cache) > self.request.caps.cache {
            // Else the build that filled it would have been the last one.
            events(Event::Heading("Emptying the build cache, which is over its limit".to_owned()));
            files::remove_until(&self.cache, &cancelled)?;
        }
        self.empty_cache_of_another_stack(events)?;
        files::make_folder(&self.cache.join("home"))?;
        Ok(lock)
    }

    fn run(&self, events: &mut dyn FnMut(Event)) -> Result<Built, Error> {
        let request = self.request;
        let (mut tree, commit) = self.tree(events)?;
        let mut declared = declared(&tree, events)?;
        let wanted = self.wanted(&tree, &declared.app_json)?;
        let mut work = self.fetch_packs(&wanted, &tree, commit.as_deref(), events)?;
        if !wanted.builders.is_empty() && !wanted.first.is_empty() {
            tree = self.stage(&tree, &mut work, wanted.first.len(), events)?;
            declared.procfile = procfile(&tree)?;
        }
        let plan = match wanted.is_alone() {
            true => Plan::new("buildpacks", 1),
            false => self.with_toolchains(&tree, Made::Before, events, |toolchains| {
                builders::plan(&tree, toolchains, &wanted.builders)
            })?,
        };
        for note in &plan.notes {
            events(Event::line(note.clone()));
        }
        for warning in &plan.warnings {
            events(Event::Warning(warning.clone()));
        }
        // What a buildpack says of them is known once it has run.
        let process_types = match work.has_more() {
            true => BTreeMap::new(),
            false => work.process_types(&plan, declared.procfile.as_ref())?,
        };
        let input = work.input(input(&tree, &plan, &process_types), &self.layout);
        let input = self.keyed(input);
        let known = self.known(&input)?;
        let (slug, manifest) = match known {
            Some(known) => {
                events(Event::Heading("Nothing has changed since the last build".to_owned()));
                known
            }
            None => {
                let manifest = self.make(&tree, &plan, &mut work, &declared, events)?;
                let app = self.slot.path().join("app");
                let id = self.slugs.put(&app, &manifest, &request.proofs)?;
                self.slugs.remember(&input, id)?;
                (id, manifest)
            }
        };
        for warning in unknown_types(&declared.app_json, &manifest.process_types) {
            events(Event::Warning(warning));
        }
        let dir = self.slugs.path(slug);
        for warning in scripts::warnings(&manifest.process_types, &manifest.entries, &dir) {
            events(Event::Warning(warning));
        }
        tell(&plan, declared.procfile.as_ref(), &manifest, slug, events);
        Ok(Built {
            slug,
            mounts: self.places().mounts(slug, &manifest)?,
            dir,
            manifest,
            app_json: declared.app_json,
            commit,
            warnings: Vec::new(),
        })
    }

    /// The slug that this input gave before, if it and its layers are what they were.
    fn known(&self, input: &Digest) -> Result<Option<(SlugId, Manifest)>, Error> {
        let proofs = &self.request.proofs;
        let Some((id, manifest)) = self.slugs.known(input, proofs)? else { return Ok(None) };
        for layer in &manifest.layers {
            if self.layers.proven(layer, proofs)?.is_err() {
                return Ok(None);
            }
        }
        // The input has the toolchains' versions; this machine may have forgotten where they are.
        Ok(self.places().mounts(id, &manifest).is_ok().then_some((id, manifest)))
    }

    fn places(&self) -> Places {
        Places {
            home: self.home.clone(),
            toolchains: self.toolchains.clone(),
            stacks: self.request.stacks.clone(),
            program: self.request.host.program.clone(),
        }
    }

    /// An empty folder of the build's own.
    fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.slot.path().join(name);
        files::make_folder(&path)?;
        Ok(path)
    }

    /// Carries out the plan, in the slot's `app`.
    fn make(
        &self,
        tree: &Tree,
        plan: &Plan,
        work: &mut Work,
        declared: &Files,
        events: &mut dyn FnMut(Event),
    ) -> Result<Manifest, Error> {
        let (request, app_json) = (self.request, &declared.app_json);
        let cancelled = || self.cancelled();
        let _lock = self.lock_cache(events)?;
        let stamps_path = self.home.join("stamps.json");
        let stamps = Stamps::load(&stamps_path).update(tree, SystemTime::now());
        stamps.save(&stamps_path)?;
        let app = self.slot.path().join("app");
        snapshot::place(tree, &app, &stamps)?;
        let empty = self.folder("empty")?;
        let commit = work.commit().map(str::to_owned);
        let executor = self.executor(commit.as_deref(), &cancelled);
        let mut mounts = named_files(&request.host.registry);
        for toolchain in &plan.toolchains {
            mounts.push(Mount::read_only(&toolchain.source, &toolchain.target));
        }
        mounts.push(Mount::read_write(&self.cache, &self.layout.cache));
        let mut made = Vec::new();
        for layer in &plan.layers {
            let shop = Workshop {
                executor: &executor,
                tree,
                app: &app,
                empty: &empty,
                mounts: mounts.clone(),
                proofs: &request.proofs,
            };
            let got = self.layers.get(plan, layer, &shop, events)?;
            mounts.push(Mount::read_only(self.layers.path(&layer.key), &layer.path));
            link(&app, layer)?;
            if layer.at_run {
                made.push(got);
            }
        }
        mounts.push(Mount::read_write(&app, &self.layout.app));
        let exports = [mounts.clone(), work.mounts()].concat();
        for step in &plan.steps {
            let step = work.with_exports(step);
            executor.run(plan, &step, &exports, &[("the slug", &app)], events)?;
        }
        let process_types = match work.has_more() {
            true => {
                work.run_all(&executor, plan, (&mounts, &app), events)?;
                work.process_types(plan, procfile_of(&app)?.as_ref())?
            }
            false => work.process_types(plan, declared.procfile.as_ref())?,
        };
        events(Event::Heading("Packing the slug".to_owned()));
        let entries = pack(&app, plan, &self.layout, &request.caps, &cancelled)?;
        let at_run = plan.toolchains.iter().filter(|toolchain| toolchain.at_run);
        let places = self.places();
        Ok(Manifest {
            profile: profile::scripts(&entries),
            entries,
            layers: made,
            toolchains: at_run.map(|one| places.name(one)).collect::<Result<_, _>>()?,
            process_types,
            env: work.env(plan),
            path: plan.path.clone(),
            build_config: request.config.digests.clone(),
            buildpacks: work.used(),
            stack: self.stack.as_ref().map(|stack| stack.id.clone()),
            declared: Declared {
                checks: app_json.checks(),
                formation: app_json.formation(),
                sizes: app_json.sizes(),
                env: with_secrets(&app_json.env, &plan.secrets),
                cron: app_json.cron.clone(),
            },
        })
    }
}

/// Config that app.json declares, and the secrets that the builder asks for: what app.json says of one
/// of them stands.
fn with_secrets(
    declared: &BTreeMap<EnvName, Variable>,
    secrets: &[EnvName],
) -> BTreeMap<EnvName, Variable> {
    let mut all = declared.clone();
    for name in secrets {
        all.entry(name.clone()).or_insert_with(|| Variable {
            description: None,
            value: None,
            required: true,
            generator: Some(Generator::Secret),
        });
    }
    all
}

/// Names pointers of Git LFS: no filter runs on a commit, and none here on a folder.
fn lfs_warning(tree: &Tree) -> Option<String> {
    let pointers = tree.lfs_pointers();
    let first = shown(pointers.first()?);
    let files = match pointers.len() - 1 {
        0 => format!("`{first}` is a Git LFS pointer"),
        1 => format!("`{first}` and 1 more file are Git LFS pointers"),
        more => format!("`{first}` and {more} more files are Git LFS pointers"),
    };
    Some(format!(
        "{files}, and the build has that in place of the content: run `git lfs pull` in a folder \
         that is built as it is; for what is pushed, commit the content itself \
         (`git lfs migrate export`)"
    ))
}

/// Digest of all that decides the slug: a build of the same input would give the same again.
fn input(tree: &Tree, plan: &Plan, process_types: &BTreeMap<ProcessType, String>) -> Digest {
    // What is shown and not used changes nothing.
    let bare = Plan { notes: Vec::new(), warnings: Vec::new(), ..plan.clone() };
    let text = format!("tolv input 1\n{}\n{process_types:?}\n{bare:?}", snapshot::digest(tree));
    Digest::of(text.as_bytes())
}

/// The last lines of a build's output.
fn tell(
    plan: &Plan,
    procfile: Option<&Procfile>,
    manifest: &Manifest,
    slug: SlugId,
    events: &mut dyn FnMut(Event),
) {
    let names: Vec<_> = manifest.process_types.keys().map(ProcessType::as_str).collect();
    events(Event::Heading(format!("Process types: {}", names.join(", "))));
    if procfile.is_none() {
        for (kind, command) in &manifest.process_types {
            events(Event::line(format!("{kind}: {command} (from the {} builder)", plan.builder)));
        }
    }
    let size = crate::caps::bytes(manifest.size());
    events(Event::Heading(format!("Slug {slug}")));
    events(Event::line(format!("{} files, {size}", manifest.files())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_do_not_change_the_input() {
        let tree = Tree::new("/nowhere".into(), BTreeMap::new());
        let types = BTreeMap::from([(ProcessType::web(), "x".to_owned())]);
        let mut plan = Plan::new("go", 1);
        let before = input(&tree, &plan, &types);
        plan.notes.push("found".to_owned());
        assert_eq!(input(&tree, &plan, &types), before);
        plan.version = 2;
        assert_ne!(input(&tree, &plan, &types), before);
    }
}
