//! Runs of schedules on each database.

use tolv_model::cron::CronOutcome;
use tolv_model::name::ScheduleName;
use tolv_store::NewCronRun;

use super::*;

on_both!(a_tick_is_recorded_once, runs_end_once_and_are_kept_for_a_while,);

fn schedule(name: &str) -> ScheduleName {
    name.parse().unwrap()
}

fn new<'a>(deploy: &'a Deploy, name: &'a ScheduleName, tick: Option<i64>) -> NewCronRun<'a> {
    NewCronRun {
        deploy: &deploy.id,
        name,
        tick: tick.map(at),
        actor: tick.is_none().then_some("ada"),
        release: ReleaseNumber(3),
        command: "bin/tidy",
        outcome: CronOutcome::Running,
        now: at(tick.unwrap_or(1)),
    }
}

async fn a_tick_is_recorded_once(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let (tidy, other) = (schedule("tidy"), schedule("other"));
    // Many that are told of one tick.
    let all = (0..8).map(|_| {
        let (store, deploy, tidy) = (store.clone(), deploy.clone(), tidy.clone());
        async move { store.record_cron_run(&new(&deploy, &tidy, Some(60))).await.unwrap() }
    });
    let made = futures(all.collect()).await;
    let fresh: Vec<_> = made.iter().flatten().collect();
    assert_eq!(fresh.len(), 1, "{made:?}");
    let run = &fresh[0].run;
    assert!(fresh[0].forgotten.is_empty());
    assert_eq!(store.cron_run(&run.id).await.unwrap(), *run);
    assert_eq!((run.tick, run.outcome, run.ended), (Some(at(60)), CronOutcome::Running, None));
    // Another schedule, another deploy and whoever asks by hand are not in its way.
    let record = async |new: NewCronRun<'_>| {
        let recorded = store.record_cron_run(&new).await.unwrap();
        assert!(recorded.is_some());
    };
    record(new(&deploy, &other, Some(60))).await;
    record(new(&deploy, &tidy, None)).await;
    record(new(&deploy, &tidy, None)).await;
    let second =
        store.create_deploy(&path("shop/second"), "s.localhost", None, at(1)).await.unwrap();
    record(new(&second, &tidy, Some(60))).await;
    record(new(&deploy, &other, Some(120))).await;
    let mut ticks = store.last_cron_ticks(&deploy.id).await.unwrap();
    ticks.sort();
    assert_eq!(ticks, [(other.clone(), at(120)), (tidy.clone(), at(60))]);
    // The clock is put back: what lies ahead comes again, for this schedule alone.
    store.forget_cron_ticks(&deploy.id, &other, at(60)).await.unwrap();
    let mut ticks = store.last_cron_ticks(&deploy.id).await.unwrap();
    ticks.sort();
    assert_eq!(ticks, [(other.clone(), at(60)), (tidy.clone(), at(60))]);
    record(new(&deploy, &other, Some(120))).await;
    // What is destroyed leaves nothing behind.
    store.destroy_deploy(&deploy.id).await.unwrap();
    assert!(store.cron_runs(&deploy.id, &tidy, None, 9).await.unwrap().is_empty());
    assert_eq!(store.cron_runs(&second.id, &tidy, None, 9).await.unwrap().len(), 1);
}

async fn runs_end_once_and_are_kept_for_a_while(bed: Bed) {
    let store = &bed.store;
    let deploy = bed.shop().await;
    let tidy = schedule("tidy");
    let record = async |tick: i64, outcome| {
        let new = NewCronRun { outcome, ..new(&deploy, &tidy, Some(tick)) };
        store.record_cron_run(&new).await.unwrap().unwrap().run
    };
    let first = record(60, CronOutcome::Running).await;
    let end =
        |outcome, status| store.end_cron_run(&first.id, outcome, Some(status), Some("why"), at(99));
    assert!(end(CronOutcome::Failed, 143).await.unwrap());
    assert!(!end(CronOutcome::Succeeded, 0).await.unwrap(), "over is over");
    let ended = store.cron_run(&first.id).await.unwrap();
    assert_eq!((ended.outcome, ended.status), (CronOutcome::Failed, Some(143)));
    assert_eq!((ended.ended, ended.error.as_deref()), (Some(at(99)), Some("why")));
    let skipped = record(120, CronOutcome::Skipped).await;
    assert_eq!(skipped.ended, Some(at(120)));
    // The platform ended in the middle of one.
    let open = record(180, CronOutcome::Running).await;
    assert_eq!(store.cut_off_cron_runs(&deploy.id, "cut off", at(181)).await.unwrap(), 1);
    let cut = store.cron_run(&open.id).await.unwrap();
    assert_eq!((cut.outcome, cut.error.as_deref()), (CronOutcome::Failed, Some("cut off")));
    // Pages, the newest first, whatever the clock does.
    let ids = async |before: Option<&tolv_model::id::CronRunId>, most| {
        let runs = store.cron_runs(&deploy.id, &tidy, before, most).await.unwrap();
        runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 2).await, [open.id.clone(), skipped.id.clone()]);
    assert_eq!(ids(Some(&skipped.id), 9).await, std::slice::from_ref(&first.id));
    // The clock is put back: the newest is the newest all the same, and began when it did.
    let back = NewCronRun { now: at(1), ..new(&deploy, &tidy, Some(200)) };
    let back = store.record_cron_run(&back).await.unwrap().unwrap().run;
    assert_eq!((&ids(None, 1).await[..], back.created), (&[back.id.clone()][..], at(1)));
    store.end_cron_run(&back.id, CronOutcome::Succeeded, Some(0), None, at(2)).await.unwrap();
    let mut forgotten = Vec::new();
    for minute in 5..=202 {
        // All at one moment: the clock stands still.
        let now = NewCronRun { now: at(180), ..new(&deploy, &tidy, Some(minute * 60)) };
        let recorded = store.record_cron_run(&now).await.unwrap().unwrap();
        let ended = (CronOutcome::Succeeded, Some(0), None, at(1));
        store.end_cron_run(&recorded.run.id, ended.0, ended.1, ended.2, ended.3).await.unwrap();
        forgotten.extend(recorded.forgotten);
    }
    assert_eq!(forgotten, [first.id, skipped.id]);
    assert_eq!(ids(None, 999).await.len(), 200);
}
