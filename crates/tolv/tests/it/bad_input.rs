//! Each mistake: one clear error, the right exit code, nothing left running or half-written.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use tolv_testkit::Home;

use crate::{codebase, output, shop, stderr, tolv};

fn up(dir: &Path, args: &[&str]) -> Output {
    output(tolv().arg("up").arg(dir).args(["--listen", "127.0.0.1:0"]).args(args))
}

/// Ends with 1, and its error has each of these texts.
#[track_caller]
fn refused(ended: &Output, texts: &[&str]) {
    let said = stderr(ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("error:").count(), 1, "one error: {said}");
    for text in texts {
        assert!(said.contains(text), "`{text}` is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn nothing_that_can_be_built() {
    let home = Home::new();
    home.write("shop/readme.txt", "hello");
    refused(&up(&shop(&home), &[]), &["no builder fits", "Procfile", "hint:"]);
}

#[test]
fn no_folder_there() {
    let home = Home::new();
    refused(&up(&shop(&home), &[]), &["shop", "No such file"]);
    let file = home.write("file", "");
    refused(&up(&file, &[]), &["file", "Not a directory"]);
}

#[test]
fn a_procfile_error_is_shown_in_its_place() {
    let home = Home::new();
    home.write("shop/Procfile", "web: ./server\nworker ./work\nweb: ./again\n");
    refused(&up(&shop(&home), &[]), &["Procfile:2", "worker ./work"]);
}

#[test]
fn an_app_json_error_is_shown_in_its_place() {
    let home = codebase("web: python3 server.py\n");
    home.write("shop/app.json", "{\n  \"formation\": {\"web\": {\"quantity\": \"two\"}}\n}\n");
    refused(&up(&shop(&home), &[]), &["app.json:2", "quantity"]);
}

#[test]
fn an_env_file_error_is_shown_without_its_value() {
    let home = codebase("web: python3 server.py\n");
    home.write("shop/.env", "GOOD=1\nBAD NAME=topsecret\n");
    let ended = up(&shop(&home), &[]);
    refused(&ended, &[".env:2"]);
    assert!(!stderr(&ended).contains("topsecret"), "{}", stderr(&ended));
    let ended = up(&shop(&home), &["--env-file", "/no/such/file"]);
    refused(&ended, &["/no/such/file"]);
}

#[test]
fn a_command_that_does_not_exist() {
    let home = codebase("web: no-such-command --port $PORT\n");
    refused(&up(&shop(&home), &[]), &["web.1", "no-such-command", "hint:"]);
}

#[test]
fn a_process_type_that_does_not_exist() {
    let home = codebase("web: python3 server.py\n");
    refused(&up(&shop(&home), &["--formation", "wep=2"]), &["`wep`", "`web`"]);
}

#[test]
fn a_process_that_ends_at_once_gives_its_code() {
    let home = codebase("web: echo broken >&2; exit 42\n");
    let ended = up(&shop(&home), &[]);
    assert_eq!(ended.status.code(), Some(42), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("broken"), "the last lines: {}", stderr(&ended));
}

#[test]
fn an_address_that_is_taken() {
    let home = codebase("web: python3 server.py\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = output(tolv().arg("up").arg(shop(&home)).args(["--listen", &address]));
    refused(&ended, &[&address, "hint:"]);
}

#[test]
fn odd_paths_work() {
    for name in [&b"with blank"[..], b"quote'\"$HOME", b"not\xffutf8", b"-dash"] {
        let home = Home::new();
        let dir = home.path().join(OsStr::from_bytes(name));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("Procfile"), "web: cat 'a b'; exec python3 server.py\n").unwrap();
        fs::write(dir.join("server.py"), crate::SERVER).unwrap();
        fs::write(dir.join("a b"), "blank\n").unwrap();
        fs::write(dir.join(OsStr::from_bytes(b"odd\xfe")), "").unwrap();
        let mut command = tolv();
        command.arg("up").arg("--").arg(&dir);
        // `--` ends the options: the address goes in by its variable.
        command.env("TOLV_LISTEN", "127.0.0.1:0");
        let tolv = tolv_testkit::Tolv::start(&mut command);
        tolv.wait_for_line(|line| line.contains("is up at http://"), crate::SOON);
    }
}

#[test]
fn a_link_that_leaves_the_codebase() {
    let home = codebase("web: python3 server.py\n");
    std::os::unix::fs::symlink("/etc/passwd", shop(&home).join("passwords")).unwrap();
    refused(&up(&shop(&home), &[]), &["passwords", "/etc/passwd"]);
    fs::remove_file(shop(&home).join("passwords")).unwrap();
    std::os::unix::fs::symlink("server.py", shop(&home).join("inside.py")).unwrap();
    let ended = output(tolv().arg("build").arg(shop(&home)));
    assert!(ended.status.success(), "{}", stderr(&ended));
}

#[test]
fn a_file_that_is_too_large_is_named() {
    let home = codebase("web: python3 server.py\n");
    let huge = fs::File::create(shop(&home).join("huge.bin")).unwrap();
    huge.set_len((1 << 30) + 1).unwrap();
    refused(&up(&shop(&home), &[]), &["huge.bin", "1 GiB"]);
}

#[test]
fn a_file_that_cannot_be_read() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything; a pipe in the place of a file stands for it.
        let home = codebase("web: python3 server.py\n");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            shop(&home).join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        refused(&up(&shop(&home), &[]), &["pipe"]);
    }
    let home = codebase("web: python3 server.py\n");
    let locked = home.write("shop/locked", "x");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = crate::cli::as_nobody(&home);
    let state = home.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).ok();
    command.env("TOLV_HOME", state).arg("build").arg(shop(&home));
    refused(&output(&mut command), &["locked", "ermission denied"]);
}

