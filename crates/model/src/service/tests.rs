use proptest::prelude::*;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Env {
    let mut env = Env::default();
    for (name, value) in pairs {
        env.set(name.parse().unwrap(), *value).unwrap();
    }
    env
}

fn named(pairs: &[(&str, &str)]) -> Vec<String> {
    services_of(&env(pairs)).iter().map(|(name, at)| format!("{name} {at}")).collect()
}

#[test]
fn a_url_names_a_service() {
    assert_eq!(named(&[("A_URL", "postgres://u:p@localhost/shop")]), ["A_URL 127.0.0.1:5432"]);
    assert_eq!(named(&[("A", "redis://127.0.0.1:7000/0?x=1")]), ["A 127.0.0.1:7000"]);
    assert_eq!(named(&[("A", "redis://[::1]/")]), ["A [::1]:6379"]);
    assert_eq!(named(&[("A", "postgresql+asyncpg://u:p@a@127.0.0.5/x")]), ["A 127.0.0.5:5432"]);
    assert_eq!(
        named(&[("A", "mongodb://localhost:27017,db.example.org:27018,127.0.0.1/x")]),
        ["A 127.0.0.1:27017"]
    );
}

#[test]
fn an_address_and_a_pair_of_variables_name_one_too() {
    assert_eq!(
        named(&[("MEMCACHE_SERVERS", "127.0.0.1:11211")]),
        ["MEMCACHE_SERVERS 127.0.0.1:11211"]
    );
    assert_eq!(named(&[("DB_HOST", "localhost"), ("DB_PORT", "3306")]), ["DB_HOST 127.0.0.1:3306"]);
    assert_eq!(named(&[("PGHOST", "127.0.0.1")]), ["PGHOST 127.0.0.1:5432"]);
}

#[test]
fn what_drivers_understand_names_one() {
    for (value, wanted) in [
        ("host=localhost port=5499 dbname=shop", "A 127.0.0.1:5499"),
        ("dbname=shop host=127.0.0.1", "A 127.0.0.1:5432"),
        ("root:pw@tcp(127.0.0.1:5499)/shop", "A 127.0.0.1:5499"),
        ("postgres:///shop?host=localhost&port=5499", "A 127.0.0.1:5499"),
        ("jdbc:postgresql://localhost/x", "A 127.0.0.1:5432"),
        ("Server=localhost;Port=1433;Database=x", "A 127.0.0.1:1433"),
        ("sqlserver://sa:pw@localhost", "A 127.0.0.1:1433"),
        ("redis://localhost.localdomain", "A 127.0.0.1:6379"),
    ] {
        assert_eq!(named(&[("A", value)]), [wanted], "{value}");
    }
    assert_eq!(named(&[("A", "host=db.example.org port=5499")]), Vec::<String>::new());
}

#[test]
fn what_is_elsewhere_is_none() {
    for value in [
        "postgres://db.example.org/shop",
        "postgres://localhost.example.org/x",
        "file:///var/lib/x",
        "sqlite://shop.db",
        "localhost",
        "unknown://localhost",
        "redis://localhost:0",
        "redis://localhost:99999",
        "http://example.org/?next=http://localhost:1212/",
        "http://localhost:1212@example.org/",
        "12:30",
        "",
    ] {
        assert_eq!(named(&[("A", value)]), Vec::<String>::new(), "{value}");
    }
    assert_eq!(named(&[("DB_HOST", "localhost")]), Vec::<String>::new());
}

#[test]
fn the_operators_list_is_read_and_refused() {
    let list: HostServices = "127.0.0.1:5432, localhost:6379,[::1]:25".parse().unwrap();
    assert!(list.allow(&"127.0.0.1:6379".parse().unwrap()));
    assert!(!list.allow(&"127.0.0.1:6380".parse().unwrap()));
    assert_eq!(list.to_string().parse::<HostServices>().unwrap(), list);
    assert_eq!("".parse::<HostServices>().unwrap(), HostServices::default());
    for bad in ["5432", "10.0.0.1:5432", "localhost", "localhost:x"] {
        assert!(bad.parse::<HostServices>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_value_panics(value in ".{0,60}") {
        let services = services_in(&value);
        prop_assert!(services.iter().all(|service| service.ip().is_loopback()));
    }
}
