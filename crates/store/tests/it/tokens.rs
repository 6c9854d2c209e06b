//! Whoever administrates a platform can always do so.

use super::*;

on_both!(somebody_can_always_administrate,);

async fn somebody_can_always_administrate(bed: Bed) {
    let store = &bed.store;
    let hash = |text: &str| Digest::of(text.as_bytes());
    let first = store.create_first_token("owner", &hash("1"), at(1)).await.unwrap().unwrap();
    assert_eq!(first.grant, Grant::PLATFORM_ADMIN);
    assert_eq!(store.create_first_token("owner", &hash("2"), at(1)).await.unwrap(), None);
    store.create_app(&app("shop"), &"production".parse().unwrap(), "h", at(1)).await.unwrap();
    // None of these can administrate the platform for good.
    let for_shop = Grant { role: Role::Admin, apps: app("shop").into() };
    let viewer = Grant { role: Role::View, apps: GrantedApps::All };
    store.create_token("shop", &for_shop, &hash("3"), None, at(1)).await.unwrap();
    store.create_token("viewer", &viewer, &hash("4"), None, at(1)).await.unwrap();
    let short = Grant::PLATFORM_ADMIN;
    let short = store.create_token("short", &short, &hash("5"), Some(at(99)), at(1)).await.unwrap();
    assert!(matches!(store.revoke_token(&first.id).await, Err(Error::LastAdmin(_))));
    store.revoke_token(&short.id).await.unwrap();
    // Of two that are revoked at once, one stays.
    for _ in 0..5 {
        let hash = Digest::of(format!("{:?}", store.tokens(None, 99).await.unwrap()).as_bytes());
        store.create_token("b", &Grant::PLATFORM_ADMIN, &hash, None, at(1)).await.unwrap();
        let admins = async || {
            let all = store.tokens(None, 99).await.unwrap();
            let is_admin = |token: &tolv_store::Token| token.grant == Grant::PLATFORM_ADMIN;
            all.into_iter().filter(is_admin).map(|token| token.id).collect::<Vec<_>>()
        };
        let two = admins().await;
        let [one, other] = two.as_slice() else { panic!("{two:?}") };
        let (a, b) = tokio::join!(store.revoke_token(one), store.revoke_token(other));
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        assert_eq!(admins().await.len(), 1);
    }
    let recovered = store.recover_token("recovered", &hash("6"), "uid 0", at(2)).await.unwrap();
    assert_eq!(recovered.grant, Grant::PLATFORM_ADMIN);
    let line = store.audit_lines(None, None, 1).await.unwrap().remove(0);
    assert_eq!((line.actor.as_str(), line.action.as_str()), ("uid 0", "token.recover"));
    assert_eq!(line.detail, recovered.id.as_str());
    store.check().await.unwrap();
}
