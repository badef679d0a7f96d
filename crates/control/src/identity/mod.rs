//! Who is asking and what they may: tokens, people, teams, system accounts, roles, settings.

mod accounts;
mod me;
mod people;
mod principal;
mod roles;
mod roles_api;
mod settings;
mod teams;
mod token;
mod tokens_api;
#[cfg(test)]
mod walk;

pub(crate) use principal::{Principal, Shown, admit, allowed, authorize, now_ms, require_token};
pub(crate) use roles::{Access, Needs, Part, TEAMS};
#[cfg(test)]
pub(crate) use roles::{ROLES, covers};
pub(crate) use token::{Prefix, digest, new_token, random_text};

use crate::route::Route;

/// Every path of the identity API, in its versions 2 (two paths, for decK) and 3.
pub(crate) fn routes() -> Vec<Route> {
    let mut all = me::routes();
    all.extend(people::routes());
    all.extend(tokens_api::routes());
    all.extend(teams::routes());
    all.extend(roles_api::routes());
    all.extend(accounts::routes());
    all.extend(settings::routes());
    all
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn stamp(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_of_a_second() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
    }
}
