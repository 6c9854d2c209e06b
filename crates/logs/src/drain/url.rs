//! The address of a drain. Who sees it may write to the receiver, so it prints without what opens
//! that: user and password, values of the query, and long parts of the path.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Longest address.
const LONGEST: usize = 2048;
/// A part of a path that is as long is a key, not a name.
const KEY: usize = 16;
const HIDDEN: &str = "****";

/// What goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Syslog over TCP.
    Syslog(Form),
    /// Syslog messages in the body of a POST.
    Logplex(Form),
    /// OpenTelemetry's protocol.
    Otlp,
}

/// Which syslog messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As RFC 5424 says.
    Strict,
    /// As Heroku sends them.
    Heroku,
}

/// Not the address of a drain. The text is not shown, for it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainUrlError {
    /// An unknown scheme.
    #[error(
        "a drain's URL begins with `syslog://`, `syslog+tls://`, `https://` or `otlp+https://`"
    )]
    Scheme,
    /// Not a URL.
    #[error("the drain's URL cannot be read: {0}")]
    Syntax(String),
    /// Longer than any that is meant.
    #[error("the drain's URL is longer than {LONGEST} bytes")]
    Long,
    /// Open to whoever listens on the way.
    #[error("`http://` is for a receiver on this machine; over the network it is `https://`")]
    Open,
    /// Something that this kind of drain has no use for.
    #[error("the URL of a syslog drain has no {0}")]
    Needless(&'static str),
    /// Two ways to say who sends.
    #[error("a drain has either a user and password or `header.authorization`, not both")]
    TwoCredentials,
    /// A header that is not the sender's to choose.
    #[error(
        "`header.{0}`: this header belongs to HTTP itself or to the drain's format, and cannot be set"
    )]
    ReservedHeader(String),
    /// An option of ours.
    #[error("the option `{name}` of a drain is {allowed}")]
    Option {
        /// Its name.
        name: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
}

/// The address of a drain. `Display` and `Debug` show it without secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct DrainUrl {
    text: String,
    shown: String,
    secrets: Vec<String>,
    /// What is sent there.
    pub kind: Kind,
    /// Whether the connection is encrypted, and the receiver's certificate checked.
    pub tls: bool,
    /// The receiver's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Path and query of the request.
    pub target: String,
    /// User and password.
    pub user: Option<(String, String)>,
    /// Further headers of the request.
    pub headers: Vec<(String, String)>,
    /// A file with the certificates to trust, in place of the system's.
    pub ca: Option<PathBuf>,
}

impl DrainUrl {
    /// The whole address, secrets too: to be sealed, and never to be shown.
    pub fn secret_text(&self) -> &str {
        &self.text
    }

    /// A text about this drain without its secrets.
    pub fn conceal(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), HIDDEN);
        self.secrets.iter().fold(text.to_owned(), hide)
    }

    /// Where the receiver is: `logs.example.org:6514`.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DrainUrl({self})")
    }
}

/// Headers that say how a request is sent, where it ends and how its connection is used (RFC 9110,
/// RFC 9112), and those that a drain's format sets.
const RESERVED_HEADERS: [&str; 21] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "logplex-drain-token",
    "logplex-frame-id",
    "logplex-msg-count",
    "max-forwards",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
const RESERVED_PREFIXES: [&str; 2] = ["proxy-", "sec-"];

/// Whether a header, in lower case, is not the sender's to choose. Some servers take `_` for `-`.
fn is_reserved(header: &str) -> bool {
    let header = header.replace('_', "-");
    RESERVED_HEADERS.contains(&header.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| header.starts_with(prefix))
}

/// What the query says to us; the rest is the receiver's.
#[derive(Default)]
struct Options {
    form: Option<Form>,
    ca: Option<PathBuf>,
    headers: Vec<(String, String)>,
    /// The pairs that are not ours, as they were written.
    rest: Vec<String>,
    secrets: Vec<String>,
    /// The query as it is shown.
    shown: Vec<String>,
}

impl Options {
    fn read(query: &str) -> Result<Self, DrainUrlError> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = url::form_urlencoded::parse(pair.as_bytes())
                .next()
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .unwrap_or_default();
            let raw = pair.split_once('=').map_or(("", pair), |(name, value)| (name, value));
            match (name.as_str(), name.strip_prefix("header.")) {
                ("form", _) => {
                    options.form = Some(match value.as_str() {
                        "strict" => Form::Strict,
                        "heroku" => Form::Heroku,
                        _ => {
                            let allowed = "`strict` or `heroku`";
                            return Err(DrainUrlError::Option { name: "form", allowed });
                        }
                    });
                    options.shown.push(pair.to_owned());
                    continue;
                }
                ("ca", _) => {
                    if !value.starts_with('/') || value.contains('\0') {
                        let allowed = "the whole path of a file on the platform's machine";
                        return Err(DrainUrlError::Option { name: "ca", allowed });
                    }
                    options.ca = Some(PathBuf::from(value));
                    options.shown.push(pair.to_owned());
                    continue;
                }
                (_, Some(header)) => {
                    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
                    if header.is_empty()
                        || !header.bytes().all(letter)
                        || !value.bytes().all(|b| (b' '..=b'~').contains(&b))
                    {
                        let allowed = "a header's name and its value in ASCII";
                        return Err(DrainUrlError::Option { name: "header.…", allowed });
                    }
                    let header = header.to_ascii_lowercase();
                    if is_reserved(&header) {
                        return Err(DrainUrlError::ReservedHeader(header));
                    }
                    options.headers.push((header, value.clone()));
                }
                _ => options.rest.push(pair.to_owned()),
            }
            options.shown.push(match raw.0 {
                "" => HIDDEN.to_owned(),
                name => format!("{name}={HIDDEN}"),
            });
            options.secrets.extend([raw.1.to_owned(), value, name].into_iter().take(
                // Without a name the whole pair is the secret.
                if raw.0.is_empty() { 3 } else { 2 },
            ));
        }
        Ok(options)
    }
}

