//! The HTTP API as a program meets it: tokens, roles, problems, pages, keys, tags.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use tolv_testkit::http::Response;

use super::*;

pub(super) struct Api {
    pub(super) serve: Serve,
}

impl Api {
    pub(super) fn new() -> Self {
        let serve = Serve::start(env!("CARGO_BIN_EXE_tolv"), &[]);
        let api = Self { serve };
        for app in ["shop", "blog"] {
            let made = api.owner("POST", "/v1/apps", &json!({"name": app}));
            assert_eq!(made.status, 201, "{}", made.text());
        }
        api
    }

    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let address = self.serve.url();
        let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend(["content-length: ", &body.len().to_string(), "\r\n\r\n"]);
        stream.write_all(head.as_bytes()).unwrap();
        // A body that is refused may not be read to its end.
        stream.write_all(body).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        http::parse(&answer, method == "HEAD").unwrap()
    }

    pub(super) fn as_token(&self, token: &str, method: &str, path: &str, body: &Value) -> Response {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(method, path, &headers, &body)
    }

    pub(super) fn owner(&self, method: &str, path: &str, body: &Value) -> Response {
        self.as_token(self.serve.token(), method, path, body)
    }

    pub(super) fn token(&self, role: &str, app: Option<&str>) -> String {
        let apps = app.map(|app| [app]);
        let new = json!({"name": format!("{role} of {app:?}"), "role": role, "apps": apps});
        let made = self.owner("POST", "/v1/tokens", &new);
        assert_eq!(made.status, 201, "{}", made.text());
        body(&made)["secret"].as_str().unwrap().to_owned()
    }
}

pub(super) fn body(response: &Response) -> Value {
    let text = response.text();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A body that each documented request takes.
pub(super) fn example(method: &str, path: &str) -> Value {
    match (method, path.rsplit('/').next().unwrap()) {
        ("post", "apps") => json!({"name": "Not a name"}),
        ("post", "deploys") => json!({"name": "Not a name"}),
        ("post", "operations") => json!({"kind": "rollback", "to": 9}),
        ("post", "drains") => json!({"url": "not one"}),
        ("post", "runs") if path.ends_with("/{deploy}/runs") => json!({"argv": ["true"]}),
        ("post", "tokens") => json!({"name": "", "role": "view"}),
        ("patch", "config") => json!({"set": {}}),
        ("put", "buildpacks") => json!({"buildpacks": ["not one"]}),
        _ => Value::Null,
    }
}

/// Every documented request that wants a token, with names filled in.
fn requests(api: &Api, app: &str) -> Vec<(String, String, String)> {
    let document = body(&api.send("GET", "/v1/openapi.json", &[], b""));
    let mut requests = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"].is_null() {
                continue;
            }
            let id = match path.split('/').nth(2) {
                Some("tokens") => "tok_00000000000000000000",
                _ if path.contains("/drains/") => "drn_00000000000000000000",
                Some("runs") => "run_00000000000000000000",
                _ => "op_00000000000000000000",
            };
            let filled = path
                .replace("{app}", app)
                .replace("{deploy}", "production")
                .replace("{number}", "1")
                .replace("{name}", "NAME")
                .replace("{id}", id);
            requests.push((method.to_uppercase(), filled, path.clone()));
        }
    }
    assert!(requests.len() > 20, "{requests:?}");
    requests
}

#[test]
fn every_documented_query_is_taken_and_no_other() {
    let api = Api::new();
    let document = body(&api.send("GET", "/v1/openapi.json", &[], b""));
    let mut with_query = 0;
    for (method, path, template) in requests(&api, "shop") {
        let parameters = &document["paths"][&template][method.to_lowercase()]["parameters"];
        let names = parameters.as_array().unwrap().iter().filter(|p| p["in"] == "query");
        let names: Vec<_> = names
            .map(|p| (p["name"].as_str().unwrap(), p["schema"]["type"].as_str().unwrap()))
            .collect();
        if names.is_empty() {
            continue;
        }
        with_query += 1;
        for (name, kind) in names {
            let value = if kind == "boolean" { "false" } else { "1" };
            let answer = api.owner(&method, &format!("{path}?{name}={value}"), &Value::Null);
            assert!(!answer.text().contains("unknown field"), "{method} {path}?{name}");
        }
        let answer = api.owner(&method, &format!("{path}?nonsense=1"), &Value::Null);
        assert!(answer.text().contains("unknown field"), "{method} {path}: {}", answer.text());
    }
    assert!(with_query > 10, "{with_query}");
}

