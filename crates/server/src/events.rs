//! Server-sent events: streams that stay open while nothing happens, and can be resumed.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, KeepAliveStream, Sse};
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use tolv_model::access::Act;
use tolv_model::name::AppName;
use tolv_platform::{Follow, Progress};

use crate::Shared;
use crate::auth::Caller;

/// A comment on a stream that has nothing else to say, so that nobody in between closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events as an answer, which ends once the caller may not look at the app any more.
pub(crate) fn kept_alive<S>(
    shared: &Shared,
    caller: Caller,
    app: AppName,
    events: S,
) -> Sse<KeepAliveStream<impl Stream<Item = Result<Event, Infallible>> + Send + use<S>>>
where
    S: Stream<Item = Result<Event, Infallible>> + Send + 'static,
{
    let ended = caller.loses(shared.clone(), Act::View, app);
    Sse::new(events.take_until(Box::pin(ended))).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// What is followed, behind the last that the client has seen: `output` with a line, each with its
/// number as id, and at the end `state`.
pub(crate) fn progress(
    shared: &Shared,
    caller: Caller,
    app: AppName,
    follow: Follow,
    headers: &HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let state = (follow.behind(last.unwrap_or(0)), shared.0.ending.clone());
    let events = unfold(state, |(mut follow, ending)| async move {
        let event = loop {
            match ending.run_until_cancelled(follow.next()).await?? {
                Progress::Output(line) => {
                    // A line's end inside would be the event's.
                    let text = String::from_utf8_lossy(&line).replace(['\r', '\n'], "\u{fffd}");
                    let id = follow.place().to_string();
                    break Event::default().event("output").id(id).data(text);
                }
                Progress::Over(state) => {
                    break Event::default().event("state").data(state.as_str());
                }
                Progress::Bar(_) => {}
            }
        };
        Some((Ok(event), (follow, ending)))
    });
    kept_alive(shared, caller, app, events)
}
