//! Spans and metrics through the built gateway, read by foreign decoders.

use std::path::PathBuf;

use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, Program, eventually, foreign, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Alone, has_all, soon, write};

/// Writes what it gets to a file, a line of JSON each: spans (OTLP read by opentelemetry-proto,
/// Zipkin's JSON) and StatsD datagrams. Prints its ports.
const COLLECTOR: &str = r#"
import json, socket, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
lock = threading.Lock()
def keep(kind, value):
    with lock, open(sys.argv[1], "a") as out:
        out.write(json.dumps({"kind": kind, "value": value}) + "\n")
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/logs":
            request = ExportLogsServiceRequest()
            request.ParseFromString(body)
            keep("logs", MessageToDict(request))
        elif self.headers["Content-Type"] == "application/x-protobuf":
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            keep("otlp", MessageToDict(request))
        else:
            keep("zipkin", json.loads(body))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 0))
def receive():
    while True:
        keep("statsd", datagrams.recv(65536).decode())
threading.Thread(target=receive, daemon=True).start()
server = HTTPServer(("127.0.0.1", 0), Handler)
print("ports", server.server_address[1], datagrams.getsockname()[1], flush=True)
server.serve_forever()
"#;

struct Collector {
    _program: Program,
    file: PathBuf,
    _dir: TempDir,
    http: u16,
    udp: u16,
}

impl Collector {
    /// `None` where the decoder is not installed.
    fn start() -> Option<Collector> {
        let python = foreign("python3", "Debian package python3")?;
        let probe = Program::new(&python).args(["-c", "import opentelemetry.proto"]);
        if !probe.run(soon()).status.success() {
            // says so, or fails where nothing may be skipped
            foreign("opentelemetry-proto", "PyPI package opentelemetry-proto");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seen");
        let program = Program::new(&python)
            .args(["-c", COLLECTOR])
            .arg(&file)
            .start();
        let ports = program.wait_for_line(r"ports (\d+) (\d+)", soon());
        let port = |at: usize| ports.groups[at].parse().unwrap();
        Some(Collector {
            _program: program,
            file,
            _dir: dir,
            http: port(0),
            udp: port(1),
        })
    }

    fn seen(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|seen| seen["kind"] == kind)
            .map(|mut seen| seen["value"].take())
            .collect()
    }

    /// Waits for this many spans of a kind.
    #[track_caller]
    fn spans(&self, kind: &str, count: usize) -> Vec<Value> {
        let all = || -> Vec<Value> {
            let seen = self.seen(kind);
            let list = |request: &Value| match kind {
                "otlp" => request["resourceSpans"][0]["scopeSpans"][0]["spans"].clone(),
                _ => request.clone(),
            };
            let lists = seen.iter().map(list);
            lists
                .flat_map(|list| list.as_array().unwrap().clone())
                .collect()
        };
        eventually(&format!("{count} spans of {kind}"), soon(), || {
            all().len() >= count
        });
        let all = all();
        assert_eq!(all.len(), count, "{all:?}");
        all
    }
}

fn gateway(echo: &Echo, plugins: &Value, conf: &str) -> Alone {
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "orders", "url": echo.url(),
            "routes": [{"name": "all", "paths": ["/v1"]}]}],
        "plugins": plugins,
    });
    Alone::start(&document.to_string(), conf)
}

fn attribute<'a>(span: &'a Value, name: &str) -> &'a Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|it| it["key"] == name);
    &found.unwrap_or_else(|| panic!("no {name} in {span}"))["value"]
}

