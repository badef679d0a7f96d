//! A new TLS connection for each request, never a resumed one: this executable itself, started
//! again with the hidden subcommand `handshake-load`, so that it runs on its own cores.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sallyport_testkit::Deadline;

use super::{Counts, Errors, Run, percentiles};
use crate::process::pinned;
use crate::tls;

/// How long one connection may take with its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects anew for each request
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    port: u16,
    /// Authority that the server's certificate comes from
    #[arg(long)]
    ca: PathBuf,
    #[arg(long)]
    connections: u32,
    #[arg(long)]
    seconds: u32,
}

/// Runs the generator to its end.
pub(super) fn run(run: &Run<'_>) -> anyhow::Result<Counts> {
    let this = std::env::current_exe().context("where this executable is")?;
    let args = [
        this.display().to_string(),
        "handshake-load".to_owned(),
        format!("--port={}", run.port),
        format!("--ca={}", run.dir.join(tls::CA).display()),
        format!("--connections={}", run.connections.min(32)),
        format!("--seconds={}", run.seconds),
    ];
    let limit = Deadline::after(Duration::from_secs(u64::from(run.seconds) + 30));
    let mut load = pinned(run.cores, args)
        .dir(run.dir)
        .try_start()
        .context("could not run the load generator")?;
    load.wait(limit);
    let output = load.output();
    let line = output.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("the load generator did not report:\n{output}"))?;
    Ok(serde_json::from_str(line)?)
}

/// The subcommand: prints its counts as one JSON line.
pub(crate) fn generate(args: &Args) -> anyhow::Result<()> {
    let config = Arc::new(client_config(&args.ca)?);
    let addr = SocketAddr::from(([127, 0, 0, 1], args.port));
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds.into());
    let (took, failed) = scope(|scope| {
        let one = || {
            let config = Arc::clone(&config);
            scope.spawn(move || {
                let (mut took, mut failed) = (Vec::new(), 0_u64);
                while Instant::now() < until {
                    let began = Instant::now();
                    match request(addr, &config) {
                        Ok(()) => took.push(began.elapsed().as_micros() as u64),
                        Err(_) => failed += 1,
                    }
                }
                (took, failed)
            })
        };
        let running: Vec<_> = (0..args.connections).map(|_| one()).collect();
        let mut all = (Vec::new(), 0);
        for thread in running {
            let Ok((took, failed)) = thread.join() else {
                bail!("a connection's thread panicked");
            };
            all.0.extend(took);
            all.1 += failed;
        }
        Ok(all)
    })?;
    let requests = took.len() as u64;
    let duration_us = began.elapsed().as_micros() as u64;
    let (p50_us, p99_us) = percentiles(took);
    let errors = Errors {
        connect: failed,
        ..Errors::default()
    };
    let counts = Counts {
        requests,
        duration_us,
        p50_us,
        p99_us,
        errors,
    };
    println!("{}", serde_json::to_string(&counts)?);
    Ok(())
}

/// A client that trusts this authority and resumes nothing.
pub(crate) fn client_config(ca: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca).context("the authority")? {
        roots.add(cert?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The name that every proxy's certificate has.
pub(crate) fn server_name() -> anyhow::Result<ServerName<'static>> {
    Ok(ServerName::try_from(tls::NAME)?)
}

fn request(addr: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<()> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let client = ClientConnection::new(Arc::clone(config), server_name()?)?;
    let mut stream = StreamOwned::new(client, stream);
    let host = tls::NAME;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("not answered");
    }
    Ok(())
}
