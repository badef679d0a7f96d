//! Asking name servers: UDP, and TCP where an answer does not fit.
//!
//! The servers are those of the settings, else those of `/etc/resolv.conf`, whose search list and
//! options count for both. Contract id: `dns`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use tracing::warn;

use super::look_up::{Ask, AskError, Data, Record};
use crate::conf::{Dns, RecordKind};

/// The name servers of this node.
pub(super) struct Servers(TokioResolver);

/// The servers cannot be asked.
#[derive(Debug)]
pub(super) struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Servers {
    /// The servers that the settings or the system name.
    pub(super) fn new(dns: &Dns) -> Result<Servers, Unusable> {
        let port = sallyport_contract::entry("dns").port().into();
        let (system, mut options) = system_conf::read_system_conf().unwrap_or_else(|error| {
            if dns.servers.is_empty() {
                warn!(%error, "no usable /etc/resolv.conf, asking 127.0.0.1");
            }
            (ResolverConfig::default(), ResolverOpts::default())
        });
        let (domain, search, mut servers) = system.into_parts();
        if !dns.servers.is_empty() {
            servers = dns.servers.iter().copied().map(server).collect();
        }
        if servers.is_empty() {
            servers = vec![server(SocketAddr::from(([127, 0, 0, 1], port)))];
        }
        // the hosts file and the cache are ours: see `hosts` and `known`
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let config = ResolverConfig::from_parts(domain, search, servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map(Servers)
            .map_err(|error| Unusable(error.to_string()))
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(
        address.ip(),
        true,
        vec![
            with_port(ConnectionConfig::udp()),
            with_port(ConnectionConfig::tcp()),
        ],
    )
}

impl Ask for Servers {
    async fn ask(&self, name: &str, kind: RecordKind) -> Result<Vec<Record>, AskError> {
        let wanted = match kind {
            RecordKind::A => RecordType::A,
            RecordKind::Aaaa => RecordType::AAAA,
            RecordKind::Srv => RecordType::SRV,
            RecordKind::Cname => RecordType::CNAME,
        };
        let found = self.0.lookup(name, wanted).await.map_err(error)?;
        let record = |record: &hickory_resolver::proto::rr::Record| {
            Some(Record {
                ttl: record.ttl,
                data: data(&record.data)?,
            })
        };
        Ok(found.answers().iter().filter_map(record).collect())
    }
}

fn data(data: &RData) -> Option<Data> {
    Some(match data {
        RData::A(ip) => Data::Ip(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Data::Ip(IpAddr::V6(ip.0)),
        RData::CNAME(name) => Data::Cname(name.0.to_ascii()),
        RData::SRV(srv) => Data::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_ascii(),
        },
        _ => return None,
    })
}

fn error(error: NetError) -> AskError {
    match error {
        NetError::Timeout => AskError::Silent,
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => AskError::NotFound,
            code => AskError::Failed(format!("the name servers say: {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => AskError::NotFound,
        other => AskError::Failed(other.to_string()),
    }
}
