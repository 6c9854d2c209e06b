//! Deploys of an app whose codebase is one folder of its repository.

use tolv_model::ledger::Row;
use tolv_model::root_folder::RootFolder;
use tolv_sandbox::Cancel;

use super::Carry;
use crate::error::Error;
use crate::platform::blocking;

/// Digits of a commit that a line shows.
const SHORT: usize = 12;

impl Carry<'_> {
    /// Whether a push leaves nothing to do, because the release that runs was made of the same files: its
    /// branch moves then. What is asked for without a branch, as a repair is, is always done.
    ///
    /// # Errors
    ///
    /// The commit has no such folder; git's and the store's.
    pub(super) async fn is_deployed(
        &self,
        root: &RootFolder,
        commit: &str,
        branch: Option<&str>,
    ) -> Result<bool, Error> {
        if self.operation.release.is_some() {
            return Ok(false);
        }
        let tree = self.tree_at(root, commit).await?;
        if let Some(branch) = branch
            && let Some(row) = self.current_row().await?
            && let Some(before) = &row.commit
            && self.tree_at(root, before).await.is_ok_and(|before| before == tree)
        {
            let (repos, path) = (self.platform.0.repos.clone(), self.deploy.name.clone());
            let (name, commit) = (branch.to_owned(), commit.to_owned());
            blocking(move || repos.move_branch(&path, &name, &commit)).await?;
            if self.deploy.branch.is_none() {
                self.platform.0.store.set_branch(&self.deploy.id, branch).await?;
            }
            self.head(format!("{root} is as in {}: nothing to deploy", row.number));
            return Ok(true);
        }
        let short = commit.get(..SHORT).unwrap_or(commit);
        self.head(format!("The codebase is {root} of the commit {short}"));
        Ok(false)
    }

    /// The release that runs, where a build of the same files now would give the same.
    async fn current_row(&self) -> Result<Option<Row>, Error> {
        let (platform, deploy) = (self.platform, self.now().await?);
        let Some(current) = deploy.current.filter(|_| !deploy.stopped) else { return Ok(None) };
        let store = &platform.0.store;
        let row = store.release(&deploy.id, current).await?.row;
        if row.config_version != deploy.config_version
            || platform.prove(&deploy.app, row.slug).await.is_err()
        {
            return Ok(None);
        }
        let manifest = platform.manifest(&deploy.app, row.slug).await?;
        let config = store.config(&deploy.id, deploy.config_version).await?;
        let app = store.app(&deploy.name.app).await?;
        // Who builds it may have been set since; a buildpack's branch may have moved.
        let is_packed = !app.buildpacks.is_empty() || !manifest.buildpacks.is_empty();
        let has_config = manifest.build_config == store.build_fingerprints(&deploy.app, &config);
        Ok((has_config && !is_packed).then_some(row))
    }

    async fn tree_at(&self, root: &RootFolder, commit: &str) -> Result<String, Error> {
        let repository = self.platform.0.repos.repository(&self.deploy.name.app);
        let (root, commit) = (root.clone(), commit.to_owned());
        let cancel =
            Cancel::new().map_err(|source| Error::System { what: "look at a commit", source })?;
        let stop = cancel.clone();
        let look = blocking(move || tolv_build::tree_at(&repository, &commit, &root, &cancel));
        tokio::select! {
            tree = look => tree,
            stopped = self.stopped() => {
                stop.cancel();
                Err(stopped)
            }
        }
    }
}
