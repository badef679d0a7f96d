//! Syslog messages, RFC 5424.

/// The mark that a text is UTF-8.
const BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// A syslog message. The four names have only printable ASCII characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// 0..=23.
    pub facility: u8,
    /// 0 (emergency) to 7 (debug).
    pub severity: u8,
    /// RFC 3339, as the sender wrote it.
    pub timestamp: Option<String>,
    /// At most 255 characters.
    pub hostname: Option<String>,
    /// At most 48 characters.
    pub app_name: Option<String>,
    /// At most 128 characters.
    pub procid: Option<String>,
    /// At most 32 characters.
    pub msgid: Option<String>,
    /// Structured data.
    pub data: Vec<Element>,
    /// The text; bytes that are not UTF-8 were replaced.
    pub text: String,
}

/// An element of structured data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Such as `meta` or `origin@32473`.
    pub id: String,
    /// Names and values.
    pub params: Vec<(String, String)>,
}

/// Why bytes are not a syslog message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyslogError {
    /// It does not begin with `<PRIORITY>`, 0..=191.
    #[error("it does not begin with <PRIORITY>, a number from 0 to 191")]
    Priority,
    /// The number after the priority is not 1, as in messages of the older RFC 3164.
    #[error("its version is not 1: only RFC 5424 is understood")]
    Version,
    /// A field of the head is missing, too long, or has other than printable ASCII characters.
    #[error("its {0} is missing, too long, or has other than printable ASCII characters")]
    Field(&'static str),
    /// The timestamp is none.
    #[error("its timestamp is not one of RFC 3339")]
    Timestamp,
    /// The structured data cannot be read.
    #[error("its structured data cannot be read")]
    Data,
}

