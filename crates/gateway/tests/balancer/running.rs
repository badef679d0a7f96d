//! A gateway in this process with one service that goes to one upstream.

use std::net::SocketAddr;

use sallyport_gateway::conf::{Conf, Material};
use sallyport_gateway::{Gateway, TargetHealth};
use sallyport_testkit::{Deadline, Echo, eventually, http};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How long anything may take on a busy machine.
pub(crate) fn deadline() -> Deadline {
    Deadline::secs(30)
}

pub(crate) struct Running {
    runtime: Runtime,
    gateway: Option<Gateway>,
    address: SocketAddr,
}

impl Running {
    /// Upstream `pool` with these fields and targets behind `/`.
    pub(crate) fn pool(upstream: Value, targets: &[&str]) -> Running {
        Running::with(json!({}), upstream, targets, "")
    }

    /// As [`pool`](Running::pool), with fields of the service and lines of `kong.conf`.
    pub(crate) fn with(service: Value, upstream: Value, targets: &[&str], conf: &str) -> Running {
        let mut service_fields = json!({
            "name": "s", "host": "pool",
            "routes": [{"name": "r", "paths": ["/"], "strip_path": false}],
        });
        merge(&mut service_fields, service);
        let targets: Vec<_> = targets.iter().map(|it| json!({"target": it})).collect();
        let mut upstream_fields = json!({"name": "pool", "targets": targets});
        merge(&mut upstream_fields, upstream);
        let declared = json!({
            "_format_version": "3.0",
            "services": [service_fields],
            "upstreams": [upstream_fields],
        });
        Running::declared(&declared, conf)
    }

    pub(crate) fn declared(declared: &Value, conf: &str) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let text = format!(
            "database = off\nprefix = {}\nproxy_listen = 127.0.0.1:0\nstatus_listen = off\n\
             admin_listen = off\nnginx_main_worker_processes = 1\n{conf}\n",
            std::env::temp_dir().display()
        );
        let environment = [(
            "KONG_DECLARATIVE_CONFIG_STRING".to_owned(),
            declared.to_string(),
        )];
        let installed: Vec<_> = sallyport_plugins::ALL.iter().map(|p| p.name()).collect();
        let (conf, _) = Conf::load(Some(&text), environment, &installed).unwrap();
        let material = Material::read(&conf).unwrap();
        let gateway = runtime.block_on(Gateway::start(conf, material)).unwrap();
        let address = gateway.proxy_addresses()[0];
        Running {
            runtime,
            gateway: Some(gateway),
            address,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> http::Response {
        http::get(self.url(path)).send().unwrap()
    }

    /// The port of the echo that answered; 0 if the gateway did.
    pub(crate) fn who(&self, request: &http::Request) -> u16 {
        let answer = request.send().unwrap();
        match answer.status {
            200 => answer.json()["upstream"].as_u64().unwrap() as u16,
            _ => 0,
        }
    }

    /// Statuses of so many requests, in order.
    pub(crate) fn statuses(&self, requests: usize) -> Vec<u16> {
        (0..requests).map(|_| self.get("/").status).collect()
    }

    /// The targets of the upstream, as the gateway sees them.
    pub(crate) fn targets(&self) -> Vec<TargetHealth> {
        let upstreams = self.gateway().upstreams();
        upstreams.health_of("pool").unwrap().targets
    }

    /// Kong's words for the health of the targets.
    pub(crate) fn health(&self) -> Vec<&'static str> {
        let targets = self.targets();
        targets
            .iter()
            .map(|target| target.health.as_str())
            .collect()
    }

    /// Waits until the targets are in this health.
    #[track_caller]
    pub(crate) fn wait_for_health(&self, expected: &[&str]) {
        let what = format!("health {expected:?}");
        eventually(&what, deadline(), || self.health() == expected);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            self.runtime.block_on(gateway.stop());
        }
    }
}

fn merge(into: &mut Value, fields: Value) {
    for (name, value) in fields.as_object().unwrap() {
        into[name] = value.clone();
    }
}

/// Targets of these echoes.
pub(crate) fn targets(echoes: &[&Echo]) -> Vec<String> {
    echoes.iter().map(|echo| echo.addr().to_string()).collect()
}

/// As [`Running::pool`] with these echoes.
pub(crate) fn over(upstream: Value, echoes: &[&Echo]) -> Running {
    let targets = targets(echoes);
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    Running::pool(upstream, &targets)
}
