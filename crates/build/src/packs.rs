//! Buildpacks, as Heroku's Buildpack API v2 describes them: scripts of strangers that make a slug of a
//! codebase in the build's sandbox.
//!
//! ```text
//!  bin/detect BUILD ─▶ bin/compile BUILD CACHE ENV ─▶ bin/release BUILD ─▶ config_vars,
//!                          │                                               default_process_types
//!                          └─▶ export: sourced before the next buildpack
//! ```
//!
//! Each runs in a copy of its own, which it may change. BUILD is `/app`, where the slug's processes see
//! it too; CACHE is kept for the app's next build; ENV has a file for each variable of the build's config,
//! and the environment has none of them. `bin/test` and `bin/test-compile` are not run.

mod release;
mod style;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tolv_model::buildpack::{Buildpack, Source};
use tolv_model::name::ProcessType;
use tolv_model::procfile::Procfile;
use tolv_model::slug::{Digest, UsedBuildpack};
use tolv_sandbox::Mount;

use self::release::Release;
use self::style::Style;
use crate::exec::Executor;
use crate::plan::{Plan, Step};
use crate::source::submodules::head;
use crate::toolchains::Layout;
use crate::{Error, Event, builders};

/// Sources the `export` files before `--`, and becomes the words behind it.
const EXPORTED: &str = r#"while [ "$1" != -- ]; do
    if [ -f "$1" ]; then . "$1"; fi
    shift
