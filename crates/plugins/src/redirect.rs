//! `redirect`: sends clients to another place.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode, Uri};
use sallyport_model::schema::{Field, Record};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::checks::status;
use crate::exchange::{Env, Exchange, Flow, Handler, Reply};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
The answer has `Location` and the body `redirecting`. With `keep_incoming_path` only scheme, host and port are
those of `location`; path and query are those of the request. Statuses below 200 are refused.
";

/// The plugin, as the registry lists it.
pub(crate) struct Redirect;

impl Plugin for Redirect {
    fn name(&self) -> &'static str {
        "redirect"
    }

    fn priority(&self) -> i32 {
        779
    }

    fn summary(&self) -> &'static str {
        "sends clients to another place"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::integer("status_code")
                .required()
                .default(json!(301))
                .between(100, 599)
                .check(status)
                .about("Status of the answer."),
            Field::string("location")
                .required()
                .check(url)
                .about("A URL with scheme and host."),
            Field::boolean("keep_incoming_path")
                .default(json!(false))
                .about("Whether path and query of the request are kept."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let location = parse(&config.location).map_err(CompileError::value)?;
        Ok(Box::new(Active {
            status: StatusCode::from_u16(config.status_code).map_err(CompileError::value)?,
            location: HeaderValue::from_str(&config.location).map_err(CompileError::value)?,
            origin: config.keep_incoming_path.unwrap_or(false).then(|| {
                let scheme = location.scheme_str().unwrap_or_default();
                let host = location.authority().map_or("", |host| host.as_str());
                format!("{scheme}://{host}")
            }),
        }))
    }
}

/// A URL with scheme and host.
fn parse(url: &str) -> Result<Uri, String> {
    let missing = || format!("missing host in url '{url}'");
    let parsed: Uri = url.parse().map_err(|_| missing())?;
    match (parsed.scheme(), parsed.host()) {
        (Some(_), Some(host)) if !host.is_empty() => Ok(parsed),
        _ => Err(missing()),
    }
}

fn url(url: &Value) -> Result<(), String> {
    parse(url.as_str().unwrap_or_default()).map(drop)
}

#[derive(Deserialize)]
struct Config {
    status_code: u16,
    location: String,
    keep_incoming_path: Option<bool>,
}

struct Active {
    status: StatusCode,
    location: HeaderValue,
    /// Scheme and host of the location, if path and query are those of the request.
    origin: Option<String>,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, _: &Env<'_>) -> Flow {
        let location = match &self.origin {
            None => self.location.clone(),
            Some(origin) => {
                let uri = &exchange.request.uri;
                let target = uri.path_and_query().map_or("/", |target| target.as_str());
                match HeaderValue::try_from(format!("{origin}{target}")) {
                    Ok(location) => location,
                    Err(_) => return Flow::Respond(Reply::failure()),
                }
            }
        };
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        let reply = Reply::exact(self.status, content_type, "redirecting");
        Flow::Respond(reply.with(LOCATION, location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{Trial, get, problems};

    #[track_caller]
    fn check(config: Value, uri: &str, status: u16, location: &str) {
        let seen = Trial::new(&Redirect, config).ask(&mut get(uri), b"");
        assert_eq!(
            (seen.status, seen.header("location"), &*seen.body),
            (status, Some(location), "redirecting")
        );
    }

    #[test]
    fn clients_are_sent_where_the_configuration_says() {
        let to = |location: &str| json!({ "location": location });
        check(
            to("https://a.example/x?y=1"),
            "/p?q",
            301,
            "https://a.example/x?y=1",
        );
        let config = json!({"location": "http://a.example:81/x?y=1", "status_code": 307,
                            "keep_incoming_path": true});
        check(
            config.clone(),
            "/p/%20a?q=1&r",
            307,
            "http://a.example:81/p/%20a?q=1&r",
        );
        check(config.clone(), "/", 307, "http://a.example:81/");
        check(config, "http://other/p", 307, "http://a.example:81/p");
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, part) in [
            (json!({}), "required field missing"),
            (json!({"location": "/relative"}), "missing host in url"),
            (json!({"location": "https://"}), "missing host in url"),
            (
                json!({"location": "https://a", "status_code": 600}),
                "between 100 and 599",
            ),
        ] {
            let found = problems(&Redirect, config);
            assert!(found.contains(part), "{found:?}");
        }
    }
}
