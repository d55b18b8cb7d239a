//! AppArmor profiles of containers, which a field names since an annotation no longer has to: a new pod has both.

use serde_json::{Map, Value, json};

use super::json;

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";
const FIELD: &str = "appArmorProfile";

/// Copies each container's profile between a new pod's annotations and fields, where one of them is missing. Returns warnings for
/// annotations that merely stand for a field.
pub(crate) fn complete(pod: &mut Value) -> Vec<String> {
    if !is_mentioned(pod) || json::text(pod, "/spec/os/name") == "windows" {
        return Vec::new();
    }
    let mut annotations = json::at(pod, "/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    let of_pod = json::at(pod, "/spec/securityContext").and_then(|it| it.get(FIELD)).cloned();
    let mut warnings = Vec::new();
    let spec = json::map(pod, "spec");
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let key = format!("{ANNOTATION}{}", container.get("name").and_then(Value::as_str).unwrap_or_default());
            let own = container.get("securityContext").and_then(|it| it.get(FIELD));
            match annotations.get(&key).map(|it| it.as_str().unwrap_or_default()) {
                None => {
                    if let Some(annotation) = own.or(of_pod.as_ref()).and_then(annotation) {
                        annotations.insert(key, annotation.into());
                    }
                }
                Some(annotation) if own.is_none() => {
                    let field = field(annotation);
                    if field.is_some() && field == of_pod {
                        continue;
                    }
                    warnings
                        .push(format!("metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
                    if let Some(field) = field {
                        json::entry_map(container, "securityContext").insert(FIELD.to_owned(), field);
                    }
                }
                Some(_) => {}
            }
        }
    }
    if !annotations.is_empty() {
        json::metadata(pod).insert("annotations".to_owned(), annotations.into());
    }
    warnings
}

/// Whether a pod mentions profiles; nearly none does.
fn is_mentioned(pod: &Value) -> bool {
    let has = |it: &Value| it.get("securityContext").is_some_and(|it| it.get(FIELD).is_some());
    let annotated = |it: &Map<String, Value>| it.keys().any(|key| key.starts_with(ANNOTATION));
    let containers = |list: &str| json::items(pod, list).iter().any(has);
    json::at(pod, "/metadata/annotations").and_then(Value::as_object).is_some_and(annotated)
        || pod.get("spec").is_some_and(has)
        || ["/spec/containers", "/spec/initContainers"].into_iter().any(containers)
}

fn annotation(profile: &Value) -> Option<String> {
    Some(match json::text(profile, "/type") {
        "Unconfined" => "unconfined".to_owned(),
        "RuntimeDefault" => "runtime/default".to_owned(),
        "Localhost" => format!("{LOCALHOST}{}", profile.get("localhostProfile")?.as_str()?),
        _ => return None,
    })
}

/// `None` if the annotation is not a profile.
fn field(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let profile = annotation.strip_prefix(LOCALHOST).filter(|it| is_profile(it))?;
            Some(json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

/// Whether a field could name it: it leads nowhere else, and is not padded.
fn is_profile(name: &str) -> bool {
    const LONGEST: usize = 4095;
    !name.trim().is_empty() && name.trim() == name && name.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_annotations_say_the_same() {
        let pod = |annotations: Value, of_pod: Value, of_container: Value| {
            json!({"metadata": {"annotations": annotations},
                "spec": {"securityContext": of_pod, "containers": [{"name": "c", "securityContext": of_container}]}})
        };
        let profile = |kind: &str| json!({FIELD: {"type": kind}});
        let annotated = |text: &str| json!({format!("{ANNOTATION}c"): text});
        let local = json!({FIELD: {"type": "Localhost", "localhostProfile": "p"}});
        for (before, after, warns) in [
            (pod(json!({}), json!({}), json!({})), pod(json!({}), json!({}), json!({})), false),
            (pod(json!({}), json!({}), local.clone()), pod(annotated("localhost/p"), json!({}), local.clone()), false),
            (pod(json!({}), profile("Unconfined"), json!({})), pod(annotated("unconfined"), profile("Unconfined"), json!({})), false),
            (pod(annotated("localhost/p"), json!({}), json!({})), pod(annotated("localhost/p"), json!({}), local), true),
            (
                pod(annotated("unconfined"), profile("Unconfined"), json!({})),
                pod(annotated("unconfined"), profile("Unconfined"), json!({})),
                false,
            ),
            (pod(annotated("what"), json!({}), json!({})), pod(annotated("what"), json!({}), json!({})), true),
        ] {
            let mut completed = before.clone();
            assert_eq!(complete(&mut completed).is_empty(), !warns, "{before}");
            assert_eq!(completed, after);
        }
    }
}
