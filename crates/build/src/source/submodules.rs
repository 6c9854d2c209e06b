//! Submodules of what was pushed: fetched at the commit that the tree records, and read like the push
//! itself.
//!
//! ```text
//!  .gitmodules ──▶ path, URL ──▶ https only ──▶ git fetch in a sandbox ──▶ <home>/submodules/<key>.git
//! ```
//!
//! Whatever `.gitmodules` says is a stranger's, and [fetched](super::fetch) as such. Bytes, files, time,
//! number and depth are bounded for all submodules of a commit together. What was fetched is kept for
//! the next build, by URL and commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tolv_model::service::HostServices;
use tolv_model::slug::Digest;
use tolv_sandbox::Cancel;

use super::fetch::{Fetches, has, last_lines, wants_credentials};
use super::remote::{Remote, redacted};
use super::shown;
use crate::caps::Caps;
use crate::files::{self, Lock};
use crate::repository::{GitAccess, GitCommand, Repository};
use crate::{Error, Event};

/// The name of the folder in an app's folder.
pub(crate) const FOLDER: &str = "submodules";
/// Most submodules of one commit that are fetched.
const MAX_FETCHES: usize = 256;

/// Where submodules come from, for one build.
pub(crate) struct Submodules<'a> {
    /// The app's folder.
    home: &'a Path,
    fetches: Fetches<'a>,
    say: &'a mut dyn FnMut(Event),
    /// Held from the first submodule on: what is there stays there.
    lock: Option<Lock>,
    /// Those of this build.
    used: BTreeSet<PathBuf>,
    /// Whether it was said that some are fetched.
    is_said: bool,
}

/// Path → URL, as a `.gitmodules` has them.
pub(crate) type Urls = BTreeMap<Vec<u8>, Vec<u8>>;

impl<'a> Submodules<'a> {
    pub(crate) fn new(
        home: &'a Path,
        env: &'a BTreeMap<String, OsString>,
        host_services: &'a HostServices,
        (caps, cancel): (&'a Caps, &'a Cancel),
        say: &'a mut dyn FnMut(Event),
    ) -> Self {
        let what = "the commit's submodules";
        Self {
            home,
            fetches: Fetches::new(what, env, host_services, (caps, cancel)),
            say,
            lock: None,
            used: BTreeSet::new(),
            is_said: false,
        }
    }

    /// The repository that has a commit of the submodule at `path` of a tree with these URLs. `full` is
    /// its path in the codebase.
    pub(crate) fn get(
        &mut self,
        from: &Repository,
        urls: &Urls,
        (path, full): (&[u8], &[u8]),
        commit: &str,
    ) -> Result<Repository, Error> {
        let name = shown(full);
        let Some(raw) = urls.get(path) else {
            return Err(Error::Source(format!(
                "`{name}` is a submodule for which `.gitmodules` has no URL; \
                 run `git submodule add <https URL> {name}`, or remove it with `git rm {name}`"
            )));
        };
        let remote = Remote::parse(raw).map_err(|why| {
            Error::Source(format!(
                "the submodule `{name}` cannot be fetched: its URL `{}` {why}",
                redacted(raw)
            ))
        })?;
        self.fetched(from, &remote, &name, commit)
    }

    /// What `.gitmodules` of a tree says.
    pub(crate) fn urls(from: &Repository, tree: &[u8]) -> Result<Urls, Error> {
        let blob = [b"--blob=", tree, b".gitmodules"].concat();
        let words: [&[u8]; 5] = [b"config", b"--no-includes", b"-z", b"--list", &blob];
        let words = words.iter().map(|word| super::as_path(word));
        let answer = from.ask(&GitCommand::new(GitAccess::Read, words))?;
        // There is none, which the caller tells of each path.
        if answer.code != 0 && !answer.said.contains("bad config") {
            return Ok(BTreeMap::new());
        }
        if answer.code != 0 {
            let said = shown(answer.said.as_bytes());
            return Err(Error::Source(format!("`.gitmodules` cannot be read: {said}")));
        }
        Ok(of_paths(&answer.out))
    }

