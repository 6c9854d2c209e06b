//! Operations, followed to their end: output to standard error while they go on.

use std::io::Write as _;

use tolv_api::client::Event;
use tolv_api::{Operation, Page};
use tolv_model::operation::State;

use super::failure::{Failure, harmless};
use super::target::Target;

/// Follows an operation; fails where it did not succeed.
pub(super) fn finish(target: &Target, operation: Operation) -> Result<Operation, Failure> {
    let quiet = target.json;
    let state = target.client.follow(&operation.id, &mut |event| {
        if let (Event::Output(line), false) = (event, quiet) {
            // A terminal that is gone must not end what was asked for.
            writeln!(std::io::stderr(), "{}", harmless(&line)).ok();
        }
    })?;
    let failed = |error: Option<String>| {
        let what = format!("the {} of {}", operation.kind, operation.deploy);
        let text = match (state, error) {
            (State::Failed, Some(error)) => format!("{what} failed: {error}"),
            (state, _) => format!("{what} was {state}"),
        };
        Failure::new(text).hint(format!("its output: tolv operations show {}", operation.id))
    };
    // A destroyed deploy has taken its operations along.
    let now = target.client.get::<Operation>(&format!("/v1/operations/{}", operation.id));
    match (state, now) {
        (State::Succeeded, Ok(now)) => Ok(now),
        (State::Succeeded, Err(_)) => Ok(Operation { state, ..operation }),
        (_, now) => Err(failed(now.ok().and_then(|now| now.error))),
    }
}

/// Asks for an operation on the deploy that is meant, and follows it.
pub(super) fn ask(target: &Target, new: &tolv_api::NewOperation) -> Result<Operation, Failure> {
    let path = format!("{}/operations", target.path()?);
    let operation: Operation = target.client.send("POST", &path, new)?;
    finish(target, operation)
}

/// A list whole, page by page, of `most` at most.
pub(super) fn list<T: serde::de::DeserializeOwned>(
    target: &Target,
    path: &str,
    most: usize,
) -> Result<Page<T>, Failure> {
    Ok(target.client.get(&format!("{path}?limit={}", most.clamp(1, 200)))?)
}
