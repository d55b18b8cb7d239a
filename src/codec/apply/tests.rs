//! Apply, by example and for arbitrary objects.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::compare::Changes;
use super::*;
use crate::object::resource;

const NOW: &str = "2026-01-01T00:00:00Z";

/// An object, and its managed fields beside it.
fn apart(object: Option<Value>) -> (Option<Value>, Option<Managers>) {
    let (object, managers) = object.map(|it| stored(it.to_string().as_bytes()).unwrap()).unzip();
    (object, managers.flatten())
}

/// An object in a store of its own.
struct World {
    version: ResourceRef,
    live: Option<Value>,
    now: &'static str,
}

impl World {
    fn new(version: ResourceRef) -> Self {
        Self { version, live: None, now: NOW }
    }

    fn writer<'a>(&self, manager: &'a str, subresource: &'a str) -> Writer<'a> {
        Writer { version: self.version, manager, subresource, now: self.now }
    }

    fn write(&mut self, manager: &str, subresource: &str, new: Value) {
        let (old, held) = apart(self.live.take());
        let mut new = new;
        let stated = take(&mut new);
        let managers = track((stated, held), old.as_ref(), &new, &self.writer(manager, subresource));
        put(&mut new, managers.as_ref());
        self.live = Some(new);
    }

    /// Changes the object as a merge patch would.
    fn patch(&mut self, manager: &str, subresource: &str, patch: &Value) {
        let live = self.live.clone().unwrap();
        let patched = crate::codec::patch(self.version, &live, crate::codec::PatchKind::Merge, patch).unwrap();
        self.write(manager, subresource, patched);
    }

    fn try_apply(&mut self, manager: &str, applied: Value, force: bool) -> Result<(), Box<Status>> {
        let mut applied = applied;
        applied["apiVersion"] = self.version.api_version().into();
        applied["kind"] = self.version.kind.into();
        let (live, held) = apart(self.live.clone());
        let live = live.as_ref().map(|it| (it, held.as_ref()));
        self.live = Some(apply(live, &applied, &self.writer(manager, ""), force)?);
        Ok(())
    }

    fn apply(&mut self, manager: &str, applied: Value) {
        self.try_apply(manager, applied, false).unwrap();
    }

    /// Manager, kind of writing and fields of every entry.
    fn managers(&self) -> Vec<(String, Value)> {
        let entries = self.live.as_ref().and_then(|it| it["metadata"]["managedFields"].as_array()).cloned().unwrap_or_default();
        let name = |it: &Value| {
            format!(
                "{} {} {}",
                it["operation"].as_str().unwrap(),
                it["manager"].as_str().unwrap(),
                it["subresource"].as_str().unwrap_or_default()
            )
            .trim_end()
            .to_owned()
        };
        entries.iter().map(|it| (name(it), it["fieldsV1"].clone())).collect()
    }

    fn at(&self, pointer: &str) -> Value {
        self.live.as_ref().and_then(|it| it.pointer(pointer)).cloned().unwrap_or_default()
    }
}

fn deployment(replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1, "creationTimestamp": NOW,
            "labels": {"app": "web"}, "annotations": {}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "name": "t"},
                "spec": {
                    "securityContext": {},
                    "tolerations": [{"key": "a"}],
                    "containers": [{"name": "c", "image": image, "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}],
                },
            },
        },
        "status": {"replicas": 1},
    })
}

/// As a kube-apiserver 1.32 answers for the same objects.
#[test]
fn a_creator_owns_what_it_sets() {
    let mut it = World::new(&resource::DEPLOYMENT);
    it.write("kubectl-create", "", deployment(1, "i"));
    let entry = it.at("/metadata/managedFields/0");
    assert_eq!(
        (&entry["manager"], &entry["operation"], &entry["apiVersion"], &entry["time"], &entry["fieldsType"], entry.get("subresource")),
        (&json!("kubectl-create"), &json!("Update"), &json!("apps/v1"), &json!(NOW), &json!("FieldsV1"), None)
    );
    let container = json!({
        ".": {}, "f:image": {}, "f:name": {}, "f:resources": {}, "f:env": {".": {}, "k:{\"name\":\"A\"}": {}},
        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
    });
    assert_eq!(
        entry["fieldsV1"],
        json!({
            "f:metadata": {"f:annotations": {}, "f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:name": {}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": container}, "f:securityContext": {}, "f:tolerations": {}},
                },
            },
        })
    );
}

