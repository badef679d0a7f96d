//! The plugins for authentication and access through running gateways: alone on a file, and behind
//! a control plane that decK writes to.

use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::{digest, hmac};
use sallyport_model::schema::{Mode, PluginSchemas as _, validate};
use sallyport_plugins::schemas;
use sallyport_testkit::http::{Request, Response, request};
use sallyport_testkit::{Echo, foreign};
use serde_json::{Value, json};

use crate::deck::Deck;
use crate::lab::{Alone, Control, Gateway, has_all, write};

/// A plugin as decK 1.4.0 compares it: with every default spelled out.
fn plugin(name: &str, config: Value) -> Value {
    let record = schemas().config(name).expect("a plugin of this build");
    let config = validate(record, config, Mode::Strict).expect("a valid configuration");
    json!({
        "name": name, "enabled": true, "protocols": schemas().protocols(name), "config": config,
    })
}

/// A route for each plugin by itself, and routes where several work together.
fn document(version: &str, port: u16) -> Value {
    let anonymous = || json!({"anonymous": "guest"});
    let routes = [
        (
            "basic",
            vec![plugin("basic-auth", json!({"hide_credentials": true}))],
        ),
        (
            "hmac",
            vec![plugin("hmac-auth", json!({"validate_request_body": true}))],
        ),
        (
            "jwt",
            vec![plugin("jwt", json!({"claims_to_verify": ["exp"]}))],
        ),
        (
            "acl",
            vec![
                plugin("key-auth", json!({})),
                plugin("acl", json!({"allow": ["staff"]})),
            ],
        ),
        (
            "ip",
            vec![plugin("ip-restriction", json!({"deny": ["127.0.0.0/8"]}))],
        ),
        (
            "bot",
            vec![plugin("bot-detection", json!({"deny": ["^evil"]}))],
        ),
        (
            "cors",
            vec![
                plugin(
                    "cors",
                    json!({"origins": ["http://a.example", "http://b.example"]}),
                ),
                plugin("key-auth", json!({})),
            ],
        ),
        (
            "either",
            vec![
                plugin("session", json!({"secret": "s", "cookie_secure": false})),
                plugin("key-auth", anonymous()),
                plugin("basic-auth", anonymous()),
                plugin("jwt", anonymous()),
                plugin("hmac-auth", anonymous()),
            ],
        ),
        (
            "both",
            vec![
                plugin("key-auth", json!({})),
                plugin("basic-auth", json!({})),
            ],
        ),
    ];
    let routes = routes.map(|(name, plugins)| {
        json!({
            "name": name, "paths": [format!("/{name}")], "strip_path": true, "plugins": plugins,
            "https_redirect_status_code": 426, "path_handling": "v0", "request_buffering": true,
            "response_buffering": true,
        })
    });
    json!({
        "_format_version": version,
        "services": [{
            "name": "echo", "host": "127.0.0.1", "port": port, "retries": 5, "routes": routes,
        }],
        "consumers": [
            {
                "username": "alice",
                "keyauth_credentials": [{"key": "alices-key"}],
                "basicauth_credentials": [{"username": "alice", "password": "open sesame"}],
                "hmacauth_credentials": [{"username": "alice", "secret": "alices-secret"}],
                "jwt_secrets": [
                    {"key": "issuer", "algorithm": "HS256", "secret": "issuers-secret"}
                ],
                "acls": [{"group": "staff"}, {"group": "admins"}],
            },
            {"username": "bob", "keyauth_credentials": [{"key": "bobs-key"}]},
            {"username": "guest"},
        ],
    })
}

/// Everything that [`document`] promises, asked of a gateway.
struct Walk<'a> {
    port: u16,
    echo: &'a Echo,
}

