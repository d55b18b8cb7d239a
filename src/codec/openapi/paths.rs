//! The registry's rows as OpenAPI paths and operations.

use serde_json::{Map, Value, json};

use super::schemas::{DELETE_OPTIONS, PATCH};
use super::{Dialect, group_version_kind, list_of, prefix, reference};
use crate::codec::decode::api_version;
use crate::object::schema;
use crate::object::{ResourceRef, resource::Subresource};

/// A query parameter: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If true, the answer is indented.");
const DRY_RUN: Parameter = ("dryRun", "string", "All: check the request in full, but store nothing.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "Who makes the change, for the record of who owns which field.");
const FIELD_VALIDATION: Parameter =
    ("fieldValidation", "string", "What to do about unknown and duplicate fields: Ignore them, Warn of them, or refuse them (Strict).");
const FORCE: Parameter = ("force", "boolean", "With server-side apply: take over fields that others own.");
const WRITE: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const APPLY: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const READ: &[Parameter] = &[PRETTY];
const DELETE: &[Parameter] = &[
    PRETTY,
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How long the object has to end; 0 is at once."),
    ("orphanDependents", "boolean", "Old form of propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of the objects it owns: Orphan, Background or Foreground."),
];
const LIST: &[Parameter] = &[
    PRETTY,
    ("allowWatchBookmarks", "boolean", "With watch: send events that only tell how far the watch has come."),
    ("continue", "string", "Where the previous page ended."),
    ("fieldSelector", "string", "Only objects with these field values."),
    ("labelSelector", "string", "Only objects with these labels."),
    ("limit", "integer", "How many objects a page has at most."),
    ("resourceVersion", "string", "Which version of the list is asked for."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "With watch: begin with an event for each object there is."),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Answer with a stream of the changes from resourceVersion on."),
];

/// What an operation does, in the terms of the API's conventions.
struct Action {
    method: &'static str,
    /// `x-kubernetes-action`.
    name: &'static str,
    /// What operation ids begin with.
    id: &'static str,
    says: &'static str,
    parameters: &'static [Parameter],
}

const fn action(
    method: &'static str,
    name: &'static str,
    id: &'static str,
    says: &'static str,
    parameters: &'static [Parameter],
) -> Action {
    Action { method, name, id, says, parameters }
}

/// By verb.
fn action_of(verb: &str) -> Option<Action> {
    Some(match verb {
        "list" => action("get", "list", "list", "list or watch", LIST),
        "create" => action("post", "post", "create", "create", WRITE),
        "deletecollection" => action("delete", "deletecollection", "delete", "delete a collection of", LIST),
        "get" => action("get", "get", "read", "read", READ),
        "update" => action("put", "put", "replace", "replace", WRITE),
        "patch" => action("patch", "patch", "patch", "change part of", APPLY),
        "delete" => action("delete", "delete", "delete", "delete", DELETE),
        _ => return None,
    })
}

/// What follows of the path, operation ids and texts from where an operation is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Collection,
    /// The collection over all namespaces.
    Everywhere,
    Item,
    Part(&'a Subresource),
}

/// The path items of these resources, by path.
pub(super) fn paths(resources: &[ResourceRef], dialect: Dialect) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let base = format!("/{}", prefix(resource.group, resource.version));
        let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{base}{scope}/{}", resource.plural);
        let item = format!("{collection}/{{name}}");
        let mut add = |path: String, place: Place<'_>, verbs: &[&str]| {
            let operations: Map<String, Value> = verbs
                .iter()
                .filter_map(|verb| action_of(verb))
                .map(|action| (action.method.to_owned(), operation(resource, place, &action, dialect)))
                .collect();
            if !operations.is_empty() {
                let mut path_item = operations;
                path_item.insert("parameters".to_owned(), path_parameters(&path, dialect));
                paths.insert(path, Value::Object(path_item));
            }
        };
        let having = |verbs: &[&'static str]| -> Vec<&'static str> { verbs.iter().copied().filter(|verb| resource.allows(verb)).collect() };
        add(collection.clone(), Place::Collection, &having(&["list", "create", "deletecollection"]));
        add(item.clone(), Place::Item, &having(&["get", "update", "patch", "delete"]));
        if resource.namespaced {
            add(format!("{base}/{}", resource.plural), Place::Everywhere, &having(&["list"]));
        }
        for part in resource.subresources {
            add(format!("{item}/{}", part.name), Place::Part(part), part.verbs);
        }
    }
    Value::Object(paths)
}

