//! Every field of every kind of entity, and of every plugin's configuration, with everything that
//! can be wrong with it. The cases are made from the schemas, so a new field is walked unasked.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use sallyport_model::Kind;
use sallyport_model::schema::{self, Field, Mode, PluginSchemas, Record, Rule, Type};
use sallyport_runtime::certs::{LocalCa, self_signed_localhost};
use serde_json::{Map, Value, json};
use support::{Answer, Lab};

/// An id that nothing has.
const NOWHERE: &str = "99999999-9999-4999-8999-999999999999";

/// One step down to a value.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Element,
}

/// A value that is wrong where it stands.
#[derive(Clone, Debug)]
struct Case {
    way: Vec<Step>,
    value: Value,
    /// Whether only the database can tell, because the value has the right form.
    stored: bool,
}

impl Case {
    /// How errors name the place.
    fn place(&self) -> String {
        let mut text = String::new();
        for step in &self.way {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => text.push_str(&format!(".{key}")),
                Step::Element => text.push_str("[0]"),
            }
        }
        text
    }

    /// The entity with the value put in its place.
    fn within(&self, entity: &Value) -> Value {
        fn put(at: &mut Value, way: &[Step], value: &Value) {
            match way {
                [] => *at = value.clone(),
                [Step::Key(key), rest @ ..] => {
                    if !at.is_object() {
                        *at = json!({});
                    }
                    put(&mut at[key.as_str()], rest, value);
                }
                [Step::Element, rest @ ..] => {
                    *at = json!([null]);
                    put(&mut at[0], rest, value);
                }
            }
        }
        let mut entity = entity.clone();
        put(&mut entity, &self.way, &self.value);
        entity
    }
}

fn below(way: &[Step], step: Step) -> Vec<Step> {
    way.iter().cloned().chain([step]).collect()
}

/// Values of every type that a field of this one does not take.
fn wrong_types(ty: &Type) -> Vec<Value> {
    let (text, number, boolean) = (json!("x"), json!(7), json!(true));
    let (list, map) = (json!([[]]), json!({"x-walk": {}}));
    match ty {
        Type::String => vec![number, boolean, list, map, json!([]), json!({})],
        Type::Number => vec![text, json!("7"), boolean, list, map],
        Type::Integer => vec![
            text,
            json!("7"),
            json!(1.5),
            json!(1e300),
            boolean,
            list,
            map,
        ],
        Type::Boolean => vec![text, json!("true"), number, json!(0), list, map],
        Type::Array(_) | Type::Set(_) => vec![text, number, boolean, map],
        Type::Map { .. } => vec![text, number, boolean, list],
        Type::Record(_) => vec![text, number, boolean, list, map],
        Type::Foreign(_) => vec![
            text,
            number,
            boolean,
            list,
            json!({}),
            json!({"id": 7}),
            json!({"id": "7"}),
            json!({"id": "../services"}),
        ],
    }
}

/// Values of the right type beyond what the rules allow.
fn out_of_range(field: &Field) -> Vec<Value> {
    let mut all = Vec::new();
    if matches!(field.ty, Type::String) {
        let sized = field
            .rules
            .iter()
            .any(|rule| matches!(rule, Rule::Len { .. }));
        if !sized {
            all.push(json!(""));
        }
        if field.uuid {
            all.extend([json!("7"), json!("0dc6f45b8f8d40d2a504473544ee190b")]);
        }
    }
    for rule in &field.rules {
        match rule {
            Rule::OneOf(_) if matches!(field.ty, Type::String) => all.push(json!("no such choice")),
            Rule::OneOf(_) => all.push(json!(-77)),
            Rule::Between(min, max) => {
                all.extend([json!(min - 1), json!(max + 1), json!(i64::MIN)]);
            }
            Rule::Above(floor) => all.extend([json!(floor), json!(floor - 1)]),
            Rule::Len { min, .. } if *min > 0 => all.push(match field.ty {
                Type::String => json!("x".repeat(min - 1)),
                Type::Array(_) | Type::Set(_) => json!([]),
                _ => continue,
            }),
            Rule::StartsWith(_) => all.push(json!("\u{1}")),
            Rule::Len { .. } | Rule::Null | Rule::Custom(_) => {}
        }
        if let (Rule::Len { max, .. }, Type::String) = (rule, &field.ty)
            && *max < 100_000
        {
            all.push(json!("x".repeat(max + 1)));
        }
    }
    all
}

