//! Where a ledger ends, outside the database.

use std::io::BufRead as _;
use std::path::Path;
use std::time::Duration;

use super::*;

on_both!(
    where_a_ledger_ends_is_known_outside_the_database,
    a_deploy_that_only_the_database_knows_does_not_hold,
    the_ledger_of_one_deploy_is_not_that_of_another,
    whatever_was_changed_can_be_accepted_and_is_appended_to,
    a_new_folder_takes_an_old_database_as_it_is_once,
    a_ledger_that_is_ahead_of_its_anchor_holds_where_every_row_does,
    a_crash_between_anchor_and_commit_breaks_nothing,
    a_slow_anchor_blocks_neither_tasks_nor_readers,
    what_is_no_file_in_the_place_of_an_anchor_is_told_and_replaced,
    a_ledger_is_read_while_it_is_appended_to,
);

impl Bed {
    fn anchors(&self) -> PathBuf {
        self.home.path().join("anchors")
    }

    /// A store of its own on the same database, with a folder of anchors, as after a start.
    async fn start(&self, folder: &Path) -> Store {
        let store = Store::connect(&self.url(), &key(7)).unwrap();
        store.anchor_in(folder.to_owned());
        store.prepare().await.unwrap();
        store
    }
}

/// What does not hold of a ledger; the row of the deploy itself is not part of it.
async fn broken(store: &Store, deploy: &Deploy) -> Vec<ledger::Broken> {
    let mut broken = store.ledger(&deploy.id, true).await.unwrap().broken;
    broken.retain(|broken| !matches!(broken, ledger::Broken::Row { .. }));
    broken
}

fn is_end(broken: &ledger::Broken) -> bool {
    matches!(broken, ledger::Broken::End { .. })
}

async fn where_a_ledger_ends_is_known_outside_the_database(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let store = &bed.store;
    let deploy = bed.shop().await;
    let file = bed.anchors().join("shop.production");
    bed.release(&deploy, Outcome::Succeeded).await;
    let (_, two) = bed.release(&deploy, Outcome::Succeeded).await;
    assert_eq!(two.outcome, Outcome::Succeeded);
    assert_eq!(broken(store, &deploy).await, []);
    for cut in [
        "DELETE FROM outcomes WHERE number = 2",
        "DELETE FROM releases WHERE number = 2",
        "UPDATE deploys SET current_release = 1",
    ] {
        bed.raw(cut).unwrap();
        let recorded = Some(ReleaseNumber(2));
        let is_end = |broken: &ledger::Broken| matches!(broken, ledger::Broken::End { recorded: r, .. } if *r == recorded);
        assert!(broken(store, &deploy).await.iter().any(is_end), "{cut}");
    }
    // Nothing is appended to what was cut.
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let operation = store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap().0;
    let refused = store.append(&new_release(&operation.id, &deploy, 0)).await;
    assert!(matches!(refused, Err(Error::Ledger(_))), "{refused:?}");
    let accepted = store.accept_ledger(&deploy.id).await.unwrap();
    assert_eq!(accepted.broken.len(), 1);
    assert_eq!(broken(store, &deploy).await, [], "it was accepted");
    // Changed behind our back, it says nothing at all, until somebody takes the ledger as it is.
    for damage in [&b"nothing"[..], b"", b"\xff\xfe"] {
        std::fs::write(&file, damage).unwrap();
        let found = broken(store, &deploy).await;
        assert!(matches!(found[..], [ledger::Broken::Record { .. }]), "{found:?}");
        let refused = store.append(&new_release(&operation.id, &deploy, 0)).await;
        let is_refused = matches!(refused, Err(Error::Ledger(ledger::Broken::Record { .. })));
        assert!(is_refused, "{refused:?}");
        store.accept_ledger(&deploy.id).await.unwrap();
        assert_eq!(broken(store, &deploy).await, [], "it was accepted");
    }
    store.append(&new_release(&operation.id, &deploy, 0)).await.unwrap();
    assert_eq!(broken(store, &deploy).await, []);
    store.destroy_deploy(&deploy.id).await.unwrap();
    assert!(!file.exists());
}

