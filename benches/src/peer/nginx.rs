//! nginx, as the proxy that ratios refer to, and as everybody's backend.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::{Peer, Plan};
use crate::workload::{CONSUMERS, LIMIT_PER_MINUTE, Name, Workload};

/// Headers about the client that Kong's own nginx sends to upstreams.
pub(super) const FORWARDED: &str = r"
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $host;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Forwarded-Path $request_uri;";

/// What the gateway's defaults and key-auth add, as far as nginx has it: the request's id, the
/// consumer, the latencies. What is left of the limit it does not know.
const GATEWAY_EDITS: &str = r#"
    proxy_set_header X-Request-Id $request_id;
    proxy_set_header X-Consumer-Id $consumer;
    proxy_set_header X-Consumer-Username $consumer;
    proxy_set_header X-Credential-Identifier $consumer;
    add_header Via "1.1 nginx";
    add_header X-Request-Id $request_id;
    add_header X-Upstream-Latency $upstream_response_time;
    add_header X-Proxy-Latency $request_time;
    add_header RateLimit-Limit 1000000000;
    add_header X-RateLimit-Limit-Minute 1000000000;"#;

/// What `request-transformer` does in the workload `transform`.
const TRANSFORM_EDITS: &str = r#"
    proxy_set_header X-Caller $http_x_client;
    proxy_set_header X-Client "";
    proxy_set_header X-Internal "";
    proxy_set_header X-Gateway bench;"#;

/// nginx as a proxy.
pub(crate) struct Nginx {
    pub(crate) label: String,
    /// Whether it sends the headers about the client in the workload `plain` too.
    pub(crate) forwarded: bool,
}

impl Peer for Nginx {
    fn label(&self) -> &str {
        &self.label
    }

    fn version(&self) -> anyhow::Result<String> {
        let line = crate::machine::first_line("nginx", "-v")?;
        Ok(line.trim_start_matches("nginx version: ").to_owned())
    }

    fn prepare(&self, plan: &Plan<'_>) -> anyhow::Result<Vec<OsString>> {
        let http = match plan.workload.name {
            Name::Plain | Name::Tls | Name::Handshakes | Name::Http2 => self.plain(plan),
            Name::Gateway => with_keys(plan, GATEWAY_EDITS),
            Name::Transform => with_keys(plan, &format!("{GATEWAY_EDITS}{TRANSFORM_EDITS}")),
        };
        command(plan.dir, "nginx", "", &http)
    }
}

impl Nginx {
    fn plain(&self, plan: &Plan<'_>) -> String {
        let forwarded = if self.forwarded { FORWARDED } else { "" };
        let (listen, keepalive) = (listen(plan), upstream(plan.backend));
        format!(
            r#"{keepalive}
  server {{
    {listen}
    proxy_http_version 1.1;
    proxy_set_header Connection "";{forwarded}
    location / {{ proxy_pass http://backend; }}
  }}"#
        )
    }
}

fn with_keys(plan: &Plan<'_>, edits: &str) -> String {
    let Plan {
        workload, backend, ..
    } = plan;
    let listen = listen(plan);
    let mut http = upstream(*backend);
    http.push_str("\n  map $http_apikey $consumer {\n    default \"\";");
    for number in 0..CONSUMERS {
        let (key, consumer) = (Workload::key(number), Workload::consumer(number));
        _ = write!(http, "\n    {key} {consumer};");
    }
    _ = write!(
        http,
        r#"
  }}
  limit_req_zone $consumer zone=limit:10m rate={LIMIT_PER_MINUTE}r/m;
  limit_req_status 429;
  server {{
    {listen}
    if ($consumer = "") {{ return 401; }}
    limit_req zone=limit burst=1000000 nodelay;
    proxy_http_version 1.1;
    proxy_set_header Connection "";{FORWARDED}{edits}
    location / {{ return 404; }}"#
    );
    for route in 0..workload.routes {
        let prefix = Workload::prefix(route);
        _ = write!(
            http,
            "\n    location {prefix}/ {{ proxy_pass http://backend/; }}"
        );
    }
    http.push_str("\n  }");
    http
}

/// The command of everybody's backend: a fixed body at every path, and at `/seen` what arrived.
pub(crate) fn backend(dir: &Path, port: u16, workload: &Workload) -> anyhow::Result<Vec<OsString>> {
    let body = &workload.body;
    let seen = "consumer=$http_x_consumer_username \
                forwarded=$http_x_forwarded_for/$http_x_forwarded_proto";
    let edited = "consumer=$http_x_consumer_username added=$http_x_gateway \
                  caller=$http_x_caller client=$http_x_client internal=$http_x_internal";
    let http = format!(
        r#"  server {{
    listen 127.0.0.1:{port};
    default_type text/plain;
    location / {{ return 200 "{body}"; }}
    location = /seen {{ return 200 "{seen}"; }}
    location = /edited {{ return 200 "{edited}"; }}
  }}"#
    );
    command(dir, "backend", "", &http)
}

/// Where it listens, and with which certificate.
pub(super) fn listen(plan: &Plan<'_>) -> String {
    let port = plan.port;
    let Some(tls) = &plan.tls else {
        return format!("listen 127.0.0.1:{port};");
    };
    let http2 = if plan.workload.name == Name::Http2 {
        " http2"
    } else {
        ""
    };
    let (cert, key) = (tls.cert.display(), tls.key.display());
    format!(
        "listen 127.0.0.1:{port} ssl{http2};
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;"
    )
}

pub(super) fn upstream(backend: u16) -> String {
    format!(
        r"  upstream backend {{
    server 127.0.0.1:{backend};
    keepalive 256;
    keepalive_requests 1000000000;
  }}"
    )
}

/// Writes the configuration `<name>.conf` around `http`, with `modules` before everything else,
/// and returns the command that runs it.
pub(super) fn command(
    dir: &Path,
    name: &str,
    modules: &str,
    http: &str,
) -> anyhow::Result<Vec<OsString>> {
    let temp = dir.join(name);
    fs::create_dir(&temp).with_context(|| format!("could not make {temp:?}"))?;
    let conf = dir.join(format!("{name}.conf"));
    // As root, workers would change to a user who may not enter the directory.
    let user = if is_root() { "user root;\n" } else { "" };
    let temp = temp.display();
    let text = format!(
        r"{modules}{user}daemon off;
worker_processes 1;
pid {temp}/pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {temp}/client;
  proxy_temp_path {temp}/proxy;
  fastcgi_temp_path {temp}/fastcgi;
  uwsgi_temp_path {temp}/uwsgi;
  scgi_temp_path {temp}/scgi;
{http}
}}
"
    );
    fs::write(&conf, text).with_context(|| format!("could not write {conf:?}"))?;
    Ok(vec![
        "nginx".into(),
        "-c".into(),
        conf.into(),
        "-e".into(),
        "stderr".into(),
    ])
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
