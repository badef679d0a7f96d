//! Every property Kong knows, its default, and what this build does with it.

use std::borrow::Cow;

use Support::{Acts, Ignored, Inert, Refused};

/// What setting a property does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It becomes part of `Conf`.
    Acts,
    /// It makes no difference to a gateway, in Kong or here.
    Inert,
    /// Kong would act on it; this build does not, and says so if it is set to another value.
    Ignored,
    /// Going on without it would be dangerous: any other value than these is an error.
    Refused(&'static [&'static str]),
}

/// A property.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// As Kong has it; `{id}` stands for the port of that entry of the network contract.
    default: Option<&'static str>,
    pub(super) support: Support,
}

impl Known {
    /// The default, with the ports of the network contract.
    pub(super) fn default(&self) -> Option<Cow<'static, str>> {
        let text = self.default?;
        if !text.contains('{') {
            return Some(text.into());
        }
        let mut parts = text.split(['{', '}']);
        let mut filled = parts.next().unwrap_or_default().to_owned();
        while let Some(id) = parts.next() {
            filled.push_str(&sallyport_contract::entry(id).port().to_string());
            filled.push_str(parts.next().unwrap_or_default());
        }
        Some(filled.into())
    }
}

const fn acts(name: &'static str, default: &'static str) -> Known {
    Known {
        name,
        default: Some(default),
        support: Acts,
    }
}

const fn acts_unset(name: &'static str) -> Known {
    Known {
        name,
        default: None,
        support: Acts,
    }
}

const fn inert(name: &'static str) -> Known {
    Known {
        name,
        default: None,
        support: Inert,
    }
}

const fn ignored(name: &'static str, default: &'static str) -> Known {
    Known {
        name,
        default: Some(default),
        support: Ignored,
    }
}

const fn ignored_unset(name: &'static str) -> Known {
    Known {
        name,
        default: None,
        support: Ignored,
    }
}

const fn refused(
    name: &'static str,
    default: &'static str,
    harmless: &'static [&'static str],
) -> Known {
    Known {
        name,
        default: Some(default),
        support: Refused(harmless),
    }
}

/// The property called `name`.
pub(super) fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// The present name of a property that has an older one.
pub(super) fn present_name(name: &str) -> &str {
    ALIASES
        .iter()
        .find(|(old, _)| *old == name)
        .map_or(name, |(_, new)| new)
}

/// Whether an nginx directive given by property is known by its name space.
pub(super) fn is_injected(name: &str) -> bool {
    INJECTED
        .iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
}

/// Whether leaving out this nginx directive could open what the operator meant to close.
pub(super) fn is_guarding_directive(name: &str) -> bool {
    const GUARDS: [&str; 10] = [
        "allow",
        "deny",
        "satisfy",
        "auth_basic",
        "auth_request",
        "limit_req",
        "limit_conn",
        "include",
        "ssl_verify_client",
        "ssl_protocols",
    ];
    ["nginx_http_", "nginx_proxy_", "nginx_location_"]
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .any(|directive| GUARDS.contains(&directive))
}

/// Whether the value must not be shown.
pub(super) fn is_secret(name: &str) -> bool {
    name.ends_with("_key")
        || ["password", "secret", "token"]
            .iter()
            .any(|word| name.contains(word))
        || name == "proxy_server"
        || name == "declarative_config_string"
}

/// The known name that `name` was probably meant to be.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let candidates = KNOWN
        .iter()
        .map(|known| known.name)
        .chain(ALIASES.iter().map(|(old, _)| *old));
    let (steps, nearest) = candidates
        .map(|candidate| (edit_distance(&name, candidate), candidate))
        .min_by_key(|(steps, _)| *steps)?;
    (steps <= 1 + name.len() / 6).then_some(nearest)
}

/// Levenshtein distance, by bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Name spaces in which any nginx directive may follow.
const INJECTED: [&str; 12] = [
    "nginx_main_",
    "nginx_events_",
    "nginx_http_",
    "nginx_proxy_",
    "nginx_location_",
    "nginx_upstream_",
    "nginx_status_",
    "nginx_admin_",
    "nginx_stream_",
    "nginx_sproxy_",
    "nginx_supstream_",
    "nginx_wasm_",
];

