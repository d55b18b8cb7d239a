//! The specifics of each kind in generic writes: one row for each kind that has any. They are about fields that the server sets or keeps, and
//! about when a deleted object is finished.

use serde_json::{Map, Value};

use super::super::auth::User;
use super::{certificates, json, namespaces, pods, services, volume_claims};
use crate::codec;
use crate::object::ResourceRef;
use crate::object::resource::{
    CERTIFICATE_SIGNING_REQUEST, DAEMON_SET, DEPLOYMENT, ENDPOINT_SLICE, EVENT, JOB, NAMESPACE, NODE, PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM, POD, PRIORITY_CLASS, REPLICATION_CONTROLLER, SERVICE, SERVICE_CIDR, VOLUME_ATTACHMENT,
};

/// What is particular to writes of one kind.
struct Strategy {
    /// Records the author of a new object, as the client sent it.
    sign: fn(new: &mut Value, author: &User),
    /// Completes an object about to be created.
    create: fn(new: &mut Value, creation: &mut Creation),
    /// Whether a new object has the status that its author gives it; of other kinds, the status is the controller's.
    states_status: bool,
    /// Completes an object about to replace another.
    update: fn(new: &mut Value, old: &Value),
    /// Counts the change of an object whose kind counts generations.
    count: fn(new: &mut Value, old: &Value),
    /// Completes an object whose status is about to be replaced.
    update_status: fn(new: &mut Value, old: &Value),
    /// Dates changes in a status about to be replaced. No manager owns these dates.
    date_status: fn(new: &mut Value, old: &Value),
    /// The metadata that a status write may change.
    described_by_status: &'static [&'static str],
    /// Lists that keep a deleted object as long as they are not empty.
    held_by: &'static [&'static str],
    /// Whether a deleted object has a time to end by itself.
    has_grace: bool,
    /// Whether a deletion leaves dependents without an owner if it says nothing of them, as before there was a choice.
    orphans: bool,
    /// Whether there may be dependents.
    owns: bool,
}

/// What is known of a creation besides the object.
struct Creation {
    /// The author gave the object no labels.
    is_unlabelled: bool,
    warnings: Vec<String>,
}

/// The metadata that its author chooses, beyond the name.
pub(crate) const DESCRIPTION: &[&str] = &["labels", "annotations", "finalizers", "ownerReferences"];

/// Kinds without a row.
const USUAL: Strategy = Strategy {
    sign: |_, _| {},
    create: |_, _| {},
    states_status: false,
    update: |_, _| {},
    count: |new, old| count_changes(new, old, None),
    update_status: |_, _| {},
    date_status: |_, _| {},
    described_by_status: DESCRIPTION,
    held_by: &["/metadata/finalizers"],
    has_grace: false,
    orphans: false,
    owns: true,
};

static SPECIAL: [(ResourceRef, Strategy); 16] = [
    (
        &POD,
        Strategy {
            create: |new, creation| creation.warnings = pods::create(new),
            update: pods::update,
            update_status: pods::update_status,
            described_by_status: &["labels", "annotations", "finalizers"],
            // Its containers are stopped, and the executor deletes it afterwards.
            has_grace: true,
            ..USUAL
        },
    ),
    (&REPLICATION_CONTROLLER, Strategy { orphans: true, ..USUAL }),
    (&EVENT, Strategy { owns: false, ..USUAL }),
    (&SERVICE, Strategy { create: |new, _| services::complete(new, None), update: |new, old| services::complete(new, Some(old)), ..USUAL }),
    // A node registers with its status.
    (&NODE, Strategy { states_status: true, ..USUAL }),
    (
        &NAMESPACE,
        Strategy {
            create: |new, _| namespaces::create(new),
            update: namespaces::keep_finalizers,
            held_by: &["/metadata/finalizers", "/spec/finalizers"],
            ..USUAL
        },
    ),
    (&PERSISTENT_VOLUME, Strategy { create: |new, _| begin_phase(new), date_status: date_phase, ..USUAL }),
    (
        &PERSISTENT_VOLUME_CLAIM,
        Strategy { create: |new, _| volume_claims::create(new), update: |new, old| volume_claims::settle_source(new, Some(old)), ..USUAL },
    ),
    (&JOB, Strategy { create: |new, creation| label_job(new, creation.is_unlabelled), orphans: true, ..USUAL }),
    (
        &DEPLOYMENT,
        Strategy {
            count: |new, old| count_changes(new, old, Some("annotations")),
            described_by_status: &["annotations", "finalizers", "ownerReferences"],
            ..USUAL
        },
    ),
    (
        &DAEMON_SET,
        Strategy {
            count: |new, old| {
                count_templates(new, old);
                count_changes(new, old, None);
            },
            ..USUAL
        },
    ),
    (&ENDPOINT_SLICE, Strategy { count: |new, old| count_changes(new, old, Some("labels")), ..USUAL }),
    // It has a generation, but no field that increments it.
    (&PRIORITY_CLASS, Strategy { count: |_, _| {}, ..USUAL }),
    (&SERVICE_CIDR, Strategy { described_by_status: &[], ..USUAL }),
    (&VOLUME_ATTACHMENT, Strategy { described_by_status: &[], ..USUAL }),
    (
        &CERTIFICATE_SIGNING_REQUEST,
        Strategy { sign: certificates::sign, update: certificates::keep_spec, date_status: certificates::stamp_conditions, ..USUAL },
    ),
];

