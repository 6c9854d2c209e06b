//! One suite for every database: SQLite in a file, and PostgreSQL's own server; and one for
//! every store of blobs.

#![expect(clippy::unwrap_used, reason = "what cannot be had fails the test")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use tolv_model::access::{Grant, GrantedApps, Role};
use tolv_model::config::{Change, Config, NewValue};
use tolv_model::env::EnvName;
use tolv_model::id::OperationId;
use tolv_model::ledger::{self, Reason};
use tolv_model::name::{AppName, Deploy as DeployPath, DeployName};
use tolv_model::operation::{Outcome, Request, State};
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::{Digest, SlugId};
use tolv_store::{
    CopyFrom, DatabaseUrl, Deploy, Error, Idempotent, NewRelease, Operation, Release, SecretKey,
    Slug, Store, Stored, StoredToken,
};
use tolv_testkit::{Home, Postgres};

/// A database with a store on it.
struct Bed {
    home: Home,
    postgres: Option<Postgres>,
    store: Store,
}

async fn open(url: &DatabaseUrl, key: &SecretKey) -> Result<Store, Error> {
    let store = Store::connect(url, key)?;
    store.prepare().await.map(|()| store)
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_text(&format!("{byte:02x}").repeat(32), "the test").unwrap()
}

impl Bed {
    async fn new(postgres: bool) -> Self {
        let home = Home::new();
        let postgres = postgres.then(Postgres::start);
        let url = Self::url_of(&home, postgres.as_ref());
        let store = open(&url, &key(7)).await.unwrap();
        Self { home, postgres, store }
    }

    fn url_of(home: &Home, postgres: Option<&Postgres>) -> DatabaseUrl {
        match postgres {
            Some(postgres) => postgres.url().parse().unwrap(),
            None => DatabaseUrl::file(&home.path().join("db.sqlite")),
        }
    }

    fn url(&self) -> DatabaseUrl {
        Self::url_of(&self.home, self.postgres.as_ref())
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("db.sqlite")
    }

    /// Statements behind the store's back.
    /// Whether SQLite's files have this text in clear. Asked of a process of its own: who closes
    /// such a file lets go of all the locks that its process has on it (`fcntl`, F_SETLK).
    fn has_on_disk(&self, text: &str) -> bool {
        self.postgres.is_none()
            && std::process::Command::new("grep")
                .args(["-q", "-a", "-F", "-r", text])
                .arg(self.home.path())
                .status()
                .unwrap()
                .success()
    }

    fn raw(&self, statement: &str) -> Result<(), String> {
        match &self.postgres {
            Some(postgres) => tolv_testkit::postgres::sql(postgres, statement)
                .map(drop)
                .map_err(|error| error.to_string()),
            None => {
                let script = "import sqlite3, sys\n\
                    db = sqlite3.connect(sys.argv[1], timeout=10)\n\
                    db.execute(sys.argv[2])\ndb.commit()\n";
                let ran = std::process::Command::new("/usr/bin/python3")
                    .args(["-c", script])
                    .arg(self.file())
                    .arg(statement)
                    .output()
                    .unwrap();
                match ran.status.success() {
                    true => Ok(()),
                    false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
                }
            }
        }
    }

    /// The store as after a start, with its folder of anchors.
    async fn restart(&mut self) {
        self.store = Store::connect(&self.url(), &key(7)).unwrap();
        self.store.anchor_in(self.home.path().join("anchors"));
        self.store.prepare().await.unwrap();
    }

    async fn shop(&self) -> Deploy {
        let first = DeployName::production();
        let made =
            self.store.create_app(&app("shop"), &first, "shop.localhost", at(1)).await.unwrap();
        made.1
    }

    async fn release(&self, deploy: &Deploy, outcome: Outcome) -> (Operation, Release) {
        release_in(&self.store, deploy, outcome).await
    }

    async fn verify(&self, deploy: &Deploy) -> Result<(), ledger::Broken> {
        let mut ledger = self.store.ledger(&deploy.id, true).await.unwrap();
        let broken = |broken: &ledger::Broken| !matches!(broken, ledger::Broken::Current { .. });
        ledger.broken.retain(broken);
        ledger.broken.into_iter().next().map_or(Ok(()), Err)
    }
}

