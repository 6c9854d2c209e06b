//! What can be said of a deploy's releases and of where its codebase stands.

use std::collections::BTreeSet;

use tolv_build::Proofs;
use tolv_model::id::DeployId;
use tolv_model::ledger::Broken;
use tolv_model::name::{AppName, Deploy as DeployPath};
use tolv_model::release::ReleaseNumber;
use tolv_store::{Deploy, Ledger, Stored};

use super::error::{Error, chain};
use super::kept::Place;
use super::platform::{Platform, blocking};
use crate::repo::{MAX_ROOTS, RepoError};

/// Where a deploy stands among those of its app (factor I).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The commit that runs.
    pub commit: Option<String>,
    /// Its first line.
    pub subject: Option<String>,
    /// Commits that it has and the other deploy has not.
    pub ahead: u32,
    /// Commits that the other deploy has and it has not.
    pub behind: u32,
}

/// What a proof of a deploy's releases found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Releases that hold, up to the first that does not.
    pub rows: usize,
    /// What does not hold, in words.
    pub broken: Vec<String>,
    /// What does not hold and was accepted by an operator.
    pub accepted: Vec<String>,
}

impl Platform {
    /// Proves a deploy's ledger, and every slug of it that is kept, with its layers, to the last
    /// byte.
    ///
    /// # Errors
    ///
    /// There is no such deploy. A ledger that does not hold is no error here.
    pub async fn verify(&self, path: &DeployPath) -> Result<Proof, Error> {
        let stored = self.store().stored_deploy(path).await?;
        let ledger = self.audit(&self.id_of(path, &stored).await?, true).await?;
        let mut broken: Vec<_> =
            ledger.broken.iter().map(|broken| (broken.release(), broken.to_string())).collect();
        if let Ok(Stored::Forged(row)) = self.store().stored_app(&path.app).await {
            broken.push((ledger.last().unwrap_or(ReleaseNumber(1)), row.why));
        }
        // Nothing that was proven before counts here, but a layer of many slugs is read once.
        let (proofs, mut seen) = (Proofs::default().of_level(self.0.level), BTreeSet::new());
        let deploy = stored.valid();
        for (row, _) in ledger.rows.iter().rev().filter(|(row, _)| seen.insert(row.slug)) {
            // Where its slugs are is not to be told by a row that was changed.
            let Some(deploy) = &deploy else { continue };
            if self.store().slug(&deploy.app, &row.slug).await.is_err() {
                // Collected.
                continue;
            }
            if let Err(error) = self.verify_slug(&deploy.app, row.slug, proofs.clone()).await {
                broken.push((row.number, format!("release {}: {}", row.number, chain(&error))));
            }
        }
        broken.sort();
        let first = broken.first().map(|(number, _)| number.0.saturating_sub(1));
        Ok(Proof {
            rows: match first {
                Some(before) => usize::try_from(before).unwrap_or(0),
                None => ledger.rows.len(),
            },
            broken: broken.into_iter().map(|(_, text)| text).collect(),
            accepted: ledger.accepted.iter().map(ToString::to_string).collect(),
        })
    }

    /// The id of a deploy, whoever wrote its row.
    async fn id_of(&self, path: &DeployPath, stored: &Stored<Deploy>) -> Result<DeployId, Error> {
        match stored {
            Stored::Valid(deploy) => Ok(deploy.id.clone()),
            Stored::Forged(row) => match row.id.parse() {
                Ok(id) => Ok(id),
                // Says what is wrong with it.
                Err(_) => Ok(self.store().deploy(path).await?.id),
            },
        }
    }

    /// Takes a deploy's ledger and rows as they are, and starts what should run of it: what does not
    /// hold in the ledger is known from here on, and no reason to refuse.
    ///
    /// # Errors
    ///
    /// There is no such deploy, its row cannot be read, or the database is away.
    pub async fn accept(&self, path: &DeployPath) -> Result<Proof, Error> {
        self.accept_rows(path).await?;
        let deploy = self.store().deploy(path).await?;
        self.control(Place::of(&deploy))?;
        if let Some(controller) = self.controllers().get(&deploy.id) {
            controller.restore_again();
        }
        self.verify(path).await
    }

    /// Takes a deploy's ledger and rows as they are.
    pub(super) async fn accept_rows(&self, path: &DeployPath) -> Result<(), Error> {
        let stored = self.store().stored_deploy(path).await?;
        let id = self.id_of(path, &stored).await?;
        self.store().accept_ledger(&id).await?;
        Ok(())
    }

