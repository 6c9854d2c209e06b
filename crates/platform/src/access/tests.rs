use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::task::Panics;

#[tokio::test(start_paused = true)]
async fn access_lines_are_written_after_a_panic_of_their_writer_and_what_it_had_is_counted() {
    let (lines, waiting) = mpsc::channel(WAITING);
    let access = Access { waiting, dropped: Arc::default(), delivering: 0 };
    let access = Arc::new(tokio::sync::Mutex::new(access));
    let (panics, over) = (Panics::default(), CancellationToken::new());
    let (calls, written) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let start = {
        let (over, calls, written) = (over.clone(), Arc::clone(&calls), Arc::clone(&written));
        move || {
            let (access, over) = (Arc::clone(&access), over.clone());
            let (calls, written) = (Arc::clone(&calls), Arc::clone(&written));
            async move {
                let deliver = |batch: Vec<Request>| {
                    assert!(calls.fetch_add(1, Relaxed) > 0, "as it can be");
                    let texts = batch
                        .iter()
                        .map(|request| String::from_utf8_lossy(&request.line.text).into_owned());
                    written.lock().unwrap().extend(texts);
                    async {}
                };
                access.lock().await.run(over, deliver).await;
            }
        }
    };
    let line = |text: &str| Request { host: None, line: Line::tolv("router", text) };
    for text in ["one", "two"] {
        lines.send(line(text)).await.map_err(drop).unwrap();
    }
    let task = panics.clone().survive("it".to_owned(), CancellationToken::new(), start, |_| {});
    let end = async {
        while calls.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        lines.send(line("three")).await.map_err(drop).unwrap();
        over.cancel();
    };
    tokio::join!(task, end);
    let written = written.lock().unwrap();
    assert_eq!((panics.total(), written.len()), (1, 2), "{written:?}");
    assert_eq!(written[0], "three");
    assert!(written[1].contains('2'), "{written:?}");
}
