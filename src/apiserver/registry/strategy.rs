//! The specifics of each kind in generic writes: fields that the server sets or keeps, and when a deleted object is finished.

use serde_json::{Map, Value};

use super::super::auth::User;
use super::{certificates, json, namespaces, pods, services, volume_claims};
use crate::codec;
use crate::object::ResourceRef;
use crate::object::resource::{CERTIFICATE_SIGNING_REQUEST, DAEMON_SET, POD, PRIORITY_CLASS};

/// Completes an object about to be created; returns warnings. `unlabelled`: its author gave it no labels.
pub(crate) fn create(resource: ResourceRef, new: &mut Value, unlabelled: bool) -> Vec<String> {
    // A node registers with its status; of everything else the status is its controller's.
    if resource.subresource("status").is_some() && resource.plural != "nodes" {
        *json::map(new, "status") = Map::new();
    }
    match (resource.group, resource.plural) {
        ("", "pods") => return pods::create(new),
        ("", "services") => services::complete(new, None),
        ("", "namespaces") => namespaces::create(new),
        ("", "persistentvolumes") => {
            let status = json::map(new, "status");
            status.insert("phase".to_owned(), "Pending".into());
            status.insert(LAST_TRANSITION.to_owned(), json::now().into());
        }
        ("", "persistentvolumeclaims") => {
            json::map(new, "status").insert("phase".to_owned(), "Pending".into());
            volume_claims::settle_source(new, None);
        }
        ("batch", "jobs") => label_job(new, unlabelled),
        _ => {}
    }
    Vec::new()
}

/// When the phase of a volume last became another.
const LAST_TRANSITION: &str = "lastPhaseTransitionTime";

/// Completes an object about to replace `old`.
pub(crate) fn update(resource: ResourceRef, new: &mut Value, old: &Value) {
    match (resource.group, resource.plural) {
        ("", "pods") => pods::update(new, old),
        ("", "services") => services::complete(new, Some(old)),
        ("", "namespaces") => json::take_over(json::map(new, "spec"), old.get("spec"), "finalizers"),
        ("", "persistentvolumeclaims") => volume_claims::settle_source(new, Some(old)),
        ("certificates.k8s.io", _) => certificates::keep_spec(new, old),
        _ => {}
    }
}

/// Records the creator in an object about to be created, for kinds that do so.
pub(crate) fn sign(resource: ResourceRef, new: &mut Value, user: &User) {
    if resource == &CERTIFICATE_SIGNING_REQUEST {
        certificates::sign(new, user);
    }
}

/// Completes an object whose status is about to be replaced.
pub(crate) fn update_status(resource: ResourceRef, new: &mut Value, old: &Value) {
    if resource == &POD {
        pods::update_status(new, old);
    }
}

/// Dates changes in a status about to be replaced. No manager owns these dates.
pub(crate) fn date_status(resource: ResourceRef, new: &mut Value, old: &Value) {
    match (resource.group, resource.plural) {
        ("", "persistentvolumes") => date_phase(new, old),
        ("certificates.k8s.io", _) => certificates::stamp_conditions(new, old),
        _ => {}
    }
}

/// Increments the generation if the completed specification has changed.
pub(crate) fn bump_generation(resource: ResourceRef, new: &mut Value, old: &Value) {
    if resource == &DAEMON_SET {
        count_templates(new, old);
    }
    // A priority class has a generation, but no field that increments it.
    if !resource.counts_generations || resource == &PRIORITY_CLASS {
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
    let labels = |value: &Value| value.pointer("/metadata/labels").cloned();
    let changed = asked(new) != asked(old)
        || resource.kind == "Deployment" && annotations(new) != annotations(old)
        || resource.kind == "EndpointSlice" && labels(new) != labels(old);
    if changed {
        let generation = json::integer(old, "/metadata/generation").unwrap_or_default();
        json::metadata(new).insert("generation".to_owned(), (generation + 1).into());
    }
}

/// The metadata that its author chooses, beyond the name.
pub(crate) const DESCRIPTION: &[&str] = &["labels", "annotations", "finalizers", "ownerReferences"];

/// The metadata that a status write may change.
pub(crate) fn described_by_status(resource: ResourceRef) -> &'static [&'static str] {
    match (resource.group, resource.plural) {
        ("", "pods") => &["labels", "annotations", "finalizers"],
        ("apps", "deployments") => &["annotations", "finalizers", "ownerReferences"],
        ("networking.k8s.io", "servicecidrs") | ("storage.k8s.io", "volumeattachments") => &[],
        _ => DESCRIPTION,
    }
}

