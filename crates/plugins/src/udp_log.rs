//! `udp-log`: sends a datagram for each request.

use sallyport_model::schema::{Field, PROTOCOLS, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::exchange::{Env, Exchange, Handler};
use crate::finished::Finished;
use crate::log_queue::{
    CustomFields, Destination, Outlet, QueueSpec, Sink, custom_fields_by_lua, milliseconds,
    queue_limits,
};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
Each request is a datagram with a JSON object, see [log queues](../log_queue.md#what-an-entry-tells). An entry that is
too large for a datagram (65,507 bytes) is lost and counted; of others that get lost on the way nobody knows.
";

/// The plugin, as the registry lists it.
pub(crate) struct UdpLog;

impl Plugin for UdpLog {
    fn name(&self) -> &'static str {
        "udp-log"
    }

    fn priority(&self) -> i32 {
        8
    }

    fn summary(&self) -> &'static str {
        "sends a datagram for each request"
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
                .about("Name or address of the receiver."),
            Field::port("port").required().about("Its port."),
            Field::number("timeout")
                .default(json!(10_000))
                .about("For looking up the name; milliseconds."),
            custom_fields_by_lua(),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        self.compile_entity(config, Uuid::nil())
    }

    fn compile_entity(&self, config: &Value, id: Uuid) -> Result<Box<dyn Handler>, CompileError> {
        let fields = CustomFields::compile(config)?;
        let config = Config::deserialize(config)?;
        let sink = Sink::Udp {
            host: config.host,
            port: config.port,
            timeout: milliseconds(config.timeout, 10_000.0),
        };
        let outlet = Outlet::new(QueueSpec {
            plugin: self.name(),
            name: id.to_string(),
            limits: queue_limits(100, None),
            destination: Destination::new(sink, <[_]>::to_vec),
        });
        Ok(Box::new(Active(outlet, fields)))
    }
}

#[derive(Deserialize)]
struct Config {
    host: String,
    port: u16,
    timeout: Option<f64>,
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
    fn a_request_is_a_datagram() {
        let seen = queued(&UdpLog, json!({"host": "::1", "port": 514}), |_| ());
        let datagrams = seen.payloads(2);
        assert_eq!(datagrams.len(), 2);
        assert!(datagrams[0].starts_with('{') && datagrams[0].ends_with('}'));
    }

    #[test]
    fn bad_configurations_are_named() {
        let found = problems(&UdpLog, json!({"host": "a", "port": -1, "tls": true}));
        assert!(found.contains("port: value should be between"), "{found}");
        assert!(found.contains("tls: unknown field"), "{found}");
    }
}
