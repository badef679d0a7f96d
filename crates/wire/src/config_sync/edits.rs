//! What an older data plane must not be sent: it refuses a configuration for one field that it
//! does not know. Source: Kong's compatibility tables, data-plane reference 1.9.

use serde_json::{Map, Value, json};

use super::KongVersion;
use super::delta::Refused;

/// First versions that know something new, newest first.
const THRESHOLDS: [(u32, u32); 10] = [
    (3, 10),
    (3, 9),
    (3, 8),
    (3, 7),
    (3, 6),
    (3, 5),
    (3, 4),
    (3, 3),
    (3, 2),
    (3, 1),
];

/// Classes of versions: the newest, and one for each threshold.
const AGES: usize = THRESHOLDS.len() + 1;

/// How many different configurations there are: one as it is and one for each threshold, with
/// what only this make of data plane knows and without, and there with routes that have an
/// expression and without.
pub const CLASSES: usize = 3 * AGES;

/// The member of `process_conf` by which a data plane says what it knows that Kong's do not: a
/// list of words.
pub const KNOWS: &str = "sallyport_knows";

/// The word for [consumer groups and vaults of the type `file`](edit).
pub const KNOWS_GROUPS: &str = "consumer_groups";

/// Who made a data plane, as far as it matters for what it can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// It says that it [knows](KNOWS_GROUPS) what Kong's do not.
    Own,
    /// One of Kong's.
    Kong {
        /// Whether its `router_flavor` is `expressions`. With another one it refuses every
        /// configuration that has a route with an expression.
        expressions: bool,
    },
}

impl Make {
    /// By the settings that it shows.
    pub fn of(settings: &Map<String, Value>, own: bool) -> Make {
        let flavor = settings.get("router_flavor").and_then(Value::as_str);
        match own {
            true => Make::Own,
            false => Make::Kong {
                expressions: flavor == Some("expressions"),
            },
        }
    }
}

/// Which of the configurations a data plane gets; 0 is the one as it is. All versions of one class
/// get the same.
pub fn class(node: KongVersion, make: Make) -> usize {
    let older = |threshold: &&(u32, u32)| (node.major, node.minor) < **threshold;
    let age = THRESHOLDS.iter().filter(older).count();
    match make {
        Make::Own => age,
        Make::Kong { expressions: true } => AGES + age,
        Make::Kong { expressions: false } => 2 * AGES + age,
    }
}

/// Takes out what a router of Kong's that knows no expressions refuses a configuration for: routes
/// that have one, with their plugins.
fn without_expressions(config_table: &mut Value, noted: &mut Vec<Refused>) {
    let list = config_table.get_mut("routes").and_then(Value::as_array_mut);
    let mut gone = Vec::new();
    for route in list.into_iter().flatten() {
        if route["expression"].is_null() {
            if let Value::Object(route) = route {
                route.remove("priority");
                route.remove("expression");
            }
        } else if let Some(id) = route["id"].as_str() {
            gone.push(id.to_owned());
        }
    }
    if gone.is_empty() {
        return;
    }
    let hit = |id: &Value| id.as_str().is_some_and(|id| gone.iter().any(|it| it == id));
    for (table, of, field) in [
        ("routes", "id", "expression"),
        ("plugins", "route", "route"),
    ] {
        let list = config_table.get_mut(table).and_then(Value::as_array_mut);
        let Some(list) = list else { continue };
        list.retain(|entity| {
            let known = !hit(&entity[of]);
            let text = |name: &str| entity[name].as_str().unwrap_or_default().to_owned();
            if !known {
                noted.push(Refused {
                    entity_type: table.to_owned(),
                    entity_id: text("id"),
                    entity_name: text("name"),
                    field: field.to_owned(),
                    message: "not sent: a data plane of Kong knows it with \
                              router_flavor = expressions only"
                        .to_owned(),
                    kept: false,
                    closed: false,
                });
            }
            known
        });
    }
}

