//! The drill of `bench/`, in short: everything that is done to a platform, while it is used. Nothing
//! is refused, WebSockets end with a frame, and everything works afterwards.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

/// Answers requests on connections that stay, echoes what comes on WebSockets, and has a stream of
/// events at `/events`.
const APP: &str = r#"
import os, socket, threading, time
def exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
def echo(connection):
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    while True:
        first, length = exactly(connection, 2)
        mask = exactly(connection, 4)
        data = exactly(connection, length & 0x7f)
        data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
        connection.sendall(bytes([first, len(data)]) + data)
        if first == 0x88:
            return
def events(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    while True:
        connection.sendall(b"data: tick\n\n")
        time.sleep(0.05)
def serve(connection):
    try:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                head += exactly(connection, 1)
            lines = head.decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            if fields.get("upgrade") == "websocket":
                return echo(connection)
            if lines[0].startswith("GET /events"):
                return events(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
    except (EOFError, OSError):
        pass
    finally:
        connection.close()
listener = socket.create_server(("", int(os.environ["PORT"])), backlog=128)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// How long a stream of events is read, in lines, before another is asked for.
const STREAM_LINES: usize = 20;

/// Who uses the app meanwhile, and what became of it.
struct Use {
    port: u16,
    over: AtomicBool,
    answered: AtomicUsize,
    streamed: AtomicUsize,
    /// WebSockets that ended with a close frame.
    closed: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Use {
    fn of(shop: &Shop) -> Self {
        Self {
            port: shop.serve.http(),
            over: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            streamed: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            failed: Mutex::default(),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(BufReader::new(stream))
    }

    /// Does it again and again; an error is a request that failed.
    fn again(&self, what: &str, mut one: impl FnMut() -> io::Result<()>) {
        while !self.is_over() {
            if let Err(error) = one() {
                self.failed.lock().unwrap().push(format!("{what}: {error}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Requests on one connection for as long as that is open.
    fn kept(&self) {
        let mut kept = None;
        self.again("a kept connection", || {
            let is_kept = kept.is_some();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => self.connect()?,
            };
            match ask(&mut stream, "/", "") {
                Ok(()) => kept = Some(stream),
                // It was closed before the request was seen: every client asks on another one.
                Err(error) if is_kept && is_closed(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }

    /// Requests on connections of their own.
    fn fresh(&self) {
        self.again("a fresh connection", || {
            ask(&mut self.connect()?, "/", "Connection: close\r\n")?;
            self.answered.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }

    fn streams(&self) {
        self.again("a stream of events", || {
            let mut stream = self.connect()?;
            begin(&mut stream, "/events", "")?;
            head(&mut stream, "200")?;
            for _ in 0..STREAM_LINES {
                // Where its process goes, it ends.
                if line(&mut stream)?.is_empty() {
                    break;
                }
                self.streamed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }

    fn websockets(&self) {
        self.again("a WebSocket", || {
            let mut stream = self.connect()?;
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            begin(&mut stream, "/", upgrade)?;
            head(&mut stream, "101")?;
            stream.get_ref().set_read_timeout(Some(Duration::from_millis(50)))?;
            while !self.is_over() {
                match stream.get_ref().peek(&mut [0]) {
                    Err(error)
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) => return Err(error),
                    Ok(_) => {
                        stream.get_ref().set_read_timeout(Some(SOON))?;
                        let mut frame = [0; 2];
                        stream.read_exact(&mut frame)?;
                        if frame[0] != 0x88 {
                            return Err(io::Error::other(format!("no close frame: {frame:?}")));
                        }
                        let mut code = vec![0; frame[1].into()];
                        stream.read_exact(&mut code)?;
                        let answer = [&[0x88, 0x82, 0, 0, 0, 0][..], &code[..2]].concat();
                        stream.get_mut().write_all(&answer)?;
                        self.closed.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
    }
}

fn begin(stream: &mut BufReader<TcpStream>, target: &str, more: &str) -> io::Result<()> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: shop.localhost\r\n{more}\r\n");
    stream.get_mut().write_all(head.as_bytes())
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line)
}

/// Reads the head of an answer that has to have this status: its length, where it has one.
fn head(stream: &mut BufReader<TcpStream>, wanted: &str) -> io::Result<usize> {
    let status = line(stream)?;
    if status.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if status.split(' ').nth(1) != Some(wanted) {
        return Err(io::Error::other(status));
    }
    let mut length = 0;
    loop {
        let field = line(stream)?.to_ascii_lowercase();
        match field.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            Some(_) => {}
            None => return Ok(length),
        }
    }
}

fn ask(stream: &mut BufReader<TcpStream>, target: &str, more: &str) -> io::Result<()> {
    begin(stream, target, more)?;
    let mut body = vec![0; head(stream, "200")?];
    stream.read_exact(&mut body).map_err(io::Error::other)?;
    match body.as_slice() {
        b"ok\n" => Ok(()),
        _ => Err(io::Error::other(String::from_utf8_lossy(&body))),
    }
}

fn is_closed(error: &io::Error) -> bool {
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    kinds.contains(&error.kind())
}

#[test]
fn nothing_that_is_done_to_a_platform_fails_a_request() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", APP);
    shop.pushed(&["tolv", "main"]);
    let used = Use::of(&shop);
    thread::scope(|scope| {
        let over = Over(&used);
        scope.spawn(|| used.kept());
        scope.spawn(|| used.fresh());
        scope.spawn(|| used.streams());
        scope.spawn(|| used.websockets());
        for round in 0..2 {
            shop.change("round", &round.to_string());
            shop.pushed(&["tolv", "main"]);
            shop.tolv(&["config", "set", &format!("ROUND={round}")]);
            shop.tolv(&["restart"]);
            shop.tolv(&["rollback"]);
            // With a push on its way.
            shop.change("round", &format!("{round}, again"));
            let Shop { serve, dir } = &mut shop;
            let push = |serve: &Serve| {
                let ran = push_from(serve, dir, &["tolv", "main"]);
                assert!(ran.status.success(), "{}{}", ran.out, ran.err);
            };
            let status = serve.upgrade_with(push, |serve| {
                assert!(serve.tolv(dir, &["ps"]).contains("web.1"));
            });
            assert!(status.success(), "{status}");
        }
        drop(over);
    });
    let Use { answered, streamed, closed, failed, .. } = used;
    let count = |count: AtomicUsize| count.into_inner();
    let (answered, streamed, closed) = (count(answered), count(streamed), count(closed));
    let failed = failed.into_inner().unwrap();
    println!("{answered} requests, {streamed} events, {closed} WebSockets closed by a frame");
    assert_eq!(failed, Vec::<String>::new());
    assert!(answered > 200 && streamed > 100 && closed >= 8, "{answered} {streamed} {closed}");
    // Everything works: what changes, what runs, what is looked at.
    shop.tolv(&["config", "set", "LAST=1"]);
    assert_eq!(shop.tolv(&["run", "sh", "-c", "echo $LAST"]).trim(), "1");
    shop.tolv(&["releases", "verify"]);
    assert_eq!(shop.text("shop.localhost", "/"), "ok\n");
}

/// Ends the clients, also of a test that fails.
struct Over<'a>(&'a Use);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}
