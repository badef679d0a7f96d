//! This project's gateway without a control plane.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{Peer, Plan};
use crate::workload::{CONSUMERS, LIMIT_PER_MINUTE, Name, ROUTES_PER_SERVICE, Workload};

/// `sallyport gateway` with a declarative file.
pub(crate) struct Sallyport {
    label: String,
    executable: PathBuf,
    /// Whether it was built from this source tree, so that the tree's commit says what it is.
    built: bool,
}

impl Sallyport {
    /// Takes the executable at `path`, or builds one with the profile for benchmarks.
    pub(crate) fn new(label: String, path: Option<&Path>) -> anyhow::Result<Sallyport> {
        let executable = match path {
            // Proxies run in directories of their own.
            Some(path) => std::path::absolute(path).context("--sallyport")?,
            None => build()?,
        };
        if !executable.is_file() {
            bail!("there is no executable {}", executable.display());
        }
        Ok(Sallyport {
            label,
            executable,
            built: path.is_none(),
        })
    }
}

/// Builds the executable with link-time optimisation and returns where it is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = [
        "build",
        "--profile",
        "bench",
        "--package",
        "sallyport",
        "--bin",
        "sallyport",
    ];
    eprintln!("building sallyport with --profile bench");
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(args)
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("could not run cargo")?;
    if !output.status.success() {
        bail!("could not build sallyport; --sallyport takes an executable that is there");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut artifacts = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    artifacts.next_back().context("cargo named no executable")
}

impl Peer for Sallyport {
    fn label(&self) -> &str {
        &self.label
    }

    fn version(&self) -> anyhow::Result<String> {
        let version = crate::machine::first_line(&self.executable, "--version")?;
        if !self.built {
            return Ok(version);
        }
        let git = Command::new("git")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["describe", "--always", "--dirty", "--exclude", "*"])
            .output();
        Ok(match git {
            Ok(output) if output.status.success() => {
                format!(
                    "{version} ({})",
                    String::from_utf8_lossy(&output.stdout).trim()
                )
            }
            _ => version,
        })
    }

    fn prepare(&self, plan: &Plan<'_>) -> anyhow::Result<Vec<OsString>> {
        let declarative = plan.dir.join("kong.yml");
        let prefix = plan.dir.join("prefix");
        let conf = plan.dir.join("kong.conf");
        // The workload `plain` compares forwarding alone, so that our own response headers, which
        // nginx does not have, are off; `gateway` runs with the defaults.
        let headers = match plan.workload.name {
            Name::Gateway | Name::Transform => "",
            _ => "headers = off\nheaders_upstream = off\n",
        };
        let (flags, certificate) = match &plan.tls {
            None => ("", String::new()),
            Some(tls) => {
                let (cert, key) = (tls.cert.display(), tls.key.display());
                let certificate = format!("ssl_cert = {cert}\nssl_cert_key = {key}\n");
                (" ssl http2", certificate)
            }
        };
        let text = format!(
            "role = traditional\n\
             database = off\n\
             declarative_config = {}\n\
             prefix = {}\n\
             proxy_listen = 127.0.0.1:{}{flags}\n\
             admin_listen = off\n\
             status_listen = off\n\
             nginx_main_worker_processes = 1\n\
             proxy_access_log = off\n\
             {headers}{certificate}",
            declarative.display(),
            prefix.display(),
            plan.port,
        );
        let write = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| format!("could not write {path:?}"))
        };
        fs::create_dir(&prefix).with_context(|| format!("could not make {prefix:?}"))?;
        write(&conf, &text)?;
        write(&declarative, &kong_yml(plan.workload, plan.backend))?;
        Ok(vec![
            self.executable.clone().into(),
            "gateway".into(),
            "-c".into(),
            conf.into(),
        ])
    }
}

/// The workload in Kong's declarative format.
fn kong_yml(workload: &Workload, backend: u16) -> String {
    let mut yml = String::from("_format_version: \"3.0\"\nservices:\n");
    if !workload.name.has_keys() {
        _ = write!(
            yml,
            "- name: backend\n  url: http://127.0.0.1:{backend}\n  \
             routes:\n  - name: all\n    paths: [\"/\"]\n"
        );
        return yml;
    }
    for route in 0..workload.routes {
        if route % ROUTES_PER_SERVICE == 0 {
            let service = route / ROUTES_PER_SERVICE;
            _ = write!(
                yml,
                "- name: service-{service:03}\n  url: http://127.0.0.1:{backend}\n  routes:\n"
            );
        }
        let prefix = Workload::prefix(route);
        _ = writeln!(yml, "  - name: route-{route:04}\n    paths: [\"{prefix}\"]");
    }
    yml.push_str("consumers:\n");
    for number in 0..CONSUMERS {
        let (key, consumer) = (Workload::key(number), Workload::consumer(number));
        _ = writeln!(
            yml,
            "- username: {consumer}\n  keyauth_credentials:\n  - key: {key}"
        );
    }
    _ = write!(
        yml,
        "plugins:\n- name: key-auth\n- name: rate-limiting\n  config:\n    \
         minute: {LIMIT_PER_MINUTE}\n    policy: local\n    limit_by: consumer\n"
    );
    if workload.name == Name::Transform {
        yml.push_str(
            "- name: request-transformer\n  config:\n    \
             add: {headers: [\"x-gateway:bench\"]}\n    \
             rename: {headers: [\"x-client:x-caller\"]}\n    \
             remove: {headers: [x-internal]}\n",
        );
    }
    yml
}
