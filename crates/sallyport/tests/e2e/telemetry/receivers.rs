//! Telemetry read by programs that are not ours: OpenTelemetry's decoder, Prometheus, squid on the way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sallyport_testkit::http::get;
use sallyport_testkit::{Deadline, Echo, Program, eventually, foreign, free_port};
use serde_json::Value;
use tempfile::TempDir;

use super::{reporting, requests, to, wait_for_requests};
use crate::forward_proxy::{readable, squid};
use crate::lab::{Control, Gateway, Pair, after_reconnect, sallyport, soon, write};

/// A Python that has opentelemetry-proto.
fn python() -> Option<PathBuf> {
    let python = foreign("python3", "Debian package python3")?;
    let import = "import opentelemetry.proto.collector.metrics.v1.metrics_service_pb2";
    let has = Program::new(&python).args(["-c", import]).run(soon());
    if has.status.success() {
        return Some(python);
    }
    foreign("python3-opentelemetry-proto", "opentelemetry-proto of PyPI")
}

/// The receiver, with what it needs to speak TLS.
struct Collector {
    program: Program,
    port: u16,
    _dir: TempDir,
}

impl Collector {
    #[track_caller]
    fn start(python: &Path, dir: TempDir, tls: &[&Path]) -> Collector {
        write(
            &dir.path().join("collector.py"),
            include_str!("collector.py"),
        );
        let port = free_port();
        let program = Program::new(python)
            .arg(dir.path().join("collector.py"))
            .arg(port.to_string())
            .args(tls)
            .start();
        program.wait_for_line("collector ready", soon());
        Collector {
            program,
            port,
            _dir: dir,
        }
    }

    /// What it has received.
    fn received(&self) -> Vec<Value> {
        let output = self.program.output();
        let lines = output
            .lines()
            .filter_map(|line| line.find('{').map(|at| &line[at..]));
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

/// Data points of a metric in what was taken.
fn points<'a>(received: &'a [Value], metric: &str) -> Vec<&'a Value> {
    let taken = received.iter().filter(|it| it["refused"] == false);
    let all = taken.flat_map(|it| it["points"].as_array().unwrap());
    all.filter(|it| it["metric"] == metric).collect()
}

#[test]
fn opentelemetrys_decoder_reads_what_gateways_send_over_mtls() {
    let Some(python) = python() else { return };
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    // an authority of its own, for the collector and for the gateway to believe
    let ca = sallyport_runtime::certs::LocalCa::create("collectors", 30).unwrap();
    let server = ca.issue_server(&["tp0.example"], 30).unwrap();
    let at = |name: &str, text: &str| {
        let path = dir.path().join(name);
        write(&path, text);
        path
    };
    let trusted = at("ca.crt", &ca.pem().cert);
    let files = [at("tls.crt", &server.cert), at("tls.key", &server.key)];
    let own = tempfile::tempdir().unwrap();
    let pair = Pair::make(own.path());
    control.pin(&pair.cert());
    let tls = [files[0].as_path(), &files[1], &pair.cert];
    let collector = Collector::start(&python, dir, &tls);
    let conf = format!(
        "cluster_telemetry_endpoint = 127.0.0.1:{}/tp/alpha\n\
         cluster_telemetry_server_name = tp0.example\n\
         cluster_ca_cert = {}\n",
        collector.port,
        both(own.path(), &control.ca(), &trusted).display(),
    );
    let gateway = Gateway::start_set(&control, own, &pair, &conf);
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    gateway.wait_for("/orders", 200, soon());
    (0..20).for_each(|_| assert_eq!(gateway.status_of("/orders"), 200));
    let total = |received: &[Value]| -> u64 {
        let points = points(received, "sallyport.upstream.duration");
        points.iter().map(|it| it["count"].as_u64().unwrap()).sum()
    };
    eventually("all requests are received", after_reconnect(), || {
        total(&collector.received()) == echo.count() as u64
    });
    let received = collector.received();
    assert_eq!(received[0]["refused"], true);
    assert_eq!(
        received[0]["batch"], received[1]["batch"],
        "sent again under its number"
    );
    assert_eq!(received[0]["points"], received[1]["points"], "and the same");
    let batches: BTreeSet<&str> = received
        .iter()
        .map(|it| it["batch"].as_str().unwrap())
        .collect();
    assert_eq!(batches.len(), received.len() - 1);
    for one in &received {
        assert_eq!(one["path"], "/tp/alpha/v1/metrics");
        assert_eq!(one["type"], "application/x-protobuf");
        assert_eq!(one["host"], "tp0.example");
        assert_eq!(
            (&one["has_certificate"], &one["unknown_fields"]),
            (&true.into(), &false.into())
        );
        assert_eq!(one["resource"][0]["service.name"], "sallyport.gateway");
        for point in one["points"].as_array().unwrap() {
            assert_eq!(
                (&point["delta"], &point["ordered"]),
                (&true.into(), &true.into()),
                "{point}"
            );
            let class = point["attributes"]["sallyport.status_class"]
                .as_str()
                .unwrap();
            assert!(["2xx", "4xx", "5xx"].contains(&class));
        }
    }
    for point in points(&received, "sallyport.request.duration") {
        assert_eq!((&point["unit"], &point["scale"]), (&"s".into(), &5.into()));
        assert_eq!(point["in_buckets"], point["count"]);
        let sum = point["sum"].as_f64().unwrap();
        let most = point["below"].as_f64().unwrap() * point["count"].as_f64().unwrap();
        assert!(sum > 0.0 && sum <= most, "{point}");
    }
    for point in points(&received, "sallyport.response.size") {
        assert_eq!(
            (&point["unit"], &point["monotonic"]),
            (&"By".into(), &true.into())
        );
        assert!(point["value"].as_u64().unwrap() > 0);
    }
}

