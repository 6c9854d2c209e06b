//! A receiver over HTTP: it says what it has taken.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tolv_logs::drain::DrainUrl;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{Request, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::fault::Fault;
use super::reach::Reach;
use super::trust;

/// For a connection to be made, and for a whole request.
const CONNECT: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are looked at.
const ANSWER: u64 = 64 * 1024;

pub(super) struct Http {
    agent: Option<Agent>,
    reach: Reach,
}

/// Finds a receiver's addresses, and leaves out those where the drain may not go.
#[derive(Debug)]
struct GuardedResolver {
    system: DefaultResolver,
    reach: Reach,
}

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.system.resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        let allowed = self.reach.check(host, found.iter().copied());
        let allowed =
            allowed.map_err(|fault| io::Error::new(io::ErrorKind::PermissionDenied, fault))?;
        let mut kept = self.empty();
        allowed.into_iter().for_each(|address| kept.push(address));
        Ok(kept)
    }
}

/// What a receiver says of a body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn new(reach: Reach) -> Self {
        Self { agent: None, reach }
    }

    /// Sends a body.
    pub(super) fn post(
        &mut self,
        url: &DrainUrl,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Fault> {
        let failed = |error: String| Fault::Http(url.authority(), error);
        let scheme = if url.tls { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{}{}", url.authority(), url.target));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some((user, password)) = &url.user {
            let basic = STANDARD.encode(format!("{user}:{password}"));
            request = request.header("authorization", format!("Basic {basic}"));
        }
        for (name, value) in &url.headers {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|_| failed("no such request".to_owned()))?;
        let agent = match &mut self.agent {
            Some(agent) => agent,
            none => none.insert(agent(url, &self.reach)?),
        };
        let answer = agent.run(request).map(|mut response| {
            let header = response.headers().get("retry-after");
            let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let body = response.body_mut().with_config().limit(ANSWER).read_to_vec();
            Answer {
                status: response.status().as_u16(),
                retry_after: seconds.map(Duration::from_secs),
                // It was taken or not, whatever else is said.
                body: body.unwrap_or_default(),
            }
        });
        answer.map_err(|error| {
            // The file of certificates may be another by the next time.
            self.agent = None;
            match error {
                // Nothing was sent.
                ureq::Error::ConnectionFailed
                | ureq::Error::HostNotFound
                | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                    Fault::Connect(url.authority(), io::Error::other(error))
                }
                ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    Fault::Connect(url.authority(), error)
                }
                error => failed(error.to_string()),
            }
        })
    }
}

fn agent(url: &DrainUrl, reach: &Reach) -> Result<Agent, Fault> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(WHOLE))
        .user_agent(concat!("tolv/", env!("CARGO_PKG_VERSION")));
    if url.tls {
        let roots = trust::roots(url.ca.as_deref())?;
        let roots: Vec<_> =
            roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build();
        config = config.tls_config(tls);
    }
    let resolver = GuardedResolver { system: DefaultResolver::default(), reach: reach.clone() };
    Ok(Agent::with_parts(config.build(), DefaultConnector::default(), resolver))
}
