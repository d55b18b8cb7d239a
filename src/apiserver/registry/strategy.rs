//! What each kind adds to the generic writes: fields the server sets, fields it keeps, and when an object is finished with.

use serde_json::{Map, Value};

use super::super::auth::User;
use super::{certificates, json, namespaces, pods, services};
use crate::object::ResourceRef;
use crate::object::resource::{CERTIFICATE_SIGNING_REQUEST, PRIORITY_CLASS};
use crate::object::schema::{self, Shape};

/// Completes an object about to be created.
pub(crate) fn create(resource: ResourceRef, new: &mut Value) {
    // A node registers with its status; of everything else the status is its controller's.
    if resource.subresource("status").is_some() && resource.plural != "nodes" {
        *json::map(new, "status") = empty_status(resource);
    }
    match (resource.group, resource.plural) {
        ("", "pods") => pods::create(new),
        ("", "services") => services::complete(new, None),
        ("", "namespaces") => namespaces::create(new),
        ("", "secrets") => merge_string_data(new),
        ("", "persistentvolumeclaims") => drop(json::map(new, "status").insert("phase".to_owned(), "Pending".into())),
        ("", "persistentvolumes") => {
            let status = json::map(new, "status");
            status.insert("phase".to_owned(), "Pending".into());
            status.insert(LAST_TRANSITION.to_owned(), json::now().into());
        }
        ("apps", "daemonsets") => count_templates(new, 1),
        ("batch", "jobs") => {
            label_job(new);
            label_as_template(new);
        }
        _ => {}
    }
}

/// When the phase of a volume last became another.
const LAST_TRANSITION: &str = "lastPhaseTransitionTime";
/// On a DaemonSet: how many templates it has had.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn count_templates(set: &mut Value, count: i64) {
    json::entry_map(json::metadata(set), "annotations").insert(TEMPLATE_GENERATION.to_owned(), count.to_string().into());
}

/// A status that says nothing yet. Numbers that a status always has are 0: typed clients refuse one without them.
fn empty_status(resource: ResourceRef) -> Map<String, Value> {
    let Some(Shape::Object(name)) = schema::get(resource.schema).and_then(|it| it.field("status")).map(|it| &it.shape) else {
        return Map::new();
    };
    let fields = schema::get(name).into_iter().flat_map(|it| &it.fields);
    let counts = fields.filter(|it| it.required && matches!(it.shape, Shape::Int32 | Shape::Int64));
    counts.map(|it| (it.name.to_owned(), 0.into())).collect()
}

/// Completes an object about to replace `old`.
pub(crate) fn update(resource: ResourceRef, new: &mut Value, old: &Value) {
    match (resource.group, resource.plural) {
        ("", "pods") => pods::update(new, old),
        ("", "services") => services::complete(new, Some(old)),
        ("", "namespaces") => json::take_over(json::map(new, "spec"), old.get("spec"), "finalizers"),
        ("", "secrets") => merge_string_data(new),
        ("certificates.k8s.io", _) => certificates::keep_spec(new, old),
        ("batch", "jobs") => label_as_template(new),
        ("apps", "daemonsets") => {
            let before = old.get("metadata").and_then(|it| it.get("annotations")?.get(TEMPLATE_GENERATION)?.as_str()?.parse().ok());
            let another = new.pointer("/spec/template") != old.pointer("/spec/template");
            count_templates(new, before.unwrap_or(1) + i64::from(another));
        }
        _ => {}
    }
}

/// Writes into an object about to be created who creates it, where its kind says so.
pub(crate) fn sign(resource: ResourceRef, new: &mut Value, user: &User) {
    if resource == &CERTIFICATE_SIGNING_REQUEST {
        certificates::sign(new, user);
    }
}

