//! How fast a control plane takes telemetry: records per second and CPU per record.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustls::{ClientConnection, StreamOwned};
use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::{Identity, ServerTrust, client_config};
use sallyport_testkit::http;
use sallyport_wire::telemetry::{
    BATCH_HEADER, Batch, BatchId, Dimensions, Record, Source, StatusClass, Totals,
};
use serde_json::json;
use uuid::Uuid;

use crate::control::Control;
use crate::process::cpu;

/// Requests in one record, so that sketches have something in them.
const REQUESTS: u64 = 50;

/// Measures how fast `sallyport control` takes telemetry of gateways, over mutual TLS.
///
/// Each gateway sends a batch, waits until it is stored, and sends the next. Routes are the same on
/// all of them, so hours are shared and minutes are not, as in a fleet.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Gateways, each with a connection of its own
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    gateways: u32,
    /// Records of one batch; may be given several times [default: 40 400 2000]
    #[arg(long = "records", value_parser = clap::value_parser!(u32).range(1..=2_000))]
    records: Vec<u32>,
    /// Length of one measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Core on which the control plane runs
    #[arg(long, default_value_t = 0)]
    server_core: u32,
    /// This executable instead of one that is built with `--profile bench`
    #[arg(long, value_name = "PATH")]
    sallyport: Option<PathBuf>,
}

/// A control plane and what a gateway needs to report to it.
struct Receiver {
    control: Control,
    name: String,
    tls: Arc<rustls::ClientConfig>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let executable = match &args.sallyport {
        Some(path) => path.clone(),
        None => crate::peer::sallyport::build()?,
    };
    let sizes = match args.records.as_slice() {
        [] => vec![40, 400, 2_000],
        given => given.to_vec(),
    };
    println!(
        "{} gateways, each waits for its acknowledgement; control plane on core {}\n",
        args.gateways, args.server_core
    );
    println!(
        "| records per batch | batches/s | records/s | CPU per record, µs | cores busy | database |"
    );
    println!("|--:|--:|--:|--:|--:|--:|");
    for size in sizes {
        let dir = tempfile::Builder::new()
            .prefix("sallyport-bench-")
            .tempdir()?;
        let receiver = Receiver::start(&args.server_core.to_string(), &executable, dir.path())?;
        receiver.load(args.gateways, size, Duration::from_millis(500))?; // warm-up
        let (before, began) = (cpu(receiver.control.server.0.pid())?, Instant::now());
        let time = Duration::from_secs(args.seconds.into());
        let batches = receiver.load(args.gateways, size, time)? as f64;
        let wall = began.elapsed().as_secs_f64();
        let used = cpu(receiver.control.server.0.pid())?.since(before).total();
        let records = batches * f64::from(size);
        let file = receiver.control.home.join("telemetry.db");
        let bytes = std::fs::metadata(file).map_or(0, |it| it.len());
        println!(
            "| {size} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} MiB |",
            batches / wall,
            records / wall,
            used.as_secs_f64() * 1e6 / records,
            used.as_secs_f64() / wall,
            bytes as f64 / f64::from(1 << 20),
        );
    }
    Ok(ExitCode::SUCCESS)
}

impl Receiver {
    fn start(core: &str, executable: &Path, dir: &Path) -> anyhow::Result<Receiver> {
        let control = Control::start(Some(core), executable, dir, None)?;
        let pair = data_plane_pair("benchmark", Curve::P256, 30)?;
        let mut stream = control.connect()?;
        let here = format!("/v2/control-planes/{}", control.id);
        let pins = format!("{here}/dp-client-certificates");
        control.call(
            &mut stream,
            "POST",
            &pins,
            Some(&json!({"cert": pair.cert})),
        )?;
        let shown = control.call(&mut stream, "GET", &here, None)?;
        let endpoint = shown["config"]["telemetry_endpoint"].as_str();
        let name = endpoint.and_then(|it| it.strip_prefix("https://"));
        let identity = Identity::from_pem(&pair.cert, &pair.key)?;
        Ok(Receiver {
            name: name.context("no endpoint")?.to_owned(),
            tls: Arc::new(client_config(ServerTrust::Anybody, Some(&identity))?),
            control,
        })
    }

    /// Batches that were taken from so many gateways within a time.
    fn load(&self, gateways: u32, records: u32, time: Duration) -> anyhow::Result<u64> {
        let taken = AtomicU64::new(0);
        let until = Instant::now() + time;
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..gateways)
                .map(|number| {
                    let taken = &taken;
                    scope.spawn(move || self.gateway(number, records, until, taken))
                })
                .collect();
            all.into_iter()
                .map(|one| one.join().unwrap_or_else(|_| bail!("a gateway panicked")))
                .collect::<anyhow::Result<Vec<()>>>()
        })?;
        Ok(taken.load(Ordering::Relaxed))
    }

    fn gateway(
        &self,
        number: u32,
        records: u32,
        until: Instant,
        taken: &AtomicU64,
    ) -> anyhow::Result<()> {
        let tcp = TcpStream::connect(("127.0.0.1", self.control.port)).context("no connection")?;
        tcp.set_nodelay(true)?;
        let name = self.name.clone().try_into().context("no name")?;
        let connection = ClientConnection::new(Arc::clone(&self.tls), name)?;
        let mut stream = StreamOwned::new(connection, tcp);
        let mut batch = batch(number, records);
        let run = Uuid::new_v4();
        for sequence in 1.. {
            if Instant::now() >= until {
                break;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            batch.end_unix_ns = u64::try_from(now.as_nanos())?;
            let request = http::request("POST", "http://tp0/v1/metrics")
                .header("Content-Type", sallyport_wire::telemetry::CONTENT_TYPE)
                .header(BATCH_HEADER, BatchId { run, sequence }.to_string())
                .body(batch.encode())
                .keep_alive();
            let answer = request.send_over(&mut stream).context("a batch")?;
            match answer.status {
                200 => taken.fetch_add(1, Ordering::Relaxed),
                status => bail!("a batch was answered with {status}"),
            };
        }
        Ok(())
    }
}

/// What a gateway sends in one go.
fn batch(number: u32, records: u32) -> Batch {
    let record = |route: u32| {
        let mut totals = Totals {
            request_bytes: 20_000,
            response_bytes: 90_000,
            ..Totals::default()
        };
        for at in 0..REQUESTS {
            // one to a hundred milliseconds
            let nanoseconds = 1_000_000 * (1 + at * at % 97 + u64::from(route % 5));
            totals.latency.record(nanoseconds);
            totals.upstream_latency.record(nanoseconds - 200_000);
        }
        Record {
            dimensions: Dimensions {
                service: Some(Uuid::from_u128(u128::from(route / 2) + 1)),
                route: Some(Uuid::from_u128(u128::from(route) + 1)),
                consumer: None,
                class: StatusClass::of(if route.is_multiple_of(2) { 200 } else { 404 }),
                upstream: Some("orders.example".into()),
                overflow: false,
            },
            totals,
        }
    };
    Batch {
        source: Source {
            node: Uuid::from_u128(u128::from(number) + 1),
            hostname: format!("gateway-{number}"),
            version: "3.9.1".to_owned(),
        },
        start_unix_ns: 1,
        end_unix_ns: 1,
        records: (0..records).map(record).collect(),
        dropped: 0,
    }
}
