//! One module per language; each looks at the source and says what to run.
//!
//! Order matters where a codebase shows signs of several: the first that fits wins, and the build
//! output names it. `Procfile` alone comes last.

use crate::plan::Plan;
use crate::resolution::LockFile;
use crate::toolchains::Toolchains;
use crate::tree::Tree;
use crate::{Error, Event};

mod go;
mod hooks;
mod node;
mod procfile;
mod python;
mod ruby;
mod rust;
mod several;
mod static_site;
mod unbuilt;

/// One language, as data.
struct Builder {
    name: &'static str,
    /// What `detect` looks for, in words.
    signs: &'static str,
    /// Files that ask for this builder; beside another one that is taken, they are named.
    manifests: &'static [&'static str],
    detect: fn(&Tree) -> bool,
    plan: fn(&Tree, &mut Toolchains<'_>) -> Result<Plan, Error>,
}

/// In the order in which they are asked.
const BUILDERS: [Builder; 7] = [
    Builder {
        name: "ruby",
        signs: "Gemfile",
        manifests: &["Gemfile"],
        detect: ruby::detect,
        plan: ruby::plan,
    },
    Builder {
        name: "python",
        signs: "uv.lock, requirements.txt, pyproject.toml, Pipfile",
        manifests: &["requirements.txt", "pyproject.toml", "Pipfile", "uv.lock"],
        detect: python::detect,
        plan: python::plan,
    },
    Builder {
        name: "node",
        signs: "package.json",
        manifests: &["package.json"],
        detect: node::detect,
        plan: node::plan,
    },
    Builder {
        name: "rust",
        signs: "Cargo.toml",
        manifests: &["Cargo.toml"],
        detect: rust::detect,
        plan: rust::plan,
    },
    Builder {
        name: "go",
        signs: "go.mod",
        manifests: &["go.mod"],
        detect: go::detect,
        plan: go::plan,
    },
    Builder {
        name: "static",
        signs: "static.json, index.html",
        manifests: &["static.json"],
        detect: static_site::detect,
        plan: static_site::plan,
    },
    Builder {
        name: "procfile",
        signs: "Procfile",
        manifests: &[],
        detect: procfile::detect,
        plan: procfile::plan,
    },
];

/// Whether a file of this name, in a folder, is a sign that the folder is a codebase.
pub(crate) fn is_sign(name: &[u8]) -> bool {
    let mut signs = BUILDERS.iter().flat_map(|builder| builder.manifests).chain(&["Procfile"]);
    signs.any(|sign| sign.as_bytes() == name)
}

/// The builder of a language as Heroku names it: `nodejs`.
pub(crate) fn of_language(language: &str) -> Option<&'static str> {
    let name = match language {
        "nodejs" => "node",
        other => other,
    };
    BUILDERS.iter().map(|builder| builder.name).find(|known| *known == name)
}

