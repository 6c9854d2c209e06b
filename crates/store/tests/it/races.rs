//! Two at once, twice in a row, and clocks that stand still.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::*;

on_both!(
    two_stores_on_one_database_take_turns,
    a_release_is_settled_once,
    a_release_has_a_config_that_is_there,
    what_is_queued_in_one_moment_keeps_its_order,
    config_holds_any_bytes,
    no_file_of_the_database_holds_a_value,
);

async fn two_stores_on_one_database_take_turns(bed: Bed) {
    let deploy = bed.shop().await;
    let other = open(&bed.url(), &key(7)).await.unwrap();
    let twenty = (0..20).map(|n| {
        let store = if n % 2 == 0 { &bed.store } else { &other };
        release_in(store, &deploy, Outcome::Succeeded)
    });
    let mut numbers = BTreeSet::new();
    for (_, release) in futures(twenty.collect()).await {
        numbers.insert(release.row.number.0);
    }
    assert_eq!(numbers, (1..=20).collect());
    assert!(bed.verify(&deploy).await.is_ok());
}

async fn a_release_is_settled_once(bed: Bed) {
    let deploy = bed.shop().await;
    bed.release(&deploy, Outcome::Succeeded).await;
    let (operation, failed) = bed.release(&deploy, Outcome::Failed).await;
    let number = failed.row.number;
    bed.store
        .settle(
            &operation.id,
            &deploy.id,
            number,
            Outcome::Succeeded,
            State::Succeeded,
            None,
            at(9),
        )
        .await
        .unwrap();
    assert_eq!(bed.store.release(&deploy.id, number).await.unwrap().outcome, Outcome::Failed);
    let now = bed.store.deploy_by_id(&deploy.id).await.unwrap();
    assert_eq!(now.current, Some(ReleaseNumber(1)), "what failed is not what runs");
    assert_eq!(bed.store.operation(&operation.id).await.unwrap().state, State::Failed);
}

async fn a_release_has_a_config_that_is_there(bed: Bed) {
    let deploy = bed.shop().await;
    let operation = bed.store.enqueue(&deploy.id, &Request::Stop, "ada", at(2)).await.unwrap().0;
    let new = new_release(&operation.id, &deploy, 7);
    let refused = bed.store.append(&new).await;
    assert!(matches!(refused, Err(Error::NotFound { what: "config version", .. })), "{refused:?}");
    assert!(bed.store.releases(&deploy.id, None, 9).await.unwrap().is_empty());
    let refused = bed.store.set_config_head(&deploy.id, 7).await;
    assert!(matches!(refused, Err(Error::NotFound { what: "config version", .. })), "{refused:?}");
    bed.store.set_config_head(&deploy.id, 0).await.unwrap();
}

async fn what_is_queued_in_one_moment_keeps_its_order(bed: Bed) {
    let deploy = bed.shop().await;
    let mut queued = Vec::new();
    // The clock stands still, and then goes back.
    for second in std::iter::repeat_n(9, 8).chain([3, 1]) {
        let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
        let asked = bed.store.enqueue(&deploy.id, &request, "ada", at(second)).await;
        queued.push(asked.unwrap().0.id);
    }
    let (_, last) = bed
        .store
        .change_config(&deploy.id, None, &set(&[("A", b"1")]), Some("ada"), at(1))
        .await
        .unwrap();
    queued.push(last.unwrap().id);
    let mut done = Vec::new();
    while let Some(next) = bed.store.next(&deploy.id).await.unwrap() {
        bed.store.end(&next.id, State::Succeeded, None, at(10)).await.unwrap();
        done.push(next.id);
    }
    assert_eq!(done, queued);
}

async fn config_holds_any_bytes(bed: Bed) {
    let deploy = bed.shop().await;
    // An environment cannot hold a zero byte; everything else it can.
    let value = prop::collection::vec(1..=u8::MAX, 0..300);
    let vars = prop::collection::btree_map("V_[A-Z0-9_]{0,9}", (value, any::<bool>()), 1..6);
    let (store, seen) = (&bed.store, std::cell::RefCell::new(BTreeSet::new()));
    let tried = TestRunner::new(Cases { cases: 24, failure_persistence: None, ..Cases::default() })
        .run(&vars, |vars| {
            let new = |(name, (value, secret)): (&String, &(Vec<u8>, bool))| {
                let new = NewValue { value: value.clone(), secret: *secret, build: false };
                (name.parse::<EnvName>().unwrap(), new)
            };
            // A secret stays one until it is unset.
            let unset = seen.borrow().clone();
            let change = Change { set: vars.iter().map(new).collect(), unset };
            seen.borrow_mut().extend(change.set.keys().cloned());
            let config = block_in_place(|| {
                Handle::current().block_on(async {
                    let made = store.change_config(&deploy.id, None, &change, None, at(2)).await;
                    store.config(&deploy.id, made.unwrap().0).await.unwrap()
                })
            });
            for (name, (value, secret)) in &vars {
                prop_assert_eq!(config.vars.get(name).unwrap().as_bytes(), value.as_slice());
                prop_assert_eq!(config.secret.contains(&name.parse::<EnvName>().unwrap()), *secret);
            }
            Ok(())
        });
    tried.unwrap();
}

async fn no_file_of_the_database_holds_a_value(bed: Bed) {
    use base64::Engine as _;
    let deploy = bed.shop().await;
    let value = b"correct horse battery staple, and more of that".as_slice();
    let change = set(&[("V", value)]);
    let operation = bed.store.change_config(&deploy.id, None, &change, Some("ada"), at(2)).await;
    assert_eq!(operation.unwrap().0, 1);
    bed.release(&deploy, Outcome::Succeeded).await;
    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
    let folder = bed.postgres.as_ref().map_or(bed.home.path().to_owned(), Postgres::data);
    let (mut files, mut found_name) = (vec![folder], false);
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            // PostgreSQL removes some of its files while it runs.
            let bytes = std::fs::read(&path).unwrap_or_default();
            let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
            assert!(!has(value) && !has(encoded.as_bytes()), "{}", path.display());
            found_name |= has(deploy.id.as_str().as_bytes());
        }
    }
    assert!(found_name, "these are the database's files");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_do_not_wait_for_one_another_while_the_database_is_away() {
    let mut bed = Bed::new(true).await;
    let deploy = bed.shop().await;
    bed.postgres.as_mut().unwrap().stop();
    let many = (0..8).map(|_| bed.store.set_branch(&deploy.id, "main")).collect();
    // One after the other they would take 24 seconds.
    let all = tokio::time::timeout(Duration::from_secs(12), futures(many)).await.unwrap();
    assert!(all.iter().all(|said| said.as_ref().is_err_and(Error::is_unavailable)), "{all:?}");
    bed.postgres.as_mut().unwrap().again();
    bed.store.set_branch(&deploy.id, "main").await.unwrap();
}
