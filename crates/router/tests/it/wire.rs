//! One end of a connection, and the processes that the router connects to.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tolv_router::{Backend, Dialer};

/// Longer than anything takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// What `future` gives, which comes soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {what} in vain"),
    }
}

/// One end of a connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// The start line and the fields of a message.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: String,
}

impl Head {
    /// The value of the field, which is there at most once.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let first = all.next();
        assert!(all.next().is_none(), "{name} twice in {self:?}");
        first.map(|(_, value)| &**value)
    }

    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(soon("a connection", TcpStream::connect(address)).await.unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Sends `bytes` as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("room to write", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends a head: `lines` with the line ends of HTTP, and the empty line.
    pub(crate) async fn send_head(&mut self, lines: &str) {
        self.send(format!("{}\r\n\r\n", lines.replace('\n', "\r\n"))).await;
    }

    /// A `GET` with the host that every test routes.
    pub(crate) async fn get(&mut self, path: &str) {
        self.send_head(&format!("GET {path} HTTP/1.1\nHost: shop.test")).await;
    }

    /// Waits for bytes to be there, and reads none.
    pub(crate) async fn until_readable(&mut self) {
        soon("bytes", self.stream.peek(&mut [0])).await.unwrap();
    }

    /// Answers a request with `body`.
    pub(crate) async fn answer(&mut self, body: &str) {
        let length = body.len();
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")).await;
    }

    /// What was read and not used.
    pub(crate) fn early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads more; `false` at the end.
    async fn fill(&mut self) -> std::io::Result<bool> {
        Ok(soon("a byte", self.stream.read_buf(&mut self.buffer)).await? > 0)
    }

    /// Reads a head.
    pub(crate) async fn head(&mut self) -> Head {
        let text = self.until("\r\n\r\n").await;
        let mut lines = text.trim_end().split("\r\n").map(str::to_owned);
        let line = lines.next().unwrap();
        let field = |line: String| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        Head { line, fields: lines.map(field).collect() }
    }

    /// Reads up to and with `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(start) = found {
                let rest = self.buffer.split_off(start + end.len());
                return String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap();
            }
            let more = self.fill().await.unwrap();
            assert!(more, "{end:?} never came, but {}", self.buffer.escape_ascii());
        }
    }

    /// Reads `count` bytes.
    pub(crate) async fn exact(&mut self, count: usize) -> String {
        String::from_utf8(self.bytes(count).await).unwrap()
    }

    /// Reads `count` bytes that need not be text.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let more = self.fill().await.unwrap();
            assert!(more, "{count} bytes never came, but {}", self.buffer.escape_ascii());
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads one chunk; empty at the body's end, with its trailers.
    pub(crate) async fn chunk(&mut self) -> String {
        let size = self.until("\r\n").await;
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        if size == 0 {
            return String::new();
        }
        let data = self.exact(size).await;
        assert_eq!(self.exact(2).await, "\r\n");
        data
    }

    /// Reads a chunked body and its trailers.
    pub(crate) async fn chunks(&mut self) -> (String, String) {
        let mut body = String::new();
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                break;
            }
            body.push_str(&chunk);
        }
        let mut trailers = String::new();
        loop {
            match &*self.until("\r\n").await {
                "\r\n" => return (body, trailers),
                line => trailers.push_str(line),
            }
        }
    }

    /// Reads an answer to anything but `HEAD`.
    pub(crate) async fn take(&mut self) -> Answer {
        let head = self.head().await;
        let status = head.status();
        let body = if matches!(status, 204 | 304) {
            String::new()
        } else if head.get("transfer-encoding").is_some() {
            self.chunks().await.0
        } else if let Some(length) = head.get("content-length") {
            let length = length.parse().unwrap();
            self.exact(length).await
        } else {
            self.rest().await
        };
        Answer { status, head, body }
    }

    /// Reads to an orderly end.
    pub(crate) async fn rest(&mut self) -> String {
        while self.fill().await.unwrap() {}
        String::from_utf8(std::mem::take(&mut self.buffer)).unwrap()
    }

    /// Reads to the end, which comes at once and in whatever way.
    pub(crate) async fn closed(&mut self) {
        let more = self.fill().await.unwrap_or(false);
        assert!(!more && self.buffer.is_empty(), "more came: {}", self.buffer.escape_ascii());
    }
}

/// A web process: a listener, whose connections the test serves itself.
pub(crate) struct App {
    listener: TcpListener,
    pub(crate) backend: Backend,
}

impl App {
    pub(crate) async fn new(process: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            listener,
            backend: Backend {
                process: process.parse().unwrap(),
                address,
                dialer: Dialer::direct(),
            },
        }
    }

    /// The router's next connection.
    pub(crate) async fn accept(&self) -> Wire {
        Wire::new(soon("the router", self.listener.accept()).await.unwrap().0)
    }

    /// Takes one connection, and one request on it.
    pub(crate) async fn request(&self) -> (Wire, Head) {
        let mut wire = self.accept().await;
        let head = wire.head().await;
        (wire, head)
    }
}

/// A process whose port is taken, but does not listen. Refuses as long as the socket lives.
pub(crate) fn deaf(process: &str) -> (TcpSocket, Backend) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, Backend { process: process.parse().unwrap(), address, dialer: Dialer::direct() })
}
