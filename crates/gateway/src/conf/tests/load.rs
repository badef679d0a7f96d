use std::time::Duration;

use super::*;

const DBLESS: &str = "database = off\ndeclarative_config = kong.yml\n";
const DATA_PLANE: &str = "role = data_plane\ndatabase = off\n\
     cluster_cert = cluster.crt\ncluster_cert_key = cluster.key\n";

/// Loads on top of a working DB-less file; returns the text of all problems.
#[track_caller]
fn problem(more: &str, want: &str) {
    let error = load(&format!("{DBLESS}{more}"), &[]).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    let text = error.problems[0].to_string();
    assert!(text.contains(want), "{text}");
    assert!(
        text.starts_with("line ") || text.starts_with("default"),
        "{text}"
    );
}

#[track_caller]
fn warning(more: &str, want: &str) {
    let (_, warnings) = load(&format!("{DBLESS}{more}"), &[]).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].to_string().contains(want), "{}", warnings[0]);
}

#[test]
fn defaults_are_kongs() {
    let (conf, warnings) = load(DBLESS, &[]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(conf.role, Role::Traditional);
    assert_eq!(conf.prefix, PathBuf::from("/usr/local/kong/"));
    assert_eq!(conf.log_level, LogLevel::Notice);
    let log = PathBuf::from("/usr/local/kong/logs/access.log");
    assert_eq!(
        conf.proxy_access_log,
        LogTarget::File {
            path: log,
            format: None
        }
    );
    let shown = |listeners: &[Listener]| {
        listeners
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&conf.proxy_listen), ["0.0.0.0:8000", "0.0.0.0:8443"]);
    assert_eq!(shown(&conf.status_listen), ["127.0.0.1:8007"]);
    assert_eq!(
        shown(&conf.admin_listen),
        ["127.0.0.1:8001", "127.0.0.1:8444"]
    );
    assert_eq!(conf.plugins, ["key-auth", "rate-limiting"]);
    assert!(conf.headers.via && conf.headers.upstream_latency && conf.headers.request_id);
    assert!(!conf.headers.upstream_status);
    assert!(conf.headers_upstream_request_id);
    assert_eq!(conf.real_ip.header.as_ref().unwrap(), "x-real-ip");
    assert_eq!(conf.upstream_keepalive.pool_size, 512);
    assert_eq!(
        conf.upstream_keepalive.idle_timeout,
        Some(Duration::from_secs(60))
    );
    assert_eq!(
        (conf.client_max_body_size, conf.workers, conf.node_id),
        (None, None, None)
    );
    assert_eq!(conf.router_flavor, RouterFlavor::TraditionalCompatible);
    assert_eq!(conf.kong_version, "3.9.1");
    assert!(conf.cluster.is_none());
}

#[test]
fn environment_beats_file_beats_default() {
    let file = format!("{DBLESS}log_level = warn\nproxy_listen = 127.0.0.1:1\n");
    let environment = [
        ("KONG_LOG_LEVEL", "debug # c"),
        ("KONG_HEADERS", "off"),
        ("PATH", "/x"),
    ];
    let (conf, warnings) = load(&file, &environment).unwrap();
    assert_eq!(conf.log_level, LogLevel::Debug);
    assert_eq!(conf.proxy_listen[0].port, 1);
    assert_eq!(conf.headers, HeadersAdded::default());
    assert_eq!(warnings, []);
    assert_eq!(
        conf.source_of("log_level"),
        Source::Environment("KONG_LOG_LEVEL".into())
    );
    assert_eq!(conf.source_of("proxy_listen"), Source::Line(4));
}

#[test]
fn a_declarative_text_in_the_environment_keeps_its_comments() {
    let text = "_format_version: \"3.0\" # c\nservices: []\n";
    let environment = [
        ("KONG_DECLARATIVE_CONFIG_STRING", text),
        ("KONG_DATABASE", "off"),
    ];
    let (conf, _) = load("", &environment).unwrap();
    assert_eq!(
        conf.declarative,
        Some(DeclarativeSetting::Text(text.to_owned()))
    );
    assert!(
        !format!("{conf:?}").contains("services"),
        "it may hold secrets"
    );
}

