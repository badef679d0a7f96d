//! `custom_fields_by_lua`: fields that an entry gets, or loses.
//!
//! Kong runs each of them as Lua. Here it is a small language of its own that reads the same:
//! `return` and texts, numbers, values of the request and the response, `or` and `..`. Whatever
//! else is Lua is refused when the configuration is checked.

use bytes::Bytes;
use http::HeaderName;
use serde_json::{Map, Number, Value, json};

use crate::CompileError;
use crate::exchange::Exchange;
use crate::fields::Fields;
use crate::finished::Finished;
use crate::params::Params;

/// The fields of one configuration, by their paths.
pub(crate) struct CustomFields(Vec<(Vec<String>, Expression)>);

/// Alternatives, each of parts that are joined; the first that is neither nil nor false counts.
#[derive(Clone, Debug, PartialEq)]
struct Expression(Vec<Vec<Operand>>);

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Nil,
    Constant(Value),
    RequestHeader(HeaderName),
    QueryArg(String),
    ResponseHeader(HeaderName),
    Fact(Fact),
}

/// What takes no argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Method,
    Path,
    PathWithQuery,
    Host,
    Scheme,
    Status,
    Ip,
    ForwardedIp,
}

/// Source: Kong's PDK (`kong.request`, `kong.response`, `kong.client`).
const FACTS: [(&str, Fact); 8] = [
    ("kong.request.get_method", Fact::Method),
    ("kong.request.get_raw_path", Fact::Path),
    ("kong.request.get_path_with_query", Fact::PathWithQuery),
    ("kong.request.get_host", Fact::Host),
    ("kong.request.get_scheme", Fact::Scheme),
    ("kong.response.get_status", Fact::Status),
    ("kong.client.get_ip", Fact::Ip),
    ("kong.client.get_forwarded_ip", Fact::ForwardedIp),
];

impl CustomFields {
    /// Those of a plugin's configuration.
    pub(crate) fn compile(config: &Value) -> Result<CustomFields, CompileError> {
        let fields = config["custom_fields_by_lua"].as_object();
        let field = |(name, code): (&String, &Value)| {
            let code = code.as_str().unwrap_or_default();
            let expression = Expression::parse(code).map_err(CompileError::value)?;
            Ok((path(name), expression))
        };
        let fields = fields.into_iter().flatten().map(field);
        Ok(CustomFields(fields.collect::<Result<_, CompileError>>()?))
    }

    /// The entry of a request, without a line feed.
    pub(crate) fn line(&self, exchange: &Exchange, finished: &Finished<'_>) -> Bytes {
        let entry = finished.entry(exchange);
        if self.0.is_empty() {
            return entry.to_json().into();
        }
        let mut entry = entry.to_value();
        for (path, expression) in &self.0 {
            match expression.value(exchange, finished) {
                Ok(Some(value)) => set(&mut entry, path, value),
                Ok(None) => remove(&mut entry, path),
                Err(Missing) => {}
            }
        }
        entry.to_string().into()
    }
}

/// Whether a text is of the language.
pub(super) fn check(code: &Value) -> Result<(), String> {
    Expression::parse(code.as_str().unwrap_or_default()).map(drop)
}

/// Names from the outer to the inner object; a dot behind a backslash is part of a name.
fn path(name: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, names.last_mut()) {
            ('\\', Some(last)) if chars.peek() == Some(&'.') => {
                last.push('.');
                chars.next();
            }
            ('.', _) => names.push(String::new()),
            (char, Some(last)) => last.push(char),
            (_, None) => {}
        }
    }
    names
}