async fn release_in(store: &Store, deploy: &Deploy, outcome: Outcome) -> (Operation, Release) {
    // Not a deploy: of those a newer one supersedes the others.
    let request = Request::Rollback { to: ReleaseNumber(1), no_release_phase: false };
    let operation = store.enqueue(&deploy.id, &request, "ada", at(2)).await.unwrap().0;
    assert!(store.begin(&operation.id, at(3)).await.unwrap());
    let version = store.deploy_by_id(&deploy.id).await.unwrap().config_version;
    let new = new_release(&operation.id, deploy, version);
    let number = store.append(&new).await.unwrap().row.number;
    if outcome != Outcome::Pending {
        let state = if outcome == Outcome::Succeeded { State::Succeeded } else { State::Failed };
        store.settle(&operation.id, &deploy.id, number, outcome, state, None, at(5)).await.unwrap();
    }
    (operation, store.release(&deploy.id, number).await.unwrap())
}

fn new_release(operation: &OperationId, deploy: &Deploy, config_version: u32) -> NewRelease {
    NewRelease {
        operation: operation.clone(),
        deploy: deploy.id.clone(),
        slug: SlugId(Digest::of(operation.as_str().as_bytes())),
        commit: Some("c".repeat(40)),
        config_version,
        process_types: [("web".parse().unwrap(), "run".to_owned())].into(),
        sizes: Default::default(),
        reason: Reason::Deploy,
        actor: "ada".to_owned(),
        now: at(4),
    }
}

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn path(text: &str) -> DeployPath {
    text.parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn set(pairs: &[(&str, &[u8])]) -> Change {
    let pair = |&(name, value): &(&str, &[u8])| {
        (
            name.parse::<EnvName>().unwrap(),
            NewValue { value: value.to_vec(), secret: false, build: false },
        )
    };
    Change { set: pairs.iter().map(pair).collect(), unset: BTreeSet::new() }
}

/// Runs each test on each database.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Bed::new(false).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Bed::new(true).await).await;
            })*
        }
    };
}

// Behind the macro, which they use.
mod anchors;
mod blobs;
mod cron;
mod database;
mod drains;
mod growth;
mod races;
mod rows;
mod runs;
mod size;
mod tokens;

on_both!(
    names_are_unique_and_come_back,
    config_versions_are_kept_and_sealed,
    a_change_that_another_overtook_is_refused,
    operations_queue_and_supersede,
    what_begins_anew_keeps_its_ledger_alone,
    old_operations_are_forgotten,
    the_ledger_is_a_chain_that_the_database_keeps,
    writers_at_once_never_share_a_number,
    what_is_kept,
    tokens_audit_and_idempotency,
    it_opens_again_with_its_key_alone,
);

