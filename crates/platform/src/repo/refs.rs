//! Branches and tags of a deploy, changed many at a time.
//!
//! One git command changes a batch of them in one transaction: all or none. Where it fails, the ref
//! that git names is left out and the rest is tried again; where it ends half-way, as killed, the
//! repository is asked what its refs are now. What is said of a ref is therefore what is so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tolv_build::{GitAccess, GitCommand};
use tolv_model::name::{AppName, Deploy};

use super::hook::NULL;
use super::{RepoError, Repos, failed, is_ref_name, namespace};

/// Refs that one command changes: few enough to end a push between two of them.
pub(crate) const BATCH: usize = 1000;
/// Refs that git may refuse of one batch before the rest is given up.
const MAX_REFUSED: usize = 8;
/// For one batch.
const BATCH_TIME: Duration = Duration::from_secs(60);
/// The file of a ref is handed to the disk before it gets its name. It is waited for once, for all of
/// them.
const WRITTEN_OUT: [&str; 2] = ["-c", "core.fsyncMethod=writeout-only"];

/// One change of a deploy's refs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefChange {
    /// Its full name: `refs/tags/v1`.
    pub name: String,
    /// What it was to whoever pushed; nothing where it was not there.
    pub old: Option<String>,
    /// The object that it is to be; nothing to remove it.
    pub object: Option<String>,
}

/// What became of changes.
#[derive(Debug, Default)]
pub struct Changed {
    /// Why some were not made.
    pub errors: Vec<RepoError>,
    /// Of each change, in their order, which of the errors kept it from being made.
    pub refused: Vec<Option<usize>>,
}

/// One writer of each app's refs at a time: git gives up where a lock is there. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Writers(Arc<Mutex<HashMap<AppName, Arc<Mutex<()>>>>>);

impl Writers {
    /// Does `work` while nobody else writes.
    pub(super) fn alone<T>(&self, app: &AppName, work: impl FnOnce() -> T) -> T {
        let own = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, own| Arc::strong_count(own) > 1);
            Arc::clone(known.entry(app.clone()).or_default())
        };
        let _alone = own.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }
}

impl Repos {
    /// Changes refs of a deploy. To be followed by [`Repos::sync`]. One that is no more what it was
    /// to whoever pushed stays: [`RepoError::Moved`]. One that is to be removed and was not there is
    /// fine.
    pub fn change_refs(&self, deploy: &Deploy, changes: &[RefChange]) -> Changed {
        let own = namespace(deploy);
        let full = |change: &RefChange| format!("{own}{}", change.name);
        // The last word on a name counts.
        let mut wanted = BTreeMap::new();
        let (mut errors, mut refused) = (Vec::new(), BTreeMap::new());
        for change in changes {
            if is_ref_name(&change.name) {
                wanted.insert(full(change), change.clone());
            } else {
                refused.insert(full(change), errors.len());
                errors.push(RepoError::BadRef(change.name.clone()));
            }
        }
        let mut tries = 0;
        while !wanted.is_empty()
            && let Err(error) = self.transaction(&deploy.app, &wanted)
        {
            let named = match &error {
                RepoError::Git { said, .. } if tries < MAX_REFUSED => named(said, &wanted),
                _ => None,
            };
            tries += 1;
            let moved = named.clone();
            match named {
                Some(name) => {
                    wanted.remove(&name);
                    refused.insert(name, errors.len());
                }
                None => {
                    let unchanged = self.unchanged(&deploy.app, &wanted);
                    refused.extend(unchanged.into_iter().map(|name| (name, errors.len())));
                    wanted.clear();
                }
            }
            let error = error.below(&own);
            errors.push(match (&error, moved) {
                (RepoError::Git { said, .. }, Some(name)) if is_moved(said) => {
                    RepoError::Moved(name.strip_prefix(&own).unwrap_or(&name).to_owned())
                }
                _ => error,
            });
        }
        let refused = changes.iter().map(|change| refused.get(&full(change)).copied()).collect();
        Changed { errors, refused }
    }

