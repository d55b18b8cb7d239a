//! Forbidden changes, and odd but accepted values.

use serde_json::{Value, json};

use super::{complaints, pod, with};
use crate::codec::{validate_ephemeral, validate_version_update};
use crate::object::resource::{CSI_NODE, EVENT, EVENT_V1, JOB, NAMESPACE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET};

const NOTHING: [&str; 0] = [];

#[test]
fn what_kubernetes_takes_is_taken() {
    assert_eq!(complaints(&POD, &with(&pod(), "/spec/imagePullSecrets", json!([{}])), None), NOTHING);
    let template = |spec: Value, labels: Value| {
        json!({"metadata": {"name": "x"}, "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": labels}, "spec": spec}}})
    };
    let odd = json!({"containers": [{"name": "A_", "image": "", "ports": [{"containerPort": 0}], "volumeMounts": [{"name": "none"}]}],
        "ephemeralContainers": [{"name": "e"}]});
    assert_eq!(complaints(&STATEFUL_SET, &template(odd, json!({"a": "b"})), None), NOTHING);
    assert_eq!(complaints(&STATEFUL_SET, &template(json!({}), json!({"a": "b"})), None), NOTHING);
    let refused = complaints(&STATEFUL_SET, &template(json!({"restartPolicy": "Never"}), json!({"a": "b", "c": " "})), None);
    assert!(refused[0].starts_with("spec.template.labels: Invalid value: \" \": a valid label must"), "{refused:?}");
    assert_eq!(refused[1], "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"");
}

