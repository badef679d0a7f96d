//! Asking targets whether they are well. Contract id: `upstream`, as for the traffic to them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sallyport_model::balancing::{Active, CheckType};
use sallyport_runtime::tls::{Identity, ServerTrust, client_config};
use sallyport_runtime::{DialError, dial};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::address::Address;
use super::circuit::Report;
use super::cursors::random;
use super::probe_grpc;
use super::upstream::Balancer;

/// Timeout of a probe that has none. Source: data-plane reference 5.2.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The first probes come within this time: not all nodes probe at the same moment.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// Longest status line that is read, bytes.
const LINE_BYTES_MAX: u64 = 1024;

/// TLS for probes.
#[derive(Clone)]
pub(crate) struct ProbeTls {
    pub(crate) verified: Arc<ClientConfig>,
    pub(crate) unverified: Arc<ClientConfig>,
    /// The authorities that `verified` believes.
    pub(crate) roots: Arc<RootCertStore>,
}

impl ProbeTls {
    /// The same, showing this to targets that ask for a certificate.
    fn showing(&self, shown: Option<&Identity>) -> ProbeTls {
        let Some(identity) = shown else {
            return self.clone();
        };
        let config = |trust: ServerTrust, standard: &Arc<ClientConfig>| {
            // it was made for the services of the upstream as well, so it can be made
            let made = client_config(trust, Some(identity)).map(|mut config| {
                config.alpn_protocols.clone_from(&standard.alpn_protocols);
                Arc::new(config)
            });
            made.unwrap_or_else(|_| standard.clone())
        };
        ProbeTls {
            verified: config(ServerTrust::Roots(self.roots.clone()), &self.verified),
            unverified: config(ServerTrust::Anybody, &self.unverified),
            roots: self.roots.clone(),
        }
    }
}

/// What to send to one address.
struct Probe {
    kind: CheckType,
    address: SocketAddr,
    /// Host to ask for.
    host: String,
    request: Vec<u8>,
    /// Headers that are set, for gRPC.
    headers: Vec<(String, String)>,
    tls: Option<(Arc<ClientConfig>, String)>,
    limit: Duration,
}

/// Probes the targets of an upstream, each group by its own interval.
pub(super) async fn probe_for_ever(balancer: &Balancer, tls: &ProbeTls) {
    let tls = &tls.showing(balancer.shown.as_ref());
    let active = &balancer.checks.active;
    let mut state = seed();
    let interval = |secs: f64| {
        Some(secs)
            .filter(|secs| *secs > 0.0)
            .map(Duration::from_secs_f64)
    };
    let intervals = [
        interval(active.healthy.interval),
        interval(active.unhealthy.interval),
    ];
    // a random part of a time
    let mut part =
        |of: Duration| of.mul_f64((random(&mut state) >> 11) as f64 / (1u64 << 53) as f64);
    let start = Instant::now();
    let mut due = intervals.map(|interval| Some(start + part(interval?.min(FIRST_WITHIN))));
    while let Some(next) = due.iter().flatten().min().copied() {
        sleep_until(next).await;
        let now = Instant::now();
        let is_due = due.map(|at| at.is_some_and(|at| at <= now));
        probe_all(balancer, tls, is_due).await;
        for (due, (interval, was_due)) in due.iter_mut().zip(intervals.iter().zip(is_due)) {
            // a tenth more or less keeps nodes that started together apart
            if let (Some(interval), true) = (interval, was_due) {
                *due = Some(now + interval.mul_f64(0.9) + part(interval.mul_f64(0.2)));
            }
        }
    }
}

fn seed() -> u64 {
    let mut seed = [0; 8];
    // without randomness nodes probe in step, no more
    let _ = getrandom::fill(&mut seed);
    u64::from_le_bytes(seed)
}

/// Probes the healthy ones, the unhealthy ones or both, within the concurrency that is set.
async fn probe_all(balancer: &Balancer, tls: &ProbeTls, [healthy, unhealthy]: [bool; 2]) {
    let active = &balancer.checks.active;
    let mut wanted: Vec<Arc<Address>> = balancer
        .ring()
        .entries
        .iter()
        .filter(|entry| entry.weight > 0)
        .map(|entry| entry.address.clone())
        .filter(|address| match address.is_healthy() {
            true => healthy,
            false => unhealthy,
        })
        .collect();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < active.concurrency.max(1) as usize
            && let Some(address) = wanted.pop()
        {
            let probe = Probe::new(active, &address, balancer.host_header_given(), tls);
            under_way.spawn(async move { (address, probe.run().await) });
        }
        match under_way.join_next().await {
            None => break,
            Some(Ok((address, report))) => {
                let (upstream, socket) = (&balancer.name, address.socket);
                debug!(%upstream, address = %socket, ?report, "probed");
                balancer.note(&address, report, true);
            }
            Some(Err(error)) => debug!(%error, "a probe ended early"),
        }
    }
}

