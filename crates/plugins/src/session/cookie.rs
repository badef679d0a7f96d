//! The value of a session cookie: what is known of the session, sealed.
//!
//! One version byte, a random nonce, and AES-256-GCM over the record, all in base64url. The key
//! comes from the configured secret; the audience and the name of the cookie are bound to it.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use uuid::Uuid;

const VERSION: u8 = 1;
/// Id, consumer, credential, three times.
const RECORD: usize = 32 + 16 + 16 + 3 * 8;
const TAG: usize = 16;

/// What a session is about, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Random; names the session.
    pub(crate) id: [u8; 32],
    pub(crate) consumer: Uuid,
    pub(crate) credential: Uuid,
    /// Unix seconds: when it began, when it was renewed, when it was last used.
    pub(crate) begun: u64,
    pub(crate) rolled: u64,
    pub(crate) touched: u64,
}

/// What seals and opens cookies of one configuration.
pub(crate) struct Seal {
    key: LessSafeKey,
    aad: Vec<u8>,
}

impl Seal {
    pub(crate) fn new(secret: &[u8], audience: &str, cookie_name: &str) -> Seal {
        let ikm = [b"sallyport session 1\0", secret].concat();
        let key = UnboundKey::new(&AES_256_GCM, digest(&SHA256, &ikm).as_ref())
            .expect("a SHA-256 is as long as the key");
        Seal {
            key: LessSafeKey::new(key),
            aad: [cookie_name.as_bytes(), b"\0", audience.as_bytes()].concat(),
        }
    }

    /// The cookie's value; `None` if the system gives no random bytes.
    pub(crate) fn close(&self, record: &Record) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut text = Vec::with_capacity(RECORD + TAG);
        text.extend_from_slice(&record.id);
        text.extend_from_slice(record.consumer.as_bytes());
        text.extend_from_slice(record.credential.as_bytes());
        for time in [record.begun, record.rolled, record.touched] {
            text.extend_from_slice(&time.to_be_bytes());
        }
        let sealed = self.key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&self.aad),
            &mut text,
        );
        sealed.ok()?;
        let mut value = Vec::with_capacity(1 + NONCE_LEN + text.len());
        value.push(VERSION);
        value.extend_from_slice(&nonce);
        value.extend_from_slice(&text);
        Some(BASE64_URL_SAFE_NO_PAD.encode(value))
    }

    /// The session of a value that was made with this key; `None` for any other.
    pub(crate) fn open(&self, value: &[u8]) -> Option<Record> {
        // nothing longer was made here
        if value.len() > 4 * (1 + NONCE_LEN + RECORD + TAG) / 3 + 4 {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(value).ok()?;
        let (&[VERSION], rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self
            .key
            .open_in_place(nonce, Aad::from(&self.aad), &mut sealed)
            .ok()?;
        let (id, rest) = text.split_first_chunk()?;
        let (consumer, rest) = rest.split_first_chunk()?;
        let (credential, rest) = rest.split_first_chunk()?;
        let [begun, rolled, touched] = rest.as_chunks::<8>().0 else {
            return None;
        };
        Some(Record {
            id: *id,
            consumer: Uuid::from_bytes(*consumer),
            credential: Uuid::from_bytes(*credential),
            begun: u64::from_be_bytes(*begun),
            rolled: u64::from_be_bytes(*rolled),
            touched: u64::from_be_bytes(*touched),
        })
    }
}

/// Random bytes; `None` if the system gives none.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            id: [7; 32],
            consumer: Uuid::from_u128(1),
            credential: Uuid::from_u128(2),
            begun: 10,
            rolled: 20,
            touched: u64::MAX,
        }
    }

    #[test]
    fn only_the_same_settings_open_it() {
        let seal = Seal::new(b"secret", "default", "session");
        let value = seal.close(&record()).unwrap();
        assert_eq!(seal.open(value.as_bytes()), Some(record()));
        assert_ne!(
            seal.close(&record()).unwrap(),
            value,
            "sealed anew each time"
        );
        for other in [
            Seal::new(b"secre", "default", "session"),
            Seal::new(b"secret", "other", "session"),
            Seal::new(b"secret", "default", "sessio"),
        ] {
            assert_eq!(other.open(value.as_bytes()), None);
        }
        assert_eq!(seal.open(&[b'A'; 4096]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_change_opens(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let seal = Seal::new(b"secret", "default", "session");
            prop_assert_eq!(seal.open(&bytes), None);
            let mut value = seal.close(&record()).unwrap().into_bytes();
            let at = at.index(value.len());
            if value[at] != byte {
                value[at] = byte;
                prop_assert_eq!(seal.open(&value), None);
            }
            value.truncate(at);
            prop_assert_eq!(seal.open(&value), None);
        }
    }
}
