use super::*;

#[tokio::test]
async fn an_address_that_was_asked_for_is_not_replaced_by_another() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let first = listen(&Http::At(any)).await.unwrap();
    let taken = first.local_addr().unwrap();
    match listen(&Http::At(taken)).await {
        Err(error @ ListenError::Asked { .. }) => {
            assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_one_the_next_free_port_is_taken() {
    let first = listen(&Http::Free).await.unwrap().local_addr().unwrap();
    assert!(first.ip().is_loopback());
    assert!((DEFAULT..DEFAULT + TRIES).contains(&first.port()));
}

#[test]
fn no_free_port_names_the_range() {
    let text = ListenError::NoneFree.to_string();
    assert_eq!(text, "no port from 8080 to 8179 is free on 127.0.0.1");
}