async fn names_are_unique_and_come_back(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let first = DeployName::production();
    let again = store.create_app(&app("shop"), &first, "other.localhost", at(1)).await;
    assert!(matches!(again, Err(Error::Exists { what: "app", .. })), "{again:?}");
    let taken = store.create_app(&app("blog"), &first, "shop.localhost", at(1)).await;
    assert!(matches!(taken, Err(Error::Exists { what: "host", .. })), "{taken:?}");
    assert!(store.app(&app("blog")).await.is_err(), "half an app is no app");
    store.create_app(&app("blog"), &first, "blog.localhost", at(1)).await.unwrap();
    let names: Vec<_> =
        store.apps(None, 9).await.unwrap().into_iter().filter_map(Stored::valid).collect();
    let names: Vec<_> = names.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["blog", "shop"]);
    assert_eq!(store.apps(Some(&app("blog")), 9).await.unwrap().len(), 1);

    store.set_formation(&deploy.id, &"web=2".parse().unwrap()).await.unwrap();
    store.change_config(&deploy.id, None, &set(&[("A", b"1")]), None, at(2)).await.unwrap();
    let from = |values| Some(CopyFrom { deploy: deploy.id.clone(), values });
    let bare =
        store.create_deploy(&path("shop/bare"), "b.localhost", from(false), at(3)).await.unwrap();
    assert_eq!((bare.formation.to_string().as_str(), bare.config_version), ("web=2", 0));
    let full =
        store.create_deploy(&path("shop/full"), "f.localhost", from(true), at(3)).await.unwrap();
    assert!(store.config(&full.id, full.config_version).await.unwrap().vars.get("A").is_some());
    let again = store.create_deploy(&path("shop/full"), "g.localhost", None, at(3)).await;
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    assert_eq!(store.deploys(&deploy.app).await.unwrap().len(), 3);

    store.set_stopped(&deploy.id, true).await.unwrap();
    store.set_branch(&deploy.id, "main").await.unwrap();
    store.add_roots(&deploy.app, &["b".into(), "a".into(), "b".into()]).await.unwrap();
    let now = store.deploy(&path("shop/production")).await.unwrap();
    assert!(now.stopped);
    assert_eq!(now.branch.as_deref(), Some("main"));
    assert_eq!(store.app(&app("shop")).await.unwrap().roots, ["a", "b"]);

    assert!(matches!(store.destroy_app(&deploy.app).await, Err(Error::HasDeploys(_))));
    for deploy in store.deploys(&deploy.app).await.unwrap().into_iter().filter_map(Stored::valid) {
        bed.release(&deploy, Outcome::Failed).await;
        store.destroy_deploy(&deploy.id).await.unwrap();
    }
    let hash = Digest::of(b"tolv_of_the_app");
    let grant = Grant { role: Role::Admin, apps: deploy.name.app.clone().into() };
    store.create_token("its", &grant, &hash, None, at(1)).await.unwrap();
    let both = GrantedApps::Only([app("shop"), app("blog")].into());
    let grant = Grant { role: Role::View, apps: both };
    let shared = Digest::of(b"tolv_of_both");
    store.create_token("both", &grant, &shared, None, at(1)).await.unwrap();
    store.destroy_app(&deploy.app).await.unwrap();
    let left = store.token_by_hash(&shared).await.unwrap().unwrap().valid().unwrap();
    assert_eq!(left.grant.apps, app("blog").into(), "it is for the other one still");
    // The next app of this name is another.
    assert_eq!(store.token_by_hash(&hash).await.unwrap(), None);
    assert!(matches!(store.app(&app("shop")).await, Err(Error::NotFound { .. })));
    bed.shop().await;
}

async fn config_versions_are_kept_and_sealed(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    assert_eq!(store.config(&deploy.id, 0).await.unwrap(), Config::default());
    let bytes: Vec<u8> = (1..=255).collect();
    let secret = b"a very secret value";
    let change = set(&[("BYTES", &bytes), ("SECRET", secret)]);
    let (one, none) = store.change_config(&deploy.id, None, &change, None, at(2)).await.unwrap();
    assert_eq!((one, none), (1, None));
    let change = Change {
        unset: [EnvName::try_from("BYTES".to_owned()).unwrap()].into(),
        ..set(&[("B", b"2")])
    };
    let (two, operation) =
        store.change_config(&deploy.id, Some(1), &change, Some("ada"), at(3)).await.unwrap();
    assert_eq!(two, 2);
    let request = operation.unwrap().request;
    assert_eq!(
        request,
        Request::Config {
            version: 2,
            set: vec!["B".into()],
            unset: vec!["BYTES".into()],
            no_release_phase: false,
        }
    );
    let first = store.config(&deploy.id, 1).await.unwrap();
    assert_eq!(first.vars.get("BYTES").unwrap().as_bytes(), bytes);
    let second = store.config(&deploy.id, 2).await.unwrap();
    assert_eq!(second.names().map(EnvName::as_str).collect::<Vec<_>>(), ["B", "SECRET"]);
    let prints = |version| store.fingerprints(&deploy.id, version);
    let name: EnvName = "SECRET".parse().unwrap();
    assert_eq!(prints(1).await.unwrap()[&name], prints(2).await.unwrap()[&name]);
    assert!(!bed.has_on_disk(std::str::from_utf8(secret).unwrap()));
    assert!(bed.postgres.is_some() || bed.has_on_disk("production"), "what is no secret is there");
    // Back to the first, and on from there: no version is used twice.
    store.set_config_head(&deploy.id, 1).await.unwrap();
    let (three, _) =
        store.change_config(&deploy.id, Some(1), &set(&[("C", b"3")]), None, at(4)).await.unwrap();
    assert_eq!(three, 3);
    let third = store.config(&deploy.id, 3).await.unwrap();
    assert!(third.vars.get("BYTES").is_some() && third.vars.get("B").is_none());
    // A sealed value is at home in its deploy and version only.
    bed.raw("UPDATE configs SET sealed = (SELECT c.sealed FROM configs c WHERE c.version = 1) WHERE version = 2")
        .unwrap();
    assert!(matches!(store.config(&deploy.id, 2).await, Err(Error::Corrupt { .. })));
}

