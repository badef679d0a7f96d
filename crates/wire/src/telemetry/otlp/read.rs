//! Reading `ExportMetricsServiceRequest`.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{
    CLASS, CONSUMER, DELTA, DROPPED, METRICS, OVERFLOW, OtlpError, REQUEST_DURATION, REQUEST_SIZE,
    ROUTE, SCALE_MAX, SERVICE, UPSTREAM, UPSTREAM_BYTES_MAX, UPSTREAM_DURATION,
};
use crate::protobuf::{self, Fields};
use crate::telemetry::sketch::SCALE;
use crate::telemetry::{Dimensions, Sketch, StatusClass, Totals};

/// A batch while it is read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) records_max: usize,
    pub(super) node: Option<Uuid>,
    pub(super) hostname: String,
    pub(super) version: String,
    pub(super) start: Option<u64>,
    pub(super) end: u64,
    pub(super) records: BTreeMap<Dimensions, Totals>,
    pub(super) dropped: u64,
    pub(super) unknown: u64,
}

/// Of which kind the data of a metric are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Points {
    Numbers,
    Histograms,
    Other,
}

impl Reading {
    pub(super) fn resource_metrics(&mut self, body: &[u8]) -> Result<(), OtlpError> {
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => self.resource(value.bytes(field)?)?,
                2 => {
                    let mut fields = Fields(value.bytes(field)?);
                    while let Some((field, value)) = fields.next()? {
                        if field == 2 {
                            self.metric(value.bytes(field)?)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn resource(&mut self, body: &[u8]) -> Result<(), OtlpError> {
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next()? {
            if field != 1 {
                continue;
            }
            let (key, value) = key_value(value.bytes(field)?)?;
            let Attribute::Text(text) = value else {
                continue;
            };
            match key {
                "service.instance.id" => self.node = Uuid::try_parse(text).ok(),
                "service.version" => self.version = shortened(text),
                "host.name" => self.hostname = shortened(text),
                _ => {}
            }
        }
        Ok(())
    }

    fn metric(&mut self, body: &[u8]) -> Result<(), OtlpError> {
        let mut name = "";
        let mut data = None;
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => name = utf8(value.bytes(field)?)?,
                5 | 9 | 11 => data = Some((Points::Other, value.bytes(field)?)),
                7 => data = Some((Points::Numbers, value.bytes(field)?)),
                10 => data = Some((Points::Histograms, value.bytes(field)?)),
                _ => {}
            }
        }
        let Some((points, data)) = data else {
            return Ok(());
        };
        let which = METRICS.iter().position(|(known, _)| *known == name);
        let wanted = match which {
            Some(REQUEST_DURATION | UPSTREAM_DURATION) => Points::Histograms,
            _ => Points::Numbers,
        };
        let which = which.filter(|_| points == wanted);
        let mut delta = false;
        let mut fields = Fields(data);
        while let Some((field, value)) = fields.next()? {
            if field == 2 && points != Points::Other {
                delta = value.varint(field)? == DELTA;
            }
        }
        if which.is_some() && !delta {
            return Err(OtlpError::NotDelta(name.to_owned()));
        }
        let mut fields = Fields(data);
        while let Some((field, value)) = fields.next()? {
            if field != 1 {
                continue;
            }
            let point = value.bytes(field)?;
            match which {
                None => self.unknown += 1,
                Some(which) if points == Points::Histograms => {
                    self.histogram_point(which, point)?;
                }
                Some(which) => self.number_point(which, point)?,
            }
        }
        Ok(())
    }

    fn begins(&mut self, at: u64) {
        if at > 0 {
            self.start = Some(self.start.map_or(at, |start| start.min(at)));
        }
    }

    fn totals(&mut self, dimensions: Dimensions) -> Result<&mut Totals, OtlpError> {
        let full = self.records.len() >= self.records_max;
        if full && !self.records.contains_key(&dimensions) {
            return Err(OtlpError::TooMany(self.records_max));
        }
        Ok(self.records.entry(dimensions).or_default())
    }

    fn number_point(&mut self, which: usize, body: &[u8]) -> Result<(), OtlpError> {
        let mut at = At::default();
        let mut amount = 0;
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next()? {
            match field {
                2 => self.begins(value.fixed64(field)?),
                3 => self.end = self.end.max(value.fixed64(field)?),
                4 => {
                    let value = value.double(field)?;
                    amount = match value.is_finite() && value >= 0.0 {
                        true => value as u64,
                        false => return Err(OtlpError::Value),
                    };
                }
                6 => {
                    let value = value.fixed64(field)? as i64;
                    amount = u64::try_from(value).map_err(|_| OtlpError::Value)?;
                }
                7 => at.attribute(value.bytes(field)?)?,
                _ => {}
            }
        }
        if which == DROPPED {
            self.dropped = self.dropped.saturating_add(amount);
            return Ok(());
        }
        let totals = self.totals(at.dimensions()?)?;
        let sum = match which {
            REQUEST_SIZE => &mut totals.request_bytes,
            _ => &mut totals.response_bytes,
        };
        *sum = sum.saturating_add(amount);
        Ok(())
    }

    fn histogram_point(&mut self, which: usize, body: &[u8]) -> Result<(), OtlpError> {
        let mut at = At::default();
        let mut sketch = Sketch::default();
        let (mut scale, mut positive) = (0, None);
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => at.attribute(value.bytes(field)?)?,
                2 => self.begins(value.fixed64(field)?),
                3 => self.end = self.end.max(value.fixed64(field)?),
                5 => {
                    let sum = value.double(field)?;
                    if !sum.is_finite() || sum < 0.0 {
                        return Err(OtlpError::Value);
                    }
                    sketch.add_sum_ns((sum * 1e9).round() as u64);
                }
                6 => scale = value.sint32(field)?,
                7 => sketch.add_zeros(value.fixed64(field)?),
                8 => positive = Some(value.bytes(field)?),
                _ => {}
            }
        }
        if !(SCALE..=SCALE_MAX).contains(&scale) {
            return Err(OtlpError::Scale(scale));
        }
        if let Some(positive) = positive {
            fill(&mut sketch, positive, (scale - SCALE) as u32)?;
        }
        let totals = self.totals(at.dimensions()?)?;
        match which {
            REQUEST_DURATION => totals.latency.merge(&sketch),
            _ => totals.upstream_latency.merge(&sketch),
        }
        Ok(())
    }
}

