use std::path::PathBuf;

use tolv_model::name::DeployName;
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::{Digest, SlugId};
use tolv_sandbox::Level;

use super::*;
use crate::fixture::{plan, settings};

/// A plan whose release or target was changed.
fn changed(change: impl FnOnce(&mut Target)) -> Plan {
    let mut plan = plan("web.1", "serve");
    change(Arc::make_mut(&mut plan.target));
    plan
}

fn release(target: &mut Target) -> &mut tolv_model::release::Release {
    Arc::make_mut(&mut target.release)
}

fn value(plan: &Plan, level: Level, name: &str) -> Option<String> {
    let logs = tempfile::tempdir().unwrap();
    let mut settings = settings(level, logs.path());
    settings.search_path = "/host/bin".to_owned();
    let env = plan.env(&settings, 20_001).unwrap();
    env.get(name).map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
}

#[test]
fn the_same_process_of_the_same_release_is_kept() {
    let one = plan("web.1", "serve");
    assert!(one.is_same(&plan("web.1", "serve")));
    // What the formation says of others does not concern it.
    assert!(one.is_same(&changed(|target| release(target).formation.0.clear())));
    assert!(!one.is_same(&plan("web.2", "serve")));
    assert!(!one.is_same(&plan("web.1", "serve --fast")));
    assert!(!one.is_same(&changed(|target| release(target).number = ReleaseNumber(2))));
    let other = SlugId(Digest::of(b"other"));
    assert!(!one.is_same(&changed(|target| release(target).slug = other)));
    assert!(!one.is_same(&changed(|target| {
        release(target).config.set("A".parse().unwrap(), "1").unwrap();
    })));
}

#[test]
fn the_sandbox_is_named_for_the_process_and_owned_by_the_deploy() {
    let logs = tempfile::tempdir().unwrap();
    let settings = settings(Level::Strict, logs.path());
    let plan = changed(|target| {
        release(target).deploy.name = DeployName::local();
        target.limits.default.memory = Some(1 << 30);
    });
    let spec = plan.spec(&settings, 20_000);
    assert_eq!((&*spec.hostname, &*spec.identity), ("web.1", "shop/local"));
    assert_eq!((spec.level, spec.limits.memory), (Level::Strict, Some(1 << 30)));
    assert_eq!(spec.mounts, plan.target.mounts);
    let long = format!("{}.1", "x".repeat(63));
    assert_eq!(crate::fixture::plan(&long, "x").spec(&settings, 1).hostname.len(), HOST_NAME);
}

#[test]
fn with_a_root_of_its_own_it_sees_the_paths_of_the_contract() {
    let plan = changed(|target| {
        target.slug_path = vec!["/app/bin".to_owned(), "/layers/abc/bin".to_owned()];
        target.slug_env.insert("NODE_PATH".to_owned(), "/layers/abc/lib:/app/lib".to_owned());
    });
    let value = |name| value(&plan, Level::Strict, name).unwrap();
    assert_eq!(value("HOME"), "/app");
    assert_eq!(value("PATH"), format!("/app/bin:/layers/abc/bin:{STACK_PATH}"));
    assert_eq!(value("NODE_PATH"), "/layers/abc/lib:/app/lib");
    assert_eq!((value("PORT"), value("DYNO")), ("20001".to_owned(), "web.1".to_owned()));
}

#[test]
fn without_one_it_sees_where_they_are_on_the_host() {
    let plan = changed(|target| {
        target.slug_path = vec!["/app/bin".to_owned(), "/opt/tool".to_owned()];
        for (name, value) in
            [("NODE_PATH", "/layers/abc/lib:relative:/app"), ("FLAG", "a:/app"), ("EMPTY", "")]
        {
            target.slug_env.insert(name.to_owned(), value.to_owned());
        }
    });
    let value = |name| value(&plan, Level::Landlock, name).unwrap();
    assert_eq!(value("HOME"), "/srv/slug");
    assert_eq!(value("PATH"), "/srv/slug/bin:/opt/tool:/host/bin");
    assert_eq!(value("NODE_PATH"), "/srv/layer/lib:relative:/srv/slug");
    assert_eq!((value("FLAG"), value("EMPTY")), ("a:/app".to_owned(), String::new()));
}

#[test]
fn config_is_given_as_it_is() {
    let plan = changed(|target| {
        let config = &mut release(target).config;
        config.set("DIR".parse().unwrap(), "/app").unwrap();
        config.set("BYTES".parse().unwrap(), b"a\xff\n".to_vec()).unwrap();
    });
    assert_eq!(value(&plan, Level::None, "DIR").unwrap(), "/app");
    let logs = tempfile::tempdir().unwrap();
    let orders = plan.orders(&settings(Level::None, logs.path()), 1, 7).unwrap();
    assert!(orders.env.contains(&b"BYTES=a\xff\n".to_vec()));
}

#[test]
fn a_simple_command_replaces_the_shell_and_another_keeps_it() {
    let logs = tempfile::tempdir().unwrap();
    for (level, cwd) in [(Level::User, "/app"), (Level::None, "/srv/slug")] {
        let settings = settings(level, logs.path());
        let orders = |command| plan("web.1", command).orders(&settings, 20_001, 7).unwrap();
        let simple = orders("serve --port $PORT");
        assert_eq!(simple.argv, [&b"/bin/sh"[..], b"-c", b"exec serve --port $PORT"]);
        assert_eq!((&*simple.head.process, &*simple.head.cwd), ("web.1", cwd));
        assert_eq!(simple.head.identity, None);
        assert!(simple.env.contains(&b"PORT=20001".to_vec()));
        let compound = orders("migrate && serve");
        assert_eq!(compound.argv[2], b"migrate && serve");
    }
}

#[test]
fn the_digest_is_of_all_that_is_run() {
    let of = |plan: &Plan| plan.digest(Level::Strict);
    let released = |change: &dyn Fn(&mut tolv_model::release::Release)| {
        of(&changed(|target| change(release(target))))
    };
    let mut all = vec![
        of(&plan("web.1", "serve")),
        plan("web.1", "serve").digest(Level::User),
        of(&plan("web.2", "serve")),
        of(&plan("web.1", "serve2")),
        of(&changed(|target| target.limits.default.memory = Some(1 << 30))),
        released(&|release| release.number.0 += 1),
        released(&|release| release.slug = SlugId(Digest::of(b"another"))),
        released(&|release| release.config.set("A".parse().unwrap(), b"1").unwrap()),
        released(&|release| release.config.set("A".parse().unwrap(), b"2").unwrap()),
        released(&|release| release.deploy.name = "other".parse().unwrap()),
    ];
    assert_eq!(all[0], released(&|_| {}));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn a_program_beside_it_has_its_environment() {
    let logs = tempfile::tempdir().unwrap();
    let settings = settings(Level::Landlock, logs.path());
    let argv = ["check".to_owned(), "a b".to_owned()];
    let exec = plan("web.2", "serve").beside(&settings, 20_001, &argv).unwrap();
    assert_eq!(exec.argv, [b"check".to_vec(), b"a b".to_vec()]);
    assert_eq!(exec.cwd, PathBuf::from("/srv/slug"));
    assert!(exec.env.contains(&b"TOLV_PROCESS=web.2".to_vec()));
    assert!(exec.env.contains(&b"PORT=20001".to_vec()));
}
