//! What can be said of a deploy's releases and of where its codebase stands.

use tolv_model::ledger::{self, Broken};
use tolv_model::name::Deploy as DeployPath;
use tolv_model::release::ReleaseNumber;
use tolv_store::{App, Deploy};

use super::error::Error;
use super::platform::{Platform, blocking};

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

impl Platform {
    /// Proves a deploy's ledger: the number of its rows, or the first that does not hold.
    ///
    /// # Errors
    ///
    /// There is no such deploy. A ledger that does not hold is no error here.
    pub async fn verify(&self, path: &DeployPath) -> Result<Result<usize, Broken>, Error> {
        let store = self.store();
        let deploy = store.deploy(path).await?;
        let rows = store.ledger(&deploy.id).await?;
        if let Err(broken) = ledger::verify(rows.iter().map(|(row, hash, _)| (row, *hash))) {
            return Ok(Err(broken));
        }
        // Rows cut off at the end break no link: what runs must be among them.
        if let Some(current) = deploy.current
            && rows.last().is_none_or(|(row, ..)| row.number < current)
        {
            let found = rows.last().map_or(ReleaseNumber(0), |(row, ..)| row.number);
            return Ok(Err(Broken::Missing { expected: current, found }));
        }
        match rows.iter().find(|(row, _, config)| row.config_digest != *config) {
            Some((row, ..)) => Ok(Err(Broken::Changed(row.number))),
            None => Ok(Ok(rows.len())),
        }
    }

    /// Where each deploy of an app stands against `base`.
    ///
    /// # Errors
    ///
    /// The store or git fail.
    pub async fn standings(
        &self,
        app: &App,
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
        let (repos, name) = (self.repos().clone(), app.name.clone());
        let commits: Vec<_> = deploys.iter().map(|deploy| deploy.commit.clone()).collect();
        let base = base.map(str::to_owned);
        blocking(move || {
            let standing = |commit: Option<String>| {
                let Some(commit) = commit else {
                    return Ok(Standing { commit: None, subject: None, ahead: 0, behind: 0 });
                };
                let (ahead, behind) = match &base {
                    Some(base) => repos.ahead_behind(&name, &commit, base)?,
                    None => (0, 0),
                };
                let subject = repos.describe(&name, &commit)?.map(|about| about.subject);
                Ok(Standing { commit: Some(commit), subject, ahead, behind })
            };
            commits.into_iter().map(standing).collect::<Result<_, crate::repo::RepoError>>()
        })
        .await
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
        let known = app.roots.clone();
        let (commit, roots) = blocking(move || {
            let found = repos.resolve(&path, &rev)?;
            let Some(commit) = found else {
                return Err(Error::NoCommit { rev, deploy: path });
            };
            let roots = repos.roots(&path.app, &commit)?;
            if !new_root && !crate::repo::shares_root(&known, &roots) {
                return Err(Error::OtherCodebase { app: path.app.to_string() });
            }
            Ok((commit, roots))
        })
        .await?;
        if roots.iter().any(|root| !app.roots.contains(root)) {
            self.store().add_roots(&app.id, &roots).await?;
        }
        Ok(commit)
    }
}
