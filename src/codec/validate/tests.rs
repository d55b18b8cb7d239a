//! What validation refuses, and that it never stops at what it does not expect.

mod changes;
mod finer;
mod groups;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::resource;

/// What is wrong with an object, a line a cause, once it has got its defaults.
fn complaints(resource: ResourceRef, new: &Value, old: Option<&Value>) -> Vec<String> {
    let complete = |value: &Value| {
        let mut value = value.clone();
        if value.get("metadata").is_none() {
            value["metadata"] = json!({"name": "x"});
        }
        super::super::default(resource, &mut value);
        value
    };
    let causes = validate(resource, &complete(new), old.map(complete).as_ref());
    causes.iter().map(|it| format!("{}: {}", it.field, it.message)).collect()
}

/// Objects to be created, and the whole of what is wrong with each.
fn check(resource: ResourceRef, cases: &[(Value, &[&str])]) {
    let wrong = cases.iter().filter_map(|(value, expected)| {
        let found = complaints(resource, value, None);
        (found != *expected).then(|| format!("{value}\nis {found:#?},\nnot {expected:#?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `base` with the value at a JSON pointer replaced; a null removes.
fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap_or_else(|| panic!("no parent of {pointer}"));
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        Value::Object(fields) if value.is_null() => {
            fields.remove(key);
        }
        other => other[key] = value,
    }
    changed
}

fn pod() -> Value {
    json!({"metadata": {"name": "x"}, "spec": {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}})
}

#[test]
fn metadata() {
    let map = |metadata: Value| json!({"metadata": metadata});
    let label_rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                      with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                      '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    let name_rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
                     with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
    check(
        &resource::CONFIG_MAP,
        &[
            (map(json!({"name": "a.b-c", "namespace": "n", "labels": {"a/b": "c"}, "finalizers": ["a/b", "orphan"]})), &[]),
            (map(json!({"name": "a", "generateName": "a-"})), &[]),
            (map(json!({"name": "A_b"})), &[&format!("metadata.name: Invalid value: \"A_b\": {name_rule}")]),
            (map(json!({"name": "a", "labels": {"k": "a b"}})), &[&format!("metadata.labels: Invalid value: \"a b\": {label_rule}")]),
            (
                map(json!({"name": "a", "annotations": {"/k": ""}})),
                &["metadata.annotations: Invalid value: \"/k\": prefix part must be non-empty"],
            ),
            (
                map(json!({"name": "a", "annotations": {"k": "x".repeat(262144)}})),
                &["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (
                map(json!({"name": "a", "finalizers": ["b"]})),
                &["metadata.finalizers[0]: Invalid value: \"b\": name is neither a standard finalizer name nor is it fully qualified"],
            ),
            (
                map(json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]})),
                &["metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty"],
            ),
        ],
    );
    let two = complaints(&resource::POD, &with(&pod(), "/metadata/ownerReferences", json!([owner("a"), owner("b")])), None);
    assert_eq!(two.len(), 1);
    assert!(two[0].ends_with("Only one reference can have Controller set to true. Found \"true\" in references for a and b"), "{two:?}");
    assert_eq!(
        complaints(&resource::NODE, &map(json!({"name": "a", "namespace": "b"})), None),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    assert!(
        complaints(&resource::SERVICE, &json!({"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 1}]}}), None)[0]
            .contains("a DNS-1035 label must consist")
    );
    let old =
        map(json!({"name": "a", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
    for (new, expected) in [
        (json!({"name": "a"}), None),
        (json!({"name": "b"}), Some("metadata.name: Invalid value: \"b\": field is immutable")),
        (json!({"name": "a", "uid": "2"}), Some("metadata.uid: Invalid value: \"2\": field is immutable")),
        (
            json!({"name": "a", "finalizers": ["a/b"]}),
            Some(
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers \
                 []string{\"a/b\"}",
            ),
        ),
    ] {
        assert_eq!(complaints(&resource::CONFIG_MAP, &map(new), Some(&old)), expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn pods() {
    let set = |pointer: &str, value: Value| with(&pod(), pointer, value);
    let container = |key: &str, value: Value| with(&pod(), &format!("/spec/containers/0/{key}"), value);
    let probe = |probe: Value| container("livenessProbe", probe);
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
                &["spec.containers[0].volumeMounts[0].subPath: Invalid value: \"/a\": must be a relative path"],
            ),
            (
                set("/spec/volumes", json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}])),
                &["spec.volumes[1].name: Duplicate value: \"v\""],
            ),
            (
                set("/spec/volumes/0", json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}})),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (set("/spec/volumes/0", json!({"name": "v", "hostPath": {"path": ""}})), &["spec.volumes[0].hostPath.path: Required value"]),
            (set("/spec/volumes/0", json!({"name": "v", "configMap": {}})), &["spec.volumes[0].configMap.name: Required value"]),
            (
                set("/spec/volumes/0", json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 512}})),
                &["spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"],
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
        ["spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true"]
    );
    assert_eq!(complaints(&resource::POD, &set("/spec/volumes/0", json!({"name": "v"})), None), Vec::<String>::new(), "a default");
}

#[test]
fn changes_of_pods() {
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
fn services() {
    let service = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    let one = json!([{"port": 80}]);
    check(
        &resource::SERVICE,
        &[
            (service(json!({"ports": one})), &[]),
            (service(json!({})), &["spec.ports: Required value"]),
            (service(json!({"clusterIP": "None"})), &[]),
            (service(json!({"type": "ExternalName", "externalName": "a.b."})), &[]),
            (service(json!({"type": "ExternalName"})), &["spec.externalName: Required value"]),
            (
                service(json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "None",
                    "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})),
                &[
                    "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                    "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                    "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
                ],
            ),
            (
                service(json!({"clusterIP": "x", "ports": one})),
                &["spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
            ),
            (service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 2}]})), &["spec.ports[1].name: Required value"]),
            (
                service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]})),
                &["spec.ports[1].name: Duplicate value: \"a\""],
            ),
            (
                service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]})),
                &["spec.ports[1]: Duplicate value: core.ServicePort{Name:\"\", Protocol:\"TCP\", AppProtocol:(*string)(nil), Port:1, \
                  TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:\"\"}, NodePort:0}"],
            ),
            (
                service(json!({"ports": [{"port": 0, "targetPort": 1}]})),
                &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                service(json!({"ports": [{"port": 1, "protocol": "X"}]})),
                &["spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
            ),
            (
                service(json!({"ports": [{"port": 1, "targetPort": "a--b"}]})),
                &["spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens"],
            ),
            (
                service(json!({"ports": [{"port": 1, "nodePort": 30000}]})),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                service(json!({"ports": one, "sessionAffinity": "x"})),
                &["spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\""],
            ),
            (
                service(json!({"ports": one, "type": "x"})),
                &["spec.type: Unsupported value: \"x\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""],
            ),
        ],
    );
    let at = |ip: &str| service(json!({"ports": one, "clusterIP": ip, "clusterIPs": [ip]}));
    assert_eq!(
        complaints(&resource::SERVICE, &at("10.0.0.2"), Some(&at("10.0.0.1"))),
        ["spec.clusterIPs[0]: Invalid value: []string{\"10.0.0.2\"}: may not change once set"]
    );
    assert_eq!(complaints(&resource::SERVICE, &at("10.0.0.1"), Some(&at("10.0.0.1"))), Vec::<String>::new());
    check(
        &resource::ENDPOINTS,
        &[
            (json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}]}), &[]),
            (
                json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}),
                &["subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"],
            ),
            (json!({"subsets": [{}]}), &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
            (
                json!({"subsets": [{"addresses": [{"ip": "x"}]}]}),
                &[
                    "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address",
                ],
            ),
        ],
    );
    check(
        &resource::ENDPOINT_SLICE,
        &[
            (json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.1.1.1"]}], "ports": [{"port": 1}]}), &[]),
            (
                json!({"addressType": "X", "endpoints": []}),
                &["addressType: Unsupported value: \"X\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{}]}),
                &["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
        ],
    );
}

#[test]
fn workloads() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let of = |selector: Value| json!({"metadata": {"name": "x"}, "spec": {"selector": selector, "template": template, "serviceName": "s"}});
    let good = of(json!({"matchLabels": {"a": "b"}}));
    let other = of(json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}));
    for resource in [&resource::DEPLOYMENT, &resource::REPLICA_SET, &resource::STATEFUL_SET, &resource::DAEMON_SET] {
        let kind = resource.kind;
        check(
            resource,
            &[
                (good.clone(), &[]),
                (
                    of(json!({"matchLabels": {"a": "c"}})),
                    &[
                        "spec.template.metadata.labels: Invalid value: map[string]string{\"a\":\"b\"}: `selector` does not match template `labels`",
                    ],
                ),
                (
                    of(json!({})),
                    &[&format!(
                        "spec.selector: Invalid value: v1.LabelSelector{{MatchLabels:map[string]string(nil), \
                         MatchExpressions:[]v1.LabelSelectorRequirement(nil)}}: empty selector is invalid for {}",
                        kind.to_lowercase()
                    )],
                ),
                (
                    with(&good, "/spec/template/spec/restartPolicy", json!("Never")),
                    &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
                ),
                (
                    with(&good, "/spec/template/spec/containers/0/image", json!("")),
                    if kind == "StatefulSet" { &[] } else { &["spec.template.spec.containers[0].image: Required value"] },
                ),
                (
                    with(&good, "/spec/minReadySeconds", json!(-1)),
                    &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
                ),
            ],
        );
        let changed = complaints(resource, &other, Some(&good));
        let expected = match kind {
            "StatefulSet" => {
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
            }
            _ => {
                "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{\"a\":\"b\"}, \
                 MatchExpressions:[]v1.LabelSelectorRequirement{v1.LabelSelectorRequirement{Key:\"a\", Operator:\"Exists\", \
                 Values:[]string(nil)}}}: field is immutable"
            }
        };
        assert_eq!(changed, [expected]);
        assert_eq!(
            complaints(resource, &with(&good, "/spec/template/spec/containers/0/image", json!("j")), Some(&good)),
            Vec::<String>::new()
        );
    }
    let strategy = |strategy: Value| with(&good, "/spec/strategy", strategy);
    check(
        &resource::DEPLOYMENT,
        &[
            (with(&good, "/spec/replicas", json!(-1)), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            (
                strategy(json!({"type": "Recreate", "rollingUpdate": {}})),
                &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: intstr.IntOrString{Type:0, IntVal:0, StrVal:\"\"}: may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "x", "maxUnavailable": "101%"}})),
                &[
                    "spec.strategy.rollingUpdate.maxSurge: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"x\"}: a valid percent string must be a numeric string followed by \
                     an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"101%\"}: must not be greater than 100%",
                ],
            ),
        ],
    );
    check(
        &resource::REPLICATION_CONTROLLER,
        &[
            (of(json!({"a": "b"})), &[]),
            (json!({"spec": {"selector": {"a": "b"}}}), &["spec.template: Required value"]),
            (
                of(json!({"a": "c"})),
                &[
                    "spec.template.metadata.labels: Invalid value: map[string]string{\"a\":\"b\"}: `selector` does not match template `labels`",
                ],
            ),
        ],
    );
    let job = json!({"metadata": {"name": "x"}, "spec": {"template": with(&template, "/spec/restartPolicy", json!("Never"))}});
    check(
        &resource::JOB,
        &[
            (job.clone(), &[]),
            (
                with(&job, "/spec/template/spec/restartPolicy", json!("Always")),
                &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
            ),
            (
                with(&with(&job, "/spec/parallelism", json!(2)), "/spec/completionMode", json!("Indexed")),
                &["spec.completions: Required value: when completion mode is Indexed"],
            ),
        ],
    );
    assert_eq!(complaints(&resource::JOB, &job, Some(&job))[0], "spec.selector: Required value");
    let job = with(&job, "/spec/selector", json!({"matchLabels": job["spec"]["template"]["metadata"]["labels"]}));
    let changed = complaints(&resource::JOB, &with(&job, "/spec/template/spec/containers/0/image", json!("j")), Some(&job));
    assert!(
        changed.len() == 1 && changed[0].starts_with("spec.template: Invalid value: {") && changed[0].ends_with(": field is immutable")
    );
    let cron = json!({"metadata": {"name": "x"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job["spec"]}}});
    check(
        &resource::CRON_JOB,
        &[
            (cron.clone(), &[]),
            (
                with(&cron, "/spec/schedule", json!("* *")),
                &["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"],
            ),
            (
                with(&cron, "/spec/concurrencyPolicy", json!("x")),
                &["spec.concurrencyPolicy: Unsupported value: \"x\": supported values: \"Allow\", \"Forbid\", \"Replace\""],
            ),
        ],
    );
}

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

/// JSON of any shape below names that specs have.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("1Gi"))
    ];
    let key = prop::sample::select(vec![
        "metadata",
        "spec",
        "template",
        "containers",
        "name",
        "selector",
        "matchLabels",
        "ports",
        "port",
        "env",
        "valueFrom",
        "volumes",
        "resources",
        "limits",
        "requests",
        "labels",
        "data",
        "type",
        "items",
        "tolerations",
        "livenessProbe",
        "affinity",
        "strategy",
    ]);
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics(new in anything(), old in prop::option::of(anything()), at in 0..resource::ALL.len()) {
        validate(resource::ALL[at], &new, old.as_ref());
    }
}
