//! Who can write to the database, and has not the key, changes nothing that counts.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use super::proof::{does_not_hold, sql};
use super::status::at_home;
use super::*;

/// An app with two deploys, which both run.
fn two_deploys() -> Shop {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let path = format!("{}/git/shop/staging.git", shop.serve.url());
    shop.tolv(&["deploys", "create", "staging"]);
    shop.pushed(&[&path, "main"]);
    until_text(&shop, STAGING, "one");
    shop
}

const STAGING: &str = "shop-staging.localhost";

#[track_caller]
fn refused(shop: &Shop, args: &[&str], why: &str) {
    let ran = shop.ran(args);
    assert!(!ran.status.success() && ran.err.contains(why), "{args:?}: {}{}", ran.out, ran.err);
}

/// What the audit log has of an action.
fn audited(shop: &Shop, action: &str) -> Vec<Value> {
    let audit = shop.json(&["audit"]);
    let lines = audit["items"].as_array().unwrap().iter();
    lines.filter(|line| line["action"] == action).cloned().collect()
}

#[test]
fn a_changed_row_keeps_its_deploy_down_and_no_other() {
    let mut shop = two_deploys();
    let why = "formation does not match its code";
    let whole = sql(&shop, "SELECT formation FROM deploys WHERE name = 'staging'");
    let change = "UPDATE deploys SET formation = '{\"web\":2}' WHERE name = 'staging'";
    // While it runs: nothing is done to it, and it can be stopped.
    sql(&shop, change);
    refused(&shop, &["restart", "-d", "shop/staging"], why);
    refused(&shop, &["config", "set", "A=1", "-d", "shop/staging"], why);
    let listed = shop.tolv(&["deploys"]);
    assert!(listed.contains("changed outside of the platform"), "{listed}");
    assert!(listed.contains("shop/production"), "{listed}");
    let status = at_home(&shop.serve, &[]);
    assert!(status.out.contains("deploy `shop/staging`"), "{}{}", status.out, status.err);
    shop.tolv(&["stop", "-d", "shop/staging"]);
    let began = Instant::now();
    while shop.get(STAGING, "/").unwrap().status == 200 {
        assert!(began.elapsed() < SOON, "it was stopped");
    }
    assert_eq!(shop.get("shop.localhost", "/").unwrap().text(), "one");
    // With the row as it was it is started again.
    let back = format!("UPDATE deploys SET formation = '{}' WHERE name = 'staging'", whole.trim());
    sql(&shop, &back);
    shop.tolv(&["start", "-d", "shop/staging"]);
    until_text(&shop, STAGING, "one");
    // At a start it is named, and nothing of it starts.
    shop.serve.end(Signal::KILL);
    sql(&shop, change);
    sql(&shop, "UPDATE deploys SET host = 'evil.localhost' WHERE name = 'staging'");
    shop.serve.begin();
    let told = |line: &str| {
        line.contains("Deploy shop/staging cannot be started: the row of deploy `shop/staging`")
            && line.contains("host, and formation does not match its code")
    };
    shop.serve.running().wait_for_line(told, SOON);
    until_text(&shop, "shop.localhost", "one");
    assert_eq!(shop.get(STAGING, "/").unwrap().status, 503);
    assert_ne!(shop.get("evil.localhost", "/").unwrap().status, 200);
    let lines = audited(&shop, "deploy.forged");
    assert!(!lines.is_empty() && lines[0]["outcome"] == "refused", "{lines:?}");
    assert_eq!((&lines[0]["app"], &lines[0]["deploy"]), (&"shop".into(), &"staging".into()));
    refused(&shop, &["releases", "verify", "-d", "shop/staging"], "host, and formation does not");
    // On purpose it is taken as it is.
    sql(&shop, "UPDATE deploys SET host = 'shop-staging.localhost' WHERE name = 'staging'");
    shop.tolv(&["releases", "accept", "-d", "shop/staging", "--confirm", "shop/staging"]);
    until_text(&shop, STAGING, "one");
    let ps = shop.json(&["ps", "-d", "shop/staging"]);
    assert_eq!(ps["items"].as_array().unwrap().len(), 2, "{ps}");
    let status = at_home(&shop.serve, &[]);
    assert!(status.out.contains("every row is the platform's"), "{}", status.out);
    // And it is destroyed as it is.
    shop.serve.end(Signal::INT);
    sql(&shop, "UPDATE deploys SET stopped = 1, mac = NULL WHERE name = 'staging'");
    shop.serve.begin();
    shop.tolv(&["destroy", "shop/staging", "--confirm", "shop/staging"]);
    assert!(!shop.tolv(&["deploys"]).contains("staging"));
    until_text(&shop, "shop.localhost", "one");
}

