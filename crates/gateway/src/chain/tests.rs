use sallyport_model::entities::Protocol;
use serde_json::json;

use super::*;

const ROUTE: Uuid = Uuid::from_u128(1);
const SERVICE: Uuid = Uuid::from_u128(2);
const CONSUMER: Uuid = Uuid::from_u128(3);
const GROUP: Uuid = Uuid::from_u128(4);
/// Comes after [`GROUP`] by its name.
const LATER: Uuid = Uuid::from_u128(5);
const CALLER: Caller<'_> = Caller {
    id: CONSUMER,
    groups: &[GROUP, LATER],
};

fn picks(
    handlers: &Handlers,
    (route, service, stream): (Option<Uuid>, Option<Uuid>, bool),
    caller: Option<Caller<'_>>,
) -> Vec<Option<Index>> {
    let (own, all) = (
        handlers.chain(route, service, stream),
        handlers.global_chain(stream),
    );
    own.with(&all).map(|step| step.pick(caller)).collect()
}

/// Which of these scopes (letters of r, s, c, g, l for the later group) applies, given all.
fn pick(scopes: &[&str]) -> Option<String> {
    let plugin = |(n, scope): (usize, &&str)| {
        let id = |letter: char, id: Uuid| scope.contains(letter).then_some(id);
        let config = json!({"minute": n + 1, "limit_by": "ip", "hide_client_headers": false,
                            "error_code": 429, "error_message": ""});
        serde_json::from_value(json!({
            "id": Uuid::from_u128(100 + n as u128), "name": "rate-limiting", "enabled": true,
            "config": config, "route": id('r', ROUTE), "service": id('s', SERVICE),
            "consumer": id('c', CONSUMER),
            "consumer_group": id('g', GROUP).or(id('l', LATER)),
        }))
        .unwrap()
    };
    let plugins: Vec<_> = scopes.iter().enumerate().map(plugin).collect();
    let handlers = Handlers::new(&plugins, &[], &Handlers::default()).unwrap();
    let of_route = (Some(ROUTE), Some(SERVICE), false);
    let index = picks(&handlers, of_route, Some(CALLER))[0]?;
    Some(scopes[index as usize].to_owned())
}

#[test]
fn the_most_specific_scope_wins_alone() {
    let order = [
        "rsc", "rsg", "rsl", "rc", "sc", "rg", "rl", "sg", "sl", "rs", "c", "g", "l", "r", "s", "",
    ];
    for (n, best) in order.iter().enumerate() {
        let mut scopes = order[n..].to_vec();
        assert_eq!(pick(&scopes).as_deref(), Some(*best));
        scopes.reverse();
        assert_eq!(
            pick(&scopes).as_deref(),
            Some(*best),
            "whatever the order they came in"
        );
    }
}

#[test]
fn who_is_in_no_group_gets_no_configuration_of_one() {
    let plugin = |id: u128, group: Option<Uuid>| {
        let config = json!({"minute": 1, "limit_by": "ip", "hide_client_headers": false,
                            "error_code": 429, "error_message": ""});
        serde_json::from_value(json!({"id": Uuid::from_u128(id), "name": "rate-limiting",
            "enabled": true, "config": config, "consumer_group": group}))
        .unwrap()
    };
    let handlers = Handlers::new(
        &[plugin(1, Some(GROUP)), plugin(2, None)],
        &[],
        &Handlers::default(),
    )
    .unwrap();
    let pick = |caller| picks(&handlers, (Some(ROUTE), None, false), caller)[0];
    let of = |groups| Some(Caller { groups, ..CALLER });
    assert_eq!(pick(of(&[LATER, GROUP])), Some(0));
    assert_eq!(pick(of(&[LATER])), Some(1));
    assert_eq!(pick(None), Some(1));
}

