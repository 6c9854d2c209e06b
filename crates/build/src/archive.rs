//! Slugs and layers as single files, for a store of blobs: `tar`, compressed with Zstandard.
//!
//! What comes back is not trusted: an entry that leaves its folder, or is no file, folder or link,
//! is refused, and the whole has to be what its id says before it gets its name.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};
use tolv_model::slug::{Entry, Layer, Manifest, SlugId};
use tolv_model::tree_path::TreePath;

use crate::Error;
use crate::beneath::Beneath;
use crate::caps::{Caps, bytes};
use crate::files;
use crate::layers::Layers;
use crate::proof::Proofs;
use crate::seal::{self, LAYER, Modes, SLUG, seal};
use crate::slots::Slot;
use crate::slugs::Slugs;
use crate::source::as_path;

/// How much time is given to a smaller file: the fastest that is worth it.
const LEVEL: i32 = 1;
/// The manifest in a slug's archive, its first entry: no path of a slug is like it.
const MANIFEST: &str = "../manifest";
/// Most bytes of a manifest: 200,000 long paths.
const MAX_MANIFEST: u64 = 256 << 20;

/// The layers that a slug's processes see.
///
/// # Errors
///
/// [`Error::Slug`] where the slug is not here.
pub fn layers_of(home: &Path, id: SlugId) -> Result<Vec<Layer>, Error> {
    let gone = || Error::Slug { id, what: "is not here".to_owned() };
    Ok(Slugs::open(home)?.recorded(id).ok_or_else(gone)?.layers)
}

/// Whether a layer is here, and what it was.
///
/// # Errors
///
/// Something of it cannot be read.
pub fn has_layer(home: &Path, layer: &Layer, proofs: &Proofs) -> Result<bool, Error> {
    let layers = Layers::at(Slugs::at(home).folder());
    Ok(layers.proven(layer, proofs)?.is_ok())
}

/// Writes a slug, its manifest first.
///
/// # Errors
///
/// [`Error::Slug`] where the slug is not here whole; the file's.
pub fn pack_slug(home: &Path, id: SlugId, to: &Path, proofs: &Proofs) -> Result<(), Error> {
    let slugs = Slugs::at(home);
    let wrong = |what| Error::Slug { id, what };
    slugs.proven(id, proofs)?.map_err(wrong)?;
    let none = || wrong("has no manifest that is its own".to_owned());
    let manifest = slugs.recorded(id).ok_or_else(none)?;
    let text = serde_json::to_vec(&manifest).map_err(io::Error::other);
    let text = text.map_err(Error::io("pack", to))?;
    write(to, &slugs.path(id), &manifest.entries, Some(&text)).map_err(Error::io("pack", to))
}

/// Writes a layer.
///
/// # Errors
///
/// [`Error::Layer`] where the layer is not here whole; the file's.
pub fn pack_layer(home: &Path, layer: &Layer, to: &Path, proofs: &Proofs) -> Result<(), Error> {
    let layers = Layers::at(Slugs::at(home).folder());
    let wrong = |what| Error::Layer { key: layer.key, what };
    layers.proven(layer, proofs)?.map_err(wrong)?;
    let folder = layers.path(&layer.key);
    let none = || wrong("has no list of files that is its own".to_owned());
    let entries = layers.listed(layer).ok_or_else(none)?;
    write(to, &folder, &entries, None).map_err(Error::io("pack", to))
}