/// Whether an object that is being deleted can be removed.
pub(crate) fn is_finished(resource: ResourceRef, value: &Value) -> bool {
    !json::text(value, "/metadata/deletionTimestamp").is_empty()
        && json::items(value, "/metadata/finalizers").is_empty()
        && json::integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or_default() == 0
        && (resource.plural != "namespaces" || json::items(value, "/spec/finalizers").is_empty())
}

/// A daemon set's author cannot choose how often its template has changed.
fn count_templates(new: &mut Value, old: &Value) {
    let before = old.pointer("/metadata/annotations").and_then(|it| it.get(codec::TEMPLATE_GENERATION)?.as_str()?.parse::<i64>().ok());
    let before = before.unwrap_or(1);
    let changed = new.pointer("/spec/template") != old.pointer("/spec/template");
    let count = before.saturating_add(i64::from(changed));
    json::entry_map(json::metadata(new), "annotations").insert(codec::TEMPLATE_GENERATION.to_owned(), count.to_string().into());
}

/// Dates the phase of a volume, unless the writer does.
fn date_phase(new: &mut Value, old: &Value) {
    let (before, after) = (old.get("status"), json::map(new, "status"));
    let (then, since) = (before.and_then(|it| it.get(LAST_TRANSITION)), after.get(LAST_TRANSITION).filter(|it| !it.is_null()));
    let same_phase = after.get("phase") == before.and_then(|it| it.get("phase"));
    if same_phase && since.is_none() {
        json::take_over(after, before, LAST_TRANSITION);
    } else if !same_phase && (since.is_none() || since == then) {
        after.insert(LAST_TRANSITION.to_owned(), json::now().into());
    }
}

/// A job selects its pods by its uid, unless its author chose a selector. A job without labels gets those of its pods.
fn label_job(job: &mut Value, unlabelled: bool) {
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
    let labels = labels.clone();
    if unlabelled {
        json::metadata(job).insert("labels".to_owned(), labels.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::{DEPLOYMENT, JOB, NAMESPACE, PERSISTENT_VOLUME};

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
    fn jobs_are_labelled() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        create(&JOB, &mut job, true);
        assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        assert_eq!(job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]);
        // Labels that are the template's stay so.
        let template = json!({"metadata": {"labels": {"a": "b"}}});
        for unlabelled in [true, false] {
            let mut job = json!({"metadata": {"name": "j", "labels": {"a": "b"}}, "spec": {"template": template}});
            create(&JOB, &mut job, unlabelled);
            assert_eq!(job["metadata"]["labels"].get("job-name").is_some(), unlabelled);
        }
    }

    #[test]
    fn templates_of_daemon_sets_are_counted() {
        let old = json!({"metadata": {"annotations": {codec::TEMPLATE_GENERATION: "3"}}, "spec": {"template": {"a": 1}}});
        for (template, count) in [(1, "3"), (2, "4")] {
            let mut new = json!({"metadata": {"annotations": {codec::TEMPLATE_GENERATION: "9"}}, "spec": {"template": {"a": template}}});
            bump_generation(&DAEMON_SET, &mut new, &old);
            assert_eq!(new["metadata"]["annotations"][codec::TEMPLATE_GENERATION], count);
        }
    }

    #[test]
    fn phases_of_volumes_are_dated() {
        let mut volume = json!({"metadata": {"name": "v"}});
        create(&PERSISTENT_VOLUME, &mut volume, true);
        assert!(volume["status"][LAST_TRANSITION].is_string());
        let old = json!({"status": {"phase": "Available", "lastPhaseTransitionTime": "then"}});
        for (status, since) in [
            (json!({"phase": "Available"}), Some("then")),
            (json!({"phase": "Available", "lastPhaseTransitionTime": "mine"}), Some("mine")),
            (json!({"phase": "Bound", "lastPhaseTransitionTime": "mine"}), Some("mine")),
            (json!({"phase": "Bound", "lastPhaseTransitionTime": "then"}), None),
            (json!({"phase": "Bound"}), None),
        ] {
            let mut new = json!({ "status": status });
            date_status(&PERSISTENT_VOLUME, &mut new, &old);
            let found = new["status"]["lastPhaseTransitionTime"].as_str().unwrap();
            assert!(since.map_or(found.starts_with("20"), |it| it == found), "{new}");
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
