//! Proof that what runs is what was released: the slug with its layers on the disk, before each
//! start of a process.
//!
//! The bytes are read once; later proofs are a walk over the files (see [`Proofs`]). What was
//! proven is kept in the state folder, sealed with the secret key.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use tokio::time::Instant;
use tolv_build::{Places, Proofs};
use tolv_model::id::AppId;
use tolv_model::slug::{Manifest, SlugId, Toolchain};
use tolv_model::stack::StackId;
use tolv_sandbox::Level;
use tolv_store::Store;

use super::error::{Error, chain};
use super::platform::{Inner, Platform, blocking, lock};
use super::target::Runtime;

/// In the state folder: what was proven.
const FILE: &str = "proofs";

/// What was proven, and when.
#[derive(Default)]
pub(super) struct Prover {
    proofs: Proofs,
    /// When the last proof of a slug began that held; held while one is under way. Has only slugs
    /// that are being asked about.
    slugs: Mutex<HashMap<(AppId, SlugId), LastProof>>,
}

type LastProof = Arc<tokio::sync::Mutex<Option<Instant>>>;

impl Prover {
    /// What an earlier platform on this state folder has proven.
    pub(super) fn open(home: &Path, store: &Store, level: Level) -> Self {
        let sealed = tolv_durable::read(&home.join(FILE)).ok();
        let sealed = sealed.and_then(|sealed| String::from_utf8(sealed).ok());
        let bytes = sealed.and_then(|sealed| store.unseal(FILE, &sealed));
        // Without it every byte is read again.
        let proofs = bytes.map(|bytes| Proofs::from_bytes(&bytes)).unwrap_or_default();
        Self { proofs: proofs.of_level(level), slugs: Mutex::default() }
    }

    pub(super) fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    fn of(&self, app: &AppId, slug: SlugId) -> LastProof {
        let mut slugs = lock(&self.slugs);
        // An entry that only the map holds is not in use.
        slugs.retain(|_, last| Arc::strong_count(last) > 1);
        Arc::clone(slugs.entry((app.clone(), slug)).or_default())
    }

    fn save(&self, home: &Path, store: &Store) {
        let Some(bytes) = self.proofs.to_bytes() else { return };
        let write =
            |sealed: String| tolv_durable::write(&home.join(FILE), sealed.as_bytes(), 0o600);
        // Where it cannot be kept, the bytes are read again after the next start.
        store.seal(FILE, &bytes).ok().and_then(|sealed| write(sealed).ok());
    }
}

impl Platform {
    /// Makes sure that a slug with its layers is on this machine, whole. One that is gone or has
    /// changed is brought back where the operator attached a blob store. Proofs that are asked for
    /// at once are one proof.
    pub(super) async fn prove(&self, app: &AppId, slug: SlugId) -> Result<(), Error> {
        let asked = Instant::now();
        let last = self.0.prover.of(app, slug);
        let mut last = last.lock().await;
        if last.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        *last = None;
        let began = Instant::now();
        if let Err(missing) = self.verify_slug(app, slug, self.0.prover.proofs().clone()).await {
            self.bring_back(app, slug, missing).await?;
            self.verify_slug(app, slug, self.0.prover.proofs().clone()).await?;
        }
        let (inner, home) = (Arc::clone(&self.0), self.0.home.clone());
        blocking(move || {
            inner.prover.save(&home, &inner.store);
            Ok::<_, Error>(())
        })
        .await?;
        *last = Some(began);
        Ok(())
    }

    /// Proves a slug with its layers, with what is known already.
    pub(super) async fn verify_slug(
        &self,
        app: &AppId,
        slug: SlugId,
        proofs: Proofs,
    ) -> Result<(), Error> {
        let places = self.places(app, self.0.options.host.program.clone());
        blocking(move || tolv_build::verify(&places, slug, &proofs)).await
    }

    /// A slug's manifest, brought back where it is gone and there is a blob store.
    pub(super) async fn manifest(&self, app: &AppId, slug: SlugId) -> Result<Manifest, Error> {
        let read = || {
            let (home, proofs) = (self.folder_of(app), self.0.prover.proofs().clone());
            blocking(move || tolv_build::manifest(&home, slug, &proofs))
        };
        match read().await {
            Err(missing) => {
                self.bring_back(app, slug, missing).await?;
                read().await
            }
            manifest => manifest,
        }
    }

    /// The stack that a slug is built on; nothing for the machine's own programs, and for a slug that is
    /// not here any more.
    pub async fn stack_of(&self, app: &AppId, slug: SlugId) -> Option<StackId> {
        let (home, proofs) = (self.folder_of(app), self.0.prover.proofs().clone());
        let manifest: Result<_, Error> =
            blocking(move || tolv_build::manifest(&home, slug, &proofs)).await;
        manifest.ok()?.stack
    }

    /// What a release needs of its slug to run.
    pub(super) async fn runtime(&self, app: &AppId, slug: &SlugId) -> Result<Runtime, Error> {
        let manifest = self.manifest(app, *slug).await?;
        let program = match manifest.toolchains.iter().any(Toolchain::is_platform) {
            true => self.own_program().await?,
            false => self.0.options.host.program.clone(),
        };
        let places = self.places(app, program);
        let (stack, mounts) = (places.stack(&manifest), places.mounts(*slug, &manifest)?);
        Ok(Runtime::of(manifest, stack, mounts))
    }

    /// Where this machine has what the slugs of an app need; `program` is the platform's own.
    fn places(&self, app: &AppId, program: PathBuf) -> Places {
        let (host, home) = (&self.0.options.host, &self.0.home);
        Places {
            home: self.folder_of(app),
            toolchains: host.toolchains(home),
            stacks: host.stacks(home),
            program,
        }
    }

    /// The file of this program, for what is started of it.
    pub(super) async fn own_program(&self) -> Result<PathBuf, Error> {
        let image = self.0.image.clone();
        blocking(move || image.file().map_err(unkept)).await
    }
}

fn unkept(source: io::Error) -> Error {
    Error::System { what: "keep a copy of the running program", source }
}

/// What the engine of a deploy asks before each start of a process.
pub(super) fn before_start(platform: Weak<Inner>, app: AppId) -> tolv_run::Prove {
    Arc::new(move |release| {
        let (platform, app) = (platform.upgrade().map(Platform), app.clone());
        Box::pin(async move {
            let Some(platform) = platform else {
                return Err("the platform is gone".to_owned().into());
            };
            let image = platform.0.image.clone();
            let ready = async {
                blocking(move || image.require().map_err(unkept)).await?;
                platform.prove(&app, release.slug).await
            };
            ready.await.map_err(|error| tolv_run::StartFailure {
                why: chain(&error),
                shortage: error.shortage(),
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tolv_model::slug::Digest;

    use super::*;

    #[test]
    fn slugs_that_nobody_asks_about_are_forgotten() {
        let (prover, app) = (Prover::default(), AppId::new(Timestamp::UNIX_EPOCH, 7));
        let slug = |number: u32| SlugId(Digest::of(&number.to_be_bytes()));
        let held = prover.of(&app, slug(0));
        for number in 1..1000 {
            prover.of(&app, slug(number));
        }
        assert!(Arc::ptr_eq(&held, &prover.of(&app, slug(0))), "askers at once share it");
        assert!(lock(&prover.slugs).len() <= 2);
    }
}
