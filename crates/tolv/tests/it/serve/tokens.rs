//! Who may: what a token does not tell, which one cannot be revoked, and what reaches the API's port.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use tolv_testkit::http::Response;

use super::api::{Api, body, example};
use super::*;

/// What somebody sees of an answer, but for its date.
fn seen(response: &Response) -> (u16, Vec<(String, String)>, String) {
    let headers = response.headers.iter().filter(|(name, _)| name != "date");
    (response.status, headers.cloned().collect(), response.text())
}

/// An app `shop` that has one of everything, and its ids by what they are of.
fn inhabited() -> (Api, BTreeMap<&'static str, String>) {
    let shop = Shop::site("hello", &[]);
    fs::write(
        shop.dir.join("app.json"),
        r#"{"cron": [{"name": "nightly", "schedule": "0 3 * * *", "command": "true"}]}"#,
    )
    .unwrap();
    git::commit(&shop.dir);
    shop.pushed(&["tolv", "HEAD:main"]);
    shop.tolv(&["config", "set", "NAME=x"]);
    shop.tolv(&["cron", "run", "nightly"]);
    shop.tolv(&["run", "true"]);
    let api = Api { serve: shop.serve };
    let deploy = "/v1/apps/shop/deploys/production";
    let drain = json!({"url": "syslog://127.0.0.1:9"});
    assert_eq!(api.owner("POST", &format!("{deploy}/drains"), &drain).status, 201);
    assert_eq!(api.owner("POST", "/v1/apps", &json!({"name": "blog"})).status, 201);
    let newest = |path: &str| {
        let page = body(&api.owner("GET", path, &Value::Null));
        page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{path}: {page}")).to_owned()
    };
    let ids = BTreeMap::from([
        ("operations", newest(&format!("{deploy}/operations"))),
        ("runs", newest(&format!("{deploy}/runs"))),
        ("drains", newest(&format!("{deploy}/drains"))),
        ("cron", newest(&format!("{deploy}/cron/nightly/runs"))),
        ("tokens", newest("/v1/tokens")),
    ]);
    (api, ids)
}

