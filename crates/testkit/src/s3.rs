//! An S3 server of a test's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{free_port, http, poll};

/// For the server to take connections: a Python program with large libraries.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one request about a bucket.
const REQUEST: Duration = Duration::from_secs(10);

/// moto's server with one empty bucket, in memory, on a port of its own, gone when dropped. It
/// checks no signature: any key opens it.
#[derive(Debug)]
pub struct S3 {
    port: u16,
    server: Child,
}

impl S3 {
    /// The bucket's name.
    pub const BUCKET: &str = "slugs";

    /// Starts the server and makes the bucket.
    ///
    /// # Panics
    ///
    /// When it is not installed (`cargo xtask needs`) or does not start.
    #[track_caller]
    pub fn start() -> Self {
        let port = free_port();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=KILL", "--"]).arg(program());
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        // What it would look up about the machine it is on.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let server = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start moto's server");
        let s3 = Self { port, server };
        let bucket = format!("/{}", Self::BUCKET);
        let host = format!("127.0.0.1:{port}");
        let headers = [("Host", host.as_str()), ("Content-Length", "0")];
        poll(PATIENCE, "the S3 server makes a bucket", || {
            let made = http::send(s3.address(), "PUT", &bucket, &headers, REQUEST).ok()?;
            (made.status == 200).then_some(())
        });
        s3
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its address, for `OBJECT_STORE_URL`.
    pub fn url(&self) -> String {
        format!("s3://{}/of/tolv", Self::BUCKET)
    }

    /// What has to be in the environment beside the address.
    pub fn options(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address())),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// Where `cargo xtask needs` puts it.
fn program() -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    PathBuf::from(root).join("target/needs/moto/bin/moto_server")
}