#[test]
fn a_data_plane_gets_its_cluster() {
    let file = format!(
        "{DATA_PLANE}cluster_control_plane = cp.example:443\ncluster_mtls = pki\n\
         cluster_dp_labels = zone:a-1, tier:gold\ncluster_max_payload = 33554432\n\
         node_id = 7C4C3ED5-7a4c-4d3c-8f8f-1f0b0f7e2d11\n"
    );
    let (conf, warnings) = load(&file, &[]).unwrap();
    assert_eq!(warnings, []);
    let cluster = conf.cluster.as_ref().unwrap();
    assert_eq!(cluster.control_plane.to_string(), "cp.example:443");
    assert_eq!(cluster.tls_name(), "cp.example");
    assert_eq!(cluster.dp_labels.len(), 2);
    assert_eq!(cluster.max_payload, 33_554_432);
    assert_eq!(conf.process_conf()["cluster_max_payload"], 33_554_432);
    assert_eq!(
        conf.process_conf()["router_flavor"],
        "traditional_compatible"
    );
    assert!(conf.node_id.is_some());

    let (conf, _) = load(&format!("{DATA_PLANE}cluster_server_name = other\n"), &[]).unwrap();
    assert_eq!(conf.cluster.unwrap().tls_name(), "kong_clustering");
    let file = format!("{DATA_PLANE}cluster_server_name = other\ncluster_mtls = pki\n");
    assert_eq!(
        load(&file, &[]).unwrap().0.cluster.unwrap().tls_name(),
        "other"
    );
}