/// Everything wrong with what a field holds.
fn walk_value(field: &Field, way: &[Step], cases: &mut Vec<Case>) {
    let mut wrong = |way: &[Step], value: Value, stored| {
        cases.push(Case {
            way: way.to_vec(),
            value,
            stored,
        });
    };
    if field.rules.iter().any(|rule| matches!(rule, Rule::Null)) {
        return wrong(way, json!("x"), false);
    }
    for value in wrong_types(&field.ty)
        .into_iter()
        .chain(out_of_range(field))
    {
        wrong(way, value, false);
    }
    match &field.ty {
        Type::Foreign(foreign) if foreign.kind.is_some() => {
            wrong(way, json!({"id": NOWHERE}), true);
        }
        Type::Record(record) if !record.fields.is_empty() => walk(record, way, cases),
        Type::Array(each) | Type::Set(each) => {
            let element = below(way, Step::Element);
            wrong(&element, Value::Null, false);
            walk_value(each, &element, cases);
        }
        Type::Map { values, .. } => {
            walk_value(values, &below(way, Step::Key("X-Walk".to_owned())), cases);
        }
        _ => {}
    }
}

/// Everything wrong with each field of a record, and a field that it does not have.
fn walk(record: &Record, way: &[Step], cases: &mut Vec<Case>) {
    for field in &record.fields {
        let here = below(way, Step::Key(field.name.to_owned()));
        let is_record = matches!(field.ty, Type::Record(_));
        if field.required && field.default.is_none() && !field.auto && !is_record {
            cases.push(Case {
                way: here.clone(),
                value: Value::Null,
                stored: false,
            });
        }
        walk_value(field, &here, cases);
    }
    let unknown = below(way, Step::Key("no_such_field".to_owned()));
    cases.push(Case {
        way: unknown,
        value: json!(1),
        stored: false,
    });
}

fn cases(record: &Record) -> Vec<Case> {
    let mut cases = Vec::new();
    walk(record, &[], &mut cases);
    cases
}

