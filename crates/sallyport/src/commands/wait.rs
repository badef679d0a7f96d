//! `sallyport wait`: until a version of the configuration is live on every gateway.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{Api, block_on};

/// Waits until a version of a control plane's configuration is live on every connected gateway.
///
/// Exits with an error, and names the gateways that are behind, when that does not happen in time.
#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)]
pub(crate) struct Args {
    #[command(flatten)]
    api: Api,
    /// File with the access token
    #[arg(long, value_name = "FILE", env = "SALLYPORT_TOKEN_FILE")]
    token_file: PathBuf,
    /// Id or name of the control plane
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
    if token.trim().is_empty() || !token.trim().bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!(
            "{} holds no access token, which is one word (the file `token` in the control plane's \
             data directory does)",
            args.token_file.display()
        );
    }
    let answer = block_on(wait(args, token.trim()))?;
    let (live, connected) = (&answer["live"], &answer["connected"]);
    let text = format!(
        "version {}: live on {live} of {connected} gateways",
        answer["version"]
    );
    let behind = answer["behind"].as_array().map_or(&[][..], Vec::as_slice);
    if answer["live_everywhere"] == true {
        let nobody = match connected == 0 {
            true => ": none is connected",
            false => "",
        };
        return super::print(&format!("{text}{nobody}"));
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
    let control_plane = control_plane(args, token).await?;
    let mut version = args.version;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        let step = left.min(STEP_SECS_MAX);
        let mut path = format!("/v2/control-planes/{control_plane}/rollout?timeout={step}");
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

/// The id of the control plane that is meant.
async fn control_plane(args: &Args, token: &str) -> anyhow::Result<String> {
    let wanted = &args.control_plane;
    let field = match uuid::Uuid::try_parse(wanted) {
        Ok(_) => "id",
        Err(_) => "name",
    };
    let value = utf8_percent_encode(wanted, NON_ALPHANUMERIC);
    let path = format!("/v2/control-planes?filter%5B{field}%5D%5Beq%5D={value}");
    let limit = Duration::from_secs(30);
    let answer = args.api.send(Method::GET, &path, Some(token), None, limit);
    let answer = answer.await?.good()?;
    let found = answer["data"].get(0).and_then(|it| it["id"].as_str());
    found.map(str::to_owned).with_context(|| {
        format!("--control-plane: there is no control plane {wanted:?} that this token may see")
    })
}