#[test]
fn who_changes_a_field_owns_it() {
    let mut it = World::new(&resource::DEPLOYMENT);
    it.write("a", "", deployment(1, "i"));
    it.now = "2026-01-01T00:00:05Z";
    it.patch("b", "", &json!({"metadata": {"labels": {"x": "y"}, "annotations": {"n": "1"}}, "spec": {"replicas": 2}}));
    let managers = it.managers();
    assert_eq!(managers[1].0, "Update b");
    assert_eq!(managers[1].1, json!({"f:metadata": {"f:annotations": {"f:n": {}}, "f:labels": {"f:x": {}}}, "f:spec": {"f:replicas": {}}}));
    assert!(managers[0].1["f:spec"].get("f:replicas").is_none());
    assert_eq!((it.at("/metadata/managedFields/0/time"), it.at("/metadata/managedFields/1/time")), (json!(NOW), json!(it.now)));
    // A write without a change changes no owner and no time.
    let before = it.live.clone();
    it.now = "2026-01-01T00:00:09Z";
    it.patch("c", "", &json!({"spec": {"replicas": 2}}));
    assert_eq!(it.live, before);
    // A removed field has no owner; removing it creates no ownership.
    it.patch("c", "", &json!({"metadata": {"labels": {"x": null}, "annotations": null}, "spec": {"replicas": null}}));
    assert_eq!(it.managers().len(), 1);
    assert!(it.managers()[0].1["f:metadata"].get("f:annotations").is_none());
    it.patch("km", "status", &json!({"status": {"replicas": 2, "conditions": [{"type": "Available", "status": "True"}]}}));
    assert_eq!(
        it.managers()[1],
        (
            "Update km status".to_owned(),
            json!({"f:status": {"f:replicas": {}, "f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
        )
    );
}

#[test]
fn managers_can_be_taken_away() {
    let mut it = World::new(&resource::CONFIG_MAP);
    let object = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    it.write("a", "", object(json!({"x": "1"})));
    let mut reset = it.live.clone().unwrap();
    reset["metadata"]["managedFields"] = json!([{}]);
    it.write("b", "", reset);
    assert_eq!(it.at("/metadata/managedFields"), Value::Null);
    it.patch("b", "", &json!({"data": {"x": "2"}}));
    assert_eq!(it.at("/metadata/managedFields"), Value::Null);
    // The first apply finds an owner of all existing fields.
    let conflict = it.try_apply("c", json!({"metadata": {"name": "a"}, "data": {"x": "3"}}), false).unwrap_err();
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x");
    it.apply("c", json!({"metadata": {"name": "a"}, "data": {"y": "1"}}));
    assert_eq!(
        it.managers(),
        [
            ("Apply c".to_owned(), json!({"f:data": {"f:y": {}}})),
            ("Update before-first-apply".to_owned(), json!({"f:data": {".": {}, "f:x": {}}}))
        ]
    );
}

#[test]
fn what_is_written_of_nothing_is_no_change() {
    let mut it = World::new(&resource::POD);
    let status = json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "lastState": {}, "ready": false, "restartCount": 0,
        "state": {"running": {"startedAt": null}}}], "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null}]});
    let pod = |labels: Value| json!({"metadata": {"name": "a", "labels": labels}});
    let mut waiting = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}});
    crate::codec::default(&resource::POD, &mut waiting);
    it.write("a", "", waiting);
    let mut running = it.live.clone().unwrap();
    running["status"] = status;
    it.write("kubelet", "status", running);
    let owned = it.managers().last().cloned();
    it.apply("b", pod(json!({"x": "y"})));
    assert!(it.at("/status/conditions/0").as_object().is_some_and(|it| it.contains_key("lastTransitionTime")));
    assert!(it.managers().contains(&owned.unwrap()), "nobody has taken the status");
}

