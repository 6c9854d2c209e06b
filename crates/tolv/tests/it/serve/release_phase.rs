//! The release phase: before anything new starts, for every release, and nothing changes where it
//! fails.

use tolv_testkit::Postgres;
use tolv_testkit::postgres::sql;

use super::*;
use crate::processes_with;

/// Says in the database that it ran, and for which release.
const MIGRATE: &str = "set -e\n\
    psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 \
    -c 'create table if not exists migrated (release text primary key)' \
    -c \"insert into migrated values ('$TOLV_DEPLOY $TOLV_RELEASE')\"\n";

fn migrated(postgres: &Postgres) -> Vec<String> {
    let found = sql(postgres, "select release from migrated order by release").unwrap();
    found.lines().map(str::to_owned).collect()
}

fn migrating(postgres: &Postgres) -> Shop {
    let address = postgres.address();
    let settings = [("TOLV_HOST_SERVICES", &*address)];
    let shop = Shop::new("web: python3 server.py\nrelease: sh migrate.sh\n", &settings);
    shop.change("migrate.sh", MIGRATE);
    shop.tolv(&["config", "set", &format!("DATABASE_URL={}", postgres.url())]);
    shop
}

#[test]
fn every_release_migrates_unless_it_is_left_out() {
    let postgres = Postgres::start();
    let shop = migrating(&postgres);
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("remote: -----> Release phase: sh migrate.sh"), "{said}");
    assert!(said.contains("CREATE TABLE") && said.contains("INSERT 0 1"), "{said}");
    shop.serve.running().wait_for_line(|line| line.contains("INSERT 0 1"), SOON);
    assert_eq!(migrated(&postgres), ["production v1"]);
    // A change of the config, a rollback, another deploy and a promotion.
    shop.tolv(&["config", "set", "A=1"]);
    shop.tolv(&["rollback", "v1"]);
    shop.tolv(&["deploys", "create", "staging", "--from", "shop/production", "--values"]);
    let staging = format!("{}/git/shop/staging.git", shop.serve.url());
    shop.change("version.txt", "two");
    shop.pushed(&[&staging, "main"]);
    shop.tolv(&["promote", "shop/staging"]);
    let all = ["production v1", "production v2", "production v3", "production v4", "staging v1"];
    assert_eq!(migrated(&postgres), all);
    // And each of them without it.
    let flag = "--no-release-phase";
    let left_out = |ran: Ran| {
        assert!(ran.status.success(), "{}{}", ran.out, ran.err);
        assert!(ran.err.contains("Release phase left out: sh migrate.sh"), "{}", ran.err);
    };
    left_out(shop.ran(&["config", "set", flag, "A=2"]));
    left_out(shop.ran(&["config", "unset", flag, "A"]));
    std::fs::write(shop.dir.join("more.env"), "A=3\n").unwrap();
    left_out(shop.ran(&["config", "import", flag, "more.env"]));
    left_out(shop.ran(&["promote", "shop/staging", flag]));
    left_out(shop.ran(&["rollback", "v4", flag]));
    shop.change("version.txt", "three");
    left_out(shop.push(&["-o", "no-release-phase", "tolv", "main"]));
    shop.change("version.txt", "four");
    left_out(shop.ran(&["deploy", "--allow-dirty", flag]));
    assert_eq!(migrated(&postgres), all);
    let operations = shop.json(&["operations"]);
    let skipped = operations["items"].as_array().unwrap().iter();
    let skipped = skipped.filter(|operation| operation["no_release_phase"] == true);
    assert_eq!(skipped.count(), 7, "{operations}");
    assert!(shop.tolv(&["releases", "verify"]).contains("11"));
}

#[test]
fn one_that_fails_changes_nothing_and_can_be_tried_again() {
    let postgres = Postgres::start();
    let shop = migrating(&postgres);
    shop.pushed(&["tolv", "main"]);
    let none = shop.ran(&["releases", "retry"]);
    assert!(!none.status.success() && none.err.contains("did not fail"), "{}", none.err);
    // It needs a table that is not there yet.
    let script = format!("{MIGRATE}psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 -c 'table later'\n");
    let commit = shop.change("migrate.sh", &script);
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    for text in ["\"later\" does not exist", "release phase failed with status 1", "v1 goes on"] {
        assert!(ran.err.contains(text), "{text} in {}", ran.err);
    }
    assert!(ran.err.contains("tolv releases retry"), "{}", ran.err);
    assert!(shop.text("shop.localhost", "/env").contains("TOLV_RELEASE=v1"));
    let failed = shop.json(&["releases", "info", "v2"]);
    assert_eq!(failed["outcome"], "failed");
    assert!(failed["error"].as_str().unwrap().contains("release phase"), "{failed}");
    // Again in vain, then with what it needs.
    assert!(!shop.ran(&["releases", "retry"]).status.success());
    sql(&postgres, "create table later (x int)").unwrap();
    let said = shop.ran(&["releases", "retry"]);
    assert!(said.status.success(), "{}", said.err);
    assert!(!said.err.contains("-----> Building"), "{}", said.err);
    let env = shop.text("shop.localhost", "/env");
    assert!(env.contains("TOLV_RELEASE=v4") && env.contains(&commit), "{env}");
    // The branch moved with it.
    let again = shop.pushed(&["tolv", "main"]);
    assert!(again.contains("Everything up-to-date"), "{again}");
    let releases = shop.tolv(&["releases"]);
    assert!(releases.contains("Retry of v3"), "{releases}");
    assert_eq!(migrated(&postgres).len(), 4, "each try ran it");
}

#[test]
fn one_that_is_given_up_is_gone_before_anything_else_begins() {
    let shop = Shop::new("web: python3 server.py\nrelease: python3 slow.py\n", &[]);
    let mark = format!("mark-{}-{}", std::process::id(), shop.serve.http());
    // It takes its time to end, and leaves a child behind.
    let script = format!(
        "import signal, subprocess, sys, time\n\
         subprocess.Popen(['sh', '-c', 'trap \"\" TERM; sleep 600 # {mark}'])\n\
         def end(*_):\n    time.sleep(0.7)\n    print('cleaned up', flush=True)\n    sys.exit(0)\n\
         signal.signal(signal.SIGTERM, end)\n\
         print('phase begins', flush=True)\n\
         time.sleep(600)\n"
    );
    shop.change("slow.py", &script);
    let args = ["--progress", "tolv", "main"];
    let mut push = tolv_testkit::Tolv::start(&mut push_command(&shop.serve, &shop.dir, &args));
    push.wait_for_line(|line| line.contains("phase begins"), SOON);
    assert!(!processes_with(&mark).is_empty());
    let id = shop.json(&["operations"])["items"][0]["id"].as_str().unwrap().to_owned();
    let said = shop.tolv(&["operations", "cancel", &id]);
    assert!(said.contains("cancelled"), "{said}");
    assert!(processes_with(&mark).is_empty(), "it was there when the operation was over");
    assert!(!push.wait(SOON).success());
    shop.serve.running().wait_for_line(|line| line.contains("cleaned up"), SOON);
    let release = shop.json(&["releases", "info", "v1"]);
    assert_eq!((&release["outcome"], &release["error"]), (&"failed".into(), &"cancelled".into()));
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503);
}
