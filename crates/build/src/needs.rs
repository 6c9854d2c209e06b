//! What the processes of a slug need to see, resolved on this machine: the slug, its layers, its
//! toolchains.
//!
//! A slug names what it needs by content and by name, never by a path of the host, so that a state
//! folder can move and a slug can come from another machine.

use std::path::{Path, PathBuf};

use tolv_model::slug::{Manifest, SlugId, Toolchain};
use tolv_sandbox::Mount;

use crate::Error;
use crate::files;
use crate::layers::Layers;
use crate::pipeline::{APP, LAYERS};
use crate::plan;
use crate::slugs::Slugs;
use crate::source::as_path;
use crate::stacks::Stacks;

/// In the folder of toolchains: links to those that only work where the machine has them.
pub(crate) const INSTALLED: &str = "installed/";

/// What to do about a toolchain that is gone or has changed.
pub(crate) const AGAIN: &str = "deploy the commit again: a build copies or fetches it";

/// Where this machine has what slugs need.
#[derive(Clone, Debug)]
pub struct Places {
    /// The app's folder.
    pub home: PathBuf,
    /// The folder of toolchains.
    pub toolchains: PathBuf,
    /// The folder of stacks.
    pub stacks: PathBuf,
    /// The platform's own program.
    pub program: PathBuf,
}

impl Places {
    /// What the processes of a slug see beside the stack: the slug, its layers, its toolchains. What a
    /// process writes to the first two is its own.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] for one that is not on this machine.
    pub fn mounts(&self, id: SlugId, manifest: &Manifest) -> Result<Vec<Mount>, Error> {
        let slugs = Slugs::at(&self.home);
        let layers = Layers::at(slugs.folder());
        let mut mounts = vec![Mount::private(slugs.path(id), APP)];
        for layer in &manifest.layers {
            let target = Path::new(LAYERS).join(layer.key.to_string());
            mounts.push(Mount::private(layers.path(&layer.key), target));
        }
        for toolchain in &manifest.toolchains {
            mounts.push(Mount::read_only(self.find(toolchain)?, as_path(&toolchain.target)));
        }
        Ok(mounts)
    }

    /// The folders of the stack below the processes of a slug, lowest first; none where they find the
    /// machine's own programs.
    pub fn stack(&self, manifest: &Manifest) -> Vec<PathBuf> {
        let stack = manifest.stack.as_ref();
        stack.map(|id| Stacks::at(&self.stacks).at_run(id)).unwrap_or_default()
    }

    fn find(&self, toolchain: &Toolchain) -> Result<PathBuf, Error> {
        if toolchain.is_platform() {
            return Ok(self.program.clone());
        }
        let gone = |why: String| Error::Toolchain {
            what: toolchain.name.clone(),
            why,
            help: AGAIN.to_owned(),
        };
        if !toolchain.is_plain() {
            return Err(gone("its name is not a plain path".to_owned()));
        }
        let path = self.toolchains.join(&toolchain.name);
        path.canonicalize().map_err(|error| gone(format!("`{}`: {error}", path.display())))
    }

    /// Names a toolchain of a build, so that it is found by that name later.
    pub(crate) fn name(&self, toolchain: &plan::Toolchain) -> Result<Toolchain, Error> {
        use std::os::unix::ffi::OsStrExt as _;
        let target = toolchain.target.as_os_str().as_bytes().to_vec();
        let named = |name: String| Toolchain { name, target };
        if toolchain.source == self.program {
            return Ok(named(Toolchain::PLATFORM.to_owned()));
        }
        let kept = toolchain.source.strip_prefix(&self.toolchains).ok().and_then(Path::to_str);
        if let Some(name) = kept {
            return Ok(named(name.to_owned()));
        }
        // A Ruby that knows its own path: a link says where it is. The version is in the name, so
        // a release never gets another one.
        let name = format!("{INSTALLED}{}", toolchain.version.replace([' ', '/'], "-"));
        let link = self.toolchains.join(&name);
        if std::fs::read_link(&link).ok().as_deref() != Some(&*toolchain.source) {
            if let Some(folder) = link.parent() {
                files::make_folder(folder)?;
            }
            files::write_link(&link, &toolchain.source)?;
        }
        Ok(named(name))
    }
}

#[cfg(test)]
impl Places {
    /// All in one folder.
    pub(crate) fn below(home: &Path) -> Self {
        let (home, program) = (home.to_owned(), PathBuf::from("/nonexistent"));
        Self { toolchains: home.clone(), stacks: home.clone(), home, program }
    }
}
