//! Header blocks that cannot be decoded: RFC 7541.

use sallyport_testkit::frames::kind;

use super::{COMPRESSION, Case, END, Then, case, request};

/// The block of a request, and then these bytes.
macro_rules! behind {
    ($id:literal, $does:literal, $bytes:expr) => {
        case($id, $does, Then::Connection(&[COMPRESSION]), |c| {
            c.send(kind::HEADERS, END, 1, [&request()[..], $bytes].concat());
            Ok(())
        })
    };
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        // an index of 70, where the dynamic table is empty
        behind!("hpack/2.3.3/1", "an index that is none", b"\xc6"),
        behind!(
            "hpack/2.3.3/2",
            "a name's index that is none",
            b"\x7f\x07\x00"
        ),
        behind!(
            "hpack/4.2/1",
            "an update of the table's size at the end",
            b"\x21"
        ),
        // "custom-value" and "private" of RFC 7541 appendix C, with other ends
        behind!(
            "hpack/5.2/1",
            "more padding than 7 bits",
            b"\x00\x01a\x8a\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf\xff"
        ),
        behind!(
            "hpack/5.2/2",
            "padding of zeros",
            b"\x00\x01a\x85\xae\xc3\x77\x1a\x4a"
        ),
        behind!(
            "hpack/5.2/3",
            "the EOS symbol",
            b"\x00\x01a\x85\xff\xff\xff\xff\xff"
        ),
        behind!("hpack/6.1/1", "the index 0", b"\x80"),
        case(
            "hpack/6.3/1",
            "a table larger than allowed",
            Then::Connection(&[COMPRESSION]),
            |c| {
                let size = c.setting(1).unwrap_or(4096) + 1;
                let mut block = vec![0x3f];
                let mut rest = size - 31;
                while rest >= 128 {
                    block.push((rest & 127) as u8 | 128);
                    rest >>= 7;
                }
                block.push(rest as u8);
                block.extend(request());
                c.send(kind::HEADERS, END, 1, block);
                Ok(())
            },
        ),
    ]
}
