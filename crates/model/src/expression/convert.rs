//! From the engine's tree to ours: types are checked by the engine's rules, one comparison at a
//! time, so that an error has a place.

use std::net::IpAddr;
use std::sync::LazyLock;

use atc_router::ast::{self, BinaryOperator, LogicalExpression, Type, Value};
use atc_router::schema::Schema;
use atc_router::semantics::Validate;
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use super::scan::Scan;
use super::{
    Check, Expression, ExpressionError, Field, HeaderField, NumberOperator, REGEX_BYTES_MAX,
    Subsystem, Test, TextOperator,
};

/// Fields of connections; requests have them too.
const NET_FIELDS: [(&str, Type); 7] = [
    ("net.protocol", Type::String),
    ("tls.sni", Type::String),
    ("net.src.port", Type::Int),
    ("net.dst.port", Type::Int),
    ("net.port", Type::Int),
    ("net.src.ip", Type::IpAddr),
    ("net.dst.ip", Type::IpAddr),
];

/// Fields of requests only.
const HTTP_FIELDS: [(&str, Type); 7] = [
    ("http.method", Type::String),
    ("http.host", Type::String),
    ("http.path", Type::String),
    ("http.path.segments.*", Type::String),
    ("http.path.segments.len", Type::Int),
    ("http.headers.*", Type::String),
    ("http.queries.*", Type::String),
];

static STREAM: LazyLock<Schema> = LazyLock::new(|| {
    let mut schema = Schema::default();
    for (name, of) in NET_FIELDS {
        schema.add_field(name, of);
    }
    schema
});

static HTTP: LazyLock<Schema> = LazyLock::new(|| {
    let mut schema = Schema::default();
    for (name, of) in NET_FIELDS.into_iter().chain(HTTP_FIELDS) {
        schema.add_field(name, of);
    }
    schema
});

pub(super) fn convert(
    parsed: ast::Expression,
    subsystem: Subsystem,
    scan: &Scan<'_>,
) -> Result<Expression, ExpressionError> {
    let mut converter = Converter {
        schema: match subsystem {
            Subsystem::Http => &HTTP,
            Subsystem::Stream => &STREAM,
        },
        scan,
        next_word: 0,
    };
    converter.expression(parsed)
}

struct Converter<'a> {
    schema: &'static Schema,
    scan: &'a Scan<'a>,
    /// Comparisons come in the order of the text: where to look for the next one's field.
    next_word: usize,
}

impl Converter<'_> {
    fn expression(&mut self, parsed: ast::Expression) -> Result<Expression, ExpressionError> {
        let logical = match parsed {
            ast::Expression::Predicate(predicate) => {
                return self.test(predicate).map(Expression::Test);
            }
            ast::Expression::Logical(logical) => *logical,
        };
        match logical {
            LogicalExpression::Not(inner) => Ok(Expression::Not(Box::new(self.expression(inner)?))),
            LogicalExpression::And(left, right) => {
                Ok(Expression::All(self.chain(left, right, true)?))
            }
            LogicalExpression::Or(left, right) => {
                Ok(Expression::Any(self.chain(left, right, false)?))
            }
        }
    }

    /// `a && b && c` is one list: the engine's tree leans to the left, as deep as it is long.
    fn chain(
        &mut self,
        mut left: ast::Expression,
        right: ast::Expression,
        and: bool,
    ) -> Result<Vec<Expression>, ExpressionError> {
        let mut parts = vec![right];
        loop {
            match left {
                ast::Expression::Logical(logical) => match (*logical, and) {
                    (LogicalExpression::And(l, r), true) | (LogicalExpression::Or(l, r), false) => {
                        parts.push(r);
                        left = l;
                    }
                    (other, _) => {
                        parts.push(ast::Expression::Logical(Box::new(other)));
                        break;
                    }
                },
                test => {
                    parts.push(test);
                    break;
                }
            }
        }
        parts
            .into_iter()
            .rev()
            .map(|part| self.expression(part))
            .collect()
    }

    fn test(&mut self, predicate: ast::Predicate) -> Result<Test, ExpressionError> {
        let name = predicate.lhs.var_name.clone();
        let (offset, next) = self.scan.find(&name, self.next_word);
        self.next_word = next;
        let fail = |message: String| self.scan.error_at(offset, message);
        let whole = ast::Expression::Predicate(predicate);
        whole
            .validate(self.schema)
            .map_err(|reason| match reason.as_str() {
                "Unknown LHS field" => fail(format!("unknown field '{name}'")),
                _ => fail(format!("'{name}': {reason}")),
            })?;
        let ast::Expression::Predicate(predicate) = whole else {
            unreachable!("it was made from one");
        };
        let field = field(&name).ok_or_else(|| fail(format!("illformed field '{name}'")))?;
        let (lower, any) = predicate.lhs.get_transformations();
        let check = check(predicate.op, predicate.rhs)
            .map_err(|reason| fail(format!("'{name}': {reason}")))?;
        Ok(Test {
            field,
            lower,
            any,
            check,
        })
    }
}