#[test]
fn a_changed_row_of_an_app_keeps_pushes_out_until_it_is_accepted() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let zeros = "0".repeat(40);
    sql(&shop, &format!("UPDATE apps SET roots = '[\"{zeros}\"]'"));
    let why = "roots does not match its code";
    shop.change("index.html", "two");
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success() && ran.err.contains(why), "{}", ran.err);
    assert!(shop.tolv(&["apps"]).contains("changed outside of the platform"));
    shop.serve.end(Signal::INT);
    shop.serve.begin();
    let told = |line: &str| line.contains("App shop takes no push") && line.contains(why);
    shop.serve.running().wait_for_line(told, SOON);
    until_text(&shop, "shop.localhost", "one");
    does_not_hold(&shop, why);
    shop.tolv(&["releases", "accept", "--confirm", "shop/production"]);
    refused(&shop, &["deploy"], "--new-root");
    shop.pushed(&["-o", "new-root", "tolv", "main"]);
    until_text(&shop, "shop.localhost", "two");
    // As it is it goes, too.
    sql(&shop, "UPDATE apps SET created = 5");
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
    assert!(!shop.tolv(&["apps"]).contains("shop"));
}

#[test]
fn what_is_put_back_does_not_count() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let token = shop.tolv(&["tokens", "create", "--role", "admin"]).trim().to_owned();
    let own = [("TOLV_TOKEN", token.as_str())];
    let with_token =
        |shop: &Shop| run(shop.serve.command(&shop.dir, &["whoami"]).envs(own)).status.success();
    assert!(with_token(&shop));
    sql(
        &shop,
        "CREATE TABLE saved_tokens AS SELECT * FROM tokens; \
         CREATE TABLE saved_deploys AS SELECT * FROM deploys",
    );
    let listed = shop.json(&["tokens"]);
    let tokens = listed["items"].as_array().unwrap();
    let id = tokens.iter().find(|token| token["name"] != "owner").unwrap()["id"].clone();
    let id = id.as_str().unwrap();
    shop.tolv(&["tokens", "revoke", id]);
    shop.tolv(&["scale", "web=0"]);
    assert!(!with_token(&shop));
    shop.serve.end(Signal::INT);
    sql(
        &shop,
        &format!(
            "INSERT INTO tokens SELECT * FROM saved_tokens WHERE id = '{id}'; DELETE FROM deploys; \
             INSERT INTO deploys SELECT * FROM saved_deploys"
        ),
    );
    // An operation of somebody's own, with the code of none.
    sql(
        &shop,
        "UPDATE operations SET ended = NULL, state = 'queued' WHERE id = (SELECT MIN(id) FROM \
         operations)",
    );
    shop.serve.begin();
    let revoked = |line: &str| line.contains("was revoked, and put back into the database");
    shop.serve.running().wait_for_line(revoked, SOON);
    assert!(!with_token(&shop), "it stays revoked");
    let earlier =
        "the row of the deploy in the database is one of an earlier time that was put back";
    shop.serve.running().wait_for_line(|line| line.contains(earlier), SOON);
    assert_ne!(shop.get("shop.localhost", "/").unwrap().status, 200, "nothing of it starts");
    let began = Instant::now();
    loop {
        let lines = audited(&shop, "operation.forged");
        if let [line] = lines.as_slice() {
            assert_eq!(line["outcome"], "refused");
            break;
        }
        assert!(began.elapsed() < SOON, "{lines:?}");
    }
    does_not_hold(&shop, earlier);
    refused(&shop, &["restart"], earlier);
    shop.tolv(&["releases", "accept", "--confirm", "shop/production"]);
    until_text(&shop, "shop.localhost", "one");
    shop.serve.end(Signal::INT);
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "one");
    assert_eq!(audited(&shop, "operation.forged").len(), 1, "once");
}
