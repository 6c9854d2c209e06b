use std::net::{Ipv4Addr, SocketAddr};

use tolv_model::release::ReleaseNumber;

use super::*;

fn endpoint(process: &str, state: ProcessState) -> Endpoint {
    Endpoint {
        process: process.parse().unwrap(),
        id: 1,
        release: ReleaseNumber(1),
        state,
        routed: true,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000)),
        connector: tolv_run::Connector::nowhere(),
        pid: None,
        restarts: 0,
        limits: tolv_sandbox::Limits::default(),
    }
}

fn state(web: Web, processes: &[(&str, ProcessState)]) -> State {
    let processes = processes.iter().map(|(name, state)| endpoint(name, *state)).collect();
    route(web, &Endpoints { processes }).state
}

#[test]
fn a_request_meets_what_is_true_of_web() {
    use ProcessState::{Crashed, Starting, Up};
    assert_eq!(state(Web::Unknown, &[]), State::Booting);
    assert_eq!(state(Web::None, &[("worker.1", Up)]), State::NoWeb);
    assert_eq!(state(Web::Wanted, &[("web.1", Starting)]), State::Booting);
    assert_eq!(state(Web::Wanted, &[("web.1", Crashed)]), State::Crashed);
    assert_eq!(state(Web::Wanted, &[("web.1", Crashed), ("web.2", Starting)]), State::Booting);
    assert_eq!(state(Web::Wanted, &[("web.1", Crashed), ("web.2", Up)]), State::Up);
    assert_eq!(state(Web::Wanted, &[("worker.1", Crashed)]), State::Booting);
}

#[test]
fn a_crash_is_told_once_it_lasts() {
    let now = tokio::time::Instant::now();
    let kept = Crash::default().next(true, now);
    assert_eq!(kept, Crash::KeptBack(now + RESTART));
    assert_eq!(kept.next(true, now + RESTART / 2), kept);
    assert_eq!(kept.next(false, now + RESTART / 2), Crash::None);
    let told = kept.next(true, now + RESTART);
    assert_eq!(
        (told, told.next(true, now), told.next(false, now)),
        (Crash::Told, told, Crash::None)
    );
}
