//! Who builds next. There are few places, and a build may take long: an app that pushes again and again
//! must not keep the others waiting.
//!
//! The next one is of the app that builds least now, then of the actor that does, then of the app whose
//! last turn is longest ago, then the first that came. Where there are two places or more, one app never
//! has them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tolv_model::id::AppId;

/// The places, and who waits for one. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct BuildQueue(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    places: usize,
    building: Vec<Build>,
    waiting: Vec<(Build, watch::Sender<Standing>)>,
    /// When an app had its last turn, as a number of turns; of those that build or wait.
    last_turns: HashMap<AppId, u64>,
    turns: u64,
    arrivals: u64,
}

/// A build that is asked for.
#[derive(Clone, Debug)]
struct Build {
    app: AppId,
    actor: String,
    arrival: u64,
}

/// How a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has a place.
    Builds,
    /// It waits.
    Waits {
        /// Builds that run.
        building: usize,
        /// Those of the same app among them.
        of_app: usize,
        /// Builds that come before it, as things are.
        ahead: usize,
    },
}

/// A build in the queue; dropping it gives its place back.
#[derive(Debug)]
pub(super) struct Turn {
    queue: BuildQueue,
    arrival: u64,
    standing: watch::Receiver<Standing>,
}

impl BuildQueue {
    /// With so many builds at once.
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            places: places.max(1),
            building: Vec::new(),
            waiting: Vec::new(),
            last_turns: HashMap::new(),
            turns: 0,
            arrivals: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds that run.
    pub(super) fn building(&self) -> usize {
        self.state().building.len()
    }

    /// Asks for a place.
    pub(super) fn join(&self, app: &AppId, actor: &str) -> Turn {
        let mut state = self.state();
        let arrival = state.arrivals;
        state.arrivals += 1;
        let build = Build { app: app.clone(), actor: actor.to_owned(), arrival };
        let (tell, standing) = watch::channel(Standing::Waits { building: 0, of_app: 0, ahead: 0 });
        state.waiting.push((build, tell));
        state.settle();
        Turn { queue: self.clone(), arrival, standing }
    }
}

impl State {
    /// The one of `waiting` that is next when these build; nothing where none may.
    fn next(&self, building: &[Build], waiting: &[&Build]) -> Option<usize> {
        let most = (self.places - 1).max(1);
        let of_app = |app: &AppId| building.iter().filter(|other| other.app == *app).count();
        let of_actor = |actor: &str| building.iter().filter(|other| other.actor == actor).count();
        let may = waiting.iter().enumerate().filter(|(_, build)| of_app(&build.app) < most);
        let first = may.min_by_key(|(_, build)| {
            let last = self.last_turns.get(&build.app).copied().unwrap_or(0);
            (of_app(&build.app), of_actor(&build.actor), last, build.arrival)
        });
        first.map(|(index, _)| index)
    }

    /// Gives free places away, and tells the others how they stand.
    fn settle(&mut self) {
        while self.building.len() < self.places {
            let waiting: Vec<_> = self.waiting.iter().map(|(build, _)| build).collect();
            let Some(next) = self.next(&self.building, &waiting) else { break };
            let (build, tell) = self.waiting.remove(next);
            self.turns += 1;
            self.last_turns.insert(build.app.clone(), self.turns);
            self.building.push(build);
            tell.send_replace(Standing::Builds);
        }
        let known: Vec<_> =
            self.building.iter().chain(self.waiting.iter().map(|(b, _)| b)).collect();
        self.last_turns.retain(|app, _| known.iter().any(|build| build.app == *app));
        // Nobody's place says more than how many builds there are; whose they are is not told.
        for (build, tell) in &self.waiting {
            let of_app = |app: &AppId| self.building.iter().filter(|b| b.app == *app).count();
            let key = |other: &Build| {
                let last = self.last_turns.get(&other.app).copied().unwrap_or(0);
                (of_app(&other.app), last, other.arrival)
            };
            let ahead = self.waiting.iter().filter(|(other, _)| key(other) < key(build));
            let standing = Standing::Waits {
                building: self.building.len(),
                of_app: of_app(&build.app),
                ahead: ahead.count(),
            };
            tell.send_if_modified(|now| std::mem::replace(now, standing) != standing);
        }
    }
}

impl Turn {
    /// How it stands.
    pub(super) fn standing(&mut self) -> Standing {
        *self.standing.borrow_and_update()
    }

    /// Waits until it stands otherwise.
    pub(super) async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            // Its sender is dropped with the last word: it builds.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.building.retain(|build| build.arrival != self.arrival);
        state.waiting.retain(|(build, _)| build.arrival != self.arrival);
        state.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(app: &str) -> AppId {
        let number = app.bytes().fold(0, |number, byte| number << 8 | u64::from(byte));
        AppId::new(jiff::Timestamp::UNIX_EPOCH, number)
    }

    fn join(queue: &BuildQueue, app: &str) -> Turn {
        queue.join(&id(app), "token")
    }

    #[test]
    fn an_app_with_many_builds_yields_to_the_first_of_another() {
        let queue = BuildQueue::new(1);
        let first = join(&queue, "greedy");
        let mut more: Vec<_> = (0..3).map(|_| join(&queue, "greedy")).collect();
        let mut blog = join(&queue, "blog");
        assert_eq!(blog.standing(), Standing::Waits { building: 1, of_app: 0, ahead: 0 });
        assert_eq!(more[0].standing(), Standing::Waits { building: 1, of_app: 1, ahead: 1 });
        drop(first);
        assert_eq!(blog.standing(), Standing::Builds);
        // In turns from here on.
        let mut again = join(&queue, "blog");
        drop(blog);
        assert_eq!(more[0].standing(), Standing::Builds);
        more.remove(0);
        assert_eq!(again.standing(), Standing::Builds);
        drop(again);
        assert_eq!(more[0].standing(), Standing::Builds);
        assert_eq!(queue.building(), 1);
        drop(more);
        assert_eq!(queue.building(), 0);
        assert!(queue.state().last_turns.is_empty());
    }

    #[test]
    fn no_app_has_every_place() {
        let queue = BuildQueue::new(3);
        let mut greedy: Vec<_> = (0..9).map(|_| join(&queue, "greedy")).collect();
        let builds = |turn: &mut Turn| turn.standing() == Standing::Builds;
        assert_eq!(greedy.iter_mut().filter_map(|turn| builds(turn).then_some(())).count(), 2);
        assert!(builds(&mut join(&queue, "blog")));
        // One that gives up waits no more.
        greedy.truncate(2);
        assert_eq!(queue.state().waiting.len(), 0);
    }

    #[test]
    fn of_two_apps_the_one_whose_actor_builds_nothing_is_first() {
        let queue = BuildQueue::new(2);
        let _one = queue.join(&id("one"), "a");
        let two = queue.join(&id("two"), "b");
        let mut three = queue.join(&id("three"), "a");
        let mut four = queue.join(&id("four"), "c");
        drop(two);
        assert_eq!(four.standing(), Standing::Builds);
        assert_ne!(three.standing(), Standing::Builds);
    }
}
