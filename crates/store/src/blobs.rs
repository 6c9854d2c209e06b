//! Blobs: slugs and the output of operations, in a folder or in S3.

use std::path::Path as FsPath;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, PutPayload};

use crate::error::Error;

/// A store of blobs by key; clones share it. A blob is there whole or not at all.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Of a store that is a folder of this machine, which has to be written to the disk.
    folder: Option<Arc<FsPath>>,
}

impl Blobs {
    /// A folder, made where it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUrl`].
    pub fn folder(folder: &FsPath) -> Result<Self, Error> {
        let bad = |source| Error::BlobUrl { url: folder.display().to_string(), source };
        std::fs::create_dir_all(folder).map_err(|source| {
            bad(object_store::Error::Generic { store: "folder", source: source.into() })
        })?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(bad)?;
        let store = Arc::new(store.with_automatic_cleanup(false));
        Ok(Self { store, folder: Some(folder.into()) })
    }

    /// The store at `s3://bucket/prefix` or `file:///folder`, with options such as
    /// `aws_region` and `aws_endpoint`.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUrl`].
    pub fn open(url: &str, options: &[(String, String)]) -> Result<Self, Error> {
        let bad = |source| Error::BlobUrl { url: without_credentials(url), source };
        let no_url = |why: Box<dyn std::error::Error + Send + Sync>| {
            bad(object_store::Error::Generic { store: "url", source: why })
        };
        let parsed = url::Url::parse(url).map_err(|error| no_url(error.into()))?;
        if parsed.scheme() == "file" {
            let folder = parsed.to_file_path();
            return Self::folder(&folder.map_err(|()| no_url("it names another machine".into()))?);
        }
        let options = options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let (store, prefix) = object_store::parse_url_opts(&parsed, options).map_err(bad)?;
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), folder: None })
    }

    fn failed(what: &str, key: &str) -> impl FnOnce(object_store::Error) -> Error {
        let what = format!("{what} `{key}`");
        move |source| Error::Blob { what, source }
    }

    /// Stores a blob, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`].
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let put = self.store.put(&Path::from(key), PutPayload::from(bytes)).await;
        put.map_err(Self::failed("put", key))?;
        self.sync(key).await
    }

    /// A blob that was stored is there after a power cut too.
    async fn sync(&self, key: &str) -> Result<(), Error> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || tolv_durable::sync_tree(&folder)).await;
        let done = done.map_err(std::io::Error::other).flatten();
        done.map_err(io_error).map_err(Self::failed("put", key))
    }

    /// A blob; nothing where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`].
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.store.get(&Path::from(key)).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(Self::failed("get", key))?;
                Ok(Some(bytes.to_vec()))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Self::failed("get", key)(error)),
        }
    }

    /// Stores a file's bytes as a blob, piece by piece.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`].
    pub async fn put_file(&self, key: &str, file: &FsPath) -> Result<(), Error> {
        let put = async {
            let mut from = tokio::fs::File::open(file).await?;
            let mut to = BufWriter::new(Arc::clone(&self.store), Path::from(key));
            tokio::io::copy(&mut from, &mut to).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut to).await
        };
        put.await.map_err(io_error).map_err(Self::failed("put", key))?;
        self.sync(key).await
    }

    /// Writes a blob into a file; whether there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`].
    pub async fn get_file(&self, key: &str, file: &FsPath) -> Result<bool, Error> {
        let found = match self.store.get(&Path::from(key)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(Self::failed("get", key)(error)),
        };
        let mut pieces = found.into_stream();
        let write = async {
            let mut to = tokio::fs::File::create(file).await.map_err(io_error)?;
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                tokio::io::AsyncWriteExt::write_all(&mut to, &piece).await.map_err(io_error)?;
            }
            tokio::io::AsyncWriteExt::flush(&mut to).await.map_err(io_error)
        };
        write.await.map_err(Self::failed("get", key))?;
        Ok(true)
    }

    /// The keys that begin with a folder.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`].
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        let found =
            self.store.list(Some(&Path::from(folder))).map_ok(|meta| meta.location.to_string());
        found.try_collect().await.map_err(Self::failed("list", folder))
    }

    /// Whether there is a blob.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`].
    pub async fn has(&self, key: &str) -> Result<bool, Error> {
        match self.store.head(&Path::from(key)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Self::failed("look for", key)(error)),
        }
    }

    /// Removes a blob; one that is gone already is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Self::failed("delete", key)(error)),
        }
    }
}

/// What is before the `@` of an address may be a password, and what is behind `?` too.
fn without_credentials(url: &str) -> String {
    let shown = url.split('?').next().unwrap_or_default();
    match (shown.find("://"), shown.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}****{}", &shown[..scheme + 3], &shown[at..])
        }
        (None, Some(at)) => format!("****{}", &shown[at..]),
        _ => shown.to_owned(),
    }
}

fn io_error(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "file", source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_store_is_an_error_without_its_password() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Blobs::open("nonsense", &[]).is_err());
        assert!(Blobs::open("file://elsewhere/folder", &[]).is_err());
        for url in ["s9://id:s3cret@bucket/x", "id:s3cret@bucket", "s9://bucket/x?key=s3cret"] {
            let error = Blobs::open(url, &[]).unwrap_err().to_string();
            assert!(error.contains("bucket") && !error.contains("s3cret"), "{error}");
        }
        let url = format!("file://{}/of%20two", folder.path().display());
        Blobs::open(&url, &[]).unwrap();
        assert!(folder.path().join("of two").is_dir());
    }
}