/// The plan of the first builder that knows this codebase, or of those that were `named`.
///
/// # Errors
///
/// [`Error::Undetected`] where none does, and the builder's own.
pub(crate) fn plan(
    tree: &Tree,
    toolchains: &mut Toolchains<'_>,
    named: &[&'static str],
) -> Result<Plan, Error> {
    let fits = |builder: &&Builder| (builder.detect)(tree);
    let builder = match named {
        [] => BUILDERS.iter().find(fits),
        // The last one runs the app.
        _ => named
            .iter()
            .rev()
            .find_map(|name| BUILDERS.iter().find(|builder| builder.name == *name).filter(fits)),
    };
    let taken = builder.filter(|builder| !builder.manifests.is_empty());
    if named.is_empty() {
        unbuilt::refuse(tree, taken.map(|builder| builder.name))?;
    }
    if let Some(mut plan) = several::plan(tree, toolchains, named)? {
        unbuilt::warn(tree, &mut plan);
        return Ok(plan);
    }
    if let Some(builder) = builder {
        toolchains.say(Event::Heading(format!("Building with the {} builder", builder.name)));
        let mut plan = (builder.plan)(tree, toolchains)?;
        unbuilt::warn(tree, &mut plan);
        return Ok(plan);
    }
    if !named.is_empty() {
        let signs = BUILDERS.iter().filter(|builder| named.contains(&builder.name));
        let signs = signs.map(|builder| format!("{} ({})", builder.signs, builder.name));
        return Err(Error::Undetected {
            problem: format!(
                "the buildpack does not fit; it looked in the root of the codebase for {}",
                signs.collect::<Vec<_>>().join(", ")
            ),
            help: "name another one in `buildpacks` of app.json, or none: then the files decide"
                .into(),
        });
    }
    let signs: Vec<_> =
        BUILDERS.iter().map(|builder| format!("{} ({})", builder.signs, builder.name)).collect();
    let what =
        if tree.entries().is_empty() { "the codebase has no files" } else { "no builder fits" };
    let help = match unbuilt::like_procfile(tree) {
        Some(name) => format!("rename `{name}` to `Procfile`, or add one of these files"),
        None => {
            "add one of these files, or a `Procfile` with a line such as `web: ./server`".into()
        }
    };
    Err(Error::Undetected {
        problem: format!("{what}; looked in its root for {}", signs.join(", ")),
        help,
    })
}

/// A builder that can make the lock of a codebase.
struct Locker {
    name: &'static str,
    detect: fn(&Tree) -> bool,
    /// The files that are the lock, made of what the codebase asks for; `upgrade` forgets the
    /// versions of the lock that is there.
    lock: fn(&Tree, &mut Toolchains<'_>, bool) -> Result<Vec<LockFile>, Error>,
}

/// Those that can.
const LOCKERS: [Locker; 1] =
    [Locker { name: "python", detect: python::detect, lock: python::lock }];

/// The locks of a codebase, of every language that it has and that Tolv can lock.
///
/// # Errors
///
/// [`Error::Undetected`] where there is none, and the builders' own.
pub(crate) fn lock(
    tree: &Tree,
    toolchains: &mut Toolchains<'_>,
    upgrade: bool,
) -> Result<Vec<LockFile>, Error> {
    let mut locks = Vec::new();
    let mut any = false;
    for locker in LOCKERS.iter().filter(|locker| (locker.detect)(tree)) {
        any = true;
        toolchains.say(Event::Heading(format!("Locking with the {} builder", locker.name)));
        locks.extend((locker.lock)(tree, toolchains, upgrade)?);
    }
    if any {
        return Ok(locks);
    }
    let names: Vec<_> = LOCKERS.iter().map(|locker| locker.name).collect();
    Err(Error::Undetected {
        problem: format!("there is nothing that Tolv can lock here ({})", names.join(", ")),
        help: "run it in the folder of the codebase; other languages bring a command for it, as \
               in `cargo generate-lockfile` or `go mod tidy`"
            .into(),
    })
}

/// A TOML file of the codebase; nothing where there is none.
fn read_toml(tree: &Tree, builder: &'static str, path: &str) -> Result<Option<toml::Table>, Error> {
    let Some(text) = tree.text(path)? else { return Ok(None) };
    text.parse::<toml::Table>().map(Some).map_err(|bad| {
        let before = text.get(..bad.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let why = bad.message().replace('\n', " ");
        Error::Plan {
            builder,
            problem: format!("`{path}` is not TOML: line {line}: {why}"),
            help: format!("correct line {line} of `{path}`"),
        }
    })
}

/// `path` of a codebase below `folder`, without `.` and inner `..`; nothing where it leaves the
/// codebase. `""` is the root.
pub(crate) fn inside(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// `name` in `folder`, where `""` is the root.
fn below(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// All regular files of the codebase in a folder and below, sorted; those that are UTF-8.
fn files_below(tree: &Tree, folder: &str) -> Vec<String> {
    let prefix = format!("{folder}/");
    let paths = tree.entries().keys().filter_map(|path| std::str::from_utf8(path).ok());
    paths
        .filter(|path| path.starts_with(&prefix) && tree.is_file(path))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests;
