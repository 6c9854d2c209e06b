//! Whoever administrates a platform can always do so.

use super::*;

on_both!(
    somebody_can_always_administrate,
    a_row_that_somebody_else_wrote_is_no_token,
    an_operation_that_somebody_else_wrote_is_not_done,
);

async fn somebody_can_always_administrate(bed: Bed) {
    let store = &bed.store;
    let hash = |text: &str| Digest::of(text.as_bytes());
    let first = store.create_first_token("owner", &hash("1"), at(1)).await.unwrap().unwrap();
    assert_eq!(first.grant, Grant::PLATFORM_ADMIN);
    assert_eq!(store.create_first_token("owner", &hash("2"), at(1)).await.unwrap(), None);
    store.create_app(&app("shop"), &"production".parse().unwrap(), "h", None, at(1)).await.unwrap();
    // None of these can administrate the platform for good.
    let for_shop = Grant { role: Role::Admin, apps: app("shop").into() };
    let viewer = Grant { role: Role::View, apps: GrantedApps::All };
    store.create_token("shop", &for_shop, &hash("3"), None, at(1)).await.unwrap();
    store.create_token("viewer", &viewer, &hash("4"), None, at(1)).await.unwrap();
    let short = Grant::PLATFORM_ADMIN;
    let short = store.create_token("short", &short, &hash("5"), Some(at(99)), at(1)).await.unwrap();
    assert!(matches!(store.revoke_token(first.id.as_str()).await, Err(Error::LastAdmin(_))));
    store.revoke_token(short.id.as_str()).await.unwrap();
    // Of two that are revoked at once, one stays.
    for _ in 0..5 {
        let hash = Digest::of(format!("{:?}", store.tokens(None, 99).await.unwrap()).as_bytes());
        store.create_token("b", &Grant::PLATFORM_ADMIN, &hash, None, at(1)).await.unwrap();
        let admins = async || {
            let all = store.tokens(None, 99).await.unwrap();
            let all = all.into_iter().filter_map(StoredToken::valid);
            let is_admin = |token: &tolv_store::Token| token.grant == Grant::PLATFORM_ADMIN;
            all.filter(is_admin).map(|token| token.id).collect::<Vec<_>>()
        };
        let two = admins().await;
        let [one, other] = two.as_slice() else { panic!("{two:?}") };
        let (a, b) =
            tokio::join!(store.revoke_token(one.as_str()), store.revoke_token(other.as_str()));
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

async fn a_row_that_somebody_else_wrote_is_no_token(bed: Bed) {
    let store = &bed.store;
    let hash = |text: &str| Digest::of(text.as_bytes());
    store.create_app(&app("shop"), &"production".parse().unwrap(), "h", None, at(1)).await.unwrap();
    store.create_app(&app("blog"), &"production".parse().unwrap(), "g", None, at(1)).await.unwrap();
    let admin = store.create_first_token("owner", &hash("1"), at(1)).await.unwrap().unwrap();
    let for_shop = Grant { role: Role::View, apps: app("shop").into() };
    let low = store.create_token("low", &for_shop, &hash("2"), Some(at(99)), at(1)).await.unwrap();
    let is_valid = async |text: &str| {
        let found = store.token_by_hash(&hash(text)).await.unwrap();
        found.and_then(StoredToken::valid).is_some()
    };
    assert!(is_valid("2").await);
    // Each column that decides something.
    let own = hash("own");
    let changes = [
        "role = 'admin'",
        "role = 'nothing'",
        "apps = NULL",
        "apps = 'blog'",
        "apps = 'blog,shop'",
        "apps = ''",
        "expires = NULL",
        "expires = 1000000000000000",
        "created = 5",
        "name = 'owner'",
        "mac = NULL",
        "mac = ''",
        "mac = (SELECT t.mac FROM tokens t WHERE t.name = 'owner')",
        "id = 'tok_00000000000000000000'",
        "id = 'x'",
    ];
    bed.raw("CREATE TABLE saved AS SELECT * FROM tokens").unwrap();
    for change in changes {
        bed.raw(&format!("UPDATE tokens SET {change} WHERE name = 'low'")).unwrap();
        assert!(!is_valid("2").await, "{change}");
        let all = store.tokens(None, 99).await.unwrap();
        let forged = |stored: &&StoredToken| matches!(stored, StoredToken::Forged(_));
        assert_eq!(all.iter().filter(forged).count(), 1, "{change}: {all:?}");
        bed.raw("DELETE FROM tokens").unwrap();
        bed.raw("INSERT INTO tokens SELECT * FROM saved").unwrap();
        assert!(is_valid("2").await, "as it was");
    }
    // The hash of a secret of their own, in the row of an admin.
    bed.raw(&format!("UPDATE tokens SET hash = '{own}' WHERE name = 'owner'")).unwrap();
    assert!(!is_valid("own").await);
    assert_eq!(store.token(&admin.id).await.unwrap(), None);
    bed.raw("DELETE FROM tokens").unwrap();
    bed.raw("INSERT INTO tokens SELECT * FROM saved").unwrap();
    // A row of their own does not count as one that can administrate, and is removed as any other.
    let insert = format!(
        "INSERT INTO tokens (id, name, hash, role, apps, created, expires, mac) \
         VALUES ('zzz', 'mine', '{own}', 'admin', NULL, 1, NULL, \
         (SELECT s.mac FROM saved s WHERE s.name = 'owner'))"
    );
    bed.raw(&insert).unwrap();
    assert!(!is_valid("own").await);
    let revoked = store.revoke_token(admin.id.as_str()).await;
    assert!(matches!(revoked, Err(Error::LastAdmin(_))), "{revoked:?}");
    store.revoke_token("zzz").await.unwrap();
    assert_eq!(store.tokens(None, 99).await.unwrap().len(), 2);
    // An app that is destroyed gives nothing to what somebody else wrote.
    bed.raw("UPDATE tokens SET role = 'admin', apps = 'blog,shop' WHERE name = 'low'").unwrap();
    let blog = store.deploy(&path("blog/production")).await.unwrap();
    store.destroy_deploy(&blog.id).await.unwrap();
    store.destroy_app(&blog.app).await.unwrap();
    assert!(!is_valid("2").await);
    store.revoke_token(low.id.as_str()).await.unwrap();
    // Where nothing else is left, the machine makes another.
    bed.raw(&insert).unwrap();
    bed.raw("DELETE FROM tokens WHERE name = 'owner'").unwrap();
    let recovered = store.recover_token("recovered", &hash("6"), "uid 0", at(2)).await.unwrap();
    assert_eq!(store.token(&recovered.id).await.unwrap(), Some(recovered));
    assert!(is_valid("6").await && !is_valid("own").await);
}

async fn an_operation_that_somebody_else_wrote_is_not_done(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let request = Request::Restart { processes: tolv_model::operation::Selection::All };
    let failed = async |id: &OperationId| {
        let next = store.next(&deploy.id).await.unwrap();
        assert_eq!(next, None);
        let operation = store.operation(id).await.unwrap();
        assert_eq!(operation.state, State::Failed);
        assert!(operation.error.unwrap().contains("changed outside of the platform"));
    };
    let zeros = "0".repeat(64);
    let changes = [
        "request = '{\"kind\":\"stop\"}'".to_owned(),
        "actor = 'somebody'".to_owned(),
        "created = created + 1".to_owned(),
        format!("slug = '{zeros}'"),
        "release = 1".to_owned(),
        "mac = NULL".to_owned(),
    ];
    for change in &changes {
        let (made, _) = store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap();
        assert_eq!(store.next(&deploy.id).await.unwrap().unwrap().id, made.id, "{change}");
        bed.raw(&format!("UPDATE operations SET {change} WHERE ended IS NULL")).unwrap();
        failed(&made.id).await;
    }
    // One that is over is not begun again.
    let (made, _) = store.enqueue(&deploy.id, &request, "ada", at(3)).await.unwrap();
    assert!(store.end(&made.id, State::Succeeded, None, at(4)).await.unwrap());
    let id = made.id.as_str();
    bed.raw(&format!("UPDATE operations SET ended = NULL, state = 'queued' WHERE id = '{id}'"))
        .unwrap();
    failed(&made.id).await;
    // One of their own, with the code of another.
    let (made, _) = store.enqueue(&deploy.id, &request, "ada", at(5)).await.unwrap();
    let forged = "op_00000000000000000000";
    bed.raw(&format!(
        "INSERT INTO operations (id, deploy, deploy_name, request, actor, state, created, mac) \
         SELECT '{forged}', deploy, deploy_name, request, actor, state, created, mac \
         FROM operations WHERE id = '{}'",
        made.id.as_str()
    ))
    .unwrap();
    assert_eq!(store.next(&deploy.id).await.unwrap().unwrap().id, made.id);
    let forged = store.operation(&forged.parse().unwrap()).await.unwrap();
    assert_eq!(forged.state, State::Failed);
    // What the platform itself records of one that runs keeps it whole.
    assert!(store.begin(&made.id, at(6)).await.unwrap());
    let slug = Slug {
        id: SlugId(Digest([1; 32])),
        app: deploy.app.clone(),
        commit: None,
        built: at(6),
        bytes: 1,
    };
    store.set_slug(&made.id, &slug).await.unwrap();
    let next = store.next(&deploy.id).await.unwrap().unwrap();
    assert_eq!((next.id, next.slug), (made.id, Some(slug.id)));
}
