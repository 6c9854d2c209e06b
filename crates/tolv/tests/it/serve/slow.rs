//! Clients of git over HTTP that are slow, silent, or not what they seem.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;

/// A request that arrives piece by piece.
pub(super) struct Slow(pub(super) TcpStream);

impl Slow {
    pub(super) fn begin(serve: &Serve, token: &str, path: &str, headers: &str) -> Self {
        let address = serve.url().strip_prefix("http://").unwrap().to_owned();
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    pub(super) fn send(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.0.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        self.0.write_all(piece)?;
        self.0.write_all(b"\r\n")
    }

    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        self.0.write_all(b"0\r\n\r\n")
    }

    /// Reads until this text has come; what came before it, too.
    pub(super) fn answer_with(&mut self, text: &str, within: Duration) -> String {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut answer = String::new();
        let mut piece = [0; 4096];
        while !answer.contains(text) {
            let read = self.0.read(&mut piece).unwrap_or_else(|error| panic!("{error}: {answer}"));
            assert_ne!(read, 0, "the connection ended without {text:?}: {answer}");
            answer += &String::from_utf8_lossy(&piece[..read]);
        }
        answer
    }

    /// Everything that comes until the connection ends.
    pub(super) fn answer(&mut self, within: Duration) -> String {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut answer = Vec::new();
        let ended = self.0.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(ended.is_ok() || !answer.is_empty(), "no answer within {within:?}: {ended:?}");
        answer
    }
}

pub(super) fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

/// The command that a push of one new ref begins with.
pub(super) fn new_ref(commit: &str, name: &str) -> String {
    let line = format!("{} {commit} {name}\0report-status side-band-64k", "0".repeat(40));
    format!("{}0000", packet(&line))
}

#[test]
fn slow_requests_of_one_token_leave_git_to_the_others() {
    let shop = Shop::site("one", &[]);
    let mut args = vec!["tokens", "create", "--role", "deploy", "--name", "owner"];
    let apps = ["greedy0", "greedy1", "greedy2", "greedy3"];
    for app in apps {
        shop.tolv(&["create", app, "--remote", app]);
        args.extend(["--app", app]);
    }
    let made = shop.tolv(&args);
    let token = made.split_whitespace().find(|word| word.starts_with("tolv_")).unwrap();
    let begin = |n: usize| {
        let path = format!("/git/{}/production.git/git-upload-pack", apps[n / 2 % apps.len()]);
        Slow::begin(&shop.serve, token, &path, "git-protocol: version=2\r\n")
    };
    let have = packet(&format!("have {}\n", "1".repeat(40)));
    let fetch = format!("{}0001{}", packet("command=fetch"), have.repeat(2000));
    // Half of them say next to nothing, the others enough for git to be started.
    let mut held: Vec<_> = (0..64)
        .map(|n| {
            let mut slow = begin(n);
            slow.send(if n % 2 == 0 { b"0" } else { fetch.as_bytes() }).unwrap();
            slow
        })
        .collect();
    let begun = Instant::now();
    shop.pushed(&["tolv", "main"]);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    // A push does not wait for who fetches, from its own app either.
    shop.pushed(&["greedy0", "main"]);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    // A byte now and then keeps no request alive.
    for slow in &mut held {
        slow.send(b"0").unwrap();
    }
    let answer = held[0].answer(Duration::from_secs(45));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("arrived too slowly"), "{answer}");
    let said: Vec<_> = held.iter_mut().skip(1).step_by(2).take(5).collect();
    let mut answers = said.into_iter().map(|slow| slow.answer(Duration::from_secs(45)));
    assert!(answers.any(|answer| answer.contains("ERR the request arrived too slowly")));
}

#[test]
fn the_cause_of_a_refused_body_reaches_the_client() {
    let shop = Shop::site("one", &[("TOLV_PUSH_MIB", "1")]);
    let path = "/git/shop/production.git/git-receive-pack";
    let commit = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    let mut gzip = Slow::begin(&shop.serve, shop.serve.token(), path, "content-encoding: gzip\r\n");
    gzip.send(b"this is no gzip").unwrap();
    gzip.finish().unwrap();
    let answer = gzip.answer(SOON);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("gzip"), "{answer}");
    // Broken after git was started.
    let packed = {
        let begin = format!("{}PACK\0\0\0\x02\0\0\0\x01", new_ref(&commit, "refs/heads/main"));
        let mut plain = begin.into_bytes();
        plain.extend(blob_of_zeros(1 << 20, 100 << 10));
        // One member of stored blocks that never ends well.
        let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        packed.extend(stored(&plain));
        packed.extend([0xff; 8]);
        packed
    };
    let mut gzip = Slow::begin(&shop.serve, shop.serve.token(), path, "content-encoding: gzip\r\n");
    gzip.send(&packed).unwrap();
    gzip.finish().unwrap();
    let answer = gzip.answer(Duration::from_secs(45));
    assert!(answer.contains("unpack the request cannot be read"), "{answer}");
    assert!(!answer.contains("abnormal exit"), "{answer}");
}

