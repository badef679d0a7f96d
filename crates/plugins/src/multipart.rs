//! Multipart forms, part by part. Source: RFC 7578, RFC 2046 section 5.1.

/// A form whose parts stay as they came unless they are edited.
#[derive(Clone, Debug)]
pub(crate) struct Multipart {
    boundary: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    name: Option<String>,
    /// Headers, an empty line and the content.
    bytes: Vec<u8>,
}

impl Multipart {
    /// Reads a body; `None` if it does not follow its boundary. An empty body is an empty form.
    pub(crate) fn parse(content_type: &str, body: &[u8]) -> Option<Multipart> {
        let boundary = boundary(content_type)?;
        let mut parts = Vec::new();
        if !body.is_empty() {
            let delimiter = format!("--{boundary}");
            let mut rest = match body.strip_prefix(delimiter.as_bytes()) {
                Some(rest) => rest,
                None => {
                    // what stands before the first boundary is for nobody
                    let first = format!("\r\n{delimiter}");
                    let at = find(body, first.as_bytes())?;
                    &body[at + first.len()..]
                }
            };
            let delimiter = format!("\r\n{delimiter}");
            while !rest.starts_with(b"--") {
                let content = rest.strip_prefix(b"\r\n")?;
                let end = find(content, delimiter.as_bytes())?;
                parts.push(Part::read(&content[..end]));
                rest = &content[end + delimiter.len()..];
            }
        }
        Some(Multipart { boundary, parts })
    }

    /// The form as a body again.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.parts {
            out.extend_from_slice(format!("--{}\r\n", self.boundary).as_bytes());
            out.extend_from_slice(&part.bytes);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        out
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.is(name))
    }

    /// Contents of the parts with this name.
    pub(crate) fn contents<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.parts.iter().filter(move |part| part.is(name));
        named.map(|part| {
            let at = find(&part.bytes, b"\r\n\r\n").map_or(part.bytes.len(), |at| at + 4);
            &part.bytes[at..]
        })
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.parts.retain(|part| !part.is(name));
    }

    /// Gives the parts of one name another; what else their headers say is dropped.
    pub(crate) fn rename(&mut self, old: &str, new: &str) {
        if old == new || !self.contains(old) {
            return;
        }
        self.remove(new);
        for part in self.parts.iter_mut().filter(|part| part.is(old)) {
            let content = find(&part.bytes, b"\r\n\r\n").map_or(0, |at| at + 4);
            *part = Part::simple(new, &part.bytes[content..]);
        }
    }

    /// Makes a text the only part of its name.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let part = Part::simple(name, value.as_bytes());
        let at = self.parts.iter().position(|part| part.is(name));
        self.remove(name);
        let at = at.unwrap_or(self.parts.len()).min(self.parts.len());
        self.parts.insert(at, part);
    }
}

impl Part {
    fn read(bytes: &[u8]) -> Part {
        let head = find(bytes, b"\r\n\r\n").map_or(&bytes[..0], |at| &bytes[..at]);
        let head = String::from_utf8_lossy(head);
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim()
                .eq_ignore_ascii_case("content-disposition")
                .then_some(value)
        });
        Part {
            name: disposition.and_then(|value| parameter(value, "name")),
            bytes: bytes.to_vec(),
        }
    }

    fn simple(name: &str, content: &[u8]) -> Part {
        // RFC 7578 section 4.2: as browsers write it
        let quoted = name
            .replace('"', "%22")
            .replace('\r', "%0D")
            .replace('\n', "%0A");
        let head = format!("Content-Disposition: form-data; name=\"{quoted}\"\r\n\r\n");
        Part {
            name: Some(name.to_owned()),
            bytes: [head.as_bytes(), content].concat(),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let boundary = parameter(content_type, "boundary")?;
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// The parameter of a header value such as `form-data; name="a"; filename=b`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = &value[value.find(';')?..];
    while let Some(behind) = rest.trim_start().strip_prefix(';') {
        let behind = behind.trim_start();
        let end = behind.find(['=', ';'])?;
        let name = behind[..end].trim();
        let Some(text) = behind[end..].strip_prefix('=') else {
            rest = &behind[end..];
            continue;
        };
        let (found, after) = match text.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => {
                let end = text.find(';').unwrap_or(text.len());
                (text[..end].trim(), &text[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(found.to_owned());
        }
        rest = after;
    }
    None
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; charset=x; boundary=\"b b\"";
    const BODY: &str = "--b b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
                        --b b\r\ncontent-disposition: form-data; filename=\"f\"; name=\"file\"\r\n\
                        Content-Type: image/png\r\n\r\n\u{1}\r\n-\r\n--b b--\r\n";

    #[test]
    fn parts_stay_as_they_came() {
        let form = Multipart::parse(TYPE, BODY.as_bytes()).unwrap();
        assert_eq!(form.encode(), BODY.as_bytes());
        assert!(form.contains("a") && form.contains("file") && !form.contains("f"));
    }

    #[test]
    fn parts_are_edited_by_name() {
        let mut form = Multipart::parse(TYPE, BODY.as_bytes()).unwrap();
        form.rename("a", "z");
        form.remove("file");
        form.set("n", "2");
        form.set("z", "3");
        assert_eq!(
            String::from_utf8(form.encode()).unwrap(),
            "--b b\r\nContent-Disposition: form-data; name=\"z\"\r\n\r\n3\r\n\
             --b b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n2\r\n--b b--\r\n"
        );
    }

    #[test]
    fn what_is_no_form_is_left_alone() {
        for (content_type, body) in [
            ("multipart/form-data", BODY),
            (TYPE, "--b b\r\nno end"),
            (TYPE, "something else"),
            (TYPE, "--b bx"),
        ] {
            assert!(
                Multipart::parse(content_type, body.as_bytes()).is_none(),
                "{body}"
            );
        }
        assert!(Multipart::parse(TYPE, b"").is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            content_type in "(multipart|;| |boundary|=|\"|b|é){0,8}",
            body in "(--b|\r\n|:|-|name=|\"|x){0,24}",
        ) {
            for content_type in [&*content_type, "multipart/form-data; boundary=b"] {
                if let Some(mut form) = Multipart::parse(content_type, body.as_bytes()) {
                    form.set("a", "1");
                    let again = Multipart::parse(content_type, &form.encode());
                    prop_assert!(again.is_none_or(|again| again.encode() == form.encode()));
                }
            }
        }
    }
}