#[test]
fn applying_states_all_that_a_manager_wants() {
    let mut it = World::new(&resource::CONFIG_MAP);
    let applied = |data: Value| json!({"metadata": {"name": "a"}, "data": data});
    it.apply("a", applied(json!({"x": "1", "y": "1"})));
    assert_eq!(it.managers(), [("Apply a".to_owned(), json!({"f:data": {"f:x": {}, "f:y": {}}}))]);
    it.now = "2026-01-01T00:00:05Z";
    let before = it.live.clone();
    it.apply("a", applied(json!({"x": "1", "y": "1"})));
    assert_eq!(it.live, before, "the same again changes nothing");
    // The same value is no conflict: both own it.
    it.apply("b", applied(json!({"x": "1"})));
    assert_eq!(it.managers()[0], ("Apply b".to_owned(), json!({"f:data": {"f:x": {}}})));
    assert_eq!(it.at("/metadata/managedFields/0/time"), Value::Null, "b has changed nothing");
    it.apply("a", applied(json!({"z": "1"})));
    assert_eq!(it.at("/data"), json!({"x": "1", "z": "1"}), "y was a's alone");
    let conflict = it.try_apply("a", applied(json!({"x": "2", "z": "1"})), false).unwrap_err();
    assert_eq!((conflict.code, conflict.message.as_str()), (409, "Apply failed with 1 conflict: conflict with \"b\": .data.x"));
    it.try_apply("a", applied(json!({"x": "2"})), true).unwrap();
    assert_eq!(it.at("/data"), json!({"x": "2"}));
    assert_eq!(it.managers(), [("Apply a".to_owned(), json!({"f:data": {"f:x": {}}}))]);
    it.apply("a", applied(json!({})));
    assert_eq!(it.at("/data"), Value::Null, "an empty map is as good as none");
    assert_eq!(it.managers(), [("Apply a".to_owned(), json!({"f:data": {}}))], "which is stated");
    it.apply("a", json!({"metadata": {"name": "a"}}));
    assert_eq!(it.at("/data"), Value::Null);
}

#[test]
fn conflicts_name_every_owner() {
    let mut it = World::new(&resource::DEPLOYMENT);
    it.write("kubectl-create", "", deployment(1, "i"));
    it.patch("kubectl-edit", "", &json!({"spec": {"replicas": 2}}));
    let wants = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}});
    let conflict = it.try_apply("me", wants.clone(), false).unwrap_err();
    assert_eq!(
        conflict.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n\
         - .spec.template.spec.containers[name=\"c\"].image\nconflicts with \"kubectl-edit\" using apps/v1:\n- .spec.replicas"
    );
    let causes: Vec<_> = conflict.details.unwrap().causes.into_iter().map(|it| (it.reason, it.message, it.field)).collect();
    let reason = "FieldManagerConflict".to_owned();
    assert_eq!(
        causes,
        [
            (
                reason.clone(),
                "conflict with \"kubectl-create\" using apps/v1".to_owned(),
                ".spec.template.spec.containers[name=\"c\"].image".to_owned()
            ),
            (reason, "conflict with \"kubectl-edit\" using apps/v1".to_owned(), ".spec.replicas".to_owned()),
        ]
    );
    it.try_apply("me", wants, true).unwrap();
    assert_eq!((it.at("/spec/replicas"), it.at("/spec/template/spec/containers/0/image")), (json!(3), json!("j")));
    assert_eq!(it.managers().iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["Apply me", "Update kubectl-create"]);
}