/// Fields of plugins that a version brought: first version, plugin, dotted paths in `config`.
const PLUGIN_FIELDS: &[((u32, u32), &str, &[&str])] = &[
    ((3, 10), "cors", &["allow_origin_absent"]),
    ((3, 10), "session", &["hash_subject", "store_metadata"]),
    ((3, 10), "prometheus", &["wasm_metrics"]),
    ((3, 10), "ai-proxy", &["llm_format"]),
    ((3, 10), "ai-prompt-guard", &["llm_format"]),
    ((3, 10), "ai-prompt-decorator", &["llm_format"]),
    ((3, 8), "response-transformer", &["rename.json"]),
    (
        (3, 8),
        "aws-lambda",
        &["empty_arrays_mode", "aws_sts_endpoint_url"],
    ),
    ((3, 8), "ldap-auth", &["realm"]),
    ((3, 8), "hmac-auth", &["realm"]),
    ((3, 8), "jwt", &["realm"]),
    ((3, 8), "oauth2", &["realm"]),
    (
        (3, 8),
        "opentelemetry",
        &["logs_endpoint", "queue.concurrency_limit"],
    ),
    ((3, 8), "http-log", &["queue.concurrency_limit"]),
    ((3, 8), "statsd", &["queue.concurrency_limit"]),
    ((3, 8), "datadog", &["queue.concurrency_limit"]),
    ((3, 8), "zipkin", &["queue.concurrency_limit"]),
    ((3, 8), "prometheus", &["ai_metrics"]),
    ((3, 8), "acl", &["always_use_authenticated_groups"]),
    ((3, 7), "opentelemetry", &["propagation"]),
    ((3, 7), "zipkin", &["propagation"]),
    ((3, 7), "key-auth", &["realm"]),
    (
        (3, 7),
        "ai-proxy",
        &["response_streaming", "model.options.upstream_path"],
    ),
    (
        (3, 7),
        "ai-request-transformer",
        &["llm.response_streaming", "llm.model.options.upstream_path"],
    ),
    (
        (3, 7),
        "ai-response-transformer",
        &["llm.response_streaming", "llm.model.options.upstream_path"],
    ),
    ((3, 6), "opentelemetry", &["sampling_rate"]),
    ((3, 6), "basic-auth", &["realm"]),
    ((3, 5), "acme", &["storage_config.redis.scan_count"]),
    ((3, 5), "cors", &["private_network"]),
    ((3, 5), "session", &["read_body_for_logout"]),
    ((3, 4), "rate-limiting", &["sync_rate"]),
    ((3, 4), "proxy-cache", &["response_headers"]),
    (
        (3, 3),
        "acme",
        &["account_key", "storage_config.redis.namespace"],
    ),
    ((3, 3), "aws-lambda", &["disable_https"]),
    ((3, 3), "proxy-cache", &["ignore_uri_case"]),
    (
        (3, 3),
        "opentelemetry",
        &["http_response_header_for_traceid", "queue", "header_type"],
    ),
    ((3, 3), "http-log", &["queue"]),
    ((3, 3), "statsd", &["queue"]),
    ((3, 3), "datadog", &["queue"]),
    ((3, 3), "zipkin", &["queue"]),
    ((3, 2), "statsd", &["tag_style"]),
    (
        (3, 2),
        "session",
        &[
            "audience",
            "absolute_timeout",
            "remember_cookie_name",
            "remember_rolling_timeout",
            "remember_absolute_timeout",
            "response_headers",
            "request_headers",
        ],
    ),
    ((3, 2), "aws-lambda", &["aws_imds_protocol_version"]),
    ((3, 2), "zipkin", &["phase_duration_flavor"]),
    (
        (3, 1),
        "acme",
        &[
            "enable_ipv4_common_name",
            "storage_config.redis.ssl",
            "storage_config.redis.ssl_verify",
            "storage_config.redis.ssl_server_name",
        ],
    ),
    ((3, 1), "rate-limiting", &["error_code", "error_message"]),
    (
        (3, 1),
        "response-ratelimiting",
        &["redis_ssl", "redis_ssl_verify", "redis_server_name"],
    ),
    (
        (3, 1),
        "datadog",
        &["retry_count", "queue_size", "flush_timeout"],
    ),
    (
        (3, 1),
        "statsd",
        &["retry_count", "queue_size", "flush_timeout"],
    ),
    ((3, 1), "session", &["cookie_persistent"]),
    ((3, 1), "zipkin", &["http_response_header_for_traceid"]),
];

/// Lists whose entities had no `updated_at` before 3.3.
const WITHOUT_UPDATED_AT: [&str; 8] = [
    "ca_certificates",
    "certificates",
    "consumers",
    "targets",
    "upstreams",
    "plugins",
    "workspaces",
    "snis",
];

/// Takes out what a data plane of open-source Kong refuses a configuration for: consumer groups
/// with their members and plugins, and vaults of the type `file`. Keys that expire too: they would
/// be good for longer there.
fn only_kongs(config_table: &mut Value, noted: &mut Vec<Refused>) {
    let mut take = |table: &str, field: &str, is_known: &dyn Fn(&Value) -> bool| {
        let Some(list) = config_table.get_mut(table).and_then(Value::as_array_mut) else {
            return;
        };
        list.retain(|entity| {
            let known = is_known(entity);
            let text = |name: &str| entity[name].as_str().unwrap_or_default().to_owned();
            if !known && table != "consumer_group_consumers" {
                noted.push(Refused {
                    entity_type: table.to_owned(),
                    entity_id: text("id"),
                    entity_name: text("name"),
                    field: field.to_owned(),
                    message: "not sent: data planes of Kong do not know it".to_owned(),
                    kept: false,
                    closed: false,
                });
            }
            known
        });
    };
    take("consumer_groups", "", &|_| false);
    take("consumer_group_consumers", "", &|_| false);
    take("plugins", "consumer_group", &|plugin| {
        plugin["consumer_group"].is_null()
    });
    take("vaults", "name", &|vault| vault["name"] != "file");
    // they would count its time from when the configuration came
    take("keyauth_credentials", "ttl", &|key| {
        key["ttl"].is_null() || key["ttl"] == 0
    });
    if let Value::Object(table) = config_table {
        for list in ["consumer_groups", "consumer_group_consumers"] {
            table.remove(list);
        }
    }
}