impl FromStr for DrainUrl {
    type Err = DrainUrlError;

    fn from_str(text: &str) -> Result<Self, DrainUrlError> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(DrainUrlError::Long);
        }
        let (scheme, _) = text.split_once("://").ok_or(DrainUrlError::Scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let (is_syslog, is_otlp) = (scheme.starts_with("syslog"), scheme.starts_with("otlp+"));
        let (tls, port) = match scheme.as_str() {
            "syslog" => (false, 514),
            "syslog+tls" => (true, 6514),
            "http" | "otlp+http" => (false, 80),
            "https" | "otlp+https" => (true, 443),
            _ => return Err(DrainUrlError::Scheme),
        };
        // As one that has a host and a query, whatever its own scheme is.
        let plain = if tls { "https" } else { "http" };
        let url = Url::parse(&format!("{plain}{}", &text[scheme.len()..]))
            .map_err(|error| DrainUrlError::Syntax(error.to_string()))?;
        let host = match url.host() {
            Some(url::Host::Domain(name)) => name.to_owned(),
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => return Err(DrainUrlError::Syntax("it has no host".to_owned())),
        };
        // That of the plain scheme is dropped by the parser.
        let written = text.split(['?', '#']).next().unwrap_or_default();
        let authority = written[scheme.len() + 3..].split('/').next().unwrap_or_default();
        let explicit = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = url.port().or(explicit).unwrap_or(port);
        if port == 0 {
            return Err(DrainUrlError::Syntax("port 0".to_owned()));
        }
        if url.fragment().is_some() {
            return Err(DrainUrlError::Syntax("a fragment has no meaning here".to_owned()));
        }
        let options = Options::read(url.query().unwrap_or_default())?;
        let kind = match (is_syslog, is_otlp) {
            (true, _) => Kind::Syslog(options.form.unwrap_or(Form::Strict)),
            (_, true) if options.form.is_some() => {
                let allowed = "for syslog and logplex";
                return Err(DrainUrlError::Option { name: "form", allowed });
            }
            (_, true) => Kind::Otlp,
            (false, false) => Kind::Logplex(options.form.unwrap_or(Form::Heroku)),
        };
        if scheme == "http" && !is_loopback(&host) {
            return Err(DrainUrlError::Open);
        }
        if options.ca.is_some() && !tls {
            let allowed = "for an encrypted connection";
            return Err(DrainUrlError::Option { name: "ca", allowed });
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        if is_syslog {
            let needless = [
                (has_user, "user or password"),
                (url.path() != "/", "path"),
                (!options.rest.is_empty(), "query besides `form` and `ca`"),
                (!options.headers.is_empty(), "headers"),
            ];
            if let Some((_, what)) = needless.into_iter().find(|(found, _)| *found) {
                return Err(DrainUrlError::Needless(what));
            }
        }
        if has_user && options.headers.iter().any(|(name, _)| name == "authorization") {
            return Err(DrainUrlError::TwoCredentials);
        }
        let decode = |text: &str| percent_decode(text);
        let (name, password) = (url.username(), url.password().unwrap_or_default());
        let user = has_user.then(|| (decode(name), decode(password)));
        let path = if is_otlp && url.path() == "/" { "/v1/logs" } else { url.path() };
        let keys = path.split('/').filter(|part| part.len() >= KEY);
        let mut secrets: Vec<_> = keys.map(str::to_owned).collect();
        secrets.extend([name.to_owned(), password.to_owned(), decode(name), decode(password)]);
        secrets.extend(options.secrets.iter().cloned());
        secrets.retain(|secret| secret.len() > 2);
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        let query = |pairs: &[String]| match pairs.is_empty() {
            true => String::new(),
            false => format!("?{}", pairs.join("&")),
        };
        let mut found = Self {
            text: text.to_owned(),
            shown: String::new(),
            secrets,
            kind,
            tls,
            host,
            port,
            target: format!("{path}{}", query(&options.rest)),
            user,
            headers: options.headers,
            ca: options.ca,
        };
        let parts: Vec<_> =
            path.split('/').map(|part| if part.len() >= KEY { HIDDEN } else { part }).collect();
        let path = if is_syslog { String::new() } else { parts.join("/") };
        let at = if has_user { "****@" } else { "" };
        let (authority, query) = (found.authority(), query(&options.shown));
        found.shown = format!("{scheme}://{at}{authority}{path}{query}");
        Ok(found)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

fn percent_decode(text: &str) -> String {
    // A plus is a plus here, and not a blank.
    let escaped = text.replace('+', "%2B");
    let decoded = url::form_urlencoded::parse(escaped.as_bytes()).next();
    // What would divide pairs is written in escapes in these parts.
    decoded.map(|(name, _)| name.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
