//! The HTTP API under `/v1`, its OpenAPI document, and git over HTTP under `/git`.
//!
//! Handlers parse names, ask the token what it allows, call one use case of the platform, and turn
//! the answer into wire types. Whatever writes runs to its end, also when the client is gone.
//! Every act, and every read of a config value, is in the audit log.
//!
//! ```text
//!  request ─▶ finish writes, idempotency ─▶ token ─▶ may it? ─▶ audit ─▶ platform
//! ```

#![warn(missing_docs)]

mod apps;
mod auth;
mod concurrency;
mod config;
mod convert;
mod cron;
mod deploys;
mod drains;
mod error;
mod events;
mod extract;
mod git;
mod listen;
mod logs;
mod metrics;
mod observer;
mod openapi;
mod operations;
mod origin;
mod outcome;
mod platform;
mod runs;
mod tokens;
mod whole;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use axum::serve::Listener;
use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tolv_api::local;
use tolv_model::access::{Grant, Role};
use tolv_model::id::TokenId;
use tolv_model::name::AppName;
use tolv_model::shortage::Shortage;
use tolv_model::slug::Digest;
use tolv_platform::{Error, Platform, new_token_text, token_hash};
use tolv_store::Token;

pub use listen::{Peer, PeerAddress};
pub use openapi::document;

/// Most bytes of a JSON body.
const BODY: usize = 1 << 20;

/// For those on the socket in the state folder.
const HOME_GRACE: Duration = Duration::from_secs(1);
/// Fewest letters of a token's text.
const MIN_TOKEN: usize = 32;

/// What handlers share.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    platform: Platform,
    /// Where this is reached: `http://127.0.0.1:1212`.
    url: String,
    /// What goes on when its client is gone.
    tasks: TaskTracker,
    /// Streams end.
    ending: CancellationToken,
    /// No connection is taken any more, and the requests that had begun are answered.
    answered: CancellationToken,
    /// The one user of a codebase's platform.
    local: Option<Local>,
    /// What the token in the state folder of a `tolv serve` is hashed to.
    home_token: OnceLock<Digest>,
    known_tokens: observer::KnownTokens,
    requests: Arc<concurrency::Requests>,
    /// Takes faults of the platform's own.
    on_fault: Box<dyn Fn(String) + Send + Sync>,
}

/// The user of a `tolv up`: whoever can read the token in its state folder.
struct Local {
    /// As it is written there.
    text: String,
    hash: Digest,
    /// As whom that one acts.
    user: Token,
}

impl Local {
    fn new(app: AppName) -> Result<Self, Error> {
        let text = new_token_text()?;
        let user = Token {
            id: TokenId::new(Timestamp::now(), 0),
            name: "local".to_owned(),
            grant: Grant { role: Role::Admin, apps: app.into() },
            created: Timestamp::now(),
            expires: None,
        };
        Ok(Self { hash: token_hash(&text), text, user })
    }
}

/// The server of one platform.
#[derive(Clone)]
pub struct Server(Shared);

impl Server {
    /// A server that is reached at `url`. That of a codebase knows one token, which
    /// [`Server::listen_at_home`] writes into the state folder. Faults of the platform's own, which
    /// clients are not told, go to `on_fault`.
    ///
    /// # Errors
    ///
    /// The system has no random bytes.
    pub fn new(
        platform: Platform,
        url: String,
        on_fault: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        // Of a codebase there is one deploy, and its user may do everything to it.
        let app = platform.codebase().map(|codebase| codebase.deploy().app.clone());
        let local = app.map(Local::new).transpose()?;
        Ok(Self(Shared(Arc::new(Inner {
            platform,
            url,
            local,
            home_token: OnceLock::new(),
            known_tokens: observer::KnownTokens::default(),
            requests: Arc::new(concurrency::Requests::new(tolv_platform::api_connections())),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            answered: CancellationToken::new(),
            on_fault: Box::new(on_fault),
        }))))
    }