/// Reads `Buckets`; 2^`finer` of them make one of a sketch.
fn fill(sketch: &mut Sketch, body: &[u8], finer: u32) -> Result<(), OtlpError> {
    let mut offset = 0_i64;
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        if field == 1 {
            offset = value.sint32(field)?.into();
        }
    }
    let mut next = offset;
    let mut add = |count: u64| {
        if count > 0 {
            let index = (next >> finer).clamp(i32::MIN.into(), i32::MAX.into());
            sketch.add(index as i32, count);
        }
        next += 1;
    };
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (2, protobuf::Value::Bytes(packed)) => {
                let mut counts = Fields(packed);
                while !counts.0.is_empty() {
                    add(counts.varint()?);
                }
            }
            (2, value) => add(value.varint(field)?),
            _ => {}
        }
    }
    Ok(())
}

/// The attributes of a data point.
#[derive(Default)]
struct At {
    service: Option<Uuid>,
    route: Option<Uuid>,
    consumer: Option<Uuid>,
    upstream: Option<Arc<str>>,
    class: Option<StatusClass>,
    overflow: bool,
}

impl At {
    fn attribute(&mut self, body: &[u8]) -> Result<(), OtlpError> {
        let (key, value) = key_value(body)?;
        let id = |name: &'static str| match value {
            Attribute::Text(text) => Uuid::try_parse(text)
                .map(Some)
                .map_err(|_| OtlpError::Attribute(name)),
            _ => Err(OtlpError::Attribute(name)),
        };
        match key {
            SERVICE => self.service = id(SERVICE)?,
            ROUTE => self.route = id(ROUTE)?,
            CONSUMER => self.consumer = id(CONSUMER)?,
            UPSTREAM => match value {
                Attribute::Text(text) if text.len() <= UPSTREAM_BYTES_MAX => {
                    self.upstream = Some(text.into());
                }
                _ => return Err(OtlpError::Attribute(UPSTREAM)),
            },
            CLASS => {
                let class = match value {
                    Attribute::Text(text) => StatusClass::parse(text),
                    _ => None,
                };
                self.class = Some(class.ok_or(OtlpError::Attribute(CLASS))?);
            }
            OVERFLOW => self.overflow = matches!(value, Attribute::Bool(true)),
            _ => {}
        }
        Ok(())
    }

    fn dimensions(self) -> Result<Dimensions, OtlpError> {
        let class = self.class.ok_or(OtlpError::Attribute(CLASS))?;
        Ok(match self.overflow {
            true => Dimensions::overflow(class),
            false => Dimensions {
                service: self.service,
                route: self.route,
                consumer: self.consumer,
                class,
                upstream: self.upstream,
                overflow: false,
            },
        })
    }
}

#[derive(Clone, Copy)]
enum Attribute<'a> {
    Text(&'a str),
    Bool(bool),
    Other,
}

fn key_value(body: &[u8]) -> Result<(&str, Attribute<'_>), OtlpError> {
    let (mut key, mut attribute) = ("", Attribute::Other);
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => key = utf8(value.bytes(field)?)?,
            2 => {
                let mut fields = Fields(value.bytes(field)?);
                while let Some((field, value)) = fields.next()? {
                    attribute = match field {
                        1 => Attribute::Text(utf8(value.bytes(field)?)?),
                        2 => Attribute::Bool(value.varint(field)? != 0),
                        _ => Attribute::Other,
                    };
                }
            }
            _ => {}
        }
    }
    Ok((key, attribute))
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, OtlpError> {
    std::str::from_utf8(bytes).map_err(|_| OtlpError::Text)
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(UPSTREAM_BYTES_MAX)].to_owned()
}
