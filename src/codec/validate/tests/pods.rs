//! Pods, and their allowed changes.

use serde_json::{Value, json};

use super::{check, complaints, pod, with};
use crate::object::resource;

#[test]
fn specs() {
    let set = |pointer: &str, value: Value| with(&pod(), pointer, value);
    let container = |key: &str, value: Value| with(&pod(), &format!("/spec/containers/0/{key}"), value);
    let probe = |probe: Value| container("livenessProbe", probe);
    let missing = "spec.containers[0].volumeMounts[0].name: Not found: \"v\"";
    check(
        &resource::POD,
        &[
            (pod(), &[]),
            (set("/spec/containers", json!([])), &["spec.containers: Required value"]),
            (container("name", json!("")), &["spec.containers[0].name: Required value"]),
            (container("image", json!("")), &["spec.containers[0].image: Required value"]),
            (
                container("image", json!(" i")),
                &["spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"],
            ),
            (
                container("imagePullPolicy", json!("x")),
                &[
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"x\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                set("/spec/containers", json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}])),
                &["spec.containers[1].name: Duplicate value: \"c\""],
            ),
            (set("/spec/initContainers", json!([{"name": "c", "image": "i"}])), &["spec.initContainers[0].name: Duplicate value: \"c\""]),
            (
                container("ports", json!([{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}])),
                &["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
            ),
            (container("ports", json!([{"name": "a"}])), &["spec.containers[0].ports[0].containerPort: Required value"]),
            (
                container("ports", json!([{"containerPort": 70000}])),
                &["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
            ),
            (
                container("ports", json!([{"containerPort": 1, "protocol": "X"}])),
                &["spec.containers[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
            ),
            (
                container("ports", json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8080}])),
                &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8080\""],
            ),
            (
                container("env", json!([{"name": "A=", "value": "1"}])),
                &[
                    "spec.containers[0].env[0].name: Invalid value: \"A=\": a valid environment variable name must consist only of printable \
                  ASCII characters other than '='",
                ],
            ),
            (
                container("env", json!([{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])),
                &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"],
            ),
            (
                container("env", json!([{"name": "A", "valueFrom": {}}])),
                &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, \
                  `configMapKeyRef` or `secretKeyRef`"],
            ),
            (
                container("env", json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}])),
                &["spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
            ),
            (
                container("env", json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}])),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label \
                  not supported: spec.x",
                ],
            ),
            (
                container("env", json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}])),
                &["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \
                  \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \
                  \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\""],
            ),
            (container("env", json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}])), &[]),
            (
                container("volumeMounts", json!([{"name": "w", "mountPath": "/w"}])),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
            ),
            (
                container("volumeMounts", json!([{"name": "v", "mountPath": "/w"}, {"name": "v", "mountPath": "/w"}])),
                &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/w\": must be unique"],
            ),
            (
                container("volumeMounts", json!([{"name": "v", "mountPath": "/w", "subPath": "/a"}])),
                &["spec.containers[0].volumeMounts.subPath: Invalid value: \"/a\": must be a relative path"],
            ),
            (
                set("/spec/volumes", json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}])),
                &["spec.volumes[1].name: Duplicate value: \"v\""],
            ),
            (
                set("/spec/volumes/0", json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}})),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type", missing],
            ),
            (
                set("/spec/volumes/0", json!({"name": "v", "hostPath": {"path": ""}})),
                &["spec.volumes[0].hostPath.path: Required value", missing],
            ),
            (set("/spec/volumes/0", json!({"name": "v", "configMap": {}})), &["spec.volumes[0].configMap.name: Required value", missing]),
            (
                set("/spec/volumes/0", json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 512}})),
                &[
                    "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                    missing,
                ],
            ),
            (probe(json!({})), &["spec.containers[0].livenessProbe: Required value: must specify a handler type"]),
            (
                probe(json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}})),
                &["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
            ),
            (
                probe(json!({"tcpSocket": {"port": 0}})),
                &["spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                probe(json!({"exec": {"command": ["a"]}, "successThreshold": 2, "periodSeconds": -1})),
                &[
                    "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                    "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                container("resources", json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
                &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
            ),
            (
                container("resources", json!({"requests": {"memory": "-1"}})),
                &["spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                container("resources", json!({"limits": {"x.y/gpu": "500m"}, "requests": {"x.y/gpu": "500m"}})),
                &[
                    "spec.containers[0].resources.limits[x.y/gpu]: Invalid value: \"500m\": must be an integer",
                    "spec.containers[0].resources.requests[x.y/gpu]: Invalid value: \"500m\": must be an integer",
                ],
            ),
            (
                container("resources", json!({"limits": {"gpu": "1"}})),
                &[
                    "spec.containers[0].resources.limits[gpu]: Invalid value: gpu: must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.limits[gpu]: Invalid value: gpu: must be a standard resource for containers",
                    "spec.containers[0].resources.requests[gpu]: Invalid value: gpu: must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.requests[gpu]: Invalid value: gpu: must be a standard resource for containers",
                ],
            ),
            (
                set("/spec/restartPolicy", json!("x")),
                &["spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnFailure\", \"Never\""],
            ),
            (
                set("/spec/dnsPolicy", json!("x")),
                &["spec.dnsPolicy: Unsupported value: \"x\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \
                  \"Default\", \"None\""],
            ),
            (set("/spec/dnsPolicy", json!("None")), &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]),
            (
                set("/spec/activeDeadlineSeconds", json!(0)),
                &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
            ),
            (
                set("/spec/tolerations", json!([{"effect": "NoSchedule", "operator": "Equal"}])),
                &["spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \
                  \"match all values and all keys\""],
            ),
            (
                set(
                    "/spec/affinity",
                    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
                ),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have \
                  at least one node selector term",
                ],
            ),
            (
                set("/spec/ephemeralContainers", json!([{"name": "e", "image": "i"}])),
                &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
        ],
    );
    let host = with(&set("/spec/hostNetwork", json!(true)), "/spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 81}]));
    assert_eq!(
        complaints(&resource::POD, &host, None),
        ["spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"]
    );
    assert_eq!(complaints(&resource::POD, &set("/spec/volumes/0", json!({"name": "v"})), None), Vec::<String>::new(), "a default");
}

#[test]
fn changes() {
    let deadline = with(&pod(), "/spec/activeDeadlineSeconds", json!(10));
    let tolerant = with(&pod(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]));
    let more = json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
    for (old, new, expected) in [
        (pod(), pod(), None),
        (pod(), with(&pod(), "/metadata/labels", json!({"a": "b"})), None),
        (pod(), with(&pod(), "/spec/containers/0/image", json!("j")), None),
        (pod(), deadline.clone(), None),
        (deadline.clone(), with(&deadline, "/spec/activeDeadlineSeconds", json!(5)), None),
        (
            deadline.clone(),
            with(&deadline, "/spec/activeDeadlineSeconds", json!(11)),
            Some("spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"),
        ),
        (
            deadline.clone(),
            pod(),
            Some("spec.activeDeadlineSeconds: Invalid value: \"null\": must not update from a positive integer to nil value"),
        ),
        (tolerant.clone(), with(&tolerant, "/spec/tolerations", more), None),
        (
            tolerant.clone(),
            pod(),
            Some("spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"),
        ),
        (
            pod(),
            with(&pod(), "/spec/initContainers", json!([{"name": "i", "image": "i"}])),
            Some("spec.initContainers: Forbidden: pod updates may not add or remove containers"),
        ),
        (
            pod(),
            with(&pod(), "/spec/nodeName", json!("n")),
            Some(
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                 `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n  spec.nodeName:\n-   \
                 null\n+   \"n\"\n",
            ),
        ),
    ] {
        assert_eq!(complaints(&resource::POD, &new, Some(&old)), expected.into_iter().collect::<Vec<_>>(), "{new}");
    }
}

#[test]
fn annotations() {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/c";
    const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/c";
    let annotated = |annotations: Value, context: Value| {
        let pod = with(&pod(), "/metadata/annotations", annotations);
        with(&pod, "/spec/containers/0/securityContext", context)
    };
    let (profile, default) = (|kind: &str, of: &str| json!({kind: {"type": of}}), json!({}));
    check(
        &resource::POD,
        &[
            (annotated(json!({APP_ARMOR: "runtime/default", SECCOMP: "docker/default"}), default.clone()), &[]),
            (annotated(json!({APP_ARMOR: "localhost/x"}), json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}})), &[]),
            (
                annotated(
                    json!({"container.apparmor.security.beta.kubernetes.io/d": "x", "kubernetes.io/config.mirror": "m",
                        "controller.kubernetes.io/pod-deletion-cost": "+1", SECCOMP: "x"}),
                    default,
                ),
                &[
                    "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"m\": must set spec.nodeName if mirror pod annotation is set",
                    "metadata.annotations.container.seccomp.security.alpha.kubernetes.io/c: Invalid value: \"x\": must be a valid seccomp profile",
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"d\": container not found",
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"x\": invalid AppArmor profile name: \"x\"",
                    "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer",
                ],
            ),
            (
                annotated(json!({APP_ARMOR: "unconfined"}), profile("appArmorProfile", "RuntimeDefault")),
                &["spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match"],
            ),
            (
                annotated(json!({APP_ARMOR: "localhost/y"}), json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}})),
                &[
                    "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match",
                ],
            ),
            (
                annotated(json!({SECCOMP: "unconfined"}), profile("seccompProfile", "RuntimeDefault")),
                &["spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"],
            ),
        ],
    );
    let (plain, confined) = (pod(), annotated(json!({APP_ARMOR: "unconfined"}), json!({"appArmorProfile": {"type": "Unconfined"}})));
    let bare = annotated(json!({}), json!({"appArmorProfile": {"type": "Unconfined"}}));
    assert_eq!(
        complaints(&resource::POD, &bare, Some(&confined)),
        [format!("metadata.annotations[{APP_ARMOR}]: Forbidden: may not remove or update AppArmor annotations")]
    );
    assert_eq!(
        complaints(&resource::POD, &with(&plain, "/metadata/annotations", json!({APP_ARMOR: "unconfined"})), Some(&plain)),
        [format!("metadata.annotations[{APP_ARMOR}]: Forbidden: may not add AppArmor annotations")]
    );
}
