//! Config: what is set is what a process gets, byte for byte, and nobody reads a secret again.

use std::io::Write as _;
use std::process::Stdio;

use super::*;

/// Writes the bytes of one variable, in hex.
const SHOW: &str = "import os, sys\nprint(os.environb[sys.argv[1].encode()].hex())\n";

#[test]
fn values_are_bytes_and_pass_unchanged() {
    let shop = Shop::new("web: python3 server.py\nshow: python3 show.py BYTES; sleep 1000\n", &[]);
    shop.change("show.py", SHOW);
    let value: Vec<u8> = (1..=255).chain(*b"'\"$HOME`x`\\n #\n\n").collect();
    let mut set = shop.serve.command(&shop.dir, &["config", "set", "BYTES=-"]);
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    set.stdin.take().unwrap().write_all(&value).unwrap();
    assert!(set.wait().unwrap().success());
    shop.pushed(&["tolv", "main"]);
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    shop.serve.running().wait_for_line(|line| line.contains(&hex), SOON);
    let get = shop.serve.command(&shop.dir, &["config", "get", "BYTES"]).output().unwrap();
    assert_eq!(get.stdout.strip_suffix(b"\n").unwrap_or(&get.stdout), value);
}

#[test]
fn export_imports_again() {
    let shop = Shop::site("one", &[]);
    let tricky = "a \"b\" 'c' $HOME \\ # d\n-----BEGIN KEY-----\nxyz\n";
    shop.tolv(&["config", "set", &format!("KEY={tricky}"), "PLAIN=1"]);
    let exported = shop.tolv(&["config", "export"]);
    std::fs::write(shop.dir.join("saved.env"), &exported).unwrap();
    shop.tolv(&["config", "unset", "KEY", "PLAIN"]);
    assert!(!shop.tolv(&["config"]).contains("PLAIN"));
    shop.tolv(&["config", "import", "saved.env"]);
    assert_eq!(shop.tolv(&["config", "export"]), exported);
    assert!(shop.tolv(&["config", "get", "KEY"]).starts_with(tricky.trim_end()));
}

#[test]
fn a_secret_is_never_read_again() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.tolv(&["config", "set", "--secret", "API_KEY=s3cr3t-value"]);
    shop.pushed(&["tolv", "main"]);
    assert!(shop.text("shop.localhost", "/env").contains("API_KEY=s3cr3t-value"));
    let get = shop.ran(&["config", "get", "API_KEY"]);
    assert!(!get.status.success(), "{}", get.out);
    for args in [&["config"][..], &["config", "--values"], &["config", "export"], &["audit"]] {
        let ran = shop.ran(args);
        assert!(!format!("{}{}", ran.out, ran.err).contains("s3cr3t"), "{args:?}");
    }
    let value = "s3cr3t-value".as_bytes();
    for name in ["db.sqlite", "db.sqlite-wal"] {
        let bytes = std::fs::read(shop.serve.state().join(name)).unwrap_or_default();
        assert!(!bytes.windows(value.len()).any(|window| window == value), "{name}");
    }
    let lines = shop.serve.running().lines();
    assert!(!lines.iter().any(|line| line.text.contains("s3cr3t")));
}

#[test]
fn bad_names_and_values_are_refused_and_nothing_is_set() {
    let shop = Shop::site("one", &[]);
    let refused = |args: &[&str], wanted: &str| {
        let ran = shop.ran(&[&["config", "set"], args].concat());
        assert!(matches!(ran.status.code(), Some(1 | 2)), "{args:?}");
        assert!(ran.err.contains(wanted), "{args:?}: {}", ran.err);
    };
    refused(&["GOOD=1", "PORT=80"], "PORT");
    refused(&["GOOD=1", "TOLV_X=1"], "TOLV_X");
    refused(&["GOOD=1", "BAD-NAME=1"], "BAD-NAME");
    refused(&["GOOD=1", "1X=1"], "1X");
    let long = format!("LONG={}", "x".repeat(70_000));
    refused(&["GOOD=1", &long], "65536");
    assert!(!shop.tolv(&["config"]).contains("GOOD"));
}

#[test]
fn what_app_json_requires_is_asked_for_before_a_build() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change(
        "app.json",
        r#"{"env": {
            "MUST": {"description": "where the money goes"},
            "DEFAULT": "blue",
            "MAY": {"required": false},
            "SECRET_KEY": {"generator": "secret"}
        }}"#,
    );
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    assert!(ran.err.contains("`MUST`") && ran.err.contains("tolv config set MUST"), "{}", ran.err);
    assert!(!ran.err.contains("Slug"), "refused before the build: {}", ran.err);
    shop.tolv(&["config", "set", "MUST=here"]);
    shop.pushed(&["tolv", "main"]);
    let env = shop.text("shop.localhost", "/env");
    assert!(env.contains("MUST=here") && env.contains("DEFAULT=blue"), "{env}");
    assert!(!env.contains("MAY="));
    let secret = |env: &str| {
        let line = env.lines().find(|line| line.starts_with("SECRET_KEY=")).unwrap();
        assert_eq!(line.len(), "SECRET_KEY=".len() + 64, "{line}");
        line.to_owned()
    };
    let first = secret(&env);
    shop.change("x.txt", "x");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(secret(&shop.text("shop.localhost", "/env")), first, "made once");
}

#[test]
fn the_deploy_and_the_form_may_be_named_after_the_subcommand() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let elsewhere = shop.serve.folder("elsewhere");
    shop.serve.tolv(&elsewhere, &["config", "set", "A=1", "-d", "shop"]);
    shop.serve.tolv(&elsewhere, &["config", "-d", "shop/production", "set", "B=2"]);
    let url = shop.serve.url();
    let args = ["config", "get", "A", "--deploy", "shop", "--server", &url];
    assert_eq!(shop.serve.tolv(&elsewhere, &args).trim(), "1");
    let json = shop.serve.tolv(&elsewhere, &["releases", "info", "v2", "-d", "shop", "--json"]);
    let release: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(release["number"], 2, "{json}");
}
