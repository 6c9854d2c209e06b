//! How many git commands and waiting pushes there may be at once, in total and for each app.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tolv_model::name::AppName;

/// A bound in total, with a lower one for each app: no app can take everything. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    total: Arc<Semaphore>,
    most: usize,
    per_app: usize,
    apps: Arc<Mutex<HashMap<AppName, Weak<Semaphore>>>>,
}

/// One turn; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new(total: usize, per_app: usize) -> Self {
        Self { total: Arc::new(Semaphore::new(total)), most: total, per_app, apps: Arc::default() }
    }

    /// Turns that are taken, and the most at once.
    pub(super) fn taken(&self) -> (usize, usize) {
        (self.most.saturating_sub(self.total.available_permits()), self.most)
    }

    /// Waits for a turn. Both queues are first come, first served, and in the second one an app has
    /// at most as many places as it may have turns, so that other apps are served in between.
    pub(super) async fn acquire(&self, app: &AppName) -> Option<Turn> {
        let own = self.of(app).acquire_owned().await.ok()?;
        let total = Arc::clone(&self.total).acquire_owned().await.ok()?;
        Some(Turn { _own: own, _total: total })
    }

    /// Takes a turn if one is free.
    pub(super) fn try_acquire(&self, app: &AppName) -> Option<Turn> {
        let own = self.of(app).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Turn { _own: own, _total: total })
    }

    /// The semaphore of one app. It is dropped when no turn of the app is held or awaited.
    fn of(&self, app: &AppName) -> Arc<Semaphore> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = apps.get(app).and_then(Weak::upgrade) {
            return own;
        }
        apps.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.per_app));
        apps.insert(app.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_app_cannot_take_all_turns() {
        let turns = Turns::new(5, 2);
        let app = |name: &str| name.parse::<AppName>().unwrap();
        let greedy: Vec<_> = (0..9).filter_map(|_| turns.try_acquire(&app("greedy"))).collect();
        assert_eq!((greedy.len(), turns.taken()), (2, (2, 5)));
        let other = [turns.try_acquire(&app("blog")), turns.try_acquire(&app("shop"))];
        assert!(other.iter().all(Option::is_some));
        drop(greedy);
        assert!(turns.try_acquire(&app("greedy")).is_some());
    }
}