    /// Whether a branch may go to a commit for one to whom it was `old`: it still is that, or is not
    /// there, or what it is now is in the commit's history.
    ///
    /// # Errors
    ///
    /// git's.
    pub fn may_move(
        &self,
        deploy: &Deploy,
        branch: &str,
        old: &str,
        commit: &str,
    ) -> Result<bool, RepoError> {
        let name = format!("{}refs/heads/{branch}", namespace(deploy));
        let ask = ["rev-parse", "--verify", "--quiet", "--end-of-options", &name];
        match self.ask(&deploy.app, &ask)? {
            Some(now) if now != old => {
                let ask = ["merge-base", "--is-ancestor", &now, commit];
                Ok(self.ask(&deploy.app, &ask)?.is_some())
            }
            _ => Ok(true),
        }
    }

    fn transaction(
        &self,
        app: &AppName,
        wanted: &BTreeMap<String, RefChange>,
    ) -> Result<(), RepoError> {
        let words = WRITTEN_OUT.into_iter().chain(["update-ref", "--no-deref", "--stdin"]);
        let mut command = GitCommand::new(GitAccess::Write, words);
        command.time = Some(BATCH_TIME);
        let line =
            |(name, change): (&String, &RefChange)| match (&change.object, change.old.as_deref()) {
                (Some(object), old) => format!("update {name} {object} {}\n", old.unwrap_or(NULL)),
                (None, Some(old)) => format!("delete {name} {old}\n"),
                (None, None) => format!("delete {name}\n"),
            };
        command.input = wanted.iter().map(line).collect::<String>().into();
        self.writers.alone(app, || self.unlocked(app, &command))
    }

    /// Which of these are not what they are to be, asked of the repository itself.
    fn unchanged(&self, app: &AppName, wanted: &BTreeMap<String, RefChange>) -> BTreeSet<String> {
        let mut command =
            GitCommand::new(GitAccess::Read, ["cat-file", "--batch-check=%(objectname)"]);
        command.input = wanted.keys().map(|name| format!("{name}\n")).collect::<String>().into();
        let answer = self.repository(app).ask(&command).ok().filter(|answer| answer.code == 0);
        let answer = answer.map(|answer| String::from_utf8_lossy(&answer.out).into_owned());
        let answer = answer.unwrap_or_default();
        let mut lines = answer.lines();
        let is_unchanged = |(name, change): (&String, &RefChange)| {
            let is = lines.next();
            let is_done = match &change.object {
                Some(object) => is == Some(object),
                None => is.is_some_and(|is| is.ends_with(" missing")),
            };
            (!is_done).then(|| name.clone())
        };
        wanted.iter().filter_map(is_unchanged).collect()
    }

    /// Waits until what was changed of an app's refs is on the disk.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn sync(&self, app: &AppName) -> Result<(), RepoError> {
        // git writes a ref to the disk, but not its name.
        let dir = self.dir(app);
        tolv_durable::sync_tree(&dir).map_err(failed("write to the disk", &dir))
    }
}

/// Whether git says that a ref is not what it was to be.
fn is_moved(said: &str) -> bool {
    ["but expected", "reference already exists", "unable to resolve reference"]
        .into_iter()
        .any(|words| said.contains(words))
}

/// The one of these names that git speaks of.
fn named<T>(said: &str, wanted: &BTreeMap<String, T>) -> Option<String> {
    let words = said.split(|letter: char| letter.is_whitespace() || letter == '\'');
    let names = words.flat_map(|word| [word, word.trim_end_matches([':', ';', ',', '.'])]);
    names.into_iter().find(|name| wanted.contains_key(*name)).map(str::to_owned)
}

impl RepoError {
    /// As it is said to whoever knows a deploy's refs by their own names.
    fn below(self, namespace: &str) -> Self {
        match self {
            Self::Git { what, said } => Self::Git { what, said: said.replace(namespace, "") },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ref_that_git_speaks_of_is_found() {
        let names = ["refs/namespaces/p/refs/tags/a", "refs/namespaces/p/refs/tags/a/b"];
        let wanted = names.map(|name| (name.to_owned(), ())).into();
        for (said, name) in [
            ("cannot lock ref 'refs/namespaces/p/refs/tags/a/b': 'x' exists", Some(names[1])),
            ("refs/namespaces/p/refs/tags/a: trying to write", Some(names[0])),
            ("update refs/namespaces/p/refs/tags/a: invalid", Some(names[0])),
            ("out of memory", None),
            ("", None),
        ] {
            assert_eq!(named(said, &wanted).as_deref(), name, "{said}");
        }
    }
}
