//! Manifests of what Tolv does not build. A codebase that cannot run without it is refused at
//! detection; elsewhere the file is named in a warning. Nothing is passed over in silence.
//!
//! A codebase cannot run without it where no builder takes it, and where a line of its Procfile
//! starts a program of that language. A file that `.slugignore` names does not enter the build, so
//! that it is not seen here.

use tolv_model::procfile::Procfile;

use super::BUILDERS;
use crate::Error;
use crate::plan::Plan;
use crate::source::shown;
use crate::tree::Tree;

/// A language that is recognised and not built.
struct Language {
    name: &'static str,
    /// Names in the codebase's root; `*.csproj` is any that ends so.
    files: &'static [&'static str],
    /// Programs that run it.
    programs: &'static [&'static str],
    /// The command that makes what runs.
    make: &'static str,
    /// A line of a Procfile that runs that.
    run: &'static str,
}

const LANGUAGES: [Language; 14] = [
    Language {
        name: "Java (Maven)",
        files: &["pom.xml"],
        programs: &["java", "mvn", "mvnw"],
        make: "mvn package",
        run: "web: java -jar target/shop.jar",
    },
    Language {
        name: "Java (Gradle)",
        files: &["build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"],
        programs: &["java", "gradle", "gradlew"],
        make: "gradle installDist",
        run: "web: build/install/shop/bin/shop",
    },
    Language {
        name: "Scala (sbt)",
        files: &["build.sbt"],
        programs: &["java", "scala", "sbt"],
        make: "sbt stage",
        run: "web: target/universal/stage/bin/shop",
    },
    Language {
        name: "Clojure",
        files: &["project.clj", "deps.edn"],
        programs: &["java", "lein", "clojure", "clj"],
        make: "lein uberjar",
        run: "web: java -jar target/shop.jar",
    },
    Language {
        name: "PHP",
        files: &["composer.json", "index.php"],
        programs: &["php", "composer", "heroku-php-apache2", "heroku-php-nginx"],
        make: "composer install --no-dev",
        run: "web: php -S 0.0.0.0:$PORT -t public",
    },
    Language {
        name: "Elixir",
        files: &["mix.exs"],
        programs: &["mix", "elixir", "iex"],
        make: "mix release",
        run: "web: _build/prod/rel/shop/bin/shop start",
    },
    Language {
        name: "Erlang",
        files: &["rebar.config"],
        programs: &["erl", "rebar3"],
        make: "rebar3 release",
        run: "web: _build/default/rel/shop/bin/shop foreground",
    },
    Language {
        name: ".NET",
        files: &["*.csproj", "*.fsproj", "*.vbproj", "*.sln", "*.slnx"],
        programs: &["dotnet"],
        make: "dotnet publish --self-contained --output publish",
        run: "web: publish/shop",
    },
    Language {
        name: "Deno",
        files: &["deno.json", "deno.jsonc", "deno.lock"],
        programs: &["deno"],
        make: "deno compile --output shop main.ts",
        run: "web: ./shop",
    },
    Language {
        name: "Swift",
        files: &["Package.swift"],
        programs: &["swift"],
        make: "swift build -c release --static-swift-stdlib",
        run: "web: .build/release/shop",
    },
    Language {
        name: "Haskell",
        files: &["stack.yaml", "cabal.project", "*.cabal"],
        programs: &["stack", "cabal"],
        make: "cabal install --install-method=copy --installdir=bin",
        run: "web: bin/shop",
    },
    Language {
        name: "Crystal",
        files: &["shard.yml"],
        programs: &["crystal"],
        make: "shards build --release --static",
        run: "web: bin/shop",
    },
    Language {
        name: "Dart",
        files: &["pubspec.yaml"],
        programs: &["dart"],
        make: "dart compile exe bin/server.dart -o shop",
        run: "web: ./shop",
    },
    Language {
        name: "Zig",
        files: &["build.zig"],
        programs: &["zig"],
        make: "zig build --release",
        run: "web: zig-out/bin/shop",
    },
];

/// Code of a language that Tolv builds, without what it is built from.
struct Incomplete {
    /// A name in the codebase's root; `*.go` is any that ends so.
    file: &'static str,
    /// Programs that run it.
    programs: &'static [&'static str],
    /// What to add.
    help: &'static str,
}