#[test]
fn no_answer_says_to_a_token_of_another_app_that_something_exists() {
    let (api, ids) = inhabited();
    let document = body(&api.send("GET", "/v1/openapi.json", &[], b""));
    // Both names and both ids are of one length.
    let unknown = |id: &str| {
        let (kind, rest) = id.split_once('_').unwrap();
        format!("{kind}_{}", "0".repeat(rest.len()))
    };
    let mut routes: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if !operation["security"].is_null() {
                routes.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    assert!(routes.len() > 40, "{}", routes.len());
    for repo in ["production", "production.git"] {
        for rest in ["info/refs?service=git-upload-pack", "info/refs?service=git-receive-pack"] {
            routes.push(("GET".to_owned(), format!("/git/{{app}}/{repo}/{rest}")));
        }
        for rest in ["git-upload-pack", "git-receive-pack"] {
            routes.push(("POST".to_owned(), format!("/git/{{app}}/{repo}/{rest}")));
        }
    }
    let mut compared = 0;
    for role in ["view", "deploy", "config", "run", "admin"] {
        let token = api.token(role, Some("blog"));
        for (method, template) in &routes {
            let kind = ids.keys().find(|kind| template.contains(&format!("/{kind}/")));
            let ask = |app: &str, id: &str| {
                let path = template
                    .replace("{app}", app)
                    .replace("{deploy}", "production")
                    .replace("{number}", "1")
                    .replace("{name}", if template.contains("/cron/") { "nightly" } else { "NAME" })
                    .replace("{id}", id);
                let sent = example(&method.to_lowercase(), template);
                let answer = api.as_token(&token, method, &path, &sent);
                let (status, headers, text) = seen(&answer);
                (status, headers, text.replace(app, "APP").replace(id, "ID"))
            };
            let known = kind.map_or("", |kind| ids[kind].as_str());
            let there = ask("shop", known);
            let invented = match known {
                "" => String::new(),
                known => unknown(known),
            };
            if template.contains("{app}") || kind.is_some() {
                compared += 1;
                assert_eq!(there, ask("shoq", &invented), "{role}: {method} {template}");
                assert!(!there.2.contains("shop"), "{role}: {method} {template}: {}", there.2);
            }
        }
        // What is said of its own app says nothing of another.
        let promote = |app: &str| {
            let from = json!({"kind": "promote", "from": format!("{app}/production")});
            let answer =
                api.as_token(&token, "POST", "/v1/apps/blog/deploys/production/operations", &from);
            let copy = json!({"name": "copy", "from": format!("{app}/production")});
            let copied = api.as_token(&token, "POST", "/v1/apps/blog/deploys", &copy);
            (answer.status, answer.text().replace(app, "APP"), copied.text().replace(app, "APP"))
        };
        assert_eq!(promote("shop"), promote("shoq"), "{role}");
        // Nor is an id of another app's taken where a path names its own.
        for kind in ["drains", "cron"] {
            let path = |id: &str| match kind {
                "drains" => format!("/v1/apps/blog/deploys/production/drains/{id}"),
                _ => format!("/v1/apps/blog/deploys/production/cron/nightly/runs/{id}"),
            };
            let method = if kind == "drains" { "DELETE" } else { "GET" };
            let ask = |id: &str| {
                let answer = api.as_token(&token, method, &path(id), &Value::Null);
                (answer.status, answer.text().replace(id, "ID"))
            };
            assert_eq!(ask(&ids[kind]), ask(&unknown(&ids[kind])), "{role}: {kind}");
        }
        let apps = api.as_token(&token, "GET", "/v1/apps", &Value::Null).text();
        assert!(apps.contains("blog") && !apps.contains("shop"), "{apps}");
    }
    assert!(compared > 5 * 40, "{compared}");
}

#[test]
fn a_token_may_be_for_several_apps() {
    let api = Api::new();
    api.owner("POST", "/v1/apps", &json!({"name": "third"}));
    let dir = api.serve.folder("anywhere");
    let args = ["tokens", "create", "--role", "admin", "--app", "shop", "--app", "blog", "--json"];
    let made: Value = serde_json::from_str(&api.serve.tolv(&dir, &args)).unwrap();
    assert_eq!(made["token"]["apps"], json!(["blog", "shop"]));
    let token = made["secret"].as_str().unwrap();
    let ask = |path: &str| api.as_token(token, "GET", path, &Value::Null);
    let me = body(&ask("/v1/whoami"));
    assert_eq!(me["apps"], json!(["blog", "shop"]));
    for (app, status) in [("shop", 200), ("blog", 200), ("third", 404), ("fourth", 404)] {
        assert_eq!(ask(&format!("/v1/apps/{app}")).status, status, "{app}");
    }
    let first = body(&ask("/v1/apps?limit=1"));
    assert_eq!((&first["items"][0]["name"], &first["next"]), (&json!("blog"), &json!("blog")));
    let second = body(&ask("/v1/apps?limit=1&cursor=blog"));
    assert_eq!((&second["items"][0]["name"], &second["next"]), (&json!("shop"), &Value::Null));
    assert_eq!(ask("/v1/tokens").status, 403, "they are not all apps");
    // An app of a destroyed one's name is another.
    let path = "/v1/apps/shop?confirm=shop";
    assert_eq!(api.owner("DELETE", path, &Value::Null).status, 204);
    api.owner("POST", "/v1/apps", &json!({"name": "shop"}));
    assert_eq!(ask("/v1/apps/shop").status, 404);
    assert_eq!(ask("/v1/apps/blog").status, 200);
    for apps in [json!([]), json!(["nowhere"]), json!(["Not a name"])] {
        let new = json!({"name": "x", "role": "view", "apps": apps});
        let status = api.owner("POST", "/v1/tokens", &new).status;
        assert!([400, 404].contains(&status), "{apps}: {status}");
    }
}

#[test]
fn the_last_token_that_can_administrate_stays_and_the_machine_can_make_another() {
    let api = Api::new();
    let dir = api.serve.folder("anywhere");
    let tokens = || body(&api.owner("GET", "/v1/tokens", &Value::Null));
    let owner = tokens()["items"][0]["id"].as_str().unwrap().to_owned();
    // Neither of them would do for good.
    let expiring = json!({"name": "short", "role": "admin", "expires_in": 3600});
    assert_eq!(api.owner("POST", "/v1/tokens", &expiring).status, 201);
    api.token("admin", Some("shop"));
    api.token("view", None);
    let refused = api.serve.ran(&dir, &["tokens", "revoke", &owner]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.err.contains("the last token"), "{}", refused.err);
    assert!(refused.err.contains("tolv tokens create --role admin"), "{}", refused.err);
    // Its secret is lost: the owner of the state folder makes another, while `serve` runs.
    let mut recover = Command::new(env!("CARGO_BIN_EXE_tolv"));
    recover.args(["tokens", "recover"]).current_dir(&dir);
    api.serve.user(&mut recover);
    recover.env_remove("TOLV_TOKEN").env("TOLV_HOME", api.serve.state());
    let made = run(&mut recover);
    assert!(made.status.success(), "{}", made.err);
    let secret = made.out.lines().next().unwrap();
    let me = body(&api.as_token(secret, "GET", "/v1/whoami", &Value::Null));
    assert_eq!(
        (&me["role"], &me["apps"], &me["expires"]),
        (&json!("admin"), &Value::Null, &Value::Null)
    );
    let audit = body(&api.owner("GET", "/v1/audit?limit=1", &Value::Null));
    let line = &audit["items"][0];
    assert_eq!(line["action"], "token.recover");
    assert!(line["actor"].as_str().unwrap().contains("uid"), "{line}");
    assert!(!audit.to_string().contains(secret));
    // Now the first one may go, and the new one may not.
    assert_eq!(api.owner("DELETE", &format!("/v1/tokens/{owner}"), &Value::Null).status, 204);
    let all = body(&api.as_token(secret, "GET", "/v1/tokens", &Value::Null));
    let own = all["items"].as_array().unwrap().iter().find(|token| token["name"] == "recovered");
    let own = own.unwrap()["id"].as_str().unwrap();
    let status = api.as_token(secret, "DELETE", &format!("/v1/tokens/{own}"), &Value::Null).status;
    assert_eq!(status, 409);
    // Where there is no platform, none is made.
    let elsewhere = dir.join("elsewhere");
    recover.env("TOLV_HOME", &elsewhere);
    let none = run(&mut recover);
    assert_eq!(none.status.code(), Some(1));
    assert!(none.err.contains("there is no state of a `tolv serve`"), "{}", none.err);
    fs::create_dir(&elsewhere).unwrap();
    assert_eq!(run(&mut recover).status.code(), Some(1));
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing was made there");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&elsewhere, Some(4242), Some(4242)).unwrap();
        let foreign = run(&mut recover);
        assert!(foreign.err.contains("belongs to the user 4242"), "{}", foreign.err);
    }
}

