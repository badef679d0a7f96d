//! The schemas of bodies and answers.
//!
//! Those of entities come from the schema table that checks them. The others are written here, one
//! line an object: `name type, …`, where `?` behind a type means that it may be null, `=` that it
//! may be left out, `[X]` a list of X and `{X}` a map to X; any other word is a schema.

use sallyport_model::{Kind, schema};
use serde_json::{Map, Value, json};

use crate::core_entities::schema_name;

/// Objects of the v2 and v3 APIs.
const OBJECTS: &[(&str, &str)] = &[
    ("Object", ""),
    ("Error", "message string"),
    (
        "Problem",
        "status int, title string, instance string, detail string, invalid_parameters [Object]=",
    ),
    ("Page", "number int, size int, total int"),
    ("CursorPage", "size int=, next string?=, total int="),
    (
        "Organization",
        "id uuid, name string, owner_id uuid, state string, created_at time, updated_at time",
    ),
    ("Used", "limit int?, used int"),
    (
        "Entitlements",
        "plan string, control_planes Used, users Used, teams Used, system_accounts Used",
    ),
    (
        "User",
        "id uuid, email string?, full_name string, preferred_name string?, active bool, \
         inferred_region string, created_at time, updated_at time",
    ),
    ("NewUser", "email string, full_name string?="),
    (
        "UserChange",
        "full_name string?=, preferred_name string?=, active bool?=",
    ),
    (
        "Team",
        "id uuid, name string, description string, system_team bool, labels {string}, \
         created_at time, updated_at time",
    ),
    (
        "NewTeam",
        "name string, description string?=, labels {string}=",
    ),
    (
        "TeamChange",
        "name string?=, description string?=, labels {string}=",
    ),
    ("Member", "id uuid"),
    (
        "SystemAccount",
        "id uuid, name string, description string, konnect_managed bool, created_at time, \
         updated_at time",
    ),
    ("NewSystemAccount", "name string, description string?="),
    ("SystemAccountChange", "name string?=, description string?="),
    (
        "AssignedRole",
        "id uuid, role_name string, entity_id string, entity_type_name string, \
         entity_region string",
    ),
    (
        "NewAssignedRole",
        "role_name string, entity_id string, entity_type_name string, entity_region string?=",
    ),
    (
        "AccessToken",
        "id uuid, user_id uuid, name string, state string, created_at time, updated_at time, \
         expires_at time?, last_used_at time?, revoked_at time?, revoked_by string?, \
         konnect_token string=",
    ),
    (
        "NewAccessToken",
        "name string, expires_at time?=, ttl_seconds int?=",
    ),
    (
        "SystemToken",
        "id uuid, name string, created_at time, updated_at time, expires_at time?, \
         last_used_at time?, token string=",
    ),
    (
        "NewSystemToken",
        "name string, expires_at time?=, ttl_seconds int?=",
    ),
    ("TokenChange", "name string?="),
    (
        "AuthenticationSettings",
        "basic_auth_enabled bool=, oidc_auth_enabled bool=, saml_auth_enabled bool=, \
         idp_mapping_enabled bool=, konnect_mapping_enabled bool=",
    ),
    (
        "PatSettings",
        "pats_enabled bool=, max_expiration_period_days int=",
    ),
    ("IpAllowList", "enabled bool=, allowed_ips [string]="),
    ("ProxyUrl", "host string, port int, protocol string"),
    (
        "ControlPlaneConfig",
        "control_plane_endpoint string, telemetry_endpoint string, cluster_type string, \
         auth_type string, cloud_gateway bool, proxy_urls [ProxyUrl]",
    ),
    (
        "ControlPlane",
        "id uuid, name string, description string, labels {string}, config ControlPlaneConfig, \
         created_at time, updated_at time",
    ),
    (
        "NewControlPlane",
        "name string, description string?=, labels {string}=, cluster_type string?=, \
         auth_type string?=, cloud_gateway bool?=, proxy_urls [ProxyUrl]=",
    ),
    (
        "ControlPlaneChange",
        "name string?=, description string?=, labels {string}=, auth_type string?=, \
         proxy_urls [ProxyUrl]=",
    ),
    ("RuntimeGroup", "id uuid, name string"),
    (
        "RuntimeGroupList",
        "data [RuntimeGroup], page int, pageCount int",
    ),
    (
        "DpCertificate",
        "id uuid, cert string, title string, created_at int, updated_at int",
    ),
    ("DpCertificateItem", "item DpCertificate"),
    ("NewDpCertificate", "cert string, title string?="),
    ("TotalPage", "total_count int, next string?="),
    ("DpCertificateList", "items [DpCertificate], page TotalPage"),
    (
        "Node",
        "id uuid, type string, hostname string, version string, last_ping int, \
         config_hash string, compatibility_status Object, created_at int, updated_at int",
    ),
    ("NodeItem", "item Node"),
    ("NodeList", "items [Node], page TotalPage"),
    ("Telemetry", "data [Object], total Object, meta Object"),
    (
        "ExpectedConfigHash",
        "expected_hash string, created_at int, updated_at int",
    ),
    (
        "ExpectedConfigVersion",
        "expected_config_version string, revision int, created_at int",
    ),
    (
        "Version",
        "version int, created_at time?, actor string?, changes int",
    ),
    ("CursorMeta", "page CursorPage"),
    ("VersionList", "data [Version], meta CursorMeta"),
    (
        "Change",
        "operation string, kind string, id uuid, name string?, before Object?, after Object?",
    ),
    ("ChangeList", "from int, to int, data [Change]"),
    (
        "EolNode",
        "node_id uuid, node_version string, message string",
    ),
    ("EolList", "items [EolNode], page TotalPage"),
    (
        "Draft",
        "id uuid, name string, description string, control_plane_id uuid, base_version int, \
         created_at time, updated_at time",
    ),
    ("NewDraft", "name string, description string?="),
    ("DraftChanges", "from int, data [Change]"),
    ("Applied", "version int, changes int"),
    ("GroupMember", "id uuid"),
    ("GroupMembers", "members [GroupMember]"),
    ("GroupMemberList", "data [ControlPlane], meta CursorMeta"),
    (
        "Conflict",
        "cluster_id uuid, description string, resource Object",
    ),
    (
        "GroupState",
        "id uuid, created_at time, updated_at time, conflicts [Conflict], state string",
    ),
    ("GroupStatus", "item GroupState"),
    ("GroupMemberStatus", "is_member bool"),
    ("Operation", "method string, path string, body Object="),
    ("Batch", "operations [Operation], expected_version int?="),
    ("BatchAnswer", "version int, changes int, results [Object?]"),
    ("ExpectedVersion", "expected_version int?="),
    ("Restored", "version int, restored int, changes int"),
    ("AuditLogMeta", "page Object"),
    ("AuditLogList", "data [Object], meta AuditLogMeta"),
    (
        "Replay",
        "status string, start_at time=, end_at time=, updated_at time=",
    ),
    ("NewReplay", "start_at time, end_at time"),
    ("Jwks", "keys [Object]"),
    (
        "WebhookAttachment",
        "audit_log_destination_id uuid=, enabled bool=",
    ),
    (
        "WebhookChange",
        "endpoint string=, authorization string=, log_format string=, \
         skip_ssl_verification bool=, enabled bool=",
    ),
    (
        "NewDestination",
        "name string, endpoint string, authorization string=, log_format string=, \
         skip_ssl_verification bool=",
    ),
    (
        "DestinationChange",
        "name string=, endpoint string=, authorization string=, log_format string=, \
         skip_ssl_verification bool=",
    ),
];