#[test]
fn every_address_asks_for_a_token_and_says_problems() {
    let api = Api::new();
    for (method, path, template) in requests(&api, "shop") {
        for headers in [&[][..], &[("authorization", "Bearer tolv_wrong")]] {
            let response = api.send(&method, &path, headers, b"");
            assert_eq!(response.status, 401, "{method} {path}: {}", response.text());
            assert_eq!(response.header("content-type"), Some("application/problem+json"));
            assert!(response.header("www-authenticate").is_some());
        }
        // It exists: with a token it is not "nothing there".
        let found = api.owner(&method, &path, &example(&method.to_lowercase(), &template));
        assert!(!found.text().contains("there is nothing at"), "{method} {path}");
        assert_ne!(found.status, 405, "{method} {path}");
        assert_ne!(found.status, 500, "{method} {path}: {}", found.text());
    }
}

#[test]
fn each_role_may_do_what_it_is_for_and_to_its_app_alone() {
    let api = Api::new();
    // What a request is about; `.` is allowed to look at an app, as everybody may.
    let kind = |method: &str, template: &str| match (method, template) {
        (_, "/v1/whoami" | "/v1/apps") if method == "GET" => "any",
        (_, "/v1/apps" | "/v1/tokens" | "/v1/tokens/{id}" | "/v1/audit") => "own",
        ("DELETE", "/v1/apps/{app}") | (_, "/metrics" | "/v1/platform") => "own",
        (_, path) if path.ends_with("/releases/accept") => "own",
        (_, path) if path.starts_with("/v1/operations") => "skip",
        // What is said of a run that is not there; the test of `tolv run` has the others.
        (_, path) if path.starts_with("/v1/runs") => "skip",
        ("PATCH", _) => "config",
        (_, path) if path.ends_with("/config/{name}") => "config",
        ("POST", path) if path.ends_with("/operations") => "deploy",
        ("PUT", path) if path.ends_with("/buildpacks") => "deploy",
        ("POST", path) if path.ends_with("/runs") => "run",
        ("POST", path) if path.ends_with("/deploys") || path.ends_with("/drains") => "manage",
        ("DELETE", path) if path.ends_with("/drains/{id}") => "manage",
        ("DELETE", path) if path.ends_with("/{deploy}") => "manage",
        _ => "view",
    };
    let all = requests(&api, "shop");
    for (role, kinds) in [
        ("view", &["any", "view"][..]),
        ("deploy", &["any", "view", "deploy", "run"]),
        ("config", &["any", "view", "config"]),
        ("run", &["any", "view", "run"]),
        ("admin", &["any", "view", "deploy", "run", "config", "manage"]),
    ] {
        let (token, stranger) = (api.token(role, Some("shop")), api.token(role, Some("blog")));
        for (method, path, template) in &all {
            let about = kind(method, template);
            if about == "skip" {
                continue;
            }
            let example = example(&method.to_lowercase(), template);
            let status = api.as_token(&token, method, path, &example).status;
            assert_eq!(
                status != 403,
                kinds.contains(&about),
                "{role}: {method} {path} gives {status}"
            );
            let status = api.as_token(&stranger, method, path, &example).status;
            let hidden = if template.contains("{app}") { 404 } else { 403 };
            assert!(about == "any" || status == hidden, "stranger: {method} {path}: {status}");
        }
    }
    // The operations of the run stage are for the role of its name.
    let path = "/v1/apps/shop/deploys/production/operations";
    let restart = json!({"kind": "restart"});
    for (role, allowed) in [("run", true), ("deploy", true), ("config", false)] {
        let token = api.token(role, Some("shop"));
        let status = api.as_token(&token, "POST", path, &restart).status;
        assert_eq!(status != 403, allowed, "{role}: {status}");
    }
    // An expired token is none.
    let new = json!({"name": "short", "role": "admin", "expires_in": 1});
    let made = body(&api.owner("POST", "/v1/tokens", &new));
    let secret = made["secret"].as_str().unwrap();
    poll(SOON, "the token expires", || {
        let response = api.as_token(secret, "GET", "/v1/whoami", &Value::Null);
        (response.status == 401 && response.text().contains("expired")).then_some(())
    });
}

