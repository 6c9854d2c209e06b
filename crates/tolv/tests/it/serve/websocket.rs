//! WebSockets are closed by a frame, whatever ends them.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use rustix::process::Signal;

use super::*;

/// Echoes messages, and says by which code a WebSocket was closed.
const ECHO: &str = r#"
import base64, hashlib, os, socket, threading
def exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
def serve(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        head += exactly(connection, 1)
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    if fields.get("upgrade") != "websocket":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        return connection.close()
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    while True:
        first, length = exactly(connection, 2)
        assert length & 0x80, "not masked"
        mask = exactly(connection, 4)
        data = exactly(connection, length & 0x7f)
        data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
        if first == 0x88:
            # Before the answer: with it, nothing is left to wait for.
            print("closed", int.from_bytes(data[:2], "big"), data[2:].decode(), flush=True)
        connection.sendall(bytes([first, len(data)]) + data)
        if first == 0x88:
            return connection.close()
listener = socket.create_server(("", int(os.environ["PORT"])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A client of the app, and its WebSocket.
struct Client(TcpStream);

impl Client {
    /// Connects, and has heard its echo.
    fn connect(shop: &Shop) -> Self {
        let mut client = Self(TcpStream::connect(("127.0.0.1", shop.serve.http())).unwrap());
        client.0.set_read_timeout(Some(SOON)).unwrap();
        let head = "GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.0.write_all(head.as_bytes()).unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            got.extend(client.exactly(1).unwrap());
        }
        assert!(got.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&got));
        client.send(0x81, b"hello").unwrap();
        assert_eq!(client.frame().unwrap(), (0x81, b"hello".to_vec()));
        client
    }

    fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        self.0.write_all(&[&[first, length, 0, 0, 0, 0], payload].concat())
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let head = self.exactly(2)?;
        Ok((head[0], self.exactly(head[1].into())?))
    }

    /// Waits for a close frame, answers it, and waits for the connection's end: the code.
    fn closed(mut self) -> JoinHandle<u16> {
        thread::spawn(move || {
            let (first, payload) = self.frame().unwrap();
            assert_eq!(first, 0x88, "no close frame: {payload:?}");
            self.send(0x88, &payload).unwrap();
            assert_eq!(self.0.read(&mut [0]).unwrap(), 0, "more than a close frame");
            u16::from_be_bytes([payload[0], payload[1]])
        })
    }
}

#[test]
fn a_websocket_is_closed_by_a_frame_at_a_deploy_an_upgrade_and_a_stop() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", ECHO);
    shop.pushed(&["tolv", "main"]);
    let said = |shop: &Shop, count: usize, code: &str| {
        poll(SOON, "the app to hear of it", || {
            let log = shop.tolv(&["logs", "-p", "web", "--source", "app"]);
            (log.matches(&format!(": closed {code}")).count() == count).then_some(())
        });
    };

    let closed = Client::connect(&shop).closed();
    shop.change("server.py", &format!("{ECHO}# again\n"));
    shop.pushed(&["tolv", "main"]);
    assert_eq!(closed.join().unwrap(), 1012);
    said(&shop, 1, "1012 service restart");

    let closed = Client::connect(&shop).closed();
    let status = shop.serve.upgrade(|_| {});
    assert!(status.success(), "{status}");
    assert_eq!(closed.join().unwrap(), 1012);
    said(&shop, 2, "1012 service restart");

    let closed = Client::connect(&shop).closed();
    let began = std::time::Instant::now();
    assert!(shop.serve.end(Signal::TERM).success());
    assert_eq!(closed.join().unwrap(), 1001);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_websocket_hears_whether_its_process_is_replaced_or_goes_away() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", ECHO);
    shop.pushed(&["tolv", "main"]);
    let all: [(&[&str], u16); 6] = [
        (&["restart"], 1012),
        (&["scale", "web=0"], 1001),
        (&["scale", "web=1"], 0),
        (&["stop"], 1001),
        (&["start"], 0),
        (&["destroy", "shop/production", "--confirm", "shop/production"], 1001),
    ];
    for (words, code) in all {
        if code == 0 {
            shop.tolv(words);
            continue;
        }
        let closed = Client::connect(&shop).closed();
        shop.tolv(words);
        assert_eq!(closed.join().unwrap(), code, "{words:?}");
    }
}

#[test]
fn a_websocket_is_closed_by_a_frame_where_its_app_is_destroyed() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", ECHO);
    shop.pushed(&["tolv", "main"]);
    let closed = Client::connect(&shop).closed();
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
    assert_eq!(closed.join().unwrap(), 1001);
}
