//! `request-transformer`: edits a request before it goes upstream.

mod body;
mod template;

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use sallyport_model::schema::{Field, PROTOCOLS, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use body::append;
use body::{Kind, edit_params};
use template::{Missing, Original, Template};

use crate::checks::is_header_name;
use crate::exchange::{Env, Exchange, Flow, Handler, Reply, RequestBody, Resume};
use crate::fields::Fields;
use crate::params::Params;
use crate::{CompileError, Plugin};

/// The largest body that is edited, bytes; larger ones are refused.
const BODY_BYTES_MAX: u64 = 8 << 20;

const ABOUT: &str = "\
Sections run in the order remove, rename, replace, add, append; in each, path, method, headers, body and query
are edited in this order.

| section | entry | what it does |
|---|---|---|
| `remove` | `name` | takes all of that name away |
| `rename` | `old:new` | gives it another name, whose own values are dropped |
| `replace` | `name:value` | sets the value of what is there; `replace.uri` sets the path that goes upstream |
| `add` | `name:value` | sets what is not there |
| `append` | `name:value` | adds one more value |

`Host` can only be replaced. Bodies are edited if `Content-Type` says `application/json` (members of the topmost
object; values are texts), `application/x-www-form-urlencoded` or `multipart/form-data` (no `append`), and if they
are what it says; others pass as they are. A body over 8 MiB that would have to be edited is refused with 413.
With `http_method` `GET`, `HEAD` or `TRACE`, a form in the body also becomes a part of the query.

**Templates.** A value and `replace.uri` may hold `$(…)`, which reads the request as it came:

| expression | value |
|---|---|
| `$(headers.name)`, `$(headers[\"x-name\"])` | first value of a header; `_` also stands for `-` |
| `$(query_params.name)`, `$(query_params[\"name\"])` | first value of an argument |
| `$(uri_captures.name)`, `$(uri_captures[\"name\"])`, `$(uri_captures[1])` | what the path's regular expression caught; the whole match at 0 |
| `'text'`, `\"text\"`, `5` | itself; brackets in a text come in pairs |
| `a or b` | `b` if `a` is missing |
| `a .. b` | both, one after the other; 500 if one is missing |

A missing value leaves nothing. Line ends in a value for a header are percent-encoded. Kong runs any Lua there;
this build runs none, so every other expression (functions, arithmetic, comparisons, `and`, `shared`) is refused
with the configuration, by name.
";

/// The plugin, as the registry lists it.
pub(crate) struct RequestTransformer;

impl Plugin for RequestTransformer {
    fn name(&self) -> &'static str {
        "request-transformer"
    }

    fn priority(&self) -> i32 {
        801
    }

    fn summary(&self) -> &'static str {
        "edits a request before it goes upstream"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        let list = |name, check, about| {
            Field::array(name, each::string().check(check))
                .required()
                .default(json!([]))
                .about(about)
        };
        let section = |body, header| {
            [
                list("body", body, "Members or fields of the body."),
                list("headers", header, "Headers."),
                list("querystring", body, "Arguments of the query."),
            ]
        };
        let uri = Field::string("uri")
            .check(template)
            .about("The path that goes upstream, a template.");
        let replace = Record::new(section(pair, header_pair).into_iter().chain([uri]));
        let record = |name, about, record| Field::record(name, record).required().about(about);
        Record::new([
            Field::string("http_method")
                .check(method)
                .about("The method that goes upstream."),
            record(
                "remove",
                "What is taken away.",
                Record::new(section(anything, header)),
            ),
            record(
                "rename",
                "What gets another name.",
                Record::new(section(pair, header_to_header)),
            ),
            record("replace", "What is set where it is there.", replace),
            record(
                "add",
                "What is set where it is not there.",
                Record::new(section(pair, header_pair)),
            ),
            record(
                "append",
                "What gets one more value.",
                Record::new(section(pair, header_pair)),
            ),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        Rules::new(config)
            .map(|rules| Box::new(Active(Arc::new(rules))) as Box<dyn Handler>)
            .map_err(CompileError::value)
    }
}

fn method(method: &Value) -> Result<(), String> {
    let text = method.as_str().unwrap_or_default();
    match text.bytes().all(|byte| byte.is_ascii_uppercase()) && text != "CONNECT" {
        true => Ok(()),
        false => Err(format!("invalid value: {text}")),
    }
}

fn anything(_: &Value) -> Result<(), String> {
    Ok(())
}

fn template(text: &Value) -> Result<(), String> {
    Template::parse(text.as_str().unwrap_or_default()).map(drop)
}

fn pair(pair: &Value) -> Result<(), String> {
    let pair = pair.as_str().unwrap_or_default();
    let (name, value) = split(pair);
    match value {
        _ if name.is_empty() => Err(format!("invalid value: {pair}")),
        "" => Err(format!("key '{name}' has no value")),
        value => Template::parse(value).map(drop),
    }
}

fn header(name: &Value) -> Result<(), String> {
    let name = split(name.as_str().unwrap_or_default()).0;
    is_header_name(name).map_err(|_| format!("'{name}' is not a valid header"))
}

fn header_pair(pair: &Value) -> Result<(), String> {
    let text = pair.as_str().unwrap_or_default();
    if !text.contains(':') || text.starts_with(':') {
        return Err(format!("invalid value: {text}"));
    }
    header(pair)?;
    Template::parse(split(text).1).map(drop)
}

fn header_to_header(pair: &Value) -> Result<(), String> {
    header_pair(pair)?;
    let value = split(pair.as_str().unwrap_or_default()).1;
    is_header_name(value).map_err(|_| format!("'{value}' is not a valid header"))
}

/// `name:value` in two; the value is empty where there is none. Source: Kong's `^([^:]+):*(.-)$`.
pub(crate) fn split(pair: &str) -> (&str, &str) {
    let (name, value) = pair.split_once(':').unwrap_or((pair, ""));
    (name, value.trim_start_matches(':'))
}

#[derive(Deserialize)]
struct Config {
    http_method: Option<String>,
    remove: Section,
    rename: Section,
    replace: Section,
    add: Section,
    append: Section,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Section {
    body: Vec<String>,
    headers: Vec<String>,
    querystring: Vec<String>,
    uri: Option<String>,
}

/// What is done to a header, an argument or a member; in the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    Remove,
    Rename,
    Replace,
    Add,
    Append,
}

/// An edit with its value as a template.
struct Rule {
    edit: Edit,
    name: String,
    value: Template,
}

/// An edit with its value.
struct Pair {
    edit: Edit,
    name: String,
    value: String,
}

struct Rules {
    method: Option<Method>,
    uri: Option<Template>,
    headers: Vec<(Rule, HeaderName)>,
    body: Vec<Rule>,
    query: Vec<Rule>,
    /// Whether any value is read from the request.
    templates: bool,
}

impl Rules {
    fn new(config: Config) -> Result<Rules, String> {
        let sections = [
            (Edit::Remove, &config.remove),
            (Edit::Rename, &config.rename),
            (Edit::Replace, &config.replace),
            (Edit::Add, &config.add),
            (Edit::Append, &config.append),
        ];
        let rules = |list: fn(&Section) -> &Vec<String>| {
            let mut rules = Vec::new();
            for (edit, section) in sections {
                for text in list(section) {
                    let (name, value) = split(text);
                    if value.is_empty() && edit != Edit::Remove {
                        continue; // Kong takes it and does nothing
                    }
                    rules.push(Rule {
                        edit,
                        name: name.to_owned(),
                        value: Template::parse(value)?,
                    });
                }
            }
            Ok::<_, String>(rules)
        };
        let (headers, body, query) = (
            rules(|section| &section.headers)?,
            rules(|section| &section.body)?,
            rules(|section| &section.querystring)?,
        );
        let uri = config.replace.uri.as_deref().map(Template::parse);
        let uri = uri.transpose()?;
        let all = headers.iter().chain(&body).chain(&query);
        let templates = all
            .map(|rule| &rule.value)
            .chain(&uri)
            .any(|value| !value.is_text());
        let with_name = |rule: Rule| {
            let name = rule.name.parse().map_err(|_| rule.name.clone())?;
            Ok::<_, String>((rule, name))
        };
        let method = config.http_method.map(|method| method.parse());
        Ok(Rules {
            method: method
                .transpose()
                .map_err(|_| "http_method is no method".to_owned())?,
            uri,
            headers: headers
                .into_iter()
                .map(with_name)
                .collect::<Result<_, _>>()?,
            body,
            query,
            templates,
        })
    }

    /// Everything that does not need the body; what is left to do with the body is returned.
    fn apply(&self, exchange: &mut Exchange) -> Result<Later, Missing> {
        let empty = Fields::new();
        let headers = match self.templates {
            true => exchange.request.headers.clone(),
            false => empty,
        };
        let query = match self.templates || !self.query.is_empty() {
            true => Params::parse(exchange.request.uri.query().unwrap_or_default()),
            false => Params::default(),
        };
        let captures = std::mem::take(&mut exchange.uri_captures);
        let original = Original {
            headers: &headers,
            query: &query,
            captures: &captures,
        };
        let result = self.apply_with(exchange, &original);
        exchange.uri_captures = captures;
        result
    }

    fn apply_with(
        &self,
        exchange: &mut Exchange,
        original: &Original<'_>,
    ) -> Result<Later, Missing> {
        let render = |rule: &Rule| {
            Ok(Pair {
                edit: rule.edit,
                name: rule.name.clone(),
                value: rule.value.render(original)?,
            })
        };
        if let Some(uri) = &self.uri {
            let path = uri.render(original)?;
            if !path.starts_with('/') {
                return Err(Missing);
            }
            exchange.upstream_path = Some(path);
        }
        let mut form_to_query = false;
        if let Some(method) = &self.method {
            exchange.request.method = method.clone();
            let type_before = exchange.request.headers.get_str(&CONTENT_TYPE);
            form_to_query = matches!(*method, Method::GET | Method::HEAD | Method::TRACE)
                && type_before.and_then(Kind::of) == Some(Kind::Form);
        }
        for (rule, name) in &self.headers {
            edit_header(exchange, name, &render(rule)?);
        }
        let pairs: Result<Vec<_>, Missing> = self.query.iter().map(render).collect();
        let query = pairs?;
        let content_type = exchange.request.headers.get_str(&CONTENT_TYPE);
        let kind = content_type.and_then(Kind::of);
        let body = match kind.filter(|_| !self.body.is_empty()) {
            None => None,
            Some(kind) => {
                let pairs: Result<Vec<_>, Missing> = self.body.iter().map(render).collect();
                Some((kind, pairs?))
            }
        };
        Ok(Later {
            form_to_query,
            body,
            query,
        })
    }
}

/// What is done once the body is there, or without it if it is not needed.
struct Later {
    /// Whether the form in the body becomes arguments.
    form_to_query: bool,
    body: Option<(Kind, Vec<Pair>)>,
    query: Vec<Pair>,
}

impl Later {
    fn needs_body(&self) -> bool {
        self.form_to_query || self.body.is_some()
    }

    fn finish(self, exchange: &mut Exchange) -> Result<(), Missing> {
        let query = exchange.request.uri.query().unwrap_or_default();
        let mut params = Params::parse(query);
        let mut query_changes = !self.query.is_empty();
        if let RequestBody::Here(bytes) = &exchange.body {
            if self.form_to_query {
                let form = Params::parse(&String::from_utf8_lossy(bytes));
                query_changes |= !form.is_empty();
                params.extend(form);
            }
            let content_type = exchange.request.headers.get_str(&CONTENT_TYPE);
            if let Some((kind, pairs)) = &self.body
                && let Some(after) =
                    body::edited(*kind, content_type.unwrap_or_default(), bytes, pairs)
            {
                exchange.body = RequestBody::Here(after);
            }
        }
        if query_changes {
            edit_params(&mut params, &self.query);
            set_query(&mut exchange.request.uri, &params.encode())?;
        }
        Ok(())
    }
}

fn set_query(uri: &mut Uri, query: &str) -> Result<(), Missing> {
    let target = match query {
        "" => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().map_err(|_| Missing)?);
    *uri = Uri::from_parts(parts).map_err(|_| Missing)?;
    Ok(())
}

/// `Host` can only be replaced. Source: Kong's transformer.
fn edit_header(exchange: &mut Exchange, name: &HeaderName, pair: &Pair) {
    let value = header_value(&pair.value);
    if *name == HOST {
        if pair.edit == Edit::Replace {
            exchange.upstream_host = Some(value);
        }
        return;
    }
    let headers = &mut exchange.request.headers;
    match pair.edit {
        Edit::Remove => headers.remove(name),
        Edit::Rename => {
            let values: Vec<Vec<u8>> = headers.get_all(name).map(<[u8]>::to_vec).collect();
            let Ok(new) = pair.value.parse::<HeaderName>() else {
                return;
            };
            if values.is_empty() || new == *name {
                return;
            }
            headers.remove(name);
            if new == HOST {
                exchange.upstream_host = HeaderValue::from_bytes(&values[0]).ok();
                return;
            }
            headers.remove(&new);
            for value in values
                .iter()
                .filter_map(|value| HeaderValue::from_bytes(value).ok())
            {
                headers.append(&new, &value);
            }
        }
        Edit::Replace if headers.contains(name) => headers.set(name, &value),
        Edit::Add if !headers.contains(name) => headers.append(name, &value),
        Edit::Replace | Edit::Add => {}
        Edit::Append => headers.append(name, &value),
    }
}

/// A text as the value of a header: what would end the line is percent-encoded.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
        return value;
    }
    let mut bytes = Vec::with_capacity(text.len() + 8);
    for &byte in text.as_bytes() {
        match byte {
            b'\t' | 0x20..=0x7e | 0x80.. => bytes.push(byte),
            control => bytes.extend_from_slice(format!("%{control:02X}").as_bytes()),
        }
    }
    HeaderValue::from_bytes(&bytes).expect("no control byte is left")
}

struct Active(Arc<Rules>);

impl Handler for Active {
    fn reads_captures(&self) -> bool {
        self.0.templates
    }

    fn access(&self, exchange: &mut Exchange, _: &Env<'_>) -> Flow {
        let failed = |Missing| Flow::Respond(Reply::failure());
        let later = match self.0.apply(exchange) {
            Ok(later) => later,
            Err(missing) => return failed(missing),
        };
        if !later.needs_body() {
            return later
                .finish(exchange)
                .map_or_else(failed, |()| Flow::Continue);
        }
        let resume: Resume = Box::new(move |exchange, _| {
            if matches!(exchange.body, RequestBody::TooLarge) {
                let message = "Payload too large";
                return Flow::Respond(Reply::error(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            later
                .finish(exchange)
                .map_or_else(failed, |()| Flow::Continue)
        });
        Flow::ReadBody(BODY_BYTES_MAX, resume)
    }
}

#[cfg(test)]
mod tests;