fn operation(resource: ResourceRef, place: Place<'_>, action: &Action, dialect: Dialect) -> Value {
    let kind = if let Place::Part(part) = place { part.kind } else { (resource.group, resource.version, resource.kind) };
    let body = schema::of_kind(&api_version(kind.0, kind.1), kind.2).map(|it| it.name);
    let connects = kind.2.ends_with("Options");
    let answer = match (action.name, body) {
        ("list", _) => Some(list_of(resource.schema)),
        ("delete" | "deletecollection", _) if !connects => Some(super::schemas::STATUS.to_owned()),
        _ => body.map(str::to_owned),
    };
    let request = match action.name {
        _ if connects => None,
        "post" | "put" => body,
        "patch" => Some(PATCH),
        "delete" | "deletecollection" => Some(DELETE_OPTIONS),
        _ => None,
    };
    let mut parameters: Vec<Value> = action.parameters.iter().map(|it| query_parameter(it, dialect)).collect();
    let consumes: &[&str] = match action.name {
        "patch" => &[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ],
        _ => &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
    };
    let mut operation = json!({
        "description": describe(resource, place, action),
        "operationId": operation_id(resource, place, action),
        "tags": [tag(resource)],
    });
    let required = action.name != "delete" && action.name != "deletecollection";
    if dialect == Dialect::V2 {
        if let Some(request) = request {
            parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": reference(request, dialect)}));
            operation["consumes"] = consumes.into();
        }
        operation["produces"] = json!(["application/json"]);
    } else if let Some(request) = request {
        let content: Map<String, Value> =
            consumes.iter().map(|it| ((*it).to_owned(), json!({"schema": reference(request, dialect)}))).collect();
        operation["requestBody"] = json!({"required": required, "content": content});
    }
    operation["parameters"] = parameters.into();
    operation["responses"] = responses(answer.as_deref(), action, dialect);
    operation["x-kubernetes-action"] = if connects { "connect" } else { action.name }.into();
    operation["x-kubernetes-group-version-kind"] = group_version_kind(kind);
    operation
}

fn responses(answer: Option<&str>, action: &Action, dialect: Dialect) -> Value {
    let schema = answer.map_or_else(|| json!({"type": "string"}), |it| reference(it, dialect));
    let response = |says: &str| match dialect {
        Dialect::V2 => json!({"description": says, "schema": schema}),
        Dialect::V3 => json!({"description": says, "content": {"application/json": {"schema": schema}}}),
    };
    let mut responses = json!({"200": response("OK")});
    if matches!(action.name, "post" | "put" | "patch") {
        responses["201"] = response("Created");
    }
    if matches!(action.name, "post" | "delete") {
        responses["202"] = response("Accepted");
    }
    responses["401"] = json!({"description": "Unauthorized"});
    responses
}

fn query_parameter((name, kind, says): &Parameter, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "description": says, "type": kind, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": "query", "description": says, "schema": {"type": kind, "uniqueItems": true}}),
    }
}

fn path_parameters(path: &str, dialect: Dialect) -> Value {
    [("namespace", "The namespace of the object."), ("name", "The name of the object.")]
        .into_iter()
        .filter(|(name, _)| path.contains(&format!("{{{name}}}")))
        .map(|(name, says)| match dialect {
            Dialect::V2 => json!({"name": name, "in": "path", "required": true, "description": says, "type": "string", "uniqueItems": true}),
            Dialect::V3 => {
                json!({"name": name, "in": "path", "required": true, "description": says, "schema": {"type": "string", "uniqueItems": true}})
            }
        })
        .collect()
}

fn describe(resource: ResourceRef, place: Place<'_>, action: &Action) -> String {
    match place {
        Place::Part(part) => format!("{} {} of the specified {}", action.says, part.name, resource.kind),
        Place::Item => format!("{} the specified {}", action.says, resource.kind),
        Place::Collection if action.name == "post" => format!("create a {}", resource.kind),
        Place::Collection | Place::Everywhere => format!("{} objects of kind {}", action.says, resource.kind),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `core`, or the first part of the group's name.
fn group_word(resource: ResourceRef) -> &'static str {
    if resource.group.is_empty() { "core" } else { resource.group.split('.').next().unwrap_or_default() }
}

fn tag(resource: ResourceRef) -> String {
    format!("{}_{}", group_word(resource), resource.version)
}

/// Such as `patchCoreV1NamespacedPodStatus`: what client generators make method names of.
fn operation_id(resource: ResourceRef, place: Place<'_>, action: &Action) -> String {
    let collection = if action.name == "deletecollection" { "Collection" } else { "" };
    let (scope, after) = match place {
        Place::Everywhere => ("", "ForAllNamespaces".to_owned()),
        Place::Part(part) => (if resource.namespaced { "Namespaced" } else { "" }, capital(part.name)),
        _ => (if resource.namespaced { "Namespaced" } else { "" }, String::new()),
    };
    let group = capital(group_word(resource));
    format!("{}{group}{}{collection}{scope}{}{after}", action.id, capital(resource.version), resource.kind)
}
