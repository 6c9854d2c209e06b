//! Why lines did not get to a receiver.

use std::io;
use std::time::Duration;

/// What to do about an error of TLS, where its own words do not say that.
fn advice(error: &str) -> &'static str {
    match () {
        () if error.contains("CaUsedAsEndEntity") => {
            " (the receiver shows the certificate of an authority as its own: give it one with \
             CA:FALSE that the authority signed, and name the authority's with `ca`)"
        }
        () if error.contains("UnknownIssuer") => {
            " (no certificate that is trusted signed the receiver's: name the one that did with `ca`)"
        }
        () => "",
    }
}

/// Why lines did not get to a receiver.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Its name has no address.
    #[error("the address of `{0}` is not to be had: {1}")]
    Resolve(String, io::Error),
    /// Nobody listens there.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    /// The handshake, and foremost the certificate.
    #[error("no encrypted connection to {0}: {1}{advice}", advice = advice(&.1.to_string()))]
    Tls(String, io::Error),
    /// The file of certificates.
    #[error("`{0}` is not a regular file of at most 1 MiB with certificates in it")]
    Certificates(String),
    /// A file that is the operator's to name.
    #[error(
        "`ca` names a file of the platform's machine: only a platform admin may add this drain"
    )]
    CertificatesOfOperator,
    /// An address that is the operator's to allow.
    #[error(
        "`{0}` is this machine, its link or a cloud's metadata service: only a platform admin may \
         add a drain that goes there, or the operator lists it in TOLV_HOST_SERVICES"
    )]
    Internal(String),
    /// The system has none.
    #[error("this system has no root certificates to check the receiver's with")]
    NoRoots,
    /// The connection ended.
    #[error("the receiver closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// It takes nothing.
    #[error("the receiver takes nothing for {} seconds", .0.as_secs())]
    Hangs(Duration),
    /// An answer that is none of success.
    #[error("the receiver answers {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer.
    #[error("no answer from {0}: {1}{advice}", advice = advice(.1))]
    Http(String, String),
    /// It took not all.
    #[error("the receiver refused {0} lines: {1}")]
    Refused(u64, String),
    /// The log.
    #[error("the log cannot be read: {0}")]
    Log(io::Error),
    /// The platform ends, or the drain.
    #[error("stopped")]
    Stopped,
}