#[test]
fn bad_names_and_bodies_are_one_clear_problem() {
    let api = Api::new();
    let bad = |method: &str, path: &str, sent: &Value, status: u16, wanted: &str| {
        let response = api.owner(method, path, sent);
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        let problem = body(&response);
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:tolv:problem:"));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(wanted), "{detail}");
    };
    let long = "a".repeat(300);
    for name in ["", "..", "a/b", "Shop", "übung", "-a", &long] {
        bad("POST", "/v1/apps", &json!({"name": name}), 400, "app name");
    }
    bad("POST", "/v1/apps", &json!({"name": "shop"}), 409, "`shop` exists already");
    bad("POST", "/v1/apps", &json!({"nam": "x"}), 400, "nam");
    bad("POST", "/v1/apps", &json!({"name": "x", "colour": 1}), 400, "colour");
    bad("POST", "/v1/apps", &json!([1]), 400, "body");
    bad("GET", "/v1/apps/%2e%2e/deploys", &Value::Null, 400, "app name");
    bad("GET", "/v1/apps/nobody", &Value::Null, 404, "nobody");
    bad("GET", "/v1/apps?limit=0", &Value::Null, 400, "limit");
    bad("GET", "/v1/apps?lim=1", &Value::Null, 400, "lim");
    bad("GET", "/v1/nothing", &Value::Null, 404, "/v1/nothing");
    bad("PUT", "/v1/apps", &Value::Null, 405, "/v1/apps");
    let path = "/v1/apps/shop/deploys/production";
    bad("POST", &format!("{path}/operations"), &json!({"kind": "fly"}), 400, "fly");
    bad("POST", &format!("{path}/operations"), &json!({"kind": "rollback"}), 409, "no release");
    for (query, wanted) in [
        ("tail=x", "tail"),
        ("tail=0&cursor=1-2", "exclude"),
        ("tail=99999", "limit"),
        ("cursor=here", "`here`"),
        ("grep=(", "grep"),
        ("source=x", "`x`"),
        ("since=soon", "since"),
        ("colour=1", "colour"),
    ] {
        bad("GET", &format!("{path}/logs?{query}"), &Value::Null, 400, wanted);
    }
    bad("GET", "/v1/runs/run_00000000000000000000/output?from=x", &Value::Null, 400, "from");
    let config = format!("{path}/config");
    bad("PATCH", &config, &json!({"set": {"PORT": {"text": "1"}}}), 400, "PORT");
    bad("PATCH", &config, &json!({"set": {"A": {"base64": "!"}}}), 400, "base 64");
    bad("PATCH", &config, &json!({"set": {"A": {"text": "x\0y"}}}), 400, "NUL");
    let large = "x".repeat(10 << 20);
    bad("PATCH", &config, &json!({"set": {"A": {"text": large}}}), 413, "1 MiB");
    bad("PATCH", &config, &json!({"set": {"A": {"text": "x".repeat(70_000)}}}), 400, "65536");
}

#[test]
fn pages_keys_and_tags() {
    let api = Api::new();
    // Pages.
    let first = body(&api.owner("GET", "/v1/apps?limit=1", &Value::Null));
    assert_eq!(first["items"][0]["name"], "blog");
    let next = first["next"].as_str().unwrap();
    let second = api.owner("GET", &format!("/v1/apps?limit=1&cursor={next}"), &Value::Null);
    let second = body(&second);
    assert_eq!((&second["items"][0]["name"], &second["next"]), (&json!("shop"), &Value::Null));
    // A request that is sent twice is done once.
    let bearer = format!("Bearer {}", api.serve.token());
    let keyed = |key: &str, name: &str| {
        let json_type = ("content-type", "application/json");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", key), json_type];
        api.send("POST", "/v1/apps", &headers, json!({"name": name}).to_string().as_bytes())
    };
    let made = keyed("one", "made");
    assert_eq!(made.status, 201);
    let again = keyed("one", "made");
    assert_eq!((again.status, again.text()), (201, made.text()));
    assert_eq!(keyed("one", "other").status, 422);
    assert_eq!(keyed("two", "made").status, 409);
    // A change that another overtook.
    let config = "/v1/apps/shop/deploys/production/config";
    let tag = api.owner("GET", config, &Value::Null).header("etag").unwrap().to_owned();
    let change = |value: &str| {
        let json_type = ("content-type", "application/json");
        let headers = [("authorization", bearer.as_str()), ("if-match", &tag), json_type];
        let sent = json!({"set": {"A": {"text": value}}}).to_string();
        api.send("PATCH", config, &headers, sent.as_bytes())
    };
    assert_eq!(change("1").status, 200);
    let late = change("2");
    assert_eq!(late.status, 412, "{}", late.text());
    // Reads of values are noted, and the values are not.
    let read = api.owner("GET", &format!("{config}/A"), &Value::Null);
    assert_eq!(body(&read)["value"]["text"], "1");
    let audit = api.owner("GET", "/v1/audit?app=shop", &Value::Null).text();
    assert!(audit.contains("config.read") && !audit.contains("\"1\""), "{audit}");
}

#[test]
fn a_keyed_request_whose_body_does_not_arrive_times_out() {
    let api = Api::new();
    let path = "/v1/apps";
    let headers = "idempotency-key: slow\r\ncontent-type: application/json\r\n";
    let mut slow = super::slow::Slow::begin(&api.serve, api.serve.token(), path, headers);
    slow.send(b"{").unwrap();
    let answer = slow.answer(std::time::Duration::from_secs(60));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}