const INCOMPLETE: [Incomplete; 3] = [
    Incomplete {
        file: "setup.py",
        programs: &[
            "python",
            "python3",
            "gunicorn",
            "uvicorn",
            "celery",
            "flask",
            "waitress-serve",
        ],
        help: "list what the app needs in `requirements.txt` or `pyproject.toml`",
    },
    Incomplete {
        file: "*.go",
        programs: &["go"],
        help: "add a `go.mod`: go mod init example.com/shop, then go mod tidy",
    },
    Incomplete {
        file: "config.ru",
        programs: &["ruby", "rackup", "bundle", "puma", "unicorn", "thin"],
        help: "add a `Gemfile` and its `Gemfile.lock`: bundle init, bundle add rack, bundle lock",
    },
];

/// Files that say how a codebase is built and run, beside the builders' manifests.
const OWN: [&str; 3] = ["Procfile", "app.json", "index.html"];

/// Files for whoever builds an image.
const IMAGES: [&str; 3] = ["Dockerfile", "Containerfile", "heroku.yml"];
/// Files that other platforms act upon, each with what Tolv does about it.
const OTHERS: [(&str, &str); 1] = [("Aptfile", "its packages are not installed")];

/// A manifest in the root of a codebase.
struct Found {
    language: &'static Language,
    /// As shown.
    file: String,
}

/// Whether a name is this one, or ends as `*` followed by an ending says.
fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => name.ends_with(end) && name.len() > end.len(),
        None => name == pattern,
    }
}

/// Code in the root that nothing builds, as shown.
fn incomplete(tree: &Tree) -> Vec<(&'static Incomplete, String)> {
    let names = tree.names("");
    let of = |kind: &'static Incomplete| {
        let name = names.iter().find(|name| is_named(kind.file, name) && tree.is_file(name))?;
        Some((kind, shown(name.as_bytes())))
    };
    INCOMPLETE.iter().filter_map(of).collect()
}

/// Manifests in the root that are symbolic links, which are not followed.
fn links(tree: &Tree) -> impl Iterator<Item = &'static str> {
    let manifests = BUILDERS.iter().flat_map(|builder| builder.manifests).chain(&OWN);
    manifests.copied().filter(|name| tree.is_link(name))
}

/// The languages whose manifests stand in the root, each once.
fn found(tree: &Tree) -> Vec<Found> {
    let names = tree.names("");
    let found = LANGUAGES.iter().filter_map(|language| {
        let mut files = language.files.iter().filter_map(|pattern| {
            names.iter().find(|name| is_named(pattern, name) && tree.is_file(name))
        });
        Some(Found { language, file: shown(files.next()?.as_bytes()) })
    });
    found.collect()
}

/// Refuses a codebase that cannot run without what Tolv does not build. `taken` is the builder
/// that takes it; nothing where none does, or only a Procfile says how to run it.
///
/// # Errors
///
/// [`Error::Undetected`]; [`Error::Limit`] and [`Error::Io`] where the Procfile cannot be read.
pub(super) fn refuse(tree: &Tree, taken: Option<&str>) -> Result<(), Error> {
    let found = found(tree);
    let refused = match taken {
        None => found.first().map(|found| (found, None)),
        Some(_) if found.is_empty() => None,
        Some(_) => {
            let lines = lines(tree)?;
            found.iter().find_map(|found| {
                let runs = |(_, command): &&(String, String)| {
                    runs_with(tree, found.language.programs, command)
                };
                lines.iter().find(runs).map(|(kind, _)| (found, Some(kind.clone())))
            })
        }
    };
    if let Some((Found { language, file }, line)) = refused {
        let Language { name, make, run, .. } = language;
        let needs = line
            .map(|kind| format!(", and the process type `{kind}` of the Procfile runs it"))
            .unwrap_or_default();
        return Err(Error::Undetected {
            problem: format!("`{file}` is of {name}, which Tolv does not build{needs}"),
            help: format!(
                "run `{make}` before, commit what it makes, say in a `Procfile` how to run that, \
                 such as `{run}`, and name `{file}` in `.slugignore`; or name a buildpack for {name} in \
                 `buildpacks` of app.json"
            ),
        });
    }
    if taken.is_none() {
        // A Procfile says enough without the others of its kind.
        let has_procfile = tree.is_file("Procfile");
        let is_missed = |name: &&str| !has_procfile || !OWN.contains(name);
        if let Some(name) = links(tree).find(is_missed) {
            return Err(Error::Undetected {
                problem: format!(
                    "`{name}` is a symbolic link, and manifests are read from files alone"
                ),
                help: format!("put the file itself there: cp --remove-destination TARGET {name}"),
            });
        }
        let lines = lines(tree)?;
        let runs = |kind: &Incomplete| {
            lines.is_empty()
                || lines.iter().any(|(_, command)| runs_with(tree, kind.programs, command))
        };
        if let Some((kind, file)) = incomplete(tree).into_iter().find(|(kind, _)| runs(kind)) {
            return Err(Error::Undetected {
                problem: format!("`{file}` alone does not say what a build installs"),
                help: kind.help.to_owned(),
            });
        }
    }
    match IMAGES.iter().find(|name| tree.is_file(name)) {
        Some(name) if taken.is_none() && !tree.is_file("Procfile") => Err(Error::Undetected {
            problem: format!(
                "the codebase has a `{name}` and no manifest that Tolv builds; Tolv builds no images"
            ),
            help: format!("add {}, or a `Procfile` with a line such as `web: ./server`", signs()),
        }),
        _ => Ok(()),
    }
}

