//! HAProxy with one thread: maps for keys and routes, a stick table for the limit.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;

use anyhow::Context;

use super::{Peer, Plan};
use crate::workload::{CONSUMERS, LIMIT_PER_MINUTE, Name, Workload};

/// HAProxy of this system.
pub(crate) struct Haproxy {
    pub(crate) label: String,
}

impl Peer for Haproxy {
    fn label(&self) -> &str {
        &self.label
    }

    fn version(&self) -> anyhow::Result<String> {
        let line = crate::machine::first_line("haproxy", "-v")?;
        let words: Vec<_> = line.split(' ').take(3).collect();
        Ok(words.join(" "))
    }

    fn prepare(&self, plan: &Plan<'_>) -> anyhow::Result<Vec<OsString>> {
        let conf = plan.dir.join("haproxy.cfg");
        let write = |name: &str, text: &str| {
            let path = plan.dir.join(name);
            fs::write(&path, text).with_context(|| format!("could not write {path:?}"))
        };
        let (mut consumers, mut routes) = (String::new(), String::new());
        for number in 0..CONSUMERS {
            let (key, consumer) = (Workload::key(number), Workload::consumer(number));
            _ = writeln!(consumers, "{key} {consumer}");
        }
        for route in 0..plan.workload.routes {
            _ = writeln!(routes, "{}/ {route}", Workload::prefix(route));
        }
        write("consumers.map", &consumers)?;
        write("routes.map", &routes)?;
        let bind = match (plan.workload.name, &plan.tls) {
            (Name::Http2, Some(tls)) => format!(" ssl crt {} alpn h2", tls.both.display()),
            (_, Some(tls)) => format!(" ssl crt {} alpn http/1.1", tls.both.display()),
            (_, None) => String::new(),
        };
        let work = match plan.workload.name {
            Name::Plain | Name::Tls | Name::Handshakes | Name::Http2 => String::new(),
            Name::Gateway => format!("{}{GATEWAY_EDITS}", keys(plan)),
            Name::Transform => format!("{}{TRANSFORM_EDITS}", keys(plan)),
        };
        let Plan { port, backend, .. } = plan;
        let text = format!(
            r"global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout http-keep-alive 75s
  option http-keep-alive
  http-reuse always
frontend clients
  bind 127.0.0.1:{port}{bind}{work}
  default_backend backend
backend counts
  stick-table type string len 32 size 100k expire 2m store http_req_rate(60s)
backend backend
  server backend 127.0.0.1:{backend}
"
        );
        write("haproxy.cfg", &text)?;
        Ok(vec![
            "haproxy".into(),
            "-db".into(),
            "-f".into(),
            conf.into(),
        ])
    }
}

/// Who calls, how often, and along which route.
fn keys(plan: &Plan<'_>) -> String {
    let dir = plan.dir.display();
    format!(
        r"
  http-request set-var(txn.consumer) req.hdr(apikey),map_str({dir}/consumers.map)
  http-request return status 401 unless {{ var(txn.consumer) -m found }}
  http-request track-sc0 var(txn.consumer) table counts
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {LIMIT_PER_MINUTE} }}
  http-request set-var(txn.route) path,map_beg({dir}/routes.map)
  http-request return status 404 unless {{ var(txn.route) -m found }}
  http-request set-header X-Forwarded-Path %[path]
  http-request set-path /%[path,field(3,/,0)]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Consumer-Id %[var(txn.consumer)]
  http-request set-header X-Consumer-Username %[var(txn.consumer)]
  http-request set-header X-Credential-Identifier %[var(txn.consumer)]"
    )
}

/// As far as it has them, what the gateway's defaults add.
const GATEWAY_EDITS: &str = r#"
  unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid
  unique-id-header X-Request-Id
  http-response set-header Via "1.1 haproxy"
  http-response set-header X-Request-Id %[unique-id]
  http-response set-header RateLimit-Limit 1000000000
  http-response set-header X-RateLimit-Limit-Minute 1000000000
  http-response set-header RateLimit-Remaining %[sc_http_req_rate(0)]"#;

const TRANSFORM_EDITS: &str = r"
  http-request set-header X-Caller %[req.hdr(x-client)]
  http-request del-header X-Client
  http-request del-header X-Internal
  http-request set-header X-Gateway bench
  http-response set-header RateLimit-Limit 1000000000
  http-response set-header X-RateLimit-Limit-Minute 1000000000
  http-response set-header RateLimit-Remaining %[sc_http_req_rate(0)]";
