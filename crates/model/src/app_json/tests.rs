use std::time::Duration;

use jiff::Zoned;
use proptest::prelude::*;

use super::*;
use crate::health::{CheckAction, CheckKind};

const FULL: &str = r#"{
  "name": "Guestbook",
  "description": "Keeps greetings",
  "repository": "https://example.org/guestbook",
  "keywords": ["greeting"],
  "scripts": { "postdeploy": " bin/seed --all " },
  "env": {
    "GREETING": "hello",
    "SECRET_KEY": { "description": "Signs cookies", "generator": "secret" },
    "COLOR": { "value": "blue", "required": false }
  },
  "formation": { "web": { "quantity": 2, "size": "standard-2x" }, "worker": { "size": "768M" }, "release": { "size": "1G" } },
  "healthchecks": {
    "web": [
      { "type": "readiness", "name": "page", "path": "/up?deep=1", "port": 3000, "content": "ok",
        "httpHeaders": [{ "name": "Accept", "value": "text/plain" }], "scheme": "http",
        "attempts": 5, "timeout": 2, "wait": 1, "initialDelay": 3 },
      { "type": "liveness", "listening": true, "warn": true }
    ],
    "worker": [{ "command": ["bin/alive", "now"] }, { "type": "startup", "uptime": 20 }],
    "clock": []
  },
  "cron": [
    { "command": "bin/tidy", "schedule": "30 4 * * MON-FRI", "concurrency_policy": "forbid",
      "size": "256M" },
    { "command": "bin/mail", "schedule": "@daily" }
  ]
}"#;

fn app(text: &str) -> AppJson {
    AppJson::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// Errors of a text, one `line:column: message` each.
fn errors(text: &str) -> Vec<String> {
    let error = AppJson::parse(text.as_bytes()).expect_err(text);
    let show = |problem: &crate::source::Problem| {
        format!("{}:{}: {}", problem.line, problem.column, problem.message)
    };
    error.problems().map(show).collect()
}

fn warnings(text: &str) -> Vec<String> {
    app(text).warnings.iter().map(ToString::to_string).collect()
}

fn kind(name: &str) -> ProcessType {
    name.parse().unwrap()
}

#[test]
fn reads_everything() {
    let app = app(FULL);
    assert_eq!(app.warnings, []);
    assert_eq!(app.name.as_deref(), Some("Guestbook"));
    assert_eq!(app.description.as_deref(), Some("Keeps greetings"));
    assert_eq!(app.repository.as_deref(), Some("https://example.org/guestbook"));
    assert_eq!(app.postdeploy.as_deref(), Some("bin/seed --all"));
    let variable = |name: &str| app.env[&name.parse().unwrap()].clone();
    let value = |text: &str| Some(text.to_owned());
    let plain = Variable { description: None, value: None, required: true, generator: None };
    assert_eq!(variable("GREETING"), Variable { value: value("hello"), ..plain.clone() });
    assert_eq!(
        variable("SECRET_KEY"),
        Variable {
            description: value("Signs cookies"),
            generator: Some(Generator::Secret),
            ..plain.clone()
        }
    );
    assert_eq!(variable("COLOR"), Variable { value: value("blue"), required: false, ..plain });
    assert_eq!(app.formation().to_string(), "web=2");
    assert_eq!(
        app.sizes().to_string(),
        "cron-bin-tidy memory=256M; release memory=1G; web memory=1G,cpu-weight=200; worker memory=768M"
    );
    assert_eq!(app.formation[&kind("worker")].quantity, None);
}

#[test]
fn reads_checks() {
    let checks = app(FULL).checks();
    let types: Vec<_> = checks.keys().map(ProcessType::as_str).collect();
    assert_eq!(types, ["web", "worker"], "a type without a check gets the default");
    let page = HealthCheck {
        name: Some("page".to_owned()),
        kind: CheckKind::Readiness,
        attempts: 5,
        timeout: Duration::from_secs(2),
        wait: Duration::from_secs(1),
        initial_delay: Duration::from_secs(3),
        ..HealthCheck::new(CheckAction::Http {
            path: "/up?deep=1".to_owned(),
            port: Some(3000),
            headers: vec![("Accept".to_owned(), "text/plain".to_owned())],
            content: Some("ok".to_owned()),
        })
    };
    let listening = HealthCheck {
        kind: CheckKind::Liveness,
        warn_only: true,
        ..HealthCheck::new(CheckAction::Listening { port: None })
    };
    assert_eq!(checks[&kind("web")], [page, listening]);
    let words = vec!["bin/alive".to_owned(), "now".to_owned()];
    assert_eq!(
        checks[&kind("worker")],
        [
            HealthCheck::new(CheckAction::Command(words)),
            HealthCheck::new(CheckAction::Uptime(Duration::from_secs(20)))
        ]
    );
}

#[test]
fn reads_cron() {
    let jobs = app(FULL).cron;
    assert_eq!(jobs[0].command, "bin/tidy");
    assert_eq!(jobs[0].concurrency, Concurrency::Forbid);
    assert_eq!(jobs[1].concurrency, Concurrency::Allow);
    let next = |job: &CronJob, after: &str| {
        let after: Zoned = after.parse().unwrap();
        job.schedule.next(&after).unwrap().to_string()
    };
    // A Friday.
    assert_eq!(next(&jobs[0], "2026-01-02T04:30:00[UTC]"), "2026-01-05T04:30:00+00:00[UTC]");
    assert_eq!(next(&jobs[1], "2026-01-02T04:30:00[UTC]"), "2026-01-03T00:00:00+00:00[UTC]");
    assert_eq!(jobs[1].schedule.to_string(), "@daily");
}

#[test]
fn schedules_have_names_and_zones() {
    let jobs = app(r#"{"cron": [
            {"command": "bin/tidy", "schedule": "@daily"},
            {"command": "bin/tidy --all", "schedule": "@daily", "name": "bin-tidy-2"},
            {"command": "bin/tidy", "schedule": "@hourly", "timezone": "europe/oslo"}
        ]}"#)
    .cron;
    let names: Vec<_> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["bin-tidy", "bin-tidy-2", "bin-tidy-3"]);
    let zones: Vec<_> = jobs.iter().map(|job| job.zone.as_str()).collect();
    assert_eq!(zones, ["UTC", "UTC", "Europe/Oslo"]);
    // As it is recorded with a slug.
    let text = serde_json::to_string(&jobs).unwrap();
    assert_eq!(serde_json::from_str::<Vec<CronJob>>(&text).unwrap(), jobs);
}

