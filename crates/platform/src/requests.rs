//! What may be asked for, held against what is: a command becomes a request that makes sense.

use std::collections::BTreeMap;

use tolv_model::formation::Formation;
use tolv_model::name::{Deploy as DeployPath, ProcessType};
use tolv_model::operation::{Outcome, Request, Selection};
use tolv_model::release::ReleaseNumber;
use tolv_model::size::Sizes;
use tolv_store::Deploy;

use super::error::Error;
use super::platform::Platform;

/// What is to be done to a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Build, release and run a commit.
    Deploy {
        /// Any name of a commit that the deploy's repository has.
        commit: String,
        /// A branch to move there on success.
        branch: Option<String>,
        /// What the branch was to whoever pushed: see [`Request::Deploy`].
        old: Option<String>,
        /// Whether a codebase without a root commit in common is meant.
        new_root: bool,
        /// Whether the release phase is left out.
        no_release_phase: bool,
    },
    /// Release what another deploy of the app runs.
    Promote {
        /// Whose.
        from: DeployPath,
        /// Whether the release phase is left out.
        no_release_phase: bool,
    },
    /// Make a release equal to an earlier one.
    Rollback {
        /// Which; the last one before the current that succeeded, without it.
        to: Option<ReleaseNumber>,
        /// Whether the release phase is left out.
        no_release_phase: bool,
    },
    /// Release the slug of a release that failed again, with the config as it is now.
    Retry {
        /// Which; the newest, without it.
        release: Option<ReleaseNumber>,
        /// Whether the release phase is left out.
        no_release_phase: bool,
    },
    /// Change quantities.
    Scale {
        /// The new ones; types that are not named keep theirs.
        formation: Formation,
        /// Sizes that change with them.
        sizes: Sizes,
    },
    /// Change limits.
    Limits {
        /// What is asked for; parts that are not named stay.
        sizes: Sizes,
        /// Types that get the defaults again, before that.
        reset: Vec<ProcessType>,
    },
    /// Replace processes.
    Restart {
        /// Which.
        processes: Selection,
    },
    /// Stop every process.
    Stop,
    /// Start what was stopped.
    Start,
    /// Remove the deploy and everything it has.
    Destroy {
        /// Its path, repeated.
        confirm: String,
    },
}

impl Platform {
    pub(super) async fn request(
        &self,
        deploy: &Deploy,
        command: Command,
    ) -> Result<Request, Error> {
        Ok(match command {
            Command::Deploy { commit, branch, old, new_root, no_release_phase } => {
                self.not_local("its code is the folder's, not a commit's", |_| {
                    "start `tolv up` again, with --watch for every change".to_owned()
                })?;
                let commit = self.commit(deploy, commit, new_root).await?;
                if let (Some(branch), Some(old)) = (&branch, &old) {
                    self.check_branch(&deploy.name, branch, old, &commit).await?;
                }
                Request::Deploy { commit, branch, old, no_release_phase }
            }
            Command::Promote { from, no_release_phase } => {
                let release = self.promotion(deploy, &from).await?;
                Request::Promote { from, release, no_release_phase }
            }
            Command::Rollback { to, no_release_phase } => {
                Request::Rollback { to: self.rollback(deploy, to).await?, no_release_phase }
            }
            Command::Retry { release, no_release_phase } => {
                let (release, branch) = self.retry(deploy, release).await?;
                Request::Retry { release, branch, no_release_phase }
            }
            Command::Scale { formation, sizes } => {
                self.0.shares.check(&sizes)?;
                if let Some(current) = deploy.current {
                    let release = self.0.store.release(&deploy.id, current).await?;
                    known_types(&release.row.process_types, &formation, &deploy.name)?;
                }
                Request::Scale { formation, sizes }
            }
            Command::Limits { sizes, reset } => {
                self.0.shares.check(&sizes)?;
                if let Some(current) = deploy.current {
                    let row = self.0.store.release(&deploy.id, current).await?.row;
                    for kind in sizes.0.keys().chain(&reset) {
                        limited_type(&row.process_types, kind, &deploy.name)?;
                    }
                }
                Request::Limits { sizes, reset }
            }
            Command::Restart { processes } => {
                self.restartable(deploy, &processes).await?;
                Request::Restart { processes }
            }
            Command::Stop => Request::Stop,
            Command::Start => Request::Start,
            Command::Destroy { confirm } => {
                self.not_local("it goes when that ends", |_| "stop `tolv up`".to_owned())?;
                if confirm != deploy.name.to_string() {
                    return Err(Error::Unconfirmed(deploy.name.to_string()));
                }
                Request::Destroy
            }
        })
    }

