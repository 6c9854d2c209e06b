//! What answers here, and the OpenAPI document of it.
//!
//! The document's schemas come from the wire types; its paths from one table, which a test holds
//! against the routes.

use axum::Json;
use serde_json::{Map, Value, json};
use tolv_api::About;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(components(schemas(
    tolv_api::About,
    tolv_api::App,
    tolv_api::AuditLine,
    tolv_api::Config,
    tolv_api::ConfigChange,
    tolv_api::ConfigChanged,
    tolv_api::CronRun,
    tolv_api::Deploy,
    tolv_api::Drain,
    tolv_api::Ledger,
    tolv_api::Limits,
    tolv_api::LogAccount,
    tolv_api::LogCount,
    tolv_api::LogLine,
    tolv_api::LogMissed,
    tolv_api::LogPage,
    tolv_api::LogStats,
    tolv_api::Buildpacks,
    tolv_api::NewApp,
    tolv_api::NewDeploy,
    tolv_api::NewDrain,
    tolv_api::NewOperation,
    tolv_api::NewToken,
    tolv_api::Operation,
    tolv_api::PlatformCheck,
    tolv_api::PlatformStatus,
    tolv_api::Problem,
    tolv_api::Process,
    tolv_api::Release,
    tolv_api::NewRun,
    tolv_api::Run,
    tolv_api::RunAttachment,
    tolv_api::RunInput,
    tolv_api::RunSignal,
    tolv_api::RunSize,
    tolv_api::Schedule,
    tolv_api::Token,
    tolv_api::TokenMade,
    tolv_api::TypeLimits,
    tolv_api::Variable,
    tolv_api::Whoami,
)))]
struct Schemas;

/// One thing that can be asked.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    summary: &'static str,
    body: Option<&'static str>,
    /// Status and schema; a schema with `*` before it is a page of them.
    answer: (u16, Option<&'static str>),
    /// Names of the query and their types.
    query: &'static [(&'static str, &'static str)],
    pub(crate) is_open: bool,
}

impl Route {
    const fn takes(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }
}

/// The query of a list that comes in pages.
const PAGES: &[(&str, &str)] = &[("limit", "integer"), ("cursor", "string")];
const CONFIRM: &[(&str, &str)] = &[("confirm", "string")];

