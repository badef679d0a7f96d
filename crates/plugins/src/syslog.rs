//! `syslog`: tells the syslog daemon of the machine about each request.

use sallyport_model::schema::{Field, PROTOCOLS, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::exchange::{Env, Exchange, Handler};
use crate::finished::Finished;
use crate::log_queue::{
    CustomFields, Destination, Outlet, QueueSpec, Sink, custom_fields_by_lua, queue_limits,
};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
Each request is a message of the program `kong` with a JSON object, see
[log queues](../log_queue.md#what-an-entry-tells). Its severity is that of its status: `server_errors_severity` from 500,
`client_errors_severity` from 400, else `successful_severity`. A message whose severity is below `log_level` is not sent.

Messages go to the Unix socket that `sallyport_syslog_socket` in `kong.conf` names (default `/dev/log`), never over the
network. The daemon puts the time on them. While it is away they are lost and counted, as with syslog(3).
";

/// From the most severe on, as numbered in RFC 5424 section 6.2.1.
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// Numbered by their place, apart from the gap before `local0`. Source: RFC 5424 section 6.2.1 and
/// `<sys/syslog.h>` for 9 to 11.
const FACILITIES: [&str; 20] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const LOCAL0: usize = 12;

/// The plugin, as the registry lists it.
pub(crate) struct Syslog;

impl Plugin for Syslog {
    fn name(&self) -> &'static str {
        "syslog"
    }

    fn priority(&self) -> i32 {
        4
    }

    fn summary(&self) -> &'static str {
        "tells the syslog daemon of the machine about each request"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        let severity = |name, about| {
            Field::string(name)
                .one_of(&[
                    "debug", "info", "notice", "warning", "err", "crit", "alert", "emerg",
                ])
                .required()
                .default(json!("info"))
                .about(about)
        };
        Record::new([
            severity("log_level", "The least severe messages that are sent."),
            severity(
                "successful_severity",
                "Of requests with a status below 400.",
            ),
            severity(
                "client_errors_severity",
                "Of requests with a status from 400 to 499.",
            ),
            severity(
                "server_errors_severity",
                "Of requests with a status from 500 on.",
            ),
            custom_fields_by_lua(),
            Field::string("facility")
                .one_of(&[
                    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news",
                    "syslog", "user", "uucp", "local0", "local1", "local2", "local3", "local4",
                    "local5", "local6", "local7",
                ])
                .required()
                .default(json!("user"))
                .about("What kind of program the messages are said to be of."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        self.compile_entity(config, Uuid::nil())
    }

    fn compile_entity(&self, config: &Value, id: Uuid) -> Result<Box<dyn Handler>, CompileError> {
        let fields = CustomFields::compile(config)?;
        let config = Config::deserialize(config)?;
        let severity = |name: &str| number(&SEVERITIES, name);
        let facility = number(&FACILITIES, &config.facility)?;
        Ok(Box::new(Active {
            fields,
            outlet: Outlet::new(QueueSpec {
                plugin: self.name(),
                name: id.to_string(),
                limits: queue_limits(100, None),
                destination: Destination::new(Sink::Syslog, <[_]>::to_vec),
            }),
            facility: facility + if facility >= LOCAL0 { 4 } else { 0 },
            level: severity(&config.log_level)?,
            successful: severity(&config.successful_severity)?,
            client_errors: severity(&config.client_errors_severity)?,
            server_errors: severity(&config.server_errors_severity)?,
        }))
    }
}

fn number(names: &[&str], name: &str) -> Result<usize, CompileError> {
    let found = names.iter().position(|known| *known == name);
    found.ok_or_else(|| CompileError::value(format!("{name:?} is unknown")))
}

#[derive(Deserialize)]
struct Config {
    log_level: String,
    successful_severity: String,
    client_errors_severity: String,
    server_errors_severity: String,
    facility: String,
}

struct Active {
    outlet: Outlet,
    fields: CustomFields,
    facility: usize,
    level: usize,
    successful: usize,
    client_errors: usize,
    server_errors: usize,
}

impl Handler for Active {
    fn logs(&self) -> bool {
        true
    }

    fn log(&self, exchange: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        let severity = match finished.status.as_u16() {
            500.. => self.server_errors,
            400.. => self.client_errors,
            _ => self.successful,
        };
        if severity > self.level {
            return;
        }
        let mut message = format!("<{}>kong: ", self.facility * 8 + severity).into_bytes();
        message.extend_from_slice(&self.fields.line(exchange, finished));
        self.outlet.push(message, env);
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::testing::queued;
    use crate::trial::problems;

    #[track_caller]
    fn check(config: Value, status: u16, expected: Option<&str>) {
        let seen = queued(&Syslog, config, |finished| {
            finished.status = StatusCode::from_u16(status).unwrap();
        });
        let messages = seen.payloads(1);
        let start = messages.first().map(|text| text.split('{').next().unwrap());
        assert_eq!(start, expected);
    }

    #[test]
    fn facility_and_severity_make_the_priority() {
        check(json!({}), 200, Some("<14>kong: "));
        check(
            json!({"facility": "local0", "server_errors_severity": "crit"}),
            503,
            Some("<130>kong: "),
        );
        check(json!({"facility": "local7"}), 404, Some("<190>kong: "));
        check(json!({"facility": "ftp"}), 404, Some("<94>kong: "));
        let quiet = json!({"log_level": "err", "server_errors_severity": "err",
                           "client_errors_severity": "notice"});
        check(quiet.clone(), 200, None);
        check(quiet.clone(), 404, None);
        check(quiet, 500, Some("<11>kong: "));
    }

    #[test]
    fn bad_configurations_are_named() {
        let found = problems(&Syslog, json!({"log_level": "loud", "facility": "x"}));
        assert!(
            found.contains("log_level: expected one of: debug"),
            "{found}"
        );
        assert!(found.contains("facility: expected one of: auth"), "{found}");
    }
}
