//! What is done after the packages are there.

use super::*;

#[test]
fn static_files_of_django_are_collected() {
    let settings = "INSTALLED_APPS = ['django.contrib.staticfiles']\nSTATIC_ROOT = 'static'\n";
    let of = |others: &[(&str, &str)]| {
        let mut files = vec![
            ("requirements.txt", "django==5.2.1\n"),
            ("site/manage.py", ""),
            ("site/shop/settings.py", settings),
        ];
        files.extend(others);
        machine(&files).plan().unwrap()
    };
    let is_collected = |plan: &Plan| steps(plan).iter().any(|step| step.contains("collectstatic"));
    let plan = of(&[]);
    let step = plan.steps.last().unwrap();
    assert!(words(step).join(" ").ends_with("/venv/bin/python manage.py collectstatic --noinput"));
    assert_eq!(step.cwd, Layout::sandboxed().app.join("site"));
    assert!(step.env.contains_key("SECRET_KEY") && step.env.contains_key("VIRTUAL_ENV"));
    assert!(help(step, "django.core.exceptions.ImproperlyConfigured: x").unwrap().contains("env"));
    assert!(help(step, "anything").unwrap().contains("DISABLE_COLLECTSTATIC"));

    let declared = r#"{"env": {"DISABLE_COLLECTSTATIC": {"value": "1"}}}"#;
    let plan = of(&[("app.json", declared)]);
    assert!(!is_collected(&plan) && plan.notes.iter().any(|note| note.contains("app.json")));
    let declared =
        r#"{"env": {"DISABLE_COLLECTSTATIC": "0", "MODE": "web", "KEY": {"generator": "secret"}}}"#;
    let plan = of(&[("app.json", declared)]);
    assert!(is_collected(&plan));
    let step = plan.steps.last().unwrap();
    assert!(step.env["MODE"] == "web" && step.env.contains_key("KEY"));
    let plan = of(&[("site/shop/settings.py", "'django.contrib.staticfiles'\n# STATIC_ROOT = ''")]);
    assert!(!is_collected(&plan) && plan.notes.iter().any(|note| note.contains("STATIC_ROOT")));
    assert!(!is_collected(&of(&[("site/shop/settings.py", "STATIC_ROOT = 1")])));
    assert!(!is_collected(&of(&[("requirements.txt", "six==1.17.0")])));
}

#[test]
fn hooks_run_before_and_after() {
    let files = [
        ("requirements.txt", ""),
        ("bin/pre_compile", "echo one\n"),
        ("bin/post_compile", "#!/usr/bin/env bash\necho two\n"),
    ];
    let plan = machine(&files).plan().unwrap();
    let all: Vec<_> = plan.steps.iter().map(|step| words(step).join(" ")).collect();
    assert_eq!(all[0], "sh /app/bin/pre_compile");
    assert_eq!(all[all.len() - 2..], ["chmod +x /app/bin/post_compile", "/app/bin/post_compile"]);
    assert_eq!(plan.steps[0].env["PYTHONDONTWRITEBYTECODE"], "1");
}
