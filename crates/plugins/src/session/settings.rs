//! The settings of `session`.

use http::HeaderName;
use sallyport_model::schema::{EntityCheck, Field, FieldError, Path, Record, each};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const TOLD: [&str; 7] = [
    "id",
    "audience",
    "subject",
    "timeout",
    "idling-timeout",
    "rolling-timeout",
    "absolute-timeout",
];

pub(super) fn schema() -> Record {
    let seconds = |name, default| {
        Field::number(name)
            .between(0, 1_000_000_000)
            .default(json!(default))
    };
    let flag = |name, default| Field::boolean(name).default(json!(default));
    let told = |name| Field::set(name, each::string().one_of(&TOLD));
    Record::new([
        Field::string("secret")
            .auto()
            .encrypted()
            .referenceable()
            .about("What cookies are sealed with. All gateways that share sessions need the same."),
        Field::string("storage")
            .one_of(&["cookie", "kong"])
            .default(json!("cookie"))
            .check(only_cookie)
            .about("Where sessions are kept; only `cookie` in this build."),
        Field::string("audience")
            .default(json!("default"))
            .about("What sessions are for; one of another audience is none."),
        seconds("idling_timeout", 900)
            .about("Seconds after which an unused session ends; 0 for never."),
        seconds("rolling_timeout", 3600)
            .about("Seconds after which a session ends unless it was renewed; 0 for never."),
        seconds("absolute_timeout", 86_400)
            .about("Seconds after which a session ends in any case; 0 for never."),
        seconds("stale_ttl", 10)
            .about("Without effect: a cookie that was replaced is good until its own end."),
        Field::string("cookie_name")
            .default(json!("session"))
            .check(cookie_name)
            .about("Name of the cookie."),
        Field::string("cookie_path")
            .default(json!("/"))
            .check(attribute)
            .about("`Path` of the cookie."),
        Field::string("cookie_domain")
            .check(attribute)
            .about("`Domain` of the cookie."),
        Field::string("cookie_same_site")
            .one_of(&["Strict", "Lax", "None", "Default"])
            .default(json!("Strict"))
            .about("`SameSite` of the cookie; `Default` leaves it out."),
        flag("cookie_http_only", true).about("Whether scripts are kept from the cookie."),
        flag("cookie_secure", true).about("Whether browsers send it over TLS alone."),
        flag("remember", false)
            .about("Whether a second cookie, which browsers keep, begins a session anew."),
        Field::string("remember_cookie_name")
            .default(json!("remember"))
            .check(cookie_name)
            .about("Name of that cookie."),
        seconds("remember_rolling_timeout", 604_800)
            .about("Seconds for which it is good unless it was renewed; 0 for ever."),
        seconds("remember_absolute_timeout", 2_592_000)
            .about("Seconds after which a caller is forgotten in any case; 0 for never."),
        told("response_headers").about("What clients are told of their session, as `Session-*`."),
        told("request_headers").about("The same for the upstream."),
        Field::boolean("read_body_for_logout")
            .default(json!(false))
            .about("Whether bodies are looked into for `logout_post_arg`."),
        Field::set(
            "logout_methods",
            each::string().one_of(&["GET", "POST", "DELETE"]),
        )
        .default(json!(["POST", "DELETE"]))
        .about("Methods of requests that may end a session."),
        Field::string("logout_query_arg")
            .default(json!("session_logout"))
            .about("The query argument that ends a session."),
        Field::string("logout_post_arg")
            .default(json!("session_logout"))
            .about("The member of a form or of JSON that does."),
        flag("hash_subject", false).about("Without effect, as without `store_metadata` in Kong."),
        flag("store_metadata", false)
            .check(no_metadata)
            .about("Must stay `false` in this build."),
    ])
    .check(EntityCheck::Custom {
        fields: &["cookie_name", "remember", "remember_cookie_name"],
        run: two_cookies,
    })
    .alias("cookie_lifetime", &["rolling_timeout"])
    .alias("cookie_idletime", &["idling_timeout"])
    .alias("cookie_discard", &["stale_ttl"])
    .alias("cookie_samesite", &["cookie_same_site"])
    .alias("cookie_httponly", &["cookie_http_only"])
    .alias("cookie_persistent", &["remember"])
}

fn refuse(refused: bool, message: &str) -> Result<(), String> {
    match refused {
        true => Err(message.to_owned()),
        false => Ok(()),
    }
}

fn only_cookie(value: &Value) -> Result<(), String> {
    refuse(
        value == "kong",
        "sessions in a database are not supported by this build; use 'cookie'",
    )
}

/// One cookie cannot be both.
fn two_cookies(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let (one, other) = (
        config.get("cookie_name"),
        config.get("remember_cookie_name"),
    );
    if config.get("remember") == Some(&Value::Bool(true)) && one == other {
        let path = path.key("remember_cookie_name");
        errors.push(FieldError::field(path, "must not be that of 'cookie_name'"));
    }
}

fn no_metadata(value: &Value) -> Result<(), String> {
    refuse(
        value == true,
        "metadata of sessions are not stored by this build",
    )
}

fn cookie_name(value: &Value) -> Result<(), String> {
    let name = value.as_str().unwrap_or_default();
    // the same letters as in names of headers (RFC 6265 section 4.1.1)
    refuse(
        HeaderName::from_bytes(name.as_bytes()).is_err(),
        "expected letters, digits and !#$%&'*+-.^_`|~",
    )
}

fn attribute(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let is_good = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b';';
    refuse(
        !text.bytes().all(is_good),
        "expected printable ASCII without semicolons",
    )
}

#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) secret: Option<String>,
    pub(super) audience: String,
    pub(super) idling_timeout: f64,
    pub(super) rolling_timeout: f64,
    pub(super) absolute_timeout: f64,
    pub(super) cookie_name: String,
    pub(super) cookie_path: String,
    #[serde(default)]
    pub(super) cookie_domain: Option<String>,
    pub(super) cookie_same_site: String,
    pub(super) cookie_http_only: bool,
    pub(super) cookie_secure: bool,
    #[serde(default)]
    pub(super) remember: bool,
    pub(super) remember_cookie_name: String,
    pub(super) remember_rolling_timeout: f64,
    pub(super) remember_absolute_timeout: f64,
    #[serde(default)]
    pub(super) response_headers: Option<Vec<Told>>,
    #[serde(default)]
    pub(super) request_headers: Option<Vec<Told>>,
    pub(super) read_body_for_logout: bool,
    #[serde(default)]
    pub(super) logout_methods: Option<Vec<String>>,
    #[serde(default)]
    pub(super) logout_query_arg: Option<String>,
    #[serde(default)]
    pub(super) logout_post_arg: Option<String>,
}

/// Something that can be told about a session.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Told {
    Id,
    Audience,
    Subject,
    Timeout,
    IdlingTimeout,
    RollingTimeout,
    AbsoluteTimeout,
}

impl Told {
    pub(super) fn header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Told::Id => "session-id",
            Told::Audience => "session-audience",
            Told::Subject => "session-subject",
            Told::Timeout => "session-timeout",
            Told::IdlingTimeout => "session-idling-timeout",
            Told::RollingTimeout => "session-rolling-timeout",
            Told::AbsoluteTimeout => "session-absolute-timeout",
        })
    }
}