#[test]
fn what_is_closed_has_the_scope_of_what_is_missing() {
    let config = json!({"minute": 1, "limit_by": "ip", "hide_client_headers": false,
                        "error_code": 429, "error_message": ""});
    let own = serde_json::from_value(json!({"id": Uuid::from_u128(9), "enabled": true,
        "name": "rate-limiting", "config": config, "route": ROUTE}));
    let closed = |plugin: Option<&str>| Closed {
        plugin: plugin.map(str::to_owned),
        ..Closed::default()
    };
    let closed = [
        closed(Some("rate-limiting")),
        Closed {
            service: Some(SERVICE),
            ..closed(Some("house-auth"))
        },
        Closed {
            consumer: Some(CONSUMER),
            ..closed(None)
        },
        Closed {
            protocols: vec![Protocol::Tcp],
            ..closed(Some("acl"))
        },
    ];
    let handlers = Handlers::new(&[own.unwrap()], &closed, &Handlers::default()).unwrap();
    let names = |route: Option<Uuid>, service: Option<Uuid>, caller, stream| {
        let picked = picks(&handlers, (route, service, stream), caller);
        let picked = picked.into_iter().flatten();
        picked.map(|at| handlers.name(at)).collect::<Vec<_>>()
    };
    // a configuration of the route's own is there, so the missing one would not have run
    assert_eq!(names(Some(ROUTE), None, None, false), ["rate-limiting"]);
    let elsewhere = Some(Uuid::from_u128(77));
    assert_eq!(names(elsewhere, None, None, false), ["closed"]);
    let of_service = names(Some(ROUTE), Some(SERVICE), None, false);
    assert_eq!(of_service, ["closed", "rate-limiting"]);
    let of_consumer = names(Some(ROUTE), None, Some(CALLER), false);
    assert_eq!(of_consumer, ["closed", "rate-limiting"]);
    // `rate-limiting` and `acl`
    assert_eq!(names(elsewhere, None, None, true), ["closed", "closed"]);
}

#[test]
fn chains_are_shared_and_plugins_taken_over() {
    let plugin = |route: Option<Uuid>, id: u128| {
        let config = json!({"minute": 1, "limit_by": "ip", "hide_client_headers": false,
                            "error_code": 429, "error_message": ""});
        serde_json::from_value(json!({"id": Uuid::from_u128(id), "name": "rate-limiting",
            "enabled": true, "config": config, "route": route}))
        .unwrap()
    };
    let handlers = Handlers::new(
        &[plugin(None, 1), plugin(Some(ROUTE), 2)],
        &[],
        &Handlers::default(),
    )
    .unwrap();
    let other = plugin(None, 1);
    let mut chains = Chains::new(&handlers);
    let own = chains.of(ROUTE, Some(SERVICE), false);
    let one = chains.of(Uuid::from_u128(7), Some(SERVICE), false);
    let two = chains.of(Uuid::from_u128(8), None, false);
    assert!(Arc::ptr_eq(&one, &two) && one.0.is_empty() && own.0.len() == 1);
    let of_service = |route| picks(&handlers, (route, Some(SERVICE), false), None);
    assert_eq!(of_service(Some(ROUTE)), [Some(1)]);
    assert_eq!(of_service(None), [Some(0)]);
    // what is the same is taken over
    let next = Handlers::new(&[other], &[], &handlers).unwrap();
    assert!(std::ptr::addr_eq(next.get(0), handlers.get(0)));
}