#[test]
fn an_empty_object_says_nothing() {
    assert_eq!(app("{}"), AppJson::default());
    assert_eq!(app("\u{feff}{}"), AppJson::default());
}

#[test]
fn postdeploy_may_be_an_object() {
    let app = app(r#"{"scripts": {"postdeploy": {"command": "bin/seed", "size": "small"}}}"#);
    assert_eq!(app.postdeploy.as_deref(), Some("bin/seed"));
    assert_eq!(app.warnings, []);
}

#[test]
fn buildpacks_are_texts_or_objects_with_a_url() {
    let app = app(r#"{"buildpacks": ["heroku/nodejs", {"url": "https://git.example.org/a#v1"}]}"#);
    let texts: Vec<_> = app.buildpacks.iter().map(|pack| pack.as_str()).collect();
    assert_eq!(texts, ["heroku/nodejs", "https://git.example.org/a#v1"]);
    assert_eq!(app.warnings, []);
}

#[test]
fn what_has_no_effect_is_said() {
    let text = r#"{
  "formatoin": {},
  "addons": ["postgresql"],
  "buildpacks": [],
  "environments": {},
  "stack": "heroku-24",
  "scripts": { "dokku": {} },
  "env": { "PORT": "5000", "KEY": { "value": "a", "generator": "secret", "sync": true } },
  "formation": { "release": { "quantity": 1 }, "web": { "max parallel": 1, "size": "big" } },
  "healthchecks": { "web": [{ "uptime": 1, "port": 1, "onFailure": {} }] }
}"#;
    assert_eq!(
        warnings(text),
        [
            "app.json:2:3: key `formatoin` is not known and has no effect",
            "app.json:3:3: key `addons` has no effect",
            "app.json:5:3: key `environments` has no effect",
            "app.json:6:3: key `stack` has no effect",
            "app.json:7:16: key `scripts.dokku` is not known and has no effect",
            "app.json:8:12: variable `PORT` is set by the platform: what this says has no effect",
            "app.json:8:51: `env.KEY.generator` has no effect beside `env.KEY.value`",
            "app.json:8:74: key `env.KEY.sync` is not known and has no effect",
            "app.json:9:18: `formation.release` has no effect",
            "app.json:9:57: key `formation.web[\"max parallel\"]` is not known and has no effect",
            "app.json:9:84: `formation.web.size` is `\"big\"`, which has no effect",
            "app.json:10:44: `healthchecks.web[0].port` has no effect beside \
             `healthchecks.web[0].uptime`",
            "app.json:10:55: key `healthchecks.web[0].onFailure` is not known and has no effect",
        ]
    );
    assert!(app(text).env.keys().all(|name| name.as_str() == "KEY"));
    assert_eq!(app(text).formation().to_string(), "");
}

#[test]
fn a_wrong_type_is_an_error_with_place_and_path() {
    let cases = [
        ("[]", "1:1: `app.json` is an array; it takes an object in `{` and `}`"),
        (r#"{"name": 1}"#, "1:10: `name` is a number; it takes a string"),
        (
            r#"{"buildpacks": [{"url": "file:///etc"}]}"#,
            "1:25: `buildpacks[0].url`: the buildpack `file:///etc` is not fetched: write the https \
             URL of its git repository",
        ),
        (r#"{"env": []}"#, "1:9: `env` is an array; it takes an object in `{` and `}`"),
        (r#"{"env": {"A": 1}}"#, "1:15: `env.A` is a number; it takes a string"),
        (r#"{"env": {"A": null}}"#, "1:15: `env.A` is null; it takes a string"),
        (r#"{"env": {"A B": ""}}"#, "1:10: `A B` is not a variable name"),
        (
            r#"{"env": {"A": {"required": "no"}}}"#,
            "1:28: `env.A.required` is a string; it takes `true` or `false`",
        ),
        (
            r#"{"env": {"A": {"generator": "uuid"}}}"#,
            "1:29: `env.A.generator` is `\"uuid\"`; it takes `\"secret\"`",
        ),
        (
            r#"{"env": {"A": "\u0000"}}"#,
            "1:15: `env.A` has a NUL byte, which no process environment can carry",
        ),
        (
            r#"{"formation": {"web": {"quantity": "2"}}}"#,
            "1:36: `formation.web.quantity` is a string; it takes a whole number from 0 to 1000",
        ),
        (
            r#"{"formation": {"web": {"quantity": 2.5}}}"#,
            "1:36: `formation.web.quantity` is 2.5; it takes a whole number from 0 to 1000",
        ),
        (
            r#"{"formation": {"web": {"quantity": 1001}}}"#,
            "1:36: `formation.web.quantity` is 1001; it takes a whole number from 0 to 1000",
        ),
        (
            r#"{"formation": {"the web": {}}}"#,
            "1:16: `the web` in `formation` is not a process type",
        ),
        (r#"{"scripts": {"postdeploy": " "}}"#, "1:28: `scripts.postdeploy` is empty"),
        (r#"{"cron": [{"schedule": "@daily"}]}"#, "1:11: `cron[0]` has no `command`"),
        (
            r#"{"cron": [{"command": "a", "schedule": "@daily", "concurrency_policy": "queue"}]}"#,
            "1:72: `cron[0].concurrency_policy` is `\"queue\"`; it takes `\"allow\"` or \
             `\"forbid\"` or `\"replace\"`",
        ),
    ];
    for (text, wanted) in cases {
        assert_eq!(errors(text), [wanted], "{text}");
    }
}

#[test]
fn a_wrong_check_is_an_error() {
    let cases = [
        ("{}", "`healthchecks.web[0]` does not say what to check"),
        (r#"{"listening": false}"#, "`healthchecks.web[0]` does not say what to check"),
        (
            r#"{"listening": "yes"}"#,
            "`healthchecks.web[0].listening` is a string; it takes `true` or `false`",
        ),
        (r#"{"path": "/", "uptime": 1}"#, "`healthchecks.web[0]` has both `path` and `uptime`"),
        (r#"{"path": "up"}"#, "`healthchecks.web[0].path` is not a path of a URL"),
        (r#"{"path": "/a b"}"#, "`healthchecks.web[0].path` is not a path of a URL"),
        (
            r#"{"path": "/", "scheme": "https"}"#,
            "`healthchecks.web[0].scheme` is `\"https\"`; it takes `\"http\"`",
        ),
        (
            r#"{"path": "/", "httpHeaders": [{"name": "a b", "value": ""}]}"#,
            "`healthchecks.web[0].httpHeaders[0].name` is not the name of a header",
        ),
        (
            r#"{"path": "/", "httpHeaders": [{"name": "a", "value": "x\r\nHost: y"}]}"#,
            "`healthchecks.web[0].httpHeaders[0].value` is not the value of a header",
        ),
        (r#"{"command": []}"#, "`healthchecks.web[0].command` names no program"),
        (
            r#"{"command": "bin/up"}"#,
            "`healthchecks.web[0].command` is a string; it takes an array in `[` and `]`",
        ),
        (
            r#"{"path": "/", "port": 0}"#,
            "`healthchecks.web[0].port` is 0; it takes a whole number from 1 to 65535",
        ),
        (
            r#"{"path": "/", "timeout": -1}"#,
            "`healthchecks.web[0].timeout` is -1; it takes a whole number from 1 to 86400",
        ),
        (
            r#"{"path": "/", "type": "ready"}"#,
            "`healthchecks.web[0].type` is `\"ready\"`; it takes `\"startup\"` or \
             `\"readiness\"` or `\"liveness\"`",
        ),
    ];
    for (check, wanted) in cases {
        let found = errors(&format!(r#"{{"healthchecks": {{"web": [{check}]}}}}"#));
        let messages: Vec<_> =
            found.iter().filter_map(|error| Some(error.split_once(": ")?.1)).collect();
        assert_eq!(messages, [wanted], "{check}");
    }
}

#[test]
fn all_errors_are_found_at_once_in_order() {
    let text = "{\n  \"name\": 1,\n  \"cron\": {},\n  \"env\": {\n    \"1\": \"\"\n  }\n}";
    assert_eq!(
        errors(text),
        [
            "2:11: `name` is a number; it takes a string",
            "3:11: `cron` is an object; it takes an array in `[` and `]`",
            "5:5: `1` is not a variable name",
        ]
    );
}

#[test]
fn schedules() {
    let fine = [
        "* * * * *",
        " 0  4 * * 1 ",
        "*/5 0-6,12 1,15 JAN-MAR mon",
        "0 0 L * *",
        "0 0 15W * *",
        "0 0 * * FRI#2",
        "0 0 * * 5L",
        "0 0 29 2 *",
        "@Hourly",
        "@yearly",
    ];
    for text in fine {
        let schedule: Schedule = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(schedule.to_string(), text.trim());
    }
    let wrong = [
        ("", "it has 0 fields, not five"),
        ("* * * *", "it has 4 fields, not five"),
        ("0 * * * * *", "it has 6 fields, not five"),
        ("every day", "it has 2 fields, not five"),
        ("@reboot", "`@reboot` is not known"),
        ("@every 5m", "`@every 5m` is not known"),
        ("* * * * 5MON", "`5MON` is not known"),
        ("MON * * * *", "`MON` is not known"),
        ("0 0 30 2 *", "no day of any year matches it"),
    ];
    for (text, wanted) in wrong {
        assert_eq!(text.parse::<Schedule>().unwrap_err().to_string(), wanted, "{text}");
    }
    for text in
        ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "5-1 * * * *", "*/0 * * * *"]
    {
        assert!(matches!(text.parse::<Schedule>(), Err(ScheduleError::Field(_))), "{text}");
    }
}

#[test]
fn a_file_full_of_problems_is_no_book() {
    let members: Vec<_> = (0..20_000).map(|number| format!("\"key {number}\": 1")).collect();
    let app = app(&format!("{{{}}}", members.join(", ")));
    assert_eq!(app.warnings.len(), crate::source::MOST_PROBLEMS);
}

#[test]
fn a_file_has_bounds() {
    let refused = |text: &str| AppJson::parse(text.as_bytes()).unwrap_err().to_string();
    let types = |most: usize| {
        let types: Vec<_> = (0..most).map(|n| format!("\"t{n}\": {{\"quantity\": 1}}")).collect();
        format!("{{\"formation\": {{{}}}}}", types.join(", "))
    };
    assert_eq!(app(&types(256)).formation.len(), 256);
    assert!(refused(&types(257)).contains("`formation` has 257 entries, more than 256"));
    let jobs = vec!["{\"command\": \"true\", \"schedule\": \"0 0 * * *\"}"; 257].join(", ");
    assert!(refused(&format!("{{\"cron\": [{jobs}]}}")).contains("more than 256"));
    let variables: Vec<_> = (0..1025).map(|n| format!("\"V{n}\": \"\"")).collect();
    assert!(refused(&format!("{{\"env\": {{{}}}}}", variables.join(","))).contains("1024"));
    let long = format!("{{\"description\": \"{}\"}}", "x".repeat(crate::source::MAX_FILE));
    assert_eq!(refused(&long), "app.json:1:1: the file has 524307 bytes, more than 524288");
    let negative = "{\"formation\": {\"web\": {\"size\": \"-1G\"}}}";
    assert!(refused(negative).contains("`-1G` is not a size"));
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in any::<String>()) {
        AppJson::parse(&bytes).ok();
        AppJson::parse(text.as_bytes()).ok();
    }

    /// A word of the file in another's place.
    #[test]
    fn never_panics_near_what_is_right(from in 0..FULL.len(), to in 0..FULL.len(), at in 0..FULL.len()) {
        let piece = &FULL[from.min(to)..from.max(to)];
        let text = format!("{}{piece}{}", &FULL[..at], &FULL[at..]);
        AppJson::parse(text.as_bytes()).ok();
    }

    #[test]
    fn no_schedule_panics(text in "[-0-9*/,#LWAFMONRI+? ]{0,16}", fields in proptest::collection::vec("[-0-9*/,#LW+?]{1,4}", 5)) {
        text.parse::<Schedule>().ok();
        fields.join(" ").parse::<Schedule>().ok();
    }
}
