use serde_json::{Value, json};

use super::*;
use crate::drain::Kind;
use crate::line::{Marks, Micros};

fn line(text: &[u8], stream: Stream, release: Option<u32>) -> Line {
    Line {
        time: Micros(1_767_268_800_000_042),
        source: Source::App,
        process: "web.1".into(),
        release,
        stream,
        marks: Marks::default(),
        text: text.to_vec(),
    }
}

#[test]
fn a_body_is_the_json_of_the_protocol() {
    let mut encoder = crate::drain::Encoder::new(Kind::Otlp, &"shop/production".parse().unwrap());
    let mut out = Vec::new();
    encoder.begin(&mut out);
    encoder.line(&line(b"say \"hi\"\x1b", Stream::Out, Some(7)), &mut out);
    encoder.line(&line(b"\xff", Stream::Err, None), &mut out);
    encoder.end(&mut out);
    let body: Value = serde_json::from_slice(&out).unwrap();
    let resource = &body["resourceLogs"][0];
    assert_eq!(
        resource["resource"]["attributes"],
        json!([
            {"key": "service.name", "value": {"stringValue": "shop"}},
            {"key": "deployment.environment.name", "value": {"stringValue": "production"}},
        ])
    );
    let records = &resource["scopeLogs"][0]["logRecords"];
    assert_eq!(records[0]["timeUnixNano"], "1767268800000042000");
    assert_eq!(records[0]["severityNumber"], 9);
    assert_eq!(records[0]["body"], json!({"stringValue": "say \"hi\"\u{1b}"}));
    assert_eq!(
        records[0]["attributes"],
        json!([
            {"key": "tolv.process", "value": {"stringValue": "web.1"}},
            {"key": "tolv.source", "value": {"stringValue": "app"}},
            {"key": "log.iostream", "value": {"stringValue": "stdout"}},
            {"key": "service.version", "value": {"stringValue": "v7"}},
        ])
    );
    assert_eq!(records[1]["body"], json!({"bytesValue": "/w=="}));
    assert_eq!(records[1]["severityText"], "WARN");
    assert_eq!(records.as_array().unwrap().len(), 2);
    // The next body begins anew.
    let mut again = Vec::new();
    encoder.begin(&mut again);
    encoder.end(&mut again);
    assert!(serde_json::from_slice::<Value>(&again).is_ok());
}

#[test]
fn what_a_receiver_refuses_is_read() {
    let text = br#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too old"}}"#;
    assert_eq!(refused(text), Some((3, "too old".to_owned())));
    assert_eq!(
        refused(br#"{"partialSuccess":{"rejectedLogRecords":2}}"#),
        Some((2, String::new()))
    );
    for none in [b"{}".as_slice(), b"", br#"{"partialSuccess":{}}"#, b"<html>", b"[1]"] {
        assert_eq!(refused(none), None);
    }
}
