//! The files that settings name: certificates, authorities, the declarative configuration.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use sallyport_runtime::certs::self_signed_localhost;
use sallyport_runtime::tls::client::TrustError;
use sallyport_runtime::tls::{Identity, IdentityError, ServerTrust, trust_store};

use super::settings::Problem;
use super::{CertificateSetting, Conf, DeclarativeSetting, Listener, Mtls};

/// Days for which a generated fallback certificate is valid; it is new at every start.
const FALLBACK_DAYS: u32 = 3650;

/// Everything read from the files that settings name.
#[derive(Debug)]
pub struct Material {
    /// Certificates of the listeners for requests and streams; never empty if one of them ends TLS.
    pub proxy: Vec<Identity>,
    /// The same for the Status API.
    pub status: Vec<Identity>,
    /// The same for the Admin API.
    pub admin: Vec<Identity>,
    /// What upstreams are shown that ask for a certificate, if settings name it.
    pub client: Option<Identity>,
    /// What the link to the control plane needs, on a data plane.
    pub cluster: Option<ClusterMaterial>,
    /// The declarative configuration to start with.
    pub declarative: Option<Declarative>,
}

/// Who this node is to the control plane, and whom it believes.
#[derive(Clone, Debug)]
pub struct ClusterMaterial {
    /// The certificate shown.
    pub identity: Identity,
    /// The certificates believed.
    pub trust: ServerTrust,
}

/// A declarative configuration as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Declarative {
    /// Where it comes from, for messages: a path, or the name of the property.
    pub origin: String,
    /// YAML or JSON; it may hold secrets.
    pub text: String,
}

impl fmt::Debug for Declarative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Declarative({}, {} bytes)", self.origin, self.text.len())
    }
}

impl Declarative {
    /// Reads it, if the settings name one.
    ///
    /// # Errors
    /// The file is missing or unreadable, with the property that names it.
    pub fn read(conf: &Conf) -> Result<Option<Declarative>, Vec<Problem>> {
        let mut problems = Problems {
            conf,
            found: Vec::new(),
        };
        let declarative = declarative(conf, &mut problems);
        match problems.found.is_empty() {
            true => Ok(declarative),
            false => Err(problems.found),
        }
    }
}

impl Material {
    /// Reads all files.
    ///
    /// # Errors
    /// Every file that is missing or unusable, with the property that names it.
    pub fn read(conf: &Conf) -> Result<Material, Vec<Problem>> {
        let mut problems = Problems {
            conf,
            found: Vec::new(),
        };
        let material = Material {
            proxy: identities(
                "ssl_cert",
                &conf.ssl_cert,
                [&conf.proxy_listen, &conf.stream_listen],
                &mut problems,
            ),
            client: conf.client_ssl.as_ref().and_then(|setting| {
                Identity::load(&setting.certificate, &setting.key)
                    .map_err(|error| problems.add("client_ssl_cert", error))
                    .ok()
            }),
            status: identities(
                "status_ssl_cert",
                &conf.status_ssl_cert,
                [&conf.status_listen, &[][..]],
                &mut problems,
            ),
            admin: identities(
                "admin_ssl_cert",
                &conf.admin_ssl_cert,
                [&conf.admin_listen, &[][..]],
                &mut problems,
            ),
            cluster: cluster(conf, &mut problems),
            declarative: declarative(conf, &mut problems),
        };
        if problems.found.is_empty() {
            Ok(material)
        } else {
            Err(problems.found)
        }
    }
}

/// Collects what is wrong with the files.
struct Problems<'a> {
    conf: &'a Conf,
    found: Vec<Problem>,
}

impl Problems<'_> {
    /// Values are left out: they may be keys or whole documents, and messages name the path.
    fn add(&mut self, key: &str, message: impl fmt::Display) {
        self.found.push(Problem {
            key: key.to_owned(),
            value: String::new(),
            source_of: self.conf.source_of(key),
            message: message.to_string(),
        });
    }
}

fn identities(
    key: &str,
    settings: &[CertificateSetting],
    listeners: [&[Listener]; 2],
    problems: &mut Problems<'_>,
) -> Vec<Identity> {
    let mut identities = Vec::new();
    for setting in settings {
        match Identity::load(&setting.certificate, &setting.key) {
            Ok(identity) => identities.push(identity),
            Err(error) => problems.add(key, error),
        }
    }
    if settings.is_empty() && listeners.concat().iter().any(|listener| listener.tls) {
        let fallback = self_signed_localhost(FALLBACK_DAYS)
            .map_err(|error| error.to_string())
            .and_then(|pair| {
                Identity::from_pem(&pair.cert, &pair.key).map_err(|error| error.to_string())
            });
        match fallback {
            Ok(identity) => identities.push(identity),
            Err(error) => problems.add(key, error),
        }
    }
    identities
}

fn cluster(conf: &Conf, problems: &mut Problems<'_>) -> Option<ClusterMaterial> {
    let cluster = conf.cluster.as_ref()?;
    let identity = Identity::load(&cluster.cert, &cluster.cert_key)
        .map_err(|error| {
            let of_key = matches!(error, IdentityError::Key(_));
            problems.add(
                if of_key {
                    "cluster_cert_key"
                } else {
                    "cluster_cert"
                },
                error,
            );
        })
        .ok();
    let roots = match cluster.mtls {
        // Kong trusts the shared certificate itself; the system's authorities never issue it.
        Mtls::Shared => None,
        Mtls::Pki => {
            let trusted = match trust_store(&conf.lua_ssl_trusted_certificate) {
                Ok(trusted) => Some(trusted),
                // A slim image has no authorities of its own; the cluster's one is enough.
                Err(TrustError::System(_)) if cluster.ca_cert.is_some() => {
                    Some(RootCertStore::empty())
                }
                Err(error) => {
                    problems.add("lua_ssl_trusted_certificate", error);
                    None
                }
            };
            let own = trust_store(cluster.ca_cert.as_slice())
                .map_err(|error| problems.add("cluster_ca_cert", error))
                .ok();
            let (mut trusted, own) = (trusted?, own?);
            trusted.extend(own.roots);
            Some(trusted)
        }
    };
    let identity = identity?;
    let trust = match roots {
        Some(roots) => ServerTrust::Roots(Arc::new(roots)),
        None => ServerTrust::Exactly(identity.leaf().clone()),
    };
    Some(ClusterMaterial { identity, trust })
}

fn declarative(conf: &Conf, problems: &mut Problems<'_>) -> Option<Declarative> {
    match conf.declarative.as_ref()? {
        DeclarativeSetting::Text(text) => Some(Declarative {
            origin: "declarative_config_string".to_owned(),
            text: text.clone(),
        }),
        DeclarativeSetting::Path(path) => match std::fs::read_to_string(path) {
            Ok(text) => Some(Declarative {
                origin: path.display().to_string(),
                text,
            }),
            Err(error) => {
                let message = format!("{}: {error}", path.display());
                problems.add("declarative_config", message);
                None
            }
        },
    }
}
