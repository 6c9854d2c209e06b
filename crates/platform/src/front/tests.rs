use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt as _;

use super::*;

#[test]
fn requests_are_answered_after_a_panic_of_the_task_that_takes_connections() {
    let front = Front::begin().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (runs, said) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let serve = move |listener: tokio::net::TcpListener| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(run > 0, "as it can be");
                stream.write_all(b"ok").await.unwrap();
            }
        }
    };
    let (panics, ending) = (Panics::default(), CancellationToken::new());
    let told = Arc::clone(&said);
    let say = move |text| told.lock().unwrap().push(text);
    front.serve(listener, serve, (panics.clone(), ending), say).unwrap();
    // The one with which it panics is lost.
    let mut text = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut text).ok();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"?").unwrap();
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ok");
    }
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("the router's listener has panicked: as it can be"), "{said:?}");
    assert_eq!(panics.total(), 1);
}
