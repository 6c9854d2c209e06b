//! What a full disk, and who asks for much, do to a database.

use super::*;

on_both!(a_transaction_that_the_database_ended_is_forgotten, versions_without_use_are_removed);

/// On a full disk SQLite rolls back by itself.
async fn a_transaction_that_the_database_ended_is_forgotten(bed: Bed) {
    let deploy = bed.shop().await;
    let (on, off): (&[&str], &str) = match bed.postgres {
        None => (
            &["CREATE TRIGGER full_disk BEFORE INSERT ON audit \
               BEGIN SELECT RAISE(ROLLBACK, 'full'); END"],
            "DROP TRIGGER full_disk",
        ),
        Some(_) => (
            &[
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION SQLSTATE '53100'; END $$",
                "CREATE TRIGGER full_disk BEFORE INSERT ON audit \
                 FOR EACH ROW EXECUTE FUNCTION full_disk()",
            ],
            "DROP TRIGGER full_disk ON audit",
        ),
    };
    for statement in on {
        bed.raw(statement).unwrap();
    }
    for second in 0..6 {
        let added = bed.store.audit("ada", "x", None, None, "", at(second)).await;
        assert!(added.is_err());
    }
    bed.raw(off).unwrap();
    for second in 0..6 {
        bed.store.audit("ada", "x", None, None, "", at(second)).await.unwrap();
        bed.store.set_branch(&deploy.id, "main").await.unwrap();
    }
    assert_eq!(bed.store.audit_lines(None, None, 99).await.unwrap().len(), 6);
}

async fn versions_without_use_are_removed(bed: Bed) {
    let (store, deploy) = (&bed.store, bed.shop().await);
    store.keep_releases(2);
    let mut released = Vec::new();
    for byte in 0..4 {
        let change = set(&[("A", &[b'a' + byte])]);
        let made = store.change_config(&deploy.id, None, &change, None, at(2)).await;
        released.push(made.unwrap().0);
        bed.release(&deploy, Outcome::Succeeded).await;
    }
    for byte in 0..9 {
        let change = set(&[("A", &[b'p' + byte])]);
        store.change_config(&deploy.id, None, &change, None, at(3)).await.unwrap();
    }
    let mut known = Vec::new();
    for version in 1..=13 {
        if store.config(&deploy.id, version).await.is_ok() {
            known.push(version);
        }
    }
    assert_eq!(known, [released[2], released[3], 13]);
    bed.verify(&deploy).await.unwrap();
    // Of a release that is kept its config has to be there.
    bed.raw(&format!("DELETE FROM configs WHERE version = {}", released[2])).unwrap();
    let missing = bed.verify(&deploy).await;
    assert_eq!(missing, Err(ledger::Broken::Config(ReleaseNumber(3))));
    // As many operations wait as may, and what frees space is not kept out by the others.
    let retry = Request::Retry { release: ReleaseNumber(1), branch: None, no_release_phase: false };
    for _ in 0..100 {
        store.enqueue(&deploy.id, &retry, "ada", at(4)).await.unwrap();
    }
    let more = store.enqueue(&deploy.id, &retry, "ada", at(4)).await;
    assert!(matches!(more, Err(Error::TooMany { .. })), "{more:?}");
    store.enqueue(&deploy.id, &Request::Stop, "ada", at(4)).await.unwrap();
}