/// The server writes the requester into a certificate signing request, so its author owns nothing of it.
#[test]
fn requests_for_certificates_are_owned_by_nobody() {
    let mut it = World::new(&resource::CERTIFICATE_SIGNING_REQUEST);
    let asked = json!({"metadata": {"name": "c"}, "spec": {"request": "eA==", "signerName": "a.b/c", "usages": ["client auth"]}});
    it.write("me", "", asked.clone());
    assert_eq!(it.managers(), []);
    it.apply("other", asked);
    assert_eq!(it.managers(), []);
    it.patch("me", "", &json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(it.managers().len(), 0, "managers that were taken away stay so");
}

/// A value that is only equivalent to the other's is a conflict.
#[test]
fn conflicts_are_about_what_is_written() {
    let mut it = World::new(&resource::RESOURCE_QUOTA);
    let quota = |pods: &str| json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": pods}}});
    it.write("other", "", quota("1k"));
    it.apply("me", quota("1k"));
    assert_eq!(it.live.as_ref().unwrap()["metadata"]["managedFields"][0].get("time"), None);
    let conflict = it.try_apply("me", quota("1000"), false).unwrap_err();
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"other\" using v1: .spec.hard.pods");
    it.try_apply("me", quota("1000"), true).unwrap();
    assert_eq!(it.at("/spec/hard/pods"), json!("1k"));
    assert_eq!(it.managers().iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["Apply me", "Update other"]);

    // A list that has one owner: its items have got defaults since.
    let mut it = World::new(&resource::POD);
    let pod = |toleration: Value| json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"tolerations": [toleration]}});
    it.write("other", "", pod(json!({"key": "a", "operator": "Exists"})));
    let conflict = it.try_apply("me", pod(json!({"key": "a"})), false).unwrap_err();
    assert_eq!(conflict.details.unwrap().causes[0].field, ".spec.tolerations");
}

