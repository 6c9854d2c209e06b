//! `static.json`: how a folder of files is served.
//!
//! | key | what it is |
//! |---|---|
//! | `root` | the folder; `public_html` where the key is missing |
//! | `clean_urls` | `/about` is `about.html` |
//! | `routes` | pattern → file, or an object of `path` and `except`: what a request for no file of the folder gets |
//! | `redirects` | path → an object of `url` and `status`: for what neither a file nor a route is there |
//! | `error_page` | the file that answers 404 and 500 |
//! | `headers` | pattern → name → value: added to answers |
//! | `https_only` | plain HTTP is redirected to HTTPS |
//!
//! In a pattern, `*` is any text within one part of a path and `**` is any text. Of several routes
//! the first that fits is taken; of several headers of one name the last.
//!
//! Source: the documentation of Heroku's buildpack for static sites.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// The name of the file, in the root of an app.
pub const FILE: &str = "static.json";

/// Most routes, redirects and patterns of headers, each: a request is compared with all of them.
const MAX_RULES: usize = 256;
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;
/// Most bytes of all patterns together, and most runs of stars in one and in all: a request is compared
/// with each of them, byte by byte.
const MAX_PATTERNS_BYTES: usize = 64 << 10;
const MAX_STARS: usize = 16;
const MAX_ALL_STARS: usize = 1024;
/// Most bytes of all headers together.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Headers that say where an answer ends or how it is coded, that belong to one connection, that say
/// what proxies on the way have seen, or that the server makes itself.
const RESERVED: [&str; 27] = [
    "accept-ranges",
    "age",
    "close",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "etag",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "last-modified",
    "location",
    "max-forwards",
    "request-id",
    "te",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
    "x-request-start",
];
/// How the names of further ones begin.
const RESERVED_PREFIXES: [&str; 4] = ["proxy-", "sec-websocket-", "x-accel-", "x-forwarded-"];

fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&&*name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct StaticJson {
    /// The folder, as written.
    pub root: Option<String>,
    /// Whether a path may leave out `.html`.
    #[serde(default)]
    pub clean_urls: bool,
    /// Whether plain HTTP is redirected.
    #[serde(default)]
    pub https_only: bool,
    /// The file that answers errors, below the root.
    pub error_page: Option<String>,
    /// Files for paths that no file has.
    #[serde(default)]
    routes: Ordered<Route>,
    /// Other addresses for paths that nothing else has.
    #[serde(default)]
    redirects: Ordered<Redirect>,
    /// Headers of answers.
    #[serde(default)]
    headers: Ordered<Ordered<String>>,
}

/// A file for paths that no file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Below the root.
    pub path: String,
    /// Patterns, or beginnings, of paths that do not get it.
    except: Vec<Pattern>,
}

/// Another address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Redirect {
    /// Where to.
    pub url: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "moved")]
    pub status: u16,
}

fn moved() -> u16 {
    301
}

