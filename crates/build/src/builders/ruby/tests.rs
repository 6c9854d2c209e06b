use super::super::tests::{Machine, help, words};
use tolv_model::name::ProcessType;

const LOCK: &str = "GEM\n  remote: https://rubygems.org/\n  specs:\n    puma (6.4.0)\n    rack (3.0.8)\n\n\
                    PLATFORMS\n  ruby\n\nDEPENDENCIES\n  puma\n";
const RAILS: &str = "GEM\n  specs:\n    railties (7.1.0)\n    pg (1.5.4)\n    propshaft (1.0.0)\n";

/// With a Ruby that says it is this version, and has Bundler.
fn machine(files: &[(&str, &str)], version: &str) -> Machine {
    let machine = Machine::new(files);
    let (bin, root) = (machine.path("opt/ruby/bin/ruby"), machine.path("opt/ruby"));
    machine.script("opt/ruby/bin/ruby", "");
    let said = format!(
        "printf '%s\\n' ruby {version} 3.1.0 {} 2.3.15 {} true",
        root.display(),
        bin.display()
    );
    machine.script("bin/ruby", &said);
    machine
}

#[test]
fn gems_are_a_layer_and_the_server_is_found() {
    let files = [("Gemfile", "gem 'puma'"), ("Gemfile.lock", LOCK), ("config.ru", "run 1")];
    let machine = machine(&files, "9.1.2");
    let plan = machine.plan().unwrap();
    assert_eq!(plan.builder, "ruby");
    let layer = &plan.layers[0];
    assert_eq!(words(&layer.steps[0]), ["bundle", "install", "--quiet"]);
    assert_eq!(layer.links, [("vendor/bundle".to_owned(), "gems".to_owned())]);
    let copied: Vec<_> = layer.copies.iter().map(|(from, _)| from.as_str()).collect();
    assert_eq!(copied, ["Gemfile", "Gemfile.lock"]);
    assert_eq!(plan.env["BUNDLE_WITHOUT"], "development:test");
    assert_eq!(plan.env["BUNDLER_VERSION"], "2.3.15");
    assert_eq!(plan.path[1], "/app/vendor/bundle/ruby/3.1.0/bin");
    assert!(plan.process_types[&ProcessType::web()].starts_with("bundle exec puma --bind "));
    assert!(plan.steps.is_empty());
    assert!(
        help(&layer.steps[0], "Your bundle only supports platforms [\"arm64-darwin\"]").is_some()
    );
}

#[test]
fn another_gem_another_layer_and_another_source_file_the_same() {
    let key = |files: &[(&str, &str)]| {
        machine(files, "9.1.2").plan().unwrap().layers.remove(0).copies.len()
    };
    let base = [("Gemfile", "gem 'puma'"), ("Gemfile.lock", LOCK)];
    assert_eq!(key(&[&base[..], &[("app.rb", "1")]].concat()), 2);
    let reads = [("Gemfile", "eval_gemfile 'other'\n# 'app.rb'"), ("Gemfile.lock", LOCK)];
    let files = [&reads[..], &[("app.rb", "1"), ("other", "gem 'x', path: 'y.rb'"), ("y.rb", "")]];
    assert_eq!(key(&files.concat()), 4);
    let gem =
        [("Gemfile", "gemspec"), ("Gemfile.lock", "PATH\n  remote: .\n  specs:\n    a (1)\n")];
    assert_eq!(key(&[&gem[..], &[("a.gemspec", ""), ("lib/a/version.rb", "")]].concat()), 4);
    let engine = [
        ("Gemfile", "gem 'shop', path: 'engines/shop'"),
        ("Gemfile.lock", "PATH\n  remote: engines/shop\n  specs:\n    shop (1)\n"),
        ("engines/shop/shop.gemspec", ""),
        ("engines/shopping/not", ""),
    ];
    assert_eq!(key(&engine), 3);
    let outside =
        [("Gemfile", "path: '../../etc'"), ("Gemfile.lock", "PATH\n  remote: ../../etc\n")];
    assert_eq!(key(&outside), 2);
}

