//! Whether a proxy does the work that is to be measured.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use sallyport_testkit::http::{self, Response};
use sallyport_testkit::{Deadline, Program};

use super::{Name, Workload};

impl Workload {
    /// Checks that the proxy at `addr` does the work: right answers, and right refusals.
    pub(crate) fn verify(&self, addr: SocketAddr) -> anyhow::Result<()> {
        match self.name {
            Name::Plain => body(addr, "/", &[], &self.body),
            Name::Tls | Name::Handshakes => self.verify_tls(addr, "--http1.1", "1.1"),
            Name::Http2 => self.verify_tls(addr, "--http2", "2"),
            Name::Gateway => self.verify_gateway(addr),
            Name::Transform => self.verify_transform(addr),
        }
    }

    fn verify_tls(&self, addr: SocketAddr, version: &str, spoken: &str) -> anyhow::Result<()> {
        let shown = "|%{http_version}|%{http_code}";
        let done = Program::new("curl")
            .args(["--silent", "--insecure", "--max-time", "10", version])
            .args(["--write-out", shown, &format!("https://{addr}/")])
            .run(Deadline::secs(20));
        let wanted = format!("{}|{spoken}|200", self.body);
        if done.stdout != wanted {
            bail!("curl {version}: {wanted:?} expected, got {:?}", done.stdout);
        }
        Ok(())
    }

    fn verify_gateway(&self, addr: SocketAddr) -> anyhow::Result<()> {
        let key = Workload::key(0);
        let key = [("apikey", &*key)];
        for route in [0, self.routes / 2, self.routes - 1] {
            let item = format!("{}/item", Workload::prefix(route));
            body(addr, &item, &key, &self.body)?;
        }
        // The backend tells what reached it at /seen: the prefix is gone, the edits are there.
        let seen = format!("{}/seen", Workload::prefix(0));
        let consumer = Workload::consumer(0);
        let expected = format!("consumer={consumer} forwarded=127.0.0.1/http");
        body(addr, &seen, &key, &expected)?;
        refuses(addr)?;
        status(addr, "/no-such-route", &key, 404)
    }

    fn verify_transform(&self, addr: SocketAddr) -> anyhow::Result<()> {
        let key = Workload::key(0);
        let headers = [
            ("apikey", &*key),
            ("x-client", "me"),
            ("x-internal", "secret"),
        ];
        let prefix = Workload::prefix(0);
        body(addr, &format!("{prefix}/item"), &headers, &self.body)?;
        let expected = format!(
            "consumer={} added=bench caller=me client= internal=",
            Workload::consumer(0)
        );
        body(addr, &format!("{prefix}/edited"), &headers, &expected)?;
        refuses(addr)
    }
}

/// Without a key and with a wrong one.
fn refuses(addr: SocketAddr) -> anyhow::Result<()> {
    let item = format!("{}/item", Workload::prefix(0));
    status(addr, &item, &[], 401)?;
    status(addr, &item, &[("apikey", "a wrong key")], 401)
}

fn send(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    let mut request = http::get(format!("http://{addr}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().with_context(|| format!("GET {path}"))
}

fn status(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    wanted: u16,
) -> anyhow::Result<()> {
    let answer = send(addr, path, headers)?;
    if answer.status != wanted {
        let (status, text) = (answer.status, answer.text());
        bail!("GET {path} {headers:?}: {wanted} expected, got {status} {text:?}");
    }
    Ok(())
}

fn body(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    wanted: &str,
) -> anyhow::Result<()> {
    let answer = send(addr, path, headers)?;
    let (status, text) = (answer.status, answer.text());
    if (status, &*text) != (200, wanted) {
        bail!("GET {path} {headers:?}: 200 {wanted:?} expected, got {status} {text:?}");
    }
    Ok(())
}
