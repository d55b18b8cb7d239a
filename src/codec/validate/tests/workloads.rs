//! Workloads.

use serde_json::{Value, json};

use super::{check, complaints, with};
use crate::object::resource;

#[test]
fn workloads_and_jobs() {
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
                        if kind == "ReplicaSet" { "deployment".to_owned() } else { kind.to_lowercase() }
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
    let mut odd = job.clone();
    odd["spec"]["template"]["metadata"] = json!({"labels": {"a": "b c"}, "annotations": {"d e": ""}});
    odd["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
    odd["metadata"]["labels"] = json!({"x": "y"});
    let paths = |old: Option<&Value>| -> Vec<String> {
        complaints(&resource::JOB, &odd, old).iter().map(|it| it.split(':').next().unwrap_or_default().to_owned()).collect()
    };
    let once = ["spec.template.labels", "spec.template.annotations", "spec.template.metadata.labels"];
    let lacks = ["spec.template.metadata.labels[job-name]", "spec.template.metadata.labels[batch.kubernetes.io/job-name]"];
    assert_eq!(paths(None), [&lacks[..], &once].concat());
    assert_eq!(paths(Some(&odd)), [once, once].concat());
    let changed = complaints(&resource::JOB, &with(&job, "/spec/template/spec/containers/0/image", json!("j")), Some(&job));
    assert!(
        changed.len() == 1 && changed[0].starts_with("spec.template: Invalid value: {") && changed[0].ends_with(": field is immutable")
    );
    let cron = json!({"metadata": {"name": "x"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": with(&job, "/spec/selector", json!(null))["spec"]}}});
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
fn a_failure_policy_has_few_patterns() {
    let conditions: Value = (0..21).map(|it| json!({"type": format!("t{it}"), "status": "True"})).collect();
    let codes: Value = (1..=256).collect();
    let rule = |key: &str, value: Value| json!({"action": "FailJob", key: value});
    let rules = json!([rule("onPodConditions", conditions), rule("onExitCodes", json!({"operator": "In", "values": codes}))]);
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": template, "podFailurePolicy": {"rules": rules}}});
    check(
        &resource::JOB,
        &[(
            job,
            &[
                "spec.podFailurePolicy.rules[0].onPodConditions: Too many: 21: must have at most 20 items",
                "spec.podFailurePolicy.rules[1].onExitCodes.values: Too many: 256: must have at most 255 items",
            ],
        )],
    );
}

/// The fields of the faults, in the order in which clients see them.
fn fields(resource: crate::object::ResourceRef, value: &Value) -> Vec<String> {
    complaints(resource, value, None).iter().map(|it| it.split(": ").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn faults_come_in_the_order_of_kubernetes() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": ""}]}});
    let of = |kind: &str, mut more: Value| {
        more["selector"] = json!({"matchLabels": {"a": "b"}});
        more["template"] = template.clone();
        more["minReadySeconds"] = (-1).into();
        if kind != "DaemonSet" {
            more["replicas"] = (-1).into();
        }
        json!({"metadata": {"name": "x"}, "spec": more})
    };
    let deployment = of("Deployment", json!({"strategy": {"type": "X"}, "progressDeadlineSeconds": -1, "revisionHistoryLimit": -1}));
    assert_eq!(
        fields(&resource::DEPLOYMENT, &deployment),
        [
            "spec.replicas",
            "spec.template.spec.containers[0].image",
            "spec.strategy",
            "spec.minReadySeconds",
            "spec.revisionHistoryLimit",
            "spec.progressDeadlineSeconds",
            "spec.progressDeadlineSeconds",
        ]
    );
    let set = of("StatefulSet", json!({"podManagementPolicy": "X", "ordinals": {"start": -1}, "serviceName": "a b"}));
    assert_eq!(
        fields(&resource::STATEFUL_SET, &set),
        ["spec.podManagementPolicy", "spec.replicas", "spec.minReadySeconds", "spec.ordinals.start", "spec.serviceName"]
    );
    let daemons = of("DaemonSet", json!({"updateStrategy": {"type": "X"}, "revisionHistoryLimit": -1}));
    assert_eq!(
        fields(&resource::DAEMON_SET, &daemons),
        ["spec.template.spec.containers[0].image", "spec.minReadySeconds", "spec.updateStrategy", "spec.revisionHistoryLimit"]
    );

    let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": ""}]}});
    let rule = json!({"succeededIndexes": "x", "succeededCount": 1});
    let job = json!({"metadata": {"name": "j"}, "spec": {"completionMode": "Indexed", "completions": 2, "backoffLimit": -1,
        "podFailurePolicy": {"rules": [{"action": "X"}]}, "successPolicy": {"rules": [rule]}, "podReplacementPolicy": "TerminatingOrFailed",
        "template": template}});
    assert_eq!(
        fields(&resource::JOB, &job),
        [
            "spec.backoffLimit",
            "spec.podFailurePolicy.rules[0].action",
            "spec.podFailurePolicy.rules[0]",
            "spec.successPolicy.rules[0].succeededIndexes",
            "spec.successPolicy.rules[0].succeededCount",
            "spec.podReplacementPolicy",
            "spec.template.spec.containers[0].image",
            "spec.template.spec.restartPolicy",
        ]
    );
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "x", "concurrencyPolicy": "X", "startingDeadlineSeconds": -1,
        "successfulJobsHistoryLimit": -1, "jobTemplate": {"spec": {"backoffLimit": -1, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
    assert_eq!(
        fields(&resource::CRON_JOB, &cron),
        [
            "spec.schedule",
            "spec.startingDeadlineSeconds",
            "spec.concurrencyPolicy",
            "spec.jobTemplate.spec.backoffLimit",
            "spec.successfulJobsHistoryLimit",
        ]
    );
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "internalTrafficPolicy": "X", "ipFamilyPolicy": "X",
        "externalIPs": ["x"], "sessionAffinity": "X", "trafficDistribution": "X",
        "ports": [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 80, "protocol": "TCP", "appProtocol": "a b"}]}});
    assert_eq!(
        fields(&resource::SERVICE, &service),
        [
            "spec.ports[1].appProtocol",
            "spec.sessionAffinity",
            "spec.ipFamilyPolicy",
            "spec.externalIPs[0]",
            "spec.ports[1]",
            "spec.internalTrafficPolicy",
            "spec.trafficDistribution",
        ]
    );
    let claim = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "a b", "volumeMode": "X", "accessModes": ["X"]}});
    assert_eq!(
        fields(&resource::PERSISTENT_VOLUME_CLAIM, &claim),
        ["spec.accessModes", "spec.resources[storage]", "spec.storageClassName", "spec.volumeMode"]
    );
}

#[test]
fn windows_options() {
    let of = |options: Value| {
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "securityContext": {"windowsOptions": options}});
        json!({"metadata": {"name": "x"}, "spec": spec})
    };
    let user = |name: &str| of(json!({"runAsUserName": name}));
    let told = |name: &str, whys: &[&str]| {
        let path = "spec.securityContext.windowsOptions.runAsUserName";
        let faults: Vec<String> =
            whys.iter().map(|why| format!("{path}: Invalid value: {}: runAsUserName{why}", crate::util::go::quote(name))).collect();
        assert_eq!(complaints(&resource::POD, &user(name), None), faults);
    };
    for good in ["u", "Container User", "DOMAIN\\user", "a.example.com\\user.name"] {
        told(good, &[]);
    }
    told("", &[" cannot be an empty string"]);
    told("a\tb", &[" cannot contain control characters"]);
    told("a\\b\\c", &[" cannot contain more than one backslash"]);
    told(".a_b\\c", &["'s Domain doesn't match the NetBios nor the DNS format"]);
    told("a\\", &["'s User cannot be empty"]);
    told(&"a".repeat(105), &["'s User length must not be longer than 104 characters"]);
    told(". .", &["'s User cannot contain only periods or spaces"]);
    told("a@b", &["'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"]);
    let faulty = of(json!({"gmsaCredentialSpecName": "A", "gmsaCredentialSpec": ""}));
    assert_eq!(complaints(&resource::POD, &faulty, None).len(), 2);
}
