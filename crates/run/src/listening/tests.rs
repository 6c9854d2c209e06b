use std::net::TcpListener;

use super::*;

#[test]
fn finds_the_listeners_of_a_table() {
    let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 12345 1 0 100
   1: 0100007F:0BB9 0100007F:1234 01 00000000:00000000 00:00000000 00000000  1000  0 12346 1 0 100
   2: garbage
";
    if cfg!(target_endian = "little") {
        assert_eq!(listeners(table), [("127.0.0.1:3000".parse().unwrap(), 12345)]);
        let v6 = socket_address("00000000000000000000000001000000:0050");
        assert_eq!(v6, Some("[::1]:80".parse().unwrap()));
    }
    assert_eq!(socket_address("zz:1"), None);
    assert_eq!(socket_address("0100007:1"), None);
    assert_eq!(socket_address(":0050"), None);
}

#[test]
fn reads_this_machine() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let address = listener.local_addr().unwrap();
    assert!(listeners(&table).iter().any(|(found, _)| *found == address));
}