#[test]
fn lists_merge_as_the_schema_says() {
    let mut it = World::new(&resource::DEPLOYMENT);
    it.write("other", "", deployment(1, "i"));
    let containers = |list: Value| json!({"metadata": {"name": "web", "namespace": "default", "finalizers": ["a/b"]}, "spec": {"template": {"spec": {"containers": list, "tolerations": [{"key": "a"}]}}}});
    it.apply(
        "me",
        containers(json!([
            {"name": "first", "image": "x"},
            {"name": "c", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 80, "protocol": "UDP"}]},
        ])),
    );
    let list = it.at("/spec/template/spec/containers");
    assert_eq!((&list[0]["name"], &list[1]["name"], &list[1]["image"]), (&json!("first"), &json!("c"), &json!("i")));
    assert_eq!(
        list[1]["ports"],
        json!([{"containerPort": 80, "protocol": "TCP", "name": "http"}, {"containerPort": 80, "protocol": "UDP"}])
    );
    assert_eq!(it.at("/metadata/finalizers"), json!(["a/b"]));
    let fields = &it.managers()[0].1;
    assert_eq!(fields["f:spec"]["f:template"]["f:spec"]["f:tolerations"], json!({}));
    assert_eq!(fields["f:metadata"]["f:finalizers"], json!({"v:\"a/b\"": {}}));
    assert_eq!(
        fields["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"],
        json!({".": {}, "f:name": {}, "f:ports": {
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:name": {}},
            "k:{\"containerPort\":80,\"protocol\":\"UDP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}})
    );
    // Fields that only I owned are removed; the other's in the same item stay.
    it.apply("me", json!({"metadata": {"name": "web", "namespace": "default"}}));
    let list = it.at("/spec/template/spec/containers");
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(it.at("/spec/template/spec/tolerations"), json!([{"key": "a"}]));
    assert_eq!(it.at("/metadata/finalizers"), Value::Null);
}

/// An absent and an empty list are stored alike, but stating one takes it from another owner.
#[test]
fn to_state_nothing_is_to_state_something() {
    let mut it = World::new(&resource::DEPLOYMENT);
    let of = |spec: Value| json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"template": {"spec": spec}}});
    it.apply("ops", of(json!({"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "a"}], "hostNetwork": true})));
    for spec in [json!({"nodeSelector": {}}), json!({"tolerations": []}), json!({"hostNetwork": false})] {
        let status = it.try_apply("helm", of(spec.clone()), false).unwrap_err();
        let field = spec.as_object().unwrap().keys().next().unwrap();
        assert_eq!(status.message, format!("Apply failed with 1 conflict: conflict with \"ops\": .spec.template.spec.{field}"));
    }
    it.try_apply("helm", of(json!({"nodeSelector": {}})), true).unwrap();
    assert_eq!(it.at("/spec/template/spec/nodeSelector"), Value::Null);
    it.apply("helm", of(json!({"nodeSelector": {}})));
}

#[test]
fn what_may_not_be_applied() {
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, "spec": spec});
    let start = "failed to create typed patch object (b/a; /v1, Kind=Pod): ";
    for (spec, why) in [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
        (json!({"priority": "1"}), ".spec.priority: expected numeric (int or float), got string"),
        (json!({"nodeName": 1}), ".spec.nodeName: expected string, got &value.valueUnstructured{Value:1}"),
        (json!({"hostNetwork": "yes"}), ".spec.hostNetwork: expected boolean, got &{yes}"),
        (json!({"containers": {}}), ".spec.containers: expected list, got &{map[]}"),
        (
            json!({"containers": [{"name": "a", "env": [{"name": "x", "value": 1}]}]}),
            ".spec.containers[name=\"a\"].env[name=\"x\"].value: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (json!({"containers": [{"image": "a"}, {"image": "b"}]}), ".spec.containers: duplicate entries for key [name=\"\"]"),
        (json!({"containers": [{"name": "a"}, {"name": "a"}]}), ".spec.containers: duplicate entries for key [name=\"a\"]"),
        (json!({"securityContext": []}), ".spec.securityContext: expected map, got &{[]}"),
        (json!({"foo": 1, "bar": 2}), "errors:\n  .spec.bar: field not declared in schema\n  .spec.foo: field not declared in schema"),
    ] {
        let status = check(&resource::POD, &pod(spec)).unwrap_err();
        assert_eq!((status.code, status.message), (500, format!("{start}{why}")));
    }
    let mut managed = pod(json!({}));
    managed["metadata"]["managedFields"] = json!([{}]);
    let status = check(&resource::POD, &managed).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "metadata.managedFields must be nil"));
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
    assert_eq!(check(&resource::POD, &other).unwrap_err().message, "invalid object type: apps/v1, Kind=Deployment");
    let fine = pod(
        json!({"priority": null, "containers": null, "volumes": [{"name": "v", "emptyDir": {"sizeLimit": 1}}], "nodeSelector": {"a": "b"}}),
    );
    check(&resource::POD, &fine).unwrap();
}

#[test]
fn client_side_apply_is_taken_over() {
    let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "annotations": {}}, "data": {"x": "1", "y": "1"}});
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let mut it = World::new(&resource::CONFIG_MAP);
    let mut object = last.clone();
    object["metadata"]["annotations"] = json!({annotation: last.to_string()});
    it.write("kubectl-client-side-apply", "", object);
    it.patch("kubectl-edit", "", &json!({"data": {"y": "2"}}));
    let wants = |x: &str, y: &str| json!({"metadata": {"name": "a"}, "data": {"x": x, "y": y}});
    // Another manager may not claim it; kubectl may, except fields that have changed since.
    assert_eq!(it.try_apply("me", wants("3", "2"), false).unwrap_err().code, 409);
    let conflict = it.try_apply("kubectl", wants("3", "3"), false).unwrap_err();
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.y");
    it.apply("kubectl", wants("3", "2"));
    assert_eq!(it.at("/data"), json!({"x": "3", "y": "2"}));
    let kept = it.at("/metadata/annotations");
    let expected = r#"{"apiVersion":"v1","data":{"x":"3","y":"2"},"kind":"ConfigMap","metadata":{"name":"a"}}"#;
    assert_eq!(kept[annotation], format!("{expected}\n"));
}

