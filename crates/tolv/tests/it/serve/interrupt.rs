//! Ctrl-C in a command that waits for a platform: it ends, and what was asked for goes on.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;

use rustix::process::{Signal, kill_process_group};
use tolv_testkit::Tolv;

use super::*;

/// Waits until whoever listens at GATE lets go; without one it goes through.
pub(super) const PHASE: &str = "\
import os, socket
if 'GATE' in os.environ:
    host, port = os.environ['GATE'].split(':')
    gate = socket.create_connection((host, int(port)))
    print('phase begins', flush=True)
    gate.recv(1)
";

/// Runs a command until its release phase waits, and sends it SIGINT as Ctrl-C does; the operation
/// that it then says goes on.
#[track_caller]
fn interrupted(shop: &Shop, args: &[&str], kind: &str) -> String {
    // A group of its own: a terminal sends the signal to all of it.
    let mut ran = Tolv::start(shop.serve.command(&shop.dir, args).process_group(0));
    ran.wait_for_line(|line| line.contains("phase begins"), SOON);
    kill_process_group(ran.pid(), Signal::INT).unwrap();
    let status = ran.wait(SOON);
    let said: Vec<_> = ran.lines().into_iter().map(|line| line.text).collect();
    let said = said.join("\n");
    assert_eq!(status.code(), Some(130), "{args:?}: {said}");
    let error = format!("error: interrupted, but the {kind} of shop/production goes on");
    assert!(said.contains(&error), "{args:?}: {said}");
    let id = said.split("tolv operations show ").nth(1).and_then(|rest| rest.split(';').next());
    let id = id.unwrap_or_else(|| panic!("{args:?}: {said}")).to_owned();
    assert!(said.contains(&format!("tolv operations cancel {id}")), "{args:?}: {said}");
    assert_eq!(state(shop, &id), "running", "{args:?}");
    id
}

fn state(shop: &Shop, id: &str) -> String {
    let all = shop.json(&["operations"]);
    let mut all = all["items"].as_array().unwrap().iter();
    let own = all.find(|operation| operation["id"] == id).unwrap();
    own["state"].as_str().unwrap().to_owned()
}

#[test]
fn ctrl_c_leaves_an_operation_and_says_how_to_follow_and_end_it() {
    let gate = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = gate.local_addr().unwrap().to_string();
    let settings = [("TOLV_HOST_SERVICES", &*address)];
    let shop = Shop::new("web: python3 server.py\nrelease: python3 phase.py\n", &settings);
    shop.change("phase.py", PHASE);
    shop.pushed(&["tolv", "main"]);
    let set = format!("GATE={address}");
    let id = interrupted(&shop, &["config", "set", &set, "COLOR=blue"], "config");
    drop(gate.accept().unwrap());
    let shown = shop.ran(&["operations", "show", &id]);
    assert!(shown.status.success(), "{}{}", shown.out, shown.err);
    assert!(shop.text("shop.localhost", "/env").contains("COLOR=blue"));
    // `git push` in a deploy is a process of its own, which ends too.
    shop.change("more.txt", "more");
    let id = interrupted(&shop, &["deploy"], "deploy");
    assert_eq!(interrupted(&shop, &["operations", "show", &id], "deploy"), id);
    shop.tolv(&["operations", "cancel", &id]);
    poll(SOON, "it is cancelled", || (state(&shop, &id) == "cancelled").then_some(()));
    assert!(shop.tolv(&["releases", "verify"]).contains("holds"));
}
