//! Requests that a page of another site makes a browser send.
//!
//! A token is in a header that no browser sends by itself. This is a second lock: a page of another
//! site has no business here, whatever it knows.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tolv_api::Code;

use crate::Shared;
use crate::error::Failure;

/// The layer around every address: refuses what comes from another site.
pub(crate) async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match is_foreign(request.headers(), &shared.0.url) {
        false => next.run(request).await,
        true => Failure::new(Code::Forbidden, "the request comes from a page of another site")
            .into_response(),
    }
}

/// Whether a browser says that the request comes from another origin than that of `url`.
fn is_foreign(headers: &HeaderMap, url: &str) -> bool {
    let site = headers.get("sec-fetch-site").map(header::HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    match headers.get(header::ORIGIN) {
        None => false,
        Some(value) => value.to_str().map_or(true, |value| !is_origin_of(value, url)),
    }
}

/// Whether `origin` is that of `url`: the same scheme, host and port.
fn is_origin_of(origin: &str, url: &str) -> bool {
    let parts = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().or(match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port?))
    };
    parts(origin).is_some_and(|origin| Some(origin) == parts(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_origin_is_taken() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                let name = name.parse::<header::HeaderName>().unwrap();
                (name, header::HeaderValue::from_static(value))
            });
            pairs.collect::<HeaderMap>()
        };
        let url = "http://127.0.0.1:1212";
        let foreign = |pairs: &[_]| is_foreign(&headers(pairs), url);
        assert!(!foreign(&[]), "no browser");
        assert!(!foreign(&[("origin", "http://127.0.0.1:1212")]));
        assert!(!foreign(&[("sec-fetch-site", "same-origin")]));
        assert!(!foreign(&[("sec-fetch-site", "none")]), "typed by its user");
        for origin in [
            "http://127.0.0.1",
            "http://127.0.0.1:8080",
            "https://127.0.0.1:1212",
            "http://evil.example:1212",
            "http://127.0.0.1:1212.evil.example",
            "null",
            "",
            "\u{fc}",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, header::HeaderValue::from_str(origin).unwrap());
            assert!(is_foreign(&headers, url), "{origin}");
        }
        for site in ["cross-site", "same-site", "whatever"] {
            assert!(foreign(&[("sec-fetch-site", site)]), "{site}");
        }
        assert!(is_origin_of("https://tolv.example.org", "https://Tolv.example.org:443/"));
        assert!(!is_origin_of("http://tolv.example.org", "https://tolv.example.org"));
    }
}
