//! `bot-detection`: refuses clients whose `User-Agent` is a crawler's.

use std::sync::OnceLock;

use http::StatusCode;
use http::header::USER_AGENT;
use regex::bytes::{Regex, RegexSet};
use sallyport_model::schema::{Field, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exchange::{Env, Exchange, Flow, Handler, Reply};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
`allow` is looked at first, then `deny`, then a list of crawlers, tools and libraries that is part of this build
(after the one of uap-core). Regular expressions are matched anywhere in the `User-Agent`; they are Rust's,
without look-around and back-references, which are refused.

| case | answer |
|---|---|
| denied, or on the list | 403 `Forbidden` |
| more than one `User-Agent` | 400 `Only one User-Agent header allowed` |

A request without `User-Agent` passes.
";

/// Names that count wherever they stand, as regular expressions.
const NAMES: &str = include_str!("bot_detection/names.txt");

/// Names that count only before a slash and a number.
const VERSIONED: &str = include_str!("bot_detection/versioned.txt");

/// The plugin, as the registry lists it.
pub(crate) struct BotDetection;

impl Plugin for BotDetection {
    fn name(&self) -> &'static str {
        "bot-detection"
    }

    fn priority(&self) -> i32 {
        2500
    }

    fn summary(&self) -> &'static str {
        "refuses clients whose `User-Agent` is a crawler's"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn schema(&self) -> Record {
        let list = |name| Field::array(name, each::string().check(is_regex)).default(json!([]));
        Record::new([
            list("allow").about("Regular expressions; who matches one passes."),
            list("deny").about("Regular expressions; who matches one is refused."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let set = |list: Option<Vec<String>>| {
            RegexSet::new(list.unwrap_or_default()).map_err(CompileError::value)
        };
        Ok(Box::new(Active {
            allow: set(config.allow)?,
            deny: set(config.deny)?,
        }))
    }
}

/// The condition on a setting that is a regular expression.
pub(crate) fn is_regex(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    match Regex::new(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("not a valid regex: {text}")),
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    allow: Option<Vec<String>>,
    #[serde(default)]
    deny: Option<Vec<String>>,
}

struct Active {
    allow: RegexSet,
    deny: RegexSet,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, _env: &Env<'_>) -> Flow {
        let mut agents = exchange.request.headers.get_all(&USER_AGENT);
        let agent = match (agents.next(), agents.next()) {
            (None, _) => return Flow::Continue,
            (Some(agent), None) => agent.trim_ascii(),
            (Some(_), Some(_)) => {
                let message = "Only one User-Agent header allowed";
                return Flow::Respond(Reply::error(StatusCode::BAD_REQUEST, message));
            }
        };
        if self.allow.is_match(agent) {
            return Flow::Continue;
        }
        match self.deny.is_match(agent) || crawlers().is_match(agent) {
            true => Flow::Respond(Reply::error(StatusCode::FORBIDDEN, "Forbidden")),
            false => Flow::Continue,
        }
    }
}

/// The list that is part of this build.
fn crawlers() -> &'static Regex {
    static CRAWLERS: OnceLock<Regex> = OnceLock::new();
    CRAWLERS.get_or_init(|| {
        let any = |list: &str| {
            let names: Vec<&str> = list
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .collect();
            names.join("|")
        };
        let pattern = format!(
            "(?-u)(?:{})|\\b(?:{})/[0-9]+|(?:[Aa]rchiver|[Ii]ndexer|[Ss]craper|[Bb]ot|[Ss]pider|\
             [Cc]rawl[a-z]*)[/ ][0-9]|(?i:spider|crawl)|[Ss]crape",
            any(NAMES),
            any(VERSIONED),
        );
        Regex::new(&pattern).expect("a test compiles the list")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, Seen, exchange, validate};

    #[track_caller]
    fn check(config: Value, agents: &[&str], expected: Seen) {
        let request = agents
            .iter()
            .fold(http::Request::get("/"), |request, agent| {
                request.header("user-agent", *agent)
            });
        let bench = Bench::new(&BotDetection, config);
        assert_eq!(bench.seen(&mut exchange(request)), expected, "{agents:?}");
    }

    fn forbidden() -> Seen {
        Seen::refused(403, "Forbidden")
    }

    #[test]
    fn people_and_plain_clients_pass() {
        for agent in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/126.0.0.0 Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
             Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)",
            "curl/8.5.0",
            "python-requests/2.32.0",
            "helloworld",
            "",
        ] {
            check(json!({}), &[agent], Seen::Continued);
        }
        check(json!({}), &[], Seen::Continued);
    }

    #[test]
    fn crawlers_are_refused() {
        for agent in [
            "Googlebot/2.1 (+http://www.google.com/bot.html)",
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
            "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "Twitterbot/1.0",
            "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
            "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
            "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
            "Apache-HttpClient/4.5.2 (Java/1.8.0_161)",
            "Go-http-client/1.1",
            "okhttp/4.9.0",
            "Scrapy/1.5.0",
            "Boto3/1.9.1 Python/3.6",
            "MyArchiver/3.1",
            "some crawler of ours",
            "LinkedInBot/1.0 (compatible; Mozilla/5.0)",
            "WhatsApp/2.19",
        ] {
            check(json!({}), &[agent], forbidden());
        }
    }

    #[test]
    fn own_lists_go_first() {
        check(
            json!({"allow": ["Twitterbot"]}),
            &["Twitterbot/1.0"],
            Seen::Continued,
        );
        check(json!({"deny": ["hello"]}), &["say helloworld"], forbidden());
        let both = json!({"allow": ["^helloworld$"], "deny": ["hello"]});
        check(both.clone(), &["helloworld"], Seen::Continued);
        check(both, &["helloworlds"], forbidden());
    }

    #[test]
    fn two_names_are_none() {
        let message = "Only one User-Agent header allowed";
        check(json!({}), &["a", "b"], Seen::refused(400, message));
    }

    #[test]
    fn a_broken_expression_is_named() {
        assert_eq!(
            validate(
                &BotDetection,
                json!({"deny": ["ok", "("], "allow": ["(?=a)"]})
            )
            .unwrap_err(),
            "allow[0]: not a valid regex: (?=a); deny[1]: not a valid regex: ("
        );
    }
}