async fn a_change_that_another_overtook_is_refused(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    store.change_config(&deploy.id, Some(0), &set(&[("A", b"1")]), None, at(2)).await.unwrap();
    let late = store.change_config(&deploy.id, Some(0), &set(&[("A", b"2")]), None, at(2)).await;
    assert!(matches!(late, Err(Error::Conflict { expected: 0, current: 1 })), "{late:?}");
    let bad = store
        .change_config(&deploy.id, None, &set(&[("A", b"3"), ("PORT", b"1")]), Some("ada"), at(2))
        .await;
    assert!(matches!(bad, Err(Error::Env(_))), "{bad:?}");
    assert_eq!(store.deploy_by_id(&deploy.id).await.unwrap().config_version, 1);
    assert_eq!(store.next(&deploy.id).await.unwrap(), None, "and nothing is queued");
}

async fn operations_queue_and_supersede(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let push = |commit: &str| Request::Deploy {
        commit: commit.to_owned(),
        branch: None,
        no_release_phase: false,
    };
    let queue = async |request: &Request, second| {
        store.enqueue(&deploy.id, request, "ada", at(second)).await.unwrap()
    };
    let (first, _) = queue(&push("1"), 1).await;
    assert!(store.begin(&first.id, at(5)).await.unwrap());
    let (second, _) = queue(&push("2"), 2).await;
    let (stop, none) = queue(&Request::Stop, 3).await;
    assert!(none.is_empty());
    let (third, superseded) = queue(&push("3"), 4).await;
    assert_eq!(superseded, std::slice::from_ref(&second.id), "the running one is not");
    assert_eq!(store.operation(&second.id).await.unwrap().state, State::Superseded);
    assert!(!store.begin(&second.id, at(6)).await.unwrap());
    assert_eq!(store.next(&deploy.id).await.unwrap().unwrap().id, first.id);
    assert_eq!(store.unfinished().await.unwrap(), (2, 1));
    let slug = Slug {
        id: SlugId(Digest::of(b"slug")),
        app: deploy.app.clone(),
        commit: Some("1".to_owned()),
        built: at(6),
        bytes: 7,
    };
    store.set_slug(&first.id, &slug).await.unwrap();
    assert_eq!(store.slug(&slug.app, &slug.id).await.unwrap(), slug);
    assert_eq!(store.operation(&first.id).await.unwrap().slug, Some(slug.id));
    assert!(store.end(&first.id, State::Failed, Some("no"), at(7)).await.unwrap());
    assert!(!store.end(&first.id, State::Succeeded, None, at(8)).await.unwrap(), "over is over");
    assert_eq!(store.next(&deploy.id).await.unwrap().unwrap().id, stop.id);
    let all = store.operations(&deploy.id, None, 9).await.unwrap();
    assert_eq!(
        all.iter().map(|o| o.id.clone()).collect::<Vec<_>>(),
        [third.id.clone(), stop.id, second.id, first.id.clone()]
    );
    assert_eq!(all[3].error.as_deref(), Some("no"));
    assert_eq!(all[3].ended, Some(at(7)));
    assert_eq!(store.operations(&deploy.id, Some(&third.id), 1).await.unwrap().len(), 1);
}

async fn old_operations_are_forgotten(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    for _ in 0..3 {
        bed.release(&deploy, Outcome::Succeeded).await;
    }
    for second in 0..3 {
        let (queued, _) =
            store.enqueue(&deploy.id, &Request::Stop, "ada", at(20 + second)).await.unwrap();
        if second < 2 {
            store.end(&queued.id, State::Succeeded, None, at(30)).await.unwrap();
        }
    }
    let all = store.operations(&deploy.id, None, 9).await.unwrap();
    assert_eq!(all.len(), 6);
    // The newest two stay, that which made the last release, and what is not over.
    let forgotten = store.forget_operations(&deploy.id, 2, 1).await.unwrap();
    let left = store.operations(&deploy.id, None, 9).await.unwrap();
    let kinds: Vec<_> = left.iter().map(|operation| operation.request.kind()).collect();
    assert_eq!((forgotten.len(), kinds), (3, vec!["stop", "stop", "rollback"]));
    assert_eq!(left[2].release, Some(ReleaseNumber(3)));
    assert!(forgotten.iter().all(|id| all.iter().any(|operation| operation.id == *id)));
    assert!(bed.verify(&deploy).await.is_ok());
    assert_eq!(store.forget_operations(&deploy.id, 0, 0).await.unwrap().len(), 2);
    assert_eq!(store.operations(&deploy.id, None, 9).await.unwrap().len(), 1);
}