#[test]
fn a_volume_stays_where_it_is() {
    let volume = |key: &str, node: &str| {
        let terms = json!([{"matchExpressions": [{"key": key, "operator": "In", "values": [node]}]}]);
        json!({"metadata": {"name": "x"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": "/a"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}})
    };
    let old = volume("beta.kubernetes.io/os", "a");
    assert_eq!(complaints(&PERSISTENT_VOLUME, &old, Some(&old)), NOTHING);
    assert_eq!(complaints(&PERSISTENT_VOLUME, &volume("kubernetes.io/os", "a"), Some(&old)), NOTHING);
    let moved = complaints(&PERSISTENT_VOLUME, &volume("beta.kubernetes.io/os", "b"), Some(&old));
    assert!(moved[0].starts_with("nodeAffinity: Invalid value: "), "{moved:?}");
    assert!(moved[0].ends_with(": field is immutable, except for updating from beta label to GA"), "{moved:?}");
}

#[test]
fn a_claim_may_ask_for_another_size_only() {
    let class = "volume.beta.kubernetes.io/storage-class";
    let claim = |phase: &str| {
        json!({"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v",
            "resources": {"requests": {"storage": "3Gi"}, "limits": {"storage": "9Gi"}}},
            "status": {"phase": phase, "capacity": {"storage": "1Gi"}}})
    };
    let (bound, pending) = (claim("Bound"), with(&claim("Pending"), "/spec/volumeName", Value::Null));
    let immutable = "spec: Forbidden: spec is immutable after creation except";
    let less = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    for (old, pointer, value, expected) in [
        (&bound, "/spec/resources/requests/storage", json!("4Gi"), vec![]),
        (&bound, "/spec/resources/requests/storage", json!("2Gi"), vec![]),
        (&bound, "/spec/resources/requests/storage", json!("1Gi"), vec![less]),
        (&bound, "/spec/resources/limits/storage", json!("8Gi"), vec![immutable]),
        (&bound, "/spec/volumeName", json!("w"), vec![immutable]),
        (&bound, "/spec/volumeMode", json!("Block"), vec![immutable, "volumeMode: Invalid value: \"Block\": field is immutable"]),
        (&pending, "/spec/resources/requests/storage", json!("2Gi"), vec![immutable]),
        (&pending, "/spec/volumeName", json!("w"), vec![]),
        (&pending, "/spec/storageClassName", json!("fast"), vec![]),
        (
            &pending,
            "/metadata/annotations",
            json!({class: "fast"}),
            vec!["metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \"fast\": field is immutable"],
        ),
    ] {
        let found = complaints(&PERSISTENT_VOLUME_CLAIM, &with(old, pointer, value.clone()), Some(old));
        let same = found.len() == expected.len() && found.iter().zip(&expected).all(|(found, it)| found.starts_with(it));
        assert!(same, "{pointer} {value}: {found:?}");
    }
    // The class that an annotation names.
    let named = with(&pending, "/metadata/annotations", json!({class: "fast"}));
    let given = with(&with(&named, "/spec/storageClassName", json!("fast")), "/metadata/annotations", Value::Null);
    assert_eq!(complaints(&PERSISTENT_VOLUME_CLAIM, &given, Some(&named)), NOTHING);
    let other = complaints(&PERSISTENT_VOLUME_CLAIM, &with(&named, "/spec/storageClassName", json!("slow")), Some(&named));
    assert!(other.len() == 1 && other[0].starts_with(immutable), "{other:?}");
}

#[test]
fn what_no_label_can_be_is_not_asked_of_nodes() {
    let pod = |values: Value, preferred: Value| {
        let required = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": values}]}]});
        let term = json!({"matchExpressions": [{"key": "k", "operator": "In", "values": preferred}]});
        let preferred = json!([{"weight": 1, "preference": term}]);
        let node = json!({
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        });
        with(&super::pod(), "/spec/affinity", json!({"nodeAffinity": node}))
    };
    let (right, wrong) = (pod(json!(["a"]), json!(["a b"])), pod(json!(["a", "a b"]), json!(["a"])));
    assert_eq!(complaints(&POD, &right, None), NOTHING);
    let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let refused = complaints(&POD, &wrong, None);
    assert!(refused.len() == 1 && refused[0].starts_with(&format!("{path}.matchExpressions[0].values[1]: Invalid value: ")), "{refused:?}");
    // What has been there may stay.
    assert_eq!(complaints(&POD, &wrong, Some(&wrong)), NOTHING);
    let name = json!([{"key": "metadata.name", "operator": "In", "values": ["A_"]}]);
    let named =
        with(&right, "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields", name);
    let refused = complaints(&POD, &named, None);
    assert!(refused.len() == 1 && refused[0].starts_with(&format!("{path}.matchFields[0].values[0]: Invalid value: ")), "{refused:?}");
}

#[test]
fn mount_options_in_an_annotation() {
    let volume = |source: &str| {
        let annotations = json!({"volume.beta.kubernetes.io/mount-options": "ro"});
        json!({"metadata": {"name": "x", "annotations": annotations}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            source: {"server": "s", "path": "/a"}}})
    };
    assert_eq!(complaints(&PERSISTENT_VOLUME, &volume("nfs"), None), NOTHING);
    let why = "metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type";
    assert_eq!(complaints(&PERSISTENT_VOLUME, &volume("hostPath"), None), [why]);
}

#[test]
fn what_a_driver_says_of_a_node_stays() {
    let node = |drivers: Value| json!({"metadata": {"name": "n"}, "spec": {"drivers": drivers}});
    let driver = json!({"name": "a.b", "nodeID": "n", "topologyKeys": ["x"], "allocatable": {"count": 3}});
    let other = json!({"name": "c.d", "nodeID": "n"});
    let old = node(json!([driver]));
    for same in [json!([other, driver]), json!([other]), Value::Null] {
        assert_eq!(complaints(&CSI_NODE, &node(same), Some(&old)), NOTHING);
    }
    let shown = |keys: &str, allocatable: &str| {
        let allocatable = format!("Allocatable:(*storage.VolumeNodeResources)({allocatable})");
        format!(
            "spec.drivers: Invalid value: storage.CSINodeDriver{{Name:\"a.b\", NodeID:\"n\", TopologyKeys:{keys}, {allocatable}}}: field is immutable"
        )
    };
    for (key, value, complaint) in [
        ("topologyKeys", json!(["x", "y"]), shown(r#"[]string{"x", "y"}"#, "0xc000000000")),
        ("topologyKeys", Value::Null, shown("[]string(nil)", "0xc000000000")),
        ("allocatable", Value::Null, shown(r#"[]string{"x"}"#, "nil")),
        ("allocatable", json!({"count": 4}), shown(r#"[]string{"x"}"#, "0xc000000000")),
    ] {
        assert_eq!(complaints(&CSI_NODE, &node(json!([with(&driver, &format!("/{key}"), value)])), Some(&old)), [complaint]);
    }
    let nameless = with(&driver, "/nodeID", json!("m".repeat(257)));
    let too_long = format!("spec.drivers[0].nodeID: Invalid value: \"{}\": must be 256 characters or less", "m".repeat(257));
    assert_eq!(complaints(&CSI_NODE, &node(json!([nameless])), None), [too_long]);
    let renamed = with(&driver, "/name", json!("a".repeat(64)));
    assert_eq!(complaints(&CSI_NODE, &node(json!([renamed])), None), ["spec.drivers[0].name: Too long: may not be more than 63 bytes"]);
}

#[test]
fn a_suspended_job_may_go_elsewhere_but_not_with_others() {
    let job = |affinity: Value| {
        json!({"metadata": {"name": "x"}, "spec": {"suspend": true, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}], "affinity": affinity}}}})
    };
    let terms = json!([{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]);
    let nodes = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let old = with(&job(Value::Null), "/spec/template/spec/affinity", Value::Null);
    assert_eq!(complaints(&JOB, &job(json!({"nodeAffinity": nodes})), Some(&old)), NOTHING);
    let together = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}});
    assert!(complaints(&JOB, &job(together), Some(&old))[0].starts_with("spec.template: Invalid value"));
}

#[test]
fn an_event_of_the_newer_version_only_goes_on() {
    let event = |reason: &str, count: i64| json!({"metadata": {"name": "x"}, "reason": reason, "reportingComponent": reason, "series": {"count": count, "lastObservedTime": "2020-01-01T00:00:00.000000Z"}});
    assert_eq!(validate_version_update(&EVENT, &event("b", 2), &event("a", 2)), []);
    assert_eq!(validate_version_update(&EVENT_V1, &event("a", 3), &event("a", 2)), []);
    let told: Vec<String> = validate_version_update(&EVENT_V1, &event("b", 2), &event("a", 2))
        .iter()
        .map(|it| format!("{}: {}", it.field, it.message))
        .collect();
    let immutable = "Invalid value: \"b\": field is immutable";
    assert_eq!(told, [format!("reason: {immutable}"), format!("reportingController: {immutable}")]);
}

#[test]
fn a_namespace_is_terminating_once_it_is_deleted() {
    let namespace = |phase: &str, deleted: bool| {
        let mut namespace = json!({"metadata": {"name": "x"}, "status": {"phase": phase}});
        if deleted {
            namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        namespace
    };
    for (old, new, deleted, expected) in [
        ("Active", "Active", false, None),
        ("Active", "Terminating", true, None),
        (
            "Active",
            "Terminating",
            false,
            Some("status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"),
        ),
        (
            "Terminating",
            "Active",
            true,
            Some("status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty"),
        ),
    ] {
        let found = complaints(&NAMESPACE, &namespace(new, deleted), Some(&namespace(old, deleted)));
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{old} {new} {deleted}");
    }
    let finalized = |name: &str| json!({"metadata": {"name": "x"}, "spec": {"finalizers": [name]}});
    assert_eq!(complaints(&NAMESPACE, &finalized("kubernetes"), None), NOTHING);
    let why = "name is neither a standard finalizer name nor is it fully qualified";
    assert_eq!(complaints(&NAMESPACE, &finalized("foo"), None), [format!("spec.finalizers: Invalid value: \"foo\": {why}")]);
}

#[test]
fn labels_that_are_matched_by_name() {
    let spread =
        |term: Value| with(&pod(), "/spec/affinity", json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}));
    let path = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    let in_x = json!({"key": "x", "operator": "In", "values": ["1"]});
    for (term, expected) in [
        (json!({"topologyKey": "a", "matchLabelKeys": ["x"], "labelSelector": {"matchExpressions": [in_x]}}), None),
        (
            json!({"topologyKey": "a", "matchLabelKeys": ["x"], "labelSelector": {"matchLabels": {"x": "1"}, "matchExpressions": [in_x]}}),
            Some(format!("{path}[0]: Invalid value: \"x\": exists in both matchLabelKeys and labelSelector")),
        ),
        (
            json!({"topologyKey": "a", "matchLabelKeys": ["x"], "mismatchLabelKeys": ["x"], "labelSelector": {}}),
            Some(format!("{path}.matchLabelKeys[0]: Invalid value: \"x\": exists in both matchLabelKeys and mismatchLabelKeys")),
        ),
        (
            json!({"topologyKey": "a", "mismatchLabelKeys": ["x"]}),
            Some(format!("{path}.mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set")),
        ),
    ] {
        assert_eq!(complaints(&POD, &spread(term.clone()), None), expected.into_iter().collect::<Vec<_>>(), "{term}");
    }
    let constraint = |more: Value| {
        let mut constraint = json!({"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway"});
        constraint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(&pod(), "/spec/topologySpreadConstraints", json!([constraint]))
    };
    let path = "spec.topologySpreadConstraints[0]";
    for (more, expected) in [
        (
            json!({"matchLabelKeys": ["x"]}),
            format!("{path}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"),
        ),
        (
            json!({"matchLabelKeys": ["x"], "labelSelector": {"matchLabels": {"x": "1"}}}),
            format!("{path}.matchLabelKeys[0]: Invalid value: \"x\": exists in both matchLabelKeys and labelSelector"),
        ),
        (
            json!({"minDomains": 1}),
            format!("{path}.minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"),
        ),
    ] {
        assert_eq!(complaints(&POD, &constraint(more), None), [expected]);
    }
}