#[test]
fn every_problem_is_listed_with_place_and_value() {
    let file = "role = data_plane\nproxy_listen = off\nlog_level = loud\nnonsense\n\
                cluster_max_payload = 1\nstream_listen = 0.0.0.0:9000 http2\n";
    let error = load(file, &[("KONG_CLUSTER_DP_LABELS", "a")]).unwrap_err();
    let text = error.to_string();
    for want in [
        "line 2: proxy_listen = off: a gateway needs at least one listener",
        "line 3: log_level = loud: must be one of notice, debug",
        "line 4: nonsense: is not of the form `name = value`",
        "line 5: cluster_max_payload = 1: must be a whole number from 4194304",
        "line 6: stream_listen = 0.0.0.0:9000 http2: \"http2\" is not possible",
        "environment KONG_CLUSTER_DP_LABELS: cluster_dp_labels = a: \"a\" is not key:value",
        "default: cluster_cert: is needed",
        "default: cluster_cert_key: is needed",
        "default: database = postgres: must be off",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
    assert_eq!(error.problems.len(), 9, "{text}");
}

#[test]
fn a_typo_explains_the_problem_it_makes() {
    let error = load("databse = off\n", &[]).unwrap_err().to_string();
    assert!(
        error.contains("database = postgres: must be off"),
        "{error}"
    );
    assert!(
        error.contains("databse: unknown property; did you mean database?"),
        "{error}"
    );
}

#[test]
fn single_problems() {
    problem("role = control_plane", "run the control plane");
    problem(
        "role = conductor",
        "one of traditional, data_plane, control_plane",
    );
    problem("prefix = relative", "absolute");
    problem("proxy_listen = 0.0.0.0:80 sssl", "\"sssl\" is not a flag");
    problem("proxy_listen =", "at least one listener");
    problem(
        "status_listen = 0.0.0.0:8007 proxy_protocol",
        "proxy_protocol is for proxy_listen and stream_listen",
    );
    problem(
        "stream_listen = 0.0.0.0:9000 http2",
        "\"http2\" is not possible in stream_listen",
    );
    problem(
        "stream_listen = 0.0.0.0:53 udp ssl",
        "\"udp\" cannot be combined with ssl",
    );
    problem(
        "stream_listen = 0.0.0.0:8000",
        "is the address of 0.0.0.0:8000 in proxy_listen",
    );
    problem(
        "status_listen = 127.0.0.1:8000",
        "is the address of 0.0.0.0:8000 in proxy_listen",
    );
    problem(
        "admin_listen = [::1]:1, [::]:1",
        "is the address of [::1]:1",
    );
    problem(
        "router_flavor = expression",
        "must be one of traditional_compatible, traditional, expressions",
    );
    problem("wasm = on", "not supported by this build");
    problem("client_ssl = on", "client_ssl_cert: must be set");
    problem(
        "ssl_cipher_suite = fips",
        "one of intermediate, modern, old, custom",
    );
    problem(
        "ssl_cipher_suite = custom\nssl_protocols = TLSv1",
        "must have TLSv1.2, TLSv1.3 or both",
    );
    problem(
        "ssl_cipher_suite = custom\nssl_ciphers = RC4-SHA",
        "has no suite of this build; it has ECDHE-",
    );
    problem("nginx_proxy_deny = all", "unsafe to leave out");
    problem("nginx_http_include = /etc/more.conf", "unsafe to leave out");
    problem(
        "trusted_ips = 10.0.0.0/8, ten",
        "\"ten\" is neither an address nor a CIDR",
    );
    problem(
        "real_ip_header = a b",
        "neither the name of a header nor proxy_protocol",
    );
    problem("port_maps = 80:8000, 443", "\"443\" is not public:own");
    problem(
        "headers = server_tokens, X-Other",
        "\"X-Other\" is not one of",
    );
    problem(
        "headers_upstream = X-Other",
        "neither off nor X-Kong-Request-Id",
    );
    problem(
        "plugins = bundled, mine",
        "plugin \"mine\" is not in this build",
    );
    problem(
        "plugins = bundled, oauth2",
        "plugin \"oauth2\" is not in this build: tokens need a database",
    );
    problem("nginx_http_client_max_body_size = 1x", "a size such as");
    for time in ["0", "soon", "-1s", "1w", "99999999999d"] {
        problem(
            &format!("nginx_http_send_timeout = {time}"),
            "a time above 0",
        );
    }
    problem("nginx_http_keepalive_requests = 0", "whole number from 1");
    problem("nginx_main_worker_processes = 0", "auto or a number");
    problem("upstream_keepalive_pool_size = -1", "whole number from 0");
    problem("error_default_type = text/yaml", "one of text/plain");
    problem("node_id = one", "must be a UUID");
    problem(
        "ssl_cert = a, b\nssl_cert_key = c",
        "has 2 certificate(s), and ssl_cert_key has 1",
    );
    problem(
        "proxy_error_log = syslog:server=x",
        "syslog is not supported",
    );
    problem("declarative_config_string = {}", "set one of the two");
    problem("cluster_dp_labels = a:b", "role = data_plane only");
    problem("cluster_data_plane_purge_delay = 59", "from 60");
    problem("cluster_control_plane = [::1]:8005", "must be host:port");
    problem("cluster_mtls = both", "one of shared, pki");
    problem(
        "proxy_access_log = {vault://env/nothing-here}",
        "NOTHING_HERE is not set",
    );
    problem(
        "proxy_access_log = {vault://hcv/x}",
        "there is no vault \"hcv\"; possible: env, file",
    );
    problem("sallyport_kong_version = three", "major.minor.patch");
}

#[test]
fn labels_have_rules() {
    #[track_caller]
    fn check(labels: &str, want: &str) {
        let error = load(&format!("{DATA_PLANE}cluster_dp_labels = {labels}\n"), &[]).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
    check("kong_x:1", "reserved word \"kong\"");
    check("a:-b", "the first and last of them a letter or digit");
    check(&format!("a:{}", "b".repeat(64)), "1 to 63");
    let many: Vec<_> = (0..11).map(|n| format!("k{n}:v")).collect();
    check(&many.join(","), "11 labels, at most 10");
}

#[test]
fn the_control_plane_may_be_behind_a_forward_proxy() {
    let error = load(&format!("{DATA_PLANE}cluster_use_proxy = on\n"), &[]).unwrap_err();
    assert!(error.to_string().contains("needs proxy_server"), "{error}");
    let with = |server: &str, more: &str, environment: &[(&str, &str)]| {
        let text = format!("{DATA_PLANE}proxy_server = {server}\n{more}\n");
        load(&text, environment).map(|(conf, _)| conf.cluster.unwrap().proxy)
    };
    let on = "cluster_use_proxy = on";
    let error = with("http://h:1/path", on, &[]).unwrap_err();
    assert!(error.to_string().contains("proxy_server"), "{error}");
    assert_eq!(with("http://h:1", "", &[]).unwrap(), None, "not asked for");
    let proxy = with("https://u:p@h:1", on, &[]).unwrap().unwrap();
    assert_eq!(
        (proxy.server.to_string(), proxy.verify),
        ("https://h:1".to_owned(), true)
    );
    let unverified = "cluster_use_proxy = on\nproxy_server_ssl_verify = off";
    assert!(
        !with("https://h:1", unverified, &[])
            .unwrap()
            .unwrap()
            .verify
    );
    assert_eq!(with("http://h:1", on, &[("NO_PROXY", "*")]).unwrap(), None);
    assert!(
        with("http://h:1", on, &[("NO_PROXY", "other.example")])
            .unwrap()
            .is_some()
    );
}

#[test]
fn secrets_are_not_shown() {
    let error = load(
        "ssl_cert_key = hidden-key\nssl_cert =\n{vault} hidden\n",
        &[],
    )
    .unwrap_err();
    assert!(!error.to_string().contains("hidden"), "{error}");
}

#[test]
fn single_warnings() {
    warning(
        "lua_max_uri_args = 7",
        "line 3: lua_max_uri_args: this build does not act on it",
    );
    warning("untrusted_lua = on", "does not act on it");
    warning("proxy_lisen = x", "did you mean proxy_listen?");
    warning("mine = x", "unknown property");
    warning("nginx_http_gzip = on", "nginx directives have no effect");
    warning("pluginserver_go_socket = /x", "does not act on it");
    warning(
        "log_level = info\nlog_level = warn",
        "was already set in line 3",
    );
    warning("real_ip_recursive = maybe", "neither on nor off");
    let (_, warnings) = load("database = off\n", &[]).unwrap();
    assert!(warnings[0].message.contains("404"), "{warnings:?}");
}

#[test]
fn what_makes_no_difference_is_silent() {
    let quiet = "lua_max_uri_args = 100\nanonymous_reports = on\npg_host = db\nstream_listen = off\n\
                 wasm = off\nadmin_gui_listen = off\nmem_cache_size = 1m\nworker_consistency = strict\n\
                 untrusted_lua = SANDBOX\nlog_level=debug\nnginx_daemon = off\n";
    let (_, warnings) = load(&format!("{DBLESS}{quiet}"), &[("KONG_VERSION", "3.9.1")]).unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn values_are_typed() {
    let file = format!(
        "{DBLESS}nginx_http_client_max_body_size = 10m\nport_maps = 80:8000, 443:8443\n\
         trusted_ips = 10.0.0.0/8, ::1, unix:\nreal_ip_recursive = on\n\
         real_ip_header = X-Forwarded-For\nplugins = key-auth, key-auth\n\
         nginx_worker_processes = 3\nupstream_keepalive_idle_timeout = 0.5\n\
         upstream_keepalive_max_requests = 0\nproxy_access_log = /dev/stdout combined\n\
         proxy_error_log = off\nheaders = X-Kong-Upstream-Status\nheaders_upstream = off\n\
         prefix = {{vault://env/my-prefix}}\n"
    );
    let (conf, warnings) = load(&file, &[("MY_PREFIX", "/srv/kong")]).unwrap();
    let warned: Vec<_> = warnings
        .iter()
        .map(|warning| warning.key.as_str())
        .collect();
    assert_eq!(warned, [] as [&str; 0], "all of it is acted on");
    assert_eq!(conf.client_max_body_size, Some(10 << 20));
    assert_eq!(conf.port_maps, [(8000, 80), (8443, 443)].into());
    assert_eq!(conf.real_ip.trusted.len(), 2);
    assert!(conf.real_ip.recursive);
    assert_eq!(conf.real_ip.header.as_ref().unwrap(), "x-forwarded-for");
    assert_eq!(conf.plugins, ["key-auth"]);
    assert_eq!(conf.workers, Some(3));
    assert_eq!(
        conf.upstream_keepalive.idle_timeout,
        Some(Duration::from_millis(500))
    );
    assert_eq!(conf.upstream_keepalive.max_requests, None);
    let log = LogTarget::File {
        path: "/dev/stdout".into(),
        format: Some("combined".into()),
    };
    assert_eq!(
        (conf.proxy_access_log, conf.proxy_error_log),
        (log, LogTarget::Off)
    );
    let only_status = HeadersAdded {
        upstream_status: true,
        ..HeadersAdded::default()
    };
    assert_eq!(conf.headers, only_status);
    assert!(!conf.headers_upstream_request_id);
    assert_eq!(conf.prefix, PathBuf::from("/srv/kong"));
}
