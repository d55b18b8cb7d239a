//! The kinds of the groups beyond core, apps and batch.

use serde_json::{Value, json};

use super::{check, complaints, validate_version, with};
use crate::codec::validate::names;
use crate::object::resource::{
    CERTIFICATE_SIGNING_REQUEST, CLUSTER_ROLE, CLUSTER_ROLE_BINDING, CSI_DRIVER, CSI_NODE, CSI_STORAGE_CAPACITY, EVENT, EVENT_V1,
    HORIZONTAL_POD_AUTOSCALER, INGRESS, INGRESS_CLASS, IP_ADDRESS, NETWORK_POLICY, PRIORITY_CLASS, ROLE, ROLE_BINDING, RUNTIME_CLASS,
    SERVICE_CIDR, STORAGE_CLASS, VOLUME_ATTACHMENT,
};

/// Faults of a change of a job's status; counts must not go back.
#[test]
fn statuses_of_jobs() {
    let job = |status: &Value| {
        json!({"metadata": {"name": "j"}, "spec": {
            "completions": 3, "parallelism": 1, "completionMode": "NonIndexed", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
            "status": status})
    };
    let conditions = |kinds: &[&str]| kinds.iter().map(|it| json!({"type": it, "status": "True"})).collect::<Vec<_>>();
    let (start, end) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
    let complete = json!({"startTime": start, "completionTime": end, "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
    let failed = json!({"startTime": start, "conditions": conditions(&["FailureTarget", "Failed"])});
    let running = json!({"startTime": start, "active": 1, "ready": 1, "failed": 2});
    for (old, new, expected) in [
        (json!({}), running.clone(), &[][..]),
        (running.clone(), complete.clone(), &["status.failed: Invalid value: 0: cannot decrease the failed counter"]),
        (json!({"startTime": start}), complete.clone(), &[]),
        (json!({"startTime": start}), failed.clone(), &[]),
        (
            json!({"startTime": start}),
            json!({"active": 1, "conditions": conditions(&["Complete"])}),
            &[
                "status.completionTime: Required value: completionTime is required for Complete jobs",
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
                "status.startTime: Required value: startTime is required for finished job",
                "status.startTime: Required value: startTime cannot be removed for unsuspended job",
            ],
        ),
        (
            json!({}),
            json!({"startTime": start, "conditions": conditions(&["Failed"])}),
            &["status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"],
        ),
        (
            complete,
            failed,
            &[
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ],
        ),
        (
            json!({}),
            json!({"ready": 2, "active": 1, "completedIndexes": "1"}),
            &[
                "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed completion mode",
                "status.ready: Invalid value: 2: cannot set more ready pods than active",
            ],
        ),
        // Wrong before, and the same now.
        (json!({"conditions": conditions(&["Complete"])}), json!({"conditions": conditions(&["Complete"])}), &[]),
    ] {
        assert_eq!(complaints(&crate::object::resource::JOB, &job(&new), Some(&job(&old))), expected, "{old} to {new}");
    }
}

#[test]
fn autoscalers() {
    let target = |kind: &str, field: &str, value: Value| json!({"type": kind, field: value});
    let metric = |value: Value| json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "D", "name": "d"}, "metrics": [value]}});
    let cpu = |target: Value| metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    let good = cpu(target("Utilization", "averageUtilization", 50.into()));
    check(
        &HORIZONTAL_POD_AUTOSCALER,
        &[
            (good.clone(), &[]),
            (
                json!({"spec": {"minReplicas": 5, "maxReplicas": 3, "scaleTargetRef": {"kind": "a/b"}}}),
                &[
                    "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
                    "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'",
                    "spec.scaleTargetRef.name: Required value",
                ],
            ),
            (
                with(&good, "/spec/maxReplicas", 0.into()),
                &[
                    "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                    "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                ],
            ),
            (
                cpu(target("Odd", "averageUtilization", 0.into())),
                &[
                    "spec.metrics[0].resource.target.type: Invalid value: \"Odd\": must be either Utilization, Value, or AverageValue",
                    "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                ],
            ),
            (
                metric(json!({"type": "Pods", "external": {"metric": {"name": "m"}, "target": target("Value", "value", "0".into())}})),
                &[
                    "spec.metrics[0].external.target.value: Invalid value: \"0\": must be positive",
                    "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                ],
            ),
            (
                metric(json!({"type": "Odd"})),
                &[
                    "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                    "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                ],
            ),
            (
                with(
                    &good,
                    "/spec/behavior",
                    json!({"scaleDown": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Odd",
                "policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}}),
                ),
                &[
                    "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                    "spec.behavior.scaleDown.selectPolicy: Unsupported value: \"Odd\": supported values: \"Disabled\", \"Max\", \"Min\"",
                    "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                ],
            ),
        ],
    );
}

#[test]
fn roles_and_bindings() {
    let rules = |rule: Value| json!({"metadata": {"name": "system:x"}, "rules": [rule]});
    let paths = rules(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}));
    check(
        &CLUSTER_ROLE,
        &[
            (paths.clone(), &[]),
            (
                rules(json!({"verbs": []})),
                &[
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ],
            ),
            (
                json!({"aggregationRule": {}}),
                &[
                    "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
                ],
            ),
        ],
    );
    check(
        &ROLE,
        &[
            (paths, &["rules[0].nonResourceURLs: Invalid value: []string{\"/x\"}: namespaced rules cannot apply to non-resource URLs"]),
            (json!({"metadata": {"name": "a/b"}}), &["metadata.name: Invalid value: \"a/b\": may not contain '/'"]),
        ],
    );
    let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [
        {"kind": "User", "name": "me"}, {"kind": "ServiceAccount", "name": "default", "namespace": "a"}]});
    check(
        &ROLE_BINDING,
        &[
            (binding.clone(), &[]),
            (
                with(&binding, "/subjects/0", json!({"kind": "Robot", "name": ""})),
                &[
                    "subjects[0].name: Required value",
                    "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                ],
            ),
        ],
    );
    check(
        &CLUSTER_ROLE_BINDING,
        &[
            (binding.clone(), &[]),
            (
                with(&binding, "/roleRef/kind", "Role".into()),
                &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
            ),
            (with(&binding, "/subjects/1/namespace", Value::Null), &["subjects[1].namespace: Required value"]),
        ],
    );
    let other = with(&binding, "/roleRef/name", "view".into());
    let shown = r#"rbac.RoleRef{APIGroup:"rbac.authorization.k8s.io", Kind:"ClusterRole", Name:"view"}"#;
    assert_eq!(complaints(&ROLE_BINDING, &other, Some(&binding)), [format!("roleRef: Invalid value: {shown}: cannot change roleRef")]);
}

#[test]
fn ingresses() {
    let service = json!({"service": {"name": "s", "port": {"number": 80}}});
    let path = |path: Value| json!({"spec": {"rules": [{"host": "*.example.com", "http": {"paths": [path]}}]}});
    let good = path(json!({"path": "/", "pathType": "Prefix", "backend": service}));
    let port = "/spec/rules/0/http/paths/0/backend/service/port";
    check(
        &INGRESS,
        &[
            (good.clone(), &[]),
            (
                json!({"spec": {}}),
                &["spec: Invalid value: []networking.IngressRule(nil): either `defaultBackend` or `rules` must be specified"],
            ),
            (
                with(&good, "/spec/rules/0/host", "10.0.0.1".into()),
                &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
            ),
            (
                path(json!({"path": "a//b", "pathType": "Exact", "backend": {}})),
                &[
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                ],
            ),
            (path(json!({"backend": service})), &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]),
            (with(&good, port, json!({})), &["spec.rules[0].http.paths[0].backend: Required value: port name or number is required"]),
            (
                with(
                    &with(&good, "/spec/ingressClassName", "c".into()),
                    "/metadata",
                    json!({"name": "x", "annotations": {"kubernetes.io/ingress.class": "c"}}),
                ),
                &[],
            ),
            (
                with(
                    &with(&good, "/spec/ingressClassName", "c".into()),
                    "/metadata",
                    json!({"name": "x", "annotations": {"kubernetes.io/ingress.class": "d"}}),
                ),
                &["annotations.kubernetes.io/ingress.class: Invalid value: \"d\": must match `ingressClassName` when both are specified"],
            ),
        ],
    );
    let class = |controller: &str| json!({"spec": {"controller": controller}});
    let domain = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    check(
        &INGRESS_CLASS,
        &[
            (class("example.com/x"), &[]),
            (class(""), &["spec.controller: Required value"]),
            (class("x"), &[&format!("spec.controller: Invalid value: \"x\": {domain}")]),
            (
                json!({"spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "namespace": "x"}}}),
                &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
            ),
        ],
    );
    assert_eq!(
        complaints(&INGRESS_CLASS, &class("a.b/c"), Some(&class("a.b/d"))),
        ["spec.controller: Invalid value: \"a.b/c\": field is immutable"]
    );
}

#[test]
fn networks() {
    let policy = |rule: Value| json!({"spec": {"podSelector": {}, "ingress": [rule]}});
    let block = |block: Value| policy(json!({"from": [{"ipBlock": block}]}));
    check(
        &NETWORK_POLICY,
        &[
            (block(json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]})), &[]),
            (
                block(json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.0.0.0/8"]})),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                    "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                ],
            ),
            (
                block(json!({"cidr": "10"})),
                &[
                    "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
            (policy(json!({"from": [{}]})), &["spec.ingress[0].from[0]: Required value: must specify a peer"]),
            (
                policy(
                    json!({"ports": [{"port": 80, "endPort": 79}, {"port": "http", "endPort": 80}, {"endPort": 80, "protocol": "Odd"}]}),
                ),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
                    "spec.ingress[0].ports[1].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
                    "spec.ingress[0].ports[2].protocol: Unsupported value: \"Odd\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                    "spec.ingress[0].ports[2].endPort: Invalid value: 80: may not be specified when `port` is not specified",
                ],
            ),
            (
                json!({"spec": {"podSelector": {}, "policyTypes": ["Odd"]}}),
                &["spec.policyTypes[0]: Unsupported value: \"Odd\": supported values: \"Ingress\", \"Egress\""],
            ),
        ],
    );
    let address =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "a"}}});
    check(
        &IP_ADDRESS,
        &[
            (address("10.0.0.1"), &[]),
            (address("::0001"), &["metadata.name: Invalid value: \"::0001\": must be in canonical form (\"::1\")"]),
            (address("10.0.010.1"), &["metadata.name: Invalid value: \"10.0.010.1\": must not have leading 0s"]),
            (address("::ffff:1.2.3.4"), &["metadata.name: Invalid value: \"::ffff:1.2.3.4\": must not be an IPv4-mapped IPv6 address"]),
        ],
    );
    check(
        &SERVICE_CIDR,
        &[
            (json!({"spec": {"cidrs": ["10.0.0.0/24", "fd00::/112"]}}), &[]),
            (json!({"spec": {}}), &["spec.cidrs: Required value: at least one CIDR required"]),
            (
                json!({"spec": {"cidrs": ["10.0.0.1/24"]}}),
                &["spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length"],
            ),
            (
                json!({"spec": {"cidrs": ["FD00::/64", "010.0.0.0/24"]}}),
                &[
                    "spec.cidrs[0]: Invalid value: \"FD00::/64\": must be in canonical form (\"fd00::/64\")",
                    "spec.cidrs[1]: Invalid value: \"010.0.0.0/24\": must not have leading 0s in IP or prefix length",
                ],
            ),
            (
                json!({"spec": {"cidrs": ["1.0.0.0/8", "2.0.0.0/8", "3.0.0.0/8"]}}),
                &[
                    "spec.cidrs: Invalid value: networking.ServiceCIDRSpec{CIDRs:[]string{\"1.0.0.0/8\", \"2.0.0.0/8\", \"3.0.0.0/8\"}}: may only hold up to 2 values",
                ],
            ),
            (
                json!({"spec": {"cidrs": ["1.0.0.0/8", "2.0.0.0/8"]}}),
                &[
                    "spec.cidrs: Invalid value: []string{\"1.0.0.0/8\", \"2.0.0.0/8\"}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                ],
            ),
        ],
    );
}

