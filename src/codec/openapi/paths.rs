//! The registry's rows as OpenAPI paths and operations.

use serde_json::{Map, Value, json};

use super::parameters::{APPLY, DELETE, DELETE_MANY, LIST, LOG, OF_PATHS, Parameter, READ, WRITE, of_connection, parameter};
use super::schemas::{DELETE_OPTIONS, PATCH, RESOURCE_LIST, STATUS, WATCH_EVENT};
use super::{Dialect, group_version_kind, list_of, prefix, reference};
use crate::codec::decode::api_version;
use crate::object::schema;
use crate::object::{ResourceRef, resource::Subresource};

const JSON: &str = "application/json";
/// The media types of bodies.
const BODIES: &[&str] = &[JSON, "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: &[&str] = &[
    JSON,
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const TEXT: &[&str] = &["text/plain", JSON, "application/yaml", "application/vnd.kubernetes.protobuf"];
const ANY: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// An operation's action, in the terms of the API's conventions.
#[derive(Clone, Copy)]
struct Action {
    method: &'static str,
    /// `x-kubernetes-action`.
    name: &'static str,
    /// Prefix of operation ids.
    id: &'static str,
    says: &'static str,
    parameters: &'static [Parameter],
    /// Status codes of success.
    codes: &'static [(&'static str, &'static str)],
}

const OK: (&str, &str) = ("200", "OK");
const CREATED: (&str, &str) = ("201", "Created");
const ACCEPTED: (&str, &str) = ("202", "Accepted");

/// By verb.
fn action_of(verb: &str) -> Option<Action> {
    let action = |method, name, id, says, parameters, codes| Some(Action { method, name, id, says, parameters, codes });
    match verb {
        "list" => action("get", "list", "list", "list or watch", LIST, &[OK]),
        "create" => action("post", "post", "create", "create", WRITE, &[OK, CREATED, ACCEPTED]),
        "deletecollection" => action("delete", "deletecollection", "delete", "delete a collection of", DELETE_MANY, &[OK]),
        "get" => action("get", "get", "read", "read", READ, &[OK]),
        "update" => action("put", "put", "replace", "replace", WRITE, &[OK, CREATED]),
        "patch" => action("patch", "patch", "patch", "change part of", APPLY, &[OK, CREATED]),
        "delete" => action("delete", "delete", "delete", "delete", DELETE, &[OK, ACCEPTED]),
        "watch" => action("get", "watch", "watch", "watch", LIST, &[OK]),
        "watchlist" => action("get", "watchlist", "watch", "watch", LIST, &[OK]),
        _ => None,
    }
}

/// The connections of a subresource: with its verbs, or with all methods for proxies.
fn connections(part: &Subresource) -> impl Iterator<Item = Action> + use<'_> {
    let is_proxy = part.name == "proxy";
    let methods = part
        .verbs
        .iter()
        .filter_map(|verb| action_of(verb))
        .map(|it| it.method)
        .chain(["head", "options"].into_iter().filter(move |_| is_proxy));
    methods.map(|method| Action {
        method,
        name: "connect",
        id: "connect",
        says: "connect to",
        parameters: of_connection(part.kind.2),
        codes: &[OK],
    })
}

