//! A folder that is gone after the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// An empty folder of its own, removed with all that is in it when dropped, read-only folders
/// too: a codebase, a state folder, a place for anything.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// When the system's folder for temporary files cannot be written to.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("tolv-test-").tempdir().expect("make a temp folder"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file below it, making the folders on the way; returns its path.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    #[track_caller]
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(relative);
        if let Some(folder) = path.parent()
            && let Err(error) = fs::create_dir_all(folder)
        {
            panic!("make {}: {error}", folder.display());
        }
        if let Err(error) = fs::write(&path, content) {
            panic!("write {}: {error}", path.display());
        }
        path
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        make_writable(self.path());
    }
}

/// Gives folders back the bits that their removal needs; what fails, fails there.
fn make_writable(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).ok();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