async fn a_deploy_that_only_the_database_knows_does_not_hold(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let store = &bed.store;
    let mut deploy = bed.shop().await;
    bed.release(&deploy, Outcome::Succeeded).await;
    // The same ledger, under a name that was never recorded: as of a deploy that was destroyed.
    bed.raw("UPDATE deploys SET name = 'forged'").unwrap();
    let unrecorded = ledger::Broken::Unrecorded { found: Some(ReleaseNumber(1)) };
    assert_eq!(broken(store, &deploy).await, [unrecorded]);
    bed.raw("UPDATE deploys SET name = 'production'").unwrap();
    assert_eq!(broken(store, &deploy).await, []);
    // Another id, without any releases that could say so.
    let text = deploy.id.to_string();
    let last = if text.ends_with('0') { "1" } else { "0" };
    let forged = format!("{}{last}", &text[..text.len() - 1]);
    for table in ["outcomes", "releases", "operations"] {
        bed.raw(&format!("DELETE FROM {table}")).unwrap();
    }
    bed.raw(&format!("UPDATE deploys SET id = '{forged}', current_release = NULL")).unwrap();
    deploy.id = forged.parse().unwrap();
    let other = ledger::Broken::OtherDeploy { recorded: Some(ReleaseNumber(1)), found: None };
    assert_eq!(broken(store, &deploy).await, std::slice::from_ref(&other));
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let operation = store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap().0;
    let refused = store.append(&new_release(&operation.id, &deploy, 0)).await;
    assert!(matches!(&refused, Err(Error::Forged { .. })), "{refused:?}");
    // It can be destroyed, and a new one has its own ledger.
    store.destroy_deploy(&deploy.id).await.unwrap();
    let deploy = store.create_deploy(&deploy.name, "shop.localhost", None, at(3)).await.unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    assert_eq!(broken(store, &deploy).await, []);
}

async fn the_ledger_of_one_deploy_is_not_that_of_another(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let store = &bed.store;
    let one = bed.shop().await;
    let two = path("shop/staging");
    let two = store.create_deploy(&two, "staging.localhost", None, at(1)).await.unwrap();
    bed.release(&one, Outcome::Succeeded).await;
    bed.release(&two, Outcome::Succeeded).await;
    for (name, id) in [("x", &one.id), ("production", &two.id), ("staging", &one.id)] {
        bed.raw(&format!("UPDATE deploys SET name = '{name}' WHERE id = '{id}'")).unwrap();
    }
    for deploy in [&one, &two] {
        let found = broken(store, deploy).await;
        assert!(matches!(found[..], [ledger::Broken::OtherDeploy { .. }]), "{found:?}");
    }
}

async fn a_new_folder_takes_an_old_database_as_it_is_once(bed: Bed) {
    let deploy = bed.shop().await;
    bed.release(&deploy, Outcome::Succeeded).await;
    let folder = bed.anchors();
    let store = bed.start(&folder).await;
    let ledger = store.ledger(&deploy.id, true).await.unwrap();
    assert!(ledger.is_adopted && ledger.broken.is_empty(), "{:?}", ledger.broken);
    // It is still to be said after a release that was made before.
    release_in(&store, &deploy, Outcome::Succeeded).await;
    let store = bed.start(&folder).await;
    assert!(store.ledger(&deploy.id, true).await.unwrap().is_adopted);
    store.record_end(&deploy.id).await.unwrap();
    let ledger = store.ledger(&deploy.id, true).await.unwrap();
    assert!(!ledger.is_adopted && ledger.broken.is_empty(), "{:?}", ledger.broken);
    // Once.
    std::fs::remove_file(folder.join("shop.production")).unwrap();
    let store = bed.start(&folder).await;
    let unrecorded = ledger::Broken::Unrecorded { found: Some(ReleaseNumber(2)) };
    assert_eq!(broken(&store, &deploy).await, std::slice::from_ref(&unrecorded));
    // The file that says that it was once may be damaged.
    std::fs::write(folder.join("complete"), "nothing").unwrap();
    let store = bed.start(&folder).await;
    assert_eq!(broken(&store, &deploy).await, [unrecorded]);
    store.accept_ledger(&deploy.id).await.unwrap();
    assert_eq!(broken(&store, &deploy).await, []);
}

