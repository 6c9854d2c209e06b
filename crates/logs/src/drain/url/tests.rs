use proptest::prelude::*;

use super::*;

fn read(text: &str) -> DrainUrl {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn addresses_are_read() {
    let url = read("syslog://logs.example.org");
    assert_eq!((url.kind, url.tls, url.port), (Kind::Syslog(Form::Strict), false, 514));
    let url = read("syslog+tls://[::1]:443/?form=heroku&ca=%2Fetc%2Fmy%20ca.pem");
    assert_eq!((url.kind, url.tls, url.port), (Kind::Syslog(Form::Heroku), true, 443));
    assert_eq!((url.host.as_str(), url.authority().as_str()), ("::1", "[::1]:443"));
    assert_eq!(url.ca.as_deref(), Some(std::path::Path::new("/etc/my ca.pem")));
    assert_eq!(read("syslog://h:80").port, 80);
    assert_eq!(read("syslog+tls://h").port, 6514);
    let url = read("https://ada:p%40ss@logs.example.org/in?x=1&form=strict&y=%20");
    assert_eq!((url.kind, url.port), (Kind::Logplex(Form::Strict), 443));
    assert_eq!(url.target, "/in?x=1&y=%20");
    assert_eq!(url.user, Some(("ada".to_owned(), "p@ss".to_owned())));
    assert_eq!(read("http://127.0.0.1:9/").kind, Kind::Logplex(Form::Heroku));
    let url = read("otlp+http://collector:4318?header.X-Key=abc%20d");
    assert_eq!((url.kind, url.target.as_str()), (Kind::Otlp, "/v1/logs"));
    assert_eq!(url.headers, [("x-key".to_owned(), "abc d".to_owned())]);
    assert_eq!(read("otlp+https://h/a/logs").target, "/a/logs");
}

#[test]
fn what_is_no_drain_is_refused() {
    for (text, wanted) in [
        ("", "begins with"),
        ("logs.example.org:514", "begins with"),
        ("ftp://h", "begins with"),
        ("syslog://", "cannot be read"),
        ("syslog://h:99999", "cannot be read"),
        ("syslog://h:0", "port 0"),
        ("http://logs.example.org/", "https://"),
        ("syslog://h?form=loud", "strict"),
        ("syslog://h?ca=/x", "encrypted"),
        ("https://h?ca=x", "whole path"),
        ("syslog://ada:hunter2@h", "no user"),
        ("syslog://h/path", "no path"),
        ("syslog://h?token=hunter2", "no query"),
        ("otlp+http://h?form=strict", "for syslog"),
        ("https://h?header.x=a%0Ab", "ASCII"),
        ("https://h?header.x%3A=hunter2", "ASCII"),
        ("https://h/#part", "fragment"),
    ] {
        let error = text.parse::<DrainUrl>().unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn headers_of_http_itself_are_refused() {
    for header in [
        "host",
        "HOST",
        "Content-Length",
        "content_length",
        "Transfer-Encoding",
        "%48ost",
        "connection",
        "TE",
        "upgrade",
        "expect",
        "Keep-Alive",
        "trailer",
        "Proxy-Authorization",
        "proxy-connection",
        "content-type",
        "logplex-frame-id",
        "user-agent",
    ] {
        for scheme in ["https", "otlp+https"] {
            let text = format!("{scheme}://h?header.{header}=hunter2");
            let error = text.parse::<DrainUrl>().unwrap_err().to_string();
            assert!(error.contains("belongs to HTTP itself"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
    let error = "https://a:b@h?header.authorization=x".parse::<DrainUrl>().unwrap_err();
    assert!(error.to_string().contains("not both"), "{error}");
    for header in ["authorization", "x-host", "x-scope-orgid", "dd-api-key", "hosted"] {
        read(&format!("https://h?header.{header}=x"));
    }
}

#[test]
fn secrets_do_not_show() {
    let url = read(
        "https://ada:hunter2@h/receiver/ZaVnC4dhaV0123456789/in?token=t0ps3cret&form=strict&\
         header.x-key=k3y%20k3y&b4re",
    );
    let shown = "https://****@h:443/receiver/****/in?token=****&form=strict&header.x-key=****&****";
    assert_eq!(url.to_string(), shown);
    assert_eq!(format!("{url:?}"), format!("DrainUrl({shown})"));
    let error = "ada hunter2 t0ps3cret k3y k3y k3y%20k3y ZaVnC4dhaV0123456789 b4re: refused";
    assert_eq!(url.conceal(error), "**** **** **** **** **** **** ****: refused");
    assert!(url.secret_text().contains("hunter2"), "it is still all there");
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,80}") {
        text.parse::<DrainUrl>().ok();
        format!("https://{text}").parse::<DrainUrl>().ok();
        format!("syslog://{text}").parse::<DrainUrl>().ok();
    }

    /// Whatever the secrets are: the shown text and a concealed error have none of them.
    #[test]
    fn no_secret_is_shown(user in "[a-z]{0}u[0-9]{6}", word in "[!-~]{6,20}", key in "[a-z]{3}") {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let secret = format!("S{word}");
        let text = format!("https://{user}:{}@h/in?{key}={}", encode(&secret), encode(&secret));
        let url = read(&text);
        prop_assert_eq!(&url.user.as_ref().unwrap().1, &secret);
        let shown = url.to_string();
        prop_assert!(!shown.contains(&secret) && !shown.contains(&encode(&secret)), "{}", shown);
        let concealed = url.conceal(&format!("at {text}: {secret}"));
        prop_assert!(!concealed.contains(&secret), "{}", concealed);
    }
}