/// The parts of path, operation ids and texts that follow from an operation's place.
#[derive(Clone, Copy)]
enum Place<'a> {
    Collection,
    /// The collection over all namespaces.
    Everywhere,
    Item,
    Part(&'a Subresource),
    /// The path below a subresource.
    Behind(&'a Subresource),
}

/// An operation, and its parameters separately.
struct Operation {
    method: &'static str,
    value: Value,
    /// Only in v2, where a body is one of the parameters.
    body: Option<Value>,
    parameters: Vec<Parameter>,
}

/// The path items of these resources, by path.
pub(super) fn paths(resources: &[ResourceRef], dialect: Dialect) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let base = format!("/{}", prefix(resource.group, resource.version));
        let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let (everywhere, collection) = (format!("/{}", resource.plural), format!("{scope}/{}", resource.plural));
        let item = format!("{collection}/{{name}}");
        let mut add = |path: String, place: Place<'_>, actions: &mut dyn Iterator<Item = Action>| {
            let operations: Vec<Operation> = actions.map(|action| operation(resource, place, &action, &path, dialect)).collect();
            if !operations.is_empty() {
                paths.insert(format!("{base}{path}"), path_item(operations, dialect));
            }
        };
        let having = |verbs: &'static [&'static str]| verbs.iter().filter(|verb| resource.allows(verb)).filter_map(|verb| action_of(verb));
        add(collection.clone(), Place::Collection, &mut having(&["list", "create", "deletecollection"]));
        add(item.clone(), Place::Item, &mut having(&["get", "update", "patch", "delete"]));
        if resource.namespaced {
            add(everywhere.clone(), Place::Everywhere, &mut having(&["list"]));
        }
        for part in resource.subresources {
            let path = format!("{item}/{}", part.name);
            if !is_connected(part) {
                add(path, Place::Part(part), &mut part.verbs.iter().filter_map(|verb| action_of(verb)));
                continue;
            }
            add(path.clone(), Place::Part(part), &mut connections(part));
            if part.name == "proxy" {
                add(format!("{path}/{{path}}"), Place::Behind(part), &mut connections(part));
            }
        }
        if resource.allows("watch") {
            add(format!("/watch{collection}"), Place::Collection, &mut action_of("watchlist").into_iter());
            add(format!("/watch{item}"), Place::Item, &mut action_of("watch").into_iter());
            if resource.namespaced {
                add(format!("/watch{everywhere}"), Place::Everywhere, &mut action_of("watchlist").into_iter());
            }
        }
        paths.entry(format!("{base}/")).or_insert_with(|| json!({"get": discovery(resource, dialect)}));
    }
    Value::Object(paths)
}

fn is_connected(part: &Subresource) -> bool {
    part.kind.2.ends_with("Options")
}

/// The operations of one path, with their common parameters.
fn path_item(operations: Vec<Operation>, dialect: Dialect) -> Value {
    let mut shared: Vec<Parameter> = operations.first().map(|it| it.parameters.clone()).unwrap_or_default();
    shared.retain(|it| operations.iter().all(|operation| operation.parameters.contains(it)));
    let show = |mut parameters: Vec<Parameter>| {
        parameters.sort_unstable();
        parameters.iter().map(|it| parameter(it, dialect)).collect::<Vec<Value>>()
    };
    let mut item = Map::new();
    for Operation { method, mut value, body, parameters } in operations {
        let own = parameters.into_iter().filter(|it| !shared.contains(it)).collect();
        let own: Vec<Value> = body.into_iter().chain(show(own)).collect();
        if !own.is_empty() {
            value["parameters"] = own.into();
        }
        item.insert(method.to_owned(), value);
    }
    if !shared.is_empty() {
        item.insert("parameters".to_owned(), show(shared).into());
    }
    Value::Object(item)
}

fn operation(resource: ResourceRef, place: Place<'_>, action: &Action, path: &str, dialect: Dialect) -> Operation {
    let part = if let Place::Part(part) | Place::Behind(part) = place { Some(part) } else { None };
    let kind = part.map_or((resource.group, resource.version, resource.kind), |it| it.kind);
    let body = schema::of_kind(&api_version(kind.0, kind.1), kind.2).map(|it| it.name);
    let is_log = part.is_some_and(|it| it.name == "log");
    let answer = match action.name {
        "connect" => None,
        _ if is_log => None,
        "list" => Some(list_of(resource.schema)),
        "watch" | "watchlist" => Some(WATCH_EVENT.to_owned()),
        // For a namespace, Kubernetes' document says Status although the server returns the object.
        "delete" if resource.shown_when_deleted && resource.plural != "namespaces" => body.map(str::to_owned),
        "delete" | "deletecollection" => Some(STATUS.to_owned()),
        _ => body.map(str::to_owned),
    };
    let request = match action.name {
        "post" | "put" => body,
        "patch" => Some(PATCH),
        "delete" | "deletecollection" => Some(DELETE_OPTIONS),
        _ => None,
    };
    let consumes = if action.name == "patch" { PATCHES } else { ANY };
    let produces = match action.name {
        "connect" => ANY,
        _ if is_log => TEXT,
        "list" | "watch" | "watchlist" => STREAMS,
        _ => BODIES,
    };
    let mut value = json!({
        "description": describe(resource, place, action),
        "operationId": operation_id(resource, place, action),
        "tags": [tag(resource)],
        "responses": responses(answer.as_deref(), action.codes, produces, dialect),
        "x-kubernetes-action": action.name,
        "x-kubernetes-group-version-kind": group_version_kind(kind),
    });
    let is_required = request != Some(DELETE_OPTIONS);
    let mut in_parameters = None;
    match (dialect, request) {
        (Dialect::V2, request) => {
            in_parameters = request.map(|it| {
                let mut body = json!({"name": "body", "in": "body", "schema": reference(it, dialect)});
                require(&mut body, is_required);
                body
            });
            value["consumes"] = consumes.into();
            value["produces"] = produces.into();
            value["schemes"] = json!(["https"]);
        }
        (Dialect::V3, Some(request)) => {
            let content: Map<_, _> = consumes.iter().map(|it| ((*it).to_owned(), json!({"schema": reference(request, dialect)}))).collect();
            value["requestBody"] = json!({ "content": content });
            require(&mut value["requestBody"], is_required);
        }
        (Dialect::V3, None) => {}
    }
    let told = if is_log { LOG } else { action.parameters };
    let in_path = OF_PATHS.iter().filter(|it| path.contains(&format!("{{{}}}", it.name)));
    Operation { method: action.method, value, body: in_parameters, parameters: told.iter().chain(in_path).copied().collect() }
}

