//! Pushes under way: shown, followed and cancelled like operations, for as long as they last.
//!
//! What a push deploys becomes an operation of its own, which is in the database. Before that, and for
//! branches and tags that are only kept, a push is known here alone: what ends it ends with this
//! program, and nothing of it is gone on with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::name::Deploy as DeployPath;
use tolv_model::operation::{Request, State};
use tolv_store::Operation;

use super::end::UndecidedPush;
use super::error::Error;
use super::output::Output;
use super::platform::{Actor, Platform};

/// Why a push is ended early, as git shows it behind each ref.
const CANCELLED: &str = "cancelled";
pub(super) const STOPPING: &str = "the platform is stopping";

/// All of them.
#[derive(Default)]
pub(super) struct Pushes(Mutex<BTreeMap<OperationId, Known>>);

#[derive(Clone)]
struct Known {
    operation: Operation,
    cancel: CancellationToken,
    ended: watch::Receiver<Option<State>>,
}

impl Pushes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<OperationId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A push, from the moment that its token is known; dropping it is its end.
pub struct PushUnderWay {
    platform: Platform,
    id: OperationId,
    output: Arc<Output>,
    cancel: CancellationToken,
    end: watch::Sender<Option<State>>,
    state: State,
    /// Until its operation is queued, an upgrade waits for it.
    _undecided: UndecidedPush,
}

impl std::fmt::Debug for PushUnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushUnderWay({})", self.id)
    }
}

impl Platform {
    /// Shows a push among the operations of its deploy.
    ///
    /// # Errors
    ///
    /// There is no such deploy, or the database is away.
    pub async fn open_push(
        &self,
        actor: &Actor,
        path: &DeployPath,
        undecided: UndecidedPush,
    ) -> Result<PushUnderWay, Error> {
        let deploy = self.store().deploy(path).await?;
        let (now, mut random) = (Timestamp::now(), [0; 8]);
        getrandom(&mut random, GetRandomFlags::empty())
            .map_err(|errno| Error::System { what: "get random bytes", source: errno.into() })?;
        let id = OperationId::new(now, u64::from_ne_bytes(random));
        let operation = Operation {
            id: id.clone(),
            deploy: deploy.id,
            deploy_name: deploy.name,
            request: Request::Push,
            actor: actor.name.clone(),
            state: State::Running,
            created: now,
            started: Some(now),
            ended: None,
            slug: None,
            release: None,
            error: None,
        };
        let (end, ended) = watch::channel(None);
        let cancel = CancellationToken::new();
        let known = Known { operation, cancel: cancel.clone(), ended };
        self.0.pushes.lock().insert(id.clone(), known);
        let output = self.0.outputs.begin(&id);
        let state = State::Failed;
        let platform = self.clone();
        Ok(PushUnderWay { platform, id, output, cancel, end, state, _undecided: undecided })
    }

    /// A push that is under way.
    pub fn push_under_way(&self, id: &OperationId) -> Option<Operation> {
        self.0.pushes.lock().get(id).map(|known| known.operation.clone())
    }

    /// The pushes to a deploy that are under way.
    pub fn pushes_under_way(&self, deploy: &DeployId) -> Vec<Operation> {
        let pushes = self.0.pushes.lock();
        let own = pushes.values().filter(|known| known.operation.deploy == *deploy);
        own.map(|known| known.operation.clone()).collect()
    }

    /// Ends a push, and waits for that; nothing where it is none.
    pub(super) async fn cancel_push(&self, id: &OperationId) -> Option<Operation> {
        let mut known = self.0.pushes.lock().get(id).cloned()?;
        known.cancel.cancel();
        let ended = known.ended.wait_for(Option::is_some).await;
        let state = ended.ok().and_then(|state| *state).unwrap_or(State::Cancelled);
        Some(Operation { state, ended: Some(Timestamp::now()), ..known.operation })
    }

    /// Waits until nothing new is to be begun for pushes. A platform that leaves to another one does
    /// what it has begun, unless that one ends.
    async fn ends_pushes(&self) {
        self.0.ending.cancelled().await;
        if self.is_leaving() {
            self.0.abandoned.cancelled().await;
        }
    }
}

impl PushUnderWay {
    /// Its id among the operations.
    pub(super) fn id(&self) -> &OperationId {
        &self.id
    }

    /// Says something to whoever follows it.
    pub(super) fn say(&self, text: &str) {
        self.output.say(text);
    }

    /// Why nothing more of it is to be begun, where that is so.
    pub(super) fn stopped(&self) -> Option<&'static str> {
        let inner = &self.platform.0;
        if self.cancel.is_cancelled() {
            return Some(CANCELLED);
        }
        let is_over = match self.platform.is_leaving() {
            true => inner.abandoned.is_cancelled(),
            false => inner.ending.is_cancelled(),
        };
        is_over.then_some(STOPPING)
    }

    /// Waits until nothing more of it is to be begun; gives back why.
    pub fn until_stopped(&self) -> impl Future<Output = &'static str> + Send + 'static {
        let (platform, cancel) = (self.platform.clone(), self.cancel.clone());
        async move {
            tokio::select! {
                () = cancel.cancelled() => CANCELLED,
                () = platform.ends_pushes() => STOPPING,
            }
        }
    }

    /// How it ends.
    pub(super) fn set_end(&mut self, state: State) {
        self.state = state;
    }
}

impl Drop for PushUnderWay {
    fn drop(&mut self) {
        let state = match self.state {
            State::Failed if self.cancel.is_cancelled() => State::Cancelled,
            state => state,
        };
        self.platform.0.pushes.lock().remove(&self.id);
        self.platform.0.outputs.over(&self.id, state);
        self.end.send_replace(Some(state));
    }
}
