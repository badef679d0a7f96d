//! The caller of a request, from its token, and the check of what the path needs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::AUTHORIZATION;
use sallyport_store::{Actor, Bearer, Store, Token};
use serde_json::json;
use uuid::Uuid;

use super::roles::{Grants, Needs};
use super::token::digest;
use crate::app::App;
use crate::audit_log::{Caller, Peer};
use crate::problem::Problem;

/// A token's last use is written down this often at most.
const USED_EVERY_MS: i64 = 60_000;

/// Whoever asks.
#[derive(Clone)]
pub(crate) struct Principal(Arc<Who>);

struct Who {
    token: Option<Token>,
    /// How the change log names a caller without a token.
    name: String,
    grants: Grants,
}

impl Principal {
    fn of(bearer: Bearer, geo: &str) -> Principal {
        let grants = Grants::of(&bearer, geo);
        Principal(Arc::new(Who {
            token: Some(bearer.token),
            name: String::new(),
            grants,
        }))
    }

    /// Somebody on this machine, where that is proof enough.
    pub(crate) fn local() -> Principal {
        Principal::program("local".to_owned())
    }

    /// A program that has proved in another way than by a token that it may do what is behind.
    pub(crate) fn program(name: String) -> Principal {
        Principal(Arc::new(Who {
            token: None,
            name,
            grants: Grants::everything(),
        }))
    }

    /// The token, unless the caller is [`Principal::local`].
    pub(crate) fn token(&self) -> Option<&Token> {
        self.0.token.as_ref()
    }

    /// Id of the person or system account.
    pub(crate) fn id(&self) -> Option<Uuid> {
        self.token().map(|token| token.owner.id())
    }

    /// Whether the caller may do this, with this control plane if it is about one.
    pub(crate) fn may(&self, needs: Needs, cp: Option<Uuid>) -> bool {
        self.0.grants.cover(needs, cp)
    }

    /// How the change log names the caller.
    fn actor(&self) -> Actor {
        Actor(match self.token() {
            Some(token) => format!("token:{}", token.name),
            None => self.0.name.clone(),
        })
    }

    /// Makes a request one of this caller.
    pub(crate) fn stands_behind(self, request: &mut Request) {
        if let (Some(token), Some(caller)) = (self.token(), request.extensions().get::<Caller>()) {
            caller.set(token);
        }
        request.extensions_mut().insert(self.actor());
        request.extensions_mut().insert(self);
    }
}

/// Lets a request with a good token through, with its [`Principal`] and [`Actor`].
pub(crate) async fn require_token(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = Shown::of(&request);
    match admit(&app, shown).await {
        Ok(principal) => {
            principal.stands_behind(&mut request);
            next.run(request).await
        }
        Err(refused) => refused,
    }
}

/// What a request shows of its caller.
pub(crate) struct Shown {
    /// SHA-256 of the token.
    digest: Option<[u8; 32]>,
    peer: Option<IpAddr>,
    path: String,
}

impl Shown {
    pub(crate) fn of(request: &Request) -> Shown {
        let text = request.headers().get(AUTHORIZATION);
        let text = text.and_then(|value| value.to_str().ok()).and_then(bearer);
        Shown {
            digest: text.map(digest),
            peer: request.extensions().get::<Peer>().map(|peer| peer.0.ip()),
            path: request.uri().path().to_owned(),
        }
    }
}

/// Whoever stands behind a request's token, or the answer if nobody does.
pub(crate) async fn admit(app: &App, shown: Shown) -> Result<Principal, Response> {
    let Shown { digest, peer, path } = shown;
    let found = match digest {
        Some(digest) => app.store.bearer(digest).await,
        None => Ok(None),
    };
    let found = found.map_err(|error| Problem::from(error).into_response())?;
    let now = now_ms();
    // One answer for a token that was never there, that has expired, and that was revoked.
    let Some(bearer) = found.filter(|bearer| bearer.token.is_good(now)) else {
        return Err(unauthorized(&path));
    };
    if !from_allowed(&bearer, peer) {
        let detail = "the organization does not allow this address";
        return Err(forbidden(&path, detail));
    }
    if let Err(wait_secs) = app.limits.admit(bearer.token.id, now) {
        return Err(too_many(wait_secs));
    }
    let last = bearer.token.last_used_at_ms;
    if last.is_none_or(|last| now - last > USED_EVERY_MS)
        && let Err(error) = app.store.token_used(bearer.token.id).await
    {
        tracing::debug!(%error, "the use of a token could not be written down");
    }
    Ok(Principal::of(bearer, &app.geo))
}

