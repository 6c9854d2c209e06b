use proptest::prelude::*;

use super::*;

fn line() -> AccessLine {
    AccessLine {
        code: None,
        detail: None,
        method: b"GET".to_vec(),
        path: b"/a?b=c".to_vec(),
        host: b"shop.example:8080".to_vec(),
        request_id: "8f14e45f-ceea-467f-a0e5-0123456789ab".to_owned(),
        forwarded: b"203.0.113.9".to_vec(),
        process: Some("web.1".parse().unwrap()),
        connect: Duration::from_millis(1),
        service: Duration::from_micros(18_900),
        status: 200,
        bytes: 13,
        protocol: Protocol::Https,
    }
}

#[test]
fn a_line_has_the_contracts_keys_in_order() {
    assert_eq!(
        line().to_string(),
        "at=info method=GET path=\"/a?b=c\" host=shop.example:8080 \
         request_id=8f14e45f-ceea-467f-a0e5-0123456789ab fwd=\"203.0.113.9\" process=web.1 \
         connect=1ms service=18ms status=200 bytes=13 protocol=https"
    );
}

#[test]
fn an_error_adds_code_and_description() {
    let line = AccessLine { code: Some(Code::H12), status: 503, ..line() };
    assert!(line.to_string().starts_with("at=error code=H12 desc=\"Request timeout\" method=GET "));
}

#[test]
fn an_unread_request_leaves_its_values_empty() {
    let line = AccessLine {
        code: Some(Code::H26),
        detail: Some("bare line feed"),
        method: vec![],
        path: vec![],
        host: vec![],
        process: None,
        ..line()
    };
    assert!(line.to_string().starts_with(
        "at=error code=H26 desc=\"Request Error: bare line feed\" method= path=\"\" host= request_id="
    ));
    assert!(line.to_string().contains(" process= connect="));
}

/// Reads a line back as keys and raw values, by the quoting rules alone.
fn keys(line: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').unwrap();
        keys.push(key.to_owned());
        rest = if let Some(quoted) = value.strip_prefix('"') {
            let mut bytes = quoted.bytes().enumerate();
            let end = loop {
                match bytes.next().unwrap() {
                    (_, b'\\') => drop(bytes.next()),
                    (end, b'"') => break end,
                    _ => {}
                }
            };
            &quoted[end + 1..]
        } else {
            &value[value.find(' ').unwrap_or(value.len())..]
        };
        rest = rest.strip_prefix(' ').unwrap_or(rest);
    }
    keys
}

proptest! {
    #[test]
    fn no_request_forges_a_key_or_a_control_byte(
        method: Vec<u8>, path: Vec<u8>, host: Vec<u8>, id: String, forwarded: Vec<u8>,
    ) {
        let line = AccessLine { method, path, host, request_id: id, forwarded, ..line() }.to_string();
        prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        prop_assert_eq!(
            keys(&line),
            ["at", "method", "path", "host", "request_id", "fwd", "process", "connect", "service",
             "status", "bytes", "protocol"]
        );
    }
}
