use proptest::prelude::*;

use super::*;

#[track_caller]
fn reads(text: &str) -> Expression {
    match Expression::parse(text, Subsystem::Http) {
        Ok(expression) => expression,
        Err(error) => panic!("{text}: {error}"),
    }
}

#[track_caller]
fn refuses(subsystem: Subsystem, text: &str, expected: &str) {
    let error = Expression::parse(text, subsystem).expect_err("it should be refused");
    let error = error.to_string();
    assert!(error.contains(expected), "{expected:?} is not in {error:?}");
}

/// The tree with its shape and its fields only.
fn shape(expression: &Expression) -> String {
    let list = |parts: &[Expression]| parts.iter().map(shape).collect::<Vec<_>>().join(" ");
    match expression {
        Expression::All(parts) => format!("(and {})", list(parts)),
        Expression::Any(parts) => format!("(or {})", list(parts)),
        Expression::Not(part) => format!("(not {})", shape(part)),
        Expression::Test(test) => match &test.check {
            Check::Number(_, number) => number.to_string(),
            other => format!("{other:?}"),
        },
    }
}

#[track_caller]
fn check_shape(text: &str, expected: &str) {
    let text = text.replace('#', "net.dst.port ==");
    assert_eq!(shape(&reads(&text)), expected, "{text}");
}

#[test]
fn or_binds_tighter_than_and() {
    check_shape("# 1 && # 2 || # 3", "(and 1 (or 2 3))");
    check_shape("# 1 || # 2 && # 3", "(and (or 1 2) 3)");
    check_shape("# 1 || # 2 && # 3 || # 4", "(and (or 1 2) (or 3 4))");
    check_shape("(# 1 && # 2) || # 3", "(or (and 1 2) 3)");
    check_shape("# 1 && # 2 && # 3", "(and 1 2 3)");
    check_shape("# 1 && (# 2 && # 3)", "(and 1 (and 2 3))");
    check_shape("!(# 1 || # 2)", "(not (or 1 2))");
    check_shape("!(!(# 1))", "(not (not 1))");
    check_shape("((# 1))", "1");
    check_shape("\n\t# 1\r\n && # 2", "(and 1 2)");
}

#[test]
fn numbers_are_decimal_hex_octal_and_negative() {
    for (text, expected) in [("80", 80), ("0x1F", 31), ("017", 15), ("-5", -5), ("0", 0)] {
        check_shape(&format!("# {text}"), &expected.to_string());
    }
}

#[test]
fn every_field_is_known() {
    let field = |text: &str| match reads(text) {
        Expression::Test(test) => test.field,
        other => panic!("{other:?}"),
    };
    let of = |name: &str| field(&format!("{name} == \"a\""));
    assert_eq!(of("net.protocol"), Field::Protocol);
    assert_eq!(of("tls.sni"), Field::Sni);
    assert_eq!(of("http.method"), Field::Method);
    assert_eq!(of("http.host"), Field::Host);
    assert_eq!(of("http.path"), Field::Path);
    assert_eq!(
        of("http.path.segments.0"),
        Field::Segments { first: 0, last: 0 }
    );
    assert_eq!(
        of("http.path.segments.1_12"),
        Field::Segments { first: 1, last: 12 }
    );
    assert_eq!(of("http.queries.A_b"), Field::Query("A_b".to_owned()));
    assert_eq!(
        of("http.headers.X_Tenant"),
        Field::Header(HeaderField {
            underscored: "x_tenant".parse().unwrap(),
            dashed: Some("x-tenant".parse().unwrap())
        })
    );
    assert_eq!(
        of("any(lower(http.headers.accept))"),
        Field::Header(HeaderField::new("accept").unwrap())
    );
    assert_eq!(field("net.src.port > 1"), Field::SourcePort);
    assert_eq!(field("net.dst.port <= 1"), Field::DestinationPort);
    assert_eq!(field("net.port != 1"), Field::DestinationPort);
    assert_eq!(field("http.path.segments.len >= 2"), Field::SegmentCount);
    assert_eq!(field("net.src.ip in 10.0.0.0/8"), Field::SourceIp);
    assert_eq!(field("net.dst.ip not in fd00::/8"), Field::DestinationIp);
    assert_eq!(field("net.dst.ip == ::1"), Field::DestinationIp);
}

