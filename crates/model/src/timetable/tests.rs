use proptest::prelude::*;

use super::*;

fn job(schedule: &str, zone: &str) -> CronJob {
    CronJob {
        name: ScheduleName::from_command("job"),
        command: "true".to_owned(),
        schedule: schedule.parse().unwrap(),
        zone: zone.parse().unwrap(),
        concurrency: Default::default(),
        size: None,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn table(schedule: &str, zone: &str, since: &str) -> Timetable {
    let mut table = Timetable::default();
    let since = at(since);
    table.set(vec![job(schedule, zone)], |_| since);
    table
}

/// Every tick between two moments, in the zone's own time.
fn ticks(schedule: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let job = job(schedule, zone);
    let zone = jiff::tz::TimeZoneDatabase::bundled().get(zone).unwrap();
    let first = at(from);
    std::iter::successors(job.next(first), |tick| job.next(*tick))
        .take_while(|tick| *tick <= at(to))
        .map(|tick| tick.to_zoned(zone.clone()).strftime("%d %H:%M %z").to_string())
        .collect()
}

#[test]
fn an_hour_that_is_skipped() {
    // 29 March 2026, Oslo: behind 01:59 comes 03:00.
    let day =
        |schedule| ticks(schedule, "Europe/Oslo", "2026-03-28T23:30:00Z", "2026-03-29T03:10:00Z");
    assert_eq!(day("30 2 * * *"), ["29 03:00 +0200"], "right behind the gap");
    assert_eq!(day("30 3 * * *"), ["29 03:30 +0200"]);
    assert_eq!(
        day("*/30 * * * *"),
        [
            "29 01:00 +0100",
            "29 01:30 +0100",
            "29 03:00 +0200",
            "29 03:30 +0200",
            "29 04:00 +0200",
            "29 04:30 +0200",
            "29 05:00 +0200"
        ],
        "by the time that passes"
    );
}

#[test]
fn an_hour_that_comes_twice() {
    // 25 October 2026, Oslo: behind 02:59 comes 02:00 once more.
    let day =
        |schedule| ticks(schedule, "Europe/Oslo", "2026-10-24T23:30:00Z", "2026-10-25T02:10:00Z");
    assert_eq!(day("30 2 * * *"), ["25 02:30 +0200"], "once");
    assert_eq!(
        day("0 * * * *"),
        ["25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"],
        "by the time that passes"
    );
}

#[test]
fn a_zone_is_not_utc() {
    let ticks = ticks("0 3 * * *", "Asia/Tokyo", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    assert_eq!(ticks, ["02 03:00 +0900"]);
    assert_eq!(table("0 3 * * *", "Asia/Tokyo", "2026-01-01T00:00:00Z").next(), {
        Some(at("2026-01-01T18:00:00Z"))
    });
}

#[test]
fn each_tick_is_due_once() {
    let mut table = table("*/5 * * * *", "UTC", "2026-01-01T00:00:00Z");
    assert!(table.take(at("2026-01-01T00:04:59.999Z")).is_empty());
    let due = table.take(at("2026-01-01T00:05:00Z"));
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].tick, due[0].is_missed), (at("2026-01-01T00:05:00Z"), false));
    assert!(table.take(at("2026-01-01T00:05:00Z")).is_empty());
    // The clock is put back: it is not due again.
    assert!(table.take(at("2026-01-01T00:04:00Z")).is_empty());
    assert!(table.take(at("2026-01-01T00:05:01Z")).is_empty());
    assert_eq!(table.next(), Some(at("2026-01-01T00:10:00Z")));
}

#[test]
fn of_those_that_were_missed_the_last_is_due_while_it_is_not_too_old() {
    let mut table = table("*/5 * * * *", "UTC", "2026-01-01T00:00:00Z");
    let due = table.take(at("2026-01-03T12:33:00Z"));
    assert_eq!(due[0].tick, at("2026-01-03T12:30:00Z"));
    assert!(due[0].passed_over && !due[0].is_missed);
    assert_eq!(table.next(), Some(at("2026-01-03T12:35:00Z")));

    let mut daily = self::table("0 3 * * *", "UTC", "2026-01-01T12:00:00Z");
    let due = daily.take(at("2026-01-03T04:00:00Z"));
    assert_eq!((due[0].tick, due[0].is_missed), (at("2026-01-03T03:00:00Z"), false), "the edge");
    let due = daily.take(at("2026-01-04T04:00:00.000001Z"));
    assert_eq!((due[0].tick, due[0].is_missed), (at("2026-01-04T03:00:00Z"), true));
    assert!(daily.take(at("2026-01-04T04:01:00Z")).is_empty(), "said once");
}

#[test]
fn a_clock_that_was_wrong_by_years_does_not_stop_it() {
    let mut table = table("* * * * *", "UTC", "2036-01-01T00:00:00Z");
    assert!(table.put_back(at("2026-01-01T00:00:30Z"))[0].is_anew);
    assert!(table.take(at("2026-01-01T00:00:30Z")).is_empty());
    assert_eq!(table.next(), Some(at("2026-01-01T00:01:00Z")));
}

