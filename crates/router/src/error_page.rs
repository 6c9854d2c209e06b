//! Answers of the router's own: a code, what it means, and the request's id to look it up by.

use crate::access::Code;
use crate::head::Fields;

/// The reason phrase of a status the router answers with.
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        421 => "Misdirected Request",
        502 => "Bad Gateway",
        _ => "Service Unavailable",
    }
}

/// What the client may know: nothing of which process it was or where it runs.
fn text(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::H10 => ("The app has crashed", "Its owner can find the reason in its log."),
        Code::H11 => ("The app has too much to do", "Please try again in a moment."),
        Code::H12 => ("The app did not answer in time", "Please try again."),
        Code::H13 | Code::H15 | Code::H18 | Code::H25 => {
            ("The app did not answer properly", "Its owner can find the reason in its log.")
        }
        Code::H14 => ("Nothing is running here", "The app has no web process."),
        Code::H19 | Code::H20 | Code::H21 => {
            ("The app is not ready", "It may be starting. Please try again in a moment.")
        }
        Code::H26 | Code::H27 | Code::H28 => {
            ("The request could not be read", "It does not follow HTTP, or is over a limit.")
        }
        Code::H31 => ("There is no app at this address", "Please check the host name."),
        Code::H80 => ("Down for maintenance", "The app will be back soon."),
        Code::H99 => ("The platform cannot answer now", "Please try again in a moment."),
    }
}

/// A whole answer, and how many of its bytes are its body.
pub(crate) fn render(
    code: Code,
    request_id: &str,
    fields: &Fields,
    to_head: bool,
    close: bool,
) -> (Vec<u8>, usize) {
    let status = code.status();
    let (title, advice) = text(code);
    let (kind, body) = if wants_json(fields) {
        (
            "application/json",
            format!(
                "{{\"status\":{status},\"code\":\"{code}\",\"title\":\"{title}\",\
                 \"detail\":\"{advice}\",\"request_id\":\"{request_id}\"}}\n"
            ),
        )
    } else {
        (
            "text/html; charset=utf-8",
            format!(
                "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
                 <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
                 <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:32em;margin:15vh auto;\
                 padding:0 1em;color-scheme:light dark}}small{{opacity:.7}}</style>\n\
                 <h1>{title}</h1>\n<p>{advice}</p>\n\
                 <p><small>Code {code} &middot; request {request_id}</small></p>\n</html>\n"
            ),
        )
    };
    let connection = if close { "close" } else { "keep-alive" };
    let mut answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Request-Id: {request_id}\r\nConnection: {connection}\r\n\r\n",
        reason(status),
        body.len(),
    )
    .into_bytes();
    if to_head {
        return (answer, 0);
    }
    answer.extend_from_slice(body.as_bytes());
    (answer, body.len())
}

/// Whether `Accept` asks for JSON rather than HTML. A browser's `*/*` asks for neither.
fn wants_json(fields: &Fields) -> bool {
    let (mut json, mut html) = (0.0_f32, 0.0_f32);
    for item in fields.list("accept") {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| {
            part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")).map(quality)
        });
        let weight = weight.unwrap_or(1.0);
        if kind == b"application/json"
            || kind.starts_with(b"application/") && kind.ends_with(b"+json")
        {
            json = json.max(weight);
        } else if kind == b"text/html" || kind == b"application/xhtml+xml" {
            html = html.max(weight);
        }
    }
    json > 0.0 && json >= html
}

/// A quality value; 0 where it is none.
fn quality(text: &[u8]) -> f32 {
    let quality = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok());
    quality.filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests;
