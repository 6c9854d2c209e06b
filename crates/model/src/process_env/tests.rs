use super::*;
use crate::formation::Formation;
use crate::name::Deploy;
use crate::release::ReleaseNumber;
use crate::slug::{Digest, SlugId};

fn release(config: &[(&str, &[u8])]) -> Release {
    let mut env = Env::default();
    for (name, value) in config {
        env.set(name.parse().unwrap(), *value).unwrap();
    }
    Release {
        deploy: Deploy { app: "shop".parse().unwrap(), name: "local".parse().unwrap() },
        number: ReleaseNumber(12),
        slug: SlugId(Digest([0; 32])),
        commit: Some("c0ffee+dirty".to_owned()),
        config: env,
        process_types: BTreeMap::new(),
        formation: Formation::default(),
    }
}

fn env(release: &Release, memory: Option<u64>) -> Vec<String> {
    let slug_env = BTreeMap::from([("NODE_ENV".to_owned(), "production".to_owned())]);
    let facts = Facts {
        release,
        process: &"web.2".parse().unwrap(),
        port: 20_001,
        home: "/app",
        slug_env: &slug_env,
        slug_path: &["/app/node_modules/.bin".to_owned()],
        stack_path: "/usr/bin:/bin",
        memory,
        cpu_percent: None,
    };
    let env = process_env(&facts).unwrap().to_execve();
    env.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

#[test]
fn the_contract_s_variables_are_all_there() {
    let slug = format!("TOLV_SLUG=sha256:{}", "0".repeat(64));
    assert_eq!(
        env(&release(&[("SECRET", b"a\n\xff")]), None),
        [
            "DYNO=web.2",
            "HEROKU_RELEASE_VERSION=v12",
            "HEROKU_SLUG_COMMIT=c0ffee+dirty",
            "HOME=/app",
            "LANG=C.UTF-8",
            "NODE_ENV=production",
            "PATH=/app/node_modules/.bin:/usr/bin:/bin",
            "PORT=20001",
            "PYTHONUNBUFFERED=1",
            "SECRET=a\n\u{fffd}",
            "TOLV_APP=shop",
            "TOLV_COMMIT=c0ffee+dirty",
            "TOLV_DEPLOY=local",
            "TOLV_PROCESS=web.2",
            "TOLV_RELEASE=v12",
            &slug,
        ]
    );
}

#[test]
fn the_platform_wins_over_config_and_config_over_the_slug() {
    let release = release(&[
        ("PORT", b"1"),
        ("HOME", b"/root"),
        ("NODE_ENV", b"test"),
        ("PYTHONUNBUFFERED", b""),
        ("PATH", b"/opt/bin"),
    ]);
    let env = env(&release, None);
    for line in [
        "PORT=20001",
        "HOME=/app",
        "NODE_ENV=test",
        "PYTHONUNBUFFERED=",
        "PATH=/app/node_modules/.bin:/opt/bin",
    ] {
        assert!(env.iter().any(|have| have == line), "{line}: {env:?}");
    }
}

#[test]
fn workers_follow_the_limits() {
    assert_eq!(concurrency(None, None), None);
    assert_eq!(concurrency(Some(512 << 20), None), Some(1));
    assert_eq!(concurrency(Some(64 << 20), Some(400)), Some(1));
    assert_eq!(concurrency(None, Some(150)), Some(3));
    let set = release(&[("WEB_CONCURRENCY", b"7")]);
    assert!(env(&set, Some(1 << 30)).contains(&"WEB_CONCURRENCY=7".to_owned()));
    assert!(env(&release(&[]), Some(1 << 30)).contains(&"WEB_CONCURRENCY=2".to_owned()));
}