/// What somebody who writes to the database does to it.
const CHANGES: &[&str] = &[
    "UPDATE releases SET actor = 'eve' WHERE number = 2",
    "UPDATE releases SET reason = 'nothing' WHERE number = 2",
    "UPDATE releases SET hash = 'nothing' WHERE number = 2",
    "UPDATE releases SET hash = 'nothing' WHERE number = 3",
    "UPDATE releases SET prev = 'nothing' WHERE number = 3",
    "UPDATE releases SET slug = 'nothing' WHERE number = 3",
    "UPDATE releases SET config_version = -1 WHERE number = 1",
    "DELETE FROM releases WHERE number = 1",
    "DELETE FROM releases WHERE number = 2",
    "DELETE FROM releases WHERE number < 3",
    "UPDATE releases SET number = 1099511 WHERE number = 3",
    "UPDATE releases SET number = -1 WHERE number = 1",
    "UPDATE outcomes SET outcome = 'nothing' WHERE number = 2",
    "UPDATE outcomes SET outcome = 'failed', error = 'no' WHERE number = 3",
    "UPDATE outcomes SET prev = 'nothing' WHERE number = 3",
    "UPDATE outcomes SET hash = 'nothing' WHERE number = 3",
    "DELETE FROM outcomes WHERE number = 2",
    "DELETE FROM outcomes",
    "UPDATE configs SET sealed = 'nothing' WHERE version = 1",
    "DELETE FROM configs WHERE version = 1",
    "UPDATE deploys SET current_release = 1",
    "UPDATE deploys SET current_release = NULL",
    "UPDATE deploys SET current_release = -1",
    "UPDATE deploys SET current_release = 1099511627776",
];

async fn whatever_was_changed_can_be_accepted_and_is_appended_to(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let table = if bed.postgres.is_some() { " ON releases" } else { "" };
    bed.raw(&format!("DROP TRIGGER releases_are_fixed{table}")).unwrap();
    bed.shop().await;
    let name = path("shop/staging");
    // A column of PostgreSQL has one type.
    let texts: &[_] = match &bed.postgres {
        Some(_) => &[],
        None => &["UPDATE deploys SET current_release = 'nothing'"],
    };
    for change in CHANGES.iter().chain(texts) {
        let store = &bed.store;
        let deploy = store.create_deploy(&name, "x.localhost", None, at(1)).await.unwrap();
        store.change_config(&deploy.id, None, &set(&[("A", b"1")]), None, at(2)).await.unwrap();
        for _ in 0..3 {
            bed.release(&deploy, Outcome::Succeeded).await;
        }
        assert_eq!(broken(store, &deploy).await, []);
        bed.raw(change).unwrap();
        let found = broken(store, &deploy).await;
        assert_ne!(found, [], "{change}");
        store.accept_ledger(&deploy.id).await.unwrap();
        for configs in [true, false] {
            let ledger = store.ledger(&deploy.id, configs).await.unwrap();
            assert_eq!(ledger.broken, [], "{change}: it was accepted");
        }
        store.releases(&deploy.id, None, 9).await.unwrap();
        store.kept(9).await.unwrap();
        let deploy = store.deploy_by_id(&deploy.id).await.unwrap();
        let (operation, _) = store.enqueue(&deploy.id, &request, "ada", at(5)).await.unwrap();
        let release = store.append(&new_release(&operation.id, &deploy, 0)).await.unwrap();
        let settled = store.settle(
            &operation.id,
            &deploy.id,
            release.row.number,
            Outcome::Succeeded,
            State::Succeeded,
            None,
            at(6),
        );
        settled.await.unwrap();
        assert_eq!(broken(store, &deploy).await, [], "{change}: and appended to");
        store.destroy_deploy(&deploy.id).await.unwrap();
    }
    // A version that was removed is not given again.
    let store = &bed.store;
    let deploy = store.create_deploy(&name, "x.localhost", None, at(1)).await.unwrap();
    let change = set(&[("A", b"1")]);
    store.change_config(&deploy.id, None, &change, None, at(2)).await.unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    let id = deploy.id.as_str();
    bed.raw(&format!("DELETE FROM configs WHERE deploy = '{id}'")).unwrap();
    bed.raw(&format!("UPDATE deploys SET config_version = 0 WHERE id = '{id}'")).unwrap();
    store.accept_ledger(&deploy.id).await.unwrap();
    let changed = store.change_config(&deploy.id, None, &change, None, at(3)).await.unwrap();
    assert_eq!(changed.0, 2);
    assert_eq!(broken(store, &deploy).await, []);
    store.destroy_deploy(&deploy.id).await.unwrap();
    // A number behind which there is none.
    let store = &bed.store;
    let deploy = store.create_deploy(&name, "x.localhost", None, at(1)).await.unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    let id = deploy.id.as_str();
    bed.raw(&format!("UPDATE releases SET number = 1099511627776 WHERE deploy = '{id}'")).unwrap();
    assert_ne!(broken(store, &deploy).await, []);
    store.accept_ledger(&deploy.id).await.unwrap();
    let (operation, _) = store.enqueue(&deploy.id, &request, "ada", at(5)).await.unwrap();
    let refused = store.append(&new_release(&operation.id, &deploy, 0)).await;
    assert!(matches!(refused, Err(Error::Ledger(_))), "{refused:?}");
}

