//! Who can write to the database, and has not the key, changes nothing that counts: rows of apps and
//! deploys, rows that are put back, operations.

use tolv_store::ForgedRow;

use super::*;

on_both!(
    a_changed_row_of_a_deploy_is_refused_alone,
    a_changed_row_of_an_app_is_refused_alone,
    an_earlier_row_that_is_put_back_does_not_hold,
    a_row_that_was_changed_is_accepted_on_purpose,
    rows_of_an_older_database_get_their_codes_once,
    a_revoked_token_that_is_put_back_stays_revoked,
    a_removed_drain_that_is_put_back_stays_removed,
    an_operation_that_somebody_else_wrote_is_in_the_audit_log_once,
    an_operation_that_was_done_is_not_done_again,
);

impl Bed {
    /// Keeps a copy of a table.
    fn save(&self, table: &str) {
        self.raw(&format!("DROP TABLE IF EXISTS saved_{table}")).unwrap();
        self.raw(&format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}")).unwrap();
    }

    /// Puts columns of every row back.
    fn put_back(&self, table: &str, columns: &[&str]) {
        let set = columns.iter().map(|column| {
            format!("{column} = (SELECT s.{column} FROM saved_{table} s WHERE s.id = {table}.id)")
        });
        let set = set.collect::<Vec<_>>().join(", ");
        self.raw(&format!("UPDATE {table} SET {set}")).unwrap();
    }

    async fn forged(&self) -> Vec<ForgedRow> {
        self.store.forged_rows().await.unwrap()
    }
}

async fn broken(store: &Store, deploy: &Deploy) -> Vec<String> {
    let ledger = store.ledger(&deploy.id, true).await.unwrap();
    ledger.broken.iter().map(ToString::to_string).collect()
}

