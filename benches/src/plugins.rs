//! What each plugin costs: CPU per request of a gateway with it, above that of the plain gateway.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use sallyport_testkit::{free_port, http};
use serde_json::{Value, json};

use crate::measure::{self, Cores};
use crate::process::{Server, cpu};
use crate::workload::{Name, Workload};
use crate::{load, machine, peer};

/// A token of the consumer `bench`, signed with `bench` (HS256).
const TOKEN: &str = "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJpc3MiOiAiYmVuY2gifQ.\
                     jN6-dVBlOZ8sDgS2Qge837G1whLvTwG2ujPnmYzCozQ";
/// The gateway whose plugins are configured for another route than the one that is asked.
const ELSEWHERE: &str = "none here, three on another route";
/// Not measured, and why.
const LEFT_OUT: &str = "Not measured: hmac-auth (its signatures carry the time) and session (its \
                        cookies do).";

/// CPU per request of each plugin above the plain gateway.
///
/// All gateways run beside each other and get load in turns, so that what disturbs one disturbs
/// all. Every request has a key, a password and a token, whether the plugin looks at them or not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these plugins [default: all]
    #[arg(long = "plugin", value_name = "NAME")]
    plugins: Vec<String>,
    /// Measurements of each gateway
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    slices: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=300))]
    slice_seconds: u32,
    /// Client connections, all kept alive
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    connections: u32,
    /// Core on which the gateways run
    #[arg(long, default_value_t = 0)]
    proxy_core: u32,
    /// This executable instead of one that is built with `--profile bench`
    #[arg(long, value_name = "PATH")]
    sallyport: Option<PathBuf>,
}

/// Where log plugins send to, in this process: everything is read and forgotten.
struct Sinks {
    tcp: u16,
    udp: u16,
    syslog: PathBuf,
}

impl Sinks {
    /// Threads that end with the process: they wait on sockets that nobody else closes.
    fn start(dir: &Path) -> anyhow::Result<Sinks> {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let syslog = dir.join("syslog");
        let daemon = UnixDatagram::bind(&syslog)?;
        let sinks = Sinks {
            tcp: tcp.local_addr()?.port(),
            udp: udp.local_addr()?.port(),
            syslog,
        };
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                std::thread::spawn(
                    move || {
                        while matches!(stream.read(&mut [0; 65_536]), Ok(1..)) {}
                    },
                );
            }
        });
        std::thread::spawn(move || while udp.recv(&mut [0; 65_536]).is_ok() {});
        std::thread::spawn(move || while daemon.recv(&mut [0; 65_536]).is_ok() {});
        Ok(sinks)
    }

    /// Each plugin with what it needs beside it, in the order they run.
    fn cases(&self, backend: u16) -> Vec<(&'static str, Value)> {
        let one = |name: &str, config: Value| json!([{"name": name, "config": config}]);
        let with_key = |name: &str, config: Value| json!([{"name": "key-auth"}, {"name": name, "config": config}]);
        let url = format!("http://127.0.0.1:{backend}/");
        let batch = json!({"max_batch_size": 200});
        vec![
            // three of the dearest, on a route that gets no requests
            (ELSEWHERE, json!([])),
            ("correlation-id", one("correlation-id", json!({}))),
            (
                "zipkin",
                one(
                    "zipkin",
                    json!({"http_endpoint": url, "sample_ratio": 1, "queue": batch}),
                ),
            ),
            ("bot-detection", one("bot-detection", json!({}))),
            ("cors", one("cors", json!({}))),
            ("jwt", one("jwt", json!({"uri_param_names": ["jwt"]}))),
            ("key-auth", one("key-auth", json!({}))),
            ("basic-auth", one("basic-auth", json!({}))),
            (
                "ip-restriction",
                one("ip-restriction", json!({"allow": ["127.0.0.0/8"]})),
            ),
            (
                "request-size-limiting",
                one("request-size-limiting", json!({})),
            ),
            (
                "acl (with key-auth)",
                with_key("acl", json!({"allow": ["staff"]})),
            ),
            (
                "rate-limiting",
                one(
                    "rate-limiting",
                    json!({"minute": 1_000_000_000, "policy": "local"}),
                ),
            ),
            (
                "response-ratelimiting",
                one(
                    "response-ratelimiting",
                    json!({"limits": {"a": {"minute": 1_000_000_000}}, "policy": "local"}),
                ),
            ),
            (
                "request-transformer",
                one(
                    "request-transformer",
                    json!({"add": {"headers": ["x-a:b"]}, "remove": {"headers": ["apikey"]}}),
                ),
            ),
            (
                "response-transformer",
                one(
                    "response-transformer",
                    json!({"add": {"headers": ["x-a:b"]}}),
                ),
            ),
            (
                "proxy-cache (a hit)",
                one(
                    "proxy-cache",
                    json!({"strategy": "memory", "content_type": ["text/plain"]}),
                ),
            ),
            (
                "opentelemetry",
                one(
                    "opentelemetry",
                    json!({"traces_endpoint": url, "sampling_rate": 1}),
                ),
            ),
            (
                "prometheus",
                one(
                    "prometheus",
                    json!({"status_code_metrics": true,
                "latency_metrics": true, "bandwidth_metrics": true}),
                ),
            ),
            (
                "http-log",
                one("http-log", json!({"http_endpoint": url, "queue": batch})),
            ),
            (
                "statsd",
                one(
                    "statsd",
                    json!({"host": "127.0.0.1", "port": self.udp,
                "udp_packet_size": 1400, "queue": batch}),
                ),
            ),
            ("file-log", one("file-log", json!({"path": "/dev/null"}))),
            (
                "udp-log",
                one("udp-log", json!({"host": "127.0.0.1", "port": self.udp})),
            ),
            (
                "tcp-log",
                one("tcp-log", json!({"host": "127.0.0.1", "port": self.tcp})),
            ),
            ("syslog", one("syslog", json!({}))),
            (
                "redirect (answers itself)",
                one("redirect", json!({"location": url, "status_code": 307})),
            ),
            (
                "request-termination (answers itself)",
                one("request-termination", json!({"status_code": 200})),
            ),
        ]
    }
}