impl StaticJson {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// What is wrong with it and where, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed: Self = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| error.to_string())?;
        parsed.check()?;
        Ok(parsed)
    }

    fn check(&self) -> Result<(), String> {
        let exceptions = || self.routes.0.iter().flat_map(|(_, route)| &route.except);
        for (key, count) in [
            ("except", exceptions().count()),
            ("routes", self.routes.0.len()),
            ("redirects", self.redirects.0.len()),
            ("headers", self.headers.0.len()),
        ] {
            if count > MAX_RULES {
                return Err(format!("`{key}` has {count} entries, more than {MAX_RULES}"));
            }
        }
        let patterns = self.routes.0.iter().map(|(pattern, _)| pattern);
        let patterns = patterns.chain(self.headers.0.iter().map(|(pattern, _)| pattern));
        let (mut bytes, mut stars) = (0, 0);
        for pattern in patterns.chain(exceptions()) {
            if pattern.0.len() > MAX_PATTERN {
                return Err(format!("a pattern is longer than {MAX_PATTERN} bytes"));
            }
            if pattern.stars() > MAX_STARS {
                return Err(format!("a pattern has more than {MAX_STARS} stars"));
            }
            bytes += pattern.0.len();
            stars += pattern.stars();
        }
        if bytes > MAX_PATTERNS_BYTES {
            return Err(format!("the patterns have more than {} KiB", MAX_PATTERNS_BYTES >> 10));
        }
        if stars > MAX_ALL_STARS {
            return Err(format!("the patterns have {stars} stars, more than {MAX_ALL_STARS}"));
        }
        let files = self.routes.0.iter().map(|(_, route)| ("a route", &route.path));
        for (what, path) in files.chain(self.error_page.iter().map(|path| ("`error_page`", path))) {
            let path = path.trim_start_matches('/');
            if path.is_empty()
                || path.split('/').any(|part| part.is_empty() || part.starts_with('.'))
            {
                return Err(format!(
                    "{what} leads to `{}`, which is no path of a file below the root",
                    path.escape_debug()
                ));
            }
        }
        for (from, Redirect { url, status }) in &self.redirects.0 {
            let from = from.0.escape_debug();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Err(format!(
                    "the redirect of `{from}` has the status {status}, which is none of 301, 302, \
                     303, 307 and 308"
                ));
            }
            if url.is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!("the redirect of `{from}` has no `url` of ASCII letters"));
            }
        }
        let headers = self.headers.0.iter().flat_map(|(_, headers)| &headers.0);
        let mut bytes = 0;
        for (Pattern(name), value) in headers {
            let shown = name.escape_debug();
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(format!("`headers` has `{shown}`, which is no name of a header"));
            }
            if is_reserved(name) {
                return Err(format!("`headers` has `{shown}`, which the server itself sets"));
            }
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte)) {
                return Err(format!("the header `{shown}` has a value that is not plain ASCII"));
            }
            bytes += name.len() + value.len();
        }
        match bytes > MAX_HEADER_BYTES {
            true => Err(format!("`headers` has more than {} KiB", MAX_HEADER_BYTES >> 10)),
            false => Ok(()),
        }
    }

    /// Keys of an object that mean nothing here.
    ///
    /// # Errors
    ///
    /// As [`StaticJson::parse`].
    pub fn unknown_keys(text: &str) -> Result<Vec<String>, String> {
        const KNOWN: [&str; 7] =
            ["root", "clean_urls", "https_only", "error_page", "routes", "redirects", "headers"];
        let keys: Ordered<IgnoredAny> = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| error.to_string())?;
        let keys = keys.0.into_iter().map(|(Pattern(key), _)| key);
        Ok(keys.filter(|key| !KNOWN.contains(&key.as_str())).collect())
    }

    /// The file for a path that no file has.
    pub fn route(&self, path: &str) -> Option<&str> {
        let fits = |(pattern, route): &&(Pattern, Route)| {
            pattern.matches(path) && !route.except.iter().any(|except| except.begins(path))
        };
        let route = self.routes.0.iter().find(fits);
        route.map(|(_, route)| route.path.trim_start_matches('/'))
    }

    /// The other address of a path.
    pub fn redirect(&self, path: &str) -> Option<&Redirect> {
        let fits = |(from, _): &&(Pattern, Redirect)| from.0 == path;
        self.redirects.0.iter().find(fits).map(|(_, redirect)| redirect)
    }

    /// The headers for a path, name and value; a later one of the same name replaces an earlier one.
    pub fn headers<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let fits = self.headers.0.iter().filter(move |(pattern, _)| pattern.matches(path));
        fits.flat_map(|(_, headers)| &headers.0)
            .map(|(name, value)| (name.0.as_str(), value.as_str()))
    }
}

/// A path in which `*` and `**` stand for other text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    /// Whether it is the whole path.
    fn matches(&self, path: &str) -> bool {
        self.reaches(path, false)
    }

    /// Whether it is the path or a beginning of it.
    fn begins(&self, path: &str) -> bool {
        self.reaches(path, true)
    }

    /// How many stars there are; `**` is one.
    fn stars(&self) -> usize {
        self.0.replace("**", "*").matches('*').count()
    }

    /// Follows all places of the pattern at once. There are no more of them than it has stars, and one
    /// behind each, so that no pattern takes longer than that for each byte of the path.
    fn reaches(&self, path: &str, beginning: bool) -> bool {
        let pattern = self.0.as_bytes();
        let end = pattern.len();
        let is_double = |at: usize| pattern[at..].starts_with(b"**");
        // The step at which a place was reached last.
        let mut reached = vec![0; end + 1];
        // Goes to a place, and on from a star, which may also stand for nothing.
        let mut enter = |places: &mut Vec<usize>, step: usize, mut at: usize| {
            while reached[at] != step {
                reached[at] = step;
                places.push(at);
                match pattern.get(at) {
                    Some(b'*') => at += if is_double(at) { 2 } else { 1 },
                    _ => break,
                }
            }
        };
        let (mut places, mut next) = (Vec::new(), Vec::new());
        enter(&mut places, 1, 0);
        for (step, byte) in (2..).zip(path.bytes()) {
            if places.is_empty() || beginning && places.contains(&end) {
                break;
            }
            next.clear();
            for &at in &places {
                match pattern.get(at) {
                    Some(b'*') if is_double(at) || byte != b'/' => enter(&mut next, step, at),
                    Some(&literal) if literal == byte && literal != b'*' => {
                        enter(&mut next, step, at + 1);
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut places, &mut next);
        }
        places.contains(&end)
    }
}

/// The members of an object in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ordered<T>(Vec<(Pattern, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Ordered<T>;

            fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
                text.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    members.push((Pattern(key), value));
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Texts {
            One(String),
            Several(Vec<String>),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Path(String),
            Full { path: String, except: Option<Texts> },
        }
        let written = Written::deserialize(deserializer).map_err(|_| {
            D::Error::custom("a route is the path of a file, or an object of `path` and `except`")
        })?;
        Ok(match written {
            Written::Path(path) => Self { path, except: Vec::new() },
            Written::Full { path, except } => {
                let except = match except {
                    None => Vec::new(),
                    Some(Texts::One(one)) => vec![one],
                    Some(Texts::Several(several)) => several,
                };
                Self { path, except: except.into_iter().map(Pattern).collect() }
            }
        })
    }
}

#[cfg(test)]
mod tests;
