//! A control plane on loopback, and clients for it.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use sallyport_control::{
    AdminSettings, AuditLogSettings, Bootstrap, Running, Settings, TelemetrySettings, bootstrap,
    start,
};
use sallyport_runtime::certs::LocalCa;
use sallyport_runtime::tls::{self, Identity, client::ServerTrust};
use sallyport_store::Store;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub(crate) const BASE: &str = "sallyport.test";
pub(crate) const GEO: &str = "eu";

/// A control plane that runs, with what its first start made.
pub(crate) struct Lab {
    pub(crate) running: Running,
    pub(crate) store: Store,
    pub(crate) first: Bootstrap,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) directory: TempDir,
    pub(crate) settings: Settings,
}

/// An answer: status, media type and JSON body (null if there is none).
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: Value,
}

impl Lab {
    pub(crate) async fn start() -> Lab {
        Lab::start_limited(0).await
    }

    /// One whose tokens may send this many requests a second.
    pub(crate) async fn start_limited(requests_per_second: u32) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
        let first = bootstrap(&store, "test", None).await.unwrap();
        let ca = LocalCa::create("test authority", 30).unwrap();
        let cp0 = format!("*.{GEO}.cp0.{BASE}");
        let tp0 = format!("*.{GEO}.tp0.{BASE}");
        let kic = format!("{GEO}.kic.api.{BASE}");
        let names = [
            "localhost",
            "127.0.0.1",
            cp0.as_str(),
            tp0.as_str(),
            kic.as_str(),
        ];
        let server = ca.issue_server(&names, 30).unwrap();
        let settings = Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            listen_setting: "listen".to_owned(),
            listen_plain: None,
            base_domain: BASE.to_owned(),
            geo: GEO.to_owned(),
            identity: Identity::from_pem(&server.cert, &server.key).unwrap(),
            node_purge_delay: sallyport_control::NODE_PURGE_DELAY,
            more_geos: Vec::new(),
            shared_identity: None,
            issuer: None,
            audit_log: AuditLogSettings::quiet(directory.path()),
            telemetry: TelemetrySettings::quiet(directory.path()),
            requests_per_second,
            admin: Some(AdminSettings {
                listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
                listen_tls: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
                control_plane: "default".to_owned(),
            }),
        };
        let running = start(
            settings.clone(),
            store.clone(),
            sallyport_plugins::schemas(),
        )
        .await
        .unwrap();
        let mut roots = RootCertStore::empty();
        for authority in tls::certificates(&ca.pem().cert).unwrap() {
            roots.add(authority).unwrap();
        }
        Lab {
            running,
            store,
            first,
            roots: Arc::new(roots),
            directory,
            settings,
        }
    }

    /// Stops the process's part of it and starts it again on the same database, at another port.
    pub(crate) async fn restart(self) -> Lab {
        self.running.stop().await;
        let settings = self.settings.clone();
        let running = start(settings, self.store.clone(), sallyport_plugins::schemas())
            .await
            .unwrap();
        Lab { running, ..self }
    }

    pub(crate) fn cp(&self) -> String {
        self.first.control_plane.id.to_string()
    }

    /// Handshake settings of a client that may show a certificate.
    pub(crate) fn tls(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let trust = ServerTrust::Roots(Arc::clone(&self.roots));
        Arc::new(tls::client::client_config(trust, identity).unwrap())
    }

    /// One API request over TLS with the given token.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = TcpStream::connect(self.running.local_addr).await.unwrap();
        let stream = tls::client::connect(self.tls(None), "localhost", stream)
            .await
            .unwrap();
        let token = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> = [("host", "localhost")]
            .into_iter()
            .chain(token.as_deref().map(|token| ("authorization", token)))
            .collect();
        exchange(stream, method, path, &headers, body).await
    }

    /// One request over TLS to a host name, with a client certificate if there is one.
    pub(crate) async fn request_with(
        &self,
        host: &str,
        identity: Option<&Identity>,
        method: Method,
        path: &str,
        body: Value,
    ) -> Answer {
        let stream = TcpStream::connect(self.running.local_addr).await.unwrap();
        let stream = tls::client::connect(self.tls(identity), host, stream)
            .await
            .unwrap();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        exchange(stream, method, path, &[("host", host)], body).await
    }

    pub(crate) async fn api(&self, method: Method, path: &str, body: Value) -> Answer {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.request(method, path, Some(&self.first.token), text)
            .await
    }

    /// A request below the core-entities of the default control plane.
    pub(crate) async fn core(&self, method: Method, path: &str, body: Value) -> Answer {
        let path = format!("/v2/control-planes/{}/core-entities/{path}", self.cp());
        self.api(method, &path, body).await
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
        self.store.close().await;
        drop(self.directory);
    }
}

/// One request without TLS.
pub(crate) async fn plain(
    addr: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let stream = TcpStream::connect(addr).await.unwrap();
    let host = addr.to_string();
    let mut all = headers.to_vec();
    if !all.iter().any(|(name, _)| *name == "host") {
        all.push(("host", &host));
    }
    exchange(stream, method, path, &all, body).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let exchange = async {
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let kind = answer.headers().get("content-type");
        let kind = kind.map_or(String::new(), |kind| kind.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body).as_ref())),
        };
        drop(sender);
        Answer { status, kind, body }
    };
    // The connection ends by itself once the sender is dropped.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
