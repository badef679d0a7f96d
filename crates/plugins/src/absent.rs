//! Plugins that people know from Kong and that this build leaves out: refused by name, with the
//! reason. A plugin that only looks supported is worse than none.

/// Name and reason; a name that ends in `*` stands for all that begin so.
pub const ABSENT: &[(&str, &str)] = &[
    (
        "acme",
        "certificates from an ACME authority are not obtained by gateways here",
    ),
    ("ai-*", "requests are not rewritten for language models"),
    ("aws-lambda", "functions of clouds are not called"),
    ("azure-functions", "functions of clouds are not called"),
    (
        "datadog",
        "use `statsd` or `opentelemetry` towards the Datadog agent",
    ),
    ("grpc-gateway", "gRPC is not translated"),
    ("grpc-web", "gRPC is not translated"),
    (
        "ldap-auth",
        "directories are not asked; use basic-auth, key-auth or jwt",
    ),
    ("loggly", "use `syslog` towards Loggly's collector"),
    (
        "oauth2",
        "tokens need a database behind every gateway; use jwt with tokens of your own issuer",
    ),
    (
        "openid-connect",
        "it belongs to the commercial gateway; use jwt with your provider's keys",
    ),
    ("post-function", "code in configurations is not run"),
    ("pre-function", "code in configurations is not run"),
    (
        "standard-webhooks",
        "signatures of webhooks are not verified",
    ),
];

/// Why this build leaves a plugin out that Kong has; `None` for any other name.
pub fn absent(name: &str) -> Option<&'static str> {
    let is = |known: &str| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == known,
    };
    ABSENT
        .iter()
        .find(|(known, _)| is(known))
        .map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use sallyport_model::Kind;
    use sallyport_model::schema::parse_entity;
    use serde_json::json;

    use super::*;
    use crate::{ALL, schemas};

    #[test]
    fn what_is_left_out_is_refused_by_name_with_the_reason() {
        for (name, reason) in ABSENT {
            let name = name.replace('*', "proxy");
            let plugin = json!({"name": name, "config": {}});
            let errors = parse_entity(Kind::Plugin, plugin, schemas()).expect_err("it is left out");
            let message = format!("name: plugin '{name}' is not part of this build: {reason}");
            assert_eq!(
                errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
                [message]
            );
        }
        for plugin in ALL {
            assert_eq!(absent(plugin.name()), None, "{} is there", plugin.name());
        }
        assert_eq!(absent("no-such-plugin"), None);
    }
}