fn require(what: &mut Value, is_required: bool) {
    if is_required {
        what["required"] = true.into();
    }
}

/// The resources of a group and version.
fn discovery(resource: ResourceRef, dialect: Dialect) -> Value {
    let mut value = json!({
        "description": "get the resources there are",
        "operationId": format!("get{}{}APIResources", capital(&group_word(resource)), capital(resource.version)),
        "tags": [tag(resource)],
        "responses": responses(Some(RESOURCE_LIST), &[OK], BODIES, dialect),
    });
    if dialect == Dialect::V2 {
        value["consumes"] = BODIES.into();
        value["produces"] = BODIES.into();
        value["schemes"] = json!(["https"]);
    }
    value
}

fn responses(answer: Option<&str>, codes: &[(&str, &str)], produces: &[&str], dialect: Dialect) -> Value {
    let schema = answer.map_or_else(|| json!({"type": "string"}), |it| reference(it, dialect));
    let content: Map<_, _> = produces.iter().map(|it| ((*it).to_owned(), json!({ "schema": schema }))).collect();
    let response = |says: &str| match dialect {
        Dialect::V2 => json!({"description": says, "schema": schema}),
        Dialect::V3 => json!({"description": says, "content": content}),
    };
    let mut responses: Map<_, _> = codes.iter().map(|(code, says)| ((*code).to_owned(), response(says))).collect();
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    Value::Object(responses)
}

fn describe(resource: ResourceRef, place: Place<'_>, action: &Action) -> String {
    match place {
        Place::Part(part) | Place::Behind(part) => format!("{} {} of the specified {}", action.says, part.name, resource.kind),
        Place::Item => format!("{} the specified {}", action.says, resource.kind),
        Place::Collection if action.name == "post" => format!("create a {}", resource.kind),
        Place::Collection | Place::Everywhere => format!("{} objects of kind {}", action.says, resource.kind),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `core`, or the group's name without `.k8s.io`, as one word.
fn group_word(resource: ResourceRef) -> String {
    let mut parts = resource.group.trim_end_matches(".k8s.io").split('.');
    match parts.next() {
        None | Some("") => "core".to_owned(),
        Some(first) => parts.fold(first.to_owned(), |word, part| word + &capital(part)),
    }
}

fn tag(resource: ResourceRef) -> String {
    format!("{}_{}", group_word(resource), resource.version)
}

/// Such as `patchCoreV1NamespacedPodStatus`: client generators turn it into method names.
fn operation_id(resource: ResourceRef, place: Place<'_>, action: &Action) -> String {
    let how = match action.name {
        "deletecollection" => "Collection".to_owned(),
        "connect" => capital(action.method),
        _ => String::new(),
    };
    let list = if action.name == "watchlist" { "List" } else { "" };
    let (scope, after) = match place {
        Place::Everywhere => (false, format!("{list}ForAllNamespaces")),
        Place::Part(part) => (resource.namespaced, capital(part.name)),
        Place::Behind(part) => (resource.namespaced, format!("{}WithPath", capital(part.name))),
        Place::Collection | Place::Item => (resource.namespaced, list.to_owned()),
    };
    let (group, version, scope) = (capital(&group_word(resource)), capital(resource.version), if scope { "Namespaced" } else { "" });
    format!("{}{group}{version}{how}{scope}{}{after}", action.id, resource.kind)
}