    /// A deploy's ledger, and what of it does not hold.
    pub(super) async fn audit(&self, deploy: &DeployId, configs: bool) -> Result<Ledger, Error> {
        let mut ledger = self.store().ledger(deploy, configs).await?;
        if self.codebase().is_some() {
            // Nothing is current at each start of `up`.
            ledger.broken.retain(|broken| !matches!(broken, Broken::Current { .. }));
        }
        Ok(ledger)
    }

    /// Refuses to run a release that the ledger does not vouch for: its row, the outcomes, what is
    /// current, or the end of the ledger was changed. A change of another row is told, and is no
    /// reason to keep this one down.
    pub(super) async fn prove_ledger(
        &self,
        deploy: &Deploy,
        number: ReleaseNumber,
    ) -> Result<Ledger, Error> {
        let mut ledger = self.audit(&deploy.id, false).await?;
        let matters = |broken: &Broken| match broken {
            Broken::Outcome(_) | Broken::Current { .. } => true,
            broken => broken.is_of_end() || broken.release() == number,
        };
        match ledger.broken.iter().position(matters) {
            None => Ok(ledger),
            Some(at) => Err(Error::Ledger {
                deploy: deploy.name.clone(),
                source: ledger.broken.swap_remove(at),
            }),
        }
    }

    /// Where each deploy of an app stands against `base`.
    ///
    /// # Errors
    ///
    /// The store or git fail.
    pub async fn standings(
        &self,
        app: &AppName,
        deploys: &[Deploy],
        base: Option<&str>,
    ) -> Result<Vec<Standing>, Error> {
        if self.codebase().is_some() {
            // Its commits are in the folder's repository, of which there is no copy here.
            let here = |deploy: &Deploy| Standing {
                commit: deploy.commit.clone(),
                subject: None,
                ahead: 0,
                behind: 0,
            };
            return Ok(deploys.iter().map(here).collect());
        }
        let (repos, name) = (self.repos().clone(), app.clone());
        let commits: Vec<_> = deploys.iter().map(|deploy| deploy.commit.clone()).collect();
        let base = base.map(str::to_owned);
        blocking(move || {
            let standing = |commit: Option<String>| {
                let Some(commit) = commit else {
                    return Ok(Standing { commit: None, subject: None, ahead: 0, behind: 0 });
                };
                let about = repos.describe(&name, &commit)?;
                // Commits that are gone, with the repository or long ago, are counted by nobody.
                let (ahead, behind) = match &base {
                    Some(base) if about.is_some() && repos.describe(&name, base)?.is_some() => {
                        repos.ahead_behind(&name, &commit, base)?
                    }
                    Some(_) | None => (0, 0),
                };
                let subject = about.map(|about| about.subject);
                Ok(Standing { commit: Some(commit), subject, ahead, behind })
            };
            commits.into_iter().map(standing).collect::<Result<_, crate::repo::RepoError>>()
        })
        .await
    }

    /// Refuses to move a branch that somebody else has moved since it was `old`, unless what it is
    /// now is in the history of `commit`: no push takes another's commits away unseen.
    pub(super) async fn check_branch(
        &self,
        deploy: &DeployPath,
        branch: &str,
        old: &str,
        commit: &str,
    ) -> Result<(), Error> {
        let (repos, path, name) = (self.repos().clone(), deploy.clone(), branch.to_owned());
        let (old, commit) = (old.to_owned(), commit.to_owned());
        let moves = move || repos.may_move(&path, &name, &old, &commit);
        match blocking(moves).await? {
            true => Ok(()),
            false => Err(RepoError::Moved(format!("refs/heads/{branch}")).into()),
        }
    }

    /// The commit that a name means, in a codebase that is the app's.
    pub(super) async fn commit(
        &self,
        deploy: &Deploy,
        rev: String,
        new_root: bool,
    ) -> Result<String, Error> {
        let app = self.store().app(&deploy.name.app).await?;
        let (repos, path) = (self.repos().clone(), deploy.name.clone());
        let known = app.roots;
        let (commit, new) = blocking(move || {
            let found = repos.resolve(&path, &rev)?;
            let Some(commit) = found else {
                return Err(Error::NoCommit { rev, deploy: path });
            };
            let roots = repos.roots(&path.app, &commit)?;
            if !new_root && !crate::repo::shares_root(&known, &roots) {
                return Err(Error::OtherCodebase { app: path.app.to_string() });
            }
            let new: Vec<_> = roots.into_iter().filter(|root| !known.contains(root)).collect();
            if known.len() + new.len() > MAX_ROOTS {
                return Err(RepoError::TooManyRoots.into());
            }
            Ok((commit, new))
        })
        .await?;
        if !new.is_empty() {
            self.store().add_roots(&app.id, &new).await?;
        }
        Ok(commit)
    }
}
