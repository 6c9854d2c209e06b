//! Which certificates are believed: the system's roots, or those in a file of the operator's.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` say where the system's are, as for other programs.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::fault::Fault;

/// The roots to check a receiver's certificate with.
pub(super) fn roots(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Fault> {
    match file {
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            if found.is_empty() { Err(Fault::NoRoots) } else { Ok(found) }
        }
        Some(path) => {
            // Why not is not told: the file may be none of the asker's business.
            let bad = || Fault::Certificates(path.display().to_string());
            let read = CertificateDer::pem_file_iter(path).map_err(|_| bad())?;
            let found = read.collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
            if found.is_empty() { Err(bad()) } else { Ok(found) }
        }
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