/// Makes a `config_table` one that a data plane of this class takes. What was set and is not sent,
/// or is sent as something else, comes back: the node does without it.
pub fn edit(config_table: &mut Value, class: usize) -> Vec<Refused> {
    let mut noted = Vec::new();
    if class >= AGES {
        only_kongs(config_table, &mut noted);
    }
    if class >= 2 * AGES {
        without_expressions(config_table, &mut noted);
    }
    for threshold in THRESHOLDS.iter().take(class % AGES) {
        let mut lists = Lists {
            table: config_table,
            threshold: *threshold,
            noted: &mut noted,
        };
        // rewriting comes first: it reads what is then removed
        match threshold {
            (3, 8) => lists.plugins("opentelemetry", |config, _| {
                if let Some(endpoint) = config.remove("traces_endpoint") {
                    config.insert("endpoint".to_owned(), endpoint);
                }
            }),
            (3, 6) => lists.flat_redis(),
            (3, 5) => lists.header_type("gcp"),
            (3, 4) => lists.header_type("aws"),
            (3, 3) => lists.before_queues(),
            (3, 2) => lists.before_sessions(),
            (3, 1) => lists.before_keys(),
            _ => {}
        }
        for (_, plugin, paths) in PLUGIN_FIELDS
            .iter()
            .filter(|(first, ..)| first == threshold)
        {
            lists.plugins(plugin, |config, note| {
                for path in *paths {
                    note(remove(config, path).then_some(path));
                }
            });
        }
    }
    noted
}

/// The lists of a table, while they are edited for data planes before a version.
struct Lists<'a> {
    table: &'a mut Value,
    threshold: (u32, u32),
    noted: &'a mut Vec<Refused>,
}

