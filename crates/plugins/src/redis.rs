//! Redis as plugins use it: which server their configuration names, and how they ask it.
//!
//! This crate opens no socket: the gateway brings the connections, see [`Redis`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sallyport_model::schema::{EntityCheck, Field, FieldError, Path, Record};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::CompileError;

/// A server as the `redis` record of a configuration names it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisServer {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How long connecting may take, and each command after it.
    pub timeout: Duration,
    /// For `AUTH`; only with a password.
    pub username: Option<String>,
    /// For `AUTH`; nothing is sent without one.
    pub password: Option<String>,
    /// For `SELECT`.
    pub database: u32,
    /// How the connection is encrypted, if it is.
    pub tls: Option<RedisTls>,
}

/// How a connection to Redis is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisTls {
    /// Whether the certificate must chain to `lua_ssl_trusted_certificate`.
    pub verify: bool,
    /// The name that is asked for; the host unless the configuration says otherwise.
    pub server_name: String,
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

/// What a server answers to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisValue {
    /// No value.
    Nil,
    /// A whole number.
    Integer(i64),
    /// A short text such as `OK`, or a string of bytes.
    Bytes(Vec<u8>),
    /// Several values.
    List(Vec<RedisValue>),
}

impl RedisValue {
    /// The number, if it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            RedisValue::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// There is no connection, or it was lost before the answer came.
    #[error("no connection: {0}")]
    Connection(Arc<str>),
    /// The server refused the command.
    #[error("refused: {0}")]
    Refused(Arc<str>),
    /// The answer did not come within the server's timeout.
    #[error("no answer in time")]
    Timeout,
}

/// A command: its name and arguments.
pub type RedisCommand = Vec<Vec<u8>>;

/// What a server says, once it does.
pub type RedisAnswer = Pin<Box<dyn Future<Output = Result<RedisValue, RedisError>>>>;

/// The way to Redis servers. Whoever implements it keeps connections open and says in the log
/// when a server cannot be reached.
pub trait Redis: Send + Sync {
    /// Sends a command and waits for its answer. The future belongs to the thread it was made on.
    fn ask(&self, server: &Arc<RedisServer>, command: RedisCommand) -> RedisAnswer;

    /// Sends a command over a connection that is open already, and forgets its answer; a command
    /// for which there is no connection is lost.
    fn tell(&self, server: &Arc<RedisServer>, command: RedisCommand);

    /// Runs a task on this thread after a while; it is dropped when the gateway ends.
    fn later(&self, after: Duration, task: Pin<Box<dyn Future<Output = ()>>>);
}

/// Reaches no server.
pub(crate) struct NoRedis;

impl Redis for NoRedis {
    fn ask(&self, _: &Arc<RedisServer>, _: RedisCommand) -> RedisAnswer {
        let error = RedisError::Connection("this gateway has no way to Redis".into());
        Box::pin(std::future::ready(Err(error)))
    }

    fn tell(&self, _: &Arc<RedisServer>, _: RedisCommand) {}

    fn later(&self, _: Duration, _: Pin<Box<dyn Future<Output = ()>>>) {}
}

/// The `redis` record. Source: Kong's `kong/tools/redis/schema.lua`.
pub(crate) fn record() -> Record {
    Record::new([
        Field::string("host").about("Name or address of the server."),
        Field::integer("port")
            .between(0, 65_535)
            .default(json!(6379))
            .about("Its port."),
        Field::integer("timeout")
            .between(0, 2_147_483_646)
            .default(json!(2000))
            .about("How long connecting may take, and each answer; milliseconds."),
        Field::string("username")
            .referenceable()
            .about("User to log in as; only with a password."),
        Field::string("password")
            .referenceable()
            .encrypted()
            .empty_allowed()
            .about("Password to log in with."),
        Field::integer("database")
            .default(json!(0))
            .check(not_negative)
            .about("Number of the database."),
        Field::boolean("ssl")
            .default(json!(false))
            .about("Whether the connection is encrypted."),
        Field::boolean("ssl_verify")
            .default(json!(false))
            .about("Whether the server's certificate is verified."),
        Field::string("server_name").about("Name in the certificate, if it is not `host`."),
    ])
}

/// A plugin's record with the old names of the `redis` members, and the rule that the policy
/// `redis` needs a host.
pub(crate) fn with_redis(record: Record) -> Record {
    record
        .alias("redis_host", &["redis", "host"])
        .alias("redis_port", &["redis", "port"])
        .alias("redis_timeout", &["redis", "timeout"])
        .alias("redis_username", &["redis", "username"])
        .alias("redis_password", &["redis", "password"])
        .alias("redis_database", &["redis", "database"])
        .alias("redis_ssl", &["redis", "ssl"])
        .alias("redis_ssl_verify", &["redis", "ssl_verify"])
        .alias("redis_server_name", &["redis", "server_name"])
        .check(EntityCheck::Custom {
            fields: &["policy", "redis"],
            run: needs_host,
        })
}

fn needs_host(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    if config.get("policy").and_then(Value::as_str) != Some("redis") {
        return;
    }
    for member in ["host", "port", "timeout"] {
        if config["redis"][member].is_null() {
            let path = path.key("redis").key(member);
            errors.push(FieldError::field(path, "required field missing"));
        }
    }
}

fn not_negative(database: &Value) -> Result<(), String> {
    match database.as_i64() {
        Some(number) if !(0..=i64::from(u32::MAX)).contains(&number) => {
            Err(format!("there is no database {number}"))
        }
        _ => Ok(()),
    }
}

/// The values of `policy` that this build has.
pub(crate) fn policy(policy: &Value) -> Result<(), String> {
    match policy.as_str() {
        Some("cluster") => Err(
            "policy 'cluster' needs a gateway with a database; use 'local' or 'redis'".to_owned(),
        ),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Config {
    host: Option<String>,
    port: Option<u16>,
    timeout: Option<u64>,
    username: Option<String>,
    password: Option<String>,
    database: Option<u32>,
    ssl: Option<bool>,
    ssl_verify: Option<bool>,
    server_name: Option<String>,
}

/// The server of a plugin's `redis` record; `None` unless `policy` is `redis`.
pub(crate) fn server(config: &Value) -> Result<Option<Arc<RedisServer>>, CompileError> {
    if config["policy"].as_str() != Some("redis") {
        return Ok(None);
    }
    let redis = Config::deserialize(&config["redis"])?;
    let host = redis
        .host
        .ok_or_else(|| CompileError::value("redis.host is not set"))?;
    let present = |text: Option<String>| text.filter(|text| !text.is_empty());
    let tls = redis.ssl.unwrap_or(false).then(|| RedisTls {
        verify: redis.ssl_verify.unwrap_or(false),
        server_name: present(redis.server_name).unwrap_or_else(|| host.clone()),
    });
    Ok(Some(Arc::new(RedisServer {
        host,
        port: redis.port.unwrap_or(6379),
        timeout: Duration::from_millis(redis.timeout.unwrap_or(2000).max(1)),
        username: present(redis.username),
        password: present(redis.password),
        database: redis.database.unwrap_or(0),
        tls,
    })))
}
