//! Where a ledger ends, outside the database.

use super::*;

on_both!(where_a_ledger_ends_is_known_outside_the_database);

async fn where_a_ledger_ends_is_known_outside_the_database(bed: Bed) {
    let store = &bed.store;
    let folder = bed.home.path().join("anchors");
    store.anchor_in(folder.clone());
    let deploy = bed.shop().await;
    let file = folder.join(deploy.id.as_str());
    bed.release(&deploy, Outcome::Succeeded).await;
    let old = std::fs::read(&file).unwrap();
    let (_, two) = bed.release(&deploy, Outcome::Succeeded).await;
    assert_eq!(two.outcome, Outcome::Succeeded);
    let read = async || store.ledger(&deploy.id, true).await.unwrap();
    let holds = read().await;
    assert!(holds.broken.is_empty() && holds.anchored, "{:?}", holds.broken);
    // An older one is none of this ledger's, and neither is the ledger of a newer one.
    let new = std::fs::read(&file).unwrap();
    std::fs::write(&file, old).unwrap();
    let one = Some(ReleaseNumber(1));
    let end = |found| ledger::Broken::End { recorded: one, found };
    assert_eq!(read().await.broken, [end(Some(ReleaseNumber(2)))]);
    let refused = store.accept_ledger(&deploy.id).await.unwrap();
    assert_eq!(refused.broken.len(), 1);
    assert!(read().await.broken.is_empty(), "it was accepted");
    std::fs::write(&file, new).unwrap();
    for cut in [
        "DELETE FROM outcomes WHERE number = 2",
        "DELETE FROM releases WHERE number = 2",
        "UPDATE deploys SET current_release = 1",
    ] {
        bed.raw(cut).unwrap();
        let recorded = Some(ReleaseNumber(2));
        let is_end = |broken: &ledger::Broken| matches!(broken, ledger::Broken::End { recorded: r, .. } if *r == recorded);
        assert!(read().await.broken.iter().any(is_end), "{cut}");
    }
    // Nothing is appended to what was cut.
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let operation = store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap().0;
    let refused = store.append(&new_release(&operation.id, &deploy, 0)).await;
    assert!(matches!(refused, Err(Error::Ledger(_))), "{refused:?}");
    // Changed behind our back, it says nothing at all.
    std::fs::write(&file, "nothing").unwrap();
    assert!(matches!(store.ledger(&deploy.id, true).await, Err(Error::Anchor { .. })));
    std::fs::remove_file(&file).unwrap();
    let unknown = read().await;
    assert!(unknown.broken.is_empty() && !unknown.anchored, "{:?}", unknown.broken);
    store.append(&new_release(&operation.id, &deploy, 0)).await.unwrap();
    assert!(read().await.anchored);
    store.destroy_deploy(&deploy.id).await.unwrap();
    assert!(!file.exists());
}
