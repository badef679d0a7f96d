//! `acl`: lets consumers pass or not by the groups they are in.

use ahash::AHashSet;
use http::{HeaderName, StatusCode};
use sallyport_model::schema::{EntityCheck, Field, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exchange::{Env, Exchange, Flow, Handler, Reply};
use crate::identities::set;
use crate::{CompileError, Plugin};

const CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
const AUTHENTICATED_GROUPS: HeaderName = HeaderName::from_static("x-authenticated-groups");

const ABOUT: &str = "\
Runs after the authentication plugins, and needs one of them. Groups are `acls` of consumers. With `allow`, a
consumer must be in one of the groups; with `deny`, in none of them.

| case | answer |
|---|---|
| nobody was recognised, or an anonymous consumer without groups meets `allow` | 401 `Unauthorized` |
| the consumer may not pass | 403 `You cannot consume this service` |

The upstream gets `X-Consumer-Groups`, the groups with comma and space between, unless `hide_groups_header`
says otherwise; what the client sent under that name is removed. `always_use_authenticated_groups` changes
nothing in this build, whose authentication plugins bring no groups of their own: consumers' groups count.
";

/// The plugin, as the registry lists it.
pub(crate) struct Acl;

impl Plugin for Acl {
    fn name(&self) -> &'static str {
        "acl"
    }

    fn priority(&self) -> i32 {
        950
    }

    fn summary(&self) -> &'static str {
        "lets consumers pass or not by the groups they are in"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::array("allow", each::string()).about("Groups that may pass."),
            Field::array("deny", each::string()).about("Groups that may not pass."),
            Field::boolean("hide_groups_header")
                .required()
                .default(json!(false))
                .about("Whether the upstream is not told the groups."),
            Field::boolean("always_use_authenticated_groups")
                .required()
                .default(json!(false))
                .about(
                    "Whether groups that an authentication plugin brings go before the consumer's.",
                ),
        ])
        .check(EntityCheck::OnlyOneOf(&["allow", "deny"]))
        .check(EntityCheck::AtLeastOneOf(&["allow", "deny"]))
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let deny = config.deny.unwrap_or_default();
        let denies = !deny.is_empty();
        let groups = match denies {
            true => deny,
            false => config.allow.unwrap_or_default(),
        };
        Ok(Box::new(Active {
            denies,
            groups: groups.into_iter().map(String::into_boxed_str).collect(),
            hide_groups_header: config.hide_groups_header,
        }))
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    allow: Option<Vec<String>>,
    #[serde(default)]
    deny: Option<Vec<String>>,
    hide_groups_header: bool,
}

struct Active {
    /// Whether the groups are those that may not pass.
    denies: bool,
    groups: AHashSet<Box<str>>,
    hide_groups_header: bool,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, _env: &Env<'_>) -> Flow {
        let groups = exchange.consumer.as_ref().map(|consumer| consumer.groups());
        let nameless = match groups {
            None => true,
            Some(groups) => groups.is_empty() && !self.denies && exchange.credential.is_none(),
        };
        if nameless {
            return Flow::Respond(Reply::error(StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
        let mut groups = groups.unwrap_or_default().iter();
        if groups.any(|group| self.groups.contains(group)) == self.denies {
            let message = "You cannot consume this service";
            return Flow::Respond(Reply::error(StatusCode::FORBIDDEN, message));
        }
        let headers = &mut exchange.request.headers;
        headers.remove(&AUTHENTICATED_GROUPS);
        let shown = exchange
            .consumer
            .as_ref()
            .and_then(|consumer| consumer.groups_value())
            .filter(|_| !self.hide_groups_header);
        set(headers, &CONSUMER_GROUPS, shown);
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, Seen, exchange, header, validate};

    /// `alice` is in `staff` and `admins`, `bob` and `guest` in no group, `team` in `staff`.
    #[track_caller]
    fn check(config: Value, who: &str, expected: Seen) {
        let bench = Bench::new(&Acl, config);
        let mut exchange = exchange(http::Request::get("/"));
        match who.strip_prefix("anonymous ") {
            Some(anonymous) => bench.anonymous_as(&mut exchange, anonymous),
            None if who.is_empty() => {}
            None => bench.known_as(&mut exchange, who),
        }
        assert_eq!(bench.seen(&mut exchange), expected, "{who}");
    }

    #[test]
    fn groups_decide() {
        let allow = || json!({"allow": ["admins", "other"]});
        let deny = || json!({"deny": ["admins", "other"]});
        let forbidden = || Seen::refused(403, "You cannot consume this service");
        let unauthorized = || Seen::refused(401, "Unauthorized");
        check(allow(), "alice", Seen::Continued);
        check(allow(), "team", forbidden());
        check(allow(), "bob", forbidden());
        check(allow(), "", unauthorized());
        check(allow(), "anonymous guest", unauthorized());
        check(allow(), "anonymous alice", Seen::Continued);
        check(allow(), "anonymous team", forbidden());
        check(deny(), "alice", forbidden());
        check(deny(), "team", Seen::Continued);
        check(deny(), "bob", Seen::Continued);
        check(deny(), "", unauthorized());
        check(deny(), "anonymous guest", Seen::Continued);
    }

    #[test]
    fn the_upstream_learns_the_groups_unless_they_are_hidden() {
        let told = |config: Value, who: &str| {
            let bench = Bench::new(&Acl, config);
            let request = http::Request::get("/").header("X-Consumer-Groups", "forged");
            let mut exchange = exchange(request);
            bench.known_as(&mut exchange, who);
            assert_eq!(bench.seen(&mut exchange), Seen::Continued);
            header(&exchange, "x-consumer-groups").map(str::to_owned)
        };
        assert_eq!(
            told(json!({"allow": ["staff"]}), "alice").as_deref(),
            Some("staff, admins")
        );
        assert_eq!(told(json!({"deny": ["x"]}), "bob"), None);
        let hidden = json!({"allow": ["staff"], "hide_groups_header": true});
        assert_eq!(told(hidden, "alice"), None);
    }

    #[test]
    fn one_list_is_given() {
        let one = "exactly one of these fields must be non-empty: 'allow', 'deny'";
        let none = "at least one of these fields must be non-empty: 'allow', 'deny'";
        let check = |config, expected: &str| {
            assert_eq!(validate(&Acl, config).unwrap_err(), expected);
        };
        check(json!({"allow": ["a"], "deny": ["b"]}), one);
        check(json!({}), &format!("{one}; {none}"));
    }
}
