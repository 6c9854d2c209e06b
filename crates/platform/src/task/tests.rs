use std::sync::{Arc, Mutex};

use super::*;

type Said = Arc<Mutex<Vec<String>>>;

fn told(said: &Said) -> impl FnMut(String) + Send + use<> {
    let said = Arc::clone(said);
    move |text| said.lock().unwrap().push(text)
}

#[tokio::test(start_paused = true)]
async fn what_panics_is_started_again_until_it_ends() {
    let (said, panics) = (Said::default(), Panics::default());
    let mut runs = 0;
    let start = move || {
        runs += 1;
        let run = runs;
        async move { assert!(run == 3, "run {run}\nof it") }
    };
    let ending = CancellationToken::new();
    panics.clone().survive("x".to_owned(), ending, start, told(&said)).await;
    let line = |run, pause| {
        format!("Fault: x has panicked: run {run} of it; it is started again in {pause}")
    };
    assert_eq!(*said.lock().unwrap(), [line(1, "100ms"), line(2, "200ms")]);
    assert_eq!((panics.total(), panics.tasks()), (2, Vec::new()), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn what_panics_again_and_again_is_started_ever_later_and_told() {
    let (said, panics) = (Said::default(), Panics::default());
    let start = || async { panic!("always") };
    let mut tasks = JoinSet::new();
    tasks.spawn(panics.clone().survive(
        "x".to_owned(),
        CancellationToken::new(),
        start,
        told(&said),
    ));
    sleep(Duration::from_secs(3600)).await;
    // Ten pauses up to the longest, then one a minute.
    let count = said.lock().unwrap().len();
    assert!((60..80).contains(&count), "{count}");
    let [task] = &*panics.tasks() else { panic!("{:?}", panics.tasks()) };
    assert_eq!((&*task.name, &*task.text, task.count), ("x", "always", count as u64));
    assert!(task.ago < MAX_PAUSE && task.again.is_some_and(|again| again <= MAX_PAUSE), "{task:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_has_run_for_long_is_started_again_soon() {
    let (said, panics) = (Said::default(), Panics::default());
    let mut runs = 0;
    let start = move || {
        runs += 1;
        let run = runs;
        async move {
            if run == 4 {
                sleep(SETTLED).await;
            }
            assert!(run == 5, "run {run}");
        }
    };
    let ending = CancellationToken::new();
    panics.survive("x".to_owned(), ending, start, told(&said)).await;
    let said = said.lock().unwrap();
    assert!(said[2].ends_with("in 400ms") && said[3].ends_with("in 100ms"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_platform_waits_for_no_pause_and_not_for_ever() {
    let (said, panics) = (Said::default(), Panics::default());
    let ending = CancellationToken::new();
    let start = || async { panic!("always") };
    let mut tasks = JoinSet::new();
    let survive = panics.survive("x".to_owned(), ending.clone(), start, told(&said));
    tasks.spawn(survive);
    sleep(Duration::from_secs(3600)).await;
    let (began, before) = (Instant::now(), said.lock().unwrap().len());
    ending.cancel();
    tasks.join_next().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(said.lock().unwrap().len() - before, 4);
}