/// Bytes as protobuf's JSON shows them, in hex.
fn hex(base64: &Value) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let (mut held, mut out) = (0, String::new());
    for byte in base64.as_str().unwrap().bytes().filter(|it| *it != b'=') {
        let value = DIGITS.iter().position(|it| *it == byte).unwrap() as u32;
        bits = bits << 6 | value;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push_str(&format!("{:02x}", bits >> held & 0xff));
        }
    }
    out
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn an_opentelemetry_decoder_reads_the_spans() {
    let Some(collector) = Collector::start() else {
        return;
    };
    let echo = Echo::start();
    let endpoint = format!("http://127.0.0.1:{}/v1/traces", collector.http);
    let gateway = gateway(
        &echo,
        &json!([
            {"name": "opentelemetry", "config": {"traces_endpoint": endpoint,
                "resource_attributes": {"service.name": "edge", "zone": "a"},
                "queue": {"max_coalescing_delay": 0.2}}},
            {"name": "correlation-id"},
        ]),
        "tracing_instrumentations = all\ntracing_sampling_rate = 1",
    );
    let caller = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let asked = gateway.get("/v1/a?b=c").header("traceparent", &caller);
    assert_eq!(asked.send().unwrap().status, 200);
    let spans = collector.spans("otlp", 6);
    let named = |name: &str| {
        let found = spans.iter().find(|span| span["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {spans:?}"))
    };
    let root = named("kong");
    assert_eq!(hex(&root["traceId"]), TRACE);
    assert_eq!(hex(&root["parentSpanId"]), "00f067aa0ba902b7");
    assert_eq!(root["kind"], "SPAN_KIND_SERVER");
    assert_eq!(attribute(root, "http.method")["stringValue"], "GET");
    assert_eq!(attribute(root, "http.status_code")["intValue"], "200");
    assert_eq!(attribute(root, "http.route")["stringValue"], "/v1");
    let url = attribute(root, "http.url")["stringValue"].as_str().unwrap();
    assert!(url.ends_with("/v1/a?b=c"), "{url}");
    for name in [
        "kong.router",
        "kong.access.plugin.correlation-id",
        "kong.access.plugin.opentelemetry",
        "kong.dns",
        "kong.balancer",
    ] {
        let span = named(name);
        assert_eq!(span["parentSpanId"], root["spanId"], "{name}");
        assert_eq!(span["traceId"], root["traceId"]);
        let time = |span: &Value, of: &str| span[of].as_str().unwrap().parse::<u64>().unwrap();
        let (start, end) = ("startTimeUnixNano", "endTimeUnixNano");
        assert!(time(span, start) >= time(root, start), "{name}: {spans:?}");
        assert!(time(span, end) >= time(span, start), "{name}: {spans:?}");
    }
    // what the upstream got names the try's span
    let sent = echo.last().unwrap();
    let balancer = hex(&named("kong.balancer")["spanId"]);
    let parent = sent.headers.get("traceparent").unwrap();
    assert_eq!(parent, format!("00-{TRACE}-{balancer}-01"));
    let resource = &collector.seen("otlp")[0]["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name")["stringValue"], "edge");
    assert_eq!(attribute(resource, "zone")["stringValue"], "a");
    // a caller that wants nothing kept is obeyed
    let asked = gateway
        .get("/v1")
        .header("traceparent", caller.replace("-01", "-00"));
    assert_eq!(asked.send().unwrap().status, 200);
    drop(gateway);
    collector.spans("otlp", 6);
}

#[test]
fn the_log_goes_to_a_collector_with_the_traces_of_requests() {
    let Some(collector) = Collector::start() else {
        return;
    };
    let gone = free_port();
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "gone", "url": format!("http://127.0.0.1:{gone}"), "retries": 0,
            "routes": [{"name": "all", "paths": ["/v1"]}]}],
        "plugins": [{"name": "opentelemetry", "config": {
            "logs_endpoint": format!("http://127.0.0.1:{}/v1/logs", collector.http),
            "queue": {"max_coalescing_delay": 0.1}}}],
    });
    let gateway = Alone::start(&document.to_string(), "");
    let caller = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let asked = gateway.get("/v1/a").header("traceparent", &caller);
    let answer = asked.send().unwrap();
    assert_eq!(answer.status, 502);
    let lines = || -> Vec<Value> {
        let seen = collector.seen("logs");
        let records = seen.iter().map(|it| {
            let service = attribute(&it["resourceLogs"][0]["resource"], "service.name");
            assert_eq!(service["stringValue"], "kong");
            it["resourceLogs"][0]["scopeLogs"][0]["logRecords"].clone()
        });
        records
            .flat_map(|it| it.as_array().unwrap().clone())
            .collect()
    };
    let said = |line: &&Value| line["body"]["stringValue"] == "request failed";
    eventually("the line arrives", soon(), || {
        lines().iter().any(|it| said(&it))
    });
    let lines = lines();
    let line = lines.iter().find(said).unwrap();
    assert_eq!(line["severityText"], "ERR");
    assert_eq!(line["severityNumber"], "SEVERITY_NUMBER_ERROR");
    assert_eq!(hex(&line["traceId"]), TRACE);
    let id = answer.header("x-kong-request-id").unwrap();
    assert_eq!(attribute(line, "request.id")["stringValue"], id);
    assert_eq!(attribute(line, "fault")["stringValue"], "upstream");
    assert!(collector.seen("otlp").is_empty());
}