#[test]
fn a_debugger_looks_at_a_container_that_is_there() {
    let debugged =
        |target: &str| with(&pod(), "/spec/ephemeralContainers", json!([{"name": "e", "image": "i", "targetContainerName": target}]));
    let mut complete = [pod(), debugged("c"), debugged("none")];
    complete.iter_mut().for_each(|it| crate::codec::default(&POD, it));
    let [old, right, wrong] = complete;
    assert_eq!(validate_ephemeral(&right, &old), []);
    let told: Vec<_> = validate_ephemeral(&wrong, &old).iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
    assert_eq!(told, ["spec.ephemeralContainers[0].targetContainerName: Not found: \"none\""]);
}

#[test]
fn what_a_pod_shares_with_its_host() {
    let of = |fields: Value| {
        let mut pod = pod();
        pod["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        pod
    };
    let unmasked = with(&pod(), "/spec/containers/0/securityContext", json!({"procMount": "Unmasked"}));
    let resized = |policies: Value| with(&pod(), "/spec/containers/0/resizePolicy", policies);
    let policy = |restart: &str| json!({"resourceName": "cpu", "restartPolicy": restart});
    for (pod, expected) in [
        (of(json!({"hostUsers": false})), vec![]),
        (of(json!({"hostUsers": false, "hostNetwork": true})), vec!["spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false"]),
        (
            of(json!({"shareProcessNamespace": true, "hostPID": true})),
            vec![
                "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
            ],
        ),
        (
            of(json!({"hostIPC": true, "securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced"}, {"name": "net.x"}]}})),
            vec![
                "spec.securityContext.sysctls[0].name: Invalid value: \"kernel.shm_rmid_forced\": may not be specified when 'hostIPC' is true",
            ],
        ),
        (
            of(json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}})),
            vec!["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
        ),
        (
            of(json!({"nodeName": "n", "schedulingGates": [{"name": "a/b"}]})),
            vec!["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
        (with(&unmasked, "/spec/hostUsers", json!(false)), vec![]),
        (
            unmasked,
            vec!["spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"],
        ),
        (resized(json!([policy("NotRequired"), policy("NotRequired")])), vec!["spec.containers[0].resizePolicy[1]: Duplicate value: cpu"]),
        (
            with(&resized(json!([policy("RestartContainer")])), "/spec/restartPolicy", json!("Never")),
            vec![
                "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'",
            ],
        ),
    ] {
        assert_eq!(complaints(&POD, &pod, None), expected, "{pod}");
    }
}