fn of(resource: ResourceRef) -> &'static Strategy {
    static OTHER: Strategy = USUAL;
    SPECIAL.iter().find(|it| it.0 == resource).map_or(&OTHER, |it| &it.1)
}

pub(crate) fn sign(resource: ResourceRef, new: &mut Value, author: &User) {
    (of(resource).sign)(new, author);
}

/// Completes an object about to be created; returns warnings.
pub(crate) fn create(resource: ResourceRef, new: &mut Value, is_unlabelled: bool) -> Vec<String> {
    let strategy = of(resource);
    if resource.subresource("status").is_some() && !strategy.states_status {
        *json::map(new, "status") = Map::new();
    }
    let mut creation = Creation { is_unlabelled, warnings: Vec::new() };
    (strategy.create)(new, &mut creation);
    creation.warnings
}

pub(crate) fn update(resource: ResourceRef, new: &mut Value, old: &Value) {
    (of(resource).update)(new, old);
}

pub(crate) fn update_status(resource: ResourceRef, new: &mut Value, old: &Value) {
    (of(resource).update_status)(new, old);
}

pub(crate) fn date_status(resource: ResourceRef, new: &mut Value, old: &Value) {
    (of(resource).date_status)(new, old);
}

pub(crate) fn described_by_status(resource: ResourceRef) -> &'static [&'static str] {
    of(resource).described_by_status
}

/// Increments the generation if the completed specification has changed.
pub(crate) fn bump_generation(resource: ResourceRef, new: &mut Value, old: &Value) {
    if resource.counts_generations {
        (of(resource).count)(new, old);
    }
}

pub(crate) fn has_grace(resource: ResourceRef) -> bool {
    of(resource).has_grace
}

/// Whether a deletion that says nothing of dependents leaves them without an owner.
pub(crate) fn orphans(resource: ResourceRef) -> bool {
    of(resource).orphans
}

/// Whether objects of this kind may have dependents.
pub(crate) fn owns(resource: ResourceRef) -> bool {
    of(resource).owns
}

/// Whether an object that is being deleted can be removed.
pub(crate) fn is_finished(resource: ResourceRef, value: &Value) -> bool {
    !json::text(value, "/metadata/deletionTimestamp").is_empty()
        && json::integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or_default() == 0
        && of(resource).held_by.iter().all(|it| json::items(value, it).is_empty())
}

/// Increments the generation if anything but the metadata and the status has changed, or this part of the metadata.
fn count_changes(new: &mut Value, old: &Value, described: Option<&str>) {
    fn asked(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
        value.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
    }
    let is_same = asked(new).count() == asked(old).count() && asked(new).all(|(key, value)| old.get(key) == Some(value));
    let has_same = |field: &str| new.get("metadata").map(|it| it.get(field)) == old.get("metadata").map(|it| it.get(field));
    if !(is_same && described.is_none_or(has_same)) {
        let generation = json::integer(old, "/metadata/generation").unwrap_or_default();
        json::metadata(new).insert("generation".to_owned(), generation.saturating_add(1).into());
    }
}

/// When the phase of a volume last became another.
const LAST_TRANSITION: &str = "lastPhaseTransitionTime";

fn begin_phase(volume: &mut Value) {
    let status = json::map(volume, "status");
    status.insert("phase".to_owned(), "Pending".into());
    status.insert(LAST_TRANSITION.to_owned(), json::now().into());
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