/// Takes a slug in.
///
/// # Errors
///
/// [`Error::Slug`] where the archive is not this slug; then nothing is left of it.
pub fn unpack_slug(home: &Path, id: SlugId, from: &Path, proofs: &Proofs) -> Result<(), Error> {
    let slot = Slot::take(&home.join("builds"))?;
    let folder = slot.path().join("app");
    let wrong = |what: &str| Error::Slug { id, what: what.to_owned() };
    let text = read(from, &folder)?.ok_or_else(|| wrong("has no manifest in its archive"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|_| wrong("has a manifest that is none"))?;
    let same = manifest.id() == id && same(&folder, SLUG, &manifest.entries)?;
    if !same {
        return Err(wrong("is not what its archive holds"));
    }
    Slugs::open(home)?.put(&folder, &manifest, proofs).map(drop)
}

/// Takes a layer in.
///
/// # Errors
///
/// [`Error::Layer`] where the archive is not this layer; then nothing is left of it.
pub fn unpack_layer(home: &Path, layer: &Layer, from: &Path, proofs: &Proofs) -> Result<(), Error> {
    let slot = Slot::take(&home.join("builds"))?;
    let folder = slot.path().join("layer");
    read(from, &folder)?;
    let entries = seal(&folder, LAYER, &|_| true, &|| false)?;
    if seal::content(entries.iter().map(|(path, entry)| (path, entry))) != layer.content {
        let what = "is not what its archive holds".to_owned();
        return Err(Error::Layer { key: layer.key, what });
    }
    Layers::open(Slugs::open(home)?.folder())?.put(layer, &folder, &entries, proofs)
}

/// Whether a folder holds these entries and nothing else.
fn same(folder: &Path, modes: Modes, wanted: &[(Vec<u8>, Entry)]) -> Result<bool, Error> {
    let mut found = seal(folder, modes, &|_| true, &|| false)?;
    let mut wanted = wanted.to_vec();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found == wanted)
}

fn write(
    to: &Path,
    root: &Path,
    entries: &[(Vec<u8>, Entry)],
    manifest: Option<&[u8]>,
) -> io::Result<()> {
    let out = zstd::Encoder::new(BufWriter::new(File::create(to)?), LEVEL)?;
    let mut tar = Builder::new(out);
    tar.follow_symlinks(false);
    if let Some(text) = manifest {
        let mut header = Header::new_gnu();
        // A path that `set_path` would refuse, and so does everybody who unpacks.
        header.as_old_mut().name[..MANIFEST.len()].copy_from_slice(MANIFEST.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o444);
        header.set_cksum();
        tar.append(&header, text)?;
    }
    for (path, entry) in entries {
        let (path, full) = (as_path(path), root.join(as_path(path)));
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        match entry {
            Entry::Directory => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                tar.append_data(&mut header, path, io::empty())?;
            }
            Entry::File { size, executable, .. } => {
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(*size);
                tar.append_data(&mut header, path, files::open(&full)?)?;
            }
            Entry::Symlink { target } => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                tar.append_link(&mut header, path, as_path(target))?;
            }
        }
    }
    tar.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Unpacks into a new folder; gives the manifest where there is one.
