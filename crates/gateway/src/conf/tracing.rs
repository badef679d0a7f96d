//! `tracing_instrumentations` and `tracing_sampling_rate`.

use sallyport_plugins::Tracing;

use super::reader::Reader;

/// What Kong knows; the last two are about what there is none of here: a database, and requests
/// of plugins.
const NAMES: &str = "off, all, request, router, balancer, dns_query, plugin_rewrite, \
                     plugin_access, plugin_header_filter, db_query, http_client";

pub(super) fn tracing(reader: &mut Reader) -> Tracing {
    let mut tracing = Tracing {
        sampling_rate: sampling_rate(reader),
        ..Tracing::default()
    };
    let names = reader.list("tracing_instrumentations");
    for name in &names {
        tracing.request |= name != "off";
        match name.as_str() {
            "all" => {
                tracing.router = true;
                tracing.balancer = true;
                tracing.dns_query = true;
                tracing.plugin_access = true;
                tracing.plugin_header_filter = true;
            }
            "router" => tracing.router = true,
            "balancer" => tracing.balancer = true,
            "dns_query" => tracing.dns_query = true,
            "plugin_access" => tracing.plugin_access = true,
            "plugin_header_filter" => tracing.plugin_header_filter = true,
            "off" if names.len() == 1 => {}
            "off" => reader.problem(
                "tracing_instrumentations",
                "\"off\" cannot be combined with others",
            ),
            "request" | "plugin_rewrite" | "db_query" | "http_client" => {}
            other => reader.problem(
                "tracing_instrumentations",
                format!("{other:?} is unknown; possible: {NAMES}"),
            ),
        }
    }
    tracing
}

fn sampling_rate(reader: &mut Reader) -> f64 {
    let text = reader.text("tracing_sampling_rate").unwrap_or_default();
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => rate,
        _ => {
            reader.problem("tracing_sampling_rate", "must be a number from 0 to 1");
            0.0
        }
    }
}