/// Names in the plan's warnings what stands in the codebase and is not used.
pub(super) fn warn(tree: &Tree, plan: &mut Plan) {
    let names: Vec<_> = plan.builder.split(" and ").collect();
    let took = match names.len() {
        1 => format!("the {} builder took the codebase", plan.builder),
        _ => format!("the {} builders took the codebase", plan.builder),
    };
    let is_plain = plan.builder == "procfile";
    let mut warn = |text: String| plan.warnings.push(text);
    for Found { language, file } in found(tree) {
        let name = language.name;
        warn(format!("`{file}` is not used: Tolv does not build {name}, and {took}"));
    }
    for name in IMAGES.iter().filter(|name| tree.is_file(name)) {
        warn(format!("`{name}` is not used: {took}"));
    }
    for (name, why) in OTHERS.iter().filter(|(name, _)| tree.is_file(name)) {
        warn(format!("`{name}` is not used: {why}"));
    }
    for name in links(tree) {
        warn(format!("`{name}` is not read: it is a symbolic link"));
    }
    if is_plain {
        for (kind, file) in incomplete(tree) {
            warn(format!("`{file}` is not built: {}", kind.help));
        }
    }
    if let Some(name) = like_procfile(tree) {
        warn(format!(
            "`{name}` is not read: the file is named `Procfile`, with a capital P and no ending"
        ));
    }
    for other in BUILDERS.iter().filter(|other| !names.contains(&other.name)) {
        if let Some(name) = other.manifests.iter().find(|name| tree.is_file(name)) {
            warn(format!("`{name}` is not built: {took}"));
        }
    }
}

/// A file in the root that somebody took for a Procfile, as shown.
pub(super) fn like_procfile(tree: &Tree) -> Option<String> {
    let like = |name: &String| {
        let lower = name.to_ascii_lowercase();
        name != "Procfile"
            && matches!(lower.as_str(), "procfile" | "procfile.txt")
            && tree.is_file(name)
    };
    tree.names("").into_iter().find(like).map(|name| shown(name.as_bytes()))
}

/// Manifests that are built, in words.
fn signs() -> String {
    let first = BUILDERS.iter().filter_map(|builder| builder.manifests.first());
    let first: Vec<_> = first.map(|name| format!("`{name}`")).collect();
    first.join(", ")
}

/// The Procfile's types and commands; nothing where it does not parse, which is told elsewhere.
fn lines(tree: &Tree) -> Result<Vec<(String, String)>, Error> {
    let Some(bytes) = tree.read("Procfile")? else { return Ok(Vec::new()) };
    let Ok(procfile) = Procfile::parse(&bytes) else { return Ok(Vec::new()) };
    Ok(procfile.iter().map(|(kind, command)| (kind.to_string(), command.to_owned())).collect())
}

/// Whether a command starts one of these programs: by its name, or by a script of the codebase
/// whose first line names it.
pub(super) fn runs_with(tree: &Tree, programs: &[&str], command: &str) -> bool {
    let is_assignment = |word: &&str| word.contains('=') && !word.starts_with('-');
    let mut words = command.split_whitespace().skip_while(|word| {
        is_assignment(word) || matches!(*word, "exec" | "env" | "nohup" | "time")
    });
    let Some(program) = words.next() else { return false };
    let base = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    if programs.contains(&base(program).as_str()) {
        return true;
    }
    let Some(path) = super::inside("", program) else { return false };
    let head = tree.head(&path).unwrap_or_default();
    let Some(line) = head.strip_prefix(b"#!") else { return false };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    line.split_whitespace().any(|word| programs.contains(&base(word).as_str()))
}

#[cfg(test)]
mod tests {
    use crate::builders::tests::Machine;

