//! Finer points of the kinds of core and batch.

use serde_json::{Value, json};

use super::{check, complaints, pod, with};
use crate::object::resource::{JOB, PERSISTENT_VOLUME_CLAIM, POD, RESOURCE_QUOTA, SERVICE};

#[test]
fn security_contexts() {
    let of_pod = |context: Value| with(&pod(), "/spec/securityContext", context);
    let of_container = |context: Value| with(&pod(), "/spec/containers/0/securityContext", context);
    check(
        &POD,
        &[
            (
                of_pod(
                    json!({"sysctls": [{"name": "net.ipv4.ip_forward"}], "supplementalGroups": [1], "seccompProfile": {"type": "RuntimeDefault"}}),
                ),
                &[],
            ),
            (
                of_pod(json!({"supplementalGroups": [-1], "fsGroupChangePolicy": "Odd", "sysctls": [{"name": "a"}, {"name": "a"}, {}]})),
                &[
                    "spec.securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                    "spec.securityContext.sysctls[1].name: Duplicate value: \"a\"",
                    "spec.securityContext.sysctls[2].name: Required value",
                    "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Odd\": supported values: \"Always\", \"OnRootMismatch\"",
                ],
            ),
            (
                of_container(
                    json!({"seccompProfile": {"type": "Localhost"}, "appArmorProfile": {"type": "Unconfined", "localhostProfile": "p"}}),
                ),
                &[
                    "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                    "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: \"p\": can only be set when AppArmor type is Localhost",
                ],
            ),
            (
                with(&pod(), "/spec/os", json!({"name": "plan9"})),
                &["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
            ),
        ],
    );
}

#[test]
fn what_only_some_services_have() {
    let service = |spec: Value| {
        let mut spec = spec;
        spec["ports"] = json!([{"port": 80}]);
        json!({ "spec": spec })
    };
    let balanced_only = "may only be used when `type` is 'LoadBalancer'";
    check(
        &SERVICE,
        &[
            (
                service(json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x", "loadBalancerSourceRanges": ["10.0.0.0/8"]})),
                &[],
            ),
            (
                service(json!({"loadBalancerClass": "a/b", "allocateLoadBalancerNodePorts": true})),
                &[
                    &format!("spec.loadBalancerClass: Forbidden: {balanced_only}"),
                    &format!("spec.allocateLoadBalancerNodePorts: Forbidden: {balanced_only}"),
                ],
            ),
            (
                service(json!({"externalIPs": ["127.0.0.1", "x"], "ipFamilies": ["IPv4", "IPv4", "IPv5"]})),
                &[
                    "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
                    "spec.ipFamilies[2]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                service(json!({"healthCheckNodePort": 30000})),
                &[
                    "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
                ],
            ),
        ],
    );
    let of_class = |class: &str| service(json!({"type": "LoadBalancer", "loadBalancerClass": class}));
    assert_eq!(
        complaints(&SERVICE, &of_class("a/b"), Some(&of_class("a/c"))),
        ["spec.loadBalancerClass: Invalid value: \"a/b\": may not change once set"]
    );
}

#[test]
fn policies_of_jobs() {
    let job = |spec: Value| {
        let mut spec = spec;
        let labels = json!({"labels": {"a": "b"}});
        let template = json!({"metadata": labels, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
        spec["template"] = template;
        spec["selector"] = json!({"matchLabels": {"a": "b"}});
        spec["manualSelector"] = true.into();
        json!({ "spec": spec })
    };
    let failing = |rule: Value| job(json!({"podFailurePolicy": {"rules": [rule]}}));
    check(
        &JOB,
        &[
            (failing(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2], "containerName": "c"}})), &[]),
            (
                job(json!({"backoffLimitPerIndex": 1, "successPolicy": {}})),
                &[
                    "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
                    "spec.successPolicy: Invalid value: {\"rules\":null}: requires indexed completion mode",
                ],
            ),
            (
                job(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 100001, "maxFailedIndexes": 3})),
                &[
                    "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                    "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
                    "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
                ],
            ),
            (
                failing(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 0], "containerName": "d"}})),
                &[
                    "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                    "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer names in the pod template",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered",
                ],
            ),
            (
                failing(json!({"action": "Count"})),
                &["spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"],
            ),
        ],
    );
}

#[test]
fn claims_and_quotas() {
    let claim = |modes: Value| json!({"spec": {"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}}});
    check(
        &PERSISTENT_VOLUME_CLAIM,
        &[(
            claim(json!(["ReadWriteOncePod", "ReadOnlyMany"])),
            &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        )],
    );
    let quota = |hard: Value| json!({"spec": {"hard": hard}});
    check(
        &RESOURCE_QUOTA,
        &[
            (
                quota(
                    json!({"cpu": "1", "requests.storage": "1", "limits.memory": "1", "count/pods": "1", "requests.hugepages-2Mi": "1", "services.nodeports": "1"}),
                ),
                &[],
            ),
            (
                json!({"spec": {"hard": {"cores": "1"}}, "status": {"hard": {"storage": "1"}, "used": {"pods": "500m"}}}),
                &[
                    "spec.hard[cores]: Invalid value: cores: must be a standard resource type or fully qualified",
                    "spec.hard[cores]: Invalid value: cores: must be a standard resource for quota",
                    "status.hard[storage]: Invalid value: storage: must be a standard resource for quota",
                    "status.used[pods]: Invalid value: \"500m\": must be an integer",
                ],
            ),
            (
                json!({"spec": {"scopes": ["BestEffort", "NotBestEffort", "Odd"]}}),
                &[
                    r#"spec.scopes: Invalid value: []core.ResourceQuotaScope{"BestEffort", "NotBestEffort", "Odd"}: unsupported scope"#,
                    r#"spec.scopes: Invalid value: []core.ResourceQuotaScope{"BestEffort", "NotBestEffort", "Odd"}: conflicting scopes"#,
                ],
            ),
            (
                json!({"spec": {"hard": {"pods": "1", "requests.cpu": "1", "services": "1", "example.com/x": "1"}, "scopes": ["NotTerminating"]}}),
                &[r#"spec.scopes: Invalid value: []core.ResourceQuotaScope{"NotTerminating"}: unsupported scope applied to resource"#],
            ),
            (
                json!({"spec": {"scopeSelector": {"matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "In"}, {"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]},
                    {"scopeName": "PriorityClass", "operator": "Odd"}]}}}),
                &[
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or \
                     'NotIn' for scope selector",
                    "spec.scopeSelector.matchExpressions.values: Invalid value: []string{\"a\"}: must be no value when `operator` is \
                     'Exist' or 'DoesNotExist' for scope selector",
                    "spec.scopeSelector.matchExpressions.operator: Invalid value: \"Odd\": not a valid selector operator",
                ],
            ),
        ],
    );
}