    /// Every address there is.
    pub fn router(&self) -> Router {
        let shared = self.0.clone();
        let v1 = Router::new()
            .route("/", get(openapi::about))
            .route("/openapi.json", get(openapi::serve))
            .route("/platform", get(platform::status))
            .route("/whoami", get(tokens::whoami))
            .route("/apps", get(apps::list).post(apps::create))
            .route("/apps/{app}", get(apps::show).delete(apps::destroy))
            .route("/apps/{app}/buildpacks", get(apps::buildpacks).put(apps::set_buildpacks))
            .route("/apps/{app}/deploys", get(deploys::list).post(deploys::create))
            .route("/apps/{app}/deploys/{deploy}", get(deploys::show).delete(deploys::destroy))
            .route("/apps/{app}/deploys/{deploy}/releases", get(deploys::releases))
            .route("/apps/{app}/deploys/{deploy}/releases/verify", get(deploys::verify))
            .route("/apps/{app}/deploys/{deploy}/releases/accept", post(deploys::accept))
            .route("/apps/{app}/deploys/{deploy}/releases/{number}", get(deploys::release))
            .route(
                "/apps/{app}/deploys/{deploy}/operations",
                get(operations::list).post(operations::create),
            )
            .route("/apps/{app}/deploys/{deploy}/config", get(config::list).patch(config::change))
            .route("/apps/{app}/deploys/{deploy}/config/{name}", get(config::show))
            .route("/apps/{app}/deploys/{deploy}/drains", get(drains::list).post(drains::add))
            .route("/apps/{app}/deploys/{deploy}/drains/{id}", delete(drains::remove))
            .route("/apps/{app}/deploys/{deploy}/logs", get(logs::show))
            .route("/apps/{app}/deploys/{deploy}/logs/stats", get(logs::stats))
            .route("/apps/{app}/deploys/{deploy}/processes", get(deploys::processes))
            .route("/apps/{app}/deploys/{deploy}/limits", get(deploys::limits))
            .route("/apps/{app}/deploys/{deploy}/cron", get(cron::list))
            .route(
                "/apps/{app}/deploys/{deploy}/cron/{name}/runs",
                get(cron::history).post(cron::create),
            )
            .route("/apps/{app}/deploys/{deploy}/cron/{name}/runs/{id}", get(cron::show))
            .route("/apps/{app}/deploys/{deploy}/cron/{name}/runs/{id}/events", get(cron::events))
            .route("/operations/{id}", get(operations::show).delete(operations::cancel))
            .route("/operations/{id}/events", get(operations::events))
            .route("/apps/{app}/deploys/{deploy}/runs", get(runs::list).post(runs::create))
            .route("/runs/{id}", get(runs::show).delete(runs::stop))
            .route("/runs/{id}/attach", post(runs::attach))
            .route("/runs/{id}/output", get(runs::output))
            .route("/runs/{id}/input", post(runs::input))
            .route("/runs/{id}/resize", post(runs::resize))
            .route("/runs/{id}/signal", post(runs::signal))
            .route("/runs/{id}/record", get(runs::record))
            .route("/tokens", get(tokens::list).post(tokens::create))
            .route("/tokens/{id}", delete(tokens::revoke))
            .route("/audit", get(tokens::audit))
            .layer(from_fn_with_state(shared.clone(), outcome::record))
            .layer(from_fn_with_state(shared.clone(), whole::finish))
            .layer(from_fn(listen::whole_body))
            .layer(DefaultBodyLimit::max(BODY));
        let git = Router::new()
            .route("/{app}/{repo}/info/refs", get(git::advertise))
            .route("/{app}/{repo}/git-upload-pack", post(git::upload))
            .route("/{app}/{repo}/git-receive-pack", post(git::receive))
            .layer(from_fn(listen::streamed_body))
            .layer(DefaultBodyLimit::disable());
        let all = match shared.0.local {
            // A codebase is not pushed to.
            Some(_) => Router::new(),
            None => Router::new().nest("/git", git),
        };
        all.nest("/v1", v1)
            .route("/metrics", get(metrics::serve))
            .fallback(error::not_found)
            .method_not_allowed_fallback(error::not_allowed)
            .layer(from_fn_with_state(shared.clone(), origin::check))
            .layer(from_fn(concurrency::hold))
            .layer(tower_http::catch_panic::CatchPanicLayer::new())
            .with_state(shared)
    }

