//! Frames: a length of four bytes, most significant first, then that many bytes.

/// The longest frame that is read or written. The membership protocol keeps its messages below
/// 65,507 bytes, the longest datagram.
pub const FRAME_LEN_MAX: usize = 65_507;
const HEAD_LEN: usize = 4;

/// A frame at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What is in it.
    pub body: &'a [u8],
    /// Bytes of the frame, its head included.
    pub len: usize,
}

/// Bytes that are no frame; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_LEN_MAX`].
    #[error("a frame of {0} bytes; at most {FRAME_LEN_MAX} are allowed")]
    TooLong(u32),
    /// Of length 0, which nobody sends.
    #[error("an empty frame")]
    Empty,
}

/// The first frame of `bytes`; `None` if it is not whole yet.
///
/// # Errors
/// See [`FrameError`]; they are known as soon as the head is there.
pub fn decode(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LEN>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*head);
    if len == 0 {
        return Err(FrameError::Empty);
    }
    let fits = usize::try_from(len)
        .ok()
        .filter(|len| *len <= FRAME_LEN_MAX);
    let len = fits.ok_or(FrameError::TooLong(len))?;
    Ok(rest.get(..len).map(|body| Frame {
        body,
        len: HEAD_LEN + len,
    }))
}

/// Appends a frame with `body` to `out`; `false`, and nothing, if it is empty or too long.
pub fn encode(body: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(len) = u32::try_from(body.len())
        .ok()
        .filter(|_| (1..=FRAME_LEN_MAX).contains(&body.len()))
    else {
        return false;
    };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(body);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_bounded_before_anything_is_kept() {
        assert_eq!(decode(&[]), Ok(None));
        assert_eq!(decode(&[0, 0, 1]), Ok(None));
        assert_eq!(decode(&[0, 0, 0, 0]), Err(FrameError::Empty));
        assert_eq!(
            decode(b"GET / HTTP/1.1"),
            Err(FrameError::TooLong(u32::from_be_bytes(*b"GET ")))
        );
        let mut out = Vec::new();
        assert!(!encode(&[], &mut out) && !encode(&vec![0; FRAME_LEN_MAX + 1], &mut out));
        assert!(out.is_empty());
        assert!(encode(&vec![0; FRAME_LEN_MAX], &mut out));
        assert_eq!(decode(&out).unwrap().unwrap().len, out.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn frames_are_read_back_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            for body in &bodies {
                prop_assert!(encode(body, &mut bytes));
            }
            let cut = cut.index(bytes.len() + 1);
            let (mut seen, mut have, mut at) = (Vec::new(), &bytes[..cut], 0);
            for more in [cut, bytes.len()] {
                have = &bytes[at..more.max(at)];
                while let Some(frame) = decode(have).unwrap() {
                    seen.push(frame.body.to_vec());
                    at += frame.len;
                    have = &have[frame.len..];
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(have.is_empty());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(Some(frame)) = decode(&bytes) {
                prop_assert!(frame.len <= bytes.len());
            }
        }
    }
}
