use super::*;

#[test]
fn a_network_contains_its_range_only() {
    let ten: Network = "10.0.0.0/8".parse().unwrap();
    assert!(ten.contains("10.255.0.1".parse().unwrap()));
    assert!(ten.contains("::ffff:10.0.0.1".parse().unwrap()));
    assert!(!ten.contains("11.0.0.1".parse().unwrap()));
    assert!(!ten.contains("fd00::1".parse().unwrap()));
    let one: Network = "::1".parse().unwrap();
    assert!(one.contains("::1".parse().unwrap()));
    assert!(!one.contains("::2".parse().unwrap()));
    let all: Network = "0.0.0.0/0".parse().unwrap();
    assert!(all.contains("203.0.113.9".parse().unwrap()));
    let all: Network = "::/0".parse().unwrap();
    assert!(all.contains("2001:db8::1".parse().unwrap()));
}

#[test]
fn text_that_is_no_network_is_refused() {
    for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "localhost", "10.0.0/8", "10.0.0.0/-1"] {
        assert!(text.parse::<Network>().is_err(), "{text}");
    }
}