async fn a_changed_row_of_a_deploy_is_refused_alone(mut bed: Bed) {
    bed.restart().await;
    let shop = bed.shop().await;
    let store = &bed.store;
    let staging = path("shop/staging");
    let staging = store.create_deploy(&staging, "staging.localhost", None, at(1)).await.unwrap();
    store.set_branch(&staging.id, "main").await.unwrap();
    store.change_config(&staging.id, None, &set(&[("A", b"1")]), None, at(2)).await.unwrap();
    store.change_config(&staging.id, None, &set(&[("A", b"2")]), None, at(2)).await.unwrap();
    bed.release(&shop, Outcome::Succeeded).await;
    bed.release(&staging, Outcome::Succeeded).await;
    let all = [
        "app",
        "app_name",
        "name",
        "host",
        "branch",
        "formation",
        "sizes",
        "stack",
        "stopped",
        "created",
        "config_version",
        "row_version",
        "mac",
    ];
    bed.save("deploys");
    let changes = [
        ("host = 'evil.localhost'", "host does not match its code"),
        ("branch = 'evil'", "branch does not match its code"),
        ("branch = NULL", "branch does not match its code"),
        ("formation = '{\"web\":9}'", "formation does not match its code"),
        ("formation = 'nothing'", "formation does not match its code"),
        ("sizes = '{\"web\":{\"memory\":9}}'", "sizes does not match its code"),
        ("stack = 'host'", "stack does not match its code"),
        ("stopped = 1", "stopped does not match its code"),
        ("config_version = 1", "config_version does not match its code"),
        ("row_version = row_version + 1", "row_version does not match its code"),
        ("created = created + 1", "id or app or app_name or name or created does not match"),
        ("name = 'other'", "id or app or app_name or name or created does not match"),
        ("host = 'evil.localhost', stopped = 1", "host, and stopped does not match its code"),
        ("mac = NULL", "no code of this platform's"),
        ("mac = ''", "no code of this platform's"),
        (
            "mac = (SELECT s.mac FROM saved_deploys s WHERE s.name = 'production')",
            "no code of this platform's",
        ),
    ];
    for (change, why) in changes {
        bed.raw(&format!("UPDATE deploys SET {change} WHERE name = 'staging'")).unwrap();
        let found = store.deploy_by_id(&staging.id).await;
        let Err(error @ Error::Forged { what: "deploy", .. }) = &found else {
            panic!("{change}: {found:?}")
        };
        let text = error.to_string();
        assert!(text.contains(why) && text.contains("deploy `shop/"), "{change}: {text}");
        let forged = bed.forged().await;
        assert!(matches!(&forged[..], [row] if row.why == text), "{change}: {forged:?}");
        // Nothing is made of it, and nothing is added to it.
        let row = broken(store, &staging).await;
        assert!(row.iter().any(|text| text.contains(why)), "{change}: {row:?}");
        let is_forged = |found: Result<(), Error>| matches!(found, Err(Error::Forged { .. }));
        let changed = store.set_formation(&staging.id, &"web=3".parse().unwrap()).await;
        assert!(is_forged(changed), "{change}");
        let set = set(&[("A", b"3")]);
        let changed = store.change_config(&staging.id, None, &set, None, at(3)).await;
        assert!(is_forged(changed.map(drop)), "{change}");
        let copy = Some(CopyFrom { deploy: staging.id.clone(), values: true });
        let copied = store.create_deploy(&path("shop/copy"), "copy.localhost", copy, at(3)).await;
        assert!(is_forged(copied.map(drop)), "{change}");
        // The other deploy, and every list, is as it was.
        assert_eq!(store.deploy(&shop.name).await.unwrap().id, shop.id, "{change}");
        assert_eq!(broken(store, &shop).await, Vec::<String>::new(), "{change}");
        let listed = store.deploys(&shop.app).await.unwrap();
        let valid = listed.iter().filter(|stored| matches!(stored, Stored::Valid(_))).count();
        assert_eq!((listed.len(), valid), (2, 1), "{change}: {listed:?}");
        assert_eq!(store.all_deploys().await.unwrap().len(), 1, "{change}");
        bed.put_back("deploys", &all);
        assert_eq!(bed.forged().await, [], "{change}");
        assert_eq!(broken(store, &staging).await, Vec::<String>::new(), "{change}");
    }
    // A deploy of somebody's is not reached under a name that they may look at.
    store.create_app(&app("mine"), &"production".parse().unwrap(), "m", None, at(1)).await.unwrap();
    bed.raw("UPDATE deploys SET app_name = 'mine' WHERE name = 'staging'").unwrap();
    let moved = store.deploy(&path("mine/staging")).await;
    assert!(matches!(moved, Err(Error::Forged { .. })), "{moved:?}");
    // It can be destroyed, and the anchor of nobody else goes with it.
    bed.raw(
        "UPDATE deploys SET app_name = 'shop', name = CASE name WHEN 'staging' THEN 'production' \
         ELSE 'old' END WHERE app_name = 'shop' OR name = 'staging'",
    )
    .ok();
    store.destroy_deploy(&staging.id).await.unwrap();
    assert!(bed.home.path().join("anchors/shop.production").exists());
}

async fn a_changed_row_of_an_app_is_refused_alone(bed: Bed) {
    let shop = bed.shop().await;
    let store = &bed.store;
    let first = DeployName::production();
    let blog =
        store.create_app(&app("blog"), &first, "blog.localhost", None, at(1)).await.unwrap().0;
    store.add_roots(&blog.id, &["a".repeat(40)]).await.unwrap();
    bed.save("apps");
    let zeros = "0".repeat(40);
    for (change, why) in [
        (format!("roots = '[\"{zeros}\"]'"), "roots does not match its code"),
        ("roots = 'x'".to_owned(), "roots does not match its code"),
        ("created = 5".to_owned(), "id or name or created or root does not match its code"),
        ("root = 'lib'".to_owned(), "id or name or created or root does not match its code"),
        ("mac = NULL".to_owned(), "no code of this platform's"),
    ] {
        bed.raw(&format!("UPDATE apps SET {change} WHERE name = 'blog'")).unwrap();
        let found = store.app(&app("blog")).await;
        let is_told = matches!(&found, Err(error) if error.to_string().contains(why));
        assert!(is_told, "{change}: {found:?}");
        let added = store.add_roots(&blog.id, std::slice::from_ref(&zeros)).await;
        assert!(matches!(added, Err(Error::Forged { what: "app", .. })), "{change}: {added:?}");
        let made = store.create_deploy(&path("blog/more"), "more.localhost", None, at(2)).await;
        assert!(matches!(made, Err(Error::Forged { what: "app", .. })), "{change}: {made:?}");
        assert_eq!(store.app(&app("shop")).await.unwrap().id, shop.app);
        assert_eq!(store.apps(None, 9).await.unwrap().len(), 2);
        assert_eq!(bed.forged().await.len(), 1, "{change}");
        bed.put_back("apps", &["roots", "root", "created", "mac"]);
    }
    assert_eq!(bed.forged().await, []);
}

