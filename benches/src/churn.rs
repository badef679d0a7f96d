//! Latency while the configuration changes all the time, beside that of the same gateway while it
//! does not: a control plane, one gateway, requests at a fixed pace.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_model::Kind;
use sallyport_store::{Actor, IfExists, OnDelete, Put, Reference, Store, Write};
use sallyport_testkit::{Deadline, free_port, http};
use serde_json::json;
use uuid::Uuid;

use crate::control::{Control, Gateway};
use crate::load::h2load::{self, Pace};
use crate::load::{Counts, Run};
use crate::measure::{self, median};
use crate::process::cpu;
use crate::workload::{Name, Workload};
use crate::{machine, peer};

/// p99 under changes that we allow ourselves, as a multiple of the p99 without.
const BAR: f64 = 1.05;
/// Entities that go in as one change when the control plane is filled.
const BATCH: usize = 1_000;

/// Latency of a gateway while its configuration changes, at many routes.
///
/// Needs `nginx` and `h2load` (Debian package nghttp2-client). Slices with changes and slices
/// without take turns, at the same pace of requests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Routes of the configuration
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(10..=200_000))]
    routes: u32,
    /// Changes a second, one route each
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    changes: u32,
    /// Slices of each kind
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    slices: u32,
    /// Length of a slice
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=300))]
    slice_seconds: u32,
    /// Connections
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Requests a second on each connection
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pace: u32,
    /// Core on which the gateway runs
    #[arg(long, default_value_t = 0)]
    proxy_core: u32,
    /// This executable instead of one that is built with `--profile bench`
    #[arg(long, value_name = "PATH")]
    sallyport: Option<PathBuf>,
    /// Ends with status 1 when the bar is missed
    #[arg(long)]
    enforce: bool,
}

/// What one slice gave.
struct Slice {
    counts: Counts,
    /// CPU of the gateway in seconds.
    cpu_s: f64,
    /// Changes that the control plane acknowledged.
    changes: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    machine::need_programs(&[("h2load", "nghttp2-client")])?;
    let cores = crate::cores(args.proxy_core, None)?;
    let executable = match &args.sallyport {
        Some(path) => std::path::absolute(path).context("--sallyport")?,
        None => peer::build()?,
    };
    let temp = tempfile::Builder::new()
        .prefix("sallyport-bench-")
        .tempdir()?;
    let dir = temp.path();
    let backend_port = free_port();
    let workload = Workload::new(Name::Plain, 1, 1_024);
    let backend = peer::nginx::backend(dir, backend_port, &workload)?;
    let _backend = measure::start(&cores.load, backend, dir, backend_port).context("backend")?;
    eprintln!("{} routes into a control plane", args.routes);
    let id = Control::start(Some(&cores.load), &executable, dir, None)?.id;
    let database = dir.join("control").join("store.sqlite");
    let routes = fill(&database, &id, args.routes, backend_port)?;
    let control = Control::start(Some(&cores.load), &executable, dir, None)?;
    let gateway_dir = dir.join("gateway");
    std::fs::create_dir(&gateway_dir).context("could not make a directory")?;
    let gateway = control.gateway(&cores.proxy, &executable, &gateway_dir)?;
    let last = Workload::prefix(args.routes - 1);
    served(gateway.port, &last, Deadline::secs(120)).context("the filled configuration")?;
    println!("{}", machine::describe(None, &[])?);
    println!(
        "{} routes, {} changes/s of one route each, {} × {} requests/s, {} slices of {} s of each \
         kind in turns; gateway on core {}, control plane, backend and load on core {}\n",
        args.routes,
        args.changes,
        args.connections,
        args.pace,
        args.slices,
        args.slice_seconds,
        cores.proxy,
        cores.load
    );
    let mut slices: [Vec<Slice>; 2] = [Vec::new(), Vec::new()];
    slice(args, &cores.load, dir, &control, &gateway, &routes, false)?; // warm-up
    for number in 0..args.slices * 2 {
        // A B, B A, A B, …: a machine that gets slower or faster then favours nobody.
        let changing = (number % 4 == 1) || (number % 4 == 2);
        let one = slice(
            args,
            &cores.load,
            dir,
            &control,
            &gateway,
            &routes,
            changing,
        )?;
        eprintln!(
            "{}: p50 {} µs, p99 {} µs, {:.2} s CPU, {} changes",
            if changing { "changing" } else { "idle" },
            one.counts.p50_us,
            one.counts.p99_us,
            one.cpu_s,
            one.changes
        );
        slices[usize::from(changing)].push(one);
    }
    report(args, &slices)
}

