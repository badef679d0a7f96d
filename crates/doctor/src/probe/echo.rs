//! ICMP echo: unprivileged socket, then raw socket, then at least a word from TCP.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sallyport_runtime::icmp;

use super::tcp;
use crate::seen::{End, Icmp};

pub(super) async fn echo(address: IpAddr, limit: Duration) -> Icmp {
    match icmp::echo(address, limit).await {
        Ok(true) => Icmp::Reply,
        Ok(false) => Icmp::Silent,
        Err(_) => {
            let place = SocketAddr::new(address, 443);
            let tcp_answers = match tcp::connect(place, limit, None).await {
                Ok(_) => true,
                Err(end) => end == End::Refused,
            };
            Icmp::NoRight { tcp_answers }
        }
    }
}