#[test]
fn storage_and_its_drivers() {
    let class = json!({"provisioner": "example.com/disks"});
    check(
        &STORAGE_CLASS,
        &[
            (class.clone(), &[]),
            (
                json!({"provisioner": "", "reclaimPolicy": "Recycle", "volumeBindingMode": "Odd"}),
                &[
                    "provisioner: Required value",
                    "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                    "volumeBindingMode: Unsupported value: \"Odd\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ],
            ),
        ],
    );
    let changed = json!({"provisioner": "example.com/other", "volumeBindingMode": "WaitForFirstConsumer"});
    assert_eq!(
        complaints(&STORAGE_CLASS, &changed, Some(&class)),
        [
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ]
    );
    let attachment = |source: Value| json!({"spec": {"attacher": "example.com", "nodeName": "n", "source": source}});
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    check(
        &VOLUME_ATTACHMENT,
        &[
            (attachment(json!({"persistentVolumeName": "v"})), &[]),
            (attachment(json!({})), &[&format!("spec.source: Required value: {one}")]),
            (attachment(json!({"persistentVolumeName": "v", "inlineVolumeSpec": {}})), &[&format!("spec.source: Forbidden: {one}")]),
        ],
    );
    check(
        &CSI_DRIVER,
        &[
            (json!({"metadata": {"name": "a234567890123456789012345678901234567890123456789012345678901234"}, "spec": {}}), &[]),
            (
                json!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}], "volumeLifecycleModes": ["Odd"]}}),
                &[
                    "spec.volumeLifecycleModes: Unsupported value: \"Odd\": supported values: \"Persistent\", \"Ephemeral\"",
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                ],
            ),
        ],
    );
    check(&CSI_NODE, &[(json!({"spec": {"drivers": [{"name": "a"}]}}), &["spec.drivers[0].nodeID: Required value"])]);
    check(
        &CSI_STORAGE_CAPACITY,
        &[(json!({"storageClassName": "a", "capacity": "-1"}), &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"])],
    );
}

#[test]
fn events_in_the_newer_form() {
    let qualified = names::qualified("a/b/c").concat();
    let timed = json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "b"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingComponent": "example.com/x", "reportingInstance": "i", "action": "A", "reason": "R", "type": "Normal"});
    check(
        &EVENT,
        &[
            (timed.clone(), &[]),
            (with(&timed, "/action", "a".repeat(129).into()), &["action: Invalid value: \"\": can have at most 128 characters"]),
            (
                with(&timed, "/reportingComponent", "a/b/c".into()),
                &[&format!("reportingController: Invalid value: \"a/b/c\": {qualified}")],
            ),
        ],
    );
    let strict = |event: &Value| -> Vec<String> {
        validate_version(&EVENT_V1, event).iter().map(|it| format!("{}: {}", it.field, it.message)).collect()
    };
    assert_eq!(strict(&timed), Vec::<String>::new());
    assert_eq!(
        strict(&json!({"type": "Odd", "count": 2})),
        ["eventTime: Required value", "type: Invalid value: \"\": has invalid value: Odd", "count: Invalid value: \"\": needs to be unset",]
    );
}

#[test]
fn settings_of_the_cluster() {
    let takes = |amounts: Value| json!({"metadata": {"name": "r"}, "handler": "h", "overhead": {"podFixed": amounts}});
    check(
        &RUNTIME_CLASS,
        &[
            (takes(json!({"cpu": "1", "memory": "1Gi"})), &[]),
            (
                takes(json!({"cpu": "-1", "foo": "1"})),
                &[
                    "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                    "overhead.limits[foo]: Invalid value: foo: must be a standard resource type or fully qualified",
                    "overhead.limits[foo]: Invalid value: foo: must be a standard resource for containers",
                ],
            ),
        ],
    );
    let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
    let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
    check(
        &PRIORITY_CLASS,
        &[
            (class("high", 1_000_000_000), &[]),
            (class("system-node-critical", 2_000_001_000), &[]),
            (class("high", 1_000_000_001), &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]),
            (class("system-x", 1), &[&format!("{reserved}system-x is not a known system priority class")]),
        ],
    );
    assert_eq!(complaints(&PRIORITY_CLASS, &class("a", 1), Some(&class("a", 2))), ["value: Forbidden: may not be changed in an update."]);
    let runtime = |handler: &str| json!({"handler": handler});
    assert_eq!(complaints(&RUNTIME_CLASS, &runtime("a"), Some(&runtime("b"))), ["handler: Invalid value: \"a\": field is immutable"]);
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let request = json!({"spec": {"request": pem, "signerName": "kubernetes.io/kubelet-serving", "usages": ["server auth"]}});
    check(
        &CERTIFICATE_SIGNING_REQUEST,
        &[
            (request.clone(), &[]),
            (
                with(&request, "/spec/signerName", "x".into()),
                &["spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'"],
            ),
            (
                with(&request, "/spec/request", "".into()),
                &["spec.request: Invalid value: []byte{}: PEM block type must be CERTIFICATE REQUEST"],
            ),
            (
                with(&request, "/spec/request", Value::Null),
                &["spec.request: Invalid value: []byte(nil): PEM block type must be CERTIFICATE REQUEST"],
            ),
            (with(&request, "/spec/usages", json!([])), &["spec.usages: Required value"]),
            (with(&request, "/spec/usages", json!(["any", "any"])), &["spec.usages[1]: Duplicate value: \"any\""]),
        ],
    );
    let approved = with(&request, "/status", json!({"conditions": [{"type": "Approved", "status": "True"}]}));
    assert_eq!(
        complaints(&CERTIFICATE_SIGNING_REQUEST, &request, Some(&approved)),
        ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
    );
}
