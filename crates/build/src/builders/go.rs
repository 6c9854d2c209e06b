//! Go: modules, built with a copy of the machine's own toolchain where that is new enough for `go.mod`,
//! with one that is fetched elsewhere.
//!
//! `go build -trimpath -mod=readonly` compiles each main package into `bin/`; the cache keeps
//! modules and compiled packages. What the source says and the lock does not (`go.sum`) is an
//! error with the command that mends it, never a silent change.

use tolv_model::name::ProcessType;

use crate::Error;
use crate::plan::{Plan, Step};
use crate::toolchains::Toolchains;
use crate::toolchains::go::{Go, GoVersion};
use crate::tree::Tree;

/// Whether there is a module in the root.
pub(super) fn detect(tree: &Tree) -> bool {
    tree.is_file("go.mod")
}

/// One compiler run for all main packages.
///
/// # Errors
///
/// [`Error::Plan`] for a module without `go.sum` or without a main package, [`Error::Toolchain`]
/// where there is no Go.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new("go", 1);
    let module = Module::read(&tree.text("go.mod")?.unwrap_or_default());
    let vendored = tree.is_file("vendor/modules.txt");
    if module.requires && !vendored && !tree.is_file("go.sum") {
        return Err(Error::Plan {
            builder: "go",
            problem: "`go.mod` requires modules and there is no `go.sum`".to_owned(),
            help: "run `go mod tidy` and commit `go.sum`".to_owned(),
        });
    }
    let mains = main_packages(tree)?;
    if mains.is_empty() {
        return Err(Error::Plan {
            builder: "go",
            problem: "no main package: looked for `package main` in the root and in `cmd/*`"
                .to_owned(),
            help: "put the program into the root or into `cmd/<name>`".to_owned(),
        });
    }
    let Go { version, root, mount } = toolchains.go(module.version)?;
    plan.notes.push(version);
    plan.toolchains.push(mount);
    plan.build_path.push(root.join("bin"));
    let cache = &toolchains.layout.cache;
    for (name, value) in [
        ("GOCACHE", cache.join("go-build").into_os_string()),
        ("GOMODCACHE", cache.join("go-mod").into_os_string()),
        ("GOPATH", cache.join("go").into_os_string()),
        ("GOROOT", root.into_os_string()),
        // The toolchain is the plan's: nothing is fetched behind the plan's back.
        ("GOTOOLCHAIN", "local".into()),
        ("GOFLAGS", "".into()),
        // A pure Go program runs on any stack.
        ("CGO_ENABLED", "0".into()),
    ] {
        plan.build_env.insert(name.to_owned(), value);
    }
    let mode = if vendored { "-mod=vendor" } else { "-mod=readonly" };
    for (place, (name, package)) in mains.iter().enumerate() {
        let heading = if place == 0 { "Compiling" } else { "" };
        let target = format!("bin/{name}");
        let words = ["go", "build", "-trimpath", "-buildvcs=false", mode, "-o", &target, package];
        let step = Step::new(heading, &toolchains.layout.app, words)
            .hint("go mod tidy", "run `go mod tidy` and commit `go.mod` and `go.sum`")
            .hint("missing go.sum entry", "run `go mod tidy` and commit `go.sum`")
            .hint("inconsistent vendoring", "run `go mod vendor` and commit `vendor`")
            .hint(
                "GOTOOLCHAIN=local",
                "a module needs a newer Go than `go.mod` asks for: raise its `go` line",
            );
        plan.steps.push(step);
    }
    let web = mains.iter().find(|(name, _)| name == "web").or_else(|| mains.first());
    if let Some((name, _)) = web {
        plan.process_types.insert(ProcessType::web(), format!("bin/{name}"));
    }
    plan.path.push("/app/bin".to_owned());
    Ok(plan)
}

/// What matters here of a `go.mod`.
struct Module {
    requires: bool,
    /// The oldest Go that it says it needs.
    version: Option<GoVersion>,
}

impl Module {
    fn read(text: &str) -> Self {
        let mut block = false;
        let mut requires = false;
        let mut version = None;
        for line in text.lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            match line {
                "" => {}
                ")" => block = false,
                _ if block => requires = true,
                _ => {
                    let named = ["go ", "toolchain "].iter().find_map(|key| line.strip_prefix(key));
                    version = version.max(named.and_then(GoVersion::parse));
                    let rest = line.strip_prefix("require").map(str::trim);
                    block = rest == Some("(");
                    requires |= rest.is_some_and(|rest| !rest.starts_with('('));
                }
            }
        }
        Self { requires, version }
    }

    fn name(text: &str) -> Option<&str> {
        let line = text.lines().find_map(|line| line.trim().strip_prefix("module "))?;
        let path = line.split("//").next()?.trim().trim_matches('"');
        // `example.com/shop/v2` is the program `shop`, as `go install` has it.
        let mut parts = path.rsplit('/');
        let last = parts.next()?;
        let is_version = last
            .strip_prefix('v')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if is_version { parts.next().or(Some(last)) } else { Some(last) }
    }
}

/// (program, package) of each main package in the root and in `cmd/*`.
fn main_packages(tree: &Tree) -> Result<Vec<(String, String)>, Error> {
    let mut mains = Vec::new();
    let plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with(['-', '.'])
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if is_main(tree, "")? {
        let text = tree.text("go.mod")?.unwrap_or_default();
        let name = Module::name(&text).filter(|name| plain(name)).unwrap_or("app");
        mains.push((name.to_owned(), ".".to_owned()));
    }
    for name in tree.names("cmd").into_iter().filter(|name| plain(name)) {
        if is_main(tree, &format!("cmd/{name}"))? && mains.iter().all(|(known, _)| *known != name) {
            let package = format!("./cmd/{name}");
            mains.push((name, package));
        }
    }
    Ok(mains)
}

fn is_main(tree: &Tree, folder: &str) -> Result<bool, Error> {
    for name in tree.names(folder) {
        if !name.ends_with(".go") || name.ends_with("_test.go") {
            continue;
        }
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let text = tree.read(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let ignored = text.lines().any(|line| line.trim() == "//go:build ignore");
        let package = text.lines().find_map(|line| line.trim().strip_prefix("package "));
        if !ignored && package.is_some_and(|rest| rest.split_whitespace().next() == Some("main")) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
