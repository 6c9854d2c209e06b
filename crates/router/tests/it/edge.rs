//! A router that listens, and its access lines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tolv_router::{AccessLine, Backend, Route, Router, Settings, State, Table, TimeOuts};

use crate::wire::{App, Wire, soon};

/// Short enough to wait for, in tests of what happens when time is over.
pub(crate) const SHORT: Duration = Duration::from_millis(40);

pub(crate) struct Edge {
    pub(crate) router: Router,
    pub(crate) address: SocketAddr,
    lines: mpsc::UnboundedReceiver<AccessLine>,
    pub(crate) tasks: JoinSet<()>,
}

impl Edge {
    /// A router with `settings` that routes `shop.test` to `backends`.
    pub(crate) async fn with(settings: Settings, state: State, backends: &[&Backend]) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let on_line = move |line| drop(sender.send(line));
        let router = Router::new(settings, Arc::new(on_line));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let serving = router.clone();
        tasks.spawn(async move { serving.serve(listener).await });
        let edge = Self { router, address, lines, tasks };
        edge.route(state, backends);
        edge
    }

    /// A router with the contract's settings, in front of one process.
    pub(crate) async fn before(app: &App) -> Self {
        Self::with(Settings::default(), State::Up, &[&app.backend]).await
    }

    /// Routes `shop.test` anew.
    pub(crate) fn route(&self, state: State, backends: &[&Backend]) {
        let backends = backends.iter().map(|&backend| backend.clone()).collect();
        let mut table = Table::new();
        table.insert("shop.test", Route::new(state, backends));
        self.router.set_table(&table);
    }

    pub(crate) async fn client(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Resolves when the router has taken in all that was sent to it.
    ///
    /// Requests are taken in the order they come: once the last one is answered, all are.
    pub(crate) async fn settled(&mut self) {
        let mut probe = self.client().await;
        probe.send_head("GET /probe HTTP/1.1\nHost: other.test").await;
        assert_eq!(probe.take().await.status, 421);
        let line = self.line().await;
        assert_eq!(line.path, b"/probe", "{line}");
    }

    /// The next access line.
    pub(crate) async fn line(&mut self) -> AccessLine {
        soon("an access line", self.lines.recv()).await.unwrap()
    }

    /// The next access line, whose text starts with `at=error code=<code>`, and its status.
    pub(crate) async fn failure(&mut self, code: &str, status: u16) -> AccessLine {
        let line = self.line().await;
        let text = line.to_string();
        assert!(text.starts_with(&format!("at=error code={code} ")), "{text}");
        assert_eq!(line.status, status, "{text}");
        line
    }

    /// The next access line, of a request that went well.
    pub(crate) async fn success(&mut self, status: u16) -> AccessLine {
        let line = self.line().await;
        assert_eq!((line.code, line.status), (None, status), "{line}");
        line
    }

    /// No access line was written that nobody asked for.
    pub(crate) fn no_line(&mut self) {
        if let Ok(line) = self.lines.try_recv() {
            panic!("not expected: {line}");
        }
    }
}

/// The contract's settings, with these time-outs.
pub(crate) fn timed(change: impl FnOnce(&mut TimeOuts)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings.time_outs);
    settings
}
