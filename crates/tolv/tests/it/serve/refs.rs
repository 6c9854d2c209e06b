//! Pushes of many refs: fast, shown, cancelled, cut off; and what git answers when it fails.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use tolv_testkit::Tolv;

use super::*;

/// The most refs of a push, and enough for some batches: the time that git takes on the side of who
/// pushes grows with their square.
const MOST: usize = 10_000;
const MANY: usize = 3000;
/// For one of so many, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs git on bytes at its standard input.
fn git_in(dir: &Path, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("git");
    command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes so many tags of the newest commit.
fn tag(shop: &Shop, from: usize, to: usize) {
    let head = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    let lines: String = (from..to).map(|n| format!("create refs/tags/v{n:05} {head}\n")).collect();
    git_in(&shop.dir, &["update-ref", "--stdin"], lines.as_bytes());
}

/// The tags that the platform has.
fn kept(shop: &Shop) -> BTreeSet<String> {
    let dir = shop.serve.state().join("git/shop.git");
    let own = "refs/namespaces/production/refs/tags/";
    let refs = git::git(&dir, &["for-each-ref", "--format=%(refname)", own]);
    refs.lines().filter_map(|name| name.strip_prefix(own)).map(str::to_owned).collect()
}

fn begin(shop: &Shop) -> Tolv {
    let words = ["--porcelain", "--progress", "tolv", "--tags"];
    Tolv::start(&mut push_command(&shop.serve, &shop.dir, &words))
}

/// The tags of which a push says that they are set, and of which it says why they are not.
fn told(push: &Tolv) -> (BTreeSet<String>, Vec<String>) {
    let lines = push.lines();
    let is_tag = |line: &&tolv_testkit::Line| line.text.contains("\trefs/tags/");
    let (mut set, mut refused) = (BTreeSet::new(), Vec::new());
    for line in lines.iter().filter(is_tag) {
        let mut parts = line.text.split('\t');
        let (flag, name, what) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        let name = name.rsplit('/').next().unwrap().to_owned();
        match flag {
            Some("*") => drop(set.insert(name)),
            _ => refused.push(what.to_owned()),
        }
    }
    (set, refused)
}

/// Waits until it has begun to set refs; its id among the operations.
fn until_begun(push: &Tolv) -> String {
    let line = push.wait_for_line(|line| line.contains("refs (tolv operations cancel"), PATIENCE);
    let (_, id) = line.text.split_once("cancel ").unwrap();
    id.split(' ').next().unwrap().to_owned()
}

/// A request of git's, sent as it is; the whole answer.
fn post(shop: &Shop, service: &str, body: &str) -> String {
    let address = shop.serve.url().strip_prefix("http://").unwrap().to_owned();
    let mut client = TcpStream::connect(&address).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let basic = STANDARD.encode(format!("tolv:{}", shop.serve.token()));
    write!(
        client,
        "POST /git/shop/production.git/{service} HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\nGit-Protocol: version=2\r\nAuthorization: Basic {basic}\r\n\
         Content-Type: application/x-{service}-request\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn thousands_of_tags_take_seconds_and_are_shown_meanwhile() {
    let shop = Shop::site("one", &[]);
    tag(&shop, 0, MANY);
    let mut push = begin(&shop);
    let id = until_begun(&push);
    let began = Instant::now();
    let newest = &shop.json(&["operations"])["items"][0];
    assert_eq!((&newest["id"], &newest["kind"]), (&id.as_str().into(), &"push".into()));
    assert!(push.wait(PATIENCE).success(), "{:?}", push.lines().last());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!((told(&push).0.len(), kept(&shop).len()), (MANY, MANY));
    let operations = shop.json(&["operations"]);
    assert_eq!(operations["items"].as_array().unwrap().len(), 0, "{operations}");
}

#[test]
fn more_refs_than_a_push_may_have_are_refused_at_once() {
    let shop = Shop::site("one", &[]);
    let (old, new) = ("0".repeat(40), "1".repeat(40));
    let line = |n| {
        let end = if n == 0 { "\0report-status side-band-64k" } else { "" };
        let text = format!("{old} {new} refs/tags/v{n}{end}");
        format!("{:04x}{text}", text.len() + 4)
    };
    let body: String = (0..=MOST).map(line).chain(["0000".to_owned()]).collect();
    let answer = post(&shop, "git-receive-pack", &body);
    assert!(answer.contains("unpack a push has at most 10000 refs"), "{answer}");
}

#[test]
fn a_push_of_many_refs_is_cancelled_and_says_which_are_set() {
    let shop = Shop::site("one", &[]);
    tag(&shop, 0, MANY);
    let mut push = begin(&shop);
    let id = until_begun(&push);
    let said = shop.tolv(&["operations", "cancel", &id]);
    assert!(said.contains("cancelled"), "{said}");
    assert!(!push.wait(SOON).success());
    let (set, refused) = told(&push);
    assert_eq!(set, kept(&shop));
    assert_eq!(set.len() + refused.len(), MANY);
    assert!(!refused.is_empty() && refused.iter().all(|why| why.contains("(cancelled)")));
}

#[test]
fn an_orderly_end_tells_each_ref_that_is_not_set() {
    let mut shop = Shop::site("one", &[]);
    tag(&shop, 0, MANY);
    let mut push = begin(&shop);
    until_begun(&push);
    let began = Instant::now();
    let status = shop.serve.end(Signal::TERM);
    let took = began.elapsed();
    assert!(status.success() && took < Duration::from_secs(10), "{status} {took:?}");
    assert!(!push.wait(SOON).success());
    let (set, refused) = told(&push);
    assert_eq!(set, kept(&shop));
    assert_eq!(set.len() + refused.len(), MANY);
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|why| why.contains("(the platform is stopping)")), "{refused:?}");
    shop.serve.begin();
    assert_eq!(set, kept(&shop));
}

