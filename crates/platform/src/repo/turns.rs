//! How many git commands and waiting pushes there may be at once, in total, for each app and for each
//! token.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tolv_model::name::AppName;

/// A bound in total, with lower ones for each app and each token: none can take everything. Clones
/// are the same.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    total: Arc<Semaphore>,
    apps: Bounds<AppName>,
    tokens: Bounds<String>,
}

/// One turn; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Turn {
    _of: [OwnedSemaphorePermit; 3],
}

impl Turns {
    pub(super) fn new(total: usize, per_app: usize, per_token: usize) -> Self {
        let (apps, tokens) = (Bounds::new(per_app), Bounds::new(per_token));
        Self { total: Arc::new(Semaphore::new(total)), apps, tokens }
    }

    /// Waits for a turn. Every queue is first come, first served, and in the last one an app and a
    /// token have at most as many places as they may have turns, so that others are served in between.
    pub(super) async fn acquire(&self, app: &AppName, token: &str) -> Option<Turn> {
        let app = self.apps.of(app).acquire_owned().await.ok()?;
        let token = self.tokens.of(&token.to_owned()).acquire_owned().await.ok()?;
        let total = Arc::clone(&self.total).acquire_owned().await.ok()?;
        Some(Turn { _of: [app, token, total] })
    }

    /// Takes a turn if one is free.
    pub(super) fn try_acquire(&self, app: &AppName, token: &str) -> Option<Turn> {
        let app = self.apps.of(app).try_acquire_owned().ok()?;
        let token = self.tokens.of(&token.to_owned()).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Turn { _of: [app, token, total] })
    }
}

/// The same bound for each of many.
#[derive(Clone, Debug)]
struct Bounds<T> {
    each: usize,
    known: Arc<Mutex<HashMap<T, Weak<Semaphore>>>>,
}

impl<T: Clone + Eq + Hash> Bounds<T> {
    fn new(each: usize) -> Self {
        Self { each, known: Arc::default() }
    }

    /// The semaphore of one. It is dropped when no turn of it is held or awaited.
    fn of(&self, one: &T) -> Arc<Semaphore> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(one).and_then(Weak::upgrade) {
            return own;
        }
        known.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.each));
        known.insert(one.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_one_app_nor_one_token_can_take_all_turns() {
        let turns = Turns::new(6, 2, 3);
        let app = |name: &str| name.parse::<AppName>().unwrap();
        let take = |name: &str, token: &str| turns.try_acquire(&app(name), token);
        let greedy: Vec<_> = (0..9).filter_map(|_| take("greedy", "a")).collect();
        assert_eq!(greedy.len(), 2);
        let others: Vec<_> = (0..9).filter_map(|n| take(&format!("other{n}"), "a")).collect();
        assert_eq!(others.len(), 1, "of the same token");
        let other = [take("blog", "b"), take("shop", "b")];
        assert!(other.iter().all(Option::is_some));
        drop(greedy);
        assert!(take("greedy", "a").is_some());
    }
}
