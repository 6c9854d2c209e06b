use super::*;

#[test]
fn credentials_are_sent_and_never_shown() {
    let target = Target::new("https://me:s%40cret@pypi.example/simple/uv/?x=@");
    assert_eq!(target.shown, "https://pypi.example/simple/uv/?x=@");
    assert_eq!(target.host(), "pypi.example");
    assert_eq!(target.authorization.as_deref(), Some("Basic bWU6c0BjcmV0"));
    let plain = Target::new("https://pypi.org/@scope/x");
    assert_eq!(plain.authorization, None);
    assert_eq!(plain.shown, "https://pypi.org/@scope/x");
    assert_eq!(Target::new("http://[::1]:8080/x").host(), "[::1]");
    assert_eq!(percent_decoded("%zz%4"), b"%zz%4");
}

#[test]
fn no_proxy_names_hosts_and_domains() {
    let list = ["internal".to_owned(), ".corp.example".to_owned(), String::new()];
    assert!(direct("internal", &list));
    assert!(direct("a.internal", &list));
    assert!(direct("npm.Corp.example", &list));
    assert!(!direct("notinternal", &list));
    assert!(!direct("pypi.org", &list));
    assert!(direct("pypi.org", &["*".to_owned()]));
}

#[test]
fn a_closed_port_is_told_with_the_address() {
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let client = Client::new(&BTreeMap::new()).unwrap();
    let url = format!("http://me:secret@127.0.0.1:{port}/simple/uv/");
    let Err(text) = client.get(&url, "*/*") else { panic!("something listens there") };
    assert!(
        text.starts_with(&format!("http://127.0.0.1:{port}/simple/uv/ cannot be reached")),
        "{text}"
    );
    assert!(!text.contains("secret"));
}

#[test]
fn a_missing_ca_file_is_named_by_its_variable() {
    let env = BTreeMap::from([("PIP_CERT".to_owned(), OsString::from("/none/such.pem"))]);
    let Err(text) = Client::new(&env) else { panic!("it was read") };
    assert!(text.contains("`PIP_CERT`"), "{text}");
}