/// The field of a name that the schema has; `None` if its parameters are out of form.
fn field(name: &str) -> Option<Field> {
    Some(match name {
        "net.protocol" => Field::Protocol,
        "tls.sni" => Field::Sni,
        "http.method" => Field::Method,
        "http.host" => Field::Host,
        "http.path" => Field::Path,
        "http.path.segments.len" => Field::SegmentCount,
        "net.src.ip" => Field::SourceIp,
        "net.src.port" => Field::SourcePort,
        "net.dst.ip" => Field::DestinationIp,
        "net.dst.port" | "net.port" => Field::DestinationPort,
        _ => {
            if let Some(name) = name.strip_prefix("http.headers.") {
                Field::Header(HeaderField::new(name)?)
            } else if let Some(name) = name.strip_prefix("http.queries.") {
                Field::Query(name.to_owned())
            } else {
                segments(name.strip_prefix("http.path.segments.")?)?
            }
        }
    })
}

fn segments(range: &str) -> Option<Field> {
    let number = |text: &str| -> Option<usize> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let leads = text.len() > 1 && text.starts_with('0');
        (plain && !leads).then(|| text.parse().ok())?
    };
    match range.split_once('_') {
        None => {
            let first = number(range)?;
            Some(Field::Segments { first, last: first })
        }
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first < last).then_some(Field::Segments { first, last })
        }
    }
}

fn check(operator: BinaryOperator, value: Value) -> Result<Check, String> {
    use BinaryOperator as Op;
    let mismatch = || "this operator does not go with this value".to_owned();
    Ok(match (operator, value) {
        (_, Value::Regex(regex)) => Check::Regex(bounded(&regex)?),
        (Op::Equals, Value::String(text)) => Check::Text(TextOperator::Equal, text),
        (Op::NotEquals, Value::String(text)) => Check::Text(TextOperator::NotEqual, text),
        (Op::Prefix, Value::String(text)) => Check::Text(TextOperator::Prefix, text),
        (Op::Postfix, Value::String(text)) => Check::Text(TextOperator::Suffix, text),
        (Op::Contains, Value::String(text)) => Check::Text(TextOperator::Contains, text),
        (Op::Equals, Value::Int(number)) => Check::Number(NumberOperator::Equal, number),
        (Op::NotEquals, Value::Int(number)) => Check::Number(NumberOperator::NotEqual, number),
        (Op::Greater, Value::Int(number)) => Check::Number(NumberOperator::Greater, number),
        (Op::GreaterOrEqual, Value::Int(number)) => {
            Check::Number(NumberOperator::GreaterOrEqual, number)
        }
        (Op::Less, Value::Int(number)) => Check::Number(NumberOperator::Less, number),
        (Op::LessOrEqual, Value::Int(number)) => Check::Number(NumberOperator::LessOrEqual, number),
        (Op::Equals, Value::IpAddr(address)) => Check::Address(true, address),
        (Op::NotEquals, Value::IpAddr(address)) => Check::Address(false, address),
        (Op::In, Value::IpCidr(network)) => Check::Network(
            true,
            net(network.first_address(), network.network_length())?,
        ),
        (Op::NotIn, Value::IpCidr(network)) => Check::Network(
            false,
            net(network.first_address(), network.network_length())?,
        ),
        _ => return Err(mismatch()),
    })
}

fn net(address: IpAddr, length: u8) -> Result<IpNet, String> {
    IpNet::new(address, length).map_err(|error| error.to_string())
}

/// The same regex within our bound: the engine's own is ten times as large.
fn bounded(regex: &Regex) -> Result<Regex, String> {
    RegexBuilder::new(regex.as_str())
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_| {
            format!(
                "the regex '{}' is too large: compiled it takes more than {REGEX_BYTES_MAX} bytes",
                regex.as_str()
            )
        })
}