async fn an_earlier_row_that_is_put_back_does_not_hold(mut bed: Bed) {
    bed.restart().await;
    let deploy = bed.shop().await;
    bed.store.set_formation(&deploy.id, &"web=9".parse().unwrap()).await.unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    bed.save("deploys");
    let columns =
        ["formation", "stopped", "branch", "sizes", "config_version", "row_version", "mac"];
    bed.store.set_formation(&deploy.id, &"web=0".parse().unwrap()).await.unwrap();
    bed.store.set_stopped(&deploy.id, true).await.unwrap();
    let is_put_back = |broken: &[String]| matches!(broken, [text] if text.contains("is one of an earlier time that was put back"));
    for round in 0..2 {
        bed.put_back("deploys", &columns);
        let found = broken(&bed.store, &deploy).await;
        assert!(is_put_back(&found), "{round}: {found:?}");
        // A change would make it newer than it is.
        let changed = bed.store.set_branch(&deploy.id, "main").await;
        let refused = matches!(changed, Err(Error::Ledger(ledger::Broken::Row { .. })));
        assert!(refused, "{round}: {changed:?}");
        // Also after a start.
        bed.restart().await;
    }
    // Nor is a release added.
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let operation = bed.store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap().0;
    let refused = bed.store.append(&new_release(&operation.id, &deploy, 0)).await;
    assert!(matches!(refused, Err(Error::Ledger(ledger::Broken::Row { .. }))), "{refused:?}");
    bed.store.accept_ledger(&deploy.id).await.unwrap();
    assert_eq!(broken(&bed.store, &deploy).await, Vec::<String>::new(), "it was accepted");
    bed.store.append(&new_release(&operation.id, &deploy, 0)).await.unwrap();
    // A state folder that knows less than the database, as from a backup, goes on by itself.
    let anchors = bed.home.path().join("anchors");
    let old = std::fs::read(anchors.join("shop.production")).unwrap();
    bed.store.set_stopped(&deploy.id, false).await.unwrap();
    bed.save("deploys");
    bed.store.set_stopped(&deploy.id, true).await.unwrap();
    std::fs::write(anchors.join("shop.production"), old).unwrap();
    let found = bed.store.ledger(&deploy.id, true).await.unwrap();
    assert!(found.is_row_ahead && found.broken.is_empty(), "{found:?}");
    bed.store.record_end(&deploy.id).await.unwrap();
    bed.put_back("deploys", &columns);
    assert!(is_put_back(&broken(&bed.store, &deploy).await));
    // What begins anew takes nothing of it.
    let formation = "web=1".parse().unwrap();
    bed.store.begin_anew(&deploy.id, &formation, "why", at(9)).await.unwrap();
    assert!(!is_put_back(&broken(&bed.store, &deploy).await));
    assert_eq!(bed.store.deploy_by_id(&deploy.id).await.unwrap().formation, formation);
}