impl Probe {
    fn new(active: &Active, address: &Address, host: Option<&str>, tls: &ProbeTls) -> Probe {
        let limit = match active.timeout > 0.0 {
            true => Duration::from_secs_f64(active.timeout),
            false => TIMEOUT,
        };
        let grpc = matches!(active.kind, CheckType::Grpc | CheckType::Grpcs);
        let secure = matches!(active.kind, CheckType::Https | CheckType::Grpcs);
        let tls = secure.then(|| {
            let mut config = match active.https_verify_certificate {
                true => tls.verified.clone(),
                false => tls.unverified.clone(),
            };
            if grpc {
                Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
            }
            let name = active.https_sni.as_deref().unwrap_or(&address.host);
            let name = name.trim_start_matches('[').trim_end_matches(']');
            (config, name.to_owned())
        });
        let host = host.unwrap_or(&address.host);
        let headers = active.headers.iter().filter(|_| grpc);
        let headers = headers.flat_map(|(name, values)| {
            let one = |value: &String| (name.clone(), value.clone());
            values.iter().map(one)
        });
        Probe {
            kind: active.kind,
            address: address.socket,
            host: host.to_owned(),
            request: request(active, host),
            headers: headers.collect(),
            tls,
            limit,
        }
    }

    async fn run(self) -> Report {
        match timeout(self.limit, self.ask()).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Report::Timeout,
            Ok(Err(_)) => Report::TcpFailure,
            Err(_) => Report::Timeout,
        }
    }

    async fn ask(&self) -> io::Result<Report> {
        let (ip, port) = (self.address.ip().to_string(), self.address.port());
        let stream =
            dial("upstream", &ip, port, self.limit)
                .await
                .map_err(|error| match error {
                    DialError::Connect { mut tried, .. } => tried
                        .pop()
                        .map_or_else(|| io::ErrorKind::NotFound.into(), |(_, error)| error),
                    other => io::Error::other(other),
                })?;
        if self.kind == CheckType::Tcp {
            return Ok(Report::Connected);
        }
        let Some((config, name)) = &self.tls else {
            return self.status(stream).await;
        };
        let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config.clone())
            .connect(name, stream)
            .await?;
        self.status(stream).await
    }

    async fn status(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Report> {
        let scheme = match self.kind {
            CheckType::Grpc => "http",
            CheckType::Grpcs => "https",
            CheckType::Tcp | CheckType::Http | CheckType::Https => {
                return self.http_status(stream).await;
            }
        };
        let asked = probe_grpc::ask(stream, scheme, &self.host, &self.headers);
        asked.await.map(Report::Status)
    }

    async fn http_status(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> io::Result<Report> {
        stream.write_all(&self.request).await?;
        stream.flush().await?;
        let mut line = Vec::new();
        let mut limited = stream.take(LINE_BYTES_MAX);
        while !line.contains(&b'\n') {
            if limited.read_buf(&mut line).await? == 0 {
                break;
            }
        }
        match line.is_empty() {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(Report::Status(status(&line).unwrap_or(0))),
        }
    }
}

/// The request of a probe. Lines that would not stay one line are left out.
fn request(active: &Active, host: &str) -> Vec<u8> {
    let path = match active.http_path.as_str() {
        "" => "/",
        path => path,
    };
    let mut text = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    let mut has_host = false;
    for (name, values) in &active.headers {
        has_host |= name.eq_ignore_ascii_case("host");
        for value in values {
            if !name.chars().chain(value.chars()).any(char::is_control) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
    }
    if !has_host {
        text.push_str(&format!("Host: {host}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The status in a status line of HTTP/1.
fn status(line: &[u8]) -> Option<u16> {
    let text = line.strip_prefix(b"HTTP/1.")?;
    let digits = text.get(2..5)?;
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let fits = text[0].is_ascii_digit()
        && text[1] == b' '
        && digits.iter().all(is_digit)
        && !text.get(5).is_some_and(is_digit);
    fits.then(|| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::tests::upstream;
    use serde_json::json;

    #[test]
    fn status_lines() {
        for (line, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/2 200\r\n", None),
            ("HTTP/1.1 20", None),
            ("SSH-2.0\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(line.as_bytes()), expected, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_survived(line: Vec<u8>) {
            let _ = status(&line);
        }
    }

    #[test]
    fn a_request_has_the_headers_that_are_set_and_no_others() {
        let active = json!({"http_path": "/up", "headers": {"X-A": ["1", "2\r\nX-B: 3"]}});
        let upstream = upstream(json!({"healthchecks": {"active": active}}));
        let text = request(&upstream.healthchecks.active, "a.test");
        let expected = "GET /up HTTP/1.1\r\nConnection: close\r\nX-A: 1\r\nHost: a.test\r\n\r\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