async fn a_ledger_that_is_ahead_of_its_anchor_holds_where_every_row_does(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let store = &bed.store;
    let deploy = bed.shop().await;
    let file = bed.anchors().join("shop.production");
    let empty = std::fs::read(&file).unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    let one = std::fs::read(&file).unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    // A power failure, or a backup of the state folder: nobody else can have made these rows.
    for old in [&empty, &one] {
        std::fs::write(&file, old).unwrap();
        let ledger = store.ledger(&deploy.id, true).await.unwrap();
        assert!(ledger.is_ahead && ledger.broken.is_empty(), "{:?}", ledger.broken);
        store.record_end(&deploy.id).await.unwrap();
        let ledger = store.ledger(&deploy.id, true).await.unwrap();
        assert!(!ledger.is_ahead && ledger.broken.is_empty(), "{:?}", ledger.broken);
    }
    std::fs::write(&file, &one).unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    assert_eq!(broken(store, &deploy).await, [], "it is appended to as well");
    // One that was changed is not ahead.
    let two = std::fs::read(&file).unwrap();
    std::fs::write(&file, &one).unwrap();
    bed.raw("UPDATE outcomes SET error = 'x' WHERE number = 3").unwrap();
    assert!(broken(store, &deploy).await.iter().any(is_end));
    bed.raw("UPDATE outcomes SET error = NULL WHERE number = 3").unwrap();
    std::fs::write(&file, &two).unwrap();
    // What an operator accepted as cut off does not come back.
    for (table, number) in [("outcomes", 3), ("releases", 3)] {
        bed.raw(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table} WHERE number = 3"))
            .unwrap();
        bed.raw(&format!("DELETE FROM {table} WHERE number = {number}")).unwrap();
    }
    store.accept_ledger(&deploy.id).await.unwrap();
    assert_eq!(broken(store, &deploy).await, []);
    for table in ["releases", "outcomes"] {
        bed.raw(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).unwrap();
    }
    assert!(broken(store, &deploy).await.iter().any(is_end));
}

async fn a_crash_between_anchor_and_commit_breaks_nothing(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let store = &bed.store;
    let deploy = bed.shop().await;
    let file = bed.anchors().join("shop.production");
    bed.release(&deploy, Outcome::Succeeded).await;
    // The platform dies once the anchor is written, with the commit or without it.
    let before = std::fs::read(&file).unwrap();
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let operation = store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap().0;
    let new = new_release(&operation.id, &deploy, 0);
    let is_written = async {
        while std::fs::read(&file).unwrap() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = is_written => {}
        made = store.append(&new) => { made.unwrap(); }
    }
    assert_eq!(broken(store, &deploy).await, []);
    store.append(&new).await.unwrap();
    assert_eq!(broken(store, &deploy).await, []);
    // Destroyed, and the anchor stayed: the next deploy of this name is another.
    let left = std::fs::read(&file).unwrap();
    store.destroy_deploy(&deploy.id).await.unwrap();
    std::fs::write(&file, left).unwrap();
    let deploy = store.create_deploy(&deploy.name, "shop.localhost", None, at(3)).await.unwrap();
    bed.release(&deploy, Outcome::Succeeded).await;
    assert_eq!(broken(store, &deploy).await, []);
}

