//! Which certificates are believed: the system's roots, or those in a file that a platform admin
//! names.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` say where the system's are, as for other programs.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::fault::Fault;

/// Largest file of certificates; the roots of a whole system have a fifth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The roots to check a receiver's certificate with.
pub(super) fn roots(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Fault> {
    match file {
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            if found.is_empty() { Err(Fault::NoRoots) } else { Ok(found) }
        }
        Some(path) => {
            let bad = || Fault::Certificates(path.display().to_string());
            let text = read(path).map_err(|_| bad())?;
            let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
            let found = found.map_err(|_| bad())?;
            if found.is_empty() { Err(bad()) } else { Ok(found) }
        }
    }
}

/// Reads a regular file of at most [`MAX_FILE_BYTES`]. It waits for no writer of a FIFO, opens no
/// link, and reads no device, which may have no end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let flags = flags.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut text = Vec::new();
    if file.metadata()?.is_file() {
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    }
    match text.len() as u64 {
        0 => Err(io::ErrorKind::InvalidInput.into()),
        count if count > MAX_FILE_BYTES => Err(io::ErrorKind::FileTooLarge.into()),
        _ => Ok(text),
    }
}

/// Settings of a connection that checks the receiver's certificate.
pub(super) fn client(file: Option<&Path>) -> Result<Arc<ClientConfig>, Fault> {
    let mut store = RootCertStore::empty();
    // The system's may have some that cannot be used; a file's are checked by their use.
    store.add_parsable_certificates(roots(file)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Fault::NoRoots)?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_a_small_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("small"), "text").unwrap();
        fs::write(at("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
        symlink(at("small"), at("link")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(read(&at("small")).unwrap(), b"text");
        for path in [at("large"), at("link"), at("fifo"), dir.path().into(), "/dev/zero".into()] {
            assert!(read(&path).is_err(), "{}", path.display());
        }
    }
}
