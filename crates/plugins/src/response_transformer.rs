//! `response-transformer`: edits a response before it goes to the client.

use std::str::FromStr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use sallyport_model::schema::{Field, Record, each};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::checks::is_header_name;
use crate::exchange::{BodyUse, Exchange, Handler, ResponseHead};
use crate::fields::Fields;
use crate::request_transformer::{append, header_value, split};
use crate::{CompileError, Plugin};

/// The largest body that is edited, bytes; a larger one passes as it is.
const BODY_BYTES_MAX: u64 = 8 << 20;

const ABOUT: &str = "\
Sections run in the order remove, rename, replace, add, append. Entries are `name` for `remove`, `old:new` for
`rename`, `name:value` for the others; `replace` sets what is there, `add` what is not there, `append` adds one
more value. For headers, what the response had before any edit decides.

`json` edits the members of the topmost object of bodies whose `Content-Type` is `application/json` or
`application/…+json`. `json_types` gives the type of the value at the same place of `json`, `string` where there
is none; a `number` that is none is left out. `append` turns a text into a list. A body that is no JSON object, is
compressed, or has more than 8 MiB passes as it is: what must not reach clients belongs removed upstream.
";

/// The plugin, as the registry lists it.
pub(crate) struct ResponseTransformer;

impl Plugin for ResponseTransformer {
    fn name(&self) -> &'static str {
        "response-transformer"
    }

    fn priority(&self) -> i32 {
        800
    }

    fn summary(&self) -> &'static str {
        "edits a response before it goes to the client"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn schema(&self) -> Record {
        let list = |name: &'static str, check| {
            let about = match name {
                "json" => "Members of a JSON body.",
                _ => "Headers.",
            };
            Field::array(name, each::string().check(check))
                .required()
                .default(json!([]))
                .about(about)
        };
        let types = || {
            let one = each::string().one_of(&["boolean", "number", "string"]);
            Field::array("json_types", one)
                .required()
                .default(json!([]))
                .about("Types of the values in `json`, place by place.")
        };
        let section = || Record::new([list("json", pair), types(), list("headers", header_pair)]);
        let record = |name, about, record| Field::record(name, record).required().about(about);
        let remove = Record::new([list("json", anything), list("headers", header)]);
        let rename = Record::new([list("json", pair), list("headers", header_to_header)]);
        Record::new([
            record("remove", "What is taken away.", remove),
            record("rename", "What gets another name.", rename),
            record("replace", "What is set where it is there.", section()),
            record("add", "What is set where it is not there.", section()),
            record("append", "What gets one more value.", section()),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        Ok(Box::new(Active::new(&config).map_err(CompileError::value)?))
    }
}

fn anything(_: &Value) -> Result<(), String> {
    Ok(())
}

fn pair(pair: &Value) -> Result<(), String> {
    let text = pair.as_str().unwrap_or_default();
    match text.contains(':') && !text.starts_with(':') {
        true => Ok(()),
        false => Err(format!("invalid value: {text}")),
    }
}

fn header(name: &Value) -> Result<(), String> {
    let name = split(name.as_str().unwrap_or_default()).0;
    is_header_name(name).map_err(|_| format!("'{name}' is not a valid header"))
}

fn header_pair(text: &Value) -> Result<(), String> {
    pair(text)?;
    header(text)
}

fn header_to_header(text: &Value) -> Result<(), String> {
    header_pair(text)?;
    let value = split(text.as_str().unwrap_or_default()).1;
    is_header_name(value).map_err(|_| format!("'{value}' is not a valid header"))
}

