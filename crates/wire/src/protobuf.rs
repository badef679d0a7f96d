//! The few parts of protobuf's encoding that the messages here use.

/// Bytes are no message, or not the one that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It ends within a field.
    #[error("the message ends within a field")]
    Short,
    /// A number has more than ten bytes, or more than 64 bits.
    #[error("a number of the message is too long")]
    Number,
    /// Field number 0, or a wire type that is none or is out of use.
    #[error("the message has a field of number {field} and wire type {wire_type}")]
    Tag {
        /// The field's number.
        field: u64,
        /// Its wire type, 0..=7.
        wire_type: u8,
    },
    /// A known field has another wire type than its own.
    #[error("field {field} has wire type {wire_type}")]
    WireType {
        /// The field's number.
        field: u32,
        /// The wire type found.
        wire_type: u8,
    },
}

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed64(u64),
    /// Of four bytes, which no field here has.
    Fixed32,
}

impl<'a> Value<'a> {
    /// As protobuf's int32: the lower half.
    pub(crate) fn int32(self, field: u32) -> Result<i32, ProtobufError> {
        // A negative int32 is written as 64 bits with its sign.
        self.varint(field).map(|value| value as u32 as i32)
    }

    pub(crate) fn varint(self, field: u32) -> Result<u64, ProtobufError> {
        match self {
            Value::Varint(value) => Ok(value),
            other => Err(other.unexpected(field)),
        }
    }

    pub(crate) fn bytes(self, field: u32) -> Result<&'a [u8], ProtobufError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(other.unexpected(field)),
        }
    }

    pub(crate) fn fixed64(self, field: u32) -> Result<u64, ProtobufError> {
        match self {
            Value::Fixed64(value) => Ok(value),
            other => Err(other.unexpected(field)),
        }
    }

    pub(crate) fn double(self, field: u32) -> Result<f64, ProtobufError> {
        self.fixed64(field).map(f64::from_bits)
    }

    /// As protobuf's sint32.
    pub(crate) fn sint32(self, field: u32) -> Result<i32, ProtobufError> {
        let value = self.varint(field)? as u32;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    fn unexpected(self, field: u32) -> ProtobufError {
        let wire_type = match self {
            Value::Varint(_) => 0,
            Value::Bytes(_) => 2,
            Value::Fixed64(_) => 1,
            Value::Fixed32 => 5,
        };
        ProtobufError::WireType { field, wire_type }
    }
}

/// Reads a message field by field.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number and value; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (field, wire_type) = (tag >> 3, (tag & 7) as u8);
        let bad = ProtobufError::Tag { field, wire_type };
        let number = u32::try_from(field)
            .ok()
            .filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(bad)?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().expect("eight were taken");
                Value::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| ProtobufError::Short)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed32)?,
            _ => return Err(bad),
        };
        Ok(Some((number, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ProtobufError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next number, where numbers stand without tags.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            let part = u64::from(byte & 0x7f);
            if at == 9 && part > 1 {
                return Err(ProtobufError::Number);
            }
            value |= part << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 {
            ProtobufError::Short
        } else {
            ProtobufError::Number
        })
    }
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field that holds a number, also when it is zero.
pub(crate) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

/// A field that holds a fixed32, also when it is zero.
pub(crate) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    varint(out, u64::from(field) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field that holds a fixed64 or the bits of a double, also when it is zero.
pub(crate) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field that holds a sint32.
pub(crate) fn sint32(out: &mut Vec<u8>, field: u32, value: i32) {
    number(out, field, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// A field that holds an int32.
pub(crate) fn int32(out: &mut Vec<u8>, field: u32, value: i32) {
    number(out, field, i64::from(value) as u64);
}

pub(crate) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field that holds a message.
pub(crate) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, u64::from(field) << 3 | 2);
    delimited(out, write);
}

/// What `write` writes, with its length before it.
pub(crate) fn delimited(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    // Nearly all are shorter than 128 bytes; the others move once.
    out.push(0);
    write(out);
    let length = out.len() - start - 1;
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out[start] = short,
        _ => {
            let mut prefix = Vec::with_capacity(5);
            varint(&mut prefix, length as u64);
            out.splice(start..=start, prefix);
        }
    }
}
