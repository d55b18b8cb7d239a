//! Which groups, versions and resources are served, in both forms that clients ask for. Rendered once from the registry.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::Document;
use super::decode::api_version;
use crate::object::ResourceRef;
use crate::object::resource::{ALL, Resource, Subresource};

/// The media type of [`aggregated`] documents.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`: of the core group for `/api` (`legacy`), of all others for `/apis`.
pub fn aggregated(legacy: bool) -> &'static Document {
    if legacy { &DOCUMENTS.legacy } else { &DOCUMENTS.others }
}

/// `/api`, of a server that clients reach at this address.
pub fn api_versions(address: &str) -> Document {
    Document::json(&json!({
        "kind": "APIVersions",
        "versions": served().get("").map(|it| it.keys().copied().collect::<Vec<_>>()),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }))
}

/// `/apis`.
pub fn group_list() -> &'static Document {
    &DOCUMENTS.group_list
}

/// `/apis/{group}`; `None` if it is not served.
pub fn group(name: &str) -> Option<&'static Document> {
    DOCUMENTS.groups.get(name)
}

/// `/api/v1` (the group is empty) or `/apis/{group}/{version}`; `None` if it is not served.
pub fn resources(group: &str, version: &str) -> Option<&'static Document> {
    DOCUMENTS.resources.get(&api_version(group, version))
}

/// Versions, with their resources, by group; groups and versions in the order of their first resource.
pub(super) fn served() -> IndexMap<&'static str, IndexMap<&'static str, Vec<ResourceRef>>> {
    let mut groups: IndexMap<_, IndexMap<_, Vec<ResourceRef>>> = IndexMap::new();
    for resource in ALL {
        groups.entry(resource.group).or_default().entry(resource.version).or_default().push(resource);
    }
    groups
}

struct Documents {
    legacy: Document,
    others: Document,
    group_list: Document,
    groups: HashMap<&'static str, Document>,
    /// By group and version (`apps/v1`).
    resources: HashMap<String, Document>,
}

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
    let served = served();
    let (legacy, named): (Vec<_>, Vec<_>) = served.iter().partition(|(name, _)| name.is_empty());
    let list = |groups: &[(&&str, &IndexMap<_, _>)]| {
        let items: Vec<Value> = groups.iter().map(|(name, versions)| aggregated_group(name, versions)).collect();
        Document::json(&json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
        }))
    };
    let described = |head: Value, mut body: Value| {
        let (Value::Object(mut all), Some(body)) = (head, body.as_object_mut()) else { return Value::Null };
        all.append(body);
        Value::Object(all)
    };
    let groups: Vec<(&str, Value)> = named.iter().map(|(name, versions)| (**name, plain_group(name, versions))).collect();
    Documents {
        legacy: list(&legacy),
        others: list(&named),
        group_list: Document::json(&json!({
            "kind": "APIGroupList", "apiVersion": "v1", "groups": groups.iter().map(|(_, group)| group).collect::<Vec<_>>(),
        })),
        groups: groups
            .iter()
            .map(|(name, group)| (*name, Document::json(&described(json!({"kind": "APIGroup", "apiVersion": "v1"}), group.clone()))))
            .collect(),
        resources: served
            .iter()
            .flat_map(|(group, versions)| versions.iter().map(move |(version, resources)| (api_version(group, version), resources)))
            .map(|(group_version, resources)| {
                let mut list = json!({
                    "kind": "APIResourceList",
                    "groupVersion": &group_version,
                    "resources": resources.iter().flat_map(|it| plain_resource(it)).collect::<Vec<_>>(),
                });
                // As in Kubernetes, the core group's document has no apiVersion.
                if group_version.contains('/') {
                    list["apiVersion"] = "v1".into();
                }
                (group_version, Document::json(&list))
            })
            .collect(),
    }
});

fn aggregated_group(name: &str, versions: &IndexMap<&str, Vec<ResourceRef>>) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if !name.is_empty() {
        metadata["name"] = name.into();
    }
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, resources)| {
            let resources: Vec<Value> = resources.iter().map(|it| aggregated_resource(it)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

/// A kind of the resource's own group and version is named without them.
fn response_kind(resource: &Resource, (group, version, kind): (&str, &str, &str)) -> Value {
    let (group, version) = if (group, version) == (resource.group, resource.version) { ("", "") } else { (group, version) };
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": response_kind(resource, (resource.group, resource.version, resource.kind)),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    if !resource.subresources.is_empty() {
        let part = |it: &Subresource| json!({"subresource": it.name, "responseKind": response_kind(resource, it.kind), "verbs": it.verbs});
        entry["subresources"] = resource.subresources.iter().map(part).collect();
    }
    entry
}

fn add_names(entry: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.into();
    }
}

