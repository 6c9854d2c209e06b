//! What a `git push` means: the deploy's branch becomes an operation, everything else is stored.

use super::error::{Error, chain};
use super::output::Progress;
use super::platform::{Actor, Platform, blocking};
use super::pushes::{PushUnderWay, STOPPING};
use super::requests::Command;
use crate::repo::{BATCH, NULL, Planned, Push, RefChange, RefResult, RepoError, plan_push};
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tolv_model::id::OperationId;
use tolv_model::name::Deploy as DeployPath;
use tolv_model::operation::State;
use tolv_store::Operation;

/// The push option that says that another codebase is meant.
const NEW_ROOT: &str = "new-root";
/// The push option that leaves out the release phase.
const NO_RELEASE_PHASE: &str = "no-release-phase";

/// Refs of which it is said in full why they are refused.
const MAX_SAID: usize = 10;
/// How long a push waits for what another platform makes of it, and between two looks.
const ELSEWHERE: Duration = Duration::from_secs(30 * 60);
const LOOK: Duration = Duration::from_millis(250);

impl Platform {
    /// Decides about each ref of a push and does it. What the operation says goes to `push.say`;
    /// whoever pushed may be gone meanwhile, the operation goes on.
    pub async fn push(
        &self,
        actor: &Actor,
        path: &DeployPath,
        push: Push,
        under_way: PushUnderWay,
    ) -> Vec<RefResult> {
        let names: Vec<_> = push.commands.iter().map(|command| command.name.clone()).collect();
        match self.planned(actor, path, &push, under_way).await {
            Ok(results) => results,
            Err(error) => {
                let reason = self.refuse(&push, &error).await;
                let refuse = |name| RefResult { name, refused: Some(reason.clone()) };
                names.into_iter().map(refuse).collect()
            }
        }
    }

    /// Branches and tags that are only kept come first: a deploy may take long.
    async fn planned(
        &self,
        actor: &Actor,
        path: &DeployPath,
        push: &Push,
        mut under_way: PushUnderWay,
    ) -> Result<Vec<RefResult>, Error> {
        self.check_disk_space().await?;
        let deploy = self.store().deploy(path).await?;
        let planned = plan_push(&push.commands, deploy.branch.as_deref());
        let (mut removed, mut set) = (Vec::new(), Vec::new());
        for (at, ((name, planned), command)) in planned.iter().zip(&push.commands).enumerate() {
            let old = &command.old;
            match planned {
                Planned::Store(new) => {
                    set.push((
                        at,
                        RefChange {
                            name: name.clone(),
                            old: old.clone(),
                            object: Some(new.clone()),
                        },
                    ));
                }
                Planned::Delete => {
                    removed.push((
                        at,
                        RefChange { name: name.clone(), old: old.clone(), object: None },
                    ));
                }
                Planned::Deploy { .. } | Planned::Refuse(_) => {}
            }
        }
        // A name that is removed may be the folder of one that is set.
        let mut refused = HashMap::new();
        let mut changed = Vec::new();
        for changes in [removed, set] {
            self.change_refs(path, push, &under_way, changes, (&mut refused, &mut changed)).await;
        }
        if !changed.is_empty() {
            let (repos, app) = (self.repos().clone(), path.app.clone());
            if let Err(error) = blocking(move || repos.sync(&app)).await {
                let reason = self.refuse(push, &error).await;
                refused.extend(changed.into_iter().map(|at| (at, reason.clone())));
            }
        }
        let is_whole = refused.is_empty();
        under_way.set_end(if is_whole { State::Succeeded } else { State::Failed });
        let mut under_way = Some(under_way);
        let mut results = Vec::new();
        for (at, ((name, planned), asked)) in planned.into_iter().zip(&push.commands).enumerate() {
            let done = match planned {
                Planned::Refuse(reason) => Err(reason),
                Planned::Store(_) | Planned::Delete => refused.remove(&at).map_or(Ok(()), Err),
                Planned::Deploy { commit, branch } => {
                    let stopped = under_way.as_ref().and_then(PushUnderWay::stopped);
                    let queued = match stopped {
                        Some(why) => Err(why.to_owned()),
                        None => self.queued(actor, path, push, (commit, branch, &asked.old)).await,
                    };
                    match queued {
                        Ok(operation) => {
                            // From here on there is the operation, and the next platform can go on
                            // with it.
                            under_way = None;
                            self.deployed(push, &operation).await
                        }
                        Err(reason) => Err(reason),
                    }
                }
            };
            results.push(RefResult { name, refused: done.err() });
        }
        drop(under_way);
        Ok(results)
    }

