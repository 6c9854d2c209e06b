//! The staircase: which crate may use which of ours.

use std::path::Path;

use serde_json::Value;

use super::{files, read, shown};
use crate::steps::Failure;

/// Crate, and those of ours it may use. Stages never use each other; `tolv-platform` joins them.
/// ARCHITECTURE.md draws the same.
pub(super) const MAY_USE: &[(&str, &[&str])] = &[
    ("tolv-model", &[]),
    ("tolv-durable", &[]),
    ("tolv-sandbox", &["tolv-model"]),
    ("tolv-logs", &["tolv-model"]),
    ("tolv-router", &["tolv-model"]),
    ("tolv-static-server", &["tolv-model"]),
    ("tolv-build", &["tolv-model", "tolv-durable", "tolv-sandbox"]),
    ("tolv-run", &["tolv-model", "tolv-sandbox", "tolv-logs"]),
    ("tolv-store", &["tolv-model", "tolv-durable"]),
    ("tolv-api", &["tolv-model"]),
    (
        "tolv-platform",
        &[
            "tolv-model",
            "tolv-durable",
            "tolv-sandbox",
            "tolv-build",
            "tolv-store",
            "tolv-logs",
            "tolv-router",
            "tolv-run",
        ],
    ),
    ("tolv-server", &["tolv-model", "tolv-logs", "tolv-store", "tolv-platform", "tolv-api"]),
    (
        "tolv",
        &[
            "tolv-model",
            "tolv-durable",
            "tolv-sandbox",
            "tolv-build",
            "tolv-logs",
            "tolv-router",
            "tolv-run",
            "tolv-static-server",
            "tolv-platform",
            "tolv-api",
            "tolv-server",
        ],
    ),
    ("tolv-testkit", &[]),
    ("xtask", &[]),
];

/// Crates from outside that would let the model do I/O, wait or read a clock.
const NOT_IN_MODEL: &[&str] = &["tokio", "rustix", "libc", "hyper", "notify", "tempfile"];

pub(super) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let output = crate::cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .map_err(|error| Failure(format!("cargo metadata: {error}")))?;
    if !output.status.success() {
        return Err(Failure(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure(format!("cargo metadata: {error}")))?;
    let mut problems = judge(&metadata);
    for manifest in files(root, &|path| path.ends_with("Cargo.toml"))? {
        let name = shown(root, &manifest);
        if name.starts_with("crates/") || name.starts_with("xtask/") {
            problems.extend(pinned_elsewhere(&name, &read(&manifest)?));
        }
    }
    Ok(problems)
}

/// Compares `cargo metadata` with the table.
pub(super) fn judge(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for package in list(metadata, "packages") {
        let name = text(&package, "name");
        let Some((_, may_use)) = MAY_USE.iter().find(|(listed, _)| *listed == name) else {
            problems
                .push(format!("{name}: not in the dependency table of xtask/src/tidy/edges.rs"));
            continue;
        };
        for dependency in list(&package, "dependencies") {
            let on = text(&dependency, "name");
            let ours = MAY_USE.iter().any(|(listed, _)| *listed == on);
            let for_tests = dependency["kind"] == "dev";
            let allowed = may_use.contains(&on.as_str()) || (for_tests && on == "tolv-testkit");
            if ours && !allowed {
                problems.push(format!("{name}: must not use {on}: data flows down one staircase"));
            }
            if name == "tolv-model" && NOT_IN_MODEL.contains(&on.as_str()) {
                problems.push(format!("{name}: must not use {on}: the model does no I/O"));
            }
        }
    }
    problems
}

/// Dependencies whose version or features are not chosen in the workspace's manifest.
pub(super) fn pinned_elsewhere(name: &str, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut dependencies = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            dependencies = line.trim_matches(['[', ']']).ends_with("dependencies");
        } else if dependencies
            && !line.is_empty()
            && !line.starts_with('#')
            && !line.ends_with(".workspace = true")
        {
            problems.push(format!("{name}: `{line}` belongs in the root's workspace.dependencies"));
        }
    }
    problems
}