fn set(entry: &mut Value, path: &[String], value: Value) {
    let Some((last, outer)) = path.split_last() else {
        return;
    };
    let mut place = entry;
    for name in outer {
        if !place[name].is_object() {
            place[name] = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    place[last] = value;
}

fn remove(entry: &mut Value, path: &[String]) {
    let Some((last, outer)) = path.split_last() else {
        return;
    };
    let mut place = Some(entry);
    for name in outer {
        place = place.and_then(|place| place.get_mut(name));
    }
    if let Some(object) = place.and_then(Value::as_object_mut) {
        object.remove(last);
    }
}

/// A missing value was to be joined to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing;

impl Expression {
    fn parse(code: &str) -> Result<Expression, String> {
        let mut parser = Parser(code.trim().trim_end_matches(';').trim_end());
        parser.expression().map_err(|reason| {
            format!(
                "'{code}' is not run by this build: {reason}; without Lua there are return, nil, true, \
                 false, numbers, 'texts', or, .., kong.request.get_header('name'), \
                 kong.request.get_query_arg('name'), kong.response.get_header('name'), and \
                 get_method(), get_raw_path(), get_path_with_query(), get_host() and get_scheme() of \
                 kong.request, kong.response.get_status(), kong.client.get_ip() and \
                 kong.client.get_forwarded_ip()"
            )
        })
    }

    /// `None` is Lua's nil.
    fn value(
        &self,
        exchange: &Exchange,
        finished: &Finished<'_>,
    ) -> Result<Option<Value>, Missing> {
        let mut last = None;
        for joined in &self.0 {
            last = match &joined[..] {
                [one] => one.value(exchange, finished),
                several => Some(Value::from(join(several, exchange, finished)?)),
            };
            if !matches!(last, None | Some(Value::Bool(false))) {
                break;
            }
        }
        Ok(last)
    }
}

fn join(
    operands: &[Operand],
    exchange: &Exchange,
    finished: &Finished<'_>,
) -> Result<String, Missing> {
    let mut text = String::new();
    for operand in operands {
        match operand.value(exchange, finished) {
            Some(Value::String(part)) => text.push_str(&part),
            Some(Value::Number(part)) => text.push_str(&part.to_string()),
            _ => return Err(Missing),
        }
    }
    Ok(text)
}

impl Operand {
    fn value(&self, exchange: &Exchange, finished: &Finished<'_>) -> Option<Value> {
        let header = |headers: &Fields, name: &HeaderName| {
            let value = String::from_utf8_lossy(headers.get(name)?);
            Some(json!(value))
        };
        match self {
            Operand::Nil => None,
            Operand::Constant(value) => Some(value.clone()),
            Operand::RequestHeader(name) => header(&exchange.request.headers, name),
            Operand::ResponseHeader(name) => header(finished.response_headers, name),
            Operand::QueryArg(name) => {
                let arguments = Params::parse(finished.uri.query().unwrap_or_default());
                arguments.get(name).map(Value::from)
            }
            Operand::Fact(fact) => Some(fact.value(exchange, finished)),
        }
    }
}

impl Fact {
    fn value(self, exchange: &Exchange, finished: &Finished<'_>) -> Value {
        match self {
            Fact::Method => json!(finished.method.as_str()),
            Fact::Path => json!(finished.uri.path()),
            Fact::PathWithQuery => match finished.uri.path_and_query() {
                Some(target) => json!(target.as_str()),
                None => json!(finished.uri.path()),
            },
            Fact::Host => json!(finished.host),
            Fact::Scheme if finished.tls.is_some() => json!("https"),
            Fact::Scheme => json!("http"),
            Fact::Status => json!(finished.status.as_u16()),
            Fact::Ip => json!(finished.peer.0),
            Fact::ForwardedIp => json!(exchange.client_ip),
        }
    }
}

/// What is left of a text.
struct Parser<'a>(&'a str);

impl<'a> Parser<'a> {
    fn expression(&mut self) -> Result<Expression, String> {
        if self.word() != Some("return") {
            return Err("it does not begin with 'return'".to_owned());
        }
        let mut alternatives = Vec::new();
        loop {
            let mut joined = vec![self.operand()?];
            while self.skip("..") {
                joined.push(self.operand()?);
            }
            alternatives.push(joined);
            let before = self.0;
            match self.word() {
                Some("or") => {}
                _ if before.trim().is_empty() => return Ok(Expression(alternatives)),
                _ => return Err(format!("'{}' is left over", before.trim())),
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.0 = self.0.trim_start();
        if let Some(text) = self.text()? {
            return Ok(Operand::Constant(Value::from(text)));
        }
        if self
            .0
            .starts_with(|char: char| char.is_ascii_digit() || char == '-')
        {
            return self.number();
        }
        let before = self.0;
        match self.word() {
            Some("nil") => Ok(Operand::Nil),
            Some("true") => Ok(Operand::Constant(Value::Bool(true))),
            Some("false") => Ok(Operand::Constant(Value::Bool(false))),
            Some(name) => self.call(name),
            None => Err(format!("a value is expected at '{before}'")),
        }
    }

    fn call(&mut self, name: &str) -> Result<Operand, String> {
        let unknown = || format!("there is no {name}");
        if !self.skip("(") {
            return Err(unknown());
        }
        self.0 = self.0.trim_start();
        let argument = self.text()?;
        if !self.skip(")") {
            return Err(format!("{name} takes one text or nothing"));
        }
        let header = |name: String| name.parse().map_err(|_| format!("'{name}' is no header"));
        match (name, argument) {
            ("kong.request.get_header", Some(name)) => Ok(Operand::RequestHeader(header(name)?)),
            ("kong.response.get_header", Some(name)) => Ok(Operand::ResponseHeader(header(name)?)),
            ("kong.request.get_query_arg", Some(name)) => Ok(Operand::QueryArg(name)),
            (_, None) => {
                let fact = FACTS.iter().find(|(known, _)| *known == name);
                fact.map(|(_, fact)| Operand::Fact(*fact))
                    .ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }

    /// Letters, digits, underscores and single dots.
    fn word(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let bytes = text.as_bytes();
        let inside = |at: usize| {
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            match bytes[at] {
                b'.' => at > 0 && is_name(&bytes[at - 1]) && bytes.get(at + 1).is_some_and(is_name),
                byte => is_name(&byte),
            }
        };
        let end = (0..bytes.len()).find(|&at| !inside(at));
        let (word, rest) = text.split_at(end.unwrap_or(text.len()));
        if word.is_empty() {
            return None;
        }
        self.0 = rest;
        Some(word)
    }

    /// A text in quotes, if the next thing is one.
    fn text(&mut self) -> Result<Option<String>, String> {
        let Some(quote) = self.0.chars().next().filter(|char| "'\"".contains(*char)) else {
            return Ok(None);
        };
        let mut text = String::new();
        let mut chars = self.0[1..].char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => match chars.next() {
                    Some((_, escaped)) if "\\'\"".contains(escaped) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    _ => return Err("an escape that is not known".to_owned()),
                },
                char if char == quote => {
                    self.0 = &self.0[1 + at + 1..];
                    return Ok(Some(text));
                }
                char => text.push(char),
            }
        }
        Err("a text does not end".to_owned())
    }

    fn number(&mut self) -> Result<Operand, String> {
        let end = self
            .0
            .find(|char: char| !char.is_ascii_digit() && !"-+.eE".contains(char));
        let (mut text, _) = self.0.split_at(end.unwrap_or(self.0.len()));
        // two dots join
        if let Some(at) = text.find("..") {
            text = &text[..at];
        }
        let number: Number = text.parse().map_err(|_| format!("'{text}' is no number"))?;
        self.0 = &self.0[text.len()..];
        Ok(Operand::Constant(Value::Number(number)))
    }

    fn skip(&mut self, token: &str) -> bool {
        match self.0.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tcp_log::TcpLog;
    use crate::testing::queued;

    /// The entry of the request of all log tests, with these fields.
    fn entry(fields: Value) -> Value {
        let config = json!({"host": "h.example", "port": 1, "custom_fields_by_lua": fields});
        let seen = queued(&TcpLog, config, |_| ());
        serde_json::from_str(&seen.payloads(1)[0]).unwrap()
    }

    #[test]
    fn fields_come_and_go() {
        let plain = entry(json!({}));
        let seen = entry(json!({
            "a": "return 'x'",
            "b.c": "return 1.5;",
            "b.d": "return kong.response.get_status()",
            "e\\.f": "return kong.request.get_header(\"X-None\") or false or kong.request.get_method()",
            "service.host": "return nil",
            "client_ip.deep": "return true",
            "route": "return kong.request.get_query_arg('a') or nil",
            "joined": " return kong.request.get_scheme() .. '://' .. kong.request.get_host()..1 ",
            "failed": "return 'a' .. kong.request.get_header('x-none')",
        }));
        let mut expected = plain;
        expected["a"] = json!("x");
        expected["b"] = json!({"c": 1.5, "d": 200});
        expected["e.f"] = json!("GET");
        expected["service"].as_object_mut().unwrap().remove("host");
        expected["client_ip"] = json!({"deep": true});
        expected.as_object_mut().unwrap().remove("route");
        expected["joined"] = json!("http://api.example1");
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_needs_lua_is_refused_by_name() {
        for (code, reason) in [
            ("1", "does not begin with 'return'"),
            ("return", "a value is expected"),
            (
                "return kong.request.get_headers()",
                "no kong.request.get_headers",
            ),
            ("return ngx.var.remote_addr", "no ngx.var.remote_addr"),
            (
                "return kong.request.get_header('a b')",
                "'a b' is no header",
            ),
            ("return kong.request.get_header(1)", "takes one text"),
            ("return 'a", "a text does not end"),
            ("return 1 + 1", "'+ 1' is left over"),
            ("return 1..2 3", "'3' is left over"),
            ("return 1e", "'1e' is no number"),
            ("local a = 1 return a", "does not begin with 'return'"),
        ] {
            let error = check(&json!(code)).unwrap_err();
            assert!(error.contains(reason), "{code}: {error}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(code in "(return )?([a-z.()'\"0-9 \\\\]|or|\\.\\.|nil|é){0,30}") {
            if let Ok(expression) = Expression::parse(&code) {
                prop_assert!(!expression.0.is_empty());
            }
            path(&code);
        }
    }
}
