use std::pin::pin;
use std::task::{Context, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::dialer::Dialer;
use crate::table::{Route, State};

const KEEP: Duration = Duration::from_secs(60);

fn backend(port: u16) -> Backend {
    Backend {
        process: "web.1".parse().unwrap(),
        address: ([127, 0, 0, 1], port).into(),
        dialer: Dialer::direct(),
    }
}

fn table(backends: &[Backend]) -> Table {
    let mut table = Table::new();
    table.set_default(Route::new(State::Up, backends.to_vec()));
    table
}

/// A connection, and its other end.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn a_removed_backend_takes_no_request_and_is_forgotten_once_unused() {
    let registry = Registry::default();
    let live = registry.enlist(&[backend(1)]).remove(0);
    let request = live.enter().unwrap();
    registry.retire(&table(&[]));
    assert!(live.enter().is_none());
    assert_eq!((live.in_flight(), registry.in_flight()), (1, 1));
    assert!(registry.get(&backend(1)).is_some(), "it answers a request");

    let mut unused = pin!(live.unused());
    assert!(unused.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(request);
    unused.await;
    registry.retire(&table(&[]));
    assert!(registry.get(&backend(1)).is_none());
}

#[test]
fn a_backend_that_comes_back_takes_requests_again() {
    let registry = Registry::default();
    let live = registry.enlist(&[backend(1)]).remove(0);
    let request = live.enter().unwrap();
    registry.retire(&table(&[]));
    let again = registry.enlist(&[backend(1)]).remove(0);
    registry.retire(&table(&[backend(1)]));
    assert!(Arc::ptr_eq(&live, &again) && again.enter().is_some());
    drop(request);
}

#[test]
fn a_quarantine_ends_with_time_or_a_success() {
    let live = Live::new(backend(1));
    live.quarantine(KEEP);
    assert!(live.is_quarantined());
    live.end_quarantine();
    assert!(!live.is_quarantined());
    live.quarantine(Duration::ZERO);
    assert!(!live.is_quarantined());
}

fn places(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

#[tokio::test]
async fn unused_connections_of_all_processes_are_bounded_together() {
    let places = places(1);
    let (one, other) = (Live::new(backend(1)), Live::new(backend(2)));
    let (first, _first) = pair().await;
    one.put_idle(first, 8, &places);
    let (second, mut closed) = pair().await;
    other.put_idle(second, 8, &places);
    assert_eq!(closed.read(&mut [0]).await.unwrap(), 0);
    assert!(one.take_idle(KEEP).is_some());
    let (third, _third) = pair().await;
    other.put_idle(third, 8, &places);
    assert!(other.take_idle(KEEP).is_some());
}

#[tokio::test]
async fn an_unused_connection_is_given_out_while_it_is_good() {
    let live = Live::new(backend(1));
    let (first, _first) = pair().await;
    let (last, _last) = pair().await;
    let (over, _over) = pair().await;
    let port = last.local_addr().unwrap();
    live.put_idle(first, 2, &places(8));
    live.put_idle(last, 2, &places(8));
    live.put_idle(over, 2, &places(8));
    assert_eq!(live.take_idle(KEEP).unwrap().local_addr().unwrap(), port);
    assert!(live.take_idle(Duration::ZERO).is_none(), "too old");
    assert!(live.take_idle(KEEP).is_none(), "none left");
}

#[tokio::test]
async fn a_connection_that_was_closed_or_speaks_unasked_is_not_given_out() {
    let live = Live::new(backend(1));
    let (near, far) = pair().await;
    drop(far);
    near.readable().await.unwrap();
    live.put_idle(near, 8, &places(8));
    assert!(live.take_idle(KEEP).is_none());

    let (near, mut far) = pair().await;
    far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    near.readable().await.unwrap();
    live.put_idle(near, 8, &places(8));
    assert!(!live.sweep(KEEP));
}

#[tokio::test]
async fn a_removed_backend_keeps_no_connection() {
    let live = Live::new(backend(1));
    let (near, mut far) = pair().await;
    live.put_idle(near, 8, &places(8));
    assert!(live.sweep(KEEP));
    live.remove();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    let (near, _far) = pair().await;
    live.put_idle(near, 8, &places(8));
    assert!(live.take_idle(KEEP).is_none());
}