#[test]
fn a_push_of_many_refs_goes_on_over_an_upgrade() {
    let mut shop = Shop::site("one", &[]);
    tag(&shop, 0, MANY);
    let mut push = begin(&shop);
    until_begun(&push);
    let status = shop.serve.upgrade(|_| {});
    assert!(status.success(), "{status}");
    assert!(push.wait(SOON).success(), "{:?}", push.lines().last());
    assert_eq!((told(&push).0.len(), kept(&shop).len()), (MANY, MANY));
}

#[test]
fn a_killed_platform_has_said_nothing_that_is_not_so() {
    let mut shop = Shop::site("one", &[]);
    tag(&shop, 0, MANY);
    for least in [0, 1000] {
        let mut push = begin(&shop);
        until_begun(&push);
        poll(PATIENCE, "some are set", || (kept(&shop).len() >= least).then_some(()));
        shop.serve.end(Signal::KILL);
        push.wait(SOON);
        let (set, kept_before) = (told(&push).0, kept(&shop));
        assert!(set.is_subset(&kept_before), "{} {}", set.len(), kept_before.len());
        shop.serve.begin();
        assert!(kept(&shop).is_superset(&kept_before));
    }
    shop.pushed(&["tolv", "--tags"]);
    assert_eq!(kept(&shop).len(), MANY);
}

#[test]
fn a_fetch_that_git_does_not_understand_is_told_why() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let head = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let body = [
        &line("command=fetch"),
        "0001",
        &line("filter blob:limit=0"),
        &line(&format!("want {head}")),
        &line("done"),
        "0000",
    ]
    .concat();
    let answer = post(&shop, "git-upload-pack", &body);
    assert!(answer.contains("200 OK"), "{answer}");
    assert!(answer.contains("ERR unexpected line: 'filter blob:limit=0'"), "{answer}");
}

#[test]
fn git_works_on_a_push_for_as_long_as_its_size_allows() {
    let shop = Shop::site("one", &[("TOLV_GIT_SECONDS", "1")]);
    // 200 MB of nothing each, in 200 KB.
    git::git(&shop.dir, &["config", "core.bigFileThreshold", "1m"]);
    let blob = |n: u64| {
        let large = shop.dir.join("large");
        std::fs::File::create(&large).unwrap().set_len((200 << 20) + n).unwrap();
        let blob = git::git(&shop.dir, &["hash-object", "-w", "large"]);
        std::fs::remove_file(&large).unwrap();
        format!("100644 blob {blob}\tf{n}\n")
    };
    let lines: String = (0..10).map(blob).collect();
    let tree = git_in(&shop.dir, &["mktree"], lines.as_bytes());
    let commit = git::git(&shop.dir, &["commit-tree", &tree, "-p", "HEAD", "-m", "hostile"]);
    let began = Instant::now();
    let ran = shop.push(&["tolv", &format!("{commit}:refs/heads/x")]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("as long as it may for"), "{}", ran.err);
    assert!(ran.err.contains("TOLV_GIT_SECONDS"), "{}", ran.err);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    shop.pushed(&["tolv", "main"]);
}
