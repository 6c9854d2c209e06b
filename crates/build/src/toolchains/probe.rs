//! What programs of the machine say about themselves, remembered for those of the stack.
//!
//! A launcher (a pyenv or asdf shim) stays the same file while what it launches changes, so only a
//! real file under `/usr` is remembered, by its identity, size and time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Toolchains;
use crate::Error;

/// Whether a path belongs to the stack: the host's system folders, which every sandbox sees.
pub(crate) fn in_stack(path: &Path) -> bool {
    ["/usr", "/bin", "/sbin", "/lib", "/lib64"].iter().any(|folder| path.starts_with(folder))
}

impl Toolchains<'_> {
    /// All executables of this name in the operator's `PATH`: those of the stack first, each once.
    pub(super) fn find_all(&self, program: &str) -> Vec<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut paths: Vec<PathBuf> = Vec::new();
        for folder in self.search.iter().filter(|folder| folder.is_absolute()) {
            let path = folder.join(program);
            let runs = path
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
            if runs && !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths.sort_by_key(|path| !path.canonicalize().is_ok_and(|path| in_stack(&path)));
        paths
    }

    /// Where a process sees a folder of the toolchains: below `/toolchains` with a mount
    /// namespace, so that no slug knows where the state folder is; else where it is.
    pub(super) fn place(&self, name: &str, source: &Path) -> PathBuf {
        match self.layout == super::Layout::sandboxed() {
            true => Path::new("/toolchains").join(name),
            false => source.to_owned(),
        }
    }

    /// As [`Toolchains::output`], remembered for programs of the stack.
    pub(super) fn probe(&mut self, program: &Path, args: &[&str]) -> Result<String, Error> {
        let real = program.canonicalize().ok().filter(|path| in_stack(path));
        let meta = real.as_ref().and_then(|path| path.metadata().ok());
        let (Some(real), Some(meta)) = (real, meta) else { return self.output(program, args) };
        let (file, size, time) = (meta.ino(), meta.size(), (meta.mtime(), meta.mtime_nsec()));
        let key = format!("{} {file} {size} {time:?} {args:?}", real.display());
        let path = self.folder.join(".probes.json");
        let read = |path: &Path| -> Option<BTreeMap<String, String>> {
            serde_json::from_slice(&fs::read(path).ok()?).ok()
        };
        let mut known = read(&path).unwrap_or_default();
        if let Some(said) = known.get(&key) {
            return Ok(said.clone());
        }
        let said = self.output(&real, args)?;
        known.insert(key, said.clone());
        known.retain(|key, _| key.split(' ').next().is_some_and(|path| Path::new(path).exists()));
        // A lost memory costs milliseconds: it is written whole or left.
        let text = serde_json::to_vec(&known).unwrap_or_default();
        fs::create_dir_all(&self.folder)
            .and_then(|()| tolv_durable::write(&path, &text, 0o600))
            .ok();
        Ok(said)
    }
}