#[test]
fn a_browser_on_another_site_is_refused_and_so_is_basic_outside_of_git() {
    let api = Api::new();
    let bearer = format!("Bearer {}", api.serve.token());
    let basic = format!("Basic {}", STANDARD.encode(format!("tolv:{}", api.serve.token())));
    let json_type = ("content-type", "application/json");
    for (name, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        for (method, path) in [("GET", "/v1/apps"), ("POST", "/v1/apps"), ("GET", "/metrics")] {
            let headers = [("authorization", bearer.as_str()), (name, value), json_type];
            let answer = api.send(method, path, &headers, b"");
            assert_eq!(answer.status, 403, "{name}: {value}: {method} {path}: {}", answer.text());
        }
    }
    let url = api.serve.url();
    let own = [("authorization", bearer.as_str()), ("origin", url.as_str())];
    assert_eq!(api.send("GET", "/v1/apps", &own, b"").status, 200);
    // What a browser sends by itself is no token but to git.
    for path in ["/v1/whoami", "/v1/apps", "/metrics"] {
        let answer = api.send("GET", path, &[("authorization", &basic)], b"");
        assert_eq!(answer.status, 401, "{path}: {}", answer.text());
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let path = "/git/shop/production.git/info/refs?service=git-receive-pack";
    assert_eq!(api.send("GET", path, &[("authorization", &basic)], b"").status, 200);
    // A form of another site cannot say that it is JSON.
    let new = br#"{"name": "forged"}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        let answer = api.send("POST", "/v1/apps", &headers, new);
        assert_eq!(answer.status, 415, "{kind}: {}", answer.text());
        assert_eq!(body(&answer)["code"], "unsupported-media-type");
    }
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/json; charset=utf-8")];
    assert_eq!(api.send("POST", "/v1/apps", &headers, new).status, 201);
}

/// Waits until the other end closes the connection; how long that took.
fn until_closed(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("still open: {error}"));
    begun.elapsed()
}

