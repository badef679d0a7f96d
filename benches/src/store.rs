//! The control plane on each engine of its database: decK's syncs, single writes, an export.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_model::Kind;
use sallyport_store::{Actor, IfExists, Put, Store, Write};
use sallyport_testkit::{Deadline, Postgres, PostgresSetup, Program, http};
use serde_json::json;
use uuid::Uuid;

use crate::control::Control;
use crate::measure::median;
use crate::process::{cpu, memory_kib};

/// How long decK and the server may take altogether.
const LIMIT: Duration = Duration::from_secs(1_800);
/// Entities that go in as one change when the export is prepared.
const BATCH: usize = 1_000;
/// Times that the export is read; the median counts.
const EXPORTS: usize = 5;

/// The sizes of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Services that decK writes, each with a route.
    pub(crate) services: u32,
    /// Single writes, one after the other.
    pub(crate) puts: u32,
    /// Entities of the control plane that is exported.
    pub(crate) exported: u32,
    /// Control planes of [`PLANE`] entities, whose memory is measured; 0 leaves that out.
    pub(crate) planes: u32,
}

/// Entities of each of many control planes.
const PLANE: u32 = 1_000;
/// Of these, those that are read.
const READ: usize = 10;
/// Those whose hash is asked for, which takes all of their entities.
const HASHED: usize = 100;

/// What one engine did; times in seconds, CPU of user and kernel.
struct Result {
    engine: &'static str,
    sync: Sync,
    unchanged: Sync,
    put_p50_us: f64,
    put_p99_us: f64,
    export_s: f64,
}

struct Sync {
    wall_s: f64,
    server_cpu_s: f64,
    database_cpu_s: f64,
}

/// Runs everything on both engines; a table in Markdown.
pub(crate) fn run(executable: &Path, sizes: Sizes) -> anyhow::Result<String> {
    let mut results = vec![on_engine("SQLite", executable, None, sizes)?];
    let setup = PostgresSetup {
        // As it comes, and not as tests have it.
        conf: vec!["fsync = on".to_owned()],
        ..PostgresSetup::default()
    };
    match Postgres::custom(setup) {
        Some(server) => {
            results.push(on_engine("PostgreSQL", executable, Some(&server), sizes)?);
        }
        None => eprintln!("no PostgreSQL here (Debian package postgresql), SQLite only"),
    }
    let mut text = table(&results, sizes);
    if sizes.planes > 0 {
        text.push_str(&memory(executable, sizes.planes)?);
    }
    Ok(text)
}

/// Memory of the process with many control planes on SQLite; a table in Markdown.
fn memory(executable: &Path, planes: u32) -> anyhow::Result<String> {
    eprintln!("SQLite: {planes} control planes of {PLANE} entities");
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let start = || Control::start(None, executable, dir.path(), None);
    let rss = |control: &Control| memory_kib(control.server.0.pid()).map(|(rss, _)| rss);
    let mut control = start()?;
    let empty = rss(&control)?;
    // the file has one user at a time
    control.server.0.terminate();
    control.server.0.wait(Deadline::secs(60));
    let ids = fill(&control.home.join("store.sqlite"), planes)?;
    drop(control);
    let control = start()?;
    let full = rss(&control)?;
    let mut stream = control.connect()?;
    for id in ids.iter().take(READ) {
        let path = format!("/v2/control-planes/{id}/core-entities/services?size=1000");
        control.call(&mut stream, "GET", &path, None)?;
    }
    let read = rss(&control)?;
    for id in ids.iter().take(HASHED) {
        let path = format!("/v2/control-planes/{id}/expected-config-hash");
        control.call(&mut stream, "GET", &path, None)?;
    }
    let hashed = rss(&control)?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    Ok(format!(
        "\nRSS of `sallyport control` on SQLite\n\n| with | MiB |\n|---|---|\n\
         | one control plane without entities | {:.1} |\n\
         | {planes} control planes of {PLANE} entities, after its start | {:.1} |\n\
         | and after the entities of {READ} were listed | {:.1} |\n\
         | and after the expected hashes of {HASHED} were asked for | {:.1} |\n",
        mib(empty),
        mib(full),
        mib(read),
        mib(hashed),
    ))
}