    /// Listens on the socket of the platform's state folder, which its user alone can reach, and
    /// writes the token beside it.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn listen_at_home(&self) -> io::Result<UnixListener> {
        let home = self.0.0.platform.home();
        let listener = Self::bind_in(home)?;
        if let Some(own) = &self.0.0.local {
            local::write_token(home, &own.text)?;
        }
        Ok(listener)
    }

    fn bind_in(folder: &Path) -> io::Result<UnixListener> {
        let path = local::socket(folder);
        if let Some(folder) = path.parent() {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => fs::set_permissions(folder, Permissions::from_mode(0o700))?,
            }
        }
        // Left by an earlier one: the state folder is this one's.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(local::Address::of(&path)?.path()),
        }
    }

    /// What a `tolv serve` tells on the socket in its state folder: how it is, whatever became of its
    /// database.
    fn home_router(&self) -> Router {
        let shared = self.0.clone();
        Router::new()
            .route("/v1/platform", get(platform::status))
            .route("/metrics", get(metrics::serve))
            .fallback(error::not_found)
            .method_not_allowed_fallback(error::not_allowed)
            .layer(from_fn_with_state(shared.clone(), origin::check))
            .layer(tower_http::catch_panic::CatchPanicLayer::new())
            .with_state(shared)
    }

    /// Listens there, with the token of an earlier platform where there is one: a full disk takes
    /// no new one. Where the disk takes no socket, the folder aside has both.
    fn open_home(&self) -> Result<UnixListener, Error> {
        let system = |source| Error::System { what: "listen in the state folder", source };
        let home = self.0.0.platform.home();
        let is_disk = |error: &io::Error| Shortage::of_disk(error).is_some();
        let (listener, folder) = match Self::bind_in(home) {
            Err(error) if is_disk(&error) => {
                let aside = local::make_aside(home).map_err(|_| system(error))?;
                (Self::bind_in(&aside).map_err(system)?, aside)
            }
            bound => (bound.map_err(system)?, home.to_owned()),
        };
        let kept = local::token(home).filter(|text| is_token_text(text));
        let text = match &kept {
            Some(text) => text.clone(),
            None => new_token_text()?,
        };
        if kept.is_none() || folder != home {
            local::write_token(&folder, &text).map_err(system)?;
        }
        self.0.0.home_token.get_or_init(|| token_hash(&text));
        Ok(listener)
    }

    /// Answers on the socket in the state folder of a `tolv serve` for as long as this is polled.
    async fn serve_home(&self, stop: CancellationToken) {
        let inner = &self.0.0;
        if inner.local.is_some() {
            return;
        }
        match self.open_home() {
            Ok(listener) => {
                let stopped = stop.clone();
                let stopped = async move {
                    stopped.cancelled().await;
                    HOME_GRACE
                };
                let answered = CancellationToken::new();
                listen::serve(listener, self.home_router(), stopped, stop, answered).await;
            }
            // The API is there all the same.
            Err(error) => (inner.on_fault)(error.chain()),
        }
    }

    /// Answers until `stop` resolves; then lets what is under way finish, for as long as that says at
    /// most.
    pub async fn serve<L>(&self, listener: L, stop: impl Future<Output = Duration> + Send + 'static)
    where
        L: Listener,
        L::Addr: PeerAddress,
    {
        let inner = Arc::clone(&self.0.0);
        let ended = CancellationToken::new();
        let serve = async {
            let _ended = ended.clone().drop_guard();
            let (ending, answered) = (inner.ending.clone(), inner.answered.clone());
            let grace = listen::serve(listener, self.router(), stop, ending, answered).await;
            inner.tasks.close();
            tokio::time::timeout(grace, inner.tasks.wait()).await.ok();
        };
        tokio::join!(serve, self.serve_home(ended.clone()));
    }

    /// Waits until [`Server::serve`] takes no more connections and has answered the requests that had
    /// begun; those that take long are left.
    pub async fn answered(&self) {
        self.0.0.answered.cancelled().await;
    }
}

/// Whether a file holds a whole token, and not what a full disk left of it.
fn is_token_text(text: &str) -> bool {
    text.starts_with("tolv_") && text.len() >= MIN_TOKEN
}

#[cfg(test)]
mod tests;
