//! Warnings.

use serde_json::{Value, json};

use super::warnings;
use crate::object::ResourceRef;
use crate::object::resource::{
    CONFIG_MAP, CRON_JOB, DEPLOYMENT, ENDPOINT_SLICE, INGRESS, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, SECRET, SERVICE,
    STATEFUL_SET, STORAGE_CLASS,
};

fn of(resource: ResourceRef, object: Value) -> Vec<String> {
    warnings(resource, &object, None)
}

#[test]
fn a_plain_pod_gives_no_cause() {
    assert!(of(&POD, json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "i"}]}})).is_empty());
}

#[test]
fn pods() {
    let container = json!({"name": "a", "image": "i",
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}],
        "ports": [
            {"containerPort": 80, "protocol": "TCP", "name": "web"},
            {"containerPort": 80, "protocol": "TCP"},
            {"containerPort": 80, "protocol": "TCP", "hostPort": 8080, "name": "web"},
            {"containerPort": 80, "protocol": "UDP"}],
        "resources": {"limits": {"memory": "100m", "cpu": "500m"}, "requests": {"memory": "1"}}});
    let pod = json!({
        "metadata": {"name": "a.b", "annotations": {"scheduler.alpha.kubernetes.io/critical-pod": "", "container.apparmor.security.beta.kubernetes.io/a": "x"}},
        "spec": {
            "containers": [container],
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "beta.kubernetes.io/arch"}]}]}},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "x"}}]}},
            "topologySpreadConstraints": [{"topologyKey": "zone"}],
            "volumes": [{"name": "v", "gitRepo": {}}, {"name": "w", "glusterfs": {}}],
            "hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}],
            "imagePullSecrets": [{"name": "s"}, {"name": "s"}],
            "terminationGracePeriodSeconds": -1}});
    let name = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended";
    assert_eq!(
        of(&POD, pod.clone()),
        [
            &format!("{name}: [must not contain dots]"),
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: \
             beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.volumes[1].glusterfs: deprecated in v1.25, non-functional in v1.26+",
            "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
            "spec.imagePullSecrets[1].name: duplicate name \"s\"",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]",
            "spec.containers[0].ports[2]: duplicate port name \"web\" with spec.containers[0].ports[0], services and probes that select \
             ports by name will use spec.containers[0].ports[0]",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null \
             labelSelector results in matching no pod",
        ]
    );
    assert!(warnings(&POD, &pod, Some(&pod)).is_empty(), "nobody reads what an update of a pod gives cause to");
}

#[test]
fn what_containers_of_a_pod_have_in_common() {
    let container = json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"}],
        "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}]});
    let other = json!({"name": "d", "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP", "hostPort": 80}]});
    let claim = json!({"resources": {"limits": {"storage": "1500m"}}});
    let pod = json!({"metadata": {"name": "p", "annotations": {"seccomp.security.alpha.kubernetes.io/pod": "x"}}, "spec": {
        "volumes": [{"name": "w", "storageos": {}}, {"name": "x", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}],
        "imagePullSecrets": [{}],
        "containers": [container, other]}});
    assert_eq!(
        of(&POD, pod),
        [
            "spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+",
            "spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources.limits[storage]: fractional byte value \"1500m\" is invalid, must \
             be an integer",
            "spec.imagePullSecrets[0].name: invalid empty name \"\"",
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: duplicate port name \"web\" with spec.containers[0].ports[0], services and probes that select ports \
             by name will use spec.containers[0].ports[0]",
        ]
    );
}

#[test]
fn zones_of_schedules_are_told_of_when_they_stay() {
    let job = json!({"metadata": {"name": "c"}, "spec": {"schedule": "TZ=UTC 0 0 * * *"}});
    assert!(of(&CRON_JOB, job.clone()).is_empty());
    assert_eq!(
        warnings(&CRON_JOB, &job, Some(&job)),
        ["cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"]
    );
}

#[test]
fn templates_are_looked_at_when_they_change() {
    let deployment = |generation: i64| {
        let template = json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "x"}}, "spec": {
            "containers": [{"name": "a", "image": "i"}], "nodeSelector": {"node-role.kubernetes.io/master": ""}}});
        json!({"metadata": {"name": "web", "generation": generation}, "spec": {"template": template}})
    };
    let expected = [
        "spec.template.spec.nodeSelector[node-role.kubernetes.io/master]: use \"node-role.kubernetes.io/control-plane\" instead",
        "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; use the \
         \"appArmorProfile\" field instead",
    ];
    assert_eq!(of(&DEPLOYMENT, deployment(1)), expected);
    assert_eq!(warnings(&DEPLOYMENT, &deployment(2), Some(&deployment(1))), expected);
    assert!(warnings(&DEPLOYMENT, &deployment(1), Some(&deployment(1))).is_empty());
    let job = json!({"metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": -1}}}}}});
    assert_eq!(
        of(&CRON_JOB, job),
        [
            "spec.jobTemplate.spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ]
    );
}