#[test]
fn silent_connections_are_closed_and_lock_nobody_out() {
    let api = Api::new();
    let address = api.serve.url().strip_prefix("http://").unwrap().to_owned();
    let connect = || TcpStream::connect(&address).unwrap();
    let (mut silent, mut half) = (connect(), connect());
    half.write_all(b"GET /v1/apps HTTP/1.1\r\nhost: x\r\nx-").unwrap();
    // One that has had its answer, and says nothing more.
    let mut kept = connect();
    kept.write_all(b"GET /v1/ HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // More than one peer may have: behind a proxy they are everybody's.
    let held: Vec<_> = (0..300).map(|_| connect()).collect();
    let me = api.owner("GET", "/v1/whoami", &Value::Null);
    assert_eq!(me.status, 200, "{}", me.text());
    for stream in [&mut silent, &mut half, &mut kept] {
        let waited = until_closed(stream);
        assert!(waited < Duration::from_secs(20), "{waited:?}");
    }
    drop(held);
}

/// A request that is sent, and whose answer is read by whoever wants it.
fn begun(api: &Api, token: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.serve.url().strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
fn what_a_token_follows_ends_with_the_token() {
    let shop = Shop::site("hello", &[]);
    shop.pushed(&["tolv", "main"]);
    let api = Api { serve: shop.serve };
    let make = |role: &str, expires: Value| {
        let new = json!({"name": role, "role": role, "apps": ["shop"], "expires_in": expires});
        let made = body(&api.owner("POST", "/v1/tokens", &new));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["token"]["id"]), text(&made["secret"]))
    };
    let deploy = "/v1/apps/shop/deploys/production";
    let new = json!({"argv": ["sleep", "100"]});
    let run = body(&api.owner("POST", &format!("{deploy}/runs"), &new));
    let output = format!("/v1/runs/{}/output?wait=60", run["id"].as_str().unwrap());
    let logs = format!("{deploy}/logs?follow=true");
    let ((_, brief), (viewer, view), (runner, run)) =
        (make("view", json!(4)), make("view", Value::Null), make("run", Value::Null));
    let mut streams = [
        begun(&api, &brief, &logs),
        begun(&api, &view, &logs),
        begun(&api, &run, &output),
        begun(&api, api.serve.token(), &logs),
    ];
    for followed in [0, 1, 3] {
        let mut head = [0; 12];
        streams[followed].read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    for id in [&viewer, &runner] {
        assert_eq!(api.owner("DELETE", &format!("/v1/tokens/{id}"), &Value::Null).status, 204);
    }
    for stream in &mut streams[..3] {
        let waited = until_closed(stream);
        assert!(waited < Duration::from_secs(15), "{waited:?}");
    }
    // That of another token goes on.
    let mut kept = [0; 1];
    streams[3].set_nonblocking(true).unwrap();
    loop {
        match streams[3].read(&mut kept) {
            Ok(count) => assert_ne!(count, 0, "the owner's stream has ended"),
            Err(error) => break assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn the_audit_log_tells_what_was_refused_from_what_was_done() {
    let api = Api::new();
    let new = json!({"name": "third"});
    assert_eq!(api.owner("POST", "/v1/apps", &new).status, 201);
    assert_eq!(api.owner("POST", "/v1/apps", &new).status, 409);
    let path = "/v1/apps/third/deploys/production/operations";
    assert_eq!(api.owner("POST", path, &json!({"kind": "stop"})).status, 202);
    let audit = body(&api.owner("GET", "/v1/audit?app=third", &Value::Null));
    let lines = audit["items"].as_array().unwrap().iter();
    let outcomes: Vec<_> = lines.map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["accepted", "refused: exists", "done"]);
    let shown = api.serve.tolv(&api.serve.folder("anywhere"), &["audit"]);
    assert!(shown.contains("OUTCOME") && shown.contains("refused: exists"), "{shown}");
}

#[test]
fn a_path_that_is_no_text_gets_a_problem_document() {
    let api = Api::new();
    for path in ["/v1/apps/%ff%fe", "/v1/apps/shop/deploys/%ff", "/v1/operations/%ff"] {
        let answer = api.owner("GET", path, &Value::Null);
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        assert_eq!(body(&answer)["code"], "invalid");
    }
}

#[test]
fn a_new_token_is_alone_on_standard_output_and_what_is_no_token_is_refused() {
    let api = Api::new();
    let dir = api.serve.folder("anywhere");
    let made = api.serve.ran(&dir, &["tokens", "create", "--role", "view"]);
    let secret = made.out.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("tolv_") && !secret.contains(char::is_whitespace), "{}", made.out);
    assert!(made.err.contains("not shown again") && !made.err.contains(secret), "{}", made.err);
    let mut command = api.serve.command(&dir, &["whoami"]);
    assert!(run(command.env("TOLV_TOKEN", secret)).status.success());
    for wrong in ["hunter2", "tolv_", "tolv_abc\nThis token is shown this once."] {
        let ran = run(command.env("TOLV_TOKEN", wrong));
        assert!(!ran.status.success());
        assert!(ran.err.contains("TOLV_TOKEN is not a token"), "{}", ran.err);
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
}

#[test]
fn what_listens_in_clear_beyond_the_machine_says_so() {
    let extra = [("TOLV_LISTEN", "0.0.0.0:0"), ("TOLV_SIZE", "memory=15T")];
    let open = Serve::start(env!("CARGO_BIN_EXE_tolv"), &extra);
    for said in ["is not encrypted", "API at http://127.0.0.1:", "TOLV_SIZE: memory 15T: at most "]
    {
        open.running().wait_for_line(|line| line.contains(said), SOON);
    }
    let own = Serve::start(env!("CARGO_BIN_EXE_tolv"), &[]);
    let lines = own.running().lines();
    assert!(!lines.iter().any(|line| line.text.contains("is not encrypted")), "{lines:?}");
}

#[test]
fn who_can_write_to_the_database_is_not_an_admin() {
    let mut api = Api::new();
    let database = api.serve.state().join("db.sqlite");
    let dir = api.serve.folder("anywhere");
    let change = |statement: &str| {
        let script = "import sqlite3, sys\n\
            db = sqlite3.connect(sys.argv[1], timeout=20)\n\
            assert db.execute(sys.argv[2]).rowcount == 1\ndb.commit()\n";
        let mut python = Command::new("/usr/bin/python3");
        let ran = run(python.args(["-c", script]).arg(&database).arg(statement));
        assert!(ran.status.success(), "{}", ran.err);
    };
    let viewer = api.token("view", Some("shop"));
    let status =
        |api: &Api, token: &str, path: &str| api.as_token(token, "GET", path, &Value::Null).status;
    assert_eq!(status(&api, &viewer, "/v1/whoami"), 200);
    change("UPDATE tokens SET role = 'admin', apps = NULL WHERE role = 'view'");
    assert_eq!(status(&api, &viewer, "/v1/tokens"), 401, "an edited row");
    // A row of their own, with the hash of a secret of their own (SHA-256, by Python's `hashlib`).
    let own = format!("tolv_{}", "a".repeat(40));
    let hashed = run(Command::new("/usr/bin/python3").args([
        "-c",
        "import hashlib, sys; print(hashlib.sha256(sys.argv[1].encode()).hexdigest())",
        &own,
    ]));
    let hash = hashed.out.trim();
    change(&format!(
        "INSERT INTO tokens (id, name, hash, role, created) \
         VALUES ('tok_00000000000000000000', 'mine', '{hash}', 'admin', 1)"
    ));
    for path in ["/v1/whoami", "/v1/tokens", "/metrics"] {
        assert_eq!(status(&api, &own, path), 401, "{path}");
    }
    let said = "was changed outside of the platform and is refused";
    api.serve.running().wait_for_line(|line| line.contains(said), SOON);
    let audit = body(&api.owner("GET", "/v1/audit", &Value::Null));
    let lines = audit["items"].as_array().unwrap().iter();
    let lines: Vec<_> = lines.filter(|line| line["action"] == "token.forged").collect();
    assert_eq!(lines.len(), 2, "{audit}");
    assert!(lines[0]["detail"].as_str().unwrap().contains("tok_00000000000000000000"));
    let listed = api.serve.tolv(&dir, &["tokens"]);
    assert_eq!(listed.matches("changed outside of the platform").count(), 2, "{listed}");
    // They do not count as tokens that can administrate, and go as any other.
    let owner = body(&api.owner("GET", "/v1/tokens", &Value::Null));
    let owner = owner["items"].as_array().unwrap().iter().find(|token| token["name"] == "owner");
    let owner = owner.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(api.owner("DELETE", &format!("/v1/tokens/{owner}"), &Value::Null).status, 409);
    // The next start names them again.
    api.serve.end(Signal::INT);
    api.serve.begin();
    api.serve.running().wait_for_line(|line| line.contains(said), SOON);
    assert_eq!(status(&api, &own, "/v1/whoami"), 401);
    api.serve.tolv(&dir, &["tokens", "revoke", "tok_00000000000000000000"]);
    let listed = api.serve.tolv(&dir, &["tokens"]);
    assert_eq!(listed.matches("changed outside of the platform").count(), 1, "{listed}");
}
