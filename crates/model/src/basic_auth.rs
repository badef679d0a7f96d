//! How passwords of `basicauth_credentials` are kept.

use std::fmt::Write as _;

use serde_json::Value;
use sha1::{Digest, Sha1};
use uuid::Uuid;

use crate::schema::reference;

/// The SHA-1 of password and consumer id. Source: Kong's `basic-auth`, whose configurations carry
/// these hashes.
pub fn digest(consumer: Uuid, password: &[u8]) -> [u8; 20] {
    let mut hash = Sha1::new();
    hash.update(password);
    let mut id = Uuid::encode_buffer();
    hash.update(consumer.hyphenated().encode_lower(&mut id).as_bytes());
    hash.finalize().into()
}

/// [`digest`] in lower-case hexadecimal, as it is stored and sent.
pub fn hash_password(consumer: Uuid, password: &str) -> String {
    let mut text = String::with_capacity(40);
    for byte in digest(consumer, password.as_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Puts the hash in the place of the password of a basic-auth that passed the schema.
pub fn hash_entity(entity: &mut Value) {
    if let (Some(consumer), Some(password)) =
        (reference(&entity["consumer"]), entity["password"].as_str())
    {
        entity["password"] = Value::from(hash_password(consumer, password));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_password_is_salted_with_the_id_of_its_consumer() {
        // printf '%s' secret0dc6f45b-8f8d-40d2-a504-473544ee190b | sha1sum
        let id: Uuid = "0DC6F45B-8f8d-40d2-a504-473544ee190b".parse().unwrap();
        let hash = "5a1fb2079af315fb7e101cdc91bd6cf16872fdfe";
        assert_eq!(hash_password(id, "secret"), hash);
        let mut entity = json!({"consumer": {"id": id}, "username": "a", "password": "secret"});
        hash_entity(&mut entity);
        assert_eq!(entity["password"], hash);
    }
}
