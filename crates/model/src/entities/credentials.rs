//! What callers prove themselves with, and their groups.

use std::fmt;

use serde::Deserialize;
use uuid::Uuid;

use super::Foreign;

/// A key of a consumer.
#[derive(Clone, Deserialize)]
pub struct KeyAuth {
    /// Identity.
    pub id: Uuid,
    /// The secret itself, unique.
    pub key: String,
    /// How long it is good from `created_at` on, seconds; unset or 0 is for ever.
    #[serde(default)]
    pub ttl: Option<u64>,
    /// Seconds since 1970; unset in documents of people.
    #[serde(default)]
    pub created_at: Option<u64>,
    /// Whose key it is.
    pub consumer: Foreign,
}

/// A user name and password of a consumer.
#[derive(Clone, Deserialize)]
pub struct BasicAuth {
    /// Identity.
    pub id: Uuid,
    /// Unique.
    pub username: String,
    /// The [hash](crate::basic_auth::hash_password) of the password.
    pub password: String,
    /// Who it is.
    pub consumer: Foreign,
}

/// A user name of a consumer, and the secret that signs requests.
#[derive(Clone, Deserialize)]
pub struct HmacAuth {
    /// Identity.
    pub id: Uuid,
    /// Unique.
    pub username: String,
    /// The secret.
    pub secret: String,
    /// Who it is.
    pub consumer: Foreign,
}

/// What verifies tokens of a consumer.
#[derive(Clone, Deserialize)]
pub struct Jwt {
    /// Identity.
    pub id: Uuid,
    /// What a claim of the token has to name, unique.
    pub key: String,
    /// The shared secret, for the algorithms that have one.
    #[serde(default)]
    pub secret: Option<String>,
    /// The public key in PEM, for the others.
    #[serde(default)]
    pub rsa_public_key: Option<String>,
    /// The only algorithm that its tokens may have.
    pub algorithm: JwtAlgorithm,
    /// Whose tokens these are.
    pub consumer: Foreign,
}

/// How a token is signed. Source: RFC 7518 section 3.1, RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs, reason = "the names are the algorithms")]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    ES512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

/// A consumer's membership in a group.
#[derive(Clone, Debug, Deserialize)]
pub struct Acl {
    /// Identity.
    pub id: Uuid,
    /// The name of the group.
    pub group: String,
    /// Who is in it.
    pub consumer: Foreign,
}

/// Shows the id and nothing secret.
macro_rules! debug_without_secrets {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("id", &self.id)
                    .finish_non_exhaustive()
            }
        }
    )*};
}

debug_without_secrets!(KeyAuth, BasicAuth, HmacAuth, Jwt);