/// DEFLATE blocks that store bytes as they are.
pub(super) fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::new();
    for piece in bytes.chunks(60_000) {
        let length = u16::try_from(piece.len()).unwrap();
        blocks.push(0);
        blocks.extend(length.to_le_bytes());
        blocks.extend((!length).to_le_bytes());
        blocks.extend(piece);
    }
    blocks
}

/// The beginning of a blob in a pack: as many zeros of the size that it says, not compressed.
pub(super) fn blob_of_zeros(size: u64, sent: usize) -> Vec<u8> {
    let mut head = vec![0x30 | u8::try_from(size & 15).unwrap()];
    let mut rest = size >> 4;
    while rest > 0 {
        *head.last_mut().unwrap() |= 0x80;
        head.push(u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    head.extend([0x78, 0x01]);
    head.extend(stored(&vec![0; sent]));
    head
}

/// The socket of the push that is under way.
fn socket_of_a_push(serve: &Serve) -> PathBuf {
    let pushes = serve.state().join("git/pushes");
    poll(SOON, "the push has a socket", || {
        let mut entries = std::fs::read_dir(&pushes).ok()?.flatten();
        entries.find_map(|entry| Some(entry.path().join("socket")).filter(|path| path.exists()))
    })
}

#[test]
fn another_program_of_the_user_is_no_hook() {
    let shop = Shop::site("one", &[("TOLV_SANDBOX", "none")]);
    shop.pushed(&["tolv", "main"]);
    let released = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    let mut random = vec![0; 1 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    std::fs::write(shop.dir.join("random"), random).unwrap();
    let commit = shop.change("index.html", "two");
    std::fs::write(shop.dir.join("names"), format!("{commit}\n^{released}\n")).unwrap();
    let mut pack = Command::new("git");
    pack.args(["pack-objects", "--revs", "--stdout", "-q"]).current_dir(&shop.dir);
    let pack = pack.stdin(std::fs::File::open(shop.dir.join("names")).unwrap()).output().unwrap();
    assert!(pack.status.success() && pack.stdout.len() > 1 << 20);
    let path = "/git/shop/production.git/git-receive-pack";
    let mut push = Slow::begin(&shop.serve, shop.serve.token(), path, "");
    push.send(new_ref(&commit, "refs/heads/honest").as_bytes()).unwrap();
    push.send(&pack.stdout[..500_000]).unwrap();
    let socket = socket_of_a_push(&shop.serve);
    let mut silent = Vec::new();
    let ask = |name: &str| {
        let command = serde_json::json!({"name": name, "old": null, "new": released});
        serde_json::json!({"commands": [command], "options": []}).to_string() + "\n"
    };
    for n in 0..40 {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        if n % 2 == 0 {
            // Nobody answers; the connection may be closed already.
            stream.write_all(ask(&format!("refs/heads/forged{n}")).as_bytes()).ok();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok();
            assert_eq!(answer, "", "the platform took a stranger for the hook");
        } else {
            silent.push(stream);
        }
    }
    push.send(&pack.stdout[500_000..]).unwrap();
    push.finish().unwrap();
    let answer = push.answer(SOON);
    assert!(answer.contains("ok refs/heads/honest"), "{answer}");
    let mut ls = Command::new("git");
    ls.args(["ls-remote", "tolv"]).current_dir(&shop.dir);
    shop.serve.user(&mut ls);
    let refs = run(ls.env("TOLV_TOKEN", shop.serve.token()).env("TOLV_SERVER", shop.serve.url()));
    assert!(refs.out.contains("honest") && !refs.out.contains("forged"), "{}", refs.out);
}

#[test]
fn pushes_that_wait_for_their_operations_are_bounded() {
    let shop = Shop::new("web: python3 server.py\nrelease: python3 wait.py\n", &[]);
    shop.change("wait.py", "import time\ntime.sleep(600)\n");
    let mut waiting = Vec::new();
    for n in 0..8 {
        shop.tolv(&["deploys", "create", &format!("d{n}")]);
        let url = format!("{}/git/shop/d{n}.git", shop.serve.url());
        let mut command = push_command(&shop.serve, &shop.dir, &["--progress", &url, "main"]);
        let push = tolv_testkit::Tolv::start(&mut command);
        push.wait_for_line(|line| line.contains("-----> Operation"), SOON);
        waiting.push(push);
    }
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("Too many pushes wait for their operations"), "{}", ran.err);
    assert!(ran.err.contains("too many pushes are waiting"), "{}", ran.err);
    // The end of the platform is that of the pushes.
    drop(shop);
    for mut push in waiting {
        push.wait(SOON);
    }
}
