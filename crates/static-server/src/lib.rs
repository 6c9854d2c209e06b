//! Serves a folder of files over HTTP: the process behind the static builder.
//!
//! A server like any other app's: it binds what it is given, answers, and on shutdown finishes
//! the requests in flight. Routing, TLS, compression and access lines are the router's business;
//! of single requests nothing is logged.
//!
//! | request | answer |
//! |---|---|
//! | a file below the root | 200, in full or (one range of bytes) 206 |
//! | a folder, with a `/` at its end | its `index.html` |
//! | what a route or redirect of `static.json` is for, where there is no file | as it says |
//! | a folder with an `index.html`, without the `/` | 301 to the path with it |
//! | what the client has already (`If-None-Match`, `If-Modified-Since`) | 304 |
//! | anything else | 404, with `error_page` of `static.json` or `404.html` of the root if there is one |
//! | another method than GET and HEAD | 405 |
//!
//! # Invariants
//!
//! * Nothing outside the root is served, whatever the path says and wherever a symlink leads.
//! * Nothing whose name begins with a dot is served, but what is below `/.well-known`.
//! * Memory does not grow with the size of a file.
//! * Every answer may be kept but not used again without asking (`Cache-Control: no-cache`): the
//!   next deploy may have another file there. `static.json` may say otherwise.

#![warn(missing_docs)]

mod body;
mod conditions;
mod content_type;
mod site;
mod target;

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tolv_model::static_json::StaticJson;

use crate::site::Site;

/// For a request's head, and for the next request on a connection. Longer than the router keeps
/// a connection that has nothing to do, so that it is never this end that closes it.
const HEAD: Duration = Duration::from_secs(120);
/// For requests in flight at shutdown. Shorter than the time after which the platform kills.
const GRACE: Duration = Duration::from_secs(25);
/// Before the next try when the system is out of descriptors.
const PAUSE: Duration = Duration::from_millis(500);
/// The router lets 1000 headers through and adds its own.
const MOST_HEADERS: usize = 1100;

/// Serves the files below `root`, by these rules, until `shutdown`, and then until the requests in flight are
/// answered, for 25 seconds at most.
///
/// Writes one line on standard output when it begins.
///
/// # Errors
///
/// When `root` is no folder that can be read. What goes wrong with a connection or a file ends
/// that request, and never the server.
pub async fn serve(
    root: PathBuf,
    rules: StaticJson,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let site = Site::open(&root, rules).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot serve the folder `{}`: {error}", root.display()),
        )
    })?;
    let server = Server { site: Arc::new(site), stopped: watch::Sender::new(false) };
    writeln!(io::stdout(), "Serving {} on {}", root.display(), listener.local_addr()?).ok();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.start(stream, &mut connections),
                // The client is gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    writeln!(io::stderr(), "Cannot accept a connection: {error}").ok();
                    sleep(PAUSE).await;
                }
            },
        }
    }
    // What the kernel took in before is in flight too.
    while let Ok(Ok((stream, _))) = timeout(Duration::ZERO, listener.accept()).await {
        server.start(stream, &mut connections);
    }
    drop(listener);
    server.stopped.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    // What is left after that is cut off when the set is dropped.
    timeout(GRACE, finished).await.ok();
    Ok(())
}

struct Server {
    site: Arc<Site>,
    /// Tells the connections to close after the request they are at.
    stopped: watch::Sender<bool>,
}

impl Server {
    fn start(&self, stream: TcpStream, connections: &mut JoinSet<()>) {
        connections.spawn(connection(stream, Arc::clone(&self.site), self.stopped.subscribe()));
    }
}

/// Answers the requests of one connection. Cancelled, it cuts the connection off.
async fn connection(stream: TcpStream, site: Arc<Site>, mut stopped: watch::Receiver<bool>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| answer(Arc::clone(&site), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.half_close(true).max_headers(MOST_HEADERS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // An error here is a client that went away or does not speak HTTP: nobody to tell.
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|&stopped| stopped) => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}

/// Looks files up on a thread that may block.
async fn answer<B>(
    site: Arc<Site>,
    request: Request<B>,
) -> Result<Response<body::Body>, Infallible> {
    let (head, _) = request.into_parts();
    let answer = spawn_blocking(move || site.answer(&head.method, &head.uri, &head.headers));
    Ok(match answer.await {
        Ok(response) => response,
        Err(_) => site::plain(StatusCode::INTERNAL_SERVER_ERROR),
    })
}