/// One of two deploys has an anchor that cannot be read for as long as the test wants.
async fn a_slow_anchor_blocks_neither_tasks_nor_readers(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let store = &bed.store;
    let slow = bed.shop().await;
    let other = path("shop/staging");
    let other = store.create_deploy(&other, "staging.localhost", None, at(1)).await.unwrap();
    bed.release(&other, Outcome::Succeeded).await;
    let file = bed.anchors().join("shop.production");
    // Opening it blocks for as long as another process has a lease of it (`fcntl`, F_SETLEASE).
    let script = "import fcntl, signal, sys\n\
        signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        file = open(sys.argv[1], 'r+')\n\
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print('held', flush=True)\nsys.stdin.read()\n";
    let mut holder = std::process::Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(&file)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = String::new();
    std::io::BufReader::new(holder.stdout.take().unwrap()).read_line(&mut held).unwrap();
    assert_eq!(held, "held\n");
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let operation = store.enqueue(&slow.id, &request, "ada", at(2)).await.unwrap().0;
    let new = new_release(&operation.id, &slow, 0);
    {
        // With the transaction open.
        let append = store.append(&new);
        let others = async {
            let mut left = 20;
            while left > 0 {
                let read = tokio::time::timeout(Duration::from_secs(1), broken(store, &other));
                assert_eq!(read.await.unwrap(), []);
                left -= 1;
            }
        };
        tokio::select! {
            made = append => panic!("{made:?}"),
            () = others => {}
        }
    }
    // It ends with its input, and the lease with it.
    drop(holder.stdin.take());
    holder.wait().unwrap();
    store.append(&new).await.unwrap();
    assert_eq!(broken(store, &slow).await, []);
}

async fn a_ledger_is_read_while_it_is_appended_to(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let deploy = bed.shop().await;
    let append = async {
        for _ in 0..10 {
            bed.release(&deploy, Outcome::Succeeded).await;
        }
    };
    tokio::pin!(append);
    let mut reads = 0;
    loop {
        tokio::select! {
            () = &mut append => break,
            ledger = bed.store.ledger(&deploy.id, true) => {
                reads += 1;
                let ledger = ledger.unwrap();
                let is_now = |broken: &&ledger::Broken| !matches!(broken, ledger::Broken::Current { .. });
                assert_eq!(ledger.broken.iter().find(is_now), None);
                assert!(!ledger.is_ahead);
            }
        }
    }
    assert!(reads > 0);
    assert_eq!(broken(&bed.store, &deploy).await, []);
}

async fn what_is_no_file_in_the_place_of_an_anchor_is_told_and_replaced(mut bed: Bed) {
    bed.store = bed.start(&bed.anchors()).await;
    let store = &bed.store;
    let deploy = bed.shop().await;
    let file = bed.anchors().join("shop.production");
    let other = bed.home.path().join("other");
    bed.release(&deploy, Outcome::Succeeded).await;
    for kind in ["a pipe", "a folder", "a folder with a file", "a link", "a socket"] {
        let sealed = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        match kind {
            "a pipe" => {
                let made = std::process::Command::new("mkfifo").arg(&file).status();
                assert!(made.unwrap().success());
            }
            "a link" => {
                // To the anchor itself: what it holds is right, and who may change it is not known.
                std::fs::write(&other, &sealed).unwrap();
                std::os::unix::fs::symlink(&other, &file).unwrap();
            }
            "a socket" => drop(std::os::unix::net::UnixListener::bind(&file).unwrap()),
            _ => std::fs::create_dir(&file).unwrap(),
        }
        if kind == "a folder with a file" {
            std::fs::write(file.join("x"), "x").unwrap();
        }
        let limit = Duration::from_secs(20);
        let found = tokio::time::timeout(limit, store.ledger(&deploy.id, true)).await;
        let found = found.unwrap_or_else(|_| panic!("{kind}: it hangs")).unwrap().broken;
        let why = |broken: &ledger::Broken| broken.to_string().contains("not a regular file");
        assert!(found.iter().any(why), "{kind}: {found:?}");
        tokio::time::timeout(limit, store.accept_ledger(&deploy.id)).await.unwrap().unwrap();
        assert_eq!(broken(store, &deploy).await, [], "{kind}");
        assert!(std::fs::symlink_metadata(&file).unwrap().is_file(), "{kind}");
        bed.release(&deploy, Outcome::Succeeded).await;
        assert_eq!(broken(store, &deploy).await, [], "{kind}");
    }
    assert!(other.exists(), "where a link leads nothing is changed");
}