struct Running {
    label: &'static str,
    port: u16,
    server: Server,
    /// CPU per request of each slice, microseconds.
    slices: Vec<f64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    machine::need_programs(&[])?;
    let executable = match &args.sallyport {
        Some(path) => std::path::absolute(path).context("--sallyport")?,
        None => peer::build()?,
    };
    let cores = crate::cores(args.proxy_core, None)?;
    let temp = tempfile::Builder::new()
        .prefix("sallyport-bench-")
        .tempdir()?;
    let dir = temp.path();
    let sinks = Sinks::start(dir)?;
    let backend_port = free_port();
    let workload = Workload::new(Name::Plain, 1, 1_024);
    let backend = peer::nginx::backend(dir, backend_port, &workload)?;
    let _backend = measure::start(&cores.load, backend, dir, backend_port).context("backend")?;
    let mut cases = sinks.cases(backend_port);
    if !args.plugins.is_empty() {
        let name = |label: &str| label.split(' ').next().unwrap_or_default().to_owned();
        let unknown = args
            .plugins
            .iter()
            .find(|wanted| !cases.iter().any(|(label, _)| name(label) == **wanted));
        if let Some(unknown) = unknown {
            bail!("{unknown} is not measured; {LEFT_OUT}");
        }
        cases.retain(|(label, _)| args.plugins.contains(&name(label)));
    }
    cases.insert(0, ("none", json!([])));
    let mut running = Vec::new();
    for (label, plugins) in &cases {
        let place = dir.join(running.len().to_string());
        let others = match *label {
            ELSEWHERE => json!([{"name": "key-auth"}, {"name": "http-log", "config":
                {"http_endpoint": format!("http://127.0.0.1:{backend_port}/")}},
                {"name": "rate-limiting", "config": {"minute": 1, "policy": "local"}}]),
            _ => json!([]),
        };
        let on = (plugins, &others);
        let gateway = start(&executable, &cores, &place, on, backend_port, &sinks);
        let (port, server) = gateway.with_context(|| format!("starting with {label}"))?;
        running.push(Running {
            label,
            port,
            server,
            slices: Vec::new(),
        });
    }
    let script = script();
    for slice in 0..=args.slices {
        // there and back again: a machine that gets slower or faster then favours nobody
        let mut turns: Vec<usize> = (0..running.len()).collect();
        if slice % 2 == 1 {
            turns.reverse();
        }
        for at in turns {
            let gateway = &mut running[at];
            let before = cpu(gateway.server.0.pid())?;
            let counts = load::run(&load::Run {
                workload: Name::Plain,
                cores: &cores.load,
                connections: args.connections,
                seconds: if slice == 0 { 1 } else { args.slice_seconds },
                dir,
                script: &script,
                port: gateway.port,
            });
            let counts = counts.with_context(|| format!("load on {}", gateway.label))?;
            let used = cpu(gateway.server.0.pid())?.since(before).total();
            let cpu_us = used.as_secs_f64() * 1e6 / counts.requests as f64;
            eprintln!("{slice}/{} {}: {cpu_us:.2} µs", args.slices, gateway.label);
            if slice > 0 {
                gateway.slices.push(cpu_us); // the first one warms up
            }
        }
    }
    println!("{}\n{}", machine::describe(None, &[])?, report(&running));
    Ok(ExitCode::SUCCESS)
}

