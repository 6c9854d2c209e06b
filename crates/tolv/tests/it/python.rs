//! Python codebases as people have them: ranges, Django's static files, hooks.

use std::path::Path;
use std::process::Command;

use tolv_testkit::{Home, git};

use crate::{output, shop, stderr, stdout, tolv};

/// The program in the codebase's folder, with a state folder beside it.
fn run(home: &Home, arguments: &[&str]) -> Command {
    let mut command = tolv();
    command.args(arguments).current_dir(shop(home)).env("TOLV_HOME", home.path().join("state"));
    command
}

const SETTINGS: &str = r#"
import os
SECRET_KEY = os.environ["SECRET_KEY"]
INSTALLED_APPS = ["django.contrib.staticfiles"]
STATIC_URL = "static/"
STATIC_ROOT = "collected"
STATICFILES_DIRS = ["assets"]
STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}
"#;

const MANAGE: &str = "import os, sys
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'settings')
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
";

fn tree(result: &serde_json::Value) -> &Path {
    Path::new(result["tree"].as_str().unwrap())
}

#[test]
fn ranges_are_locked_and_static_files_collected() {
    let home = Home::new();
    home.write("shop/Procfile", "web: python manage.py runserver --noreload 0.0.0.0:$PORT\n");
    home.write("shop/requirements.txt", "django>=5.2,<5.2.2\n");
    home.write("shop/.gitignore", ".python-version\n");
    home.write("shop/.python-version", "2.7\n");
    home.write("shop/manage.py", MANAGE);
    home.write("shop/settings.py", SETTINGS);
    home.write("shop/assets/style.css", "body { color: teal }\n");
    home.write("shop/bin/post_compile", "#!/bin/sh\necho hook of $VIRTUAL_ENV; touch hooked\n");
    git::commit(&shop(&home));

    let refused = output(run(&home, &["build"]).env("TOLV_REQUIRE_LOCK", "1"));
    let text = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("`django>=5.2,<5.2.2` (requirements.txt line 1)"), "{text}");
    assert!(text.contains("hint: run `tolv lock` and commit what it writes"), "{text}");

    let first = output(&mut run(&home, &["build", "--json"]));
    let text = stderr(&first);
    assert!(first.status.success(), "{text}");
    for part in [
        "-----> Resolving requirements.txt",
        "django 5.2.1",
        "!     requirements.txt is no lock",
        "!     git ignores `.python-version`",
        "-----> Collecting static files",
        "-----> Running bin/post_compile",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let first: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert!(tree(&first).join("collected/staticfiles.json").is_file());
    assert!(tree(&first).join("hooked").is_file() && !tree(&first).join("__pycache__").exists());
    assert_eq!(first["env"]["VIRTUAL_ENV"], "/app/.venv");

    // `tolv lock` writes what was built, and then a lock may be required.
    let locked = output(&mut run(&home, &["lock"]));
    assert!(locked.status.success(), "{}", stderr(&locked));
    assert!(stdout(&locked).starts_with("Wrote requirements.lock with "), "{}", stdout(&locked));
    let lock = std::fs::read_to_string(shop(&home).join("requirements.lock")).unwrap();
    assert!(lock.contains("django==5.2.1") && lock.contains("--hash=sha256:"), "{lock}");
    let second = output(run(&home, &["build", "--json"]).env("TOLV_REQUIRE_LOCK", "1"));
    assert!(second.status.success(), "{}", stderr(&second));
    let second: serde_json::Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!(second["layers"], first["layers"]);
    let again = output(&mut run(&home, &["lock"]));
    assert_eq!(stdout(&again), "", "{}", stderr(&again));

    // What fails is told by the line that says why, and by what switches it off.
    home.write("shop/settings.py", format!("{SETTINGS}\nos.environ['SHOP_DATABASE']\n"));
    let failed = output(&mut run(&home, &["build"]));
    let text = stderr(&failed);
    let error = text.split("error: ").last().unwrap();
    assert!(
        error.contains(
            "manage.py collectstatic --noinput` exited with status 1: KeyError: 'SHOP_DATABASE'"
        ),
        "{error}"
    );
    assert!(error.contains("DISABLE_COLLECTSTATIC"), "{error}");
    let off = output(run(&home, &["build"]).env("DISABLE_COLLECTSTATIC", "1"));
    assert!(off.status.success(), "{}", stderr(&off));
    assert!(stderr(&off).contains("DISABLE_COLLECTSTATIC is set in the environment"));
}

#[test]
fn what_tolv_cannot_lock_is_told() {
    let home = Home::new();
    home.write("shop/Procfile", "web: ./run\n");
    let ended = output(&mut run(&home, &["lock"]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(stderr(&ended).contains("nothing that Tolv can lock here"), "{}", stderr(&ended));
}
