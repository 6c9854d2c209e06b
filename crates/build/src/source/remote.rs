//! URLs of git repositories, as a stranger wrote them.

use std::fmt;

use tolv_model::source::is_hostile;
use url::Url;

/// Longest URL.
const MAX_URL: usize = 2048;

/// An https URL without credentials: git repeats it in its errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote(Url);

impl Remote {
    /// Reads a URL, or says why it is not fetched.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(raw).map_err(|_| "is not UTF-8")?;
        if text.is_empty() {
            return Err("is empty: write an https URL");
        }
        if text.len() > MAX_URL {
            return Err("is longer than 2048 bytes");
        }
        if text.chars().any(|letter| is_hostile(letter) || letter.is_whitespace()) {
            return Err("has blanks or control characters in it");
        }
        if text.starts_with(['.', '/']) {
            return Err(
                "is relative to a repository that is not known here; write the whole URL, \
                        `https://…`, into `.gitmodules`",
            );
        }
        if !text.to_ascii_lowercase().starts_with("https://") {
            return Err(
                "is not https, and nothing else is fetched; write its `https://…` URL into \
                        `.gitmodules`",
            );
        }
        let mut url = Url::parse(text).map_err(|_| "is not a URL")?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err("names no host");
        }
        if url.password().is_some() {
            return Err("has a password in it, which is in nobody's codebase; remove it from \
                        `.gitmodules`, and change it where it is known");
        }
        if url.query().is_some() {
            return Err(
                "has a query in it, which may be secret; write the repository's plain URL \
                        into `.gitmodules`",
            );
        }
        // A name alone is no secret, and public repositories need none.
        url.set_username("").map_err(|()| "names no host")?;
        url.set_fragment(None);
        Ok(Self(url))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(self.as_str().as_bytes()))
    }
}

/// A URL for messages: without credentials, query and fragment, harmless and short.
pub(crate) fn redacted(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let whole = format!("{scheme}{host}{path}");
    let mut short: String = whole.chars().take(200).collect();
    if short.len() < whole.len() {
        short.push('…');
    }
    super::shown(short.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_alone_is_fetched_and_every_other_url_is_refused_with_the_reason() {
        let parse = |text: &str| Remote::parse(text.as_bytes());
        for (raw, wanted) in [
            ("https://git.example.org/a/b.git", "https://git.example.org/a/b.git"),
            ("HTTPS://user@git.example.org/a#x", "https://git.example.org/a"),
            ("https://[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ] {
            assert_eq!(parse(raw).unwrap().as_str(), wanted);
        }
        for (raw, why) in [
            ("", "is empty"),
            ("../lib.git", "is relative"),
            ("./lib", "is relative"),
            ("/srv/lib.git", "is relative"),
            ("http://git.example.org/a", "is not https"),
            ("ssh://git@git.example.org/a", "is not https"),
            ("git@git.example.org:a/b.git", "is not https"),
            ("git://git.example.org/a", "is not https"),
            ("file:///etc", "is not https"),
            ("ext::sh", "is not https"),
            ("ext::sh -c touch% x", "has blanks"),
            ("--upload-pack=x", "is not https"),
            ("https://", "is not a URL"),
            ("https://a\n.example.org/", "has blanks or control"),
            ("https://ada:secret@git.example.org/a", "has a password"),
            ("https://git.example.org/a?token=secret", "has a query"),
            ("https://git.example.org:99999/a", "is not a URL"),
        ] {
            let error = parse(raw).unwrap_err();
            assert!(error.starts_with(why), "{raw}: {error}");
        }
        assert!(parse(&format!("https://x/{}", "a".repeat(MAX_URL))).is_err());
        assert!(Remote::parse(b"https://\xff/").is_err());
    }

    #[test]
    fn credentials_are_never_shown() {
        for (raw, wanted) in [
            ("https://ada:s3cret@git.example.org/a/b", "https://git.example.org/a/b"),
            ("https://ada:s3@cret@git.example.org/a", "https://git.example.org/a"),
            ("https://git.example.org/a?token=s3cret", "https://git.example.org/a"),
            ("git@git.example.org:a/b", "git.example.org:a/b"),
            ("ada:s3cret@git.example.org:a", "git.example.org:a"),
            ("ext::\u{1b}[2J", "ext::\\u{1b}[2J"),
        ] {
            assert_eq!(redacted(raw.as_bytes()), wanted);
        }
        assert!(redacted("x".repeat(4000).as_bytes()).chars().count() <= 201);
    }
}
