use super::*;

fn table() -> Table {
    let mut table = Table::new();
    table.insert("Shop.Example", Route::new(State::Up, vec![]));
    table.insert("[::1]", Route::new(State::Crashed, vec![]));
    table
}

/// Each route of these tables has a state of its own.
fn state(table: &Table, host: &str) -> Option<State> {
    table.find(Some(host)).map(|route| route.state)
}

#[test]
fn a_host_is_found_whatever_its_case_port_and_dot() {
    for host in
        ["shop.example", "SHOP.example", "shop.example:8080", "shop.example.", "shop.EXAMPLE.:80"]
    {
        assert_eq!(state(&table(), host), Some(State::Up), "{host}");
    }
    assert_eq!(state(&table(), "[::1]"), Some(State::Crashed));
    assert_eq!(state(&table(), "[::1]:80"), Some(State::Crashed));
}

#[test]
fn nothing_but_the_exact_host_is_found() {
    for host in ["", "example", "a.shop.example", "shop.example.com", "shop", "::1"] {
        assert_eq!(state(&table(), host), None, "{host}");
    }
    assert!(table().find(None).is_none());
}

#[test]
fn the_default_route_answers_for_the_rest() {
    let mut table = table();
    table.set_default(Route::new(State::NoWeb, vec![]));
    assert_eq!(state(&table, "127.0.0.1:5000"), Some(State::NoWeb));
    assert_eq!(state(&table, "shop.example"), Some(State::Up));
    assert!(table.find(None).is_some());
}
