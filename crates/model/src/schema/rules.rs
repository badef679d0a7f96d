//! The rules of fields, applied to values whose type is right.

use serde_json::{Number, Value};

use super::field::{Field, Rule};

/// What the rules of a field say against a value of its type.
pub(super) fn broken_rules(field: &Field, value: &Value) -> Vec<String> {
    let mut messages = Vec::new();
    let sized = field
        .rules
        .iter()
        .any(|rule| matches!(rule, Rule::Len { .. }));
    if !sized && value.as_str() == Some("") {
        messages.push("length must be at least 1".to_owned());
    }
    for rule in &field.rules {
        if let Err(message) = broken_rule(rule, value) {
            messages.push(message);
        }
    }
    messages
}

fn broken_rule(rule: &Rule, value: &Value) -> Result<(), String> {
    match rule {
        Rule::OneOf(list) if !list.contains(value) => {
            let list: Vec<String> = list.iter().map(plain).collect();
            Err(format!("expected one of: {}", list.join(", ")))
        }
        Rule::Between(min, max) => match value
            .as_number()
            .map(|number| compare(number, *min).is_ge() && compare(number, *max).is_le())
        {
            Some(false) => Err(format!("value should be between {min} and {max}")),
            _ => Ok(()),
        },
        Rule::Above(floor) => match value
            .as_number()
            .map(|number| compare(number, *floor).is_gt())
        {
            Some(false) => Err(format!("value must be greater than {floor}")),
            _ => Ok(()),
        },
        Rule::Len { min, max } => {
            let len = match value {
                Value::String(text) => text.len(),
                Value::Array(list) => list.len(),
                Value::Object(map) => map.len(),
                _ => return Ok(()),
            };
            match len {
                len if len < *min => Err(format!("length must be at least {min}")),
                len if len > *max => Err(format!("length must be at most {max}")),
                _ => Ok(()),
            }
        }
        Rule::StartsWith(prefix) => match value.as_str() {
            Some(text) if !text.starts_with(prefix) => Err(format!("should start with: {prefix}")),
            _ => Ok(()),
        },
        Rule::Custom(check) => check(value),
        Rule::OneOf(_) | Rule::Null => Ok(()),
    }
}

/// A value as messages show it: text without quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn compare(number: &Number, bound: i64) -> std::cmp::Ordering {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), _, _) => whole.cmp(&bound),
        (None, Some(_), _) => std::cmp::Ordering::Greater,
        (None, None, float) => {
            let float = float.unwrap_or(f64::INFINITY);
            #[allow(clippy::cast_precision_loss, reason = "bounds of schemas are small")]
            float.total_cmp(&(bound as f64))
        }
    }
}
