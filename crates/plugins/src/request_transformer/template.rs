//! Templates: text with `$(…)` in it, where the parts of a request are put in.
//!
//! Kong runs what stands between the brackets as Lua. Here it is a small language of its own that
//! reads the same: values of the request, texts, `or` for what takes the place of a missing value,
//! and `..` to join. Whatever else is Lua is refused when the configuration is checked.

use std::borrow::Cow;

use crate::exchange::Captures;
use crate::fields::Fields;
use crate::params::Params;

/// What templates read: the request before anything was changed.
pub(super) struct Original<'a> {
    pub(super) headers: &'a Fields,
    pub(super) query: &'a Params,
    pub(super) captures: &'a Captures,
}

/// A text with expressions in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Alternatives, each of parts that are joined; the first without a missing part counts.
    Value(Vec<Vec<Operand>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Header(String),
    Query(String),
    Capture(String),
    CaptureAt(usize),
    Text(String),
}

/// A value that should be joined to another is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing;

impl Template {
    /// Reads a template. An opening bracket without its closing one is text.
    ///
    /// # Errors
    /// What stands in the brackets is not of the language above; the message says what is.
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, inside, after)) = next_brackets(rest) {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let value = Parser(inside).alternatives().map_err(|reason| {
                format!(
                    "value '{text}' is not in supported format, error: {reason} in '$({inside})'; \
                     without Lua there are headers, query_params and uri_captures with .name or \
                     [\"name\"], 'texts', or, and .."
                )
            })?;
            pieces.push(Piece::Value(value));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template(pieces))
    }

    /// Whether it reads anything of the request.
    pub(super) fn is_text(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// The text with values put in; a missing one leaves nothing.
    ///
    /// # Errors
    /// A missing value is joined to another with `..`; that stops a script of Kong's too.
    pub(super) fn render(&self, original: &Original<'_>) -> Result<String, Missing> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(alternatives) => {
                    for joined in alternatives {
                        if let Some(value) = joined_value(joined, original)? {
                            out.push_str(&value);
                            break;
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

fn joined_value<'a>(
    joined: &'a [Operand],
    original: &Original<'a>,
) -> Result<Option<Cow<'a, str>>, Missing> {
    match joined {
        [one] => Ok(one.value(original)),
        several => {
            let mut text = String::new();
            for operand in several {
                text.push_str(&operand.value(original).ok_or(Missing)?);
            }
            Ok(Some(text.into()))
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, original: &Original<'a>) -> Option<Cow<'a, str>> {
        match self {
            Operand::Header(name) => header(original.headers, name),
            Operand::Query(name) => original.query.get(name).map(Cow::from),
            Operand::Capture(name) => original.captures.named(name).map(Cow::from),
            Operand::CaptureAt(index) => original.captures.indexed(*index).map(Cow::from),
            Operand::Text(text) => Some(Cow::from(text.as_str())),
        }
    }
}

/// The first value of a header; an underscore in the name stands for a hyphen if there is no
/// header with the underscore.
fn header<'a>(headers: &'a Fields, name: &str) -> Option<Cow<'a, str>> {
    let get = |name: &str| headers.get(&name.parse().ok()?);
    let value = get(name).or_else(|| get(&name.replace('_', "-")))?;
    Some(String::from_utf8_lossy(value))
}

/// The first `$(…)` with brackets that match: what is before, inside and behind it.
fn next_brackets(text: &str) -> Option<(&str, &str, &str)> {
    for (start, _) in text.match_indices("$(") {
        let mut depth = 0_u32;
        for (at, byte) in text.bytes().enumerate().skip(start + 1) {
            match byte {
                b'(' => depth += 1,
                b')' if depth == 1 => {
                    return Some((&text[..start], &text[start + 2..at], &text[at + 1..]));
                }
                b')' => depth -= 1,
                _ => {}
            }
        }
    }
    None
}

/// What is left of an expression.
struct Parser<'a>(&'a str);

impl<'a> Parser<'a> {
    fn alternatives(mut self) -> Result<Vec<Vec<Operand>>, String> {
        let mut alternatives = vec![self.joined()?];
        loop {
            self.0 = self.0.trim_start();
            if self.0.is_empty() {
                return Ok(alternatives);
            }
            match self.word() {
                Some("or") => alternatives.push(self.joined()?),
                Some(word) => return Err(format!("'{word}' where 'or' or the end should be")),
                None => return Err(format!("'{}' needs Lua", self.0)),
            }
        }
    }

    fn joined(&mut self) -> Result<Vec<Operand>, String> {
        let mut joined = vec![self.operand()?];
        loop {
            self.0 = self.0.trim_start();
            match self.0.strip_prefix("..") {
                Some(rest) => {
                    self.0 = rest;
                    joined.push(self.operand()?);
                }
                None => return Ok(joined),
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.0 = self.0.trim_start();
        if self.0.starts_with(['"', '\'']) {
            return self.quoted().map(Operand::Text);
        }
        if let Some(digits) = self.digits() {
            return Ok(Operand::Text(digits.to_owned()));
        }
        match self.word() {
            Some("headers") => self.key().and_then(Key::name).map(Operand::Header),
            Some("query_params") => self.key().and_then(Key::name).map(Operand::Query),
            Some("uri_captures") => Ok(match self.key()? {
                Key::Name(name) => Operand::Capture(name),
                Key::Index(index) => Operand::CaptureAt(index),
            }),
            Some("shared") => Err(
                "'shared' holds what Lua plugins put there, and this build runs none".to_owned(),
            ),
            Some(word) => Err(format!("'{word}' needs Lua")),
            None if self.0.is_empty() => Err("a value is missing".to_owned()),
            None => Err(format!("'{}' needs Lua", self.0)),
        }
    }

    /// `.name`, `["name"]` or `[1]`.
    fn key(&mut self) -> Result<Key, String> {
        self.0 = self.0.trim_start();
        if !self.0.starts_with("..")
            && let Some(rest) = self.0.strip_prefix('.')
        {
            self.0 = rest.trim_start();
            let name = self.word().ok_or("a name is missing after '.'")?;
            return Ok(Key::Name(name.to_owned()));
        }
        let Some(rest) = self.0.strip_prefix('[') else {
            return Err("a name is missing".to_owned());
        };
        self.0 = rest.trim_start();
        let key = match self.digits() {
            Some(digits) => Key::Index(digits.parse().map_err(|_| "the index is too large")?),
            None if self.0.starts_with(['"', '\'']) => Key::Name(self.quoted()?),
            None => return Err(format!("'{}' needs Lua", self.0)),
        };
        self.0 = self.0.trim_start();
        self.0 = self.0.strip_prefix(']').ok_or("']' is missing")?;
        Ok(key)
    }

    fn word(&mut self) -> Option<&'a str> {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.0.find(|c| !letter(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        Some(word)
    }

    fn digits(&mut self) -> Option<&'a str> {
        let end = self.0.find(|c: char| !c.is_ascii_digit());
        let (digits, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        if digits.is_empty() || rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return None;
        }
        self.0 = rest;
        Some(digits)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.0.char_indices();
        let quote = chars.next().map(|(_, quote)| quote);
        while let Some((at, c)) = chars.next() {
            match c {
                c if Some(c) == quote => {
                    self.0 = &self.0[at + c.len_utf8()..];
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('\\' | '"' | '\''))) => text.push(escaped),
                    _ => return Err("only \\\\, \\\" and \\' may follow a backslash".to_owned()),
                },
                c => text.push(c),
            }
        }
        Err("a text does not end".to_owned())
    }
}

