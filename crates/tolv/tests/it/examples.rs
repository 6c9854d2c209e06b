//! The examples: each comes up as it stands and answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tolv_testkit::{Home, free_port, http, poll};

use crate::{LATER, SOON, Up, tolv};

/// A copy of an example, so that its state folder is the test's own.
fn example(home: &Home, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let to = home.path().join(name);
    copy(&from, &to);
    to
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let name = entry.file_name();
        if name == ".tolv" || name == "target" || name == "node_modules" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(&name));
        } else {
            fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}

fn start(dir: &Path) -> Up {
    Up::start_with(tolv().arg("up").arg(dir), LATER)
}

#[test]
fn hello_node() {
    let home = Home::new();
    let up = start(&example(&home, "hello-node"));
    assert!(up.text("/").contains("Hello"));
}

#[test]
fn hello_rust() {
    let home = Home::new();
    let up = start(&example(&home, "hello-rust"));
    assert!(up.text("/").contains("Hello"));
}

#[test]
fn hello_static() {
    let home = Home::new();
    let up = start(&example(&home, "hello-static"));
    assert!(up.text("/").contains("<html") || up.text("/").contains("<!doctype"));
    assert_eq!(up.get("/no-such-page").unwrap().status, 404);
}

#[test]
fn polyglot() {
    let home = Home::new();
    let up = start(&example(&home, "polyglot"));
    assert!(up.text("/").contains("Hello"));
    up.sees("app[worker.1]: ");
}

#[test]
fn guestbook_without_a_store_says_so_on_the_page() {
    let home = Home::new();
    let up = start(&example(&home, "guestbook"));
    assert!(up.text("/").contains("REDIS_URL"));
}

/// A Redis of the test's own.
struct Redis(Child);

impl Redis {
    fn start(home: &Home, port: u16) -> Self {
        let dir = home.path().join("redis");
        fs::create_dir(&dir).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self(child);
        poll(SOON, "Redis to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn guestbook_keeps_its_entries_in_a_backing_service() {
    let home = Home::new();
    let dir = example(&home, "guestbook");
    let port = free_port();
    let _redis = Redis::start(&home, port);
    fs::write(dir.join(".env"), format!("REDIS_URL=redis://127.0.0.1:{port}/0\n")).unwrap();
    let up = start(&dir);
    assert!(!up.text("/").contains("REDIS_URL"));
    let body = "name=Ada&text=Hello+there";
    let ended = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-d", body])
        .arg(format!("http://{}/", up.address))
        .output()
        .unwrap();
    let status = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(status == "302" || status == "303", "{status}");
    poll(SOON, "the entry on the page", || up.text("/").contains("Hello there").then_some(()));
    poll(SOON, "the worker to have counted it", || {
        up.text("/")
            .contains("1 entries")
            .then_some(())
            .or_else(|| up.text("/").contains("1 entry").then_some(()))
    });
    drop(up);
    // Another life of the app, the same entries: nothing was kept in a process or on a disk.
    let up = start(&dir);
    assert!(up.text("/").contains("Hello there"));
}

#[test]
fn ctrl_c_under_load_loses_no_request_of_guestbook() {
    let home = Home::new();
    let mut up = start(&example(&home, "guestbook"));
    let (address, host) = (up.address, up.host.clone());
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let host = host.clone();
            std::thread::spawn(move || {
                let mut answered = 0;
                loop {
                    let headers = [("Host", host.as_str())];
                    match http::send(address, "GET", "/", &headers, Duration::from_secs(20)) {
                        Ok(response) if response.status == 200 => answered += 1,
                        // The listener is closed: nobody took the request.
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                            return Ok(answered);
                        }
                        other => return Err(format!("after {answered}: {other:?}")),
                    }
                }
            })
        })
        .collect();
    poll(SOON, "the load to run", || {
        let lines = up.tolv.lines();
        (lines.iter().filter(|line| line.text.contains("tolv[router]")).count() > 200).then_some(())
    });
    up.tolv.signal(rustix::process::Signal::INT);
    for thread in asking {
        assert!(thread.join().unwrap().unwrap() > 10);
    }
    assert_eq!(up.tolv.wait(SOON).code(), Some(130));
}
