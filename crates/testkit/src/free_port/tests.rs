use super::*;

#[test]
fn can_be_listened_on() {
    let port = free_port();
    assert_ne!(port, 0);
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
}
