//! How a platform ends: in order, or by leaving what runs to the next one.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tolv_model::id::OperationId;
use tolv_router::Handed;

use super::platform::{Platform, lock};

/// For requests in flight when the platform ends.
const ROUTER_GRACE: Duration = Duration::from_secs(30);
/// For pushes that are on their way before another platform goes on.
const PUSHES: Duration = Duration::from_secs(30);
/// How long the platform before this one may queue what late pushes ask for, and between two looks.
const LATE_PUSHES: Duration = Duration::from_secs(40 * 60);
const LATE_PUSH_LOOK: Duration = Duration::from_secs(1);

/// A push whose operation is not queued yet.
#[derive(Debug)]
pub struct UndecidedPush {
    _token: TaskTrackerToken,
}

impl Platform {
    /// Lets the requests in flight finish, then stops every process. What is not done yet is gone
    /// on with by the next platform on this state folder.
    pub async fn end(&self) {
        let inner = &self.0;
        inner.ending.cancel();
        lock(&inner.listener).take();
        self.finish_requests().await;
        self.settle().await;
        self.release_lease().await;
        self.remove_aside();
    }

    /// Begins no operation any more, and waits until none is under way, and until no push is on its
    /// way; operations that are queued are the next platform's. [`Platform::leave`] comes after it.
    pub async fn finish_operations(&self) {
        self.0.holding.send_replace(true);
        let controllers: Vec<_> = self.controllers().values().cloned().collect();
        for controller in controllers {
            controller.rests().await;
        }
        timeout(PUSHES, self.decided_pushes()).await.ok();
    }

    /// Waits until every push that has begun is decided about.
    pub async fn decided_pushes(&self) {
        let pushes = &self.0.undecided_pushes;
        pushes.close();
        pushes.wait().await;
    }

    /// A push has begun; until it is decided about, or this is dropped, it is waited for.
    pub fn begin_push(&self) -> UndecidedPush {
        UndecidedPush { _token: self.0.undecided_pushes.token() }
    }

    /// Begins what the platform before this one queues for pushes that reached it before this one took
    /// over, and arrived whole only later.
    pub(super) async fn take_up_late_pushes(self) {
        let look = async {
            loop {
                sleep(LATE_PUSH_LOOK).await;
                let waiting = self.0.store.deploys_with_operations().await.unwrap_or_default();
                let controllers = self.controllers();
                waiting.iter().filter_map(|deploy| controllers.get(deploy)).for_each(|c| c.wake());
            }
        };
        let look = self.0.ending.run_until_cancelled(look);
        timeout(LATE_PUSHES.saturating_sub(self.0.began.elapsed()), look).await.ok();
        self.0.ending.cancelled().await;
    }

    /// After [`Platform::finish`] has begun: the next platform has ended in disorder, and nobody waits for
    /// what it was to do.
    pub fn abandon(&self) {
        self.0.abandoned.cancel();
    }

    /// Whether another platform is about to go on: then this one does not know what runs.
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.is_cancelled()
    }

    /// After [`Platform::finish_operations`], or instead of its end: there is no next platform after
    /// all, and this one begins operations as before.
    pub fn begin_operations(&self) {
        self.0.holding.send_replace(false);
    }

    /// The operations that are under way.
    pub fn operations_under_way(&self) -> Vec<OperationId> {
        self.controllers().values().filter_map(|controller| controller.current()).collect()
    }

    /// Lets go of what runs and of the state folder, for the next platform to go on with. Requests
    /// are answered still, by what runs now, until [`Platform::finish`]; those that reach no process wait
    /// for that. One-offs are stopped.
    pub async fn leave(&self) {
        self.0.router.leave();
        self.0.leaving.cancel();
        self.0.ending.cancel();
        self.settle().await;
        self.0.spawner.leave();
        self.release_lease().await;
        lock(&self.0.lock).take();
    }

    /// After [`Platform::leave`], once the next platform takes requests from the same socket: takes
    /// no more, and lets those in flight finish. Connections whose requests wait for a process go to
    /// `heir`, whose [`Platform::adopt`] takes them.
    pub async fn finish(&self, heir: mpsc::UnboundedSender<Handed>) {
        self.0.router.hand_on(heir);
        // A start after a kill of the next platform finds the address free.
        lock(&self.0.listener).take();
        self.finish_requests().await;
        // Their lines are in the logs.
        self.0.drained.cancelled().await;
    }

    async fn finish_requests(&self) {
        let (requests, lasting) = self.0.router.waited_for();
        if requests + lasting > 0 {
            let seconds = ROUTER_GRACE.as_secs();
            self.say(format!(
                "Waiting for requests in flight: {requests}, WebSockets and streams: {lasting} \
                 ({seconds} seconds at most)"
            ))
            .await;
        }
        let cut = self.0.router.drain(ROUTER_GRACE).await.cut;
        if cut > 0 {
            let seconds = ROUTER_GRACE.as_secs();
            self.say(format!("Cut {cut} requests that were not done after {seconds} seconds"))
                .await;
        }
        self.0.quiet.cancel();
    }

    /// Waits until every deploy's task has ended.
    async fn settle(&self) {
        // They stay in reach of a kill meanwhile.
        let controllers: Vec<_> = self.controllers().values().cloned().collect();
        for controller in controllers {
            controller.ended().await;
            controller.drains.ended().await;
        }
        self.controllers().clear();
        self.settle_runs().await;
    }

    /// What the router takes connections from, to be handed on; nothing once the platform ends.
    pub fn listener(&self) -> Option<Arc<TcpListener>> {
        lock(&self.0.listener).clone()
    }
}