/// Completes an object whose status is about to be replaced.
pub(crate) fn update_status(resource: ResourceRef, new: &mut Value, old: &Value) {
    match (resource.group, resource.plural) {
        ("", "pods") => pods::update_status(new, old),
        ("", "persistentvolumes") => {
            let (phase, at) = ("/status/phase", format!("/status/{LAST_TRANSITION}"));
            if new.pointer(phase) != old.pointer(phase) && new.pointer(&at) == old.pointer(&at) {
                json::map(new, "status").insert(LAST_TRANSITION.to_owned(), json::now().into());
            }
        }
        ("certificates.k8s.io", _) => certificates::stamp_conditions(new, old),
        _ => {}
    }
}

/// Whether `metadata.generation` counts the changes of this kind's objects.
pub(crate) fn counts_generations(resource: ResourceRef) -> bool {
    match resource.group {
        "" => matches!(resource.plural, "pods" | "replicationcontrollers"),
        "apps" => resource.plural != "controllerrevisions",
        "batch" | "policy" | "discovery.k8s.io" => true,
        "networking.k8s.io" => matches!(resource.plural, "ingresses" | "ingressclasses" | "networkpolicies"),
        "scheduling.k8s.io" => true,
        _ => false,
    }
}

/// One more generation if what the object asks for has changed.
pub(crate) fn bump_generation(resource: ResourceRef, new: &mut Value, old: &Value) {
    // A priority class has a generation, but nothing of it that would count.
    if !counts_generations(resource) || resource == &PRIORITY_CLASS {
        return;
    }
    let asked = |value: &Value| -> Vec<(String, Value)> {
        let top = value.as_object().into_iter().flatten();
        let mut parts: Vec<_> = top
            .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        parts
    };
    let annotations = |value: &Value| value.pointer("/metadata/annotations").cloned();
    let changed = asked(new) != asked(old) || resource.kind == "Deployment" && annotations(new) != annotations(old);
    if changed {
        let generation = json::integer(old, "/metadata/generation").unwrap_or_default();
        json::metadata(new).insert("generation".to_owned(), (generation + 1).into());
    }
}

/// Kinds whose controllers must say which version they change (or lose each other's changes) are not to be updated without one.
pub(crate) fn allows_unconditional_update(resource: ResourceRef) -> bool {
    !matches!(
        (resource.group, resource.plural),
        ("policy", "poddisruptionbudgets")
            | ("coordination.k8s.io", "leases")
            | ("apiextensions.k8s.io", _)
            | ("admissionregistration.k8s.io", _)
    )
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(crate) fn is_finished(resource: ResourceRef, value: &Value) -> bool {
    !json::text(value, "/metadata/deletionTimestamp").is_empty()
        && json::items(value, "/metadata/finalizers").is_empty()
        && json::integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or_default() == 0
        && (resource.plural != "namespaces" || json::items(value, "/spec/finalizers").is_empty())
}

/// `stringData` is for writing only: it goes into `data`.
fn merge_string_data(secret: &mut Value) {
    use base64::Engine;
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|it| it.remove("stringData")) else { return };
    let data = json::map(secret, "data");
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
    }
}

