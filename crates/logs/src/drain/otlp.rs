//! Lines as the JSON of OpenTelemetry's protocol (OTLP 1.x, `ExportLogsServiceRequest`).
//!
//! The app is `service.name`, its deploy `deployment.environment.name`. Each record has the
//! process, the stream and the release as attributes; a text that is not UTF-8 is a body of bytes.

use std::io::Write as _;

use serde::Deserialize;
use tolv_model::name::Deploy;

use crate::line::{Line, Source, Stream};
use crate::view::{base64, quote};

#[derive(Debug)]
pub(super) struct Encoder {
    resource: String,
    /// Whether a record was written into this body.
    begun: bool,
}

impl Encoder {
    pub(super) fn new(deploy: &Deploy) -> Self {
        let attribute = |key: &str, value: &str| {
            // Neither name has a character that JSON would escape.
            format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
        };
        let service = attribute("service.name", deploy.app.as_str());
        let environment = attribute("deployment.environment.name", deploy.name.as_str());
        let resource = format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{service},{environment}]}},"scopeLogs":[{{"scope":{{"name":"tolv"}},"logRecords":["#
        );
        Self { resource, begun: false }
    }

    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend(self.resource.as_bytes());
        self.begun = false;
    }

    pub(super) fn record(&mut self, line: &Line, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            out.push(b',');
        }
        let nanos = i128::from(line.time.0.max(0)) * 1000;
        let (number, name) = severity(line);
        // Writing into memory cannot fail.
        write!(
            out,
            r#"{{"timeUnixNano":"{nanos}","observedTimeUnixNano":"{nanos}","severityNumber":{number},"severityText":"{name}","body":{{"#
        )
        .ok();
        match str::from_utf8(&line.text) {
            Ok(text) => {
                out.extend(b"\"stringValue\":");
                quote(text, out);
            }
            Err(_) => {
                out.extend(b"\"bytesValue\":\"");
                base64(&line.text, out);
                out.push(b'"');
            }
        }
        out.extend(b"},\"attributes\":[{\"key\":\"tolv.process\",\"value\":{\"stringValue\":");
        quote(&line.process, out);
        out.extend(b"}}");
        let stream = match line.stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        for (key, value) in [("tolv.source", line.source.as_str()), ("log.iostream", stream)] {
            write!(out, r#",{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#).ok();
        }
        if let Some(release) = line.release {
            write!(out, r#",{{"key":"service.version","value":{{"stringValue":"v{release}"}}}}"#)
                .ok();
        }
        out.extend(b"]}");
    }

    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        out.extend(b"]}]}]}");
    }
}

/// As for syslog: error lines of the platform alone are errors.
fn severity(line: &Line) -> (u8, &'static str) {
    let is_error = line.source == Source::Tolv
        && (line.text.starts_with(b"Error ") || line.text.starts_with(b"at=error "));
    match line.stream {
        _ if is_error => (17, "ERROR"),
        Stream::Out => (9, "INFO"),
        Stream::Err => (13, "WARN"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    partial_success: Option<Partial>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Partial {
    rejected_log_records: Count,
    error_message: String,
}

/// A 64-bit number: a string in the JSON of protocol buffers, and a number from some receivers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Text(String),
    Number(u64),
}

impl Default for Count {
    fn default() -> Self {
        Self::Number(0)
    }
}

pub(super) fn refused(answer: &[u8]) -> Option<(u64, String)> {
    let partial = serde_json::from_slice::<Answer>(answer).ok()?.partial_success?;
    let count = match partial.rejected_log_records {
        Count::Text(text) => text.parse().ok()?,
        Count::Number(number) => number,
    };
    (count > 0).then_some((count, partial.error_message))
}

#[cfg(test)]
mod tests;