    async fn promotion(&self, to: &Deploy, from: &DeployPath) -> Result<ReleaseNumber, Error> {
        if from.app != to.name.app {
            return Err(Error::OtherApp { from: from.clone(), to: to.name.clone() });
        }
        if *from == to.name {
            return Err(Error::Itself(from.clone()));
        }
        let source = self.0.store.deploy(from).await?;
        source.current.ok_or_else(|| Error::NoRelease(from.clone()))
    }

    /// A release that failed, and the branch that was to move with it.
    async fn retry(
        &self,
        deploy: &Deploy,
        number: Option<ReleaseNumber>,
    ) -> Result<(ReleaseNumber, Option<String>), Error> {
        let store = &self.0.store;
        let release = match number {
            Some(number) => self.proven(deploy, number).await?,
            None => {
                let newest = store.releases(&deploy.id, None, 1).await?.pop();
                newest.ok_or_else(|| Error::NoRelease(deploy.name.clone()))?
            }
        };
        let number = release.row.number;
        if release.outcome != Outcome::Failed {
            let outcome = release.outcome;
            return Err(Error::NotFailed { deploy: deploy.name.clone(), number, outcome });
        }
        if store.slug(&deploy.app, &release.row.slug).await.is_err() {
            return Err(self.slug_gone(release));
        }
        let made_by = store.operation_of_release(&deploy.id, number).await?;
        let branch = match made_by.request {
            Request::Deploy { branch, .. } | Request::Retry { branch, .. } => branch,
            _ => None,
        };
        Ok((number, branch))
    }

    async fn rollback(
        &self,
        deploy: &Deploy,
        to: Option<ReleaseNumber>,
    ) -> Result<ReleaseNumber, Error> {
        let store = &self.0.store;
        let current = deploy.current.ok_or_else(|| Error::NoRelease(deploy.name.clone()))?;
        let release = match to {
            Some(number) => self.proven(deploy, number).await?,
            None => {
                let mut before = Some(current);
                loop {
                    let page = store.releases(&deploy.id, before, 50).await?;
                    let nothing = || Error::NothingBefore { deploy: deploy.name.clone(), current };
                    let last = page.last().ok_or_else(nothing)?.row.number;
                    let found = page.into_iter().find(|r| r.outcome == Outcome::Succeeded);
                    match found {
                        Some(found) => break found,
                        None => before = Some(last),
                    }
                }
            }
        };
        let number = release.row.number;
        if release.outcome != Outcome::Succeeded {
            return Err(Error::FailedRelease { deploy: deploy.name.clone(), number });
        }
        if store.slug(&deploy.app, &release.row.slug).await.is_err() {
            return Err(self.slug_gone(release));
        }
        Ok(number)
    }

    async fn restartable(&self, deploy: &Deploy, processes: &Selection) -> Result<(), Error> {
        if deploy.current.is_none() {
            return Err(Error::NoRelease(deploy.name.clone()));
        }
        if deploy.stopped {
            return Err(Error::Stopped(deploy.name.clone()));
        }
        let running = self.processes(&deploy.name).await?;
        let (found, process) = match processes {
            Selection::All => return Ok(()),
            Selection::Type(kind) => {
                (running.iter().any(|process| process.name.process_type == *kind), kind.to_string())
            }
            Selection::One(name) => {
                (running.iter().any(|process| process.name == *name), name.to_string())
            }
        };
        match found {
            true => Ok(()),
            false => Err(Error::NoProcess { deploy: deploy.name.clone(), process }),
        }
    }
}

/// What may have limits: a type of the release, one-off runs, and what a schedule runs.
fn limited_type(
    types: &BTreeMap<ProcessType, String>,
    kind: &ProcessType,
    deploy: &DeployPath,
) -> Result<(), Error> {
    let others = ["run", "release"];
    let name = kind.as_str();
    if types.contains_key(kind) || others.contains(&name) || name.starts_with("cron-") {
        return Ok(());
    }
    let names = types.keys().map(ProcessType::as_str).chain(others);
    let known: std::collections::BTreeSet<_> = names.map(|name| format!("`{name}`")).collect();
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    let known = format!("{known}, and `cron-NAME` for a schedule");
    Err(Error::NoSuchType { unknown: kind.clone(), deploy: deploy.clone(), known })
}

pub(super) fn known_types(
    types: &BTreeMap<ProcessType, String>,
    formation: &Formation,
    deploy: &DeployPath,
) -> Result<(), Error> {
    match formation.0.keys().find(|kind| !types.contains_key(kind)) {
        None => Ok(()),
        Some(unknown) => {
            let known: Vec<_> = types
                .keys()
                .filter(|kind| !kind.is_release())
                .map(|kind| format!("`{kind}`"))
                .collect();
            Err(Error::UnknownType {
                unknown: unknown.clone(),
                deploy: deploy.clone(),
                known: known.join(", "),
            })
        }
    }
}
