//! A network and mounts of the test's own, in which its firewall may be flushed and its programs may
//! be broken, and an internet behind it.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Home, poll};

const NFT: &str = "/usr/sbin/nft";
/// The network namespace of whoever started this test on its own machine.
const OUTSIDE: &str = "TOLV_TEST_OUTSIDE";
const PATIENCE: Duration = Duration::from_secs(20);
/// What answers at a port of every address of the internet.
const ANSWER: &str = "\
import socket
s = socket.create_server(('::', 7), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
while True:
    c, _ = s.accept()
    c.close()
";

/// What this program, and every one that it starts, has for a machine.
#[derive(Debug)]
pub struct OwnMachine {
    home: Home,
    internet: Child,
}

impl OwnMachine {
    /// Where this machine itself has addresses that are not loopback.
    pub const ADDRESSES: [&str; 2] = ["10.99.0.1", "fd99::1"];
    /// Where the internet answers, at port 7.
    pub const INTERNET: [&str; 2] = ["10.99.0.2", "fd99::2"];

    /// Runs the test that this thread is named after once more, on such a machine: there it gives that,
    /// and here nothing. Nothing too where that needs root's powers or programs that are not here.
    ///
    /// # Panics
    ///
    /// When the test fails there, or the network cannot be made.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "what a test tells itself")]
    pub fn enter() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(NFT).exists() {
            return None;
        }
        let network = fs::read_link("/proc/self/ns/net").expect("a network namespace");
        let Some(outside) = std::env::var_os(OUTSIDE) else {
            let thread = std::thread::current();
            let ran = Command::new("unshare")
                .args(["--net", "--mount", "--propagation", "private", "--"])
                .arg(std::env::current_exe().expect("this program"))
                .args([
                    "--exact",
                    "--nocapture",
                    thread.name().expect("a test's thread has a name"),
                ])
                .env(OUTSIDE, network)
                .status()
                .expect("run unshare");
            assert!(ran.success(), "the test failed on its own machine");
            return None;
        };
        assert_ne!(outside, network, "the network of the test's own");
        let home = Home::new();
        fs::copy(NFT, home.path().join("nft")).expect("copy nft");
        sh(&["ip", "link", "set", "lo", "up"]);
        let mut internet = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"])
            .args(["python3", "-c", ANSWER])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the internet");
        let mut ready = [0; 5];
        let said = internet.stdout.as_mut().expect("it is piped");
        std::io::Read::read_exact(said, &mut ready).expect("the internet to listen");
        let pid = internet.id().to_string();
        sh(&["ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", &pid]);
        let inside = |words: &[&str]| {
            sh(&[&["nsenter", "--net", "--target", &pid, "ip"], words].concat());
        };
        inside(&["link", "set", "in0", "up"]);
        sh(&["ip", "link", "set", "out0", "up"]);
        for (ours, theirs) in Self::ADDRESSES.into_iter().zip(Self::INTERNET) {
            let bits = if ours.contains(':') { "64" } else { "24" };
            let nodad: &[&str] = if ours.contains(':') { &["nodad"] } else { &[] };
            let (ours, theirs_bits) = (format!("{ours}/{bits}"), format!("{theirs}/{bits}"));
            inside(&[&["addr", "add", &theirs_bits, "dev", "in0"], nodad].concat());
            sh(&[&["ip", "addr", "add", &ours, "dev", "out0"], nodad].concat());
            sh(&["ip", "route", "add", "default", "via", theirs]);
        }
        Some(Self { home, internet })
    }

    /// Those addresses.
    ///
    /// # Panics
    ///
    /// Never: they are addresses.
    pub fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
        texts.map(|text| text.parse().expect("an address"))
    }

    /// A program that is to be started on the internet.
    pub fn on_the_internet(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.internet.id().to_string(), program]);
        command
    }

    /// Gives the machine a copy of `/etc` that this test may change.
    ///
    /// # Panics
    ///
    /// When it cannot be mounted.
    pub fn own_etc(&self) {
        let layers = self.home.path().join("etc");
        fs::create_dir(&layers).expect("make a folder");
        let layers = layers.to_str().expect("a temp folder's name");
        // The state folder may lie on an overlay itself.
        sh(&["mount", "-t", "tmpfs", "tmpfs", layers]);
        sh(&["cp", "-a", "/etc/.", layers]);
        sh(&["mount", "--bind", layers, "/etc"]);
    }

    /// Runs nft, also where the machine's is broken.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn nft(&self, words: &[&str]) -> String {
        let program = self.home.path().join("nft");
        let program = program.to_str().expect("a temp folder's name");
        sh(&[&[program], words].concat())
    }

    /// Puts a shell script in the place of the machine's nft, until [`OwnMachine::mend_nft`]; an empty
    /// one cannot be started.
    ///
    /// # Panics
    ///
    /// When it cannot be.
    pub fn break_nft(&self, script: &str) {
        let file: PathBuf = self.home.path().join("broken");
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("write a script");
        let mode = if script.is_empty() { 0o644 } else { 0o755 };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("make it a program");
        sh(&["mount", "--bind", file.to_str().expect("a temp folder's name"), NFT]);
    }

    /// Lets the machine's nft wait for so many seconds each time before it does what it is to, until
    /// [`OwnMachine::mend_nft`].
    ///
    /// # Panics
    ///
    /// When it cannot be.
    pub fn slow_nft(&self, seconds: &str) {
        let program = self.home.path().join("nft");
        self.break_nft(&format!("sleep {seconds}\n{} \"$@\"", program.display()));
    }

    /// Gives the machine its nft back.
    ///
    /// # Panics
    ///
    /// When it cannot be.
    pub fn mend_nft(&self) {
        // One that still runs may hold it.
        sh(&["umount", "--lazy", NFT]);
    }

    /// The ends of apps' networks on this machine, and whether each is up.
    ///
    /// # Panics
    ///
    /// When they cannot be listed.
    pub fn ends(&self) -> Vec<(String, bool)> {
        let listed = sh(&["ip", "-o", "link"]);
        let end = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let (name, flags) = (words.next()?, words.next()?);
            let name = name.split('@').next()?;
            name.starts_with("tv")
                .then(|| (name.to_owned(), flags.contains(",UP") || flags.contains("<UP")))
        };
        listed.lines().filter_map(end).collect()
    }

    /// Waits until all of at least so many ends are up, or none is.
    ///
    /// # Panics
    ///
    /// When that does not come.
    #[track_caller]
    pub fn wait_for_ends(&self, at_least: usize, are_up: bool) {
        let what = if are_up { "the ends to be open" } else { "the ends to be shut" };
        poll(PATIENCE, what, || {
            let ends = self.ends();
            (ends.len() >= at_least && ends.iter().all(|(_, is_up)| *is_up == are_up)).then_some(())
        });
    }
}

impl Drop for OwnMachine {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.internet.kill().ok();
        self.internet.wait().ok();
    }
}

#[track_caller]
fn sh(words: &[&str]) -> String {
    let ran = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let ran = ran.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