const ALIASES: [(&str, &str); 11] = [
    ("nginx_user", "nginx_main_user"),
    ("nginx_daemon", "nginx_main_daemon"),
    ("nginx_worker_processes", "nginx_main_worker_processes"),
    ("nginx_proxy_real_ip_header", "real_ip_header"),
    ("nginx_proxy_real_ip_recursive", "real_ip_recursive"),
    ("client_max_body_size", "nginx_http_client_max_body_size"),
    ("privileged_worker", "dedicated_config_processing"),
    ("router_consistency", "worker_consistency"),
    ("opentelemetry_tracing", "tracing_instrumentations"),
    (
        "opentelemetry_tracing_sampling_rate",
        "tracing_sampling_rate",
    ),
    ("host_ports", "port_maps"),
];

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    // General
    acts("prefix", "/usr/local/kong/"),
    acts("log_level", "notice"),
    acts("proxy_access_log", "logs/access.log"),
    acts("proxy_error_log", "logs/error.log"),
    acts("proxy_stream_access_log", "logs/access.log basic"),
    ignored("proxy_stream_error_log", "logs/error.log"),
    acts("admin_access_log", "logs/admin_access.log"),
    ignored("admin_error_log", "logs/error.log"),
    acts("status_access_log", "off"),
    ignored("status_error_log", "logs/status_error.log"),
    inert("admin_gui_access_log"),
    inert("admin_gui_error_log"),
    acts("plugins", "bundled"),
    ignored("vaults", "bundled"),
    ignored_unset("pluginserver_names"),
    acts_unset("port_maps"),
    inert("anonymous_reports"),
    acts_unset("proxy_server"),
    acts("proxy_server_ssl_verify", "on"),
    ignored_unset("error_template_html"),
    ignored_unset("error_template_json"),
    ignored_unset("error_template_xml"),
    ignored_unset("error_template_plain"),
    acts_unset("node_id"),
    inert("dedicated_config_processing"),
    acts("tracing_instrumentations", "off"),
    acts("tracing_sampling_rate", "0.01"),
    inert("lua_socket_pool_size"),
    inert("lua_package_path"),
    inert("lua_package_cpath"),
    ignored("untrusted_lua", "sandbox"),
    ignored_unset("untrusted_lua_sandbox_requires"),
    ignored_unset("untrusted_lua_sandbox_environment"),
    refused("wasm", "off", &["off", "false"]),
    ignored_unset("wasm_filters_path"),
    ignored("wasm_filters", "bundled,user"),
    ignored("request_debug", "on"),
    ignored_unset("request_debug_token"),
    acts("mem_cache_size", "128m"),
    inert("worker_events_max_payload"),
    inert("nginx_main_user"),
    inert("nginx_main_daemon"),
    acts("nginx_main_worker_processes", "auto"),
    inert("nginx_main_worker_rlimit_nofile"),
    inert("nginx_events_worker_connections"),
    inert("nginx_events_multi_accept"),
    // Hybrid
    acts("role", "traditional"),
    acts("database", "postgres"),
    acts("cluster_mtls", "shared"),
    acts_unset("cluster_cert"),
    acts_unset("cluster_cert_key"),
    acts_unset("cluster_ca_cert"),
    acts_unset("cluster_server_name"),
    acts("cluster_control_plane", "127.0.0.1:8005"),
    inert("cluster_listen"),
    inert("cluster_listen_rpc"),
    acts_unset("cluster_dp_labels"),
    acts("cluster_max_payload", "16777216"),
    ignored("cluster_ocsp", "off"),
    acts("cluster_use_proxy", "off"),
    acts("cluster_data_plane_purge_delay", "1209600"),
    ignored("cluster_rpc", "off"),
    ignored("cluster_rpc_sync", "off"),
    inert("cluster_cjson"),
    inert("lmdb_environment_path"),
    inert("lmdb_map_size"),
    acts_unset("declarative_config"),
    acts_unset("declarative_config_string"),
    inert("db_update_frequency"),
    inert("db_update_propagation"),
    inert("db_cache_ttl"),
    inert("db_cache_neg_ttl"),
    inert("db_resurrect_ttl"),
    inert("db_cache_warmup_entities"),
    inert("worker_consistency"),
    inert("worker_state_update_frequency"),
    ignored("konnect_mode", "off"),
    acts_unset("cluster_telemetry_endpoint"),
    acts_unset("cluster_telemetry_server_name"),
    inert("cluster_telemetry_listen"),
    acts("analytics_flush_interval", "1"),
    acts("analytics_buffer_size_limit", "100000"),
    inert("analytics_debug"),
    inert("vitals"),
    ignored("incremental_sync", "off"),
    inert("cluster_allowed_common_names"),
    ignored("cluster_fallback_config_import", "off"),
    ignored("cluster_fallback_config_export", "off"),
    ignored_unset("cluster_fallback_config_storage"),
    inert("cluster_fallback_config_export_delay"),
    // Listeners and TLS
    acts(
        "proxy_listen",
        "0.0.0.0:{proxy.http} reuseport backlog=16384, \
         0.0.0.0:{proxy.https} http2 ssl reuseport backlog=16384",
    ),
    acts("stream_listen", "off"),
    acts(
        "admin_listen",
        "127.0.0.1:{admin.http} reuseport backlog=16384, \
         127.0.0.1:{admin.https} http2 ssl reuseport backlog=16384",
    ),
    ignored("admin_gui_listen", "off"),
    inert("admin_gui_url"),
    inert("admin_gui_path"),
    inert("admin_gui_api_url"),
    inert("admin_gui_ssl_cert"),
    inert("admin_gui_ssl_cert_key"),
    acts(
        "status_listen",
        "127.0.0.1:{status} reuseport backlog=16384",
    ),
    ignored("debug_listen", "off"),
    ignored("debug_listen_local", "off"),
    acts_unset("ssl_cert"),
    acts_unset("ssl_cert_key"),
    acts_unset("admin_ssl_cert"),
    acts_unset("admin_ssl_cert_key"),
    acts_unset("status_ssl_cert"),
    acts_unset("status_ssl_cert_key"),
    acts("ssl_cipher_suite", "intermediate"),
    acts_unset("ssl_ciphers"),
    acts("ssl_protocols", "TLSv1.2 TLSv1.3"),
    acts("ssl_prefer_server_ciphers", "on"),
    inert("ssl_dhparam"),
    acts("ssl_session_tickets", "on"),
    ignored("ssl_session_timeout", "1d"),
    acts("ssl_session_cache_size", "10m"),
    acts("client_ssl", "off"),
    acts_unset("client_ssl_cert"),
    acts_unset("client_ssl_cert_key"),
    acts("nginx_proxy_proxy_ssl_verify", "off"),
    acts_unset("nginx_proxy_proxy_ssl_verify_depth"),
    acts("lua_ssl_trusted_certificate", "system"),
    ignored("lua_ssl_verify_depth", "1"),
    ignored("lua_ssl_protocols", "TLSv1.2 TLSv1.3"),
    // Proxy behaviour
    acts("headers", "server_tokens, latency_tokens, X-Kong-Request-Id"),
    acts("headers_upstream", "X-Kong-Request-Id"),
    acts_unset("trusted_ips"),
    acts("real_ip_header", "X-Real-IP"),
    acts("real_ip_recursive", "off"),
    acts("error_default_type", "text/plain"),
    acts("upstream_keepalive_pool_size", "512"),
    acts("upstream_keepalive_max_requests", "10000"),
    acts("upstream_keepalive_idle_timeout", "60"),
    ignored("allow_debug_header", "off"),
    ignored("lua_max_req_headers", "100"),
    ignored("lua_max_resp_headers", "100"),
    ignored("lua_max_uri_args", "100"),
    ignored("lua_max_post_args", "100"),
    acts("router_flavor", "traditional_compatible"),
    acts("nginx_http_client_max_body_size", "0"),
    ignored("nginx_http_client_body_buffer_size", "8k"),
    acts("nginx_http_client_header_timeout", "60s"),
    acts("nginx_http_client_body_timeout", "60s"),
    acts("nginx_http_keepalive_timeout", "75s"),
    acts("nginx_http_send_timeout", "60s"),
    acts("nginx_http_keepalive_requests", "10000"),
    ignored("nginx_http_charset", "UTF-8"),
    inert("nginx_http_lua_regex_match_limit"),
    inert("nginx_http_lua_regex_cache_max_entries"),
    ignored("via_header_comply_rfc", "off"),
    inert("pdk_response_exit_header_filter_early_exit"),
    ignored("tls_certificate_verify", "on"),
    inert("route_match_calculation"),
    inert("schema_alias_conflict_mode"),
    inert("vaults_lazy_load_secrets"),
    // Names
    acts_unset("dns_resolver"),
    acts("dns_hostsfile", "/etc/hosts"),
    acts("dns_order", "LAST,SRV,A,CNAME"),
    acts_unset("dns_valid_ttl"),
    acts("dns_stale_ttl", "3600"),
    acts("dns_not_found_ttl", "30"),
    acts("dns_error_ttl", "1"),
    inert("dns_cache_size"),
    acts("dns_no_sync", "off"),
    acts("new_dns_client", "off"),
    acts_unset("resolver_address"),
    acts_unset("resolver_hosts_file"),
    acts("resolver_family", "A,SRV"),
    acts_unset("resolver_valid_ttl"),
    acts("resolver_error_ttl", "1"),
    acts("resolver_stale_ttl", "3600"),
    inert("resolver_lru_cache_size"),
    inert("resolver_mem_cache_size"),
    // Ours
    acts("sallyport_kong_version", "3.9.1"),
    acts("sallyport_sync", "auto"),
    acts("sallyport_syslog_socket", "/dev/log"),
    acts_unset("vault_env_prefix"),
    acts("vault_file_prefix", "/run/secrets"),
    acts_unset("sallyport_rate_limit"),
    acts("sallyport_rate_limit_ssl", "off"),
    acts("sallyport_rate_limit_timeout", "500ms"),
];
