use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tolv_model::slug::{Digest, Entry};

use super::{below, files_below, inside, lock, plan, read_toml};
use crate::Error;
use crate::plan::{Plan, Step};
use crate::proof::Proofs;
use crate::resolution::{LockFile, Resolution};
use crate::toolchains::{Layout, Store, Toolchains};
use crate::tree::Tree;

/// A machine with programs of its own, and a codebase.
pub(super) struct Machine {
    folder: tempfile::TempDir,
    files: BTreeMap<Vec<u8>, Entry>,
    /// What stands in for the sandbox that makes locks.
    pub(super) resolver: fn(&Resolution) -> Result<Vec<u8>, Error>,
    pub(super) require_lock: bool,
}

impl Machine {
    /// Files of a codebase, on a machine without any programs.
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        // What is asked for is the lock.
        let resolver = |wanted: &Resolution| {
            Ok(wanted.files.first().map(|(_, bytes)| bytes.clone()).unwrap_or_default())
        };
        let mut machine = Self { folder, files: BTreeMap::new(), resolver, require_lock: false };
        for (path, text) in files {
            machine.source(path, text);
        }
        machine
    }

    /// One more file of the codebase, or other text in one.
    pub(super) fn source(&mut self, path: &str, text: &str) {
        put(&self.path("source").join(path), text);
        let bytes = text.as_bytes();
        let entry =
            Entry::File { digest: Digest::of(bytes), size: bytes.len() as u64, executable: false };
        self.files.insert(path.as_bytes().to_vec(), entry);
    }

    pub(super) fn tree(&self) -> Tree {
        Tree::new(self.path("source"), self.files.clone())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of the machine that prints `output` whatever it is asked.
    pub(super) fn program(&self, path: &str, output: &str) {
        // `PATH` has no `cat`.
        self.script(path, &format!("printf '%s\\n' '{output}'"));
    }

    pub(super) fn script(&self, path: &str, script: &str) {
        let path = self.path(path);
        put(&path, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A toolchain that was fetched or copied: its files, programs in `bin`, and its links.
    pub(super) fn kept(
        &self,
        (kind, version): (&str, &str),
        files: &[(&str, &str)],
        links: &[(&str, &str)],
    ) -> String {
        for (path, text) in files {
            let path = format!("toolchains/.part/{path}");
            match text.strip_prefix("#!") {
                Some(script) => self.script(&path, script),
                None => self.file(&path, text),
            }
        }
        for (path, target) in links {
            self.link(&format!("toolchains/.part/{path}"), target);
        }
        let store = Store::at(&self.path("toolchains"));
        store.keep_test((kind, version), &self.path("toolchains/.part"))
    }

    /// uv, and a Python of this version.
    pub(super) fn python(&self, version: &str) {
        self.kept(("uv", "0.99.0"), &[("uv", "")], &[]);
        self.kept(("python", version), &[("lib/os.py", version)], &[]);
    }

    /// A file of the machine.
    pub(super) fn file(&self, path: &str, text: &str) {
        put(&self.path(path), text);
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub(super) fn plan(&self) -> Result<Plan, Error> {
        self.plan_in(Layout::sandboxed())
    }

    pub(super) fn plan_in(&self, layout: Layout) -> Result<Plan, Error> {
        self.with_toolchains(layout, |tree, toolchains| plan(tree, toolchains, &[]))
    }

    /// The plan of the builders of these names.
    pub(super) fn plan_of(&self, named: &[&'static str]) -> Result<Plan, Error> {
        self.with_toolchains(Layout::sandboxed(), |tree, toolchains| plan(tree, toolchains, named))
    }

    /// The locks of the codebase.
    pub(super) fn lock(&self, upgrade: bool) -> Result<Vec<LockFile>, Error> {
        self.with_toolchains(Layout::sandboxed(), |tree, toolchains| {
            lock(tree, toolchains, upgrade)
        })
    }

    fn with_toolchains<T>(
        &self,
        layout: Layout,
        ask: impl FnOnce(&Tree, &mut Toolchains<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let env: BTreeMap<String, OsString> = BTreeMap::new();
        let mut toolchains = Toolchains {
            config: None,
            stack: None,
            folder: self.path("toolchains"),
            system: vec![self.path("")],
            proofs: &Proofs::default(),
            user_home: Some(self.path("home")),
            env: &env,
            tolv: "/opt/tolv".into(),
            layout,
            events: &mut |_| {},
            cancelled: &|| false,
            resolver: &mut |wanted, _| (self.resolver)(wanted),
            require_lock: self.require_lock,
            ignored: &|_| false,
        };
        ask(&self.tree(), &mut toolchains)
    }

    /// Problem and help of a codebase that cannot be planned.
    pub(super) fn refusal(&self) -> (String, String) {
        let error = self.plan().unwrap_err();
        (error.to_string(), error.help().unwrap_or_default().to_owned())
    }
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A step's words.
pub(super) fn words(step: &Step) -> Vec<String> {
    step.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The help that a step has for a line of its output.
pub(super) fn help<'a>(step: &'a Step, output: &str) -> Option<&'a str> {
    let hint = step.hints.iter().find(|(text, _)| output.contains(text));
    hint.map(|(_, help)| help.as_str())
}

#[test]
fn the_first_builder_that_fits_is_taken() {
    let builder = |files: &[(&str, &str)]| Machine::new(files).plan().unwrap().builder;
    assert_eq!(builder(&[("Procfile", "web: ./run"), ("index.html", "")]), "static");
    assert_eq!(builder(&[("Procfile", "web: ./run")]), "procfile");
    assert_eq!(builder(&[("static.json", r#"{"root": "."}"#)]), "static");
}

#[test]
fn a_codebase_without_signs_is_refused_with_what_was_looked_for() {
    let (problem, help) = Machine::new(&[("main.c", "")]).refusal();
    insta::assert_snapshot!(problem, @"no builder fits; looked in its root for Gemfile (ruby), uv.lock, requirements.txt, pyproject.toml, Pipfile (python), package.json (node), Cargo.toml (rust), go.mod (go), static.json, index.html (static), Procfile (procfile)");
    assert!(help.contains("Procfile"), "{help}");
    let (problem, _) = Machine::new(&[]).refusal();
    assert!(problem.starts_with("the codebase has no files; "), "{problem}");
}

#[test]
fn a_toml_file_with_a_mistake_is_named_with_its_line() {
    let machine = Machine::new(&[("a.toml", "x = 1\ny =\n"), ("b.toml", "x = 1")]);
    let tree = machine.tree();
    let error = read_toml(&tree, "rust", "a.toml").unwrap_err();
    assert!(error.to_string().starts_with("rust: `a.toml` is not TOML: line 2: "), "{error}");
    assert_eq!(read_toml(&tree, "rust", "b.toml").unwrap().unwrap()["x"].as_integer(), Some(1));
    assert_eq!(read_toml(&tree, "rust", "c.toml").unwrap(), None);
}

#[test]
fn paths_stay_in_the_codebase() {
    assert_eq!(inside("", ".").as_deref(), Some(""));
    assert_eq!(inside("a/b", "../c/./d").as_deref(), Some("a/c/d"));
    assert_eq!(inside("a", "../..").as_deref(), None);
    assert_eq!(inside("a", "/etc").as_deref(), None);
    assert_eq!((below("", "x"), below("a", "x")), ("x".to_owned(), "a/x".to_owned()));
    let machine = Machine::new(&[("a/x", ""), ("a/b/y", ""), ("ab", "")]);
    assert_eq!(files_below(&machine.tree(), "a"), ["a/b/y", "a/x"]);
}