#[test]
fn zipkin_and_statsd_get_what_they_expect() {
    let Some(collector) = Collector::start() else {
        return;
    };
    let echo = Echo::start();
    let endpoint = format!("http://127.0.0.1:{}/api/v2/spans", collector.http);
    let gateway = gateway(
        &echo,
        &json!([
            {"name": "zipkin", "config": {"http_endpoint": endpoint, "sample_ratio": 1,
                "queue": {"max_batch_size": 3, "max_coalescing_delay": 0.2}}},
            {"name": "statsd", "config": {"host": "127.0.0.1", "port": collector.udp,
                "udp_packet_size": 1400}},
        ]),
        "",
    );
    assert_eq!(gateway.get("/v1/a").send().unwrap().status, 200);
    let spans = collector.spans("zipkin", 3);
    let request = spans.iter().find(|span| span["kind"] == "SERVER").unwrap();
    assert_eq!(request["tags"]["http.path"], "/v1/a");
    assert_eq!(request["tags"]["http.status_code"], "200");
    let proxy = spans.iter().find(|it| it["name"] == "GET (proxy)").unwrap();
    assert_eq!(proxy["parentId"], request["id"]);
    assert_eq!(proxy["tags"]["kong.service_name"], "orders");
    assert_eq!(proxy["remoteEndpoint"]["port"], echo.port());
    let sent = echo.last().unwrap();
    let header = |name: &str| sent.headers.get(name).unwrap();
    assert_eq!(request["traceId"], header("x-b3-traceid"));
    assert_eq!(proxy["id"], header("x-b3-spanid"));
    eventually("the metrics are there", soon(), || {
        !collector.seen("statsd").is_empty()
    });
    let metrics = collector.seen("statsd");
    let metrics = metrics[0].as_str().unwrap();
    has_all(
        metrics,
        &[
            "kong.service.orders.request.count:1|c\n",
            "kong.service.orders.status.200:1|c",
            "kong.service.orders.upstream_latency:",
        ],
    );
}

/// Reads metrics as Prometheus' own client does, and prints the samples of a name.
const PARSER: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families
count = 0
for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    for sample in family.samples:
        count += 1
        if sample.name == "kong_http_requests_total":
            print(sample.labels["service"], sample.labels["code"], sample.value)
        if sample.name == "kong_request_latency_ms_bucket" and sample.labels["le"] == "+Inf":
            print("latencies", sample.value)
print("samples", count)
"#;

#[test]
fn prometheus_reads_the_metrics() {
    let Some(python) = foreign("python3", "Debian package python3") else {
        return;
    };
    let probe = Program::new(&python).args(["-c", "import prometheus_client"]);
    if !probe.run(soon()).status.success() {
        foreign("prometheus-client", "PyPI package prometheus-client");
        return;
    }
    let echo = Echo::start();
    let status = free_port();
    let gateway = gateway(
        &echo,
        &json!([{"name": "prometheus", "config": {"status_code_metrics": true,
            "latency_metrics": true, "bandwidth_metrics": true}}]),
        &format!("status_listen = 127.0.0.1:{status}"),
    );
    for _ in 0..3 {
        assert_eq!(gateway.get("/v1").send().unwrap().status, 200);
    }
    let url = format!("http://127.0.0.1:{status}/metrics");
    let mut text = String::new();
    // a client may have its answer before that is counted
    eventually("all three are counted", soon(), || {
        text = get(&url).send().unwrap().text();
        let counted =
            |line: &str| line.starts_with("kong_http_requests_total") && line.ends_with(" 3");
        text.lines().any(counted)
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics");
    write(&file, text);
    let read = Program::new(&python)
        .args(["-c", PARSER])
        .arg(&file)
        .run(soon())
        .success();
    has_all(
        &read.stdout,
        &["orders 200 3\n", "latencies 3\n", "samples "],
    );
}
