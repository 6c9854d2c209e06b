//! One-off runs.

use tolv_model::id::RunId;
use tolv_model::run::{Argv, Connection, End, State as RunState};
use tolv_store::NewRun;

use super::*;

on_both!(
    a_run_is_recorded_before_it_starts_and_how_it_ended_once,
    runs_under_way_are_lost_with_the_platform_and_old_ones_forgotten,
    a_page_of_long_rows_ends_before_there_are_too_many_bytes,
);

fn new(deploy: &Deploy, second: i64) -> NewRun {
    NewRun {
        deploy: deploy.id.clone(),
        release: ReleaseNumber(3),
        actor: "ada".to_owned(),
        argv: Argv::new(vec![b"printf".to_vec(), b"a  b\xff".to_vec()]).unwrap(),
        env: vec!["GREETING".parse().unwrap()],
        connection: Connection::Terminal,
        now: at(second),
    }
}

/// Bytes of a list's rows are bounded, and not their number alone: each row below has 120 KiB.
async fn a_page_of_long_rows_ends_before_there_are_too_many_bytes(bed: Bed) {
    let deploy = bed.shop().await;
    let store = &bed.store;
    let argv = Argv::new(vec![b"true".to_vec(), vec![b'x'; 120 << 10]]).unwrap();
    let mut made = Vec::new();
    for second in 0..20 {
        let new = NewRun { argv: argv.clone(), ..new(&deploy, second) };
        made.push(store.begin_run(&new).await.unwrap().id);
    }
    made.reverse();
    let (mut seen, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.runs(&deploy.id, before.as_ref(), 200).await.unwrap();
        let bytes: usize = page.iter().map(|run| format!("{:?}", run.argv).len()).sum();
        assert!(!page.is_empty() && page.len() < 10, "{} rows, {bytes} bytes", page.len());
        seen.extend(page.iter().map(|run| run.id.clone()));
        before = seen.last().cloned();
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert!(pages > 2, "{pages}");
    assert_eq!(seen, made, "each once, the newest first");
    // One row is a page, whatever it has, and `most` counts as before.
    let page = store.runs(&deploy.id, None, 1).await.unwrap();
    assert_eq!((page.len(), page.more), (1, true));
    assert!(!store.runs(&deploy.id, Some(&made[18]), 1).await.unwrap().more);
}

fn end(status: u8) -> End {
    End { state: RunState::Ended, status: Some(status), note: None }
}

async fn a_run_is_recorded_before_it_starts_and_how_it_ended_once(bed: Bed) {
    let deploy = bed.shop().await;
    let store = &bed.store;
    let run = store.begin_run(&new(&deploy, 10)).await.unwrap();
    assert_eq!((run.number, run.state, &run.actor[..]), (1, RunState::Starting, "ada"));
    assert_eq!((&run.argv, run.release), (&new(&deploy, 10).argv, ReleaseNumber(3)));
    assert_eq!((run.connection, run.env.len()), (Connection::Terminal, 1));
    store.run_started(&run.id, at(11)).await.unwrap();
    assert_eq!(store.run(&run.id).await.unwrap().state, RunState::Up);
    store.end_run(&run.id, &end(137), Some(12), at(12)).await.unwrap();
    store.end_run(&run.id, &end(0), None, at(13)).await.unwrap();
    // Started is not said of what is over.
    store.run_started(&run.id, at(14)).await.unwrap();
    let run = store.run(&run.id).await.unwrap();
    assert_eq!((run.status, run.recorded, run.ended), (Some(137), Some(12), Some(at(12))));
    assert_eq!((run.state, run.started), (RunState::Ended, Some(at(11))));
    // Clocks may go back; numbers do not.
    let second = store.begin_run(&new(&deploy, 5)).await.unwrap();
    let third = store.begin_run(&new(&deploy, 6)).await.unwrap();
    assert_eq!((second.number, third.number), (2, 3));
    let page = store.runs(&deploy.id, None, 2).await.unwrap();
    assert_eq!((page[0].id.clone(), page[1].id.clone()), (run.id.clone(), third.id.clone()));
    let rest = store.runs(&deploy.id, Some(&third.id), 9).await.unwrap();
    assert_eq!((rest.items, rest.more), (vec![second], false));
    let nobody = RunId::new(at(1), 1);
    assert!(matches!(store.run(&nobody).await, Err(Error::NotFound { .. })));
    store.destroy_deploy(&deploy.id).await.unwrap();
    assert!(matches!(store.run(&run.id).await, Err(Error::NotFound { .. })));
    let gone = store.begin_run(&new(&deploy, 20)).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
    store.end_run(&third.id, &end(0), None, at(21)).await.unwrap();
}

async fn runs_under_way_are_lost_with_the_platform_and_old_ones_forgotten(bed: Bed) {
    let deploy = bed.shop().await;
    let store = &bed.store;
    let mut runs = Vec::new();
    for second in 0..6 {
        runs.push(store.begin_run(&new(&deploy, second)).await.unwrap().id);
    }
    for id in &runs[1..] {
        store.end_run(id, &end(0), (*id == runs[2]).then_some(1), at(9)).await.unwrap();
    }
    // The first is under way still; of the others the newest two stay.
    assert_eq!(store.forget_runs(&deploy.id, 2).await.unwrap(), [runs[2].clone()]);
    let left: Vec<_> =
        store.runs(&deploy.id, None, 9).await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(left, [runs[5].clone(), runs[4].clone(), runs[0].clone()]);
    assert_eq!(store.lose_runs("the platform ended", at(10)).await.unwrap(), 1);
    assert_eq!(store.lose_runs("again", at(11)).await.unwrap(), 0);
    let lost = store.run(&runs[0]).await.unwrap();
    assert_eq!((lost.state, lost.ended, lost.status), (RunState::Lost, Some(at(10)), None));
    assert_eq!(lost.note.unwrap(), "the platform ended");
    // Behind the last number they begin again.
    bed.raw("UPDATE runs SET number = 65535 WHERE id = (SELECT MAX(id) FROM runs)").unwrap();
    assert_eq!(store.begin_run(&new(&deploy, 20)).await.unwrap().number, 6);
    bed.raw("UPDATE runs SET number = 65535").unwrap();
    assert_eq!(store.begin_run(&new(&deploy, 21)).await.unwrap().number, 1);
}