/// Makes control planes with their entities in a database file; their ids.
fn fill(file: &Path, planes: u32) -> anyhow::Result<Vec<Uuid>> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(async {
        let store = Store::open(file)?;
        let actor = Actor("benchmark".to_owned());
        let mut ids = Vec::new();
        for number in 0..planes {
            let new = sallyport_store::NewControlPlane {
                name: format!("plane-{number:06}"),
                ..Default::default()
            };
            let cp = store.create_control_plane(&actor, new).await?.id;
            let writes = (0..PLANE).map(|number| Write::Put(service(number)));
            store.apply(cp, &actor, None, writes.collect()).await?;
            ids.push(cp);
        }
        store.close().await;
        Ok(ids)
    })
}

fn table(results: &[Result], sizes: Sizes) -> String {
    let Sizes {
        services,
        puts,
        exported,
        ..
    } = sizes;
    let mut text = format!(
        "{services} services with a route each; {puts} single PUTs; {exported} entities exported\n\n\
         | engine | sync from empty: wall, CPU of the server (of the database) | sync without a \
         change | PUT p50 | PUT p99 | export |\n|---|---|---|---|---|---|\n"
    );
    for result in results {
        _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} ms | {:.2} ms | {:.2} s |",
            result.engine,
            shown(&result.sync),
            shown(&result.unchanged),
            result.put_p50_us / 1_000.0,
            result.put_p99_us / 1_000.0,
            result.export_s,
        );
    }
    text
}

fn shown(sync: &Sync) -> String {
    let Sync {
        wall_s,
        server_cpu_s,
        database_cpu_s,
    } = sync;
    format!("{wall_s:.1} s, {server_cpu_s:.2} s ({database_cpu_s:.2} s)")
}

fn on_engine(
    engine: &'static str,
    executable: &Path,
    postgres: Option<&Postgres>,
    sizes: Sizes,
) -> anyhow::Result<Result> {
    eprintln!("{engine}: decK's syncs");
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let url = postgres.map(Postgres::database);
    let control = Control::start(None, executable, dir.path(), url.as_deref())?;
    let yml = dir.path().join("kong.yml");
    fs::write(&yml, kong_yml(sizes.services)).context("could not write kong.yml")?;
    let sync = control.sync(&yml, postgres)?;
    let unchanged = control.sync(&yml, postgres)?;
    eprintln!("{engine}: single writes");
    let mut took = control.puts(sizes.puts)?;
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize];
    let (put_p50_us, put_p99_us) = (at(0.5), at(0.99));
    drop(control);
    eprintln!("{engine}: export");
    let file = dir.path().join("export.sqlite");
    let url = postgres.map(Postgres::database);
    Ok(Result {
        engine,
        sync,
        unchanged,
        put_p50_us,
        put_p99_us,
        export_s: export(&file, url.as_deref(), sizes.exported)?,
    })
}

impl Control {
    fn sync(&self, yml: &Path, postgres: Option<&Postgres>) -> anyhow::Result<Sync> {
        let database = || postgres.map(|server| cpu(server.pid())).transpose();
        let (own, theirs) = (cpu(self.server.0.pid())?, database()?);
        let ca = fs::read_to_string(self.home.join("ca.crt")).context("no authority")?;
        let began = Instant::now();
        let addr = format!("https://127.0.0.1:{}{}", self.port, self.core_entities());
        let done = Program::new("deck")
            .args(["sync", "-s"])
            .arg(yml)
            .args(["--kong-addr", &addr, "--ca-cert", &ca])
            .args(["--headers", &format!("Authorization:Bearer {}", self.token)])
            .env("HOME", self.home.as_os_str())
            .run(Deadline::after(LIMIT));
        let wall = began.elapsed();
        if !done.status.success() {
            bail!("deck: {}", done.stderr);
        }
        let used = database()?
            .zip(theirs)
            .map_or(Duration::ZERO, |(now, then)| now.since(then).total());
        Ok(Sync {
            wall_s: wall.as_secs_f64(),
            server_cpu_s: cpu(self.server.0.pid())?.since(own).total().as_secs_f64(),
            database_cpu_s: used.as_secs_f64(),
        })
    }

