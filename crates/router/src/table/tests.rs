use super::*;

fn table() -> Table {
    let mut table = Table::new();
    table.insert("Shop.Example", Route::new(State::Up, vec![]).owned_by("shop"));
    table.insert("[::1]", Route::new(State::Up, vec![]).owned_by("six"));
    table
}

fn owner(table: &Table, host: &str) -> Option<String> {
    table.find(Some(host)).and_then(|route| route.owner.as_deref().map(str::to_owned))
}

#[test]
fn a_host_is_found_whatever_its_case_port_and_dot() {
    for host in
        ["shop.example", "SHOP.example", "shop.example:8080", "shop.example.", "shop.EXAMPLE.:80"]
    {
        assert_eq!(owner(&table(), host).as_deref(), Some("shop"), "{host}");
    }
    assert_eq!(owner(&table(), "[::1]").as_deref(), Some("six"));
    assert_eq!(owner(&table(), "[::1]:80").as_deref(), Some("six"));
}

#[test]
fn nothing_but_the_exact_host_is_found() {
    for host in ["", "example", "a.shop.example", "shop.example.com", "shop", "::1"] {
        assert_eq!(owner(&table(), host), None, "{host}");
    }
    assert!(table().find(None).is_none());
}

#[test]
fn the_default_route_answers_for_the_rest() {
    let mut table = table();
    table.set_default(Route::new(State::Up, vec![]).owned_by("rest"));
    assert_eq!(owner(&table, "127.0.0.1:5000").as_deref(), Some("rest"));
    assert_eq!(owner(&table, "shop.example").as_deref(), Some("shop"));
    assert!(table.find(None).is_some());
}
