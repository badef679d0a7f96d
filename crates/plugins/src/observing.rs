//! Plugins that only watch: leaving one out costs what it would have told, and opens nothing.

/// Names of plugins that change neither who gets through nor what is sent; also of those that
/// this build leaves out, because a control plane may configure them all the same.
const OBSERVING: &[&str] = &[
    "datadog",
    "file-log",
    "http-log",
    "kafka-log",
    "loggly",
    "opentelemetry",
    "prometheus",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// Whether the plugin with this name only watches.
pub fn observes(name: &str) -> bool {
    OBSERVING.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ALL;

    #[test]
    fn what_has_an_access_phase_that_refuses_is_no_observer() {
        let names = ALL.iter().map(|plugin| plugin.name());
        let acting: Vec<&str> = names.filter(|name| !observes(name)).collect();
        for name in [
            "key-auth",
            "basic-auth",
            "hmac-auth",
            "jwt",
            "acl",
            "session",
            "ip-restriction",
            "bot-detection",
            "rate-limiting",
            "request-size-limiting",
            "request-termination",
        ] {
            assert!(acting.contains(&name), "{name}");
        }
    }
}