/// Whether the organisation takes requests from this address; this machine always may, so that
/// nobody is locked out.
fn from_allowed(bearer: &Bearer, peer: Option<IpAddr>) -> bool {
    let Some(list) = &bearer.ip_allow_list else {
        return true;
    };
    let Some(peer) = peer
        .map(|peer| peer.to_canonical())
        .filter(|peer| !peer.is_loopback())
    else {
        return true;
    };
    let allowed = list["allowed_ips"].as_array().into_iter().flatten();
    let mut allowed = allowed.filter_map(|text| super::settings::network(text.as_str()?));
    list["enabled"] != true || allowed.any(|network| network.contains(&peer))
}

/// Lets a request through whose caller may do what the path needs.
pub(crate) async fn authorize(
    State((app, needs)): State<(App, Needs)>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let part = |wanted: &str| {
        let mut params = params.iter();
        let found = params.find(|(name, _)| *name == wanted);
        found.and_then(|(_, value)| Uuid::try_parse(value).ok())
    };
    let caller = request.extensions().get::<Principal>().cloned();
    let allowed = match &caller {
        // the token is checked before paths are
        None => needs == Needs::Nothing,
        Some(caller) => match needs {
            Needs::ControlPlane(..) => allowed(&app.store, caller, needs, part("cp")).await,
            Needs::Person(_) => {
                let own = caller.id().filter(|id| part("user") == Some(*id));
                own.is_some() || caller.may(needs, None)
            }
            _ => caller.may(needs, None),
        },
    };
    if allowed {
        return next.run(request).await;
    }
    forbidden(request.uri().path(), "your roles do not allow this")
}

/// Whether a caller may do this with a control plane; a draft is under the roles of its origin.
pub(crate) async fn allowed(
    store: &Store,
    caller: &Principal,
    needs: Needs,
    cp: Option<Uuid>,
) -> bool {
    if caller.may(needs, cp) {
        return true;
    }
    let draft = match cp {
        Some(cp) => store.draft(cp).await.ok().flatten(),
        None => None,
    };
    draft.is_some_and(|draft| caller.may(needs, Some(draft.origin)))
}

/// The token in `Bearer <token>`; the scheme in any case.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Whether clients of a path expect the older form of errors.
fn is_older(path: &str) -> bool {
    path.contains("/core-entities") || !path.starts_with("/v")
}

fn unauthorized(path: &str) -> Response {
    if is_older(path) {
        let body = json!({"message": "Unauthorized", "status": 401});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let detail = "a valid access token is needed in the header Authorization: Bearer <token>";
    Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
}

fn forbidden(path: &str, detail: &str) -> Response {
    if is_older(path) {
        let body = json!({"code": 7, "message": format!("Forbidden: {detail}"), "details": []});
        return (StatusCode::FORBIDDEN, Json(body)).into_response();
    }
    Problem::new(StatusCode::FORBIDDEN, detail).into_response()
}

fn too_many(wait_secs: u64) -> Response {
    let detail = "this token sends more requests than it may";
    let mut answer = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).into_response();
    let headers = answer.headers_mut();
    headers.insert(http::header::RETRY_AFTER, wait_secs.into());
    answer
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use sallyport_store::{Owner, SystemAccount};

    use super::*;

    #[test]
    fn an_allow_list_keeps_others_out_but_never_this_machine() {
        let account = SystemAccount {
            id: Uuid::nil(),
            name: "ci".to_owned(),
            description: String::new(),
            created_at_ms: 0,
            updated_at_ms: 0,
        };
        let token = Token {
            id: Uuid::nil(),
            name: "t".to_owned(),
            owner: Owner::SystemAccount(account),
            created_at_ms: 0,
            updated_at_ms: 0,
            expires_at_ms: None,
            last_used_at_ms: None,
            revoked_at_ms: None,
            revoked_by: None,
        };
        let mut bearer = Bearer {
            token,
            is_owner: true,
            predefined_teams: Vec::new(),
            roles: Vec::new(),
            ip_allow_list: None,
        };
        let mut check = |list: serde_json::Value, peer: &str, expected: bool| {
            bearer.ip_allow_list = Some(list);
            let allowed = from_allowed(&bearer, peer.parse().ok());
            assert_eq!(allowed, expected, "{peer}");
        };
        let list = json!({"enabled": true, "allowed_ips": ["10.0.0.0/8", "2001:db8::1"]});
        check(list.clone(), "10.1.2.3", true);
        check(list.clone(), "::ffff:10.1.2.3", true);
        check(list.clone(), "2001:db8::1", true);
        check(list.clone(), "11.1.2.3", false);
        check(list.clone(), "127.0.0.1", true);
        check(list, "::1", true);
        let off = json!({"enabled": false, "allowed_ips": ["10.0.0.0/8"]});
        check(off, "11.1.2.3", true);
        check(
            json!({"enabled": true, "allowed_ips": []}),
            "11.1.2.3",
            false,
        );
    }

    #[test]
    fn a_bearer_header_is_read_leniently() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            (" BEARER abc", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(header), token, "{header:?}");
        }
    }
}