/// Of these there are lists with a page number, named with `List` behind.
const LISTED: [&str; 8] = [
    "Draft",
    "User",
    "Team",
    "SystemAccount",
    "AssignedRole",
    "AccessToken",
    "SystemToken",
    "ControlPlane",
];

/// Every schema by its name.
pub(super) fn all() -> Map<String, Value> {
    let mut all = Map::new();
    for name in LISTED {
        let meta = json!({
            "type": "object", "properties": {"page": reference("Page")}, "required": ["page"],
        });
        let list = list(name, ("meta", meta));
        all.insert(format!("{name}List"), list);
    }
    for (name, fields) in OBJECTS {
        all.insert((*name).to_owned(), object(fields));
    }
    let kinds = Kind::ALL.into_iter();
    for kind in kinds.filter(|kind| *kind != Kind::ConsumerGroupMember) {
        let name = schema_name(kind);
        let document = schema::json_schema(&schema::of(kind).record);
        let next = json!({"type": ["string", "null"]});
        all.insert(format!("{name}List"), list(&name, ("next", next)));
        all.insert(format!("{name}Input"), input(document.clone()));
        all.insert(name, output(document));
    }
    all
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// `data` of this schema, and one member more.
fn list(schema: &str, (member, of): (&str, Value)) -> Value {
    let data = json!({"type": "array", "items": reference(schema)});
    json!({
        "type": "object",
        "properties": {"data": data, member: of},
        "required": ["data", member],
    })
}

/// An object in the form of [`OBJECTS`].
fn object(fields: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (name, text) = field
            .split_once(' ')
            .expect("a field has a name and a type");
        let (text, optional) = match text.strip_suffix('=') {
            Some(text) => (text, true),
            None => (text, false),
        };
        properties.insert(name.to_owned(), typed(text));
        if !optional {
            required.push(json!(name));
        }
    }
    let mut object = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        object["required"] = Value::Array(required);
    }
    object
}

fn typed(text: &str) -> Value {
    if let Some(text) = text.strip_suffix('?') {
        return match typed(text) {
            Value::Object(mut of) if of.contains_key("type") => {
                of["type"] = json!([of["type"], "null"]);
                Value::Object(of)
            }
            of => json!({"anyOf": [of, {"type": "null"}]}),
        };
    }
    let within = |open: char, close: char| text.strip_prefix(open)?.strip_suffix(close);
    if let Some(each) = within('[', ']') {
        return json!({"type": "array", "items": typed(each)});
    }
    if let Some(each) = within('{', '}') {
        return json!({"type": "object", "additionalProperties": typed(each)});
    }
    match text {
        "string" => json!({"type": "string"}),
        "uuid" => json!({"type": "string", "format": "uuid"}),
        "time" => json!({"type": "string", "format": "date-time"}),
        "int" => json!({"type": "integer"}),
        "bool" => json!({"type": "boolean"}),
        other => reference(other),
    }
}

/// What a client may send: null is as good as nothing.
fn input(mut document: Value) -> Value {
    nullable(&mut document, false);
    document
}

/// What is answered: every field may be null, and newer builds add some.
fn output(mut document: Value) -> Value {
    nullable(&mut document, true);
    document["required"] = json!(["id"]);
    document
}

/// Lets every property below be null. An answer may hold what a request may not.
fn nullable(document: &mut Value, is_answer: bool) {
    let Some(own) = document.as_object_mut() else {
        return;
    };
    own.remove("default");
    if is_answer {
        own.remove("required");
        own.remove("additionalProperties");
    }
    if let Some(items) = own.get_mut("items") {
        nullable(items, is_answer);
    }
    let properties = own.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        nullable(property, is_answer);
        if property["type"].is_string() {
            property["type"] = json!([property["type"], "null"]);
        }
        if let Some(list) = property.get_mut("enum").and_then(Value::as_array_mut) {
            list.push(Value::Null);
        }
    }
}
