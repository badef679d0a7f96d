//! What the node can reach.

use std::time::{Duration, Instant};

use sallyport_wire::appliance_cli::Reply;

use super::{Entry, entry};

/// How long a look-up or a connection may take.
const WAIT: Duration = Duration::from_secs(5);

pub(super) fn entries() -> Vec<Entry> {
    let host = ("host", "name or address");
    vec![
        entry(
            "nslookup",
            "looks a name up from the node",
            &[host],
            |call| Box::pin(async move { nslookup(call.get("host").unwrap_or_default()).await }),
        ),
        entry(
            "test-port",
            "connects from the node to a TCP port",
            &[host, ("port", "1 to 65535")],
            |call| {
                Box::pin(async move {
                    let host = call.get("host").unwrap_or_default();
                    test_port(host, call.get("port").unwrap_or_default()).await
                })
            },
        ),
    ]
}

async fn nslookup(host: &str) -> Reply {
    let found = tokio::time::timeout(WAIT, tokio::net::lookup_host((host, 0))).await;
    let found: Vec<String> = match found {
        Err(_) => return Reply::refused("timeout", format!("no answer about {host} in time")),
        Ok(Err(error)) => {
            return Reply::refused("not_found", format!("{host} is not found: {error}"));
        }
        Ok(Ok(addresses)) => addresses.map(|it| it.ip().to_string()).collect(),
    };
    let mut unique = found;
    unique.sort();
    unique.dedup();
    Reply::new(format!("{host} has {}", unique.join(", "))).with("addresses", unique)
}

async fn test_port(host: &str, port: &str) -> Reply {
    let Some(port) = port.parse::<u16>().ok().filter(|port| *port > 0) else {
        return Reply::refused("bad_arguments", format!("{port:?} is no port (1 to 65535)"));
    };
    let began = Instant::now();
    match sallyport_runtime::dial("port_test", host, port, WAIT).await {
        Ok(_) => {
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let told = format!("{host} port {port} can be reached, in {took_ms} ms");
            Reply::new(told).with("open", true).with("took_ms", took_ms)
        }
        Err(error) => Reply::refused("unreachable", error.to_string()).with("open", false),
    }
}