proptest::proptest! {
    /// Scopes by number, each with one plugin at most, as the unique scopes of a control
    /// plane have it.
    #[test]
    fn edits_lead_to_what_the_whole_would_be(
        rounds in proptest::collection::vec(proptest::collection::vec(
            (0usize..8, proptest::option::weighted(0.7, 1u64..4)), 1..4), 1..10)
    ) {
        let scopes = ["", "r", "s", "rs", "c", "rc", "g", "sc"];
        let plugin = |n: usize, minute: u64| -> entities::Plugin {
            let id = |letter: char, id: Uuid| scopes[n].contains(letter).then_some(id);
            let config = json!({"minute": minute, "limit_by": "ip",
                "hide_client_headers": false, "error_code": 429, "error_message": ""});
            serde_json::from_value(json!({
                "id": Uuid::from_u128(100 + n as u128), "name": "rate-limiting",
                "enabled": true, "config": config, "route": id('r', ROUTE),
                "service": id('s', SERVICE), "consumer": id('c', CONSUMER),
                "consumer_group": id('g', GROUP),
            }))
            .unwrap()
        };
        let mut model = std::collections::BTreeMap::new();
        let mut handlers = Handlers::default();
        for round in rounds {
            let (mut put, mut gone) = (std::collections::BTreeMap::new(), Vec::new());
            for (n, minute) in round {
                put.remove(&n);
                let id = Uuid::from_u128(100 + n as u128);
                gone.retain(|other| *other != id);
                match minute {
                    Some(minute) => {
                        model.insert(n, minute);
                        put.insert(n, minute);
                    }
                    None => {
                        model.remove(&n);
                        gone.push(id);
                    }
                }
            }
            let plugins: Vec<_> = put.iter().map(|(n, minute)| plugin(*n, *minute)).collect();
            let (next, _) = handlers.edited(&plugins, &gone, (&[], &[])).unwrap().unwrap();
            handlers = next;
            let all: Vec<_> = model.iter().map(|(n, minute)| plugin(*n, *minute)).collect();
            let whole = Handlers::new(&all, &[], &Handlers::default()).unwrap();
            // an index says nothing; the plugin that it leads to does
            let shown = |handlers: &Handlers| {
                let name = |index: Option<Index>| {
                    let index = index?;
                    let found = handlers.placed.iter().find(|(_, it)| it.index == index);
                    found.map(|(id, it)| (*id, it.content))
                };
                let mut shown = Vec::new();
                for route in [None, Some(ROUTE)] {
                    for service in [None, Some(SERVICE)] {
                        for caller in [None, Some(CALLER)] {
                            let found = picks(handlers, (route, service, false), caller);
                            shown.push(found.into_iter().map(name).collect::<Vec<_>>());
                        }
                    }
                }
                let own = [ROUTE, SERVICE].map(|id| handlers.has_own(id));
                (shown, own, handlers.any_logs(), handlers.placed.len())
            };
            proptest::prop_assert_eq!(shown(&handlers), shown(&whole));
        }
    }
}

#[test]
fn plugins_of_streams_and_of_requests_are_not_mixed() {
    let plugin = |id: u128, protocols: &[&str]| {
        serde_json::from_value(json!({"id": Uuid::from_u128(id), "name": "ip-restriction",
            "enabled": true, "config": {"deny": ["10.0.0.1"]}, "protocols": protocols,
            "route": (id > 1).then_some(ROUTE)}))
        .unwrap()
    };
    let plugins = [plugin(1, &["http", "tcp"]), plugin(2, &["tls"])];
    let handlers = Handlers::new(&plugins, &[], &Handlers::default()).unwrap();
    let first = |stream| picks(&handlers, (Some(ROUTE), None, stream), None)[0];
    assert_eq!((first(false), first(true)), (Some(0), Some(1)));
}

#[test]
fn a_scope_of_somebody_else_does_not_apply() {
    let other = json!({"id": Uuid::nil(), "name": "key-auth", "enabled": true,
        "route": Uuid::from_u128(9), "config": {"key_names": ["k"], "hide_credentials": false,
        "anonymous": null, "key_in_header": true, "key_in_query": true,
        "run_on_preflight": true, "realm": null}});
    let handlers = Handlers::new(
        &[serde_json::from_value(other).unwrap()],
        &[],
        &Handlers::default(),
    )
    .unwrap();
    assert!(picks(&handlers, (Some(ROUTE), Some(SERVICE), false), None).is_empty());
    assert!(picks(&handlers, (None, None, false), None).is_empty());
}
