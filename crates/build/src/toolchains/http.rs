//! The HTTPS client for registries: certificates, proxies and credentials from the variables that
//! the operator gave, and error texts that name the address without its credentials.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::fetch::{MAX_PAGE, base64};

/// Variables that name a file of CA certificates, the strongest first.
const CA_FILES: &[&str] = &[
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
];
/// Where distributions keep the bundle: Debian, Fedora, openSUSE, Alpine.
const SYSTEM_CA: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An address with its credentials taken out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Scheme, host and path alone: safe to show.
    pub(super) shown: String,
    /// Value of `Authorization`.
    authorization: Option<String>,
}

impl Target {
    pub(super) fn new(url: &str) -> Self {
        let plain = || Self { shown: url.to_owned(), authorization: None };
        let Some((scheme, rest)) = url.split_once("://") else { return plain() };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let Some(at) = rest[..end].rfind('@') else { return plain() };
        let user = percent_decoded(&rest[..at]);
        Self {
            shown: format!("{scheme}://{}", &rest[at + 1..]),
            authorization: Some(format!("Basic {}", base64(&user))),
        }
    }

    fn host(&self) -> &str {
        let rest = self.shown.split_once("://").map_or(self.shown.as_str(), |(_, rest)| rest);
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if let Some(end) = authority.find(']') {
            return &authority[..=end];
        }
        authority.split(':').next().unwrap_or(authority)
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let hex = |pair: &[u8]| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(hex) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// An answer's body.
pub(super) struct Body {
    pub(super) reader: Box<dyn Read>,
    /// As announced; 0 where that is not known.
    pub(super) length: u64,
}

/// One client, for all fetches of a build.
pub(super) struct Client {
    direct: ureq::Agent,
    /// For `https:` and for `http:`.
    proxied: [Option<ureq::Agent>; 2],
    no_proxy: Vec<String>,
    /// `Authorization` for addresses that start so.
    tokens: Vec<(String, String)>,
}

impl Client {
    /// A client by the registry variables in `env`.
    pub(super) fn new(env: &BTreeMap<String, OsString>) -> Result<Self, String> {
        let value = |names: &[&str]| {
            let set = |name: &&str| env.get(*name)?.to_str().map(str::trim);
            names.iter().filter_map(set).find(|value| !value.is_empty()).map(str::to_owned)
        };
        let roots = roots(env)?;
        let agent = |proxy: Option<ureq::Proxy>| {
            ureq::Agent::config_builder()
                .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .user_agent(concat!("tolv/", env!("CARGO_PKG_VERSION")))
                .proxy(proxy)
                .timeout_connect(Some(Duration::from_secs(30)))
                .timeout_recv_response(Some(Duration::from_secs(180)))
                .timeout_recv_body(Some(Duration::from_secs(900)))
                .build()
                .new_agent()
        };
        let proxied = |names: &[&str]| match value(names) {
            Some(url) => match ureq::Proxy::new(&url) {
                Ok(proxy) => Ok(Some(agent(Some(proxy)))),
                Err(_) => Err(format!("the proxy in `{}` is not a proxy's address", names[0])),
            },
            None => Ok(None),
        };
        let no_proxy = value(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Ok(Self {
            direct: agent(None),
            proxied: [
                proxied(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?,
                proxied(&["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])?,
            ],
            no_proxy: no_proxy.split(',').map(|part| part.trim().to_ascii_lowercase()).collect(),
            tokens: Vec::new(),
        })
    }

    /// Sends `authorization` to addresses that start with `prefix`.
    pub(super) fn authorize(&mut self, prefix: String, authorization: String) {
        self.tokens.push((prefix, authorization));
    }

    /// Asks for `url`. The error is a text that names the address.
    pub(super) fn get(&self, url: &str, accept: &str) -> Result<Body, String> {
        let target = Target::new(url);
        let proxied = &self.proxied[usize::from(!target.shown.starts_with("https:"))];
        let agent = match proxied {
            Some(agent) if !direct(target.host(), &self.no_proxy) => agent,
            _ => &self.direct,
        };
        let mut request = agent.get(&target.shown).header("Accept", accept);
        let token = self.tokens.iter().find(|(prefix, _)| target.shown.starts_with(prefix));
        let authorization = target.authorization.as_ref().or(token.map(|(_, value)| value));
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        let shown = &target.shown;
        match request.call() {
            Ok(answer) => {
                let length = answer.body().content_length().unwrap_or(0);
                let body = answer.into_body().into_with_config().limit(u64::MAX);
                Ok(Body { reader: Box::new(body.reader()), length })
            }
            Err(ureq::Error::StatusCode(status @ (401 | 403))) => {
                Err(format!("{shown} answers {status}: it wants other credentials"))
            }
            Err(ureq::Error::StatusCode(status)) => Err(format!("{shown} answers {status}")),
            Err(error) => Err(format!("{shown} cannot be reached: {error}")),
        }
    }

    /// Asks for a JSON document.
    pub(super) fn json(&self, url: &str, accept: &str) -> Result<serde_json::Value, String> {
        let mut bytes = Vec::new();
        let shown = Target::new(url).shown;
        let body = self.get(url, accept)?;
        body.reader
            .take(MAX_PAGE)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("{shown} broke off: {error}"))?;
        serde_json::from_slice(&bytes).map_err(|_| format!("{shown} does not answer in JSON"))
    }
}

/// Whether `NO_PROXY` names this host: itself, a domain above it, or `*`.
fn direct(host: &str, no_proxy: &[String]) -> bool {
    let host = host.to_ascii_lowercase();
    no_proxy.iter().any(|entry| {
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        entry == "*"
            || (!domain.is_empty()
                && (host == domain
                    || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))))
    })
}

/// The certificates to trust: those of the file that a variable names, else the system's, else
/// Mozilla's list inside this program; and `NODE_EXTRA_CA_CERTS` beside them.
fn roots(env: &BTreeMap<String, OsString>) -> Result<RootCerts, String> {
    let mut found: Vec<Certificate<'static>> = Vec::new();
    let named = CA_FILES.iter().find_map(|name| Some((*name, env.get(*name)?)));
    match named {
        Some((name, path)) => {
            let bytes = std::fs::read(path).map_err(|error| {
                format!("the file of CA certificates in `{name}` cannot be read: {error}")
            })?;
            found = certificates(&bytes);
            if found.is_empty() {
                return Err(format!("the file in `{name}` has no CA certificate in it"));
            }
        }
        None => {
            if let Some(bytes) = SYSTEM_CA.iter().find_map(|path| std::fs::read(path).ok()) {
                found = certificates(&bytes);
            }
        }
    }
    if found.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    if let Some(bytes) = env.get("NODE_EXTRA_CA_CERTS").and_then(|path| std::fs::read(path).ok()) {
        found.extend(certificates(&bytes));
    }
    Ok(found.into())
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    parse_pem(pem).filter_map(certificate).collect()
}

#[cfg(test)]
mod tests;
