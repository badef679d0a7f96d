//! Reading protobuf: the few parts of its encoding that these messages use.

use super::MessageError;
pub(super) use crate::protobuf::{bytes, delimited, int32, message, number};

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width, which no field here has.
    Other(u8),
}

impl<'a> Value<'a> {
    /// As protobuf's int32: the lower half.
    pub(super) fn int32(self, field: u32) -> Result<i32, MessageError> {
        // A negative int32 is written as 64 bits with its sign.
        self.varint(field).map(|value| value as u32 as i32)
    }

    pub(super) fn varint(self, field: u32) -> Result<u64, MessageError> {
        match self {
            Value::Varint(value) => Ok(value),
            other => Err(other.unexpected(field)),
        }
    }

    pub(super) fn bytes(self, field: u32) -> Result<&'a [u8], MessageError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(other.unexpected(field)),
        }
    }

    fn unexpected(self, field: u32) -> MessageError {
        let wire_type = match self {
            Value::Varint(_) => 0,
            Value::Bytes(_) => 2,
            Value::Other(wire_type) => wire_type,
        };
        MessageError::WireType { field, wire_type }
    }
}

/// Reads a message field by field.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number and value; `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, MessageError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (field, wire_type) = (tag >> 3, (tag & 7) as u8);
        let bad = MessageError::Tag { field, wire_type };
        let number = u32::try_from(field)
            .ok()
            .filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(bad)?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Other(1))?,
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| MessageError::Short)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other(5))?,
            _ => return Err(bad),
        };
        Ok(Some((number, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(MessageError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, MessageError> {
        let mut value = 0_u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            let part = u64::from(byte & 0x7f);
            if at == 9 && part > 1 {
                return Err(MessageError::Number);
            }
            value |= part << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 {
            MessageError::Short
        } else {
            MessageError::Number
        })
    }
}
