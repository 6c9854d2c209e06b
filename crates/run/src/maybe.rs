//! A wait that may not be one.

/// Waits for what is there; for ever where nothing is.
pub(crate) async fn maybe<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
