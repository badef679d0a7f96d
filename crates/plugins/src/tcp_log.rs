//! `tcp-log`: writes a line for each request to a TCP connection.

use std::time::Duration;

use sallyport_model::schema::{Field, PROTOCOLS, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::exchange::{Env, Exchange, Handler};
use crate::finished::Finished;
use crate::log_queue::{
    CustomFields, Destination, Outlet, QueueSpec, Sink, custom_fields_by_lua, lines, milliseconds,
    queue_limits,
};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
Each request is a line of JSON, see [log queues](../log_queue.md#what-an-entry-tells). One connection is kept open;
what could not be written is tried again for a minute. With `tls` the server's certificate is not verified, as with
Kong: use it against readers on the way, not to be sure who reads.
";

/// The plugin, as the registry lists it.
pub(crate) struct TcpLog;

impl Plugin for TcpLog {
    fn name(&self) -> &'static str {
        "tcp-log"
    }

    fn priority(&self) -> i32 {
        7
    }

    fn summary(&self) -> &'static str {
        "writes a line for each request to a TCP connection"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::host("host")
                .required()
                .about("Name or address of the server."),
            Field::port("port").required().about("Its port."),
            Field::number("timeout")
                .default(json!(10_000))
                .about("For connecting, and for each write; milliseconds."),
            Field::number("keepalive")
                .default(json!(60_000))
                .about("How long the connection may be idle; milliseconds."),
            Field::boolean("tls")
                .required()
                .default(json!(false))
                .about("Whether the connection is encrypted."),
            Field::string("tls_sni")
                .about("The name asked for in the TLS handshake, if it is not `host`."),
            custom_fields_by_lua(),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        self.compile_entity(config, Uuid::nil())
    }

    fn compile_entity(&self, config: &Value, id: Uuid) -> Result<Box<dyn Handler>, CompileError> {
        let fields = CustomFields::compile(config)?;
        let config = Config::deserialize(config)?;
        let tls = config
            .tls
            .then(|| config.tls_sni.unwrap_or_else(|| config.host.clone()));
        let sink = Sink::Tcp {
            host: config.host,
            port: config.port,
            timeout: milliseconds(config.timeout, 10_000.0),
            keepalive: milliseconds(config.keepalive, 60_000.0),
            tls,
        };
        let outlet = Outlet::new(QueueSpec {
            plugin: self.name(),
            name: id.to_string(),
            limits: queue_limits(100, Some(Duration::from_secs(60))),
            destination: Destination::new(sink, |batch| vec![lines(batch)]),
        });
        Ok(Box::new(Active(outlet, fields)))
    }
}

#[derive(Deserialize)]
struct Config {
    host: String,
    port: u16,
    timeout: Option<f64>,
    keepalive: Option<f64>,
    tls: bool,
    tls_sni: Option<String>,
}

struct Active(Outlet, CustomFields);

impl Handler for Active {
    fn logs(&self) -> bool {
        true
    }

    fn log(&self, exchange: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        self.0.push(self.1.line(exchange, finished), env);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::queued;
    use crate::trial::problems;

    #[test]
    fn a_request_is_a_line() {
        let seen = queued(
            &TcpLog,
            json!({"host": "logs.example", "port": 514}),
            |_| (),
        );
        assert_eq!(seen.sink(), "logs.example:514");
        let text = seen.payloads(2);
        assert_eq!(text.len(), 1);
        assert_eq!(text[0].matches('\n').count(), 2);
        assert!(text[0].ends_with("}\n"));
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, expected) in [
            (json!({"port": 1}), "host: required field missing"),
            (
                json!({"host": "a", "port": 65_536}),
                "port: value should be between 0 and 65535",
            ),
            (
                json!({"host": "a b", "port": 1}),
                "host: invalid value: a b",
            ),
            (
                json!({"host": "a", "port": 1, "tls": "on"}),
                "tls: expected a boolean",
            ),
        ] {
            let found = problems(&TcpLog, config);
            assert!(found.contains(expected), "{found}");
        }
    }
}