    #[test]
    fn what_is_recognised_and_not_built_is_refused_with_the_file_and_the_way() {
        for (file, name) in [
            ("pom.xml", "Java (Maven)"),
            ("build.gradle.kts", "Java (Gradle)"),
            ("composer.json", "PHP"),
            ("build.sbt", "Scala (sbt)"),
            ("mix.exs", "Elixir"),
            ("Shop.csproj", ".NET"),
            ("deno.json", "Deno"),
        ] {
            for also in ["Dockerfile", "Procfile"] {
                let (problem, help) =
                    Machine::new(&[(file, "{}"), (also, "web: ./run\n")]).refusal();
                let wanted = format!("`{file}` is of {name}, which Tolv does not build");
                assert_eq!(problem, wanted);
                assert!(help.contains("commit what it makes"), "{help}");
                assert!(help.contains(&format!("name `{file}` in `.slugignore`")), "{help}");
            }
        }
        let (problem, help) = Machine::new(&[("Dockerfile", "FROM scratch")]).refusal();
        assert!(problem.contains("has a `Dockerfile` and no manifest"), "{problem}");
        assert!(help.contains("`package.json`") && help.contains("`Procfile`"), "{help}");
    }

    #[test]
    fn code_without_a_manifest_is_refused_where_it_is_to_run() {
        for (file, procfile, help) in [
            ("setup.py", "web: gunicorn shop:app\n", "requirements.txt"),
            ("web.go", "", "go mod init"),
            ("config.ru", "web: bundle exec rackup\n", "Gemfile.lock"),
        ] {
            let all = [(file, "x"), ("Procfile", procfile)];
            let files = if procfile.is_empty() { &all[..1] } else { &all[..] };
            let (problem, way) = Machine::new(files).refusal();
            assert!(problem.starts_with(&format!("`{file}` alone")), "{problem}");
            assert!(way.contains(help), "{way}");
        }
        let said = Machine::new(&[("tool.go", "x"), ("Procfile", "web: ./run\n")]).plan().unwrap();
        assert!(said.warnings[0].starts_with("`tool.go` is not built"), "{:?}", said.warnings);
    }

    #[test]
    fn beside_a_builder_it_is_refused_only_where_the_procfile_runs_it() {
        let with = |procfile: &str, script: &str| {
            let files = [
                ("package.json", r#"{"name": "x", "version": "1.0.0"}"#),
                ("index.html", ""),
                ("composer.json", "{}"),
                ("bin/serve", script),
                ("Procfile", procfile),
            ];
            let mut machine = Machine::new(&files);
            machine.program("bin/node", "v22.1.0");
            machine.source(".node-version", "22\n");
            machine.plan()
        };
        for (procfile, script) in [
            ("web: php -S 0.0.0.0:$PORT\n", ""),
            ("worker: A=1 exec composer work\n", ""),
            ("web: bin/serve now\n", "#!/usr/bin/env php\n"),
            ("web: ./bin/start\nrelease: bin/../bin/serve\n", "#! /usr/bin/php -w\n"),
        ] {
            let text = with(procfile, script).unwrap_err().to_string();
            assert!(text.contains("`composer.json` is of PHP"), "{text}");
            assert!(text.contains("of the Procfile runs it"), "{text}");
        }
    }

    #[test]
    fn what_is_not_used_is_named() {
        let warnings = |files: &[(&str, &str)]| Machine::new(files).plan().unwrap().warnings;
        let site = [
            ("index.html", ""),
            ("Gemfile", ""),
            ("Dockerfile", ""),
            ("Aptfile", "libvips42\n"),
            ("procfile", "web: ./run\n"),
        ];
        let said = warnings(&site);
        for name in ["Gemfile", "Dockerfile", "Aptfile", "procfile"] {
            let named = said.iter().filter(|text| text.starts_with(&format!("`{name}` is not ")));
            assert_eq!(named.count(), 1, "{name}: {said:?}");
        }
        assert_eq!(said.len(), 4, "{said:?}");
        let said = warnings(&[("Procfile", "web: ./run\n"), ("Procfile.txt", "")]);
        assert!(said[0].starts_with("`Procfile.txt` is not read"), "{said:?}");
        assert_eq!(said.len(), 1, "{said:?}");
        // Names are a stranger's, and a folder is no manifest.
        let strange = [("index.html", ""), ("a\u{1b}[31m.csproj", ""), ("pom.xml/x", "")];
        let said = warnings(&strange);
        assert!(said[0].contains("`a\\u{1b}[31m.csproj`"), "{said:?}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}