#[test]
fn texts_have_escapes_or_are_raw() {
    let text = |written: &str| match reads(&format!("http.path == {written}")) {
        Expression::Test(Test {
            check: Check::Text(_, text),
            ..
        }) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(text(r#""a\"\\\n\r\tb""#), "a\"\\\n\r\tb");
    assert_eq!(text(r##"r#"a\n"b"#"##), "a\\n\"b");
    assert_eq!(text("\"\""), "");
    assert_eq!(text("\"ä && ((\""), "ä && ((");
}

#[test]
fn errors_have_a_place() {
    let http = Subsystem::Http;
    refuses(http, "", "line 1, column 1: expected");
    refuses(http, "http.path == ", "line 1, column 14: expected");
    refuses(
        http,
        "http.host == \"a\" &&\n  http.hots == \"b\"",
        "line 2, column 3: unknown field 'http.hots'",
    );
    refuses(
        http,
        "http.path == \"http.port\" && http.port == 1",
        "line 1, column 29: unknown field 'http.port'",
    );
    refuses(http, "! http.path == \"a\"", "line 1, column 1: expected");
    refuses(
        http,
        "net.src.ip == 10.0.0.0/8",
        "line 1, column 1: 'net.src.ip': Type mismatch",
    );
    refuses(
        http,
        "net.src.ip in 10.0.0.1",
        "In/NotIn operators only supports IP in CIDR",
    );
    refuses(
        http,
        "net.src.ip in 10.0.0.1/8",
        "line 1, column 15: host part",
    );
    refuses(http, "net.dst.port == \"80\"", "Type mismatch");
    refuses(http, "http.path > 1", "Type mismatch");
    refuses(http, "http.path > \"a\"", "only supports integer operands");
    refuses(
        http,
        "lower(net.dst.port) == 1",
        "line 1, column 7: 'net.dst.port': lower-case",
    );
    refuses(
        http,
        "upper(http.path) == \"a\"",
        "line 1, column 1: unknown transformation function: upper",
    );
    refuses(http, "http.path ~ \"(\"", "line 1, column 13: ");
    refuses(
        http,
        "http.path ~ 1",
        "regex operator can only be used with String operands",
    );
    refuses(
        http,
        "http.path.segments.01 == \"a\"",
        "illformed field 'http.path.segments.01'",
    );
    refuses(http, "http.path.segments.2_1 == \"a\"", "illformed field");
    refuses(http, "http.path.segments.a == \"a\"", "illformed field");
    refuses(http, "http.headers.a.b == \"a\"", "unknown field");
    refuses(
        http,
        "net.dst.port == 99999999999999999999",
        "number too large",
    );
    refuses(
        Subsystem::Stream,
        "http.path == \"/\"",
        "unknown field 'http.path'",
    );
    Expression::parse("tls.sni == \"a\" && net.src.ip == ::1", Subsystem::Stream).unwrap();
}

#[test]
fn what_would_eat_the_stack_or_the_memory_is_refused() {
    let http = Subsystem::Http;
    let nested = |n: usize| format!("{}http.path == \"(\"{}", "(".repeat(n), ")".repeat(n));
    reads(&nested(DEPTH_MAX));
    refuses(
        http,
        &nested(DEPTH_MAX + 1),
        "line 1, column 65: parentheses nest deeper than 64",
    );
    refuses(http, &nested(30_000), "parentheses nest deeper");
    refuses(http, &"lower(".repeat(9_000), "parentheses nest deeper");
    let long = |n: usize| vec!["net.dst.port == 1"; n].join(" || ");
    reads(&long(OPERATORS_MAX + 1));
    refuses(
        http,
        &long(OPERATORS_MAX + 2),
        "more than 2000 '&&' and '||'",
    );
    refuses(http, &" ".repeat(TEXT_BYTES_MAX + 1), "bytes are too long");
    refuses(
        http,
        "http.path ~ \"\\\\w{80}\"",
        "line 1, column 1: 'http.path': the regex '\\w{80}' is too large",
    );
    refuses(
        http,
        "http.path ~ \"(a{1000}){1000}\"",
        "line 1, column 13: ",
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        let _ = Expression::parse(&text, Subsystem::Http);
    }

    #[test]
    fn nothing_like_an_expression_makes_it_panic(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "http.path", "net.src.ip", "net.dst.port", "lower(", "any(", "(", ")", "!", "&&", "||",
            "==", "!=", "~", "^=", "=^", "in", "not in", "contains", "\"a\"", "r#\"a\"#", "\"", "r#\"",
            "10.0.0.1", "10.0.0.0/8", "::1/64", "99", "-0x5", "08", "é",
        ]), 0..12)) {
        let _ = Expression::parse(&words.join(" "), Subsystem::Http);
        let _ = Expression::parse(&words.concat(), Subsystem::Stream);
    }
}