    /// Changes refs, batch by batch, until the push is ended: to `refused` goes why a ref is not
    /// changed, to `changed` which are.
    async fn change_refs(
        &self,
        path: &DeployPath,
        push: &Push,
        under_way: &PushUnderWay,
        changes: Vec<(usize, RefChange)>,
        (refused, changed): (&mut HashMap<usize, String>, &mut Vec<usize>),
    ) {
        if changes.len() > BATCH {
            let (count, id) = (changes.len(), under_way.id());
            say(push, format!("-----> {count} refs (tolv operations cancel {id} ends this)")).await;
        }
        let total = changes.len();
        let mut rest = changes.into_iter().peekable();
        while rest.peek().is_some() {
            let over = match under_way.stopped() {
                Some(why) => Some(why.to_owned()),
                None => match self.check_disk_space().await {
                    Ok(()) => None,
                    Err(error) => Some(self.refuse(push, &error).await),
                },
            };
            if let Some(why) = over {
                refused.extend(rest.map(|(at, _)| (at, why.clone())));
                return;
            }
            let (at, batch): (Vec<_>, Vec<_>) = rest.by_ref().take(BATCH).unzip();
            let (repos, path) = (self.repos().clone(), path.clone());
            let done = blocking(move || Ok::<_, Error>(repos.change_refs(&path, &batch))).await;
            let done = match done {
                Ok(done) => done,
                Err(error) => {
                    let why = self.refuse(push, &error).await;
                    refused.extend(at.into_iter().map(|at| (at, why.clone())));
                    continue;
                }
            };
            let mut reasons = Vec::new();
            for error in done.errors {
                let error = Error::from(error);
                reasons.push(match refused.len() + reasons.len() < MAX_SAID {
                    true => self.refuse(push, &error).await,
                    false => reason(&error),
                });
            }
            for (at, error) in at.into_iter().zip(done.refused) {
                match error.and_then(|error| reasons.get(error)) {
                    Some(reason) => drop(refused.insert(at, reason.clone())),
                    None => changed.push(at),
                }
            }
            under_way.say(&format!("       {} of {total} refs", total - rest.len()));
        }
    }

    /// Says an error with what to do about it; its reason in a few words.
    async fn refuse(&self, push: &Push, error: &Error) -> String {
        if let Error::Store(error) = error {
            self.store().note_failure(error);
        }
        let text = chain(error);
        say(push, format!(" !     {text}")).await;
        if let Some(hint) = error.hint() {
            say(push, format!(" !     {hint}")).await;
        }
        reason(error)
    }

    /// Asks for the operation.
    async fn queued(
        &self,
        actor: &Actor,
        path: &DeployPath,
        push: &Push,
        (commit, branch, old): (String, String, &Option<String>),
    ) -> Result<Operation, String> {
        let asked = |wanted| push.options.iter().any(|option| option == wanted);
        let known = [NEW_ROOT, NO_RELEASE_PHASE];
        for option in push.options.iter().filter(|option| !known.contains(&option.as_str())) {
            say(push, format!(" !     push option `{option}` is not known")).await;
        }
        let command = Command::Deploy {
            commit,
            branch: Some(branch),
            old: Some(old.clone().unwrap_or_else(|| NULL.to_owned())),
            new_root: asked(NEW_ROOT),
            no_release_phase: asked(NO_RELEASE_PHASE),
        };
        match self.submit_push(actor, path, command).await {
            Ok(operation) => Ok(operation),
            Err(error) => Err(self.refuse(push, &error).await),
        }
    }

