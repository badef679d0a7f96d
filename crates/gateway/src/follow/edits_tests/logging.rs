//! What log plugins tell is kept where one of them is there.

use super::*;

#[test]
fn plugins_that_log_come_and_go_where_nothing_else_shows_entities() {
    let mut lab = Lab::keeping_all(false);
    let log = |n| {
        let config = json!({"http_endpoint": "http://127.0.0.1:1/"});
        plugin(n, "http-log", json!({"route": to(2), "config": config}))
    };
    let is_told = |lab: &Lab, n| lab.now.entities.logged(Kind::Route, id(n)).is_some();
    lab.edit(&[service(1), route(2, 1), route(3, 1)]);
    assert!(!is_told(&lab, 2));
    // the first takes a look at all there is
    lab.take(&[log(4)]);
    assert_eq!(lab.rebuilds, 1);
    assert!(is_told(&lab, 2) && is_told(&lab, 3));
    lab.rebuilds = 0;
    // and what is kept then follows what changes, while there is one and while there is none
    lab.edit(&[route(5, 1), (Kind::Route, 3, None)]);
    assert!(is_told(&lab, 5) && !is_told(&lab, 3));
    lab.edit(&[(Kind::Plugin, 4, None)]);
    lab.edit(&[route(3, 1), (Kind::Route, 5, None)]);
    lab.edit(&[log(6)]);
    assert!(is_told(&lab, 3) && !is_told(&lab, 5));
    lab.edit(&[bad(log(6))]);
    lab.edit(&[(Kind::Plugin, 6, None), log(7)]);
}