#[test]
fn a_build_that_fails_repeats_its_last_lines() {
    let home = Home::new();
    home.write("shop/package.json", r#"{"name": "s", "version": "1.0.0", "scripts": {"build": "echo why; exit 9", "start": "node x.js"}}"#);
    home.write("shop/x.js", "");
    refused(&up(&shop(&home), &[]), &["exited with status", "why"]);
    let builds = fs::read_dir(shop(&home).join(".tolv/builds")).unwrap();
    assert!(!builds.flatten().any(|entry| entry.path().is_dir()), "a build folder is left");
}

#[test]
fn missing_locks_name_the_command_that_mends_them() {
    for (files, help) in [
        (
            &[
                (
                    "pyproject.toml",
                    "[project]\nname = \"s\"\nversion = \"1\"\ndependencies = [\"flask\"]\n",
                ),
                ("Procfile", "web: x\n"),
            ][..],
            "tolv lock",
        ),
        (
            &[
                (
                    "package.json",
                    r#"{"name": "s", "version": "1.0.0", "dependencies": {"left-pad": "1"}}"#,
                ),
                ("Procfile", "web: x\n"),
            ],
            "npm install",
        ),
        (
            &[
                ("Cargo.toml", "[package]\nname = \"s\"\nversion = \"1.0.0\"\n"),
                ("src/main.rs", "fn main() {}\n"),
            ],
            "cargo generate-lockfile",
        ),
        (
            &[
                ("go.mod", "module s\n\ngo 1.19\n\nrequire example.com/x v1.0.0\n"),
                ("main.go", "package main\nfunc main() {}\n"),
            ],
            "go mod tidy",
        ),
    ] {
        let home = Home::new();
        for (name, text) in files {
            home.write(&format!("shop/{name}"), text);
        }
        refused(&up(&shop(&home), &["--require-lock"]), &[help]);
    }
}

#[test]
fn a_manifest_or_a_lock_that_would_fill_the_memory_is_refused_before_it_is_parsed() {
    let zeros = |count: usize| "0,".repeat(count);
    let toml = format!("a=[{}]", zeros(2 << 20));
    let json = format!("{{\"a\":[{}0]}}", zeros(1 << 20));
    let deep = format!("a={}", "[".repeat(200_000));
    let lock = format!("a=[{}]", zeros(1 << 20));
    let project = "[project]\nname = \"a\"\nversion = \"1\"\n";
    let poetry = "[tool.poetry]\nname = \"a\"\nversion = \"1\"\n";
    let deep_json = format!("{{\"a\":{}", "[".repeat(200_000));
    let (lines, long) = ("a\n".repeat(1 << 20), "a".repeat(33 << 20));
    let state = Home::new();
    let cases = [
        ("pyproject.toml", &toml, vec![], "over the limit of 512 KiB"),
        ("pyproject.toml", &deep, vec![], "is not TOML"),
        ("package.json", &json, vec![], "over the limit of 512 KiB"),
        ("package.json", &deep_json, vec![], "is not JSON"),
        ("Cargo.toml", &toml, vec![("Cargo.lock", "")], "over the limit of 512 KiB"),
        ("go.mod", &toml, vec![("main.go", "package main")], "over the limit of 512 KiB"),
        ("static.json", &json, vec![("index.html", "")], "over the limit of 512 KiB"),
        ("uv.lock", &lock, vec![("pyproject.toml", project)], "over the limit of 500000 values"),
        ("poetry.lock", &lock, vec![("pyproject.toml", poetry)], "over the limit of 500000 values"),
        (
            "Pipfile.lock",
            &json,
            vec![("Pipfile", "[packages]\n")],
            "over the limit of 500000 values",
        ),
        ("requirements.txt", &lines, vec![], "over the limit of 500000 values"),
        ("yarn.lock", &long, vec![("package.json", "{}")], "over the limit of 32 MiB"),
    ];
    let refuse = |(file, text, others, part): (&str, &String, Vec<(&str, &str)>, &str)| {
        let home = codebase("web: python3 server.py\n");
        for (file, text) in others {
            home.write(&format!("shop/{file}"), text);
        }
        home.write(&format!("shop/{file}"), text);
        // Of the address space: what would fill the memory fails here.
        let mut command = std::process::Command::new("prlimit");
        command
            .arg("--data=900000000")
            .arg(env!("CARGO_BIN_EXE_tolv"))
            .arg("build")
            .arg(shop(&home));
        crate::clean(&mut command);
        // One for all: what is fetched is fetched once.
        command.env("TOLV_HOME", state.path());
        let ended = output(&mut command);
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(1), "{file}: {said}");
        assert!(said.contains(part), "{file}: `{part}` is not in: {said}");
    };
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| refuse(case));
        }
    });
}