/// The errors that a body is refused with.
#[track_caller]
fn refused(kind: Kind, body: Value, plugins: &dyn PluginSchemas) -> Vec<String> {
    let shown = body.to_string();
    match schema::parse_entity_in(kind, body, Mode::Strict, plugins) {
        Ok(_) => panic!("{kind} takes {}", &shown[..shown.len().min(300)]),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// Whether one of the errors is about this place, or about one below or just above it.
fn is_named(place: &str, errors: &[String]) -> bool {
    errors.iter().any(|error| error.starts_with(place))
}

#[test]
fn what_is_wrong_with_a_field_is_told_with_its_name() {
    let plugins = sallyport_plugins::schemas();
    let mut walked = 0;
    for kind in Kind::ALL {
        for case in cases(&schema::of(kind).record) {
            if case.stored || kind == Kind::Plugin && case.place().starts_with("config.") {
                continue;
            }
            let base = match kind {
                Kind::Plugin => json!({"name": "key-auth"}),
                _ => json!({}),
            };
            let errors = refused(kind, case.within(&base), plugins);
            let named = is_named(&case.place(), &errors);
            assert!(
                named,
                "{kind} {} = {}: {errors:?}",
                case.place(),
                case.value
            );
            walked += 1;
        }
    }
    assert!(walked > 1000, "{walked} cases");
}

#[test]
fn the_same_of_every_configuration_of_a_plugin() {
    let plugins = sallyport_plugins::schemas();
    for name in plugins.names() {
        let record = plugins.config(name).unwrap();
        for case in cases(record) {
            if case.stored {
                continue;
            }
            let place = format!("config.{}", case.place());
            let config = case.within(&json!({}));
            let body = json!({"name": name, "config": config});
            let errors = refused(Kind::Plugin, body, plugins);
            assert!(
                is_named(&place, &errors),
                "{name} {place} = {}: {errors:?}",
                case.value
            );
        }
    }
}

/// A body of each kind that is accepted, with what it refers to by the paths in `made`.
fn smallest(kind: Kind, made: &Map<String, Value>) -> Value {
    let pair = || self_signed_localhost(30).unwrap();
    let refer = |name: &str| json!({"id": made[name]});
    match kind {
        Kind::Certificate => {
            let pair = pair();
            json!({"cert": pair.cert, "key": pair.key})
        }
        Kind::CaCertificate => {
            json!({"cert": LocalCa::create("walk", 30).unwrap().pem().cert})
        }
        Kind::Sni => json!({"name": "a.example", "certificate": refer("certificates")}),
        Kind::KeySet => json!({"name": "walk"}),
        Kind::Key => json!({"kid": "walk", "pem": {"private_key": pair().key}}),
        Kind::Service => json!({"name": "walk", "host": "a.example"}),
        Kind::Route => json!({"name": "walk", "paths": ["/walk"]}),
        Kind::Consumer => json!({"username": "walk"}),
        Kind::Upstream => json!({"name": "walk"}),
        Kind::Target => json!({"target": "10.0.0.1:80", "upstream": refer("upstreams")}),
        Kind::Plugin => json!({"name": "key-auth"}),
        Kind::KeyAuth | Kind::Jwt => json!({"consumer": refer("consumers")}),
        Kind::BasicAuth => {
            json!({"username": "walk", "password": "p", "consumer": refer("consumers")})
        }
        Kind::HmacAuth => json!({"username": "walk", "consumer": refer("consumers")}),
        Kind::Acl => json!({"group": "walk", "consumer": refer("consumers")}),
        Kind::Vault => json!({"name": "env", "prefix": "walk"}),
        Kind::ConsumerGroup => json!({"name": "walk"}),
        Kind::ConsumerGroupMember => {
            json!({"consumer_group": refer("consumer_groups"), "consumer": refer("consumers")})
        }
    }
}

/// Where entities of a kind are written.
fn written_at(kind: Kind, made: &Map<String, Value>) -> String {
    let below = |parent: &str, segment: &str| {
        format!("{parent}/{}/{segment}", made[parent].as_str().unwrap())
    };
    match kind {
        Kind::Target => below("upstreams", "targets"),
        Kind::KeyAuth => below("consumers", "key-auth"),
        Kind::BasicAuth => below("consumers", "basic-auth"),
        Kind::HmacAuth => below("consumers", "hmac-auth"),
        Kind::Jwt => below("consumers", "jwt"),
        Kind::Acl => below("consumers", "acls"),
        other => other.collection().to_owned(),
    }
}

/// Whether a refusal names the place in the way of this API.
fn tells(answer: &Answer, place: &str) -> bool {
    let details = answer.body["details"].as_array().unwrap();
    let mut fields = details.iter().filter_map(|detail| detail["field"].as_str());
    let message = answer.body["message"].as_str().unwrap();
    fields.any(|field| field.starts_with(place)) && message.contains(place)
}

/// Over HTTP, with the database behind: one value of each wrong sort for each field, references to
/// what is not there and to what another control plane has.
#[tokio::test]
async fn the_api_refuses_them_and_stores_nothing() {
    let lab = Lab::start().await;
    let other = json!({"name": "other"});
    let other = lab.api(Method::POST, "/v2/control-planes", other).await;
    let other = format!(
        "/v2/control-planes/{}/core-entities",
        other.body["id"].as_str().unwrap()
    );
    // what there is, and what another control plane has, by collection
    let (mut made, mut foreign) = (Map::new(), Map::new());
    let mut bodies = Vec::new();
    // who is in a group is made below it or below the consumer, with nothing but its name
    let kinds = Kind::ALL.into_iter();
    for kind in kinds.filter(|kind| *kind != Kind::ConsumerGroupMember) {
        let path = written_at(kind, &made);
        let body = smallest(kind, &made);
        let answer = lab.core(Method::POST, &path, body.clone()).await;
        assert_eq!(answer.status, 201, "{kind}: {answer:?}");
        made.insert(kind.collection().to_owned(), answer.body["id"].clone());
        bodies.push((kind, body));
        let path = format!("{other}/{}", written_at(kind, &foreign));
        let answer = lab.api(Method::POST, &path, smallest(kind, &foreign)).await;
        assert_eq!(answer.status, 201, "{kind}: {answer:?}");
        foreign.insert(kind.collection().to_owned(), answer.body["id"].clone());
    }
    let cp = lab.first.control_plane.id;
    let before = lab.store.snapshot(cp).await.unwrap();
    for (kind, body) in bodies {
        let id = made[kind.collection()].as_str().unwrap();
        let one = format!("{}/{id}", written_at(kind, &made));
        let mut last = String::new();
        for case in cases(&schema::of(kind).record) {
            let place = case.place();
            // set from the path, whatever a body says
            let parent = match kind {
                Kind::Target => place.starts_with("upstream"),
                _ => kind.is_of_consumer() && place.starts_with("consumer"),
            };
            if parent || kind == Kind::Plugin && place.starts_with("config.") {
                continue;
            }
            // the first of each place; the rest is for the tests without a socket
            if last == place && !case.stored {
                continue;
            }
            last.clone_from(&place);
            let answer = lab.core(Method::PUT, &one, case.within(&body)).await;
            assert_eq!(
                answer.status, 400,
                "{kind} {place} = {}: {answer:?}",
                case.value
            );
            // another id than the path's is refused before the entity is looked at
            let named = tells(&answer, &place) || place == "id";
            assert!(named, "{kind} {place} = {}: {answer:?}", case.value);
        }
        for field in &schema::of(kind).record.fields {
            let Type::Foreign(to) = &field.ty else {
                continue;
            };
            let Some(to) = to.kind else { continue };
            let mut body = body.clone();
            body[field.name] = json!({"id": foreign[to.collection()]});
            let path = match kind {
                Kind::Target => format!(
                    "upstreams/{}/targets",
                    body[field.name]["id"].as_str().unwrap()
                ),
                _ if kind.is_of_consumer() => {
                    let consumer = body[field.name]["id"].as_str().unwrap();
                    written_at(kind, &made).replace(made["consumers"].as_str().unwrap(), consumer)
                }
                _ => one.clone(),
            };
            let method = if path == one {
                Method::PUT
            } else {
                Method::POST
            };
            let theirs = lab.core(method.clone(), &path, body.clone()).await;
            let never = foreign[to.collection()].as_str().unwrap();
            let nobody = |text: &str| text.replace(never, NOWHERE);
            body[field.name] = json!({"id": NOWHERE});
            let nowhere = lab.core(method, &nobody(&path), body).await;
            assert!(
                matches!(theirs.status, 400 | 404),
                "{kind} {}: {theirs:?}",
                field.name
            );
            // no word that would tell one from the other
            assert_eq!(
                nobody(&format!("{theirs:?}")),
                format!("{nowhere:?}"),
                "{kind}"
            );
        }
    }
    let after = lab.store.snapshot(cp).await.unwrap();
    assert_eq!(
        (after.revision, after.entities),
        (before.revision, before.entities)
    );
    lab.stop().await;
}
