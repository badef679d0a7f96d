//! A backup of a whole control plane, its proof and its restore, on each engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use sallyport_appliance::backup::{NewKey, Opener, Seal, Sources, Target, create, restore, verify};
use sallyport_store::dump::Database;
use sallyport_store::{Actor, NewControlPlane, Store, Write};
use sallyport_testkit::{Postgres, PostgresSetup};

use crate::machine;
use crate::store::service;

/// What each of backup and restore may take.
const BAR_S: f64 = 10.0;
/// Entities that go in as one change.
const BATCH: usize = 1_000;

/// Backup and restore of a control plane, on SQLite and on PostgreSQL
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Entities of the control plane
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    entities: u32,
    /// Ends with status 1 when a bar is missed
    #[arg(long)]
    enforce: bool,
}

/// What one engine did, in seconds.
struct Took {
    engine: &'static str,
    backup_s: f64,
    verify_s: f64,
    restore_s: f64,
    bytes: u64,
    rows: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut all = vec![on_engine("SQLite", None, args.entities)?];
    let setup = PostgresSetup {
        // As it comes, and not as tests have it.
        conf: vec!["fsync = on".to_owned()],
        ..PostgresSetup::default()
    };
    match Postgres::custom(setup) {
        Some(server) => all.push(on_engine("PostgreSQL", Some(&server), args.entities)?),
        None => eprintln!("no PostgreSQL here (Debian package postgresql), SQLite only"),
    }
    let machine = machine::describe(None, &[])?;
    println!(
        "{machine}\n{} entities; the bar is {BAR_S:.0} s for a backup and for a restore\n\n\
         | engine | backup | verify | restore | rows | file |\n|---|---|---|---|---|---|",
        args.entities
    );
    for took in &all {
        println!(
            "| {} | {:.2} s | {:.2} s | {:.2} s | {} | {:.1} MiB |",
            took.engine,
            took.backup_s,
            took.verify_s,
            took.restore_s,
            took.rows,
            took.bytes as f64 / f64::from(1 << 20)
        );
    }
    let missed = all
        .iter()
        .any(|took| took.backup_s.max(took.restore_s) > BAR_S);
    Ok(match args.enforce && missed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn on_engine(
    engine: &'static str,
    server: Option<&Postgres>,
    entities: u32,
) -> anyhow::Result<Took> {
    eprintln!("{engine}: {entities} entities are written");
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let data = dir.path().join("data");
    let url = server.map(Postgres::database);
    fs::create_dir_all(&data)?;
    fill(&data, url.as_deref(), entities)?;
    let sources = Sources {
        database: match &url {
            Some(url) => Database::Url(url.clone()),
            None => Database::File(data.join("store.sqlite")),
        },
        data,
        database_file: PathBuf::from("store.sqlite"),
        settings: Vec::new(),
        identity: Vec::new(),
        node: "benchmark".to_owned(),
    };
    let key = NewKey::generate(jiff::Timestamp::now());
    fs::write(dir.path().join("key"), &key.file)?;
    let seal = Seal::new(&[key.recipient], None)?;
    let opener = Opener::new(Some(&dir.path().join("key")), None)?;
    let file = dir.path().join("backup.age");
    eprintln!("{engine}: backup, verify, restore");
    let began = Instant::now();
    let created = create(&sources, &seal, &file, jiff::Timestamp::now())?;
    let backup_s = began.elapsed().as_secs_f64();
    let there = created
        .manifest
        .tables
        .iter()
        .find(|it| it.name == "entity");
    if there.is_none_or(|table| table.count != u64::from(entities)) {
        bail!("the backup does not have all entities");
    }
    let began = Instant::now();
    verify(&file, &opener, dir.path(), |_| Ok(()))?;
    let verify_s = began.elapsed().as_secs_f64();
    let target = Target {
        data: dir.path().join("restored"),
        database: server.map(Postgres::database),
        identity: true,
    };
    let began = Instant::now();
    restore(&file, &opener, &target)?;
    let restore_s = began.elapsed().as_secs_f64();
    Ok(Took {
        engine,
        backup_s,
        verify_s,
        restore_s,
        bytes: created.bytes,
        rows: created.manifest.rows(),
    })
}

fn fill(data: &Path, url: Option<&str>, entities: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(async {
        let store = match url {
            Some(url) => Store::connect(url).await?,
            None => Store::open(&data.join("store.sqlite"))?,
        };
        let actor = Actor("benchmark".to_owned());
        let new = NewControlPlane {
            name: "backup".to_owned(),
            ..NewControlPlane::default()
        };
        let cp = store.create_control_plane(&actor, new).await?.id;
        let all: Vec<u32> = (0..entities).collect();
        for part in all.chunks(BATCH) {
            let writes = part.iter().map(|number| Write::Put(service(*number)));
            store.apply(cp, &actor, None, writes.collect()).await?;
        }
        store.close().await;
        Ok(())
    })
}
