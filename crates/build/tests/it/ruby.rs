//! Ruby apps whose gems are in the codebase: one of Ruby alone, one that is compiled.

use std::fs;
use std::path::Path;
use std::process::Command;

use tolv_testkit::Home;

use crate::packages::run;
use crate::{assert_nothing_left, build, refusal, request};

/// Makes a gem of files, below `vendor/cache` of an app.
fn gem(app: &Home, name: &str, extension: &str, files: &[(&str, &str)]) {
    let source = Home::new();
    let mut names = Vec::new();
    for (path, text) in files {
        source.write(path, text);
        names.push(format!("'{path}'"));
    }
    let spec = format!(
        "Gem::Specification.new do |s|\n  s.name = '{name}'\n  s.version = '1.0.0'\n  \
         s.summary = 'a'\n  s.authors = ['a']\n  s.license = 'MIT'\n  s.homepage = 'https://a.example'\n  \
         s.files = [{}]\n  s.bindir = 'exe'\n  s.executables = s.files.grep(/^exe/) {{ |f| File.basename(f) }}\n  \
         {extension}\nend\n",
        names.join(", ")
    );
    source.write("it.gemspec", &spec);
    let output = Command::new("gem")
        .args(["build", "--silent", "it.gemspec"])
        .current_dir(source.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = format!("{name}-1.0.0.gem");
    let cache = app.path().join("vendor/cache");
    fs::create_dir_all(&cache).unwrap();
    fs::copy(source.path().join(&file), cache.join(&file)).unwrap();
}

const GEMFILE: &str = "source 'https://rubygems.org'\n\ngem 'hail'\ngem 'quick'\n\n\
                       group :development do\n  gem 'tools'\nend\n";
const LOCK: &str = "GEM\n  remote: https://rubygems.org/\n  specs:\n    hail (1.0.0)\n    \
                    quick (1.0.0)\n    tools (1.0.0)\n\nPLATFORMS\n  ruby\n  x86_64-linux\n  \
                    aarch64-linux\n\nDEPENDENCIES\n  hail\n  quick\n  tools\n\n\
                    BUNDLED WITH\n   2.9.9\n";
const EXTENSION: &str = "#include <ruby.h>\nstatic VALUE answer(VALUE self) { return INT2FIX(42); }\n\
                         void Init_quick(void) { rb_define_module_function(rb_define_module(\"Quick\"), \
                         \"answer\", answer, 0); }\n";

fn app() -> Home {
    let app = Home::new();
    gem(
        &app,
        "hail",
        "",
        &[
            ("lib/hail.rb", "module Hail\n  WORD = 'hail'\nend\n"),
            ("exe/hail", "#!/usr/bin/env ruby\nrequire 'hail'\nputs Hail::WORD\n"),
        ],
    );
    let extension = "s.extensions = ['ext/quick/extconf.rb']";
    let make = "require 'mkmf'\ncreate_makefile('quick')\n";
    gem(
        &app,
        "quick",
        extension,
        &[("ext/quick/extconf.rb", make), ("ext/quick/quick.c", EXTENSION)],
    );
    // Of a group that is not installed, but locked: its archive is there too.
    gem(&app, "tools", "", &[("lib/tools.rb", "")]);
    app.write("Gemfile", GEMFILE);
    app.write("Gemfile.lock", LOCK);
    app.write(
        "app.rb",
        "require 'hail'; require 'quick'; puts \"#{Hail::WORD} #{Quick.answer}\"\n",
    );
    app.write("Procfile", "worker: bundle exec ruby app.rb\n");
    app
}

#[test]
fn vendored_gems_are_installed_and_compiled() {
    let (app, home, other) = (app(), Home::new(), Home::new());
    let first = request(app.path(), home.path());
    let (built, said) = build(&first);
    assert!(said.heading("Installing gems"), "{said:?}");
    let ruby = |words: &[&str]| run(&first, &built, words);
    let bundle = ["/usr/bin/env", "BUNDLE_PATH=/app/vendor/bundle", "BUNDLE_DEPLOYMENT=1"];
    let bundle = [&bundle[..], &["BUNDLE_WITHOUT=development:test", "bundle", "exec"]].concat();
    assert_eq!(ruby(&[&bundle[..], &["ruby", "app.rb"]].concat()), "hail 42");
    assert_eq!(ruby(&[&bundle[..], &["hail"]].concat()), "hail");
    assert_eq!(built.manifest.layers.len(), 1);
    assert_eq!(built.manifest.env["BUNDLE_PATH"], "/app/vendor/bundle");

    // Another home gives the same bytes, and another commit installs nothing.
    let (two, _) = build(&request(app.path(), other.path()));
    assert_eq!(two.manifest, built.manifest);
    app.write("app.rb", "puts 1\n");
    let (changed, said) = build(&first);
    assert!(said.heading("Gems: unchanged"), "{said:?}");
    assert_eq!(changed.manifest.layers, built.manifest.layers);
}

#[test]
fn a_lock_that_is_not_the_gemfiles_is_refused_with_the_way() {
    let (app, home) = (app(), Home::new());
    app.write("Gemfile", format!("{GEMFILE}gem 'other'\n"));
    let error = refusal(&request(app.path(), home.path()));
    let help = error.help().unwrap_or_default();
    assert!(help.contains("`bundle install` and commit"), "{error:?} {help}");
    assert_nothing_left(home.path());
    // A compiler that says why.
    let (app, home) = (self::app(), Home::new());
    let make = "require 'mkmf'\nabort 'libmissing is missing'\n";
    gem(
        &app,
        "quick",
        "s.extensions = ['ext/quick/extconf.rb']",
        &[("ext/quick/extconf.rb", make)],
    );
    let error = refusal(&request(app.path(), home.path()));
    assert!(format!("{error:?}").contains("libmissing is missing"), "{error:?}");
    assert!(Path::new(home.path()).exists());
}
