//! The limits of one configuration: how many in which windows.

use http::HeaderValue;
use sallyport_model::schema::{EntityCheck, Field, FieldError, Path};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::counters::Limit;
use sallyport_wire::rate_limit::Period;

/// The fields of the limits, shortest window first.
pub(crate) const FIELDS: &[&str] = &["second", "minute", "hour", "day", "month", "year"];

/// The fields of the limits for a schema.
pub(crate) fn fields(about: &'static str) -> impl Iterator<Item = Field> {
    let field = move |period: Period| Field::number(period.field()).above(0).about(about);
    Period::ALL.into_iter().map(field)
}

/// At least one limit, and none that allows less than the one of a shorter window.
pub(crate) fn checks() -> [EntityCheck; 2] {
    [
        EntityCheck::AtLeastOneOf(FIELDS),
        EntityCheck::Custom {
            fields: FIELDS,
            run: ascend,
        },
    ]
}

/// A longer window may not allow less than a shorter one.
fn ascend(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let mut shorter: Option<(&str, f64)> = None;
    for &name in FIELDS {
        let Some(limit) = config.get(name).and_then(Value::as_f64) else {
            continue;
        };
        if let Some((before, lower)) = shorter
            && limit < lower
        {
            let message = format!(
                "The limit for {name}({limit:.1}) cannot be lower than the limit for \
                 {before}({lower:.1})"
            );
            errors.push(FieldError::entity(path.clone(), message));
        }
        shorter = Some((name, limit));
    }
}

/// Limits as a configuration writes them.
#[derive(Deserialize)]
pub(crate) struct RawLimits {
    second: Option<f64>,
    minute: Option<f64>,
    hour: Option<f64>,
    day: Option<f64>,
    month: Option<f64>,
    year: Option<f64>,
}

/// A limit of a configuration.
pub(crate) struct Stated {
    pub(crate) period: Period,
    limit: u64,
    /// The limit as the value of a header.
    pub(crate) shown: HeaderValue,
}

/// The limits of a configuration, shortest window first.
pub(crate) struct Limits(Vec<Stated>);

impl From<RawLimits> for Limits {
    fn from(raw: RawLimits) -> Limits {
        let values = [
            raw.second, raw.minute, raw.hour, raw.day, raw.month, raw.year,
        ];
        let stated = |(period, limit): (Period, Option<f64>)| {
            // a part of a request is a request: 0.5 allows one
            let limit = limit?.ceil() as u64;
            Some(Stated {
                period,
                limit,
                shown: HeaderValue::from(limit),
            })
        };
        Limits(
            Period::ALL
                .into_iter()
                .zip(values)
                .filter_map(stated)
                .collect(),
        )
    }
}

impl Limits {
    /// The limits with the windows that hold this millisecond.
    pub(crate) fn at(&self, now_ms: u64) -> Windows {
        let mut limits = [Limit {
            period: Period::Second,
            limit: 0,
            window: Period::Second.window(0),
        }; Period::ALL.len()];
        for (slot, stated) in limits.iter_mut().zip(&self.0) {
            *slot = Limit {
                period: stated.period,
                limit: stated.limit,
                window: stated.period.window(now_ms),
            };
        }
        Windows {
            limits,
            count: self.0.len(),
        }
    }
}

impl std::ops::Deref for Limits {
    type Target = [Stated];

    fn deref(&self) -> &[Stated] {
        &self.0
    }
}

/// The limits of a configuration with their windows at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    limits: [Limit; Period::ALL.len()],
    count: usize,
}

impl std::ops::Deref for Windows {
    type Target = [Limit];

    fn deref(&self) -> &[Limit] {
        &self.limits[..self.count]
    }
}