async fn a_row_that_was_changed_is_accepted_on_purpose(mut bed: Bed) {
    bed.restart().await;
    let deploy = bed.shop().await;
    let store = &bed.store;
    bed.release(&deploy, Outcome::Succeeded).await;
    bed.raw("UPDATE deploys SET formation = '{\"web\":3}'").unwrap();
    bed.raw("UPDATE apps SET roots = '[\"x\"]'").unwrap();
    assert_eq!(bed.forged().await.len(), 2);
    store.accept_ledger(&deploy.id).await.unwrap();
    assert_eq!(bed.forged().await, []);
    let now = store.deploy(&deploy.name).await.unwrap();
    assert_eq!(
        (now.formation.to_string().as_str(), now.current),
        ("web=3", Some(ReleaseNumber(1)))
    );
    assert_eq!(broken(store, &deploy).await, Vec::<String>::new());
    assert_eq!(store.app(&app("shop")).await.unwrap().roots, ["x"]);
    bed.release(&deploy, Outcome::Succeeded).await;
    // What cannot be read is not taken; it can be destroyed.
    bed.raw("UPDATE deploys SET formation = 'nothing'").unwrap();
    let accepted = store.accept_ledger(&deploy.id).await;
    assert!(matches!(accepted, Err(Error::Corrupt { .. })), "{accepted:?}");
    store.destroy_deploy(&deploy.id).await.unwrap();
    store.destroy_app(&deploy.app).await.unwrap();
}

async fn rows_of_an_older_database_get_their_codes_once(mut bed: Bed) {
    let deploy = bed.shop().await;
    bed.raw("UPDATE deploys SET mac = NULL, row_version = 0").unwrap();
    bed.raw("UPDATE apps SET mac = NULL").unwrap();
    // Without a folder of anchors nothing is taken.
    assert_eq!(bed.forged().await.len(), 2);
    bed.restart().await;
    assert_eq!(bed.forged().await, []);
    assert_eq!(bed.store.deploy(&deploy.name).await.unwrap(), deploy);
    // Once: neither with a mark that the database lost, nor with a new folder.
    for start in 0..2 {
        bed.raw("UPDATE deploys SET mac = NULL").unwrap();
        match start {
            0 => bed.raw("DELETE FROM meta WHERE name = 'rows'").unwrap(),
            _ => std::fs::remove_dir_all(bed.home.path().join("anchors")).unwrap(),
        }
        bed.restart().await;
        assert_eq!(bed.forged().await.len(), 1, "{start}");
        bed.store.accept_ledger(&deploy.id).await.unwrap();
        // As it was before.
        let sealed = bed.store.seal("rows", b"rows").unwrap();
        bed.raw(&format!("INSERT INTO meta (name, value) VALUES ('rows', '{sealed}')")).ok();
    }
}

