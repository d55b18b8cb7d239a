//! The API's description of itself for `kubectl explain` and for clients that validate: OpenAPI v3, a document a group and version, and
//! v2. Rendered from the registry and the schema when first asked for.

mod gnostic;
mod parameters;
mod paths;
mod schemas;

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::decode::api_version;
use super::discovery::{self, served};
use super::{Document, fingerprint};
use crate::object::{ResourceRef, schema};

/// The media type of [`v2_protobuf`]. Clients accept one with an `@` for the second-last dot, which no media type may have.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The version of the API in the documents' `info`.
const API_VERSION: &str = "1.33";

/// The two generations of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// `/openapi/v3`: where the documents are.
pub fn index() -> &'static Document {
    static INDEX: LazyLock<Document> = LazyLock::new(|| {
        let paths: Map<_, _> = HASHES
            .iter()
            .map(|(path, hash)| (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")})))
            .collect();
        Document::json(&json!({"paths": paths}))
    });
    &INDEX
}

/// The hash in the index of a group and version's content.
pub fn hash(group: &str, version: &str) -> Option<&'static str> {
    HASHES.get(&prefix(group, version)).map(String::as_str)
}

/// Hashes by path, of all sources of the documents.
static HASHES: LazyLock<IndexMap<String, String>> = LazyLock::new(|| {
    let sources = schema::SOURCES.concat();
    let versions = served().into_iter().flat_map(|(group, versions)| versions.into_keys().map(move |version| (group, version)));
    let hash = |(group, version)| {
        let resources = discovery::resources(group, version).map(|it| it.etag.as_str()).unwrap_or_default();
        (prefix(group, version), fingerprint([env!("CARGO_PKG_VERSION"), resources, &sources].concat().as_bytes()))
    };
    versions.map(hash).collect()
});

/// `/openapi/v3/api/v1` (the group is empty) or `/openapi/v3/apis/{group}/{version}`; `None` if it is not served.
pub fn document(group: &str, version: &str) -> Option<&'static Document> {
    type Documents = HashMap<String, (Vec<ResourceRef>, OnceLock<Document>)>;
    static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
        let versions = |(group, versions): (&'static str, indexmap::IndexMap<&'static str, Vec<ResourceRef>>)| {
            versions.into_iter().map(move |(version, resources)| (api_version(group, version), (resources, OnceLock::new())))
        };
        served().into_iter().flat_map(versions).collect()
    });
    let (resources, document) = DOCUMENTS.get(&api_version(group, version))?;
    Some(document.get_or_init(|| {
        Document::json(&json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": API_VERSION},
            "paths": paths::paths(resources, Dialect::V3),
            "components": {"schemas": schemas::schemas(resources, Dialect::V3), "securitySchemes": security()},
        }))
    }))
}

/// `/openapi/v2` in protobuf.
pub fn v2_protobuf() -> &'static Document {
    static PROTOBUF: LazyLock<Document> = LazyLock::new(|| Document::new(gnostic::document(&v2())));
    &PROTOBUF
}

/// `/openapi/v2` in JSON.
pub fn v2_json() -> &'static Document {
    static JSON: LazyLock<Document> = LazyLock::new(|| Document::json(&v2()));
    &JSON
}

fn v2() -> Value {
    let resources: Vec<ResourceRef> = served().into_values().flat_map(|versions| versions.into_values().flatten()).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": paths::paths(&resources, Dialect::V2),
        "definitions": schemas::schemas(&resources, Dialect::V2),
        "securityDefinitions": security(),
        "security": [{"BearerToken": []}],
    })
}

/// How clients authenticate.
fn security() -> Value {
    json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header", "description": "A token, after the word Bearer."}})
}

/// `api/v1`, or `apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The name of a type's list.
fn list_of(schema: &str) -> String {
    format!("{schema}List")
}

fn reference(name: &str, dialect: Dialect) -> Value {
    let place = if dialect == Dialect::V2 { "definitions" } else { "components/schemas" };
    json!({"$ref": format!("#/{place}/{name}")})
}

