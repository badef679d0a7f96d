//! The kinds of entity this build knows, and the names each goes by on different surfaces.

use std::fmt;

/// A kind of entity in a gateway configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A certificate with its key, shown to clients or to upstreams.
    Certificate,
    /// A server name that a certificate is shown for.
    Sni,
    /// An authority whose certificates are believed.
    CaCertificate,
    /// Keys that belong together.
    KeySet,
    /// A key to sign or encrypt with, or to verify.
    Key,
    /// An upstream API that routes forward to.
    Service,
    /// A rule that matches requests and gives them to a service.
    Route,
    /// Somebody who calls APIs through the gateway.
    Consumer,
    /// A key that identifies a consumer (plugin `key-auth`).
    KeyAuth,
    /// A user name and password of a consumer (plugin `basic-auth`).
    BasicAuth,
    /// A user name and signing secret of a consumer (plugin `hmac-auth`).
    HmacAuth,
    /// What verifies a consumer's tokens (plugin `jwt`).
    Jwt,
    /// A consumer's membership in a group (plugin `acl`).
    Acl,
    /// One configuration of a plugin in one scope.
    Plugin,
    /// A virtual host name that balances over targets.
    Upstream,
    /// An address of an upstream.
    Target,
    /// A place for secrets, named by a prefix that references begin with.
    Vault,
    /// Consumers that plugins are configured for together.
    ConsumerGroup,
    /// That a consumer is in a consumer group.
    ConsumerGroupMember,
}

impl Kind {
    /// Every kind, parents before the entities that refer to them.
    pub const ALL: [Kind; 19] = [
        Kind::Vault,
        Kind::Certificate,
        Kind::CaCertificate,
        Kind::Sni,
        Kind::KeySet,
        Kind::Key,
        Kind::Service,
        Kind::Consumer,
        Kind::ConsumerGroup,
        Kind::ConsumerGroupMember,
        Kind::Upstream,
        Kind::Route,
        Kind::KeyAuth,
        Kind::BasicAuth,
        Kind::HmacAuth,
        Kind::Jwt,
        Kind::Acl,
        Kind::Target,
        Kind::Plugin,
    ];

    /// The name in URLs of the Admin API and of core-entities, such as `key-auths`.
    pub fn collection(self) -> &'static str {
        match self {
            Kind::KeySet => "key-sets",
            Kind::KeyAuth => "key-auths",
            Kind::BasicAuth => "basic-auths",
            Kind::HmacAuth => "hmac-auths",
            Kind::Jwt => "jwts",
            other => other.table(),
        }
    }

    /// The name in declarative files, in hybrid payloads and in `schemas/{x}`, such as
    /// `keyauth_credentials`.
    pub fn table(self) -> &'static str {
        match self {
            Kind::Certificate => "certificates",
            Kind::Sni => "snis",
            Kind::CaCertificate => "ca_certificates",
            Kind::KeySet => "key_sets",
            Kind::Key => "keys",
            Kind::Service => "services",
            Kind::Route => "routes",
            Kind::Consumer => "consumers",
            Kind::KeyAuth => "keyauth_credentials",
            Kind::BasicAuth => "basicauth_credentials",
            Kind::HmacAuth => "hmacauth_credentials",
            Kind::Jwt => "jwt_secrets",
            Kind::Acl => "acls",
            Kind::Plugin => "plugins",
            Kind::Upstream => "upstreams",
            Kind::Target => "targets",
            Kind::Vault => "vaults",
            Kind::ConsumerGroup => "consumer_groups",
            Kind::ConsumerGroupMember => "consumer_group_consumers",
        }
    }

    /// The name of one entity, in messages and in `v1/schemas/json/{x}`, such as `key-auth`.
    pub fn singular(self) -> &'static str {
        match self {
            Kind::Certificate => "certificate",
            Kind::Sni => "sni",
            Kind::CaCertificate => "ca_certificate",
            Kind::KeySet => "key-set",
            Kind::Key => "key",
            Kind::Service => "service",
            Kind::Route => "route",
            Kind::Consumer => "consumer",
            Kind::KeyAuth => "key-auth",
            Kind::BasicAuth => "basic-auth",
            Kind::HmacAuth => "hmac-auth",
            Kind::Jwt => "jwt",
            Kind::Acl => "acl",
            Kind::Plugin => "plugin",
            Kind::Upstream => "upstream",
            Kind::Target => "target",
            Kind::Vault => "vault",
            Kind::ConsumerGroup => "consumer_group",
            Kind::ConsumerGroupMember => "consumer_group_consumer",
        }
    }

    /// Whether it belongs to a consumer and is written below it: credentials and groups.
    pub fn is_of_consumer(self) -> bool {
        matches!(
            self,
            Kind::KeyAuth | Kind::BasicAuth | Kind::HmacAuth | Kind::Jwt | Kind::Acl
        )
    }

    /// The kind whose [`collection`](Kind::collection) this is.
    pub fn from_collection(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.collection() == name)
    }

    /// The kind whose [`table`](Kind::table) this is.
    pub fn from_table(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.table() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_kind() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_collection(kind.collection()), Some(kind));
            assert_eq!(Kind::from_table(kind.table()), Some(kind));
        }
    }
}