async fn a_revoked_token_that_is_put_back_stays_revoked(mut bed: Bed) {
    bed.restart().await;
    bed.shop().await;
    let blog = app("blog");
    let blog =
        bed.store.create_app(&blog, &DeployName::production(), "b", None, at(1)).await.unwrap();
    let hash = |text: &str| Digest::of(text.as_bytes());
    let admin = Grant::PLATFORM_ADMIN;
    bed.store.create_first_token("owner", &hash("1"), at(1)).await.unwrap().unwrap();
    let token = bed.store.create_token("lost", &admin, &hash("2"), None, at(1)).await.unwrap();
    let both = GrantedApps::Only([app("shop"), app("blog")].into());
    let both = Grant { role: Role::Deploy, apps: both };
    bed.store.create_token("both", &both, &hash("3"), None, at(1)).await.unwrap();
    bed.save("tokens");
    bed.store.revoke_token(token.id.as_str()).await.unwrap();
    bed.store.destroy_deploy(&blog.1.id).await.unwrap();
    bed.store.destroy_app(&blog.0.id).await.unwrap();
    for start in 0..3 {
        bed.raw("DELETE FROM tokens").unwrap();
        bed.raw("INSERT INTO tokens SELECT * FROM saved_tokens").unwrap();
        let store = &bed.store;
        for text in ["2", "3"] {
            let found = store.token_by_hash(&hash(text)).await.unwrap();
            let is_revoked =
                matches!(&found, Some(StoredToken::Forged(forged)) if forged.was_revoked);
            assert!(is_revoked, "{start} {text}: {found:?}");
        }
        assert_eq!(store.token(&token.id).await.unwrap(), None);
        assert_eq!(store.status().await.unwrap().forged.len(), 2);
        let owner = store.token_by_hash(&hash("1")).await.unwrap().and_then(StoredToken::valid);
        // It does not count as one that can administrate the platform.
        let last = store.revoke_token(owner.unwrap().id.as_str()).await;
        assert!(matches!(last, Err(Error::LastAdmin(_))), "{last:?}");
        // The code in other letters is the same code.
        bed.raw("UPDATE tokens SET mac = upper(mac) WHERE name = 'lost'").unwrap();
        let found = store.token_by_hash(&hash("2")).await.unwrap().and_then(StoredToken::valid);
        assert_eq!(found, None);
        // Removed again, it is gone.
        store.revoke_token(token.id.as_str()).await.unwrap();
        let file = bed.home.path().join("anchors/spent");
        if start == 0 {
            // A line that a crash cut off harms no other.
            let mut text = std::fs::read_to_string(&file).unwrap();
            text.push_str("AAAA");
            std::fs::write(&file, text).unwrap();
        }
        bed.restart().await;
        assert_eq!(bed.store.unreadable_spent(), 1);
    }
    // Where nothing can be written, it is revoked all the same, for as long as this platform runs.
    let more = bed.store.create_token("more", &admin, &hash("4"), None, at(1)).await.unwrap();
    bed.save("tokens");
    let file = bed.home.path().join("anchors/spent");
    std::fs::rename(&file, file.with_extension("aside")).unwrap();
    std::fs::create_dir(&file).unwrap();
    let revoked = bed.store.revoke_token(more.id.as_str()).await;
    assert!(matches!(revoked, Err(Error::Spent { .. })), "{revoked:?}");
    bed.raw("INSERT INTO tokens SELECT * FROM saved_tokens WHERE name = 'more'").unwrap();
    assert_eq!(bed.store.token(&more.id).await.unwrap(), None);
    // It is written with the next one.
    std::fs::remove_dir(&file).unwrap();
    let next = bed.store.create_token("next", &admin, &hash("5"), None, at(1)).await.unwrap();
    bed.store.revoke_token(next.id.as_str()).await.unwrap();
    bed.restart().await;
    assert_eq!(bed.store.token(&more.id).await.unwrap(), None);
}

async fn a_removed_drain_that_is_put_back_stays_removed(mut bed: Bed) {
    bed.restart().await;
    let deploy = bed.shop().await;
    let drain = |number| format!("syslog://h:{number}");
    let one = bed.store.add_drain(&deploy.id, &drain(1), false, "0-0", 9, at(2)).await.unwrap();
    let two = bed.store.add_drain(&deploy.id, &drain(2), false, "0-0", 9, at(3)).await.unwrap();
    bed.save("drains");
    bed.store.remove_drain(&deploy.id, &one.id).await.unwrap();
    bed.raw("DELETE FROM drains").unwrap();
    bed.raw("INSERT INTO drains SELECT * FROM saved_drains").unwrap();
    assert_eq!(bed.store.drains(&deploy.id).await.unwrap(), std::slice::from_ref(&two));
    bed.restart().await;
    assert_eq!(bed.store.drains(&deploy.id).await.unwrap(), [two]);
}