fn group_version_kind((group, version, kind): (&str, &str, &str)) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::ALL;

    fn read(document: &Document) -> Value {
        serde_json::from_slice(&document.bytes).unwrap()
    }

    /// Every `$ref` below `value`.
    fn references<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value {
                Value::String(target) if key == "$ref" => into.push(target),
                value => references(value, into),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, into)),
            _ => {}
        }
    }

    #[test]
    fn documents_are_closed_and_say_what_clients_look_for() {
        let index = read(index());
        assert!(index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().starts_with("/openapi/v3/api/v1?hash="));
        assert!(document("none", "v1").is_none());
        for resource in ALL {
            let path = prefix(resource.group, resource.version);
            assert!(index["paths"].get(&path).is_some(), "{path}");
            let document = read(document(resource.group, resource.version).unwrap());
            let mut targets = Vec::new();
            references(&document, &mut targets);
            for target in targets {
                assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} in {path}");
            }
            if !resource.allows("patch") {
                continue;
            }
            // kubectl decides from this whether the server validates.
            let collection = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
            let patch = &document["paths"][format!("/{path}{collection}/{}/{{name}}", resource.plural)]["patch"];
            let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
            assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
            let names: Vec<&Value> = patch["parameters"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
            assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
            assert_eq!(document["components"]["schemas"][resource.schema]["x-kubernetes-group-version-kind"], json!([kind]));
        }
    }

    #[test]
    fn operations_say_what_generators_make_of_them() {
        let core = read(document("", "v1").unwrap());
        let at = |path: &str| &core["paths"][format!("/api/v1{path}")];
        let names = |of: &Value| -> Vec<String> {
            let all = of["parameters"].as_array().into_iter().flatten();
            all.map(|it| format!("{} {}", it["in"].as_str().unwrap(), it["name"].as_str().unwrap())).collect()
        };
        for (path, method, id, action) in [
            ("/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod", "post"),
            ("/namespaces/{namespace}/pods", "delete", "deleteCoreV1CollectionNamespacedPod", "deletecollection"),
            ("/pods", "get", "listCoreV1PodForAllNamespaces", "list"),
            ("/watch/pods", "get", "watchCoreV1PodListForAllNamespaces", "watchlist"),
            ("/watch/nodes/{name}", "get", "watchCoreV1Node", "watch"),
            ("/namespaces/{namespace}/pods/{name}/exec", "post", "connectCoreV1PostNamespacedPodExec", "connect"),
            ("/nodes/{name}/proxy/{path}", "head", "connectCoreV1HeadNodeProxyWithPath", "connect"),
            ("/namespaces/{namespace}/pods/{name}/log", "get", "readCoreV1NamespacedPodLog", "get"),
        ] {
            let operation = &at(path)[method];
            assert_eq!((&operation["operationId"], &operation["x-kubernetes-action"]), (&id.into(), &action.into()), "{path}");
        }
        assert_eq!(at("/")["get"]["operationId"], "getCoreV1APIResources");
        let rbac = read(document("rbac.authorization.k8s.io", "v1").unwrap());
        let roles = &rbac["paths"]["/apis/rbac.authorization.k8s.io/v1/roles"]["get"];
        assert_eq!(
            (&roles["operationId"], &roles["tags"][0]),
            (&json!("listRbacAuthorizationV1RoleForAllNamespaces"), &json!("rbacAuthorization_v1"))
        );
        // Parameters that all operations of a path share are next to them.
        let pod = at("/namespaces/{namespace}/pods/{name}");
        assert_eq!(names(pod), ["path name", "path namespace", "query pretty"]);
        assert_eq!((names(&pod["get"]), names(&pod["put"]).len()), (Vec::new(), 3));
        assert_eq!(names(at("/namespaces/{namespace}/pods/{name}/portforward")), ["path name", "path namespace", "query ports"]);
        let pods = "#/components/schemas/io.k8s.api.core.v1.Pod";
        assert_eq!(pod["put"]["requestBody"], json!({"required": true, "content": {"*/*": {"schema": {"$ref": pods}}}}));
        assert_eq!(pod["delete"]["responses"]["202"]["content"]["application/yaml"]["schema"]["$ref"], pods);
        let v2 = read(v2_json());
        let put = &v2["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["put"];
        assert_eq!(put["parameters"][0]["in"], "body");
        assert_eq!((&put["consumes"], put["produces"].as_array().map(Vec::len)), (&json!(["*/*"]), Some(3)));
    }

    #[test]
    fn schemas_carry_what_patches_and_apply_need() {
        let document = read(document("", "v1").unwrap());
        let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
        let v2 = read(v2_json());
        let port = &v2["definitions"]["io.k8s.api.core.v1.ServicePort"];
        assert_eq!(port["required"], json!(["port"]));
        assert_eq!(port["properties"]["targetPort"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString");
        assert_eq!(port["properties"]["protocol"]["enum"], json!(["SCTP", "TCP", "UDP"]));
        let mut targets = Vec::new();
        references(&v2, &mut targets);
        assert!(targets.iter().all(|target| v2.pointer(target.trim_start_matches('#')).is_some()));
        assert!(v2_protobuf().bytes.len() > 100_000);
    }
}