#[derive(Deserialize)]
struct Config {
    remove: Section,
    rename: Section,
    replace: Section,
    add: Section,
    append: Section,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Section {
    json: Vec<String>,
    json_types: Vec<JsonType>,
    headers: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum JsonType {
    Boolean,
    Number,
    String,
}

/// Members by name, each with the value it gets.
type Members = Vec<(String, Value)>;
/// Headers by name, each with the value it gets.
type Headers = Vec<(HeaderName, HeaderValue)>;

struct Active {
    remove_headers: Vec<HeaderName>,
    rename_headers: Vec<(HeaderName, HeaderName)>,
    replace_headers: Headers,
    add_headers: Headers,
    append_headers: Headers,
    remove_json: Vec<String>,
    rename_json: Vec<(String, String)>,
    replace_json: Members,
    add_json: Members,
    append_json: Members,
}

impl Active {
    fn new(config: &Config) -> Result<Active, String> {
        fn name<T: FromStr>(text: &str) -> Result<T, String> {
            text.parse()
                .map_err(|_| format!("'{text}' is not a valid header"))
        }
        let pairs = |list: &[String]| -> Vec<(String, String)> {
            list.iter()
                .map(|pair| split(pair))
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        let headers = |section: &Section| {
            let header = |(key, value): &(String, String)| Ok((name(key)?, header_value(value)));
            pairs(&section.headers)
                .iter()
                .map(header)
                .collect::<Result<Headers, String>>()
        };
        let rename = |(old, new): &(String, String)| Ok((name(old)?, name(new)?));
        let names = config.remove.headers.iter();
        Ok(Active {
            remove_headers: names
                .map(|header| name(split(header).0))
                .collect::<Result<_, _>>()?,
            rename_headers: pairs(&config.rename.headers)
                .iter()
                .map(rename)
                .collect::<Result<_, String>>()?,
            replace_headers: headers(&config.replace)?,
            add_headers: headers(&config.add)?,
            append_headers: headers(&config.append)?,
            remove_json: config
                .remove
                .json
                .iter()
                .map(|name| split(name).0.to_owned())
                .collect(),
            rename_json: pairs(&config.rename.json),
            replace_json: members(&config.replace),
            add_json: members(&config.add),
            append_json: members(&config.append),
        })
    }

    fn edits_bodies(&self) -> bool {
        !(self.remove_json.is_empty()
            && self.rename_json.is_empty()
            && self.replace_json.is_empty()
            && self.add_json.is_empty()
            && self.append_json.is_empty())
    }

    fn edit(&self, object: &mut Map<String, Value>) {
        for name in &self.remove_json {
            object.remove(name);
        }
        for (old, new) in &self.rename_json {
            if let Some(value) = object.remove(old) {
                object.insert(new.clone(), value);
            }
        }
        for (name, value) in &self.replace_json {
            if let Some(slot) = object.get_mut(name) {
                *slot = value.clone();
            }
        }
        for (name, value) in &self.add_json {
            object.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        for (name, value) in &self.append_json {
            let slot = object.entry(name.as_str()).or_insert(Value::Null);
            append(slot, value.clone());
        }
    }
}

/// Members with their values in the type at the same place of `json_types`, text where there is
/// none. What is no number is left out. Source: Kong's body transformer.
fn members(section: &Section) -> Members {
    let typed = |(at, pair): (usize, &String)| {
        let (name, text) = split(pair);
        let value = match section.json_types.get(at).copied() {
            _ if text.is_empty() => None,
            None | Some(JsonType::String) => Some(Value::from(text)),
            Some(JsonType::Boolean) => Some(Value::from(text == "true")),
            Some(JsonType::Number) => number(text.trim()),
        };
        Some((name.to_owned(), value?))
    };
    section.json.iter().enumerate().filter_map(typed).collect()
}

fn number(text: &str) -> Option<Value> {
    if let Ok(whole) = i64::from_str(text) {
        return Some(whole.into());
    }
    let number = f64::from_str(text).ok()?;
    serde_json::Number::from_f64(number).map(Value::Number)
}

/// Whether a `Content-Type` says JSON: `application/json` or `application/…+json`.
fn is_json(content_type: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content_type) else {
        return false;
    };
    text.split(',').any(|one| {
        let essence = one.split(';').next().unwrap_or_default().trim();
        let lower = essence.to_ascii_lowercase();
        lower
            .strip_prefix("application/")
            .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
    })
}

impl Handler for Active {
    fn filters_headers(&self) -> bool {
        true
    }

    fn header_filter(&self, _: &mut Exchange, response: &mut ResponseHead<'_>) {
        let headers = &mut *response.headers;
        // what was there decides, not what an earlier edit left. Source: Kong's header transformer
        let before: Fields = headers.clone();
        for name in &self.remove_headers {
            headers.remove(name);
        }
        for (old, new) in &self.rename_headers {
            if !before.contains(old) {
                continue;
            }
            headers.remove(new);
            for value in before.get_all(old) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(new, &value);
                }
            }
            headers.remove(old);
        }
        for (name, value) in &self.replace_headers {
            if before.contains(name) {
                headers.set(name, value);
            }
        }
        for (name, value) in &self.add_headers {
            if !before.contains(name) {
                headers.set(name, value);
            }
        }
        for (name, value) in &self.append_headers {
            headers.append(name, value);
        }
    }

    fn filters_bodies(&self) -> bool {
        self.edits_bodies()
    }

    fn body_use(&self, _: &Exchange, response: &ResponseHead<'_>) -> BodyUse {
        match response.headers.get(&CONTENT_TYPE).is_some_and(is_json) {
            true => BodyUse::Replace(BODY_BYTES_MAX),
            false => BodyUse::Pass,
        }
    }

    fn replace_body(&self, _: &mut Exchange, _: &mut ResponseHead<'_>, body: Bytes) -> Bytes {
        let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(&body) else {
            return body;
        };
        self.edit(&mut object);
        serde_json::to_vec(&object).map_or(body, Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{Trial, get, problems};

    #[track_caller]
    fn check_headers(config: Value, given: &[(&str, &str)], expected: &[&str]) {
        let trial = Trial::new(&ResponseTransformer, config);
        let seen = trial.response(&mut get("/"), 200, given, "");
        assert_eq!(seen.headers, expected);
    }

    #[test]
    fn headers_are_edited_section_by_section() {
        let of = |section: &str, text: &str| json!({section: {"headers": [text]}});
        let given = [("a", "1"), ("b", "2"), ("a", "3")];
        check_headers(of("remove", "A"), &given, &["b: 2"]);
        check_headers(of("remove", "a:x"), &given, &["b: 2"]);
        check_headers(of("rename", "a:c"), &given, &["b: 2", "c: 1", "c: 3"]);
        check_headers(of("rename", "c:a"), &given, &["a: 1", "b: 2", "a: 3"]);
        check_headers(of("replace", "a:x:y"), &given, &["b: 2", "a: x:y"]);
        check_headers(of("replace", "c:x"), &given, &["a: 1", "b: 2", "a: 3"]);
        check_headers(of("add", "a:x"), &given, &["a: 1", "b: 2", "a: 3"]);
        check_headers(of("add", "c:x"), &given[..1], &["a: 1", "c: x"]);
        check_headers(of("append", "a:x"), &given[..1], &["a: 1", "a: x"]);
        let both = json!({"remove": {"headers": ["a"]}, "add": {"headers": ["a:x"]}});
        check_headers(both, &given, &["b: 2"]);
    }

    #[track_caller]
    fn check_json(config: Value, body: &str, expected: &str) {
        let trial = Trial::new(&ResponseTransformer, config);
        let headers = [("content-type", "Application/problem+JSON; charset=utf-8")];
        let seen = trial.response(&mut get("/"), 200, &headers, body);
        assert_eq!(seen.body, expected);
    }

    #[test]
    fn json_bodies_are_edited() {
        let of = |section: &str, text: &str| json!({section: {"json": [text]}});
        let body = r#"{"a":1,"b":"x"}"#;
        check_json(of("remove", "a"), body, r#"{"b":"x"}"#);
        check_json(of("rename", "a:c"), body, r#"{"b":"x","c":1}"#);
        check_json(of("replace", "a:/p\"q"), body, r#"{"a":"/p\"q","b":"x"}"#);
        check_json(of("replace", "c:1"), body, body);
        check_json(of("add", "a:2"), body, body);
        check_json(of("add", "c:2"), body, r#"{"a":1,"b":"x","c":"2"}"#);
        check_json(of("append", "b:y"), body, r#"{"a":1,"b":["x","y"]}"#);
        check_json(of("append", "a:y"), body, r#"{"a":["y"],"b":"x"}"#);
        let typed = json!({"add": {
            "json": ["n:2", "f:1.5", "t:true", "o:yes", "s:2", "bad:two", "plain:3"],
            "json_types": ["number", "number", "boolean", "boolean", "string", "number"],
        }});
        let expected = r#"{"f":1.5,"n":2,"o":false,"plain":"3","s":"2","t":true}"#;
        check_json(typed, "{}", expected);
        for body in ["", "{", "[1]", "1"] {
            check_json(of("add", "a:1"), body, body);
        }
    }

    #[test]
    fn bodies_of_other_types_pass() {
        let trial = Trial::new(&ResponseTransformer, json!({"remove": {"json": ["a"]}}));
        for content_type in ["text/plain", "application/jsonp", "json"] {
            let headers = [("content-type", content_type)];
            let seen = trial.response(&mut get("/"), 200, &headers, r#"{"a":1}"#);
            assert_eq!(seen.body, r#"{"a":1}"#);
        }
        let trial = Trial::new(&ResponseTransformer, json!({"remove": {"headers": ["a"]}}));
        let headers = [("content-type", "application/json")];
        let seen = trial.response(&mut get("/"), 200, &headers, "{ }");
        assert_eq!(seen.body, "{ }", "nobody asked for another body");
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, part) in [
            (json!({"add": {"headers": ["a"]}}), "invalid value: a"),
            (
                json!({"rename": {"headers": ["a:b c"]}}),
                "'b c' is not a valid header",
            ),
            (json!({"add": {"json_types": ["date"]}}), "expected one of"),
            (json!({"remove": {"json_types": []}}), "unknown field"),
        ] {
            let found = problems(&ResponseTransformer, config);
            assert!(found.contains(part), "{part:?} is not in {found:?}");
        }
    }
}
