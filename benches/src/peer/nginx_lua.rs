//! nginx with the Lua module, as gateways of the OpenResty class work: the key in a table, the
//! count in a shared dictionary, the route by its prefix in a table, headers edited by Lua.

use std::ffi::OsString;

use super::nginx::{FORWARDED, command, listen, upstream};
use super::{Peer, Plan};
use crate::workload::{CONSUMERS, LIMIT_PER_MINUTE, Name};

/// Where Debian puts the module.
pub(super) const MODULE: &str = "/usr/lib/nginx/modules/ngx_http_lua_module.so";
/// What the module needs itself.
const KIT: &str = "/usr/lib/nginx/modules/ndk_http_module.so";

/// nginx with Debian's `libnginx-mod-http-lua`.
pub(crate) struct NginxLua {
    pub(crate) label: String,
}

impl Peer for NginxLua {
    fn label(&self) -> &str {
        &self.label
    }

    fn version(&self) -> anyhow::Result<String> {
        let line = crate::machine::first_line("nginx", "-v")?;
        Ok(line.trim_start_matches("nginx version: ").to_owned())
    }

    fn prepare(&self, plan: &Plan<'_>) -> anyhow::Result<Vec<OsString>> {
        let modules = format!("load_module {KIT};\nload_module {MODULE};\n");
        let more = match plan.workload.name {
            Name::Transform => TRANSFORM,
            _ => "",
        };
        let (listen, upstream) = (listen(plan), upstream(plan.backend));
        let routes = plan.workload.routes;
        let http = if plan.workload.name.has_keys() {
            format!(
                r#"{upstream}
  lua_shared_dict counts 10m;
  init_by_lua_block {{
    consumers, routes = {{}}, {{}}
    for i = 0, {CONSUMERS} - 1 do
      local name = string.format("consumer-%03d", i)
      consumers["key-of-" .. name] = {{ id = name, username = name }}
    end
    for i = 0, {routes} - 1 do
      routes[string.format("/route-%04d", i)] = true
    end
  }}
  server {{
    {listen}
    location / {{
      set $upstream_uri "";
      access_by_lua_block {{
        local consumer = consumers[ngx.var.http_apikey or ""]
        if not consumer then return ngx.exit(401) end
        local now = ngx.now()
        local window = math.floor(now / 60)
        local counts = ngx.shared.counts
        local count = counts:incr(consumer.username .. window, 1, 0, 120)
        if count > {LIMIT_PER_MINUTE} then return ngx.exit(429) end
        ngx.ctx.remaining = {LIMIT_PER_MINUTE} - count
        ngx.ctx.reset = 60 - math.floor(now) % 60
        local uri = ngx.var.uri
        local at = string.find(uri, "/", 2, true) or 0
        if not routes[string.sub(uri, 1, at - 1)] then return ngx.exit(404) end
        ngx.var.upstream_uri = string.sub(uri, at)
        local set = ngx.req.set_header
        set("X-Consumer-ID", consumer.id)
        set("X-Consumer-Username", consumer.username)
        set("X-Credential-Identifier", consumer.id)
        set("X-Request-Id", ngx.var.request_id){more}
      }}
      proxy_http_version 1.1;
      proxy_set_header Connection "";{FORWARDED}
      proxy_pass http://backend$upstream_uri;
      header_filter_by_lua_block {{
        local header = ngx.header
        if not ngx.ctx.remaining then return end
        header["RateLimit-Limit"] = {LIMIT_PER_MINUTE}
        header["RateLimit-Remaining"] = ngx.ctx.remaining
        header["RateLimit-Reset"] = ngx.ctx.reset
        header["X-RateLimit-Limit-Minute"] = {LIMIT_PER_MINUTE}
        header["X-RateLimit-Remaining-Minute"] = ngx.ctx.remaining{RESPONSE}
      }}
    }}
  }}"#
            )
        } else {
            format!(
                r#"{upstream}
  server {{
    {listen}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / {{ proxy_pass http://backend; }}
  }}"#
            )
        };
        command(plan.dir, "nginx-lua", &modules, &http)
    }
}

/// What the gateway adds to every answer, as far as nginx has it.
const RESPONSE: &str = r#"
        header["Via"] = "1.1 nginx"
        header["X-Request-Id"] = ngx.var.request_id
        header["X-Upstream-Latency"] = ngx.var.upstream_response_time
        header["X-Proxy-Latency"] = ngx.var.request_time"#;

const TRANSFORM: &str = r#"
        local client = ngx.var.http_x_client
        if client then
          set("X-Caller", client)
          ngx.req.clear_header("X-Client")
        end
        ngx.req.clear_header("X-Internal")
        if not ngx.var.http_x_gateway then set("X-Gateway", "bench") end"#;
