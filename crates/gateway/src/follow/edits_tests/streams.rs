//! Services and routes of streams.

use super::*;

#[test]
fn routes_of_streams_are_edited() {
    let mut lab = Lab::new();
    let service = |n, port: u16| {
        let service = json!({"host": "127.0.0.1", "protocol": "tcp", "port": port});
        (Kind::Service, n, Some(service))
    };
    let route = |n, of, port: u16| {
        let destinations = json!([{"port": port}]);
        let route = json!({"protocols": ["tcp"], "destinations": destinations, "service": to(of)});
        (Kind::Route, n, Some(route))
    };
    let ports = |lab: &Lab| {
        lab.now
            .streams
            .all()
            .iter()
            .filter_map(|it| it.service.as_ref())
            .count()
    };
    lab.edit(&[service(1, 9000), route(2, 1, 7000)]);
    assert_eq!(ports(&lab), 1);
    lab.edit(&[route(3, 1, 7001), route(2, 1, 7002)]);
    lab.edit(&[service(1, 9001)]);
    lab.edit(&[service(4, 9000), route(2, 4, 7000)]);
    let limit = json!({"route": to(2), "protocols": ["tcp"], "config": {"allow": ["10.0.0.0/8"]}});
    lab.edit(&[plugin(5, "ip-restriction", limit)]);
    assert_eq!(ports(&lab), 2);
    lab.edit(&[(Kind::Route, 3, None), (Kind::Service, 1, None)]);
    assert_eq!(ports(&lab), 1);
}

#[test]
fn a_service_that_becomes_one_for_streams_takes_along_its_routes() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    let speaks = |n, protocol: &str| {
        let service = json!({"host": "127.0.0.1", "port": 9000, "protocol": protocol});
        (Kind::Service, n, Some(service))
    };
    let stream = |n, of, port: u16| {
        let destinations = json!([{"port": port}]);
        let route = json!({"protocols": ["tcp"], "destinations": destinations, "service": to(of)});
        (Kind::Route, n, Some(route))
    };
    // routes that lead to a service: for requests, for streams
    let led = |lab: &Lab| {
        let lines = shown(&lab.now);
        let of = |start: &str, end: &str| {
            let led =
                |it: &&String| it.starts_with(start) && it.contains("Some((") && it.contains(end);
            lines.iter().filter(led).count()
        };
        let streams = of("stream ", "");
        (of("route ", " None [") - streams, streams)
    };
    lab.edit(&[
        speaks(1, "http"),
        route(2, 1),
        route(3, 1),
        stream(4, 1, 7000),
    ]);
    lab.edit(&[speaks(5, "tcp"), stream(6, 5, 7001), route(7, 5)]);
    let both = json!({"service": to(1), "protocols": ["http", "tcp"], "config": {"allow": ["10.0.0.0/8"]}});
    lab.edit(&[plugin(8, "ip-restriction", both)]);
    assert_eq!(led(&lab), (2, 1));
    assert_eq!(lab.runs(2), ["ip-restriction"]);
    assert_eq!(lab.edit(&[speaks(1, "tcp")]), none);
    assert_eq!(led(&lab), (0, 2));
    assert!(lab.runs(2).is_empty());
    assert_eq!(lab.edit(&[speaks(1, "udp")]), none);
    assert_eq!(led(&lab), (0, 2));
    // both at once, with a route that moves and one that goes
    let changes = [
        speaks(1, "https"),
        speaks(5, "http"),
        route(2, 5),
        (Kind::Route, 3, None),
    ];
    assert_eq!(lab.edit(&changes), none);
    assert_eq!(led(&lab), (2, 0));
    // one that is switched off meanwhile
    let mut off = speaks(1, "http");
    off.2.as_mut().unwrap()["enabled"] = json!(false);
    assert_eq!(lab.edit(&[off]), none);
    assert_eq!(lab.edit(&[route(3, 1), speaks(1, "tls")]), none);
    assert_eq!(led(&lab), (2, 1));
    assert_eq!(lab.edit(&[speaks(1, "grpc")]), none);
    assert_eq!(led(&lab), (3, 0));
    // a route that cannot be served goes on as it was, with the service as it is now
    assert_eq!(lab.edit(&[bad(route(3, 1))]), ["routes 3+"]);
    lab.take(&[speaks(1, "tcp")]);
    assert_eq!(led(&lab), (2, 1));
}
