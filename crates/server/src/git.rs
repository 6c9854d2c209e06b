//! git over HTTP: the smart protocol, authenticated by a token as the password of Basic.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tolv_api::Code;
use tolv_model::access::Act;
use tolv_model::name::Deploy as DeployPath;
use tolv_platform::Error;
use tolv_platform::repo::{Rpc, Service};

use crate::Shared;
use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Params, Path, path};

#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    service: Option<String>,
}

/// Who asks for which deploy's repository, if they may.
async fn admitted(
    shared: &Shared,
    (headers, extensions): (&HeaderMap, &Extensions),
    app: &str,
    repo: &str,
    service: Service,
) -> Result<(Caller, DeployPath), Response> {
    let caller = Caller::of_git(headers, shared).await;
    let caller = caller.and_then(|caller| caller.counted(extensions, shared));
    let caller = caller.map_err(|failure| {
        let unauthorized = failure.0.code == Code::Unauthorized;
        let mut response = plain(failure);
        if unauthorized {
            // git asks its credential helper once it sees this.
            let basic = HeaderValue::from_static("Basic realm=\"tolv\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    })?;
    let admit = async {
        let name = repo.strip_suffix(".git").unwrap_or(repo);
        let path = path(app, name)?;
        let act = match service {
            Service::Upload | Service::Receive => Act::Deploy,
        };
        caller.may(act, Some(&path.app))?;
        let found = shared.0.platform.store().deploy(&path).await;
        found.map_err(|error| shared.failure(error))?;
        caller.lasts()?;
        Ok(path)
    };
    match admit.await {
        Ok(path) => Ok((caller, path)),
        Err(failure) => Err(plain(failure)),
    }
}

/// git shows what is plain text.
fn plain(failure: Failure) -> Response {
    let problem = failure.0;
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut text = problem.detail;
    if let Some(hint) = problem.hint {
        text.push('\n');
        text.push_str(&hint);
    }
    (status, text).into_response()
}

fn answer(service: Service, what: &str, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let kind = format!("application/x-{}-{what}", service.as_str());
    if let Ok(kind) = HeaderValue::try_from(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn protocol(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("git-protocol")?.to_str().ok()?.to_owned())
}

pub(crate) async fn advertise(
    State(shared): State<Shared>,
    Path((app, repo)): Path<(String, String)>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let service = match asked.service.as_deref() {
        Some("git-upload-pack") => Service::Upload,
        Some("git-receive-pack") => Service::Receive,
        _ => {
            let text = "only git's smart HTTP protocol is spoken here";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
    };
    let (caller, path) =
        match admitted(&shared, (&headers, request.extensions()), &app, &repo, service).await {
            Ok(admitted) => admitted,
            Err(response) => return response,
        };
    // git shows the text of an HTTP error here, but not in answer to the push itself.
    if service == Service::Receive {
        let platform = &shared.0.platform;
        let checked = async {
            platform.check_disk_space().await?;
            Ok::<_, Error>(platform.store().require_writable_database().await?)
        };
        if let Err(error) = checked.await {
            return plain(shared.failure(error));
        }
    }
    let protocol = protocol(&headers);
    let repos = shared.0.platform.repos();
    match repos.advertise(&caller.token.id.to_string(), &path, service, protocol.as_deref()).await {
        Ok(body) => answer(service, "advertisement", Body::from(body)),
        Err(error) => plain(shared.failure(Error::from(error))),
    }
}

pub(crate) async fn upload(
    State(shared): State<Shared>,
    Path((app, repo)): Path<(String, String)>,
    request: Request,
) -> Response {
    rpc(shared, app, repo, Service::Upload, request).await
}

pub(crate) async fn receive(
    State(shared): State<Shared>,
    Path((app, repo)): Path<(String, String)>,
    request: Request,
) -> Response {
    rpc(shared, app, repo, Service::Receive, request).await
}

async fn rpc(
    shared: Shared,
    app: String,
    repo: String,
    service: Service,
    request: Request,
) -> Response {
    // From its first moment: an upgrade that waited for none would stop what it needs.
    let undecided = (service == Service::Receive).then(|| shared.0.platform.begin_push());
    let (parts, body) = request.into_parts();
    let (caller, path) =
        match admitted(&shared, (&parts.headers, &parts.extensions), &app, &repo, service).await {
            Ok(admitted) => admitted,
            Err(response) => return response,
        };
    if service == Service::Receive
        && let Err(failure) = caller.audit(&shared, "deploy.push", &path, "").await
    {
        return plain(failure);
    }
    let encoding = parts.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    let body = body.into_data_stream().map_err(std::io::Error::other);
    let push = match undecided {
        Some(undecided) => {
            match shared.0.platform.open_push(&caller.actor(), &path, undecided).await {
                Ok(push) => Some(push),
                Err(error) => return plain(shared.failure(error)),
            }
        }
        None => None,
    };
    let rpc = Rpc {
        stopped: match &push {
            Some(push) => Box::pin(push.until_stopped()),
            None => Box::pin(std::future::pending()),
        },
        token: caller.token.id.to_string(),
        deploy: path.clone(),
        service,
        protocol: protocol(&parts.headers),
        gzip: matches!(encoding, Some(b"gzip" | b"x-gzip")),
        body: Box::pin(StreamReader::new(body)),
    };
    let (own, actor, lines) = (shared.clone(), caller.actor(), caller.lines.clone());
    let decide = move |asked| async move {
        let Some(push) = push else { return Vec::new() };
        let results = own.0.platform.push(&actor, &path, asked, push).await;
        let is_refused = results.iter().all(|result| result.refused.is_some());
        lines.record(&own, if is_refused { "refused" } else { "accepted" }).await;
        results
    };
    match shared.0.platform.repos().serve(rpc, &shared.0.tasks, decide).await {
        Ok(chunks) => {
            let chunks = ReceiverStream::new(chunks).map(Ok::<Bytes, std::convert::Infallible>);
            answer(service, "result", Body::from_stream(chunks))
        }
        Err(error) => {
            caller.lines.record(&shared, "failed").await;
            plain(shared.failure(Error::from(error)))
        }
    }
}
