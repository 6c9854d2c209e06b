//! Drains: sealed addresses, and how far each has come.

use tolv_model::id::DrainId;
use tolv_store::DrainProgress;

use super::*;

on_both!(a_drain_is_sealed_and_keeps_its_place);

async fn a_drain_is_sealed_and_keeps_its_place(bed: Bed) {
    let (store, deploy) = (&bed.store, bed.shop().await);
    let url = "https://ada:hunter2@logs.example.org/in";
    let first = store.add_drain(&deploy.id, url, true, "3-40", 2, at(2)).await.unwrap();
    let second = store.add_drain(&deploy.id, "syslog://h:1", false, "0-0", 2, at(3)).await.unwrap();
    let third = store.add_drain(&deploy.id, url, false, "0-0", 2, at(4)).await;
    assert!(matches!(third, Err(Error::TooMany { most: 2, .. })), "{third:?}");
    assert_eq!(store.drains(&deploy.id).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!((first.url.as_str(), first.progress.place.as_str()), (url, "3-40"));
    assert!(!format!("{first:?}").contains("hunter2"));
    assert!(!bed.has_on_disk("hunter2"));
    let progress = DrainProgress {
        place: "5-0".to_owned(),
        sent: 7,
        retried: 2,
        dropped: u64::MAX / 2,
        error: Some(("refused".to_owned(), at(9))),
    };
    store.set_drain_progress(&first.id, &progress).await.unwrap();
    assert_eq!(store.drains(&deploy.id).await.unwrap()[0].progress, progress);
    // A sealed address belongs to its drain.
    bed.raw(&format!(
        "UPDATE drains SET sealed = (SELECT sealed FROM drains WHERE id = '{}') WHERE id = '{}'",
        first.id, second.id
    ))
    .unwrap();
    let moved = store.drains(&deploy.id).await;
    assert!(matches!(moved, Err(Error::Corrupt { .. })), "{moved:?}");
    store.remove_drain(&deploy.id, &second.id).await.unwrap();
    let other: DrainId = "drn_00000000000000000000".parse().unwrap();
    let gone = store.remove_drain(&deploy.id, &other).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    // What is recorded too late harms nobody.
    store.set_drain_progress(&second.id, &progress).await.unwrap();
    store.destroy_deploy(&deploy.id).await.unwrap();
    assert!(store.drains(&deploy.id).await.unwrap().is_empty());
}