/// A job finds its pods by its uid, unless its author chose a selector.
fn label_job(job: &mut Value) {
    if job.pointer("/spec/manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let (uid, name) = (json::text(job, "/metadata/uid").to_owned(), json::text(job, "/metadata/name").to_owned());
    let spec = json::map(job, "spec");
    let selector = json::entry_map(json::entry_map(spec, "selector"), "matchLabels");
    json::set_default(selector, "batch.kubernetes.io/controller-uid", uid.clone());
    let labels: &mut Map<String, Value> = json::entry_map(json::entry_map(json::entry_map(spec, "template"), "metadata"), "labels");
    for (key, value) in [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        json::set_default(labels, key, value.clone());
    }
}

/// A job without labels has those of its pods.
fn label_as_template(job: &mut Value) {
    let labels = job.pointer("/spec/template/metadata/labels").filter(|it| it.as_object().is_some_and(|it| !it.is_empty()));
    let bare = job.pointer("/metadata/labels").and_then(Value::as_object).is_none_or(Map::is_empty);
    if let (true, Some(labels)) = (bare, labels.cloned()) {
        json::metadata(job).insert("labels".to_owned(), labels);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::{DAEMON_SET, DEPLOYMENT, JOB, NAMESPACE, PERSISTENT_VOLUME, POD, REPLICATION_CONTROLLER, SECRET};

    #[test]
    fn generations_count_changes_of_what_is_asked_for() {
        let old = json!({"metadata": {"generation": 3, "labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {}});
        for (edit, expected) in [
            (json!({"metadata": {"generation": 3, "labels": {}}, "spec": {"replicas": 1}, "status": {"x": 1}}), 3),
            (json!({"metadata": {"generation": 3}, "spec": {"replicas": 2}, "status": {}}), 4),
            (json!({"metadata": {"generation": 3, "annotations": {"a": "b"}}, "spec": {"replicas": 1}}), 4),
        ] {
            let mut new = edit;
            bump_generation(&DEPLOYMENT, &mut new, &old);
            assert_eq!(new["metadata"]["generation"], expected);
        }
    }

    #[test]
    fn a_new_status_has_the_numbers_that_every_status_has() {
        for (resource, expected) in [
            (&REPLICATION_CONTROLLER, json!({"replicas": 0})),
            (&DEPLOYMENT, json!({})),
            (&DAEMON_SET, json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0})),
        ] {
            let mut new = json!({"status": {"readyReplicas": 7}});
            create(resource, &mut new);
            assert_eq!(new["status"], expected);
        }
    }

    #[test]
    fn secrets_and_jobs() {
        let mut secret = json!({"data": {"a": "YQ=="}, "stringData": {"a": "b", "c": "d"}});
        create(&SECRET, &mut secret);
        assert_eq!(secret, json!({"data": {"a": "Yg==", "c": "ZA=="}}));
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        create(&JOB, &mut job);
        assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        assert_eq!(job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]);
        let mut labelled = json!({"metadata": {"name": "j", "uid": "u", "labels": {"a": "b"}}, "spec": {"template": {"spec": {}}}});
        create(&JOB, &mut labelled);
        assert_eq!(labelled["metadata"]["labels"], json!({"a": "b"}));
    }

    #[test]
    fn templates_of_daemon_sets_are_counted() {
        let set = |image: &str| json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [{"image": image}]}}}});
        let count = |set: &Value| set["metadata"]["annotations"][TEMPLATE_GENERATION].clone();
        let mut old = set("a");
        create(&DAEMON_SET, &mut old);
        assert_eq!(count(&old), "1");
        for (image, expected) in [("a", "1"), ("b", "2")] {
            let mut new = set(image);
            update(&DAEMON_SET, &mut new, &old);
            assert_eq!(count(&new), expected);
        }
    }

    #[test]
    fn a_volume_says_since_when_it_is_in_its_phase() {
        let mut old = json!({"metadata": {"name": "v"}});
        create(&PERSISTENT_VOLUME, &mut old);
        assert!(old["status"][LAST_TRANSITION].is_string());
        old["status"][LAST_TRANSITION] = "2020-01-01T00:00:00Z".into();
        for (phase, stays) in [("Pending", true), ("Bound", false)] {
            let mut new = old.clone();
            new["status"]["phase"] = phase.into();
            update_status(&PERSISTENT_VOLUME, &mut new, &old);
            assert_eq!(new["status"][LAST_TRANSITION] == old["status"][LAST_TRANSITION], stays, "{phase}");
        }
    }

    #[test]
    fn finished_objects() {
        let deleted = |finalizers: Value, grace: Value| json!({"metadata": {"deletionTimestamp": "t", "finalizers": finalizers, "deletionGracePeriodSeconds": grace}});
        assert!(is_finished(&POD, &deleted(json!([]), json!(0))));
        assert!(!is_finished(&POD, &deleted(json!(["a"]), json!(0))));
        assert!(!is_finished(&POD, &deleted(json!([]), json!(30))));
        assert!(!is_finished(&POD, &json!({"metadata": {}})));
        let mut namespace = deleted(json!([]), json!(0));
        namespace["spec"] = json!({"finalizers": ["kubernetes"]});
        assert!(!is_finished(&NAMESPACE, &namespace));
    }
}
