//! One client connection, request by request.

use std::net::IpAddr;

use tokio::net::TcpStream;

use crate::router::Inner;

pub(crate) async fn serve(router: &Inner, stream: TcpStream, _peer: IpAddr, _port: u16) {
    router.cut.cancelled().await;
    drop(stream);
}
