//! `sallyport enrol`: a certificate for a new gateway, by one call.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use sallyport_runtime::certs::NewKey;
use serde_json::json;

use super::client::{Api, block_on};
use crate::home;

/// For the control plane to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Gets a certificate for a new gateway from its control plane.
///
/// The key is made here and stays here; a token of the control plane
/// (`POST /v2/control-planes/ID/enrolment-tokens`) lets one request in, once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    api: Api,
    /// The token
    #[arg(long, env = "SALLYPORT_ENROLMENT_TOKEN", hide_env_values = true)]
    token: String,
    /// Directory for `cluster.crt`, `cluster.key`, `ca.crt` and `cluster.conf`
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Name in the certificate, for people
    #[arg(long, value_name = "NAME", default_value = "data-plane")]
    name: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    home::make_directory(&args.out)?;
    let file = |name: &str| args.out.join(name);
    for name in ["cluster.crt", "cluster.key"] {
        if file(name).exists() {
            let shown = file(name);
            bail!(
                "{} is there already; choose another directory with --out, or move it away",
                shown.display()
            );
        }
    }
    let key = NewKey::create().context("could not make a key")?;
    let wish = json!({"token": args.token, "csr": key.request, "name": args.name});
    let sent = args
        .api
        .send(Method::POST, "/v2/enrol", None, Some(&wish), LIMIT);
    let item = block_on(sent)?.good()?["item"].take();
    let text = |field: &str| {
        let text = item[field].as_str().map(str::to_owned);
        text.with_context(|| format!("the answer has no {field:?}"))
    };
    // the key first: a certificate without its key is of no use
    home::write_private(&file("cluster.key"), &key.key)?;
    home::write_public(&file("cluster.crt"), &text("cert")?)?;
    home::write_public(&file("ca.crt"), &text("ca")?)?;
    let absolute = |name: &str| {
        let path = file(name);
        std::path::absolute(&path)
            .unwrap_or(path)
            .display()
            .to_string()
    };
    let host = args.api.address.host().unwrap_or_default();
    let port = args.api.address.port_u16().unwrap_or(443);
    let telemetry = match item["cluster_telemetry_server_name"].as_str() {
        Some(name) => format!(
            "cluster_telemetry_endpoint = {host}:{port}\ncluster_telemetry_server_name = {name}\n"
        ),
        None => String::new(),
    };
    let conf = format!(
        "role = data_plane\ndatabase = off\ncluster_mtls = pki\n\
         cluster_control_plane = {host}:{port}\ncluster_server_name = {}\n{telemetry}\
         cluster_cert = {}\ncluster_cert_key = {}\nlua_ssl_trusted_certificate = {}\n",
        text("cluster_server_name")?,
        absolute("cluster.crt"),
        absolute("cluster.key"),
        absolute("ca.crt"),
    );
    home::write_public(&file("cluster.conf"), &conf)?;
    super::print(&format!(
        "enrolled with control plane {}\nFor the gateway's kong.conf ({}):\n\n{conf}",
        text("control_plane")?,
        absolute("cluster.conf")
    ))
}
