//! Autoscalers in `autoscaling/v1`, which supports only CPU and keeps the rest in annotations, and in the stored `autoscaling/v2`. The
//! annotations are those of Kubernetes, so that clients of either version see the other's values.

use serde_json::{Map, Value, json};

use super::super::decode::conform;
use crate::object::resource::HORIZONTAL_POD_AUTOSCALER;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// The annotations of v1 that hold values for which only v2 has fields.
pub const FIELDS_OF_V2: [&str; 4] = [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS];

/// The fields of a kind of metric: in v1, and as a pointer into v2.
type Names = (&'static str, &'static [(&'static str, &'static str)]);

/// How `spec.metrics` is spelled.
const ASKED: [Names; 5] = [
    (
        "resource",
        &[("name", "/name"), ("targetAverageUtilization", "/target/averageUtilization"), ("targetAverageValue", "/target/averageValue")],
    ),
    (
        "containerResource",
        &[
            ("name", "/name"),
            ("container", "/container"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
    ("pods", &[("metricName", "/metric/name"), ("selector", "/metric/selector"), ("targetAverageValue", "/target/averageValue")]),
    (
        "object",
        &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("averageValue", "/target/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    ),
];

/// How `status.currentMetrics` is spelled.
const MEASURED: [Names; 5] = [
    (
        "resource",
        &[
            ("name", "/name"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "/name"),
            ("container", "/container"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
    ("pods", &[("metricName", "/metric/name"), ("selector", "/metric/selector"), ("currentAverageValue", "/current/averageValue")]),
    (
        "object",
        &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("averageValue", "/current/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    ),
];

/// Converts to v2 (`stored`) or v1.
pub(super) fn convert(autoscaler: &mut Value, stored: bool) {
    if stored {
        to_v2(autoscaler);
    } else {
        to_v1(autoscaler);
    }
}

fn to_v1(autoscaler: &mut Value) {
    take_annotations(autoscaler);
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = fields(autoscaler, "spec") {
        let metrics = items(spec.remove("metrics"));
        let (cpu, others): (Vec<_>, Vec<_>) = metrics.into_iter().partition(|it| cpu_of(it, "target").is_some());
        if let Some(percent) = cpu.first().and_then(|it| cpu_of(it, "target")) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        notes.push((METRICS, others.iter().map(|it| metric_to_v1(&ASKED, it)).collect()));
        notes.extend(spec.remove("behavior").map(|it| (BEHAVIOR, with_keys(it, char::to_ascii_uppercase))));
    }
    if let Some(status) = fields(autoscaler, "status") {
        let metrics = items(status.remove("currentMetrics"));
        if let Some(percent) = metrics.iter().find_map(|it| cpu_of(it, "current")) {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        notes.push((CURRENT_METRICS, metrics.iter().map(|it| metric_to_v1(&MEASURED, it)).collect()));
        notes.push((CONDITIONS, items(status.remove("conditions")).into()));
    }
    for (annotation, value) in notes.into_iter().filter(|(_, value)| value != &json!([])) {
        autoscaler["metadata"]["annotations"][annotation] = value.to_string().into();
    }
}

fn to_v2(autoscaler: &mut Value) {
    let notes = take_annotations(autoscaler);
    // Annotations are free text: as in Kubernetes, values that do not match the field are dropped.
    let noted = |annotation: &str, path: [&str; 2], convert: &dyn Fn(Value) -> Value| -> Option<Value> {
        let value = serde_json::from_str(notes.get(annotation)?.as_str()?).ok()?;
        let conforming = conform(&HORIZONTAL_POD_AUTOSCALER, json!({path[0]: {path[1]: convert(value)}})).ok()?;
        conforming.value.get(path[0])?.get(path[1]).filter(|it| *it != &json!([])).cloned()
    };
    if let Some(spec) = fields(autoscaler, "spec") {
        let cpu = spec.remove("targetCPUUtilizationPercentage").map(|percent| {
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
        });
        let others = items(noted(METRICS, ["spec", "metrics"], &|it| metrics_to_v2(&ASKED, it)));
        let metrics: Vec<Value> = others.into_iter().chain(cpu).collect();
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), metrics.into());
        }
        let behavior = noted(BEHAVIOR, ["spec", "behavior"], &|it| with_keys(it, char::to_ascii_lowercase));
        spec.extend(behavior.map(|it| ("behavior".to_owned(), it)));
    }
    if let Some(status) = fields(autoscaler, "status") {
        let cpu = status
            .remove("currentCPUUtilizationPercentage")
            .map(|percent| json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}]));
        // The annotation is more precise.
        let metrics = noted(CURRENT_METRICS, ["status", "currentMetrics"], &|it| metrics_to_v2(&MEASURED, it)).or(cpu);
        status.extend(metrics.map(|it| ("currentMetrics".to_owned(), it)));
        let conditions = noted(CONDITIONS, ["status", "conditions"], &|it| it);
        status.extend(conditions.map(|it| ("conditions".to_owned(), it)));
    }
}

/// Removes the annotations that stand for fields.
fn take_annotations(autoscaler: &mut Value) -> Map<String, Value> {
    let mut taken = Map::new();
    let Some(metadata) = fields(autoscaler, "metadata") else { return taken };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return taken };
    for name in FIELDS_OF_V2 {
        taken.extend(annotations.remove(name).map(|value| (name.to_owned(), value)));
    }
    if annotations.is_empty() && !taken.is_empty() {
        metadata.remove("annotations");
    }
    taken
}

/// The percentage of the only metric that v1 has a field for.
fn cpu_of(metric: &Value, of: &str) -> Option<Value> {
    let resource = metric.get("resource").filter(|it| metric["type"] == "Resource" && it["name"] == "cpu")?;
    resource.get(of)?.get("averageUtilization").filter(|it| !it.is_null()).cloned()
}

fn metric_to_v1(names: &[Names; 5], metric: &Value) -> Value {
    let mut converted = json!({"type": metric["type"]});
    for (kind, names) in names {
        let Some(source) = metric.get(kind) else { continue };
        let fields = names.iter().filter_map(|(v1, v2)| Some(((*v1).to_owned(), source.pointer(v2)?.clone())));
        converted[*kind] = Value::Object(fields.collect());
    }
    converted
}

fn metrics_to_v2(names: &[Names; 5], metrics: Value) -> Value {
    items(Some(metrics)).iter().map(|it| metric_to_v2(names, it)).collect()
}

fn metric_to_v2(names: &[Names; 5], metric: &Value) -> Value {
    let mut converted = json!({"type": metric["type"]});
    for (kind, names) in names {
        let Some(source) = metric.get(kind) else { continue };
        let mut fields = json!({});
        for (v1, v2) in *names {
            // Where v1 requires a value, zero means none.
            let Some(value) = source.get(v1).filter(|it| !it.is_null() && *it != "0") else { continue };
            match v2[1..].split_once('/') {
                Some((outer, inner)) => fields[outer][inner] = value.clone(),
                None => fields[&v2[1..]] = value.clone(),
            }
        }
        if let Some(target) = fields.get_mut("target") {
            let kinds = [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
            let kind = kinds.iter().find(|(field, _)| target.get(field).is_some()).map(|it| it.1);
            target["type"] = kind.into();
        }
        converted[*kind] = fields;
    }
    converted
}

/// The value with the first letter of every key changed: behaviour is noted with capitals.
fn with_keys(value: Value, letter: fn(&char) -> char) -> Value {
    match value {
        Value::Object(map) => {
            let changed = |key: String| {
                let mut letters = key.chars();
                letters.next().map(|first| letter(&first)).into_iter().chain(letters).collect::<String>()
            };
            Value::Object(map.into_iter().map(|(key, value)| (changed(key), with_keys(value, letter))).collect())
        }
        Value::Array(items) => items.into_iter().map(|it| with_keys(it, letter)).collect(),
        other => other,
    }
}

fn fields<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(name)?.as_object_mut()
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert;
    use super::*;
    use crate::object::resource::HORIZONTAL_POD_AUTOSCALER_V1;

    fn v2() -> Value {
        let target = |kind: &str, field: &str, value: Value| json!({"type": kind, field: value});
        json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
            "metadata": {"name": "a", "annotations": {"mine": "kept"}},
            "spec": {"maxReplicas": 5, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "memory", "target": target("AverageValue", "averageValue", "1Gi".into())}},
                    {"type": "Pods", "pods": {"metric": {"name": "p", "selector": {"matchLabels": {"a": "b"}}}, "target": target("AverageValue", "averageValue", "10".into())}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "o"}, "target": target("Value", "value", "3".into())}},
                    {"type": "External", "external": {"metric": {"name": "e"}, "target": target("Value", "value", "4".into())}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": target("Utilization", "averageUtilization", 50.into())}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": target("Utilization", "averageUtilization", 70.into())}},
                ],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}},
            "status": {"currentReplicas": 2, "desiredReplicas": 3,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "100m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True", "reason": "Ready"}]}})
    }

    #[test]
    fn v1_has_a_field_for_cpu_and_annotations_for_the_rest() {
        let mut value = v2();
        convert(&mut value, &HORIZONTAL_POD_AUTOSCALER, &HORIZONTAL_POD_AUTOSCALER_V1);
        assert_eq!(value["apiVersion"], "autoscaling/v1");
        assert_eq!(value["spec"]["targetCPUUtilizationPercentage"], 70);
        assert_eq!(value["status"], json!({"currentReplicas": 2, "desiredReplicas": 3, "currentCPUUtilizationPercentage": 40}));
        let noted = |name: &str| -> Value { serde_json::from_str(value["metadata"]["annotations"][name].as_str().unwrap()).unwrap() };
        assert_eq!(noted(METRICS)[0], json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}));
        assert_eq!(
            noted(METRICS)[2],
            json!({"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "o", "targetValue": "3"}})
        );
        assert_eq!(noted(BEHAVIOR)["ScaleUp"]["Policies"], json!([{"Type": "Pods", "Value": 4, "PeriodSeconds": 15}]));
        assert_eq!(noted(CONDITIONS)[0]["reason"], "Ready");
        convert(&mut value, &HORIZONTAL_POD_AUTOSCALER_V1, &HORIZONTAL_POD_AUTOSCALER);
        assert_eq!(value, v2());
    }

    #[test]
    fn annotations_that_make_no_sense_are_dropped() {
        let mut value = json!({"metadata": {"annotations": {METRICS: "[{\"type\": 3}]", BEHAVIOR: "{", CONDITIONS: "{}"}},
            "spec": {"maxReplicas": 1, "targetCPUUtilizationPercentage": 50}, "status": {}});
        convert(&mut value, &HORIZONTAL_POD_AUTOSCALER_V1, &HORIZONTAL_POD_AUTOSCALER);
        assert_eq!(value["metadata"], json!({}));
        assert_eq!(value["spec"]["metrics"].as_array().map(Vec::len), Some(1));
        assert_eq!(value["status"], json!({}));
    }
}