    /// Follows the operation to its end.
    async fn deployed(&self, push: &Push, operation: &Operation) -> Result<(), String> {
        say(push, format!("-----> Operation {}: goes on if this is interrupted", operation.id))
            .await;
        let mut follow = match self.follow(&operation.id).await {
            Ok(follow) => follow,
            Err(error) => return Err(self.refuse(push, &error).await),
        };
        loop {
            if self.is_leaving() {
                // Its output is the next platform's.
                return self.follow_elsewhere(push, &operation.id).await;
            }
            let next = self.0.ending.run_until_cancelled(follow.next()).await;
            match next {
                Some(Some(Progress::Output(line))) => {
                    say(push, String::from_utf8_lossy(&line).into_owned()).await;
                }
                Some(Some(Progress::Bar(_))) => {}
                Some(Some(Progress::Over(state))) => {
                    return self.outcome(&operation.id, state).await;
                }
                Some(None) => return self.outcome(&operation.id, State::Failed).await,
                None if self.is_leaving() => {}
                None => {
                    say(
                        push,
                        format!(
                            " !     The platform is stopping; operation {} goes on when it is back",
                            operation.id
                        ),
                    )
                    .await;
                    return Err("not done yet".to_owned());
                }
            }
        }
    }

    /// Another platform goes on with an operation: what becomes of it is in the database.
    async fn follow_elsewhere(&self, push: &Push, id: &OperationId) -> Result<(), String> {
        say(push, "-----> The platform is upgraded; the new one goes on".to_owned()).await;
        let until = Instant::now() + ELSEWHERE;
        let operation = loop {
            if self.0.abandoned.run_until_cancelled(sleep(LOOK)).await.is_none() {
                let text = format!(
                    " !     The new platform ended; operation {id} is resumed when it is back"
                );
                say(push, text).await;
                return Err("not done yet".to_owned());
            }
            match self.store().operation(id).await {
                Ok(operation) if operation.state.is_over() => break operation,
                Err(error) if !error.is_unavailable() => {
                    return Err(self.refuse(push, &error.into()).await);
                }
                _ if Instant::now() > until => {
                    let text = format!(" !     Operation {id} goes on: tolv operations show {id}");
                    say(push, text).await;
                    return Err("not done yet".to_owned());
                }
                // It is not over, or the database is away.
                _ => {}
            }
        };
        // What this platform has of it may be its beginning.
        let mut follow = self.stored_output(&operation).await;
        loop {
            match follow.next().await {
                Some(Progress::Output(line)) => {
                    say(push, String::from_utf8_lossy(&line).into_owned()).await;
                }
                Some(Progress::Bar(_)) => {}
                Some(Progress::Over(state)) => return self.outcome(id, state).await,
                None => return self.outcome(id, State::Failed).await,
            }
        }
    }

    /// What git says of a branch whose operation ended so.
    async fn outcome(&self, id: &OperationId, state: State) -> Result<(), String> {
        match state {
            // A release whose branch could not be moved has succeeded; the push has not.
            State::Succeeded => match self.store().operation(id).await {
                Ok(operation) if operation.error.is_some() => {
                    Err("released, but the branch is not moved".to_owned())
                }
                Ok(_) | Err(_) => Ok(()),
            },
            State::Superseded => Err("superseded by a newer push".to_owned()),
            State::Cancelled => Err("cancelled".to_owned()),
            State::Failed | State::Queued | State::Running => Err("deploy failed".to_owned()),
        }
    }
}

/// An error in a few words, as git shows it behind a ref.
fn reason(error: &Error) -> String {
    let text = match error {
        Error::OtherCodebase { .. } => "another codebase",
        Error::Repo(RepoError::Moved(_)) => "fetch first",
        Error::DiskFull { .. } | Error::NoFiles { .. } => "no space left",
        Error::DiskFault(_) => "the disk is read-only",
        Error::Store(tolv_store::Error::ReadOnlyDatabase) => "the database is read-only",
        Error::Store(tolv_store::Error::DatabaseFull(_)) => "the disk of the database is full",
        Error::Store(error) if error.is_unavailable() => "the database cannot be reached",
        Error::Stopping => STOPPING,
        Error::Repo(RepoError::BadRef(_)) => "not a name for a branch or tag",
        _ => "refused",
    };
    text.to_owned()
}

/// Whoever pushed may be gone: then nobody hears it.
async fn say(push: &Push, text: String) {
    push.say.send(text).await.ok();
}