async fn what_begins_anew_keeps_its_ledger_alone(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    bed.release(&deploy, Outcome::Succeeded).await;
    bed.release(&deploy, Outcome::Pending).await;
    store.set_stopped(&deploy.id, true).await.unwrap();
    let (queued, _) = store.enqueue(&deploy.id, &Request::Up, "up", at(5)).await.unwrap();
    let formation = "web=2".parse().unwrap();
    store.begin_anew(&deploy.id, &formation, "cut off", at(6)).await.unwrap();
    let now = store.deploy_by_id(&deploy.id).await.unwrap();
    assert_eq!((now.current, now.stopped, now.formation), (None, false, formation));
    assert_eq!(store.next(&deploy.id).await.unwrap(), None);
    let queued = store.operation(&queued.id).await.unwrap();
    assert_eq!((queued.state, queued.error.as_deref()), (State::Cancelled, Some("cut off")));
    let releases = store.releases(&deploy.id, None, 9).await.unwrap();
    let outcomes: Vec<_> = releases.iter().map(|release| release.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Succeeded]);
    assert!(bed.verify(&deploy).await.is_ok());
}

async fn the_ledger_is_a_chain_that_the_database_keeps(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let (operation, one) = bed.release(&deploy, Outcome::Succeeded).await;
    bed.release(&deploy, Outcome::Failed).await;
    bed.release(&deploy, Outcome::Pending).await;
    assert!(store.is_genuine(&one));
    assert!(bed.verify(&deploy).await.is_ok());
    let releases = store.releases(&deploy.id, None, 9).await.unwrap();
    let outcomes: Vec<_> = releases.iter().map(|release| release.outcome).collect();
    assert_eq!(outcomes, [Outcome::Pending, Outcome::Failed, Outcome::Succeeded]);
    assert_eq!(releases[2], one);
    assert_eq!(
        store.releases(&deploy.id, Some(ReleaseNumber(3)), 1).await.unwrap()[0].row.number,
        ReleaseNumber(2)
    );
    let now = store.deploy_by_id(&deploy.id).await.unwrap();
    assert_eq!((now.current, now.commit), (Some(ReleaseNumber(1)), Some("c".repeat(40))));
    // Asked again for one operation, it is the same release.
    let again = store
        .append(&NewRelease {
            operation: operation.id.clone(),
            deploy: deploy.id.clone(),
            slug: one.row.slug,
            commit: None,
            config_version: 0,
            process_types: Default::default(),
            sizes: Default::default(),
            reason: Reason::Deploy,
            actor: "eve".to_owned(),
            now: at(9),
        })
        .await
        .unwrap();
    assert_eq!(again.row, one.row);
    let error = bed.raw("UPDATE releases SET actor = 'eve' WHERE number = 2").unwrap_err();
    assert!(error.contains("never changed"), "{error}");
    let table = if bed.postgres.is_some() { " ON releases" } else { "" };
    bed.raw(&format!("DROP TRIGGER releases_are_fixed{table}")).unwrap();
    bed.raw("UPDATE releases SET actor = 'eve' WHERE number = 2").unwrap();
    assert_eq!(bed.verify(&deploy).await, Err(ledger::Broken::Changed(ReleaseNumber(2))));
}

async fn writers_at_once_never_share_a_number(bed: Bed) {
    let deploy = bed.shop().await;
    let ten = (0..10).map(|_| bed.release(&deploy, Outcome::Succeeded));
    let mut numbers = BTreeSet::new();
    for (_, release) in futures(ten.collect()).await {
        numbers.insert(release.row.number.0);
    }
    assert_eq!(numbers, (1..=10).collect());
    assert!(bed.verify(&deploy).await.is_ok());
}

/// All of them at once.
async fn futures<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done: Vec<_> = all.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

