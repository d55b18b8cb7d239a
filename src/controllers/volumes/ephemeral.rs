//! Ephemeral volumes: a pod with a claim template gets the claim, and the claim is deleted with the pod.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::owners::{self, controller_reference};
use super::super::plan::{Controller, Plan, Source, Tell, Write, tree};
use super::super::pods;
use crate::cache::Cache;
use crate::client::events::EventType;
use crate::object::{ObjectKey, resource};

/// Makes the claims of pods.
#[derive(Debug)]
pub struct EphemeralController;

impl Controller for EphemeralController {
    fn name(&self) -> &'static str {
        "ephemeral_volume"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::leading_to(&resource::POD, |_, pod| pods::facts(pod).brings_claims.then(|| pod.key()).into_iter().collect()),
            Source::leading_to(&resource::PERSISTENT_VOLUME_CLAIM, |_, it| {
                owners::controller_key(it, &resource::POD).into_iter().collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let (namespace, pod_name) = (&*key.name.namespace, &*key.name.name);
        let pod = cache.get(&resource::POD, namespace, pod_name).filter(|it| !it.meta().is_deleted() && !pods::has_ended(it));
        let Some(pod) = pod else { return plan };
        let written = tree(&pod);
        for volume in written["spec"]["volumes"].as_array().into_iter().flatten() {
            let (template, volume) = (&volume["ephemeral"]["volumeClaimTemplate"], volume["name"].as_str().unwrap_or_default());
            if template.is_null() {
                continue;
            }
            let name = format!("{pod_name}-{volume}");
            match cache.get(&resource::PERSISTENT_VOLUME_CLAIM, namespace, &name) {
                Some(claim) if claim.meta().controller().is_some_and(|it| it.uid == pod.meta().uid) => {}
                Some(_) => {
                    let whose = format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod_name} (pod is not owner)");
                    plan.note(&pod, EventType::Warning, "FailedBinding", format!("ephemeral volume {volume}: {whose}"));
                }
                None => {
                    let mut metadata = json!({ "name": name, "ownerReferences": [controller_reference(&pod)] });
                    for part in ["labels", "annotations"] {
                        if let Some(given @ Value::Object(_)) = template["metadata"].get(part) {
                            metadata[part] = given.clone();
                        }
                    }
                    let object = json!({
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"],
                    });
                    let failure = ("FailedBinding", format!("ephemeral volume {volume}: create PVC {namespace}/{name}: {{}}"));
                    let tell = Some(Tell { about: pod.clone(), success: None, failure });
                    let namespace = namespace.to_owned();
                    plan.slowly.push(Write::Create { resource: &resource::PERSISTENT_VOLUME_CLAIM, namespace, object, tell });
                }
            }
        }
        plan
    }
}
