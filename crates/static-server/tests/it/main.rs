//! The file server over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod answers;
mod rules;
mod shutdown;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tolv_model::static_json::StaticJson;
use tolv_testkit::Home;
use tolv_testkit::http::{self, Response};

/// For everything that is to happen; never waited for where it does.
const LONG: Duration = Duration::from_secs(30);

/// A folder that is served until the value is dropped.
struct Site {
    /// The root is its folder `public`.
    home: Home,
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<std::io::Result<()>>,
}

impl Site {
    fn serve(home: Home) -> Self {
        Self::serve_by(home, StaticJson::default())
    }

    fn serve_by(home: Home, rules: StaticJson) -> Self {
        let root = home.path().join("public");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (shutdown, told) = oneshot::channel::<()>();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let told = async move { told.await.unwrap_or_default() };
                tolv_static_server::serve(root, rules, listener, told).await
            });
            end.send(served).ok();
        });
        Self { home, address, shutdown: Some(shutdown), ended }
    }

    fn get(&self, target: &str) -> Response {
        http::get(self.address, "site.localhost", target).unwrap()
    }

    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        http::send(self.address, method, target, headers, LONG).unwrap()
    }

    /// A connection on which this was sent.
    fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end of the server.
    fn ended(&self) {
        self.ended.recv_timeout(LONG).expect("the server ends").unwrap();
    }
}

/// Everything until the other end closes.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes of which no two pieces are the same.
fn big(length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(u32::to_be_bytes).collect()
}
