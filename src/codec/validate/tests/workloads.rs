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
    let mut odd = job.clone();
    odd["spec"]["template"]["metadata"] = json!({"labels": {"a": "b c"}, "annotations": {"d e": ""}});
    odd["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
    odd["metadata"]["labels"] = json!({"x": "y"});
    let paths = |old: Option<&Value>| -> Vec<String> {
        complaints(&resource::JOB, &odd, old).iter().map(|it| it.split(':').next().unwrap_or_default().to_owned()).collect()
    };
    let once = ["spec.template.labels", "spec.template.annotations", "spec.template.metadata.labels"];
    let lacks = ["spec.template.metadata.labels[job-name]", "spec.template.metadata.labels[batch.kubernetes.io/job-name]"];
    assert_eq!(paths(None), [&once[..], &lacks].concat());
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