#[test]
fn files_of_a_volume_do_not_overlap() {
    let items = |paths: &[&str]| -> Vec<Value> { paths.iter().map(|it| json!({"key": "k", "path": it})).collect() };
    for (source, expected) in [
        (
            json!({"secret": {"secretName": "x", "items": items(&["p", "q", "p/"])}}),
            vec!["v\" (Secret \"x\"): overlapping paths: \"p\" with \"p\""],
        ),
        (
            json!({"configMap": {"name": "x", "items": items(&["p/q", "pq", "p"])}}),
            vec!["v\" (ConfigMap \"x\"): overlapping paths: \"p\" with \"p/q\""],
        ),
        (json!({"downwardAPI": {"items": items(&["p", "p"])}}), vec!["v\" (DownwardAPI): overlapping paths: \"p\" with \"p\""]),
        (json!({"configMap": {"name": "x"}}), vec![]),
        (
            json!({"projected": {"sources": [
                {"secret": {"name": "x", "items": items(&["t"])}},
                {"serviceAccountToken": {"path": "t"}},
                {"clusterTrustBundle": {"signerName": "s", "path": "t/b"}},
                {"configMap": {"name": "y"}},
            ]}}),
            vec![
                "v\" (Projected): overlapping paths: \"t\" (ServiceAccountToken) with \"t\" (Secret \"x\")",
                "v\" (Projected): overlapping paths: \"t/b\" (ClusterTrustBundle \"s\") with \"t\" (Secret \"x\")",
                "v\" (Projected): overlapping paths: \"t/b\" (ClusterTrustBundle \"s\") with \"t\" (ServiceAccountToken)",
            ],
        ),
    ] {
        let mut volume = source;
        volume["name"] = "v".into();
        let expected: Vec<_> = expected.iter().map(|it| format!("volume \"{it}")).collect();
        assert_eq!(of(&POD, json!({"metadata": {"name": "p"}, "spec": {"volumes": [volume]}})), expected);
    }
}

#[test]
fn what_no_label_can_be_is_not_preferred() {
    let term = json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["a", "a b"]}]});
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]}});
    let found = of(&POD, json!({"metadata": {"name": "p"}, "spec": {"affinity": affinity}}));
    let path = "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[1]";
    assert!(found.len() == 1 && found[0].starts_with(&format!("{path}: a b is invalid, a valid label must be")), "{found:?}");
}

#[test]
fn other_kinds() {
    let class = json!({"volume.beta.kubernetes.io/storage-class": "x"});
    let old_class =
        "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead";
    for (resource, object, expected) in [
        (
            &SERVICE,
            json!({"spec": {"type": "ClusterIP", "externalName": "x"}}),
            vec!["spec.externalName is ignored when spec.type is not \"ExternalName\""],
        ),
        (
            &PERSISTENT_VOLUME,
            json!({"metadata": {"annotations": class}, "spec": {"persistentVolumeReclaimPolicy": "Recycle", "storageos": {}}}),
            vec![
                old_class,
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                "spec.storageOS: deprecated in v1.22, non-functional in v1.25+",
            ],
        ),
        (
            &PERSISTENT_VOLUME_CLAIM,
            json!({"metadata": {"annotations": class}, "spec": {"resources": {"requests": {"storage": "500m"}}}}),
            vec![old_class, "spec.resources.requests[storage]: fractional byte value \"500m\" is invalid, must be an integer"],
        ),
        (
            &INGRESS,
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}),
            vec!["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"],
        ),
        (
            &STORAGE_CLASS,
            json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone"}]}]}),
            vec!["allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"],
        ),
        (
            &STATEFUL_SET,
            json!({"metadata": {"name": "a.b"}, "spec": {"revisionHistoryLimit": -1}}),
            vec!["spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"],
        ),
        (&ENDPOINT_SLICE, json!({"addressType": "FQDN"}), vec!["spec.addressType: FQDN endpoints are deprecated"]),
        (
            &SECRET,
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
            vec!["tls: failed to find any PEM data in certificate input"],
        ),
        (&PERSISTENT_VOLUME, json!({"spec": {"rbd": {}}}), vec!["spec.rbd: deprecated in v1.28, non-functional in v1.31+"]),
        (&PERSISTENT_VOLUME, json!({"spec": {"quobyte": {}}}), vec![]),
        (&CONFIG_MAP, json!({"metadata": {"name": "a.b"}}), vec![]),
    ] as [(ResourceRef, Value, Vec<&str>); 11]
    {
        assert_eq!(of(resource, object), expected);
    }
}
