//! `sallyport wait`: until a version of the configuration is live on every gateway.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::Value;

use super::client::{Api, block_on};

/// Waits until a version of a control plane's configuration is live on every connected gateway.
///
/// Exits with an error, and names the gateways that are behind, when that does not happen in time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    api: Api,
    /// File with the access token
    #[arg(long, value_name = "FILE", env = "SALLYPORT_TOKEN_FILE")]
    token_file: PathBuf,
    /// Id of the control plane
    #[arg(long, value_name = "ID", env = "SALLYPORT_CONTROL_PLANE")]
    control_plane: String,
    /// Version (revision) to wait for [default: the newest one]
    #[arg(long = "version", value_name = "NUMBER")]
    version: Option<u64>,
    /// Seconds to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// The longest wait of one request, as the API has it; more are sent one after the other.
const STEP_SECS_MAX: u64 = 60;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let token = std::fs::read_to_string(&args.token_file)
        .with_context(|| format!("could not read {}", args.token_file.display()))?;
    let answer = block_on(wait(args, token.trim()))?;
    let (live, connected) = (&answer["live"], &answer["connected"]);
    let text = format!(
        "version {}: live on {live} of {connected} gateways",
        answer["version"]
    );
    let behind = answer["behind"].as_array().map_or(&[][..], Vec::as_slice);
    if answer["live_everywhere"] == true {
        return super::print(&text);
    }
    let named = |node: &Value| {
        let text = |field: &str| node[field].as_str().unwrap_or_default();
        let reason = match text("reason") {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let (host, id, at) = (text("hostname"), text("id"), &node["config_version"]);
        format!("\n  {host} ({id}) is at version {at}{reason}")
    };
    let behind: String = behind.iter().map(named).collect();
    bail!("{text} after {} s{behind}", args.timeout)
}

async fn wait(args: &Args, token: &str) -> anyhow::Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut version = args.version;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        let step = left.min(STEP_SECS_MAX);
        let mut path = format!(
            "/v2/control-planes/{}/rollout?timeout={step}",
            args.control_plane
        );
        if let Some(version) = version {
            path.push_str(&format!("&version={version}"));
        }
        let limit = Duration::from_secs(step + 30);
        let answer = args
            .api
            .send(Method::GET, &path, Some(token), None, limit)
            .await?;
        let answer = answer.good()?;
        // newer ones that come meanwhile are not what was asked for
        version = version.or(answer["version"].as_u64());
        if answer["live_everywhere"] == true || Instant::now() + Duration::from_secs(1) > deadline {
            return Ok(answer);
        }
    }
}