    fn fetched(
        &mut self,
        from: &Repository,
        remote: &Remote,
        name: &str,
        commit: &str,
    ) -> Result<Repository, Error> {
        let folder = self.home.join(FOLDER);
        if self.lock.is_none() {
            files::make_folder(&folder)?;
            let (cancel, say) = (self.fetches.cancel, &mut *self.say);
            let lock = Lock::take(
                &self.home.join("submodules.lock"),
                &|| cancel.is_cancelled(),
                &mut || say(Event::Heading("Waiting for the submodules of another build".into())),
            );
            self.lock = Some(lock?);
        }
        let key = Digest::of(format!("{}\n{commit}", remote.as_str()).as_bytes());
        let key = key.to_string();
        let key = key.rsplit(':').next().unwrap_or(&key);
        let dir = folder.join(format!("{key}.git"));
        let repository = Repository::at(&dir, from.sandbox().clone());
        let is_new = self.used.insert(dir.clone());
        if dir.symlink_metadata().is_ok() {
            if has(&repository, commit)? {
                return Ok(repository);
            }
            files::remove(&dir)?;
        }
        if is_new && self.used.len() > MAX_FETCHES {
            return Err(Error::Limit {
                what: "the number of the commit's submodules".into(),
                limit: MAX_FETCHES.to_string(),
            });
        }
        if !self.is_said {
            (self.say)(Event::Heading("Fetching submodules".to_owned()));
            self.is_said = true;
        }
        let text = format!("{name} at {} from {remote}", head(commit));
        (self.say)(Event::line(text));
        let aside = folder.join(format!("{key}.new"));
        let new = self.fetches.repository(&aside, from.sandbox());
        let done = new.and_then(|new| {
            self.fetch_into(&new, remote, name, commit)?;
            Ok(new)
        });
        match done {
            Ok(new) => self.fetches.take(&new),
            Err(error) => {
                // The next build clears what cannot be removed now.
                files::remove(&aside).ok();
                return Err(error);
            }
        }
        tolv_durable::move_folder(&aside, &dir).map_err(Error::io("create", &dir))?;
        Ok(repository)
    }

    fn fetch_into(
        &self,
        new: &Repository,
        remote: &Remote,
        name: &str,
        commit: &str,
    ) -> Result<(), Error> {
        let (mut code, mut said) =
            self.fetches.fetch(new, remote, &["--depth=1", "--"], &[commit])?;
        // Older servers give what a branch or tag leads to, and nothing by its id.
        if code != 0
            && ["unadvertised object", "dumb http transport"].iter().any(|text| said.contains(text))
        {
            let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            (code, said) = self.fetches.fetch(new, remote, &["--"], &all)?;
        }
        if code == 0 && has(new, commit)? {
            return Ok(());
        }
        let here = format!("the submodule `{name}` at {} from {remote}", head(commit));
        if code == 0 || said.contains("not our ref") {
            return Err(Error::Source(format!(
                "cannot fetch {here}: that repository has no such commit; push the submodule's \
                 commits first"
            )));
        }
        if wants_credentials(&said) {
            return Err(Error::Source(format!(
                "cannot fetch {here}: that repository is not public, or not there; a build has no \
                 credentials for it: commit its files instead"
            )));
        }
        Err(Error::Source(format!("cannot fetch {here}: {}", last_lines(&said))))
    }

    /// Removes what this build did not need, where all of them together take too much.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match &self.lock {
            None => Ok(()),
            Some(_) => {
                let is_used = |path: &Path| self.used.contains(path);
                self.fetches.trim(&self.home.join(FOLDER), &is_used)
            }
        }
    }
}

/// A commit's first digits.
pub(crate) fn head(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// Path → URL of what `git config -z --list` says of a `.gitmodules`.
fn of_paths(list: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut paths, mut urls) = (BTreeMap::new(), BTreeMap::new());
    for entry in list.split(|&byte| byte == 0) {
        let Some(end) = entry.iter().position(|&byte| byte == b'\n') else { continue };
        let (key, value) = (&entry[..end], &entry[end + 1..]);
        let Some(rest) = key.strip_prefix(b"submodule.") else { continue };
        if let Some(name) = rest.strip_suffix(b".path") {
            let path = value.strip_suffix(b"/").unwrap_or(value);
            paths.insert(name.to_vec(), path.to_vec());
        } else if let Some(name) = rest.strip_suffix(b".url") {
            urls.insert(name.to_vec(), value.to_vec());
        }
    }
    let found = paths.into_iter().filter_map(|(name, path)| Some((path, urls.remove(&name)?)));
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_url_of_its_own_section() {
        let list = b"submodule.a.path\nlib/a\0submodule.a.url\nhttps://one\0\
            submodule.b.c.url\nhttps://two\0submodule.b.c.path\nvendor/\0\
            submodule.d.path\nd\0core.x\ny\0submodule.e.url\nhttps://e\0novalue\0\
            submodule.a.url\nhttps://last\0";
        let found = of_paths(list);
        let text = |path: &str| found.get(path.as_bytes()).map(|url| String::from_utf8_lossy(url));
        assert_eq!(text("lib/a").as_deref(), Some("https://last"));
        assert_eq!(text("vendor").as_deref(), Some("https://two"));
        assert_eq!(found.len(), 2);
    }
}
