//! The other kinds of core, and of policy and coordination.

use serde_json::{Value, json};

use super::{check, complaints, with};
use crate::object::resource;

#[test]
fn configuration() {
    check(
        &resource::CONFIG_MAP,
        &[
            (json!({"data": {"a": "b"}, "binaryData": {"c": "ZA=="}}), &[]),
            (
                json!({"data": {"a": "b"}, "binaryData": {"a": "ZA=="}}),
                &["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
            ),
            (
                json!({"data": {"a/b": "c"}}),
                &["data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
                  'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"],
            ),
            (json!({"data": {"a": "x".repeat(1 << 20)}}), &[]),
            (json!({"data": {"a": "x".repeat((1 << 20) + 1)}}), &["[]: Too long: may not be more than 1048576 bytes"]),
        ],
    );
    let fixed = json!({"immutable": true, "data": {"a": "b"}});
    for (new, expected) in [
        (fixed.clone(), vec![]),
        (with(&fixed, "/data/a", json!("c")), vec!["data: Forbidden: field is immutable when `immutable` is set"]),
        (with(&fixed, "/immutable", json!(null)), vec!["immutable: Forbidden: field is immutable when `immutable` is set"]),
    ] {
        assert_eq!(complaints(&resource::CONFIG_MAP, &new, Some(&fixed)), expected, "{new}");
    }
    let secret = |kind: &str, data: Value| json!({"type": kind, "data": data});
    check(
        &resource::SECRET,
        &[
            (secret("Opaque", json!({"a": "Yg=="})), &[]),
            (secret("kubernetes.io/tls", json!({"tls.crt": "Yg=="})), &["data[tls.key]: Required value"]),
            (secret("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "e30="})), &[]),
            (secret("kubernetes.io/dockerconfigjson", json!({})), &["data[.dockerconfigjson]: Required value"]),
            (
                secret("kubernetes.io/service-account-token", json!({})),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
        ],
    );
    assert_eq!(
        complaints(&resource::SECRET, &secret("a", json!({})), Some(&secret("b", json!({})))),
        ["type: Invalid value: \"a\": field is immutable"]
    );
    check(
        &resource::LIMIT_RANGE,
        &[
            (json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "max": {"cpu": "2"}}]}}), &[]),
            (
                json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}, "defaultRequest": {"cpu": "3"}, "default": {"cpu": "2"}}]}}),
                &[
                    "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
                    "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max value 2",
                    "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than default limit value 2",
                    "spec.limits[0].default[cpu]: Invalid value: \"3\": min value 3 is greater than default value 2",
                ],
            ),
        ],
    );
    check(
        &resource::RESOURCE_QUOTA,
        &[
            (json!({"spec": {"hard": {"pods": "3", "cpu": "500m"}}}), &[]),
            (json!({"spec": {"hard": {"pods": "500m"}}}), &["spec.hard[pods]: Invalid value: \"500m\": must be an integer"]),
        ],
    );
}

#[test]
fn the_rest() {
    check(
        &resource::NODE,
        &[
            (json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}), &[]),
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "x"}]}}),
                &[
                    "metadata.taints[0].effect: Unsupported value: \"x\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
        ],
    );
    let node = |cidr: &str| json!({"spec": {"podCIDR": cidr}});
    assert_eq!(
        complaints(&resource::NODE, &node("10.1.0.0/24"), Some(&node("10.0.0.0/24"))),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
    check(
        &resource::BINDING,
        &[(json!({"target": {"kind": "Node", "name": "n"}}), &[]), (json!({"target": {}}), &["target.name: Required value"])],
    );
    check(
        &resource::LEASE,
        &[(json!({"spec": {"leaseDurationSeconds": 0}}), &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"])],
    );
    let volume = json!({"metadata": {"name": "x"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}}});
    check(
        &resource::PERSISTENT_VOLUME,
        &[
            (volume.clone(), &[]),
            (with(&volume, "/spec/hostPath", json!(null)), &["spec: Required value: must specify a volume type"]),
            (
                with(&volume, "/spec/nfs", json!({"server": "s", "path": "/"})),
                &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
        ],
    );
    assert_eq!(
        complaints(&resource::PERSISTENT_VOLUME, &with(&volume, "/spec/hostPath/path", json!("/b")), Some(&volume)),
        [
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n  spec.hostPath.path:\n-   \"/a\"\n+   \"/b\"\n"
        ]
    );
    let claim =
        json!({"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    check(
        &resource::PERSISTENT_VOLUME_CLAIM,
        &[
            (claim.clone(), &[]),
            (with(&claim, "/spec/resources", json!({})), &["spec.resources[storage]: Required value"]),
            (with(&claim, "/spec/accessModes", json!([])), &["spec.accessModes: Required value: at least 1 access mode is required"]),
            (
                with(&claim, "/spec/accessModes", json!(["x"])),
                &["spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \
                  \"ReadWriteOncePod\""],
            ),
        ],
    );
    assert_eq!(
        complaints(&resource::PERSISTENT_VOLUME_CLAIM, &with(&claim, "/spec/volumeName", json!("v")), Some(&claim)),
        Vec::<String>::new()
    );
    check(
        &resource::POD_DISRUPTION_BUDGET,
        &[(
            json!({"spec": {"minAvailable": "101%", "selector": {}}}),
            &["spec.minAvailable: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"101%\"}: must not be greater than 100%"],
        )],
    );
    check(
        &resource::EVENT,
        &[
            (json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "a"}}), &[]),
            (
                json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "b"}}),
                &["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"],
            ),
        ],
    );
}