impl Message {
    /// Reads a message; one line end after it is passed over.
    ///
    /// # Errors
    /// See [`SyslogError`].
    pub fn parse(bytes: &[u8]) -> Result<Message, SyslogError> {
        let mut rest = bytes.strip_prefix(b"<").ok_or(SyslogError::Priority)?;
        let priority = priority(&mut rest)?;
        rest = rest.strip_prefix(b"1 ").ok_or(SyslogError::Version)?;
        let timestamp = field(&mut rest, "timestamp", 64)?;
        if let Some(timestamp) = &timestamp
            && !is_timestamp(timestamp)
        {
            return Err(SyslogError::Timestamp);
        }
        let hostname = field(&mut rest, "host name", 255)?;
        let app_name = field(&mut rest, "application name", 48)?;
        let procid = field(&mut rest, "process id", 128)?;
        let msgid = field(&mut rest, "message id", 32)?;
        let data = elements(&mut rest)?;
        let text = match rest {
            [] => rest,
            [b' ', text @ ..] => text,
            // rsyslog's own template leaves the space to the text, which may have none
            [b'\n' | b'\r', ..] => rest,
            _ => return Err(SyslogError::Data),
        };
        let text = text.strip_prefix(BOM).unwrap_or(text);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok(Message {
            facility: priority / 8,
            severity: priority % 8,
            timestamp,
            hostname,
            app_name,
            procid,
            msgid,
            data,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// The message as bytes. What cannot stand in a name becomes `_`, what is too long is cut; a
    /// text that is not ASCII gets the mark of UTF-8 before it.
    pub fn render(&self) -> Vec<u8> {
        let priority = u16::from(self.facility.min(23)) * 8 + u16::from(self.severity.min(7));
        let mut out = format!("<{priority}>1");
        for (value, chars_max) in [
            (&self.timestamp, 64),
            (&self.hostname, 255),
            (&self.app_name, 48),
            (&self.procid, 128),
            (&self.msgid, 32),
        ] {
            out.push(' ');
            out.push_str(&name(value.as_deref().unwrap_or("-"), chars_max));
        }
        out.push(' ');
        out.push_str(&data(&self.data));
        let mut out = out.into_bytes();
        if !self.text.is_empty() {
            out.push(b' ');
            if !self.text.is_ascii() {
                out.extend_from_slice(BOM);
            }
            out.extend_from_slice(self.text.as_bytes());
        }
        out
    }

    /// The `sequenceId` of the element `meta`.
    pub fn sequence(&self) -> Option<u32> {
        let meta = self.data.iter().find(|element| element.id == "meta")?;
        let (_, value) = meta.params.iter().find(|(name, _)| name == "sequenceId")?;
        let number: u32 = value.parse().ok()?;
        (1..=super::sequence::SEQUENCE_MAX)
            .contains(&number)
            .then_some(number)
    }
}

fn priority(rest: &mut &[u8]) -> Result<u8, SyslogError> {
    let end = rest.iter().take(4).position(|byte| *byte == b'>');
    let digits = &rest[..end.ok_or(SyslogError::Priority)?];
    let plain = !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
        && (digits.len() == 1 || digits[0] != b'0');
    let number = digits.iter().fold(0_u16, |sum, digit| {
        sum * 10 + u16::from(digit.wrapping_sub(b'0'))
    });
    *rest = &rest[digits.len() + 1..];
    match u8::try_from(number) {
        Ok(number) if plain && number <= 191 => Ok(number),
        _ => Err(SyslogError::Priority),
    }
}

/// A field of the head and the space after it; `-` is none.
fn field(
    rest: &mut &[u8],
    what: &'static str,
    bytes_max: usize,
) -> Result<Option<String>, SyslogError> {
    let bad = SyslogError::Field(what);
    let end = rest
        .iter()
        .take(bytes_max + 1)
        .position(|byte| *byte == b' ');
    let (value, after) = rest.split_at(end.ok_or(bad)?);
    if value.is_empty() || !value.iter().all(u8::is_ascii_graphic) {
        return Err(bad);
    }
    *rest = &after[1..];
    match value {
        b"-" => Ok(None),
        value => Ok(Some(String::from_utf8_lossy(value).into_owned())),
    }
}

fn is_timestamp(text: &str) -> bool {
    text.as_bytes().get(10) == Some(&b'T') && text.parse::<jiff::Timestamp>().is_ok()
}

fn elements(rest: &mut &[u8]) -> Result<Vec<Element>, SyslogError> {
    if let Some(after) = rest.strip_prefix(b"-") {
        *rest = after;
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    while let Some(after) = rest.strip_prefix(b"[") {
        *rest = after;
        all.push(element(rest)?);
    }
    if all.is_empty() {
        return Err(SyslogError::Data);
    }
    Ok(all)
}

fn element(rest: &mut &[u8]) -> Result<Element, SyslogError> {
    let id = data_name(rest)?;
    let mut params = Vec::new();
    loop {
        match rest {
            [b']', after @ ..] => {
                *rest = after;
                return Ok(Element { id, params });
            }
            [b' ', after @ ..] => {
                *rest = after;
                let name = data_name(rest)?;
                *rest = rest.strip_prefix(b"=\"").ok_or(SyslogError::Data)?;
                params.push((name, value(rest)?));
            }
            _ => return Err(SyslogError::Data),
        }
    }
}

/// A name of structured data: 1 to 32 printable characters but `=`, `]`, `"` and the space.
fn data_name(rest: &mut &[u8]) -> Result<String, SyslogError> {
    let length = rest
        .iter()
        .take_while(|byte| byte.is_ascii_graphic() && !b"=]\"".contains(byte))
        .count();
    if !(1..=32).contains(&length) {
        return Err(SyslogError::Data);
    }
    let (name, after) = rest.split_at(length);
    *rest = after;
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// A value up to its closing quote, and past it.
fn value(rest: &mut &[u8]) -> Result<String, SyslogError> {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        match (rest.get(at), rest.get(at + 1)) {
            (Some(b'"'), _) => break,
            (Some(b'\\'), Some(escaped @ (b'"' | b'\\' | b']'))) => {
                bytes.push(*escaped);
                at += 2;
            }
            // RFC 5424 wants this one escaped
            (Some(b']') | None, _) => return Err(SyslogError::Data),
            // a backslash before anything else is a backslash
            (Some(byte), _) => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    *rest = &rest[at + 1..];
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Structured data as it stands in a message.
pub(super) fn data(elements: &[Element]) -> String {
    if elements.is_empty() {
        return "-".to_owned();
    }
    let mut out = String::new();
    for element in elements {
        out.push('[');
        out.push_str(&param_name(&element.id));
        for (key, value) in &element.params {
            out.push(' ');
            out.push_str(&param_name(key));
            out.push_str("=\"");
            for c in value.chars() {
                if matches!(c, '"' | '\\' | ']') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
        out.push(']');
    }
    out
}

fn param_name(text: &str) -> String {
    name(text, 32).replace(['=', ']', '"'], "_")
}

fn name(text: &str, chars_max: usize) -> String {
    let clean = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    match text {
        "" => "-".to_owned(),
        text => text.chars().take(chars_max).map(clean).collect(),
    }
}
