//! Buildpacks that are git repositories: [fetched](super::fetch) at each build, for a branch moves, and
//! kept by URL and ref, so that a commit that is written out asks nobody a second time.
//!
//! ```text
//!  URL, ref ──▶ git fetch in a sandbox ──▶ <home>/buildpacks/<key>.git ──▶ files in the build's folder
//! ```
//!
//! A server that does not answer holds up no deploy: what a branch or tag led to before is taken, with a
//! warning.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tolv_model::service::HostServices;
use tolv_model::slug::Digest;
use tolv_sandbox::Cancel;

use super::export::{From, export};
use super::fetch::{Fetches, last_lines, wants_credentials};
use super::reader::Reader;
use super::remote::Remote;
use super::submodules::head;
use crate::caps::Caps;
use crate::files::{self, Lock};
use crate::repository::{GitAccess, GitCommand, GitSandbox, Repository};
use crate::{Error, Event};

/// The name of the folder in an app's folder.
pub(crate) const FOLDER: &str = "buildpacks";
/// Where a fetch puts what it got.
const FETCHED: &str = "refs/tolv/buildpack";

/// Where buildpacks come from, for one build.
pub(crate) struct Repositories<'a> {
    folder: PathBuf,
    sandbox: GitSandbox,
    caps: &'a Caps,
    fetches: Fetches<'a>,
    /// Those of this build.
    used: BTreeSet<PathBuf>,
    _lock: Lock,
}

impl<'a> Repositories<'a> {
    /// Waits until no other build of the app fetches buildpacks.
    pub(crate) fn open(
        home: &Path,
        sandbox: GitSandbox,
        (env, host_services): (&'a BTreeMap<String, OsString>, &'a HostServices),
        (caps, cancel): (&'a Caps, &'a Cancel),
        say: &mut dyn FnMut(Event),
    ) -> Result<Self, Error> {
        let folder = home.join(FOLDER);
        files::make_folder(&folder)?;
        let lock =
            Lock::take(&home.join("buildpacks.lock"), &|| cancel.is_cancelled(), &mut || {
                say(Event::Heading("Waiting for the buildpacks of another build".into()));
            });
        Ok(Self {
            folder,
            sandbox,
            caps,
            fetches: Fetches::new("the buildpacks", env, host_services, (caps, cancel)),
            used: BTreeSet::new(),
            _lock: lock?,
        })
    }

    /// Fetches a buildpack and writes its files into an empty folder. Gives its commit and its paths.
    pub(crate) fn get(
        &mut self,
        (url, reference): (&str, Option<&str>),
        to: &Path,
        say: &mut dyn FnMut(Event),
    ) -> Result<(String, BTreeSet<Vec<u8>>), Error> {
        let shown = match reference {
            Some(reference) => format!("{url}#{reference}"),
            None => url.to_owned(),
        };
        let remote = Remote::parse(url.as_bytes())
            .map_err(|why| Error::Source(format!("the URL of the buildpack {shown} {why}")))?;
        let (repository, commit) = self.fetched(&remote, reference, &shown, say)?;
        let tree = format!("{commit}:").into_bytes();
        let from =
            From { reader: Reader::Shut(&repository), tree: &tree, within: None, checkout: None };
        let paths = export(from, to, self.caps, self.fetches.cancel, None);
        let paths = paths.map_err(|error| match error {
            Error::Source(text) => Error::Source(format!("the buildpack {shown}: {text}")),
            other => other,
        })?;
        Ok((commit, paths.into_keys().collect()))
    }

    fn fetched(
        &mut self,
        remote: &Remote,
        reference: Option<&str>,
        shown: &str,
        say: &mut dyn FnMut(Event),
    ) -> Result<(Repository, String), Error> {
        let wanted = reference.unwrap_or("HEAD");
        let is_commit =
            matches!(wanted.len(), 40 | 64) && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = Digest::of(format!("{}\n{wanted}", remote.as_str()).as_bytes());
        // git has the same uid on both: it comes from the first part of the name.
        let (dir, aside) =
            (self.folder.join(format!("{key}.git")), self.folder.join(format!("{key}.new")));
        let kept = Repository::at(&dir, self.sandbox.clone());
        self.used.insert(dir.clone());
        let before = match dir.symlink_metadata() {
            Ok(_) => commit_of(&kept)?,
            Err(_) => None,
        };
        if is_commit && let Some(commit) = before {
            return Ok((kept, commit));
        }
        let new = self.fetches.repository(&aside, &self.sandbox);
        let done = new.and_then(|new| Ok((self.fetch_into(&new, remote, wanted, shown)?, new)));
        match (done, before) {
            (Ok((commit, new)), _) => {
                self.fetches.take(&new);
                files::remove(&dir)?;
                tolv_durable::move_folder(&aside, &dir).map_err(Error::io("create", &dir))?;
                Ok((kept, commit))
            }
            (Err(error), before) => {
                // The next build clears what cannot be removed now.
                files::remove(&aside).ok();
                match (error, before) {
                    (Error::Source(why), Some(commit)) => {
                        let text = format!("{why}; taken is {}, as before", head(&commit));
                        say(Event::Warning(text));
                        Ok((kept, commit))
                    }
                    (error, _) => Err(error),
                }
            }
        }
    }

    /// The commit that was asked for, fetched into an empty repository.
    fn fetch_into(
        &self,
        new: &Repository,
        remote: &Remote,
        wanted: &str,
        shown: &str,
    ) -> Result<String, Error> {
        let refs = format!("+{wanted}:{FETCHED}");
        let (code, said) = self.fetches.fetch(new, remote, &["--depth=1", "--"], &[&refs])?;
        let here = format!("cannot fetch the buildpack {shown}");
        if said.contains("couldn't find remote ref")
            || said.contains("not our ref")
            || said.contains("unadvertised object")
        {
            return Err(Error::Source(format!(
                "{here}: its repository has no branch, tag or commit `{wanted}`; of a commit, write all \
                 of its digits"
            )));
        }
        if wants_credentials(&said) {
            return Err(Error::Source(format!(
                "{here}: that repository is not public, or not there; a build has no credentials for \
                 it: commit the buildpack as a folder of the codebase instead"
            )));
        }
        if code != 0 {
            return Err(Error::Source(format!("{here}: {}", last_lines(&said))));
        }
        let none = || Error::Source(format!("{here}: `{wanted}` is not a commit"));
        commit_of(new)?.ok_or_else(none)
    }

    /// Removes what this build did not need, where all of them together take too much.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.fetches.trim(&self.folder, &|path| self.used.contains(path))
    }
}

/// What was fetched into a repository.
fn commit_of(repository: &Repository) -> Result<Option<String>, Error> {
    let object = format!("{FETCHED}^{{commit}}");
    let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &object];
    let answer = repository.ask(&GitCommand::new(GitAccess::Read, words))?;
    let commit = String::from_utf8_lossy(&answer.out).trim().to_owned();
    Ok((answer.code == 0 && !commit.is_empty()).then_some(commit))
}