enum Key {
    Name(String),
    Index(usize),
}

impl Key {
    fn name(self) -> Result<String, String> {
        match self {
            Key::Name(name) => Ok(name),
            Key::Index(index) => Err(format!("[{index}] is no name")),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn render(text: &str) -> Result<String, Missing> {
        let mut headers = Fields::new();
        for (name, value) in [("x-one", "1"), ("x-two", "a"), ("x-two", "b")] {
            headers.append(
                &HeaderName::from_static(name),
                &HeaderValue::from_static(value),
            );
        }
        let query = Params::parse("q=x+y&flag&n[1]=z");
        let captures = Captures {
            indexed: vec![Some("/u/7".to_owned()), Some("7".to_owned()), None],
            named: vec![("id".to_owned(), "7".to_owned())],
        };
        let original = Original {
            headers: &headers,
            query: &query,
            captures: &captures,
        };
        Template::parse(text).unwrap().render(&original)
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn values_are_put_in() {
        check("plain $ ( text ) $", "plain $ ( text ) $");
        check("$(headers.x_one)-$(headers[\"X-One\"])", "1-1");
        check("$( headers['x-two'] )", "a");
        check(
            "$(query_params.q)$(query_params.flag)$(query_params['n[1]'])",
            "x ytruez",
        );
        check(
            "/u$(uri_captures.id)/$(uri_captures[1])$(uri_captures[0])",
            "/u7/7/u/7",
        );
        check(
            "[$(uri_captures[2])$(uri_captures.none)$(headers.none)]",
            "[]",
        );
        check("$(uri_captures.none or headers.none or 'else')", "else");
        check("$(uri_captures.id or 'else')", "7");
        check("$('a' .. uri_captures.id..\"-\"..5)", "a7-5");
        check("$(headers.none or 'v' .. uri_captures.id)", "v7");
        check("$('$(uri_captures.id)')", "$(uri_captures.id)");
        check("$('it\\'s')", "it's");
        check("$(unclosed", "$(unclosed");
        check("$(a$('b')", "$(ab");
    }

    #[test]
    fn a_missing_part_of_a_joined_value_is_an_error() {
        assert_eq!(render("$('a' .. headers.none)"), Err(Missing));
        assert_eq!(render("$(headers.none .. 'a' or 'b')"), Err(Missing));
        assert_eq!(render("$('b' or headers.none .. 'a')").as_deref(), Ok("b"));
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = Template::parse(text).unwrap_err();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }

    #[test]
    fn what_needs_lua_is_refused_by_name() {
        refused(
            "$(10 * uri_captures.user1)",
            "'* uri_captures.user1' needs Lua",
        );
        refused("$(ERROR())", "'ERROR' needs Lua");
        refused("$(type(headers.a) == 'table')", "'type' needs Lua");
        refused(
            "$(headers.a == 'x' and 'y' or 'z')",
            "'== 'x' and 'y' or 'z'' needs Lua",
        );
        refused("$(headers.a and 'y')", "'and' where 'or'");
        refused("$(shared.x)", "'shared' holds what Lua plugins put there");
        refused("$(shared.written = true)", "'shared'");
        refused("$(uri_captures user2)", "a name is missing");
        refused("$(headers.x-forwarded-for)", "'-forwarded-for' needs Lua");
        refused("$(headers[1])", "is no name");
        refused("$()", "a value is missing");
        refused("$('a\\n')", "backslash");
        refused("$('a)')", "a text does not end");
        refused("$(#headers)", "needs Lua");
        refused("$(nil)", "'nil' needs Lua");
    }

    proptest! {
        #[test]
        fn text_without_brackets_stays(text in "[^$]{0,40}") {
            check(&text, &text);
            prop_assert!(Template::parse(&text).unwrap().is_text());
        }

        #[test]
        fn anything_is_read_or_refused(text in "(\\$\\(|\\)|headers|\\.|\\[|\\]|'|\"|\\\\|or| |[a-z0-9é]){0,16}") {
            if Template::parse(&text).is_ok() {
                let _ = render(&text);
            }
        }

        /// Alternatives behave like `Option::or`, whatever is missing.
        #[test]
        fn the_first_value_that_is_there_counts(
            names in proptest::collection::vec("(x-one|x-two|none|gone)", 1..5),
        ) {
            let alternatives: Vec<_> = names.iter().map(|name| format!("headers['{name}']")).collect();
            let expected = names.iter().find_map(|name| match name.as_str() {
                "x-one" => Some("1"),
                "x-two" => Some("a"),
                _ => None,
            });
            let found = render(&format!("$({})", alternatives.join(" or ")));
            prop_assert_eq!(found.as_deref(), Ok(expected.unwrap_or_default()));
        }
    }
}
