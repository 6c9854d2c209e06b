//! Operations, followed to their end: output to standard error while they go on.

use std::io::Write as _;

use tolv_api::client::{Error, Event};
use tolv_api::{Operation, Page};
use tolv_model::operation::State;

use super::failure::{Failure, harmless};
use super::interrupt::{goes_on, unless_interrupted};
use super::target::Target;

/// Follows an operation; fails where it did not succeed, or where Ctrl-C comes first.
pub(super) fn finish(target: &Target, operation: Operation) -> Result<Operation, Failure> {
    let (client, quiet, id) = (target.client.clone(), target.json, operation.id.clone());
    let followed = unless_interrupted(move || {
        let state = client.follow(&id, &mut |event| {
            if let (Event::Output(line), false) = (event, quiet) {
                // A terminal that is gone must not end what was asked for.
                writeln!(std::io::stderr(), "{}", harmless(&line)).ok();
            }
        })?;
        // A destroyed deploy has taken its operations along.
        Ok((state, client.get::<Operation>(&format!("/v1/operations/{id}"))))
    })?;
    let followed: Result<_, Error> = followed.ok_or_else(|| goes_on(&operation))?;
    let (state, now) = followed?;
    let failed = |error: Option<String>| {
        let what = format!("the {} of {}", operation.kind, operation.deploy);
        let text = match (state, error) {
            (State::Failed, Some(error)) => format!("{what} failed: {error}"),
            (state, _) => format!("{what} was {state}"),
        };
        Failure::new(text).hint(format!("its output: tolv operations show {}", operation.id))
    };
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