impl Walk<'_> {
    fn ask(&self, method: &str, path: &str) -> Request {
        request(method, format!("http://127.0.0.1:{}{path}", self.port))
    }

    fn get(&self, path: &str) -> Request {
        self.ask("GET", path)
    }

    /// The request reaches the upstream as alice's.
    #[track_caller]
    fn alice(&self, request: Request, identifier: Option<&str>) -> Value {
        let answer = request.send().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = answer.json();
        let headers = &seen["headers"];
        assert_eq!(headers["x-consumer-username"], json!(["alice"]), "{seen:#}");
        assert!(headers["x-anonymous-consumer"].is_null(), "{seen:#}");
        if let Some(identifier) = identifier {
            assert_eq!(headers["x-credential-identifier"], json!([identifier]));
        }
        seen
    }

    /// The request ends at the gateway.
    #[track_caller]
    fn refused(&self, request: Request, status: u16, message: &str) -> Response {
        let before = self.echo.count();
        let answer = request.send().unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.json()["message"], message);
        assert_eq!(self.echo.count(), before, "the upstream was asked");
        answer
    }

    fn all(&self) {
        self.basic();
        self.hmac();
        self.jwt();
        self.access();
        self.cors();
        self.together();
        self.session();
    }

    fn basic(&self) {
        let none = self.refused(self.get("/basic"), 401, "Unauthorized");
        assert_eq!(
            none.header("www-authenticate"),
            Some("Basic realm=\"service\"")
        );
        let wrong = self
            .get("/basic")
            .header("Authorization", basic("alice:wrong"));
        self.refused(wrong, 401, "Unauthorized");
        let right = self
            .get("/basic")
            .header("Authorization", basic("alice:open sesame"));
        let seen = self.alice(right, Some("alice"));
        assert!(seen["headers"]["authorization"].is_null(), "{seen:#}");
    }

    fn hmac(&self) {
        let none = self.refused(self.get("/hmac"), 401, "Unauthorized");
        assert_eq!(none.header("www-authenticate"), Some("hmac"));
        let signed = |body: &str, sent: &str| {
            let date = httpdate::fmt_http_date(SystemTime::now());
            let message = format!("date: {date}\n@request-target: post /hmac?a=1");
            let value = format!(
                "hmac username=\"alice\", algorithm=\"hmac-sha256\", \
                 headers=\"date @request-target\", signature=\"{}\"",
                BASE64_STANDARD.encode(sign(b"alices-secret", &message))
            );
            let digest = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes()));
            self.ask("POST", "/hmac?a=1")
                .header("Date", date)
                .header("Digest", format!("SHA-256={digest}"))
                .header("Authorization", value)
                .body(sent)
        };
        let seen = self.alice(signed("the body", "the body"), Some("alice"));
        assert_eq!(seen["body"], "the body");
        let message = "HMAC signature does not match";
        self.refused(signed("the body", "another body"), 401, message);
    }

    fn jwt(&self) {
        let none = self.refused(self.get("/jwt"), 401, "Unauthorized");
        assert_eq!(none.header("www-authenticate"), Some("Bearer"));
        assert_eq!(none.text(), r#"{"message":"Unauthorized"}"#);
        let with = |token: &str| {
            self.get("/jwt")
                .header("Authorization", format!("Bearer {token}"))
        };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let good = token(
            &json!({"iss": "issuer", "exp": now + 600}),
            b"issuers-secret",
        );
        self.alice(with(&good), Some("issuer"));
        self.alice(self.get(&format!("/jwt?jwt={good}")), Some("issuer"));
        let forged = token(&json!({"iss": "issuer", "exp": now + 600}), b"guessed");
        let answer = self.refused(with(&forged), 401, "Invalid signature");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer error=\"invalid_token\""));
        let old = token(&json!({"iss": "issuer", "exp": now - 1}), b"issuers-secret");
        let answer = with(&old).send().unwrap();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (401, r#"{"exp":"token expired"}"#)
        );
    }

    fn access(&self) {
        let staff = self.get("/acl").header("apikey", "alices-key");
        let seen = self.alice(staff, None);
        let groups = seen["headers"]["x-consumer-groups"][0].as_str().unwrap();
        has_all(groups, &["staff", "admins", ", "]);
        let other = self.get("/acl").header("apikey", "bobs-key");
        self.refused(other, 403, "You cannot consume this service");
        self.refused(self.get("/ip"), 403, "IP address not allowed: 127.0.0.1");
        let agent = |name| self.get("/bot").header("User-Agent", name);
        assert_eq!(agent("curl/8.5.0").send().unwrap().status, 200);
        self.refused(agent("evil"), 403, "Forbidden");
        self.refused(agent("Googlebot/2.1"), 403, "Forbidden");
    }

    fn cors(&self) {
        let preflight = self
            .ask("OPTIONS", "/cors")
            .header("Origin", "http://b.example")
            .header("Access-Control-Request-Method", "PUT");
        let answer = preflight.send().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        let allowed = "access-control-allow-origin";
        assert_eq!(answer.header(allowed), Some("http://b.example"));
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert!(
            answer
                .header("access-control-allow-methods")
                .unwrap()
                .contains("PUT")
        );
        // the refusal of a later plugin is marked too
        let stranger = self.get("/cors").header("Origin", "http://b.example");
        let answer = self.refused(stranger, 401, "No API key found in request");
        assert_eq!(answer.header(allowed), Some("http://b.example"));
        let other = self.get("/cors").header("Origin", "http://c.example");
        let answer = other.header("apikey", "bobs-key").send().unwrap();
        assert_eq!((answer.status, answer.header(allowed)), (200, None));
    }

    fn together(&self) {
        self.alice(self.get("/either").header("apikey", "alices-key"), None);
        let proof = basic("alice:open sesame");
        self.alice(
            self.get("/either").header("Authorization", &proof),
            Some("alice"),
        );
        let nobody = self.get("/either").send().unwrap();
        assert_eq!(nobody.status, 200);
        let seen = nobody.json();
        assert_eq!(seen["headers"]["x-consumer-username"], json!(["guest"]));
        assert_eq!(seen["headers"]["x-anonymous-consumer"], json!(["true"]));
        assert!(
            nobody.header("set-cookie").is_none(),
            "no session for a guest"
        );
        let both = || self.get("/both");
        self.refused(both().header("apikey", "bobs-key"), 401, "Unauthorized");
        let only = both().header("Authorization", &proof);
        self.refused(only, 401, "No API key found in request");
        let all = both()
            .header("apikey", "bobs-key")
            .header("Authorization", &proof);
        self.alice(all, Some("alice"));
    }

    fn session(&self) {
        let login = self
            .get("/either")
            .header("apikey", "alices-key")
            .send()
            .unwrap();
        let cookie = login.header("set-cookie").unwrap();
        assert!(
            cookie.ends_with("; Path=/; SameSite=Strict; HttpOnly"),
            "{cookie}"
        );
        let cookie = cookie.split(';').next().unwrap();
        self.alice(self.get("/either").header("Cookie", cookie), None);
        let forged = self.get("/either").header("Cookie", format!("{cookie}x"));
        let forged = forged.send().unwrap().json();
        assert_eq!(forged["headers"]["x-consumer-username"], json!(["guest"]));
        let logout = self
            .ask("POST", "/either?session_logout")
            .header("Cookie", cookie);
        let before = self.echo.count();
        let answer = logout.send().unwrap();
        assert_eq!((answer.status, self.echo.count()), (200, before));
        assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    }
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(text))
}