impl Lists<'_> {
    /// Edits each entity of a list; the callback names fields that were set and are not sent.
    fn each(
        &mut self,
        table: &str,
        mut edit: impl FnMut(&mut Map<String, Value>, &mut dyn FnMut(Option<&str>)),
    ) {
        let list = self.table.get_mut(table).and_then(Value::as_array_mut);
        for entity in list.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mut fields: Vec<String> = Vec::new();
            edit(entity, &mut |field| fields.extend(field.map(str::to_owned)));
            let text = |field: &str| {
                entity
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (major, minor) = self.threshold;
            for field in fields {
                self.noted.push(Refused {
                    entity_type: table.to_owned(),
                    entity_id: text("id").to_owned(),
                    entity_name: text("name").to_owned(),
                    message: format!("not sent: data planes before {major}.{minor} do not know it"),
                    field,
                    kept: true,
                    closed: false,
                });
            }
        }
    }

    /// Edits the `config` of each plugin of a name.
    fn plugins(
        &mut self,
        name: &str,
        mut edit: impl FnMut(&mut Map<String, Value>, &mut dyn FnMut(Option<&str>)),
    ) {
        self.each("plugins", |plugin, note| {
            if plugin.get("name").is_some_and(|own| own == name)
                && let Some(Value::Object(config)) = plugin.get_mut("config")
            {
                edit(config, &mut |field| {
                    note(field.map(|field| format!("config.{field}")).as_deref());
                });
            }
        });
    }

    /// Redis settings stood at the top of the configuration.
    fn flat_redis(&mut self) {
        const FIELDS: [&str; 9] = [
            "host",
            "port",
            "password",
            "username",
            "ssl",
            "ssl_verify",
            "server_name",
            "timeout",
            "database",
        ];
        for plugin in ["rate-limiting", "response-ratelimiting"] {
            self.plugins(plugin, |config, _| {
                let Some(Value::Object(mut redis)) = config.remove("redis") else {
                    return;
                };
                for field in FIELDS {
                    if let Some(value) = redis.remove(field) {
                        config.insert(format!("redis_{field}"), value);
                    }
                }
            });
        }
        self.plugins("acme", |config, _| {
            let redis = config
                .get_mut("storage_config")
                .and_then(|it| it.get_mut("redis"));
            let Some(Value::Object(redis)) = redis else {
                return;
            };
            if let Some(Value::Object(mut extra)) = redis.remove("extra_options") {
                for field in ["namespace", "scan_count"] {
                    if let Some(value) = extra.remove(field) {
                        redis.insert(field.to_owned(), value);
                    }
                }
            }
            for (new, old) in [("password", "auth"), ("server_name", "ssl_server_name")] {
                if let Some(value) = redis.remove(new) {
                    redis.insert(old.to_owned(), value);
                }
            }
            redis.remove("username");
        });
    }

    fn header_type(&mut self, unknown: &str) {
        for plugin in ["opentelemetry", "zipkin"] {
            self.plugins(plugin, |config, note| {
                for (field, instead) in [("header_type", "preserve"), ("default_header_type", "b3")]
                {
                    if config.get(field).is_some_and(|value| value == unknown) {
                        config.insert(field.to_owned(), json!(instead));
                        note(Some(field));
                    }
                }
            });
        }
    }

    fn before_queues(&mut self) {
        for plugin in ["http-log", "statsd", "datadog", "zipkin"] {
            self.plugins(plugin, |config, _| {
                let batch = config
                    .get("queue")
                    .and_then(|queue| queue.get("max_batch_size"));
                let batch = batch.cloned().unwrap_or(json!(1));
                for (field, value) in [
                    ("retry_count", json!(10)),
                    ("queue_size", batch),
                    ("flush_timeout", json!(2)),
                ] {
                    config.entry(field).or_insert(value);
                }
            });
        }
        self.plugins("opentelemetry", |config, _| {
            config.entry("batch_span_count").or_insert(json!(200));
            config.entry("batch_flush_delay").or_insert(json!(3));
        });
        for table in WITHOUT_UPDATED_AT {
            self.each(table, |entity, _| _ = entity.remove("updated_at"));
        }
        self.each("vaults", |vault, _| {
            if let Some(Value::String(prefix)) = vault.get_mut("prefix") {
                *prefix = prefix.replace('-', "_");
            }
        });
    }

    fn before_keys(&mut self) {
        self.each("upstreams", |upstream, note| {
            let set = upstream.remove("use_srv_name") == Some(Value::Bool(true));
            note(set.then_some("use_srv_name"));
        });
        for table in ["keys", "key_sets"] {
            let list = self.table.as_object_mut().and_then(|it| it.remove(table));
            for entity in list.iter().filter_map(Value::as_array).flatten() {
                let text = |field: &str| entity[field].as_str().unwrap_or_default().to_owned();
                self.noted.push(Refused {
                    entity_type: table.to_owned(),
                    entity_id: text("id"),
                    entity_name: text("name"),
                    field: String::new(),
                    message: "not sent: data planes before 3.1 have no keys".to_owned(),
                    kept: false,
                    closed: false,
                });
            }
        }
    }

    fn before_sessions(&mut self) {
        const RENAMED: [(&str, &str); 6] = [
            ("idling_timeout", "cookie_idletime"),
            ("rolling_timeout", "cookie_lifetime"),
            ("stale_ttl", "cookie_discard"),
            ("cookie_same_site", "cookie_samesite"),
            ("cookie_http_only", "cookie_httponly"),
            ("remember", "cookie_persistent"),
        ];
        self.plugins("session", |config, _| {
            for (new, old) in RENAMED {
                if let Some(value) = config.remove(new) {
                    let value = match value == "Default" {
                        true => json!("Lax"),
                        false => value,
                    };
                    config.insert(old.to_owned(), value);
                }
            }
        });
        self.each("plugins", |plugin, note| {
            let set = plugin
                .remove("instance_name")
                .is_some_and(|it| !it.is_null());
            note(set.then_some("instance_name"));
        });
        self.each("upstreams", |upstream, note| {
            if upstream.get("algorithm").is_some_and(|it| it == "latency") {
                upstream.insert("algorithm".to_owned(), json!("round-robin"));
                note(Some("algorithm"));
            }
        });
        self.each("services", |service, note| {
            if service.get("protocol").is_none_or(|it| it != "tls") {
                return;
            }
            for field in [
                "client_certificate",
                "tls_verify",
                "tls_verify_depth",
                "ca_certificates",
            ] {
                let set = service.remove(field).is_some_and(|it| !it.is_null());
                note(set.then_some(field));
            }
        });
    }
}

/// Removes what a dotted path leads to; whether it was set to anything.
fn remove(config: &mut Map<String, Value>, path: &str) -> bool {
    match path.split_once('.') {
        None => config.remove(path).is_some_and(|value| is_set(&value)),
        Some((first, rest)) => match config.get_mut(first) {
            Some(Value::Object(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => fields.values().any(is_set),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