fn report(args: &Args, [idle, changing]: &[Vec<Slice>; 2]) -> anyhow::Result<ExitCode> {
    let of = |slices: &[Slice], value: fn(&Slice) -> f64| median(slices.iter().map(value));
    println!("| | p50, ms | p99, ms | CPU of the gateway, % of a core | changes |");
    println!("|---|--:|--:|--:|--:|");
    for (name, slices) in [("unchanged", idle), ("changing", changing)] {
        println!(
            "| {name} | {:.3} | {:.3} | {:.1} | {} |",
            of(slices, |s| s.counts.p50_us as f64) / 1e3,
            of(slices, |s| s.counts.p99_us as f64) / 1e3,
            of(slices, |s| s.cpu_s) * 100.0 / f64::from(args.slice_seconds),
            slices.iter().map(|s| s.changes).sum::<u32>()
        );
    }
    let changes: u32 = changing.iter().map(|s| s.changes).sum();
    let per_change = (of(changing, |s| s.cpu_s) - of(idle, |s| s.cpu_s))
        / f64::from((changes / args.slices).max(1));
    let pairs = idle.iter().zip(changing);
    let ratio = median(pairs.map(|(i, c)| c.counts.p99_us as f64 / i.counts.p99_us as f64));
    let passed = ratio <= BAR;
    let verdict = if passed { "pass" } else { "MISSED" };
    println!(
        "\n- CPU of the gateway per change: {:.2} ms",
        per_change * 1e3
    );
    println!("- bar: p99 while it changes ≤ {BAR} × p99 while it does not: {ratio:.3}, {verdict}");
    Ok(match args.enforce && !passed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn slice(
    args: &Args,
    load_cores: &str,
    dir: &Path,
    control: &Control,
    gateway: &Gateway,
    routes: &Routes,
    changing: bool,
) -> anyhow::Result<Slice> {
    let path = format!("{}/item", Workload::prefix(0));
    let load = Run {
        workload: Name::Plain,
        cores: load_cores,
        connections: args.connections,
        seconds: args.slice_seconds,
        dir,
        script: &path,
        port: gateway.port,
    };
    let before = cpu(gateway.server.0.pid())?;
    let over = AtomicBool::new(false);
    let (counts, changes) = scope(|scope| {
        let changes = scope.spawn(|| match changing {
            true => change(args, control, gateway, routes, &over),
            false => Ok(0),
        });
        let counts = h2load::run(&load, Pace::PerSecond(args.pace));
        over.store(true, Ordering::Relaxed);
        let Ok(changes) = changes.join() else {
            bail!("the thread that changes routes panicked");
        };
        Ok((counts?.checked()?, changes?))
    })?;
    let used = cpu(gateway.server.0.pid())?.since(before);
    Ok(Slice {
        counts,
        cpu_s: used.total().as_secs_f64(),
        changes,
    })
}

/// Gives one route after the other another path until `over`, at an even pace; the last one has
/// to be served.
fn change(
    args: &Args,
    control: &Control,
    gateway: &Gateway,
    routes: &Routes,
    over: &AtomicBool,
) -> anyhow::Result<u32> {
    let mut stream = control.connect()?;
    let began = Instant::now();
    let mut done = 0;
    let mut last = String::new();
    while !over.load(Ordering::Relaxed) {
        // Never the route under load; a large stride, so that neighbours are not favoured.
        let at = 1 + (done as usize * 7_919) % (routes.ids.len() - 1);
        last = format!("/changed-{}", Uuid::new_v4().simple());
        let path = format!("{}/routes/{}", control.core_entities(), routes.ids[at]);
        let body = json!({"paths": [last], "service": {"id": routes.service}});
        control.call(&mut stream, "PUT", &path, Some(&body))?;
        done += 1;
        let due = began + Duration::from_secs(done.into()) / args.changes;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    served(gateway.port, &last, Deadline::secs(60)).context("the last change")?;
    Ok(done)
}

/// Waits until a path has a route.
pub(crate) fn served(port: u16, prefix: &str, deadline: Deadline) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{port}{prefix}/item");
    loop {
        if http::get(&url)
            .send()
            .is_ok_and(|answer| answer.status == 200)
        {
            return Ok(());
        }
        if deadline.passed() {
            bail!("{prefix} is not served");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The routes that change, with the service of all.
pub(crate) struct Routes {
    pub(crate) service: Uuid,
    pub(crate) ids: Vec<Uuid>,
}

/// Writes a service with so many routes.
pub(crate) fn fill(database: &Path, cp: &str, count: u32, backend: u16) -> anyhow::Result<Routes> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(async {
        let store = Store::open(database)?;
        let actor = Actor("benchmark".to_owned());
        let cp = Uuid::parse_str(cp)?;
        let service = Uuid::new_v4();
        let put = Put {
            kind: Kind::Service,
            id: service,
            body: json!({
                "id": service, "name": "backend", "host": "127.0.0.1", "port": backend,
                "protocol": "http", "path": null, "retries": 5, "connect_timeout": 60_000,
                "read_timeout": 60_000, "write_timeout": 60_000, "enabled": true, "tags": null,
                "client_certificate": null, "tls_verify": null, "tls_verify_depth": null,
                "ca_certificates": null, "created_at": 1_700_000_000, "updated_at": 1_700_000_000,
            }),
            unique: vec![("name".to_owned(), "backend".to_owned())],
            foreign: Vec::new(),
            tags: Vec::new(),
            if_exists: IfExists::Refuse,
        };
        store.apply(cp, &actor, None, vec![Write::Put(put)]).await?;
        let ids: Vec<(u32, Uuid)> = (0..count).map(|number| (number, Uuid::new_v4())).collect();
        for part in ids.chunks(BATCH) {
            let writes = part
                .iter()
                .map(|(number, id)| Write::Put(route(*number, *id, service)));
            store.apply(cp, &actor, None, writes.collect()).await?;
        }
        store.close().await;
        let ids = ids.into_iter().map(|(_, id)| id).collect();
        Ok(Routes { service, ids })
    })
}

/// A route with all its fields, as the control plane stores it.
fn route(number: u32, id: Uuid, service: Uuid) -> Put {
    let name = format!("route-{number:06}");
    Put {
        kind: Kind::Route,
        id,
        body: json!({
            "id": id, "name": name, "service": {"id": service},
            "paths": [Workload::prefix(number)], "hosts": null, "methods": null, "headers": null,
            "snis": null, "sources": null, "destinations": null, "protocols": ["http", "https"],
            "strip_path": true, "preserve_host": false, "regex_priority": 0,
            "path_handling": "v0", "https_redirect_status_code": 426, "request_buffering": true,
            "response_buffering": true, "tags": null,
            "created_at": 1_700_000_000, "updated_at": 1_700_000_000,
        }),
        unique: vec![("name".to_owned(), name)],
        foreign: vec![Reference {
            field: "service".to_owned(),
            kind: Kind::Service,
            id: service,
            on_delete: OnDelete::Restrict,
        }],
        tags: Vec::new(),
        if_exists: IfExists::Refuse,
    }
}