/// Two authorities in one file.
fn both(dir: &Path, one: &Path, other: &Path) -> PathBuf {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let path = dir.join("both.crt");
    write(&path, read(one) + &read(other));
    path
}

#[test]
fn opentelemetrys_decoder_reads_what_the_control_plane_pushes_on() {
    let Some(python) = python() else { return };
    let collector = Collector::start(&python, tempfile::tempdir().unwrap(), &[]);
    let settings = format!(
        "[[otlp]]\nurl = \"http://127.0.0.1:{}/v1/metrics\"\ninterval_seconds = 1\n",
        collector.port
    );
    let control = Control::start_with_telemetry(&settings);
    let gateway = reporting(&control, "");
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    gateway.wait_for("/orders", 200, soon());
    (0..20).for_each(|_| assert_eq!(gateway.status_of("/orders"), 200));
    eventually("all requests are received", after_reconnect(), || {
        let received = collector.received();
        let points = points(&received, "sallyport.upstream.duration");
        let total: u64 = points.iter().map(|it| it["count"].as_u64().unwrap()).sum();
        total == echo.count() as u64
    });
    let received = collector.received();
    assert_eq!(
        received[0]["batch"], received[1]["batch"],
        "the first was answered with 503"
    );
    assert_eq!(
        received[0]["resource"][0]["service.instance.id"],
        control.id.as_str()
    );
}

#[test]
fn prometheus_takes_what_the_control_plane_writes() {
    let Some(prometheus) = foreign("prometheus", "Debian package prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("prometheus.yml"), "global: {}\n");
    let port = free_port();
    let start = || {
        let program = Program::new(&prometheus)
            .arg("--web.enable-remote-write-receiver")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .dir(dir.path())
            .start();
        program.wait_for_line(
            "Server is ready to receive web requests",
            Deadline::secs(60),
        );
        program
    };
    let mut server = start();
    let settings = format!(
        "[[remote_write]]\nurl = \"http://127.0.0.1:{port}/api/v1/write\"\ninterval_seconds = 1\n\
         instance = \"control-1\"\n"
    );
    let control = Control::start_with_telemetry(&settings);
    let gateway = reporting(&control, "");
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    gateway.wait_for("/orders", 200, soon());
    (0..20).for_each(|_| assert_eq!(gateway.status_of("/orders"), 200));
    let value = |expression: &str| -> Option<f64> {
        let encoded: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let answer = get(format!(
            "http://127.0.0.1:{port}/api/v1/query?query={encoded}"
        ))
        .send();
        let answer = answer.ok()?.json();
        answer["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()
    };
    let labels = "control_plane=\"default\",service=\"orders\",route=\"orders\",\
                  status_class=\"2xx\",upstream=\"127.0.0.1\",job=\"sallyport\",instance=\"control-1\"";
    let counted = format!("sallyport_requests_total{{{labels}}}");
    eventually("prometheus has every request", after_reconnect(), || {
        value(&counted) == Some(echo.count() as f64)
    });
    let buckets = format!("sallyport_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}}");
    assert_eq!(value(&buckets), Some(echo.count() as f64));
    // the quantile of the buckets is near that of the sketch
    let of_buckets = value(
        "histogram_quantile(0.5, sum by (le) (sallyport_request_duration_seconds_bucket{route=\"orders\"}))",
    );
    assert!(of_buckets.unwrap() > 0.0 && of_buckets.unwrap() < 32.0);
    // while it is away, counting goes on, and it misses nothing
    server.kill9();
    control
        .program
        .wait_for_line("an export of telemetry is not taken", soon());
    (0..20).for_each(|_| assert_eq!(gateway.status_of("/orders"), 200));
    wait_for_requests(&control, "filter[status_class]=2xx", echo.count() as u64);
    server = start();
    control
        .program
        .wait_for_line("an export of telemetry is taken again", Deadline::secs(120));
    eventually("prometheus has the rest", Deadline::secs(60), || {
        value(&counted) == Some(echo.count() as f64)
    });
    assert!(server.is_running());
    assert!(
        !server.output().contains("out of order"),
        "{}",
        server.output()
    );
}

#[test]
fn telemetry_goes_through_squid() {
    let Some(program) = foreign("squid", "Debian package squid") else {
        return;
    };
    let dir = readable();
    let port = free_port();
    let mut proxy = squid(&program, dir.path(), port);
    let control = Control::start();
    let own = tempfile::tempdir().unwrap();
    let pair = Pair::make(own.path());
    control.pin(&pair.cert());
    let conf = format!(
        "{}cluster_use_proxy = on\nproxy_server = http://gate:p%40ss@127.0.0.1:{port}\n",
        to(&control)
    );
    let gateway = Gateway::start_set(&control, own, &pair, &conf);
    assert_eq!(gateway.status_of("/"), 404);
    eventually("it is told", soon(), || requests(&control, "") > 0);
    // without the proxy there is no way
    proxy.kill9();
    assert_eq!(gateway.status_of("/"), 404);
    let line = "telemetry is not taken.*the forward proxy: cannot connect";
    gateway.program.wait_for_line(line, after_reconnect());
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir.path().join("telemetry.toml"),
        "[[remote_write]]\nurl = \"prometheus:9090\"\n",
    );
    let done = sallyport()
        .args([
            "control",
            "--listen",
            "127.0.0.1:0",
            "--telemetry",
            "telemetry.toml",
        ])
        .dir(dir.path())
        .run(soon());
    assert_eq!(done.status.code(), Some(1));
    crate::lab::has_all(
        &done.stderr,
        &["telemetry.toml", "remote_write.url", "https://host"],
    );
}