#[test]
fn a_part_is_applied_to_alone() {
    let mut it = World::new(&resource::DEPLOYMENT);
    it.write("a", "", deployment(1, "i"));
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default", "finalizers": ["x/y"]},
        "spec": {"replicas": 7}, "status": {"replicas": 3}});
    let (live, held) = apart(it.live.clone());
    let live = live.unwrap();
    let merged = apply(Some((&live, held.as_ref())), &applied, &it.writer("s", "status"), false).unwrap();
    assert_eq!((&merged["status"]["replicas"], &merged["spec"]["replicas"]), (&json!(3), &json!(1)));
    it.live = Some(merged);
    assert_eq!(it.managers()[0], ("Apply s status".to_owned(), json!({"f:status": {"f:replicas": {}}})));
    let merged = apply(Some((&live, held.as_ref())), &applied, &it.writer("s", ""), true).unwrap();
    assert_eq!((&merged["status"]["replicas"], &merged["spec"]["replicas"]), (&json!(1), &json!(7)));
}

/// Paths of the fields below `f:data`.
fn data_of(fields: &Value) -> BTreeSet<String> {
    let keys = fields["f:data"].as_object().into_iter().flatten().map(|(key, _)| key.clone());
    keys.filter_map(|it| it.strip_prefix("f:").map(str::to_owned)).collect()
}

/// A map of strings with its owners, by rules simple enough to explain.
#[derive(Debug, Default, PartialEq)]
struct Naive {
    data: BTreeMap<String, String>,
    owners: BTreeMap<String, BTreeSet<String>>,
}

impl Naive {
    fn disown(&mut self, key: &str) {
        for keys in self.owners.values_mut() {
            keys.remove(key);
        }
    }

    fn update(&mut self, who: &str, to: &BTreeMap<String, String>) {
        let writer = format!("Update {who}");
        let gone: Vec<String> = self.data.keys().filter(|it| !to.contains_key(*it)).cloned().collect();
        gone.iter().for_each(|key| self.disown(key));
        for (key, value) in to {
            if self.data.get(key) != Some(value) {
                self.disown(key);
                self.owners.entry(writer.clone()).or_default().insert(key.clone());
            }
        }
        self.data.clone_from(to);
        self.owners.retain(|_, it| !it.is_empty());
    }

    fn apply(&mut self, who: &str, wants: &BTreeMap<String, String>, force: bool) -> bool {
        let applier = format!("Apply {who}");
        let taken = |key: &String| self.owners.iter().any(|(owner, keys)| *owner != applier && keys.contains(key));
        let changed: Vec<String> =
            wants.iter().filter(|(key, value)| self.data.get(*key) != Some(value)).map(|(key, _)| key.clone()).collect();
        if !force && changed.iter().any(taken) {
            return false;
        }
        changed.iter().for_each(|key| self.disown(key));
        let before = self.owners.insert(applier, wants.keys().cloned().collect()).unwrap_or_default();
        self.data.extend(wants.clone());
        self.data.retain(|key, _| !before.contains(key) || self.owners.values().any(|it| it.contains(key)));
        self.owners.retain(|_, it| !it.is_empty());
        true
    }
}

