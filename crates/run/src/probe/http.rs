//! The little HTTP that a probe needs. What answers is the app: nothing here believes it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

/// Most bytes of an answer that are looked at.
const MOST: usize = 1 << 20;
/// For the rest of an answer that is not looked at, so that the app does not see a broken pipe.
const REST: Duration = Duration::from_millis(50);

/// Whether what is at the other end speaks HTTP.
pub(super) async fn answers(stream: TcpStream, address: SocketAddr) -> Result<(), String> {
    let request = Request { path: "/", headers: &[], content: None };
    let mut stream = request.ask(stream, address).await?;
    let mut start = Vec::new();
    while start.len() < 5 {
        if stream.read_buf(&mut start).await.map_err(|error| error.to_string())? == 0 {
            return Err("closed without an answer".to_owned());
        }
    }
    if !start.starts_with(b"HTTP/") {
        return Err("the answer is not HTTP".to_owned());
    }
    rest(stream).await;
    Ok(())
}

/// What a check asks.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) path: &'a str,
    pub(super) headers: &'a [(String, String)],
    pub(super) content: Option<&'a str>,
}

impl Request<'_> {
    /// Asks, and judges the answer.
    pub(super) async fn send(self, stream: TcpStream, address: SocketAddr) -> Result<(), String> {
        let mut stream = self.ask(stream, address).await?;
        let mut answer = Vec::new();
        let status = loop {
            if let Some(status) = status(&answer) {
                break status?;
            }
            if stream.read_buf(&mut answer).await.map_err(|error| error.to_string())? == 0 {
                return Err("closed without an answer".to_owned());
            }
        };
        if !(200..400).contains(&status) {
            rest(stream).await;
            return Err(format!("status {status}"));
        }
        let Some(content) = self.content else {
            rest(stream).await;
            return Ok(());
        };
        stream
            .take(MOST as u64)
            .read_to_end(&mut answer)
            .await
            .map_err(|error| error.to_string())?;
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
        let body = String::from_utf8_lossy(&answer[body..]);
        body.contains(content).then_some(()).ok_or_else(|| "the text is not in the body".to_owned())
    }

    async fn ask(self, mut stream: TcpStream, address: SocketAddr) -> Result<TcpStream, String> {
        stream.write_all(&self.to_bytes(address)).await.map_err(|error| error.to_string())?;
        Ok(stream)
    }

    /// A body whose text is looked at must come unchunked: HTTP/1.0 asks for that.
    fn to_bytes(self, address: SocketAddr) -> Vec<u8> {
        let version = if self.content.is_some() { "1.0" } else { "1.1" };
        let mut text = format!("GET {} HTTP/{version}\r\n", clean(self.path));
        let given = |name: &str| self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        let own = [
            ("Host", format!("localhost:{}", address.port())),
            ("User-Agent", "tolv".to_owned()),
            ("Accept", "*/*".to_owned()),
        ];
        let own =
            own.iter().filter(|(name, _)| !given(name)).map(|(name, value)| (*name, &**value));
        let theirs = self.headers.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in own.chain(theirs).chain([("Connection", "close")]) {
            text.extend([&clean(name), ": ", &clean(value), "\r\n"]);
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Without what would begin another line.
fn clean(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// The status, once the first bytes have come; an error where they are not HTTP.
fn status(answer: &[u8]) -> Option<Result<u16, String>> {
    let start = answer.get(..13)?;
    let number = start.strip_prefix(b"HTTP/1.").and_then(|rest| {
        let digits = rest.get(2..5).filter(|_| rest[1] == b' ')?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    });
    Some(number.ok_or_else(|| "the answer is not HTTP".to_owned()))
}

async fn rest(mut stream: TcpStream) {
    let read = async {
        let mut buffer = [0; 8192];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    timeout(REST, read).await.ok();
}

#[cfg(test)]
mod tests;