done
shift
case $1 in
    */*) [ -x "$1" ] || chmod +x "$1" ;;
esac
exec "$@""#;
/// The same for `bin/compile`, whose cache is there.
const COMPILE: &str = r#"while [ "$1" != -- ]; do
    if [ -f "$1" ]; then . "$1"; fi
    shift
done
shift
[ -x "$1" ] || chmod +x "$1"
mkdir -p "$3"
exec "$@""#;

/// A buildpack that is there.
pub(crate) struct Pack {
    /// As it was written.
    pub(crate) name: String,
    /// Its commit; nothing for a folder of the codebase.
    pub(crate) commit: Option<String>,
    /// The build's copy of it, on the host.
    pub(crate) dir: PathBuf,
    /// The same as its processes see it.
    pub(crate) seen: PathBuf,
    /// Whether it has a `bin/release`.
    pub(crate) release: bool,
}

impl Pack {
    /// What a build says about it.
    pub(crate) fn heading(&self) -> String {
        match &self.commit {
            Some(commit) => format!("Buildpack {} at {}", self.name, head(commit)),
            None => format!("Buildpack {}", self.name),
        }
    }
}

/// The first part that a folder of these paths lacks to be a buildpack.
pub(crate) fn missing_part(paths: &BTreeSet<Vec<u8>>) -> Option<&'static str> {
    ["bin/detect", "bin/compile"].into_iter().find(|part| !paths.contains(part.as_bytes()))
}

/// What builds a codebase, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Buildpacks that run before a builder of Tolv's looks at the codebase.
    pub(crate) first: Vec<Buildpack>,
    /// Builders of Tolv's, by name.
    pub(crate) builders: Vec<&'static str>,
    /// Buildpacks that run after them.
    pub(crate) last: Vec<Buildpack>,
}

impl Wanted {
    /// Sorts a list: a name of Heroku's stands for Tolv's builder of that language where there is one.
    pub(crate) fn of(list: &[Buildpack]) -> Self {
        let mut wanted = Self::default();
        for buildpack in list {
            let builder = match buildpack.source() {
                Source::Git { language: Some(language), .. } => builders::of_language(language),
                Source::Git { .. } | Source::Folder(_) => None,
            };
            match builder {
                Some(builder) => wanted.builders.push(builder),
                None if wanted.builders.is_empty() => wanted.first.push(buildpack.clone()),
                None => wanted.last.push(buildpack.clone()),
            }
        }
        wanted
    }

    /// Whether no builder of Tolv's takes part.
    pub(crate) fn is_alone(&self) -> bool {
        self.builders.is_empty() && !self.first.is_empty()
    }
}

/// The buildpacks of one build, and what those that have run left.
pub(crate) struct Work {
    commit: Option<String>,
    packs: Vec<Pack>,
    /// How many have run.
    done: usize,
    /// The folder of variables: on the host, and as it is seen.
    env_dir: Option<(PathBuf, PathBuf)>,
    /// What they said with `bin/release`: the variables of all, the process types of the last.
    release: Release,
}

impl Work {
    pub(crate) fn new(commit: Option<&str>) -> Self {
        let commit = commit.map(str::to_owned);
        Self { commit, packs: Vec::new(), done: 0, env_dir: None, release: Release::default() }
    }

    pub(crate) fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    pub(crate) fn add(&mut self, pack: Pack) {
        self.packs.push(pack);
    }

    /// Where the variables of the build are: on the host, and as they are seen.
    pub(crate) fn set_env(&mut self, dir: PathBuf, seen: PathBuf) {
        self.env_dir = Some((dir, seen));
    }

    /// Whether some have not run yet.
    pub(crate) fn has_more(&self) -> bool {
        self.done < self.packs.len()
    }

    /// What a manifest says about them.
    pub(crate) fn used(&self) -> Vec<UsedBuildpack> {
        let used =
            |pack: &Pack| UsedBuildpack { name: pack.name.clone(), commit: pack.commit.clone() };
        self.packs.iter().map(used).collect()
    }

    /// The digest of a build's input, with what buildpacks add to it.
    pub(crate) fn input(&self, without: Digest, layout: &Layout) -> Digest {
        if self.packs.is_empty() {
            return without;
        }
        // Paths get baked in, and what has run has said what is not in the tree.
        let (used, layout, release) = (self.used(), layout.app.display(), &self.release);
        Digest::of(
            format!("tolv buildpacks 1\n{without}\n{layout}\n{used:?}\n{release:?}").as_bytes(),
        )
    }

    /// The environment that the slug gives its processes.
    pub(crate) fn env(&self, plan: &Plan) -> BTreeMap<String, String> {
        let mut env = plan.env.clone();
        env.extend(self.release.config_vars.clone());
        env
    }

    /// The Procfile's word stands; the buildpacks, and a builder, fill in what it does not say.
    pub(crate) fn process_types(
        &self,
        plan: &Plan,
        procfile: Option<&Procfile>,
    ) -> Result<BTreeMap<ProcessType, String>, Error> {
        if self.packs.is_empty() {
            return crate::pipeline::process_types(plan, procfile);
        }
        let mut plan = plan.clone();
        if !self.release.process_types.is_empty() {
            plan.process_types.clone_from(&self.release.process_types);
        }
        let mut types = plan.process_types.clone();
        match crate::pipeline::process_types(&plan, procfile) {
            Ok(known) => types.extend(known),
            Err(error) if types.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(types)
    }

    /// What the steps of a builder see of them: those that have run, read-only.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let ran = self.packs[..self.done].iter();
        ran.map(|pack| Mount::read_only(&pack.dir, &pack.seen)).collect()
    }

    /// A step of a builder with the environment that buildpacks before it export.
    pub(crate) fn with_exports(&self, step: &Step) -> Step {
        match self.done {
            0 => step.clone(),
            _ => Step { via: self.via(EXPORTED), ..step.clone() },
        }
    }

    fn via(&self, script: &str) -> Vec<OsString> {
        let exports = self.packs[..self.done].iter().map(|pack| pack.seen.join("export").into());
        let fixed = ["bash", "-c", script, "buildpack"].map(OsString::from);
        fixed.into_iter().chain(exports).chain(["--".into()]).collect()
    }

    /// Runs those that are left.
    pub(crate) fn run_all(
        &mut self,
        executor: &Executor<'_>,
        plan: &Plan,
        (mounts, app): (&[Mount], &Path),
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        while self.has_more() {
            self.run_next(executor, plan, (mounts, app), events)?;
        }
        Ok(())
    }

    /// Runs the next one: detect, compile, release.
    pub(crate) fn run_next(
        &mut self,
        executor: &Executor<'_>,
        plan: &Plan,
        (mounts, app): (&[Mount], &Path),
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        let Some(pack) = self.packs.get(self.done) else { return Ok(()) };
        let mut mounts = [mounts, &self.mounts()].concat();
        mounts.push(Mount::read_write(&pack.dir, &pack.seen));
        if let Some((dir, seen)) = &self.env_dir {
            mounts.push(Mount::read_only(dir, seen));
        }
        let home = &executor.layout.app;
        let env_dir = self.env_dir.iter().map(|(_, seen)| seen.clone().into_os_string());
        let step = |script: &str, program: &str, more: Vec<OsString>| {
            let words = [pack.seen.join("bin").join(program).into_os_string(), home.into()];
            let step = Step::new("", home, words.into_iter().chain(more));
            Step { via: self.via(script), without_config: true, ..step }.env("HOME", home.clone())
        };
        let grows = [("the slug", app), ("the buildpack", pack.dir.as_path())];
        let name = &pack.name;

        let mut said = Vec::new();
        let detect = step(EXPORTED, "detect", Vec::new());
        let mut take = |event: Event| said.push(event);
        let found = match executor.ask(plan, &detect, &mounts, &grows, &mut take) {
            Ok(found) => found,
            Err(Error::Step { how, last, .. }) => {
                return Err(Error::Undetected {
                    problem: format!(
                        "the buildpack {name} does not fit this codebase: its bin/detect {how}{}",
                        crate::error::tail(&last)
                    ),
                    help: "take it out of the list of buildpacks, or add what it looks for".into(),
                });
            }
            Err(error) => return Err(error),
        };
        let found = String::from_utf8_lossy(&found);
        let found = found.lines().next().unwrap_or_default().trim();
        let mut style = Style::new(events);
        style.take(Event::Heading(match found {
            "" => format!("{name} fits"),
            found => format!("{found} app detected"),
        }));
        said.into_iter().for_each(|event| style.take(event));

        let cache = executor.layout.cache.join("buildpacks").into_os_string();
        let words = [cache].into_iter().chain(env_dir).collect();
        let compile = step(COMPILE, "compile", words);
        let ran = executor.run(plan, &compile, &mounts, &grows, &mut |event| style.take(event));
        let reason = style.finish();
        ran.map_err(|error| failed(error, "bin/compile", name, reason))?;

        if pack.release {
            let ask = step(EXPORTED, "release", Vec::new());
            let answer = executor.ask(plan, &ask, &mounts, &grows, events);
            let answer = answer.map_err(|error| failed(error, "bin/release", name, Vec::new()))?;
            let release = release::parse(&answer).map_err(|why| {
                Error::Source(format!("bin/release of the buildpack {name} {why}"))
            })?;
            for warning in &release.warnings {
                events(Event::Warning(format!("bin/release of the buildpack {name}: {warning}")));
            }
            self.release.config_vars.extend(release.config_vars);
            self.release.process_types = release.process_types;
        } else {
            self.release.process_types.clear();
        }
        self.done += 1;
        Ok(())
    }
}

/// The error of a script, named as people know it; `reason` is what it said last as ` !`.
fn failed(error: Error, script: &str, name: &str, reason: Vec<String>) -> Error {
    match error {
        Error::Step { how, last, help, .. } => Error::Step {
            command: format!("{script} of {name}"),
            how,
            last: if reason.is_empty() { last } else { reason },
            help,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_sorted_around_the_builders_of_tolv() {
        let list = |texts: &[&str]| -> Vec<Buildpack> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let apt = "heroku-community/apt";
        let wanted = Wanted::of(&list(&[apt, "heroku/nodejs", "./own", "heroku/python"]));
        assert_eq!(wanted.first, list(&[apt]));
        assert_eq!(wanted.builders, ["node", "python"]);
        assert_eq!(wanted.last, list(&["./own"]));
        assert!(!wanted.is_alone());
        assert!(Wanted::of(&list(&["./own", "https://git.example.org/a"])).is_alone());
        assert!(!Wanted::of(&[]).is_alone());
        // Whoever asks for a version of it wants that one.
        let pinned = list(&["https://github.com/heroku/heroku-buildpack-python#v301"]);
        assert!(Wanted::of(&pinned).is_alone());
    }
}