#[derive(Clone, Debug)]
enum Step {
    Update(&'static str, BTreeMap<String, String>),
    Apply(&'static str, BTreeMap<String, String>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop::sample::select(vec!["a", "b", "c"]);
    let data = prop::collection::btree_map("[k-n]", "[0-2]", 0..4);
    (who, data, any::<bool>(), any::<bool>()).prop_map(
        |(who, data, applies, force)| {
            if applies { Step::Apply(who, data, force) } else { Step::Update(who, data) }
        },
    )
}

/// Containers that differ in a few fields, and some metadata.
fn workload() -> impl Strategy<Value = Value> {
    let container = (prop::option::of("[1-2]"), prop::option::of("[x-y]"), prop::collection::btree_set(80..82u16, 0..2));
    let containers = prop::collection::btree_map("[a-c]", container, 0..3);
    let labels = prop::collection::btree_map("[l-n]", "[0-1]", 0..3);
    let finalizers = prop::collection::btree_set("[a-b]/f", 0..2);
    (containers, labels, finalizers, prop::option::of(0..3u32), any::<bool>()).prop_map(
        |(containers, labels, finalizers, replicas, flip)| {
            let mut list: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, dir, ports))| {
                    let mut container = json!({ "name": name });
                    if let Some(image) = image {
                        container["image"] = image.into();
                    }
                    if let Some(dir) = dir {
                        container["workingDir"] = dir.into();
                    }
                    if !ports.is_empty() {
                        container["ports"] = ports.into_iter().map(|it| json!({"containerPort": it, "protocol": "TCP"})).collect();
                    }
                    container
                })
                .collect();
            if flip {
                list.reverse();
            }
            let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}});
            if !labels.is_empty() {
                object["metadata"]["labels"] = json!(labels);
            }
            if !finalizers.is_empty() {
                object["metadata"]["finalizers"] = json!(finalizers);
            }
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = replicas.into();
            }
            if !list.is_empty() {
                object["spec"]["template"]["spec"]["containers"] = list.into();
            }
            object
        },
    )
}