    /// Writes new services over one connection; how long each took, in microseconds.
    fn puts(&self, count: u32) -> anyhow::Result<Vec<f64>> {
        let authority = format!("127.0.0.1:{}", self.plain);
        let mut stream = TcpStream::connect(&authority).context("no connection")?;
        stream.set_nodelay(true).context("no connection")?;
        let mut took = Vec::new();
        for number in 0..count {
            let path = format!("{}/services/put-{number}", self.core_entities());
            let request = http::request("PUT", format!("http://{authority}{path}"))
                .header("Authorization", format!("Bearer {}", self.token))
                .json(&json!({"host": "put.example"}))
                .keep_alive();
            let began = Instant::now();
            let answer = request.send_over(&mut stream).context("PUT")?;
            took.push(began.elapsed().as_secs_f64() * 1e6);
            if answer.status != 200 {
                bail!("PUT {path}: {} {}", answer.status, answer.text());
            }
        }
        Ok(took)
    }
}

/// The time to read a whole control plane, in seconds.
fn export(file: &Path, url: Option<&str>, count: u32) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(async {
        let store = match url {
            Some(url) => Store::connect(url).await?,
            None => Store::open(file)?,
        };
        let actor = Actor("benchmark".to_owned());
        let new = sallyport_store::NewControlPlane {
            name: "export".to_owned(),
            ..Default::default()
        };
        let cp = store.create_control_plane(&actor, new).await?.id;
        let all: Vec<u32> = (0..count).collect();
        for part in all.chunks(BATCH) {
            let writes = part.iter().map(|number| Write::Put(service(*number)));
            store.apply(cp, &actor, None, writes.collect()).await?;
        }
        let mut took = Vec::new();
        for _ in 0..EXPORTS {
            let began = Instant::now();
            let snapshot = store.snapshot(cp).await?;
            took.push(began.elapsed().as_secs_f64());
            let read = snapshot.entities.values().map(Vec::len).sum::<usize>();
            if read != count as usize {
                bail!("{read} entities read, {count} were written");
            }
        }
        store.close().await;
        Ok(median(took))
    })
}

/// A service with all its fields, as the control plane stores it.
pub(crate) fn service(number: u32) -> Put {
    let id = Uuid::new_v4();
    let name = format!("service-{number:06}");
    Put {
        kind: Kind::Service,
        id,
        body: json!({
            "id": id, "name": name, "host": "backend.example", "port": 8080, "protocol": "http",
            "path": null, "retries": 5, "connect_timeout": 60_000, "read_timeout": 60_000,
            "write_timeout": 60_000, "enabled": true, "tags": ["benchmark"],
            "client_certificate": null, "tls_verify": null, "tls_verify_depth": null,
            "ca_certificates": null, "created_at": 1_700_000_000, "updated_at": 1_700_000_000,
        }),
        unique: vec![("name".to_owned(), name)],
        foreign: Vec::new(),
        tags: vec!["benchmark".to_owned()],
        if_exists: IfExists::Refuse,
    }
}

/// Services with a route each; what decK 1.4.0 has another default for is spelled out, so that a
/// second sync has nothing to do.
fn kong_yml(services: u32) -> String {
    let mut yml = String::from("_format_version: \"1.1\"\nservices:\n");
    for number in 0..services {
        _ = write!(
            yml,
            "- name: service-{number:06}\n  host: backend.example\n  retries: 5\n  routes:\n  \
             - name: route-{number:06}\n    paths: [/route-{number:06}]\n    strip_path: true\n    \
             https_redirect_status_code: 426\n    path_handling: v0\n    \
             request_buffering: true\n    response_buffering: true\n"
        );
    }
    yml
}

/// Checks that decK is there.
pub(crate) fn need_programs() -> anyhow::Result<()> {
    let there = Command::new("deck").arg("version").output();
    if !there.is_ok_and(|done| done.status.success()) {
        bail!("the workload store needs deck (Debian package deck)");
    }
    Ok(())
}