async fn an_operation_that_somebody_else_wrote_is_in_the_audit_log_once(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let request = Request::Restart { processes: tolv_model::operation::Selection::All };
    let lines = async || {
        let all = store.audit_lines(None, None, 99).await.unwrap();
        all.into_iter().filter(|line| line.action == "operation.forged").collect::<Vec<_>>()
    };
    let (made, _) = store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap();
    bed.raw("UPDATE operations SET actor = 'eve', request = '{\"kind\":\"stop\"}'").unwrap();
    for _ in 0..2 {
        assert_eq!(store.next(&deploy.id).await.unwrap(), None);
        let found = lines().await;
        let [line] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(line.outcome.as_deref(), Some("refused"));
        assert_eq!(
            (line.app.as_deref(), line.deploy.as_deref()),
            (Some("shop"), Some("production"))
        );
        assert_eq!(line.detail, format!("\"{}\" (\"stop\", by \"eve\")", made.id));
    }
    // One that was changed while it ran, and one that is cancelled.
    for outcome in [State::Failed, State::Cancelled] {
        let before = lines().await.len();
        let (made, _) = store.enqueue(&deploy.id, &request, "ada", at(3)).await.unwrap();
        assert!(store.begin(&made.id, at(4)).await.unwrap());
        bed.raw("UPDATE operations SET actor = 'eve' WHERE ended IS NULL").unwrap();
        assert!(store.end(&made.id, outcome, Some("why"), at(5)).await.unwrap());
        assert!(!store.end(&made.id, outcome, Some("why"), at(5)).await.unwrap());
        assert_eq!(lines().await.len(), before + 1);
    }
    // Of one's own there is none.
    let before = lines().await.len();
    bed.release(&deploy, Outcome::Succeeded).await;
    let (made, _) = store.enqueue(&deploy.id, &request, "ada", at(6)).await.unwrap();
    store.end(&made.id, State::Succeeded, None, at(7)).await.unwrap();
    assert_eq!(lines().await.len(), before);
}

async fn an_operation_that_was_done_is_not_done_again(mut bed: Bed) {
    bed.restart().await;
    let deploy = bed.shop().await;
    let request = Request::Restart { processes: tolv_model::operation::Selection::All };
    let ended = async |bed: &Bed, at_second| {
        let store = &bed.store;
        let (made, _) = store.enqueue(&deploy.id, &request, "ada", at(at_second)).await.unwrap();
        assert_eq!(store.next(&deploy.id).await.unwrap().unwrap().id, made.id);
        assert!(store.begin(&made.id, at(at_second)).await.unwrap());
        bed.save("operations");
        store.end(&made.id, State::Succeeded, None, at(at_second)).await.unwrap();
        made.id
    };
    let id = ended(&bed, 100).await;
    let put_back = |bed: &Bed| {
        bed.raw("DELETE FROM operations").unwrap();
        bed.raw("INSERT INTO operations SELECT * FROM saved_operations").unwrap();
    };
    for _ in 0..2 {
        put_back(&bed);
        assert_eq!(bed.store.next(&deploy.id).await.unwrap(), None);
        let operation = bed.store.operation(&id).await.unwrap();
        assert!(operation.error.unwrap().contains("it was done before, and put back"));
        bed.restart().await;
    }
    let lines = bed.store.audit_lines(None, None, 9).await.unwrap();
    assert_eq!(lines.iter().filter(|line| line.action == "operation.forged").count(), 2);
    // The clock was put back: a new one is behind it all the same.
    let next = ended(&bed, 50).await;
    assert!(next > id);
    // One that made a release, and one that was taken as it is.
    let (made, _) = bed.release(&deploy, Outcome::Succeeded).await;
    assert!(made.id > next);
    bed.store.accept_ledger(&deploy.id).await.unwrap();
    put_back(&bed);
    assert_eq!(bed.store.next(&deploy.id).await.unwrap(), None);
    // One that is cancelled while another is carried out keeps neither that one nor the next back.
    let first = bed.store.enqueue(&deploy.id, &request, "ada", at(200)).await.unwrap().0;
    let second = bed.store.enqueue(&deploy.id, &request, "ada", at(201)).await.unwrap().0;
    assert!(bed.store.begin(&first.id, at(202)).await.unwrap());
    bed.store.end(&second.id, State::Cancelled, None, at(203)).await.unwrap();
    assert_eq!(bed.store.next(&deploy.id).await.unwrap().unwrap().id, first.id);
    bed.store.end(&first.id, State::Succeeded, None, at(204)).await.unwrap();
    let third = bed.store.enqueue(&deploy.id, &request, "ada", at(205)).await.unwrap().0;
    assert_eq!(bed.store.next(&deploy.id).await.unwrap().unwrap().id, third.id);
}
