//! Rust: `cargo build --release --locked` with a copy of the machine's toolchain.
//!
//! Cargo's home and its target folder are in the cache, so that a build compiles what changed. The
//! programs alone are copied to `target/release`, where a Procfile expects them.

use std::path::Path;

use tolv_model::name::ProcessType;

use super::read_toml;
use crate::Error;
use crate::plan::{LIBRARIES, Plan, Step};
use crate::toolchains::Toolchains;
use crate::toolchains::rust::RustWish;
use crate::tree::Tree;

mod programs;

use programs::Programs;

const NAME: &str = "rust";
const VERSION: u32 = 1;

/// Whether there is a `Cargo.toml` in the root.
pub(super) fn detect(tree: &Tree) -> bool {
    tree.is_file("Cargo.toml")
}

/// One run of cargo, and its programs copied.
///
/// # Errors
///
/// [`Error::Plan`] where there is no lock or no program, [`Error::Toolchain`] where there is no
/// Rust of the version that `rust-toolchain.toml` names.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new(NAME, VERSION);
    let manifest = read_toml(tree, NAME, "Cargo.toml")?.unwrap_or_default();
    let wrong = |problem: &str, help: &str| Error::Plan {
        builder: NAME,
        problem: problem.to_owned(),
        help: help.to_owned(),
    };
    if !tree.is_file("Cargo.lock") {
        return Err(wrong(
            "there is no `Cargo.lock`",
            "run `cargo generate-lockfile` and commit `Cargo.lock` (`.gitignore` may name it)",
        ));
    }
    let programs = Programs::read(tree, &manifest)?;
    if programs.names.is_empty() {
        return Err(wrong(
            "no program: looked for `src/main.rs`, `src/bin/*` and `[[bin]]` in what `cargo build` \
             builds",
            "add a `src/main.rs`, or name the member with the program in `default-members`",
        ));
    }
    for (name, features) in &programs.left_out {
        plan.notes.push(format!("`{name}` is not built: it needs the features {features}"));
    }
    let channel = channel(tree)?;
    let wanted = RustWish {
        channel: channel.as_ref().map(|(channel, _)| channel.as_str()),
        from: channel.as_ref().map_or("", |(_, from)| *from),
        oldest: oldest(&manifest),
    };
    let rust = toolchains.rust(&wanted)?;
    plan.notes.push(format!("Rust {}", rust.version));
    plan.build_path.push(rust.mount.target.join("bin"));
    if let Some(libraries) = &rust.libraries {
        plan.build_env.insert(LIBRARIES.to_owned(), libraries.into());
    }
    plan.toolchains.push(rust.mount);
    let layout = &toolchains.layout;
    let target = layout.cache.join("target");
    for (name, value) in [
        ("CARGO_HOME", layout.cache.join("cargo").into_os_string()),
        ("CARGO_TARGET_DIR", target.clone().into()),
        ("CARGO_INCREMENTAL", "0".into()),
        ("CARGO_TERM_COLOR", "never".into()),
        ("CARGO_TERM_PROGRESS_WHEN", "never".into()),
    ] {
        plan.build_env.insert(name.to_owned(), value);
    }
    let mut words: Vec<std::ffi::OsString> =
        ["cargo", "build", "--release", "--locked", "--bins"].map(Into::into).to_vec();
    if layout.app != Path::new("/app") {
        // Without a mount namespace the source is elsewhere in each build.
        words.extend([
            "--config".into(),
            remap(&[(&layout.app, "/app"), (&layout.cache, "/cache")]).into(),
        ]);
    }
    let stale = "run `cargo update --workspace` and commit `Cargo.lock`";
    let step = Step::new("Compiling", &layout.app, words)
        .hint("--locked was passed", stale)
        .hint("linker `cc` not found", "install a C compiler: `apt-get install build-essential`")
        .hint("failed to find tool", "install a C compiler: `apt-get install build-essential`")
        .hint(
            "is not supported by the following package",
            "name a newer Rust in `rust-toolchain.toml`, or lock older packages",
        )
        .hint(
            "requires rustc",
            "name a newer Rust in `rust-toolchain.toml`, or lock older packages",
        )
        .hint(
            "pkg-config",
            "a package looks for a C library: install its development package on this machine",
        );
    plan.steps.push(step);
    for name in &programs.names {
        let from = target.join("release").join(name);
        let to = format!("target/release/{name}");
        let words = ["install".as_ref(), "-D".as_ref(), from.as_os_str(), to.as_ref()];
        plan.steps.push(Step::new("", &layout.app, words));
        plan.keep.push(to);
    }
    plan.prune.push("target".to_owned());
    if let Some(web) = programs.web() {
        plan.process_types.insert(ProcessType::web(), format!("target/release/{web}"));
    }
    plan.path.push("/app/target/release".to_owned());
    Ok(plan)
}

/// A setting for cargo that takes paths of this build out of the programs.
fn remap(paths: &[(&Path, &str)]) -> String {
    let flags = paths.iter().map(|(from, to)| {
        let flag = format!("--remap-path-prefix={}={to}", from.display());
        toml::Value::String(flag).to_string()
    });
    format!("build.rustflags=[{}]", flags.collect::<Vec<_>>().join(", "))
}

/// The oldest Rust that the manifest says it needs, where that is a version.
fn oldest(manifest: &toml::Table) -> Option<&str> {
    fn own(table: &toml::Table) -> Option<&str> {
        table.get("package")?.get("rust-version")?.as_str()
    }
    // `rust-version.workspace = true` has it from `[workspace.package]`.
    let workspace = manifest.get("workspace").and_then(toml::Value::as_table);
    let found = own(manifest).or_else(|| workspace.and_then(own));
    found.filter(|text| text.split('.').all(|part| part.parse::<u32>().is_ok()))
}

/// The channel that the codebase names, and where.
fn channel(tree: &Tree) -> Result<Option<(String, &'static str)>, Error> {
    for path in ["rust-toolchain", "rust-toolchain.toml"] {
        let Some(text) = tree.text(path)? else { continue };
        // The older form is a line with the name and nothing else.
        let plain = text.trim();
        let channel = if path == "rust-toolchain" && !plain.contains(['[', '\n']) {
            Some(plain.to_owned())
        } else {
            let table = read_toml(tree, NAME, path)?.unwrap_or_default();
            let table = table.get("toolchain").and_then(toml::Value::as_table).cloned();
            let channel = table.as_ref().and_then(|table| table.get("channel")?.as_str());
            channel.map(str::to_owned)
        };
        let is_plain = |name: &String| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        return match channel {
            Some(name) if is_plain(&name) => Ok(Some((name, path))),
            Some(name) => Err(Error::Plan {
                builder: NAME,
                problem: format!("`{path}` names the channel `{}`", name.escape_debug()),
                help: "write a version or a channel, such as `1.90` or `stable`".to_owned(),
            }),
            // Components and targets alone: any toolchain will do.
            None => Ok(None),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