/// Whether an object has a value at a path of a set.
fn has(kind: &'static crate::object::schema::Type, object: &Value, path: &[&str]) -> bool {
    let present = Changes::between(kind, None, object).written;
    let mut node = present.nodes();
    for element in path {
        match super::super::fields::child(node, element) {
            Some(below) => node = below,
            None => return false,
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_map_and_its_owners_are_as_in_the_naive_model(steps in prop::collection::vec(step(), 1..12)) {
        let mut it = World::new(&resource::CONFIG_MAP);
        let mut naive = Naive::default();
        let start = BTreeMap::from([("k".to_owned(), "0".to_owned())]);
        let object = |data: &BTreeMap<String, String>| {
            let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
            if !data.is_empty() {
                object["data"] = json!(data);
            }
            object
        };
        it.write("a", "", object(&start));
        naive.update("a", &start);
        for step in steps {
            let bare = |(_, fields): &(String, Value)| fields["f:data"] == json!({});
            if it.managers().is_empty() || it.managers().iter().any(bare) {
                // Objects without owners are another case, and so is data of which only the existence is owned.
                break;
            }
            match step {
                Step::Update(who, data) => {
                    it.write(who, "", object(&data));
                    naive.update(who, &data);
                }
                Step::Apply(who, data, force) => {
                    let before = it.live.clone();
                    let applied = it.try_apply(who, object(&data), force).is_ok();
                    prop_assert_eq!(applied, naive.apply(who, &data, force), "{} applies {:?} to {:?}", who, data, before);
                }
            }
            let live: BTreeMap<String, String> = serde_json::from_value(it.at("/data")).unwrap_or_default();
            prop_assert_eq!(&live, &naive.data);
            let owners: BTreeMap<String, BTreeSet<String>> =
                it.managers().into_iter().map(|(who, fields)| (who, data_of(&fields))).filter(|(_, keys)| !keys.is_empty()).collect();
            prop_assert_eq!(&owners, &naive.owners);
        }
    }

    #[test]
    fn what_holds_of_every_apply(
        created in workload(),
        applies in prop::collection::vec((prop::sample::select(vec!["a", "b"]), workload(), any::<bool>()), 1..6),
    ) {
        let kind = versions::kind(&resource::DEPLOYMENT).unwrap();
        let sets = |it: &World| -> Vec<(String, Operation, Set)> {
            let (_, managers) = apart(it.live.clone());
            managers::stored(managers.as_ref())
                .into_iter()
                .map(|mut it| (it.manager.to_string(), it.operation, it.fields.set().clone()))
                .collect()
        };
        let mut it = World::new(&resource::DEPLOYMENT);
        it.write("creator", "", created);
        for (who, applied, force) in applies {
            let (before, entries) = (it.live.clone(), sets(&it));
            let is_own = |it: &(String, Operation, Set)| it.0 == who && it.1 == Operation::Apply;
            if it.try_apply(who, applied.clone(), force).is_err() {
                prop_assert!(!force);
                prop_assert_eq!(&it.live, &before);
                continue;
            }
            let mut live = it.live.clone().unwrap();
            take(&mut live);
            // The manager owns exactly the stated fields, and the object has them.
            let stated = extract::stated(kind, &applied);
            let own = sets(&it).into_iter().find(is_own).map(|it| it.2).unwrap_or_default();
            prop_assert_eq!(&own, &stated);
            for path in stated.paths() {
                prop_assert!(has(kind, &live, &path), "{:?} is missing in {}", path, live);
            }
            // Fields that it stated before and that no one owns now are gone, unless an owner has a field below.
            let mut dropped = entries.iter().find(|it| is_own(it)).map(|it| it.2.clone()).unwrap_or_default();
            sets(&it).iter().for_each(|it| dropped.subtract(&it.2));
            for path in dropped.paths() {
                let below = |it: &(String, Operation, Set)| it.2.paths().iter().any(|other| other.starts_with(&path));
                prop_assert!(!has(kind, &live, &path) || sets(&it).iter().any(below), "{:?} is still in {}", path, live);
            }
            // Changed fields have no other owner.
            let mut old = before.clone().unwrap();
            take(&mut old);
            let changes = Changes::between(kind, Some(&old), &live);
            for other in sets(&it).iter().filter(|it| !is_own(it)) {
                prop_assert!(other.2.intersection(&changes.written).is_empty());
                // The existence of an emptied container may still be owned.
                let lost = |path: &[&str]| changes.removed.paths().iter().any(|it| it.len() > path.len() && it.starts_with(path));
                let removed = other.2.intersection(&changes.removed);
                prop_assert!(removed.paths().iter().all(|it| lost(it)), "{:?}", removed);
            }
            // A second apply changes nothing.
            let once = it.live.clone();
            it.now = "2026-02-02T00:00:00Z";
            it.apply(who, applied);
            prop_assert_eq!(&it.live, &once);
            it.now = NOW;
        }
    }

    #[test]
    fn changes_lead_from_one_state_to_the_other(a in workload(), b in workload()) {
        let kind = versions::kind(&resource::DEPLOYMENT).unwrap();
        prop_assert_eq!(Changes::between(kind, Some(&a), &a), Changes::default());
        let (there, back) = (Changes::between(kind, Some(&a), &b), Changes::between(kind, Some(&b), &a));
        // A new field one way is a removed one the other way; a changed value is written both ways.
        let (mut changed, mut changed_back) = (there.written.clone(), back.written.clone());
        changed.subtract(&back.removed);
        changed_back.subtract(&there.removed);
        prop_assert_eq!(changed, changed_back);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The walk that writes text and the comparison give the same result, and text can be queried like a set.
    #[test]
    fn a_creators_fields_are_those_that_are_new(
        (version, object, other) in prop::sample::select(resource::ALL).prop_flat_map(|version| {
            let kind = versions::kind(version).unwrap();
            (Just(version), crate::codec::fitting::object(kind, 6), crate::codec::fitting::object(kind, 6))
        })
    ) {
        let kind = versions::kind(version).unwrap();
        let text = created::created(kind, &object, &[]);
        let set = Set::trusted(serde_json::from_str(&text).unwrap());
        prop_assert_eq!(&set, &Changes::between(kind, None, &object).written);
        prop_assert_eq!(&text, &set.clone().into_value().to_string(), "in order");
        let other = Changes::between(kind, None, &other).written;
        prop_assert_eq!(crate::codec::fields::touches(&text, &other), !set.intersection(&other).is_empty());
    }
}