#[test]
fn a_clock_that_is_put_back_is_like_the_end_of_summer_time() {
    // By the time that passes: from the time that it is now.
    let mut often = table("*/5 * * * *", "UTC", "2026-01-01T12:00:00Z");
    assert!(often.put_back(at("2026-01-01T11:55:00Z")).is_empty(), "a little");
    let now = at("2026-01-01T09:31:00Z");
    let (job, next) = (job("*/5 * * * *", "UTC"), Some(at("2026-01-01T09:35:00Z")));
    assert_eq!(often.next_of(&job, now), (next, None), "also before it was looked at");
    let said = often.put_back(now);
    let from = at("2026-01-01T12:00:00Z");
    assert_eq!(said, [PutBack { name: job.name.clone(), from, next, is_anew: true }]);
    assert!(often.put_back(now).is_empty(), "said once");
    assert_eq!((often.next_of(&job, now), often.next()), ((next, None), next));
    assert_eq!(often.take(at("2026-01-01T09:35:00Z"))[0].tick, at("2026-01-01T09:35:00Z"));

    // Set minutes and hours: they ran the first time.
    let mut daily = table("0 11 * * *", "UTC", "2026-01-01T11:00:00Z");
    let (job, next) = (self::job("0 11 * * *", "UTC"), Some(at("2026-01-02T11:00:00Z")));
    let from = at("2026-01-01T11:00:00Z");
    let said = daily.put_back(now);
    assert_eq!(said, [PutBack { name: job.name.clone(), from, next, is_anew: false }]);
    assert!(daily.put_back(now).is_empty(), "said once");
    assert_eq!((daily.next_of(&job, now), daily.next()), ((next, Some(from)), next));
    assert!(daily.take(at("2026-01-01T11:00:30Z")).is_empty());
    assert!(daily.put_back(at("2026-01-01T11:00:30Z")).is_empty());
    assert_eq!(daily.put_back(now).len(), 1, "put back once more");
    // One that is not due in the time that comes twice runs as ever.
    let mut other = table("30 10 * * *", "UTC", "2026-01-01T08:00:00Z");
    assert!(other.put_back(now).is_empty());
    assert_eq!(other.take(at("2026-01-01T10:30:00Z")).len(), 1);
}

#[test]
fn a_schedule_that_stays_keeps_its_place() {
    let mut table = table("*/5 * * * *", "UTC", "2026-01-01T00:00:00Z");
    let later = at("2026-01-01T00:05:01Z");
    table.set(vec![job("*/5 * * * *", "UTC")], |_| later);
    assert_eq!(table.take(later).len(), 1, "a release right at the tick does not lose it");
    table.set(vec![job("*/2 * * * *", "UTC")], |_| later);
    assert!(table.take(later).is_empty(), "another schedule begins anew");
    table.set(Vec::new(), |_| later);
    assert_eq!(table.next(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ticks_only_get_later_and_never_lie_ahead(
        minute in 0u8..60,
        every in 1u8..30,
        steps in proptest::collection::vec(
            prop_oneof![-1_400i64..90_000, -10_000i64..600, -200_000i64..0],
            1..60,
        ),
    ) {
        let mut table = Timetable::default();
        let start = at("2026-03-28T00:00:00Z");
        let mut other = job(&format!("*/{every} * * * *"), "America/St_Johns");
        other.name = ScheduleName::from_command("other");
        let jobs = [job(&format!("{minute} 2 * * *"), "Europe/Oslo"), other];
        table.set(jobs.to_vec(), |_| start);
        let mut now = start;
        let mut last = std::collections::BTreeMap::new();
        for step in steps {
            now = now.checked_add(SignedDuration::from_secs(step)).unwrap();
            for put_back in table.put_back(now) {
                prop_assert!(put_back.from > now);
                if put_back.is_anew {
                    last.remove(&put_back.name);
                }
            }
            let told: Vec<_> = jobs.iter().map(|job| table.next_of(job, now)).collect();
            for due in table.take(now) {
                prop_assert!(due.tick <= now);
                if let Some(before) = last.insert(due.name.clone(), due.tick) {
                    prop_assert!(before < due.tick, "{before} {}", due.tick);
                }
            }
            for (job, (next, _)) in jobs.iter().zip(told) {
                // What was said to be next is, and never far for one that goes by the time.
                let next = next.unwrap();
                prop_assert!(next > now);
                let mut later = table.clone();
                let rest = Duration::from_nanos(1);
                prop_assert!(later.take(next - rest).iter().all(|due| due.name != job.name));
                let due = later.take(next);
                prop_assert!(due.iter().any(|due| due.name == job.name && due.tick == next));
                if job.schedule.goes_by_time() {
                    prop_assert!(next.duration_since(now) < SignedDuration::from_secs(300 + 2 * 3600));
                }
            }
        }
    }
}