fn read(from: &Path, folder: &Path) -> Result<Option<Vec<u8>>, Error> {
    files::make_folder(folder)?;
    let io = |error| Error::io("unpack", from)(error);
    let file = zstd::Decoder::new(BufReader::new(files::open(from).map_err(io)?)).map_err(io)?;
    let mut archive = Archive::new(file);
    let mut to = Beneath::open(folder).map_err(Error::io("open", folder))?;
    let caps = Caps::default();
    let (mut left, mut count, mut manifest) = (caps.slug, 0, None);
    let over = |limit| Error::Limit { what: format!("`{}`", from.display()), limit };
    for entry in archive.entries().map_err(io)? {
        let mut entry = entry.map_err(io)?;
        let size = entry.size();
        left = left.checked_sub(size).ok_or_else(|| over(bytes(caps.slug)))?;
        count += 1;
        if count > caps.files + 1 {
            return Err(over(format!("{} files", caps.files)));
        }
        if manifest.is_none() && *entry.path_bytes() == *MANIFEST.as_bytes() {
            if size > MAX_MANIFEST {
                return Err(over(bytes(MAX_MANIFEST)));
            }
            let mut text = Vec::new();
            io::Read::read_to_end(&mut entry, &mut text).map_err(io)?;
            manifest = Some(text);
            continue;
        }
        let name = entry.path_bytes().into_owned();
        let name = name.strip_suffix(b"/").unwrap_or(&name);
        let path = TreePath::new(name).map_err(|bad| io(io::Error::other(bad)))?;
        match entry.header().entry_type() {
            EntryType::Regular => {
                let mode = entry.header().mode().map_err(io)? & 0o755;
                let mut file = to.create(&path, mode).map_err(io)?;
                io::copy(&mut entry, &mut file).map_err(io)?;
            }
            EntryType::Directory => to.make(&path).map_err(io)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                to.link(&path, &target).map_err(io)?;
            }
            _ => return Err(io(io::Error::other("an entry that has no place in it"))),
        }
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::keep::verify;

    fn slug(home: &Path) -> SlugId {
        let app = home.join("app");
        fs::create_dir_all(app.join("bin")).unwrap();
        fs::write(app.join("bin/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(app.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(app.join("x".repeat(180)), "a long name").unwrap();
        std::os::unix::fs::symlink("bin/run", app.join("link")).unwrap();
        let entries = seal(&app, SLUG, &|_| true, &|| false).unwrap();
        let manifest = Manifest {
            entries,
            layers: Vec::new(),
            toolchains: Vec::new(),
            process_types: Default::default(),
            env: Default::default(),
            path: Vec::new(),
            declared: Default::default(),
            profile: Vec::new(),
            build_config: std::collections::BTreeMap::new(),
            buildpacks: Vec::new(),
            stack: None,
        };
        Slugs::open(home).unwrap().put(&app, &manifest, &Proofs::default()).unwrap()
    }

    #[test]
    fn a_slug_comes_back_as_it_was() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = slug(one.path());
        let file = one.path().join("slug.tar.zst");
        pack_slug(one.path(), id, &file, &Proofs::default()).unwrap();
        unpack_slug(two.path(), id, &file, &Proofs::default()).unwrap();
        verify(&crate::Places::below(two.path()), id, &Proofs::default()).unwrap();
        assert!(layers_of(two.path(), id).unwrap().is_empty());
        // Packed again, it is the same file.
        let again = two.path().join("slug.tar.zst");
        pack_slug(two.path(), id, &again, &Proofs::default()).unwrap();
        assert!(fs::read(&file).unwrap() == fs::read(&again).unwrap());
    }

    #[test]
    fn what_is_another_or_broken_is_refused_and_leaves_nothing() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = slug(one.path());
        let file = one.path().join("slug.tar.zst");
        pack_slug(one.path(), id, &file, &Proofs::default()).unwrap();
        let other = SlugId(tolv_model::slug::Digest::of(b"other"));
        assert!(unpack_slug(two.path(), other, &file, &Proofs::default()).is_err());
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(unpack_slug(two.path(), id, &file, &Proofs::default()).is_err());
        fs::write(&file, "no archive").unwrap();
        assert!(unpack_slug(two.path(), id, &file, &Proofs::default()).is_err());
        assert!(Slugs::open(two.path()).unwrap().all().unwrap().is_empty());
    }

    #[test]
    fn an_archive_cannot_write_beside_its_folder() {
        let home = tempfile::tempdir().unwrap();
        let id = slug(home.path());
        let file = home.path().join("evil.tar.zst");
        let out = zstd::Encoder::new(File::create(&file).unwrap(), LEVEL).unwrap();
        let mut tar = Builder::new(out);
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..7].copy_from_slice(b"../evil");
        header.set_size(1);
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        assert!(unpack_slug(home.path(), id, &file, &Proofs::default()).is_err());
        assert!(!home.path().join("builds/1/evil").exists());
    }

    #[test]
    fn a_layer_comes_back_as_it_was() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = one.path().join("layer");
        fs::create_dir_all(folder.join("lib")).unwrap();
        fs::write(folder.join("lib/a"), "a").unwrap();
        let entries = seal(&folder, LAYER, &|_| true, &|| false).unwrap();
        let content = seal::content(entries.iter().map(|(path, entry)| (path, entry)));
        let layer = Layer { key: tolv_model::slug::Digest::of(b"key"), content };
        let layers = Layers::open(Slugs::open(one.path()).unwrap().folder()).unwrap();
        layers.put(&layer, &folder, &entries, &Proofs::default()).unwrap();
        let file = one.path().join("layer.tar.zst");
        pack_layer(one.path(), &layer, &file, &Proofs::default()).unwrap();
        assert!(!has_layer(two.path(), &layer, &Proofs::default()).unwrap());
        unpack_layer(two.path(), &layer, &file, &Proofs::default()).unwrap();
        assert!(has_layer(two.path(), &layer, &Proofs::default()).unwrap());
        let wrong = Layer { content: layer.key, ..layer };
        assert!(unpack_layer(two.path(), &wrong, &file, &Proofs::default()).is_err());
    }
}