async fn what_is_kept(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let mut slugs = Vec::new();
    for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Failed, Outcome::Failed] {
        slugs.push(bed.release(&deploy, outcome).await.1.row.slug);
    }
    let kept = store.kept(2).await.unwrap();
    assert_eq!(kept, [slugs[0], slugs[2], slugs[3]].into(), "what runs, and the last two");
    let (pending, release) = bed.release(&deploy, Outcome::Pending).await;
    let slug = Slug {
        id: SlugId(Digest::of(b"under way")),
        app: deploy.app.clone(),
        commit: None,
        built: at(1),
        bytes: 0,
    };
    store.set_slug(&pending.id, &slug).await.unwrap();
    assert!(store.kept(1).await.unwrap().contains(&slug.id));
    assert!(store.end(&pending.id, State::Failed, Some("why"), at(9)).await.unwrap());
    let release = store.release(&deploy.id, release.row.number).await.unwrap();
    assert_eq!((release.outcome, release.error.as_deref()), (Outcome::Failed, Some("why")));
    assert!(!store.end(&pending.id, State::Failed, None, at(10)).await.unwrap(), "over is over");
    assert!(!store.kept(1).await.unwrap().contains(&slug.id));
    store.remove_slug(&slug.app, &slug.id).await.unwrap();
    assert!(store.slugs().await.unwrap().is_empty());
}

async fn tokens_audit_and_idempotency(bed: Bed) {
    let store = &bed.store;
    let hash = Digest::of(b"tolv_secret");
    let grant = Grant { role: Role::Deploy, apps: app("shop").into() };
    let unknown = store.create_token("ci", &grant, &hash, Some(at(99)), at(1)).await;
    assert!(matches!(unknown, Err(Error::NotFound { what: "app", .. })), "{unknown:?}");
    let shop = store.create_app(&app("shop"), &"production".parse().unwrap(), "h", at(1)).await;
    shop.unwrap();
    let token = store.create_token("ci", &grant, &hash, Some(at(99)), at(1)).await.unwrap();
    let valid = StoredToken::Valid(token.clone());
    assert_eq!(store.token_by_hash(&hash).await.unwrap(), Some(valid.clone()));
    assert_eq!(store.token_by_hash(&Digest::of(b"other")).await.unwrap(), None);
    assert_eq!(store.tokens(None, 9).await.unwrap().items, std::slice::from_ref(&valid));

    let begin = |key: &'static str, body: &'static [u8]| {
        let (store, id) = (store.clone(), token.id.clone());
        async move { store.idempotent_begin(&id, key, &Digest::of(body), at(1)).await.unwrap() }
    };
    assert_eq!(begin("k", b"x").await, Idempotent::Fresh);
    assert_eq!(begin("k", b"x").await, Idempotent::Running);
    assert_eq!(begin("k", b"y").await, Idempotent::Mismatch);
    store.idempotent_end(&token.id, "k", 201, "made").await.unwrap();
    let done = Idempotent::Done { status: 201, body: "made".to_owned() };
    assert_eq!(begin("k", b"x").await, done);
    assert_eq!(begin("lost", b"x").await, Idempotent::Fresh);
    store.forget_idempotent(at(0), true).await.unwrap();
    assert_eq!(begin("k", b"x").await, done);
    assert_eq!(begin("lost", b"x").await, Idempotent::Fresh);
    store.forget_idempotent(at(2), false).await.unwrap();
    assert_eq!(begin("k", b"y").await, Idempotent::Fresh);

    store.revoke_token(token.id.as_str()).await.unwrap();
    assert!(matches!(store.revoke_token(token.id.as_str()).await, Err(Error::NotFound { .. })));

    for (second, name) in [(1, "shop"), (2, "blog"), (3, "shop")] {
        store.audit("ada", "config.read", Some(name), None, "GREETING", at(second)).await.unwrap();
    }
    let lines = store.audit_lines(Some(&app("shop")), None, 9).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.at).collect::<Vec<_>>(), [at(3), at(1)]);
    assert_eq!(store.audit_lines(None, Some(&lines[0].id), 9).await.unwrap().len(), 2);
}

async fn it_opens_again_with_its_key_alone(bed: Bed) {
    let deploy = bed.shop().await;
    bed.store.change_config(&deploy.id, None, &set(&[("A", b"1")]), None, at(2)).await.unwrap();
    let wrong = open(&bed.url(), &key(8)).await;
    assert!(matches!(wrong, Err(Error::WrongKey)), "{wrong:?}");
    let again = open(&bed.url(), &key(7)).await.unwrap();
    assert_eq!(again.config(&deploy.id, 1).await.unwrap().vars.get("A").unwrap().as_bytes(), b"1");
}
