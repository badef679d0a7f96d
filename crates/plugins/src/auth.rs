//! What authentication plugins share: who passes, what a failure ends in.
//!
//! Without `anonymous`, several of these plugins all have to succeed. With it, one is enough: who is
//! known already passes, and a failure goes on as the anonymous consumer.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use sallyport_model::schema::Field;

use crate::CompileError;
use crate::exchange::{Env, Exchange, Flow, Reply};
use crate::identities::{Owner, tell_upstream};

/// The field `anonymous`.
pub(crate) fn anonymous() -> Field {
    Field::string("anonymous").about(
        "Id or user name of the consumer that whoever cannot prove itself goes on as. With it, \
         a caller that another plugin has recognised passes.",
    )
}

/// The field `realm` of those that may have none.
pub(crate) fn realm() -> Field {
    Field::string("realm").about("The `realm` of the challenge on a 401.")
}

/// The setting `anonymous` of one configuration.
#[derive(Clone)]
pub(crate) struct Gate {
    anonymous: Option<Box<str>>,
}

impl Gate {
    pub(crate) fn new(anonymous: Option<String>) -> Gate {
        Gate {
            anonymous: anonymous.map(String::into_boxed_str),
        }
    }

    /// Whether the caller need not prove itself here, because it did elsewhere.
    pub(crate) fn is_open(&self, exchange: &Exchange) -> bool {
        self.anonymous.is_some() && exchange.credential.is_some()
    }

    /// The caller did not prove itself: it gets the reply, or goes on as the anonymous consumer.
    pub(crate) fn refuse(&self, exchange: &mut Exchange, env: &Env<'_>, reply: Reply) -> Flow {
        let Some(anonymous) = &self.anonymous else {
            return Flow::Respond(reply);
        };
        match env.identities.consumer(anonymous) {
            Some(consumer) => {
                tell_upstream(&mut exchange.request.headers, consumer, None);
                exchange.consumer = Some(consumer.clone());
                exchange.credential = None;
                Flow::Continue
            }
            None => Flow::Respond(Reply::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("anonymous consumer {anonymous} is configured but doesn't exist"),
            )),
        }
    }
}

/// The caller proved itself.
pub(crate) fn admit(exchange: &mut Exchange, owner: &Owner) -> Flow {
    tell_upstream(
        &mut exchange.request.headers,
        &owner.consumer,
        Some(&owner.credential),
    );
    exchange.consumer = Some(owner.consumer.clone());
    exchange.credential = Some(owner.credential.clone());
    Flow::Continue
}

/// `scheme`, or `scheme realm="…"`.
///
/// # Errors
/// A realm that cannot be in a header.
pub(crate) fn challenge(scheme: &str, realm: Option<&str>) -> Result<HeaderValue, CompileError> {
    let text = match realm {
        Some(realm) => format!("{scheme} realm=\"{}\"", realm.replace(['"', '\\'], "")),
        None => scheme.to_owned(),
    };
    HeaderValue::from_str(&text).map_err(CompileError::value)
}

/// The 401 that most of these plugins answer.
pub(crate) fn unauthorized(message: &'static str, challenge: &HeaderValue) -> Reply {
    Reply::error(StatusCode::UNAUTHORIZED, message).with(WWW_AUTHENTICATE, challenge.clone())
}

/// What follows the scheme in a value of `Authorization`; the scheme in any case.
pub(crate) fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let value = value.trim_ascii_start();
    let (found, rest) = value.split_at_checked(scheme.len())?;
    found
        .eq_ignore_ascii_case(scheme.as_bytes())
        .then(|| rest.trim_ascii_start())
}
