//! Making the lock that a codebase lacks, and writing one into a codebase.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tolv_sandbox::Mount;

use super::{Pipeline, Request};
use crate::exec::named_files;
use crate::resolution::{LockFile, Resolution, Resolutions, read_result};
use crate::snapshot::{self, Stamps};
use crate::source::Source;
use crate::tree::Tree;
use crate::{Error, Event, builders, files};

/// Whether a lock that was made before will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// One that was made of the same input is taken.
    Before,
    /// It is made again.
    Now,
}

impl Pipeline<'_> {
    /// The lock that this describes: the kept one, or a new one, which is kept.
    pub(super) fn resolve(
        &self,
        tree: &Tree,
        wanted: &Resolution,
        made: Made,
        events: &mut dyn FnMut(Event),
    ) -> Result<Vec<u8>, Error> {
        let kept = Resolutions::at(&self.home);
        let input = self.request.config.keyed(wanted.input);
        if made == Made::Before
            && let Some(lock) = kept.find(&input)
        {
            return Ok(lock);
        }
        let cancelled = || self.cancelled();
        let _lock = self.lock_cache(events)?;
        if made == Made::Before
            && let Some(lock) = kept.find(&input)
        {
            return Ok(lock);
        }
        let begin = Instant::now();
        let app = self.slot.path().join("app");
        files::remove_until(&app, &cancelled)?;
        if wanted.sees_source {
            snapshot::place(tree, &app, &Stamps::default())?;
        }
        for (name, bytes) in &wanted.files {
            let path = app.join(name);
            if wanted.sees_source {
                files::remove(&path)?;
            } else if let Some(folder) = path.parent() {
                files::make_folder(folder)?;
            }
            std::fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        }
        let executor = self.executor(None, &cancelled);
        let mut mounts = named_files(&self.request.host.registry);
        for toolchain in &wanted.plan.toolchains {
            mounts.push(Mount::read_only(&toolchain.source, &toolchain.target));
        }
        mounts.push(Mount::read_write(&self.cache, &self.layout.cache));
        mounts.push(Mount::read_write(&app, &self.layout.app));
        let name = format!("what resolving {} writes", wanted.name);
        for step in &wanted.plan.steps {
            executor.run(&wanted.plan, step, &mounts, &[(&name, &app)], events)?;
        }
        let lock = read_result(&app, wanted)?;
        files::remove_until(&app, &cancelled)?;
        kept.keep(&input, &lock)?;
        let spent = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.resolved_ms.fetch_add(spent, Ordering::Relaxed);
        Ok(lock)
    }
}

/// Makes the locks of a codebase, to be written into it. Nothing is built, and nothing of the
/// codebase is changed. A lock that the last build made will do, unless `upgrade` asks for the
/// newest versions.
///
/// # Errors
///
/// [`Error::Undetected`] where no builder makes a lock of this codebase; those of [`build`].
///
/// [`build`]: crate::build
pub fn lock(
    request: &Request,
    upgrade: bool,
    events: &mut dyn FnMut(Event),
) -> Result<Vec<LockFile>, Error> {
    let mut pipeline = Pipeline::open(request, events)?;
    let (tree, _) = pipeline.tree(events)?;
    let made = if upgrade { Made::Now } else { Made::Before };
    let locks = pipeline.with_toolchains(&tree, made, events, |toolchains| {
        builders::lock(&tree, toolchains, upgrade)
    });
    if pipeline.cancelled() {
        pipeline.slot.end_soon();
    }
    let locks = locks?;
    if let Source::WorkingTree { dir } = &request.source {
        let git = pipeline.git();
        for lock in locks.iter().filter(|lock| git.is_ignored(dir, &lock.path)) {
            events(Event::Warning(format!(
                "git ignores `{0}`, so no build sees it: take it out of `.gitignore`, or run \
                 `git add -f {0}`",
                lock.path
            )));
        }
    }
    Ok(locks)
}