fn sign(secret: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

fn token(claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let message = format!("{}.{}", part(&header), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(secret, &message));
    format!("{message}.{signature}")
}

#[test]
fn a_gateway_alone_knows_callers_by_every_credential() {
    let echo = Echo::start();
    let gateway = Alone::start(&document("3.0", echo.port()).to_string(), "");
    let port = gateway.port;
    Walk { port, echo: &echo }.all();
}

#[test]
fn deck_writes_every_credential_once() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let control = Control::start();
    let gateway = Gateway::start(&control);
    let echo = Echo::start();
    let deck = Deck::new(&control);
    let mut document = document("1.1", echo.port());
    write(&deck.path().join("kong.yml"), document.to_string());
    // a service, 9 routes, 3 consumers, 2 keys, 3 other credentials, 2 groups, 16 plugins
    let count = 1 + 9 + 3 + 2 + 3 + 2 + 16;
    deck.does("sync", "kong.yml", count, 0, 0);
    control.wait_in_sync(1);
    let walk = Walk {
        port: gateway.port,
        echo: &echo,
    };
    walk.all();

    deck.does("sync", "kong.yml", 0, 0, 0);
    deck.does("diff", "kong.yml", 0, 0, 0);
    deck.run(&["dump", "-o", "dump.yml"]).success();
    let dumped = std::fs::read_to_string(deck.path().join("dump.yml")).unwrap();
    has_all(
        &dumped,
        &[
            "alices-key",
            "alices-secret",
            "issuers-secret",
            "staff",
            "guest",
        ],
    );
    assert!(
        !dumped.contains("open sesame"),
        "a password is shown as its hash"
    );
    deck.does("diff", "dump.yml", 0, 0, 0);
    deck.does("sync", "dump.yml", 0, 0, 0);
    walk.all();

    // one of each goes, with what hangs on it
    let alice = &mut document["consumers"][0];
    for kind in [
        "basicauth_credentials",
        "hmacauth_credentials",
        "jwt_secrets",
    ] {
        alice[kind] = json!([]);
    }
    alice["acls"] = json!([{"group": "admins"}]);
    write(&deck.path().join("kong.yml"), document.to_string());
    deck.does("sync", "kong.yml", 0, 0, 4);
    control.wait_in_sync(1);
    let known = walk
        .get("/basic")
        .header("Authorization", basic("alice:open sesame"));
    walk.refused(known, 401, "Unauthorized");
    let member = walk.get("/acl").header("apikey", "alices-key");
    walk.refused(member, 403, "You cannot consume this service");
}