#[test]
fn what_the_codebase_holds_is_not_fetched() {
    let base =
        [("Gemfile", "gem 'puma'"), ("Gemfile.lock", LOCK), ("vendor/cache/puma-6.4.0.gem", "")];
    let plan = machine(&base, "9.1.2").plan().unwrap();
    assert_eq!(words(&plan.layers[0].steps[0]), ["bundle", "install", "--quiet"]);
    assert!(plan.warnings[0].contains("lacks rack 3.0.8: they are fetched"), "{:?}", plan.warnings);
    let all = [&base[..], &[("vendor/cache/rack-3.0.8.gem", "")]].concat();
    let plan = machine(&all, "9.1.2").plan().unwrap();
    assert_eq!(words(&plan.layers[0].steps[0]), ["bundle", "install", "--quiet", "--local"]);
    assert_eq!(plan.layers[0].copies.len(), 4);
    assert!(plan.warnings.is_empty());
}

#[test]
fn rails_gets_its_assets_and_a_server() {
    let base = [
        ("Gemfile", "gem 'rails'"),
        ("Gemfile.lock", RAILS),
        ("config/application.rb", ""),
        ("Rakefile", ""),
    ];
    let plan = machine(&base, "9.1.2").plan().unwrap();
    let step = plan.steps.last().unwrap();
    assert_eq!(words(step)[..4], ["bundle", "exec", "ruby", "-e"]);
    assert_eq!(step.env["SECRET_KEY_BASE_DUMMY"], "1");
    assert!(step.env["DATABASE_URL"].to_string_lossy().starts_with("postgres://"));
    assert_eq!(plan.env["RAILS_ENV"], "production");
    assert_eq!(
        plan.secrets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["SECRET_KEY_BASE"]
    );
    assert!(plan.process_types[&ProcessType::web()].contains("rails server"));
    let compiled = [&base[..], &[("public/assets/.manifest.json", "{}")]].concat();
    let plan = machine(&compiled, "9.1.2").plan().unwrap();
    assert!(plan.steps.is_empty());
}

#[test]
fn the_version_is_the_wanted_one() {
    let ask = |gemfile: &str, file: &str| {
        let files = [
            ("Gemfile", gemfile),
            ("Gemfile.lock", LOCK),
            (".ruby-version", file),
            ("config.ru", ""),
        ];
        machine(&files, "9.1.2").plan().map(|plan| (plan.notes[0].clone(), plan.warnings))
    };
    let (note, warnings) = ask("ruby '~> 9.1'\n", "1.0").unwrap();
    assert_eq!(note, "Ruby 9.1.2, as wanted: ~> 9.1 (Gemfile)");
    assert!(warnings.is_empty());
    let (note, warnings) = ask("ruby file: '.ruby-version'\n", "ruby-9.1.4\n").unwrap();
    assert_eq!(note, "Ruby 9.1.2, as wanted: ruby-9.1.4 (.ruby-version)");
    assert!(warnings[0].contains("the nearest of that line"), "{warnings:?}");
    let refused = ask("ruby '9.1.4'\n", "").unwrap_err();
    assert!(refused.to_string().contains("Ruby 9.1.4 (Gemfile)"), "{refused}");
    assert!(refused.help().unwrap().contains("/opt/rubies"), "{refused}");
    let refused = ask("", "jruby-9.4").unwrap_err();
    assert!(refused.to_string().contains("does not understand"), "{refused}");
}

#[test]
fn a_gemfile_needs_its_lock() {
    let (problem, help) = machine(&[("Gemfile", "")], "9.1.2").refusal();
    assert!(problem.contains("no `Gemfile.lock`"), "{problem}");
    assert!(help.contains("bundle lock"), "{help}");
}

#[test]
fn a_gemfile_of_a_tool_makes_no_app_in_ruby() {
    let node = [("package.json", "{}"), ("Gemfile", ""), ("Gemfile.lock", LOCK)];
    let is_ruby =
        |more: &[(&str, &str)]| super::detect(&Machine::new(&[&node[..], more].concat()).tree());
    assert!(!is_ruby(&[]));
    assert!(is_ruby(&[("config.ru", "")]));
    assert!(is_ruby(&[("Procfile", "web: bundle exec puma\n")]));
    assert!(is_ruby(&[("Procfile", "web: bin/rails s\n"), ("bin/rails", "#!/usr/bin/env ruby\n")]));
    assert!(!is_ruby(&[("Procfile", "web: node x.js\n")]));
}