const fn route(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    body: Option<&'static str>,
    answer: (u16, Option<&'static str>),
) -> Route {
    Route { method, path, summary, body, answer, query: &[], is_open: false }
}

const DEPLOY: &str = "/v1/apps/{app}/deploys/{deploy}";

/// Everything that can be asked; `D` stands for the address of a deploy.
pub(crate) const ROUTES: &[Route] = &[
    Route { is_open: true, ..route("get", "/v1", "What answers here", None, (200, Some("About"))) },
    Route { is_open: true, ..route("get", "/v1/openapi.json", "This document", None, (200, None)) },
    route("get", "/metrics", "What is measured, for Prometheus", None, (200, None)),
    route(
        "get",
        "/v1/platform",
        "What the running platform holds and lacks",
        None,
        (200, Some("PlatformStatus")),
    ),
    route("get", "/v1/whoami", "Who the token is", None, (200, Some("Whoami"))),
    route("get", "/v1/apps", "Every app that the token may see", None, (200, Some("*App"))).takes(PAGES),
    route(
        "post",
        "/v1/apps",
        "Make an app and its first deploy",
        Some("NewApp"),
        (201, Some("App")),
    ),
    route("get", "/v1/apps/{app}", "One app", None, (200, Some("App"))),
    route(
        "delete",
        "/v1/apps/{app}",
        "Destroy an app; `confirm` repeats its name",
        None,
        (204, None),
    ).takes(CONFIRM),
    route(
        "get",
        "/v1/apps/{app}/buildpacks",
        "What builds an app, where the operator says so",
        None,
        (200, Some("Buildpacks")),
    ),
    route(
        "put",
        "/v1/apps/{app}/buildpacks",
        "Say what builds an app from the next build on",
        Some("Buildpacks"),
        (200, Some("Buildpacks")),
    ),
    route("get", "/v1/apps/{app}/deploys", "The deploys of an app", None, (200, Some("*Deploy"))),
    route(
        "post",
        "/v1/apps/{app}/deploys",
        "Make a deploy",
        Some("NewDeploy"),
        (201, Some("Deploy")),
    ),
    route("get", "D", "One deploy", None, (200, Some("Deploy"))),
    route(
        "delete",
        "D",
        "Destroy a deploy; `confirm` repeats its path",
        None,
        (202, Some("Operation")),
    ).takes(CONFIRM),
    route("get", "D/releases", "Releases, the newest first", None, (200, Some("*Release"))).takes(PAGES),
    route("get", "D/releases/verify", "Prove the ledger", None, (200, Some("Ledger"))),
    route(
        "post",
        "D/releases/accept",
        "Accept a ledger that does not hold as it is; `confirm` repeats the deploy's path",
        None,
        (200, Some("Ledger")),
    ).takes(CONFIRM),
    route("get", "D/releases/{number}", "One release", None, (200, Some("Release"))),
    route("get", "D/operations", "Operations, the newest first", None, (200, Some("*Operation"))).takes(PAGES),
    route(
        "post",
        "D/operations",
        "Do something to a deploy",
        Some("NewOperation"),
        (202, Some("Operation")),
    ),
    route(
        "get",
        "D/config",
        "Names of config variables; with `values=true` values too",
        None,
        (200, Some("Config")),
    ).takes(&[("values", "boolean")]),
    route(
        "patch",
        "D/config",
        "Set and unset config variables, all at once",
        Some("ConfigChange"),
        (202, Some("ConfigChanged")),
    ),
    route("get", "D/config/{name}", "One value", None, (200, Some("Variable"))),
    route("get", "D/drains", "Where its lines go besides", None, (200, Some("*Drain"))),
    route(
        "post",
        "D/drains",
        "Send its lines to a receiver",
        Some("NewDrain"),
        (201, Some("Drain")),
    ),
    route("delete", "D/drains/{id}", "End a drain", None, (204, None)),
    route(
        "get",
        "D/logs",
        "Lines of the log: the last `tail`, or `limit` of them behind `cursor`, in pages of 1 MiB of \
         text at most (`more` says that the next is behind its `cursor`); with `follow=true` \
         all that come, as server-sent events. `since`, `until`, `process`, `source`, `release` and \
         `grep` choose",
        None,
        (200, Some("LogPage")),
    ).takes(&[
        ("tail", "integer"),
        ("limit", "integer"),
        ("cursor", "string"),
        ("follow", "boolean"),
        ("since", "string"),
        ("until", "string"),
        ("process", "string"),
        ("source", "string"),
        ("release", "string"),
        ("grep", "string"),
    ]),
    route(
        "get",
        "D/logs/stats",
        "What was written, stored, dropped",
        None,
        (200, Some("LogStats")),
    ),
    route("get", "D/processes", "What runs", None, (200, Some("*Process"))),
    route(
        "get",
        "D/limits",
        "How much of the machine the processes of each type may take",
        None,
        (200, Some("*TypeLimits")),
    ),
    route("get", "D/cron", "The current release's schedules", None, (200, Some("*Schedule"))),
    route(
        "get",
        "D/cron/{name}/runs",
        "Runs of a schedule, the newest first",
        None,
        (200, Some("*CronRun")),
    ).takes(PAGES),
    route("post", "D/cron/{name}/runs", "Run a schedule now", None, (202, Some("CronRun"))),
    route("get", "D/cron/{name}/runs/{id}", "One run", None, (200, Some("CronRun"))),
    route(
        "get",
        "D/cron/{name}/runs/{id}/events",
        "Its output, as server-sent events",
        None,
        (200, None),
    ),
    route("get", "/v1/operations/{id}", "One operation", None, (200, Some("Operation"))),
    route("delete", "/v1/operations/{id}", "Cancel an operation", None, (200, Some("Operation"))),
    route(
        "get",
        "/v1/operations/{id}/events",
        "Its output, as server-sent events",
        None,
        (200, None),
    ),
    route("get", "D/runs", "One-off runs, the newest first", None, (200, Some("*Run"))).takes(PAGES),
    route("post", "D/runs", "Begin a one-off run", Some("NewRun"), (201, Some("Run"))),
    route("get", "/v1/runs/{id}", "One run", None, (200, Some("Run"))),
    route(
        "delete",
        "/v1/runs/{id}",
        "Stop a run: SIGTERM, and SIGKILL after the grace period; at once with `kill=true`",
        None,
        (200, Some("Run")),
    ).takes(&[("kill", "boolean")]),
    route(
        "post",
        "/v1/runs/{id}/attach",
        "Take the streams of a run over",
        None,
        (200, Some("RunAttachment")),
    ),
    route(
        "get",
        "/v1/runs/{id}/output",
        "Its output as frames, from byte `from` on; waits for some for `wait` seconds. What is \
         before `from` has arrived, and is let go",
        None,
        (200, None),
    ).takes(&[
        ("from", "integer"),
        ("wait", "integer"),
        ("attached", "integer"),
    ]),
    route(
        "post",
        "/v1/runs/{id}/input",
        "Give it the bytes of the body, which begin at byte `at`; with `end=true` none come behind",
        None,
        (200, Some("RunInput")),
    ).takes(&[
        ("at", "integer"),
        ("end", "boolean"),
        ("attached", "integer"),
    ]),
    route(
        "post",
        "/v1/runs/{id}/resize",
        "Change the size of its terminal",
        Some("RunSize"),
        (204, None),
    ),
    route("post", "/v1/runs/{id}/signal", "Send it a signal", Some("RunSignal"), (204, None)),
    route("get", "/v1/runs/{id}/record", "What is kept of its output", None, (200, None)),
    route("get", "/v1/tokens", "Every token", None, (200, Some("*Token"))).takes(PAGES),
    route("post", "/v1/tokens", "Make a token", Some("NewToken"), (201, Some("TokenMade"))),
    route("delete", "/v1/tokens/{id}", "Revoke a token", None, (204, None)),
    route("get", "/v1/audit", "Who did what, the newest first", None, (200, Some("*AuditLine"))).takes(&[
        ("limit", "integer"),
        ("cursor", "string"),
        ("app", "string"),
    ]),
];

impl Route {
    /// The whole path.
    pub(crate) fn full(&self) -> String {
        match self.path.strip_prefix('D') {
            Some(rest) => format!("{DEPLOY}{rest}"),
            None => self.path.to_owned(),
        }
    }
}

/// The OpenAPI document (version 3.1).
pub fn document() -> Value {
    let mut document = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let mut paths = Map::new();
    for route in ROUTES {
        let entry = paths.entry(route.full()).or_insert_with(|| json!({}));
        entry[route.method] = operation(route);
    }
    document["info"] = json!({
        "title": "Tolv",
        "version": "v1",
        "description": "One app, many deploys, an append-only ledger of releases. Whatever \
            writes takes `Idempotency-Key`. Errors are problem \
            documents (RFC 9457).",
    });
    document["paths"] = paths.into();
    document["components"]["securitySchemes"] =
        json!({"token": {"type": "http", "scheme": "bearer"}});
    document
}

fn operation(route: &Route) -> Value {
    let schema = |name: &str| match name.strip_prefix('*') {
        None => json!({"$ref": format!("#/components/schemas/{name}")}),
        Some(item) => json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": {
                    "type": "array",
                    "items": {"$ref": format!("#/components/schemas/{item}")},
                },
                "next": {"type": ["string", "null"]},
            },
        }),
    };
    let content = |kind: &str, name: &str| json!({kind: {"schema": schema(name)}});
    let (status, answer) = route.answer;
    let mut good = json!({"description": route.summary});
    if let Some(name) = answer {
        good["content"] = content("application/json", name);
    }
    let full = route.full();
    let names = full.split('{').skip(1).filter_map(|part| part.split('}').next());
    let query = route.query.iter().map(|(name, kind)| {
        json!({"name": name, "in": "query", "required": false, "schema": {"type": kind}})
    });
    let parameters: Vec<_> = names
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .chain(query)
        .collect();
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            status.to_string(): good,
            "default": {
                "description": "A problem",
                "content": content("application/problem+json", "Problem"),
            },
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] =
            json!({"required": true, "content": content("application/json", body)});
    }
    if !route.is_open {
        operation["security"] = json!([{"token": []}]);
    }
    operation
}

pub(crate) async fn serve() -> Json<Value> {
    Json(document())
}

pub(crate) async fn about() -> Json<About> {
    Json(About { name: "tolv".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}
