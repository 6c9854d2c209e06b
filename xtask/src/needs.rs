//! What the tests use beyond cargo, and where a Debian machine gets it.
//!
//! A tool is looked for by doing: a program that runs is there, whoever installed it.

use std::process::{Command, Stdio};

use crate::steps::{Failure, say};

/// One thing the tests use.
struct Need {
    what: &'static str,
    /// A command that succeeds where it is there.
    check: &'static [&'static str],
    packages: &'static [&'static str],
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        what: "git",
        check: &["git", "--version"],
        packages: &["git"],
        why: "codebases are read through it",
    },
    Need {
        what: "curl",
        check: &["curl", "--version"],
        packages: &["curl", "ca-certificates"],
        why: "tests make requests with it",
    },
    Need {
        what: "/usr/bin/python3",
        check: &["/usr/bin/python3", "--version"],
        packages: &["python3"],
        why: "apps in tests and examples: a sandbox sees this one, whatever PATH says",
    },
    Need {
        what: "python3's venv and pip",
        check: &["python3", "-c", "import venv, ensurepip"],
        packages: &["python3-venv"],
        why: "the tests' S3 server and the bench's peers are installed with them",
    },
    Need { what: "node", check: &["node", "--version"], packages: &["nodejs"], why: "Node apps" },
    Need { what: "npm", check: &["npm", "--version"], packages: &["npm"], why: "Node apps" },
    Need { what: "go", check: &["go", "version"], packages: &["golang-go"], why: "Go apps" },
    Need {
        what: "Ruby's Bundler and headers",
        check: &["sh", "-c", "bundle --version && ruby -rmkmf -e 0"],
        packages: &["ruby", "bundler", "ruby-dev", "make", "gcc"],
        why: "Ruby apps, and gems that are compiled",
    },
    Need {
        what: "/usr/bin/perl",
        check: &["/usr/bin/perl", "-v"],
        packages: &["perl-base"],
        why: "the polyglot example's worker",
    },
    Need {
        what: "setpriv",
        check: &["setpriv", "--version"],
        packages: &["util-linux"],
        why: "tests of what Tolv does without root",
    },
    Need {
        what: "/usr/sbin/nft",
        check: &["/usr/sbin/nft", "--version"],
        packages: &["nftables"],
        why: "networks of processes' own, which strict has by default",
    },
    Need {
        what: "ip",
        check: &["ip", "-V"],
        packages: &["iproute2"],
        why: "tests ask it for the machine's addresses",
    },
    Need {
        what: "strace",
        check: &["strace", "-V"],
        packages: &["strace"],
        why: "a test looks at what reaches the disk in which order",
    },
    Need {
        what: "PostgreSQL's initdb",
        check: &["sh", "-c", "ls /usr/lib/postgresql/*/bin/initdb"],
        packages: &["postgresql"],
        why: "the store's tests run on it too, each on a server of its own",
    },
    Need {
        what: "openssl",
        check: &["openssl", "version"],
        packages: &["openssl"],
        why: "certificates of receivers in tests",
    },
    Need {
        what: "rsyslogd",
        check: &["/usr/sbin/rsyslogd", "-v"],
        packages: &["rsyslog"],
        why: "tests send lines to it, each on a free port and with files of its own",
    },
    Need {
        what: "redis-server",
        check: &["redis-server", "--version"],
        packages: &["redis-server"],
        why: "the guestbook example's backing service, started by its tests on a free port",
    },
];

/// An S3 server, from PyPI, for the tests of blobs: moto's, and what it needs for S3 alone.
const MOTO: [&str; 3] = ["moto[s3]==5.2.1", "flask==3.1.3", "flask-cors==6.0.2"];

/// Whether a command runs and ends well.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Installs what is missing.
pub(crate) fn provide() -> Result<(), Failure> {
    components()?;
    let mut packages = Vec::new();
    for need in NEEDS {
        if !here(need) {
            say(&format!("  {} is missing ({})", need.what, need.why));
            packages.extend_from_slice(need.packages);
        }
    }
    install(&packages)?;
    match NEEDS.iter().find(|need| !here(need)) {
        None => moto(),
        Some(need) => Err(Failure(format!(
            "{} is still not there: `{}` fails after installing {}",
            need.what,
            need.check.join(" "),
            need.packages.join(" ")
        ))),
    }
}

fn here(need: &Need) -> bool {
    need.check.split_first().is_some_and(|(program, args)| succeeds(program, args))
}

/// Debian packages, as root or through sudo.
pub(crate) fn install(packages: &[&str]) -> Result<(), Failure> {
    if packages.is_empty() {
        return Ok(());
    }
    say(&format!("  installing the Debian packages {}", packages.join(" ")));
    if !succeeds("apt-get", &["--version"]) {
        return Err(Failure(format!(
            "this machine has no apt-get: install what Debian calls {} another way",
            packages.join(", ")
        )));
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if !root && !succeeds("sudo", &["--version"]) {
        return Err(Failure(format!(
            "neither root nor sudo; run as root: apt-get install {}",
            packages.join(" ")
        )));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new(if root { "env" } else { "sudo" });
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]).args(args);
        crate::run(&mut command)
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages].concat())
}

/// moto's server into an environment of its own, where the tests look for it.
fn moto() -> Result<(), Failure> {
    let venv = crate::root().join("target/needs/moto");
    let server = venv.join("bin/moto_server");
    // pip writes it last: an environment that was cut off has none.
    if server.exists() {
        return Ok(());
    }
    say("  moto's server is missing (an S3 server, for the tests of blobs)");
    crate::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    crate::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet"]).args(MOTO))?;
    match server.exists() {
        true => Ok(()),
        false => Err(Failure(format!("{} is still not there", server.display()))),
    }
}

/// The two parts of Rust that rustup's minimal profile leaves out.
fn components() -> Result<(), Failure> {
    for (component, program) in [("clippy", "cargo-clippy"), ("rustfmt", "cargo-fmt")] {
        if !succeeds(program, &["--version"]) {
            say(&format!("  {component} is missing"));
            crate::run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}