#[test]
fn indexes_of_jobs() {
    let job = |fields: Value| {
        let mut job = json!({"metadata": {"name": "x"}, "spec": {"completionMode": "Indexed", "completions": 3, "template": {
            "metadata": {"labels": {}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        job["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        job
    };
    let ends = |rule: Value| job(json!({"successPolicy": {"rules": [rule]}}));
    let path = "spec.successPolicy.rules[0]";
    let long = "a".repeat(60);
    for (job, expected) in [
        (ends(json!({"succeededIndexes": "0,1-2", "succeededCount": 3})), None),
        (
            ends(json!({"succeededIndexes": "x"})),
            Some(format!(
                "{path}.succeededIndexes: Invalid value: \"x\": error parsing succeededIndexes: cannot convert string to integer for index: \"x\""
            )),
        ),
        (
            ends(json!({"succeededIndexes": "2,1"})),
            Some(format!(
                "{path}.succeededIndexes: Invalid value: \"2,1\": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1"
            )),
        ),
        (
            ends(json!({"succeededIndexes": "0-5"})),
            Some(format!("{path}.succeededIndexes: Invalid value: \"0-5\": error parsing succeededIndexes: too large index: \"5\"")),
        ),
        (
            ends(json!({"succeededIndexes": "0-1", "succeededCount": 3})),
            Some(format!(
                "{path}.succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified \
                 succeededIndexes field)"
            )),
        ),
        (
            job(json!({"completions": 200_000, "parallelism": 1, "backoffLimitPerIndex": 1})),
            Some("spec.maxFailedIndexes: Required value: must be specified when completions is above 100000".to_owned()),
        ),
        (
            with(&job(json!({"completions": 100_000, "parallelism": 1})), "/metadata/name", long.clone().into()),
            Some(format!("metadata.name: Invalid value: \"{long}\": will not able to create pod with invalid DNS label: {long}-99999")),
        ),
    ] {
        assert_eq!(complaints(&JOB, &job, None), expected.into_iter().collect::<Vec<_>>(), "{job}");
    }
}
