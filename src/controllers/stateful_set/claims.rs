//! The volume claims of a StatefulSet's pods: one per template and ordinal, and their owners (`persistentVolumeClaimRetentionPolicy`).

use std::sync::Arc;

use serde_json::{Value, json};

use super::identity;
use crate::cache::Cache;
use crate::client::Patch;
use crate::controllers::owners::controller_reference;
use crate::controllers::plan::{Plan, Tell, Write};
use crate::object::{Object, resource};

/// The claim templates of a set.
pub(super) struct Claims<'a> {
    set: &'a Arc<Object>,
    spec: &'a Value,
}

impl<'a> Claims<'a> {
    pub fn of(set: &'a Arc<Object>, written: &'a Value) -> Self {
        Self { set, spec: &written["spec"] }
    }

    fn templates(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let templates = self.spec["volumeClaimTemplates"].as_array();
        templates.into_iter().flatten().map(|it| (it["metadata"]["name"].as_str().unwrap_or_default(), it))
    }

    fn name(&self, template: &str, ordinal: i64) -> String {
        format!("{template}-{}", identity::name(self.set.name(), ordinal))
    }

    fn existing(&self, cache: &Cache, ordinal: i64) -> Vec<Arc<Object>> {
        let get = |name: String| cache.get(&resource::PERSISTENT_VOLUME_CLAIM, self.set.namespace(), &name);
        self.templates().filter_map(|(template, _)| get(self.name(template, ordinal))).collect()
    }

    /// Adds the claims to a pod's volumes, replacing volumes of the same names.
    pub fn mount(&self, ordinal: i64, pod: &mut Value) {
        let mut volumes: Vec<Value> = self
            .templates()
            .map(|(name, _)| json!({ "name": name, "persistentVolumeClaim": { "claimName": self.name(name, ordinal) } }))
            .collect();
        if volumes.is_empty() {
            return;
        }
        let others = pod["volumes"].as_array().into_iter().flatten();
        volumes.extend(others.filter(|it| !self.templates().any(|(name, _)| it["name"] == name)).cloned());
        pod["volumes"] = volumes.into();
    }

    /// Makes the claims of this ordinal that are not there.
    pub fn make(&self, cache: &Cache, ordinal: i64, plan: &mut Plan) {
        for (template_name, template) in self.templates() {
            let name = self.name(template_name, ordinal);
            if cache.get(&resource::PERSISTENT_VOLUME_CLAIM, self.set.namespace(), &name).is_some() {
                continue;
            }
            let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
            labels.extend(self.spec["selector"]["matchLabels"].as_object().cloned().unwrap_or_default());
            let mut object = json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": { "name": name, "labels": labels },
                "spec": template["spec"],
            });
            if template["metadata"]["annotations"].is_object() {
                object["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
            }
            if self.set_owns(false) {
                object["metadata"]["ownerReferences"] = json!([controller_reference(self.set)]);
            }
            let (set, pod) = (self.set.name(), identity::name(self.set.name(), ordinal));
            let tell = Tell {
                about: self.set.clone(),
                success: Some(("SuccessfulCreate", format!("create Claim {name} Pod {pod} in StatefulSet {set} success"))),
                failure: ("FailedCreate", format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {{}}")),
            };
            let namespace = self.set.namespace().to_owned();
            plan.slowly.push(Write::Create { resource: &resource::PERSISTENT_VOLUME_CLAIM, namespace, object, tell: Some(tell) });
        }
    }

    /// Whether a claim of this ordinal belongs to an earlier pod.
    pub fn are_stale(&self, cache: &Cache, ordinal: i64) -> bool {
        let name = identity::name(self.set.name(), ordinal);
        self.existing(cache, ordinal).iter().any(|it| it.meta().owners.iter().any(|it| *it.kind == *"Pod" && *it.name == *name))
    }

    fn deletes(&self, when: &str) -> bool {
        self.spec["persistentVolumeClaimRetentionPolicy"][when] == "Delete"
    }

    /// Whether claims are to go with the set.
    fn set_owns(&self, condemned: bool) -> bool {
        self.deletes("whenDeleted") && !(condemned && self.deletes("whenScaled"))
    }

    /// Sets the owners of this ordinal's claims according to the policy: none, the set, or the pod that is `condemned` by a smaller scale.
    /// Returns whether a write was needed.
    pub fn keep_owners(&self, cache: &Cache, ordinal: i64, condemned: Option<&Arc<Object>>, plan: &mut Plan) -> bool {
        let mut written = false;
        for claim in self.existing(cache, ordinal) {
            let has = |uid: &str| claim.meta().owners.iter().any(|it| *it.uid == *uid);
            let mut references = Vec::new();
            let wanted = [(self.set, self.set_owns(condemned.is_some()))].into_iter();
            for (owner, owns) in wanted.chain(condemned.map(|pod| (pod, self.deletes("whenScaled")))) {
                let uid = &*owner.meta().uid;
                match (has(uid), owns) {
                    (false, true) => references.push(controller_reference(owner)),
                    (true, false) => references.push(json!({ "$patch": "delete", "uid": uid })),
                    _ => {}
                }
            }
            if !references.is_empty() {
                let patch = Patch::Strategic(json!({"metadata": {"uid": &*claim.meta().uid, "ownerReferences": references}}));
                plan.writes.push(Write::Patch { key: claim.key(), subresource: "", patch });
                written = true;
            }
        }
        written
    }
}
