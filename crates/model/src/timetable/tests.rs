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
    assert!(table.take(at("2026-01-01T00:00:30Z")).is_empty());
    assert_eq!(table.next(), Some(at("2026-01-01T00:01:00Z")));
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
    #[test]
    fn ticks_only_get_later_and_never_lie_ahead(
        minute in 0u8..60,
        every in 1u8..30,
        steps in proptest::collection::vec(-1_400i64..90_000, 1..60),
    ) {
        let mut table = Timetable::default();
        let start = at("2026-03-28T00:00:00Z");
        let mut other = job(&format!("*/{every} * * * *"), "America/St_Johns");
        other.name = ScheduleName::from_command("other");
        table.set(vec![job(&format!("{minute} 2 * * *"), "Europe/Oslo"), other], |_| start);
        let mut now = start;
        let mut last = std::collections::BTreeMap::new();
        for step in steps {
            now = now.checked_add(SignedDuration::from_secs(step)).unwrap();
            for due in table.take(now) {
                prop_assert!(due.tick <= now);
                if let Some(before) = last.insert(due.name.clone(), due.tick) {
                    prop_assert!(before < due.tick, "{before} {}", due.tick);
                }
            }
        }
    }
}