fn plain_group(name: &str, versions: &IndexMap<&str, Vec<ResourceRef>>) -> Value {
    let versions: Vec<Value> =
        versions.keys().map(|version| json!({"groupVersion": api_version(name, version), "version": version})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn plain_resource(resource: ResourceRef) -> Vec<Value> {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    if resource.allows("watch") {
        entry["storageVersionHash"] = storage_version_hash(resource.storage()).into();
    }
    let part = |it: &Subresource| {
        let (group, version, kind) = it.kind;
        let mut part = Map::new();
        part.insert("name".to_owned(), format!("{}/{}", resource.plural, it.name).into());
        part.insert("singularName".to_owned(), "".into());
        part.insert("namespaced".to_owned(), resource.namespaced.into());
        if (group, version) != (resource.group, resource.version) {
            part.insert("group".to_owned(), group.into());
            part.insert("version".to_owned(), version.into());
        }
        part.insert("kind".to_owned(), kind.into());
        part.insert("verbs".to_owned(), it.verbs.into());
        Value::Object(part)
    };
    std::iter::once(entry).chain(resource.subresources.iter().map(part)).collect()
}

/// Kubernetes' hash of the stored group, version and kind, by which clients notice a change of the stored version.
fn storage_version_hash(stored: &Resource) -> String {
    // Kubernetes 1.33 still stores these in their first version.
    let version = if matches!(stored.kind, "IPAddress" | "ServiceCIDR") { "v1beta1" } else { stored.version };
    let name = format!("{}/{version}/{}", stored.group, stored.kind);
    BASE64_STANDARD.encode(&ring::digest::digest(&ring::digest::SHA256, name.as_bytes()).as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIGroupList, APIResourceList, APIVersions};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(document: &Document) -> T {
        serde_json::from_slice(&document.bytes).unwrap()
    }

    #[test]
    fn plain_documents_are_the_types_clients_know() {
        assert_eq!(read::<APIVersions>(&api_versions("1.2.3.4:5")).versions, ["v1"]);
        let groups = read::<APIGroupList>(group_list()).groups;
        assert!(groups.iter().any(|group| group.name == "apps") && groups.iter().all(|group| !group.name.is_empty()));
        assert_eq!(read::<APIGroup>(group("apps").unwrap()).preferred_version.unwrap().group_version, "apps/v1");
        assert!(group("").is_none() && group("none").is_none() && resources("apps", "v1beta1").is_none());
        let core = read::<APIResourceList>(resources("", "v1").unwrap());
        assert_eq!(core.group_version, "v1");
        // `kubectl drain` looks for exactly this.
        let eviction = core.resources.iter().find(|it| it.name == "pods/eviction").unwrap();
        assert_eq!((eviction.group.as_deref(), eviction.version.as_deref(), &*eviction.kind), (Some("policy"), Some("v1"), "Eviction"));
        let pods = core.resources.iter().find(|it| it.name == "pods").unwrap();
        assert_eq!((pods.short_names.clone(), pods.namespaced), (Some(vec!["po".to_owned()]), true));
        assert_eq!(pods.storage_version_hash.as_deref(), Some("xPOwRZ+Yhw8="));
        for resource in ALL {
            let list = read::<APIResourceList>(resources(resource.group, resource.version).unwrap());
            assert_eq!(list.resources.iter().filter(|it| it.name == resource.plural).count(), 1);
        }
    }

    #[test]
    fn aggregated_documents_hold_every_group_once() {
        let legacy: Value = read(aggregated(true));
        assert_eq!(legacy["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(legacy["items"][0]["metadata"], json!({"creationTimestamp": null}));
        let others: Value = read(aggregated(false));
        let apps = others["items"].as_array().unwrap().iter().find(|it| it["metadata"]["name"] == "apps").unwrap();
        let deployments = apps["versions"][0]["resources"].as_array().unwrap().iter().find(|it| it["resource"] == "deployments").unwrap();
        assert_eq!(deployments["responseKind"], json!({"group": "", "version": "", "kind": "Deployment"}));
        assert_eq!(deployments["subresources"][0]["responseKind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
        assert_ne!(aggregated(true).etag, aggregated(false).etag);
    }
}
