//! Rules about pods that several components share.

use serde_json::Value;

use super::Object;
use crate::util::json;
use crate::util::quantity::Quantity;

/// The annotation of a mirror pod: the uid of the static pod that it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a pod of this phase has ended: its containers have, for good.
pub fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Whether the API shows that a pod has ended.
pub fn has_ended(pod: &Object) -> bool {
    pod.field("status.phase").is_some_and(is_final)
}

/// Whether an image has the tag `latest`, or neither tag nor digest, which means the same. Such an image is always pulled, unless its
/// container says otherwise.
pub fn means_latest(image: &str) -> bool {
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    // A colon before the last slash belongs to a registry's port.
    let last = named.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none() && !image.is_empty(),
    }
}

/// The quality-of-service class: `Guaranteed` if every container's requests are its limits for cpu and memory, `BestEffort` if none has
/// either, else `Burstable`. `amount` reads `requests` or `limits` of a container; zero counts as
/// absent.
pub fn qos_class<C>(containers: impl IntoIterator<Item = C>, amount: impl Fn(&C, &str, &str) -> Option<Quantity>) -> &'static str {
    let (mut any, mut equal) = (false, true);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let amount = |what| amount(&container, what, resource).filter(|it| *it > Quantity::default());
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            equal &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The quality-of-service class of a pod in JSON.
pub fn qos_class_of(pod: &Value) -> &'static str {
    let containers = json::items(pod, "/spec/containers").iter().chain(json::items(pod, "/spec/initContainers"));
    qos_class(containers, |it, what, resource| Quantity::from_json(it.get("resources")?.get(what)?.get(resource)?).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let guaranteed = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        for (containers, class) in [
            (json!([{}]), "BestEffort"),
            (json!([{"requests": {"cpu": "0"}}]), "BestEffort"),
            (json!([{"requests": {"cpu": "100m"}}]), "Burstable"),
            (json!([{"limits": {"cpu": "1", "memory": "1Gi"}}]), "Guaranteed"),
            (json!([guaranteed]), "Guaranteed"),
            (json!([guaranteed, {}]), "Burstable"),
            (json!([{"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "500m"}}]), "Burstable"),
            (json!([{"limits": {"cpu": "1", "memory": "7Ei"}, "requests": {"memory": "6Ei"}}]), "Burstable"),
        ] {
            let amount = |it: &&Value, what: &str, resource: &str| Quantity::from_json(it.get(what)?.get(resource)?).ok();
            assert_eq!(qos_class(containers.as_array().unwrap(), amount), class, "{containers}");
        }
    }

    #[test]
    fn images_without_tag_and_digest_are_the_latest() {
        for (image, latest) in [
            ("app", true),
            ("app:latest", true),
            ("host:5000/app", true),
            ("app:latest@sha256:12", true),
            ("app:1", false),
            ("app@sha256:12", false),
            ("app:1@sha256:12", false),
            ("", false),
        ] {
            assert_eq!(means_latest(image), latest, "{image}");
        }
    }
}
