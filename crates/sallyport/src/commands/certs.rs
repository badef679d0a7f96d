//! `sallyport certs`: the certificate and key that a data plane shows to its control plane.

use std::path::PathBuf;

use anyhow::{Context, bail};
use sallyport_runtime::certs::{Curve, data_plane_pair};

use crate::home;

/// Makes the certificate and key that a data plane needs.
///
/// The key is made here and stays here; the certificate is pinned to a control plane.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory for `cluster.crt` and `cluster.key`
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Name in the certificate, for people
    #[arg(long, value_name = "NAME", default_value = "data-plane")]
    name: String,
    /// Days it is valid
    #[arg(long, default_value_t = 1095, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    home::make_directory(&args.out)?;
    let (cert, key) = (args.out.join("cluster.crt"), args.out.join("cluster.key"));
    for file in [&cert, &key] {
        if file.exists() {
            bail!(
                "{} is there already; choose another directory with --out, or move it away",
                file.display()
            );
        }
    }
    let pair = data_plane_pair(&args.name, Curve::default(), args.days)
        .context("could not make a certificate")?;
    home::write_private(&key, &pair.key)?;
    home::write_public(&cert, &pair.cert)?;
    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    {
        println!(
            "certificate  {}\nkey          {}\n",
            cert.display(),
            key.display()
        );
        println!(
            "Pin it to a control plane (address, id and token are the control plane's):\n\
             \n  jq -n --rawfile cert {} '{{cert: $cert}}' |\n    curl --cacert ca.crt -H \"Authorization: Bearer $TOKEN\" \
             -H 'Content-Type: application/json' --data @- \\\n      \
             https://CONTROL_PLANE/v2/control-planes/ID/dp-client-certificates\n\
             \nAnd in the gateway's kong.conf:\n\
             \n  cluster_mtls = pki\n  cluster_cert = {}\n  cluster_cert_key = {}",
            cert.display(),
            absolute(&cert),
            absolute(&key),
        );
    }
    Ok(())
}

fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}