fn report(running: &[Running]) -> String {
    let plain = &running[0].slices;
    let mut text = String::from(
        "| plugin | CPU per request, µs | above the plain gateway, µs (spread) |\n|---|--:|--:|\n",
    );
    for gateway in running {
        let median = measure::median(gateway.slices.iter().copied());
        // of the same turn, as the machine's own speed moves
        let above: Vec<f64> = gateway
            .slices
            .iter()
            .zip(plain)
            .map(|(a, b)| a - b)
            .collect();
        let least = above.iter().copied().fold(f64::INFINITY, f64::min);
        let most = above.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let above = measure::median(above);
        let label = gateway.label;
        text.push_str(&match label {
            "none" => format!("| {label} | {median:.2} | |\n"),
            _ => format!("| {label} | {median:.2} | {above:.2} ({least:.2} to {most:.2}) |\n"),
        });
    }
    text.push_str(&format!("\n{LEFT_OUT}\n"));
    text
}

/// Every request is the same.
fn script() -> String {
    let mut script = format!(
        "wrk.path = \"/item?jwt={TOKEN}\"\nwrk.headers[\"apikey\"] = \"bench\"\n\
         wrk.headers[\"Authorization\"] = \"Basic YmVuY2g6YmVuY2g=\"\n"
    );
    script.push_str(load::wrk::REPORT);
    script
}

fn start(
    executable: &Path,
    cores: &Cores,
    dir: &Path,
    (plugins, elsewhere): (&Value, &Value),
    backend: u16,
    sinks: &Sinks,
) -> anyhow::Result<(u16, Server)> {
    fs::create_dir(dir).with_context(|| format!("could not make {dir:?}"))?;
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "backend", "url": format!("http://127.0.0.1:{backend}"),
            "routes": [{"name": "all", "paths": ["/"]},
                {"name": "other", "paths": ["/other"], "plugins": elsewhere}]}],
        "consumers": [{"username": "bench", "acls": [{"group": "staff"}],
            "keyauth_credentials": [{"key": "bench"}],
            "basicauth_credentials": [{"username": "bench", "password": "bench"}],
            "jwt_secrets": [{"key": "bench", "secret": "bench"}]}],
        "plugins": plugins,
    });
    let port = free_port();
    let conf = format!(
        "database = off\ndeclarative_config = {}\nprefix = {}\n\
         proxy_listen = 127.0.0.1:{port}\nadmin_listen = off\nstatus_listen = off\n\
         nginx_main_worker_processes = 1\nproxy_access_log = off\n\
         tracing_instrumentations = all\nsallyport_syslog_socket = {}\n",
        dir.join("kong.yml").display(),
        dir.display(),
        sinks.syslog.display(),
    );
    fs::write(dir.join("kong.yml"), document.to_string())?;
    fs::write(dir.join("kong.conf"), conf)?;
    let command = vec![
        executable.into(),
        "gateway".into(),
        "-c".into(),
        dir.join("kong.conf").into(),
    ];
    let server = measure::start(&cores.proxy, command, dir, port)?;
    let url = format!("http://127.0.0.1:{port}/item?jwt={TOKEN}");
    let answer = http::get(url)
        .header("apikey", "bench")
        .header("Authorization", "Basic YmVuY2g6YmVuY2g=")
        .timeout(Duration::from_secs(20))
        .send()?;
    if !matches!(answer.status, 200 | 307) {
        bail!("it answers {}: {}", answer.status, answer.text());
    }
    Ok((port, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who adds a plugin adds it here, or says why not.
    #[test]
    fn every_plugin_is_measured_or_left_out_by_name() {
        let sinks = Sinks {
            tcp: 1,
            udp: 1,
            syslog: PathBuf::new(),
        };
        let cases = sinks.cases(1);
        for plugin in sallyport_plugins::ALL {
            let name = plugin.name();
            let measured = cases
                .iter()
                .any(|(label, _)| label.split(' ').next() == Some(name));
            assert!(measured || LEFT_OUT.contains(name), "{name}");
        }
    }
}
