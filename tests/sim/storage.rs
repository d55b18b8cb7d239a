//! Claims and volumes: local disks that wait for their first consumer, the volume controller, and a provisioner that at times does not
//! answer or refuses.

use std::collections::BTreeSet;
use std::sync::Arc;

use km::object::storage::{BIND_COMPLETED, SELECTED_NODE, reservation};
use km::object::{Name, Object, ResourceRef, Revision, resource};
use km::scheduler::storage::Write;
use serde_json::{Value, json};

use crate::api::{Api, Change, NAMESPACE, text};
use crate::world::World;

/// The names of claims; the first ones belong to the class without a provisioner.
const CLAIMS: [&str; 4] = ["c0", "c1", "c2", "c3"];
const STATIC: usize = 2;

/// All classes.
pub fn classes() -> Vec<Arc<Object>> {
    let class = |(name, provisioner): (&str, &str)| {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
        Object::from_stored(&resource::STORAGE_CLASS, class.to_string().as_bytes(), 1).unwrap()
    };
    [("static", "kubernetes.io/no-provisioner"), ("made", "example.com/disk")].map(class).into()
}

fn volume(name: &str, class: &str, host: &str, claim: &Value) -> Value {
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]});
    json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}, "claimRef": claim}, "status": {"phase": "Available"}})
}

/// The machine of a local volume.
fn host_of(volume: &Value) -> &str {
    text(volume, "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0")
}

fn is_bound(claim: &Value) -> bool {
    !claim["metadata"]["annotations"][BIND_COMPLETED].is_null()
}

fn selected(claim: &Value) -> &str {
    text(claim, "/metadata/annotations/volume.kubernetes.io~1selected-node")
}

fn claim_of(pod: &Value) -> &str {
    text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName")
}

/// Applies a merge patch.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *object = patch.clone() };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}

impl Api {
    pub fn list_claims(&self) -> Vec<Arc<Object>> {
        self.claims.values().cloned().collect()
    }

    pub fn list_volumes(&self) -> Vec<Arc<Object>> {
        self.volumes.values().cloned().collect()
    }

    /// An object as it is written, at the next revision.
    fn write(&mut self, resource: ResourceRef, mut value: Value) -> Arc<Object> {
        self.revision += 1;
        value["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        Object::from_stored(resource, value.to_string().as_bytes(), self.revision).unwrap()
    }

    fn put_claim(&mut self, claim: Value) -> Revision {
        let object = self.write(&resource::PERSISTENT_VOLUME_CLAIM, claim);
        self.claims.insert(object.name().to_owned(), object.clone());
        self.changes.push(Change::Claim(object));
        self.revision
    }

    fn put_volume(&mut self, volume: Value) -> Revision {
        let object = self.write(&resource::PERSISTENT_VOLUME, volume);
        self.volumes.insert(object.name().to_owned(), object.clone());
        self.changes.push(Change::Volume(object));
        self.revision
    }

    fn remove_claim(&mut self, name: &str) {
        if self.claims.remove(name).is_some() {
            self.changes.push(Change::ClaimGone(Name::new(NAMESPACE, name)));
        }
    }

    fn remove_volume(&mut self, name: &str) {
        if self.volumes.remove(name).is_some() {
            self.changes.push(Change::VolumeGone(name.to_owned()));
        }
    }

    /// Carries out a write of the scheduler, if its conditions hold.
    pub fn bind_claim(&mut self, write: &Write) -> Option<Revision> {
        let claim = self.claims.get(write.claim().name()).filter(|it| it.meta().uid == write.claim().meta().uid)?.clone();
        let same = |seen: &Object| seen.revision() == claim.revision();
        let annotated = |host: Value| with(&claim, &json!({"metadata": {"annotations": {SELECTED_NODE: host}}}));
        Some(match write {
            Write::Reserve { volume, claim, .. } => {
                let now = self.volumes.get(volume.name()).filter(|it| it.revision() == volume.revision())?;
                let reserved = with(now, &reservation(volume, claim));
                self.put_volume(reserved)
            }
            Write::Select { claim: seen, host, .. } if same(seen) => self.put_claim(annotated((**host).into())),
            Write::Select { .. } => return None,
            Write::Unselect { .. } => self.put_claim(annotated(Value::Null)),
        })
    }

    /// A pod runs only where its claim's volume is.
    pub fn check_place(&self, pod: &Value, node: &str) {
        let name = claim_of(pod);
        if name.is_empty() {
            return;
        }
        let claim = self.claims.get(name).map(|it| tree(it)).unwrap_or_default();
        assert!(is_bound(&claim), "a pod is bound to {node}, and its claim {name} is {claim}");
        let volume = self.volumes.get(text(&claim, "/spec/volumeName")).map(|it| tree(it)).unwrap_or_default();
        assert_eq!(host_of(&volume), node, "of the volume of {name}");
    }

    /// No two claims share a volume.
    pub fn check_claims(&self) {
        let mut named = BTreeSet::new();
        for claim in self.claims.values().map(|it| tree(it)).filter(is_bound) {
            let volume = text(&claim, "/spec/volumeName").to_owned();
            let reserved = self.volumes.get(&volume).map(|it| tree(it)).unwrap_or_default();
            assert_eq!(reserved["spec"]["claimRef"]["uid"], claim["metadata"]["uid"], "{volume} is reserved for another");
            assert!(named.insert(volume), "two claims have one volume: {claim}");
        }
    }
}

fn tree(object: &Object) -> Value {
    serde_json::from_slice(object.body()).unwrap()
}

fn with(object: &Object, patch: &Value) -> Value {
    let mut merged = tree(object);
    merge(&mut merged, patch);
    merged
}

impl World {
    /// A local volume for each machine.
    pub fn make_volumes(&mut self) {
        for host in self.hosts() {
            self.api.put_volume(volume(&format!("disk-{host}"), "static", &host, &Value::Null));
        }
    }

    /// Gives a new pod a claim, and makes the pod small: it must fit on the machine of its volume.
    pub fn use_claim(&mut self, spec: &mut Value) {
        let name = CLAIMS[(self.random() % CLAIMS.len() as u64) as usize];
        spec["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": name}}]);
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["resources"]["limits"]["cpu"] = "1m".into();
                container["ports"] = json!([]);
            }
        }
    }

    /// The user creates a claim, or deletes one that no pod uses.
    pub fn user_turns_to_claims(&mut self) {
        let name = CLAIMS[(self.random() % CLAIMS.len() as u64) as usize];
        if !self.api.claims.contains_key(name) {
            return self.user_creates_claim(name);
        }
        let is_used = self.api.pods.values().any(|pod| claim_of(pod) == name);
        if !is_used {
            self.note(|| format!("the user deletes the claim {name}"));
            self.api.remove_claim(name);
        }
    }

    fn user_creates_claim(&mut self, name: &str) {
        self.note(|| format!("the user creates the claim {name}"));
        let class = if CLAIMS[..STATIC].contains(&name) { "static" } else { "made" };
        self.next_pod += 1;
        let claim = json!({"metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("claim-{}", self.next_pod)},
            "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Pending"}});
        self.api.put_claim(claim);
    }

    /// Creates all possible claims.
    pub fn mend_claims(&mut self) {
        for name in CLAIMS {
            if !self.api.claims.contains_key(name) {
                self.user_creates_claim(name);
            }
        }
    }

    /// Pending work of the volume controller and the provisioner, by the object's name.
    pub fn storage_ready(&self) -> Vec<String> {
        let volumes = self.api.volumes.values().filter(|it| self.claimed(it).is_some_and(|claim| claim.is_none_or(|it| !is_bound(&it))));
        let to_make = |claim: &&Arc<Object>| {
            let claim = tree(claim);
            let host = selected(&claim);
            // The provisioner silently ignores these.
            let is_stuck = self.faulty && matches!(host, "m0" | "m1");
            !is_bound(&claim) && text(&claim, "/spec/storageClassName") == "made" && !host.is_empty() && !is_stuck
        };
        let reserved = |claim: &&Arc<Object>| self.api.volumes.values().any(|it| tree(it)["spec"]["claimRef"]["uid"] == *claim.meta().uid);
        let claims = self.api.claims.values().filter(to_make).filter(|it| !reserved(it));
        volumes.chain(claims).map(|it| it.name().to_owned()).collect()
    }

    /// The claim for which a volume is reserved; `None` if unreserved, `Some(None)` if that claim is gone.
    fn claimed(&self, volume: &Object) -> Option<Option<Value>> {
        let reference = tree(volume)["spec"]["claimRef"].take();
        let uid = reference["uid"].as_str()?;
        Some(self.api.claims.get(text(&reference, "/name")).filter(|it| *it.meta().uid == *uid).map(|it| tree(it)))
    }

    pub fn storage_acts(&mut self, name: &str) {
        match self.api.volumes.get(name).cloned() {
            Some(volume) => match self.claimed(&volume).flatten() {
                Some(mut claim) => {
                    self.stats.bound += 1;
                    claim["spec"]["volumeName"] = name.into();
                    claim["metadata"]["annotations"][BIND_COMPLETED] = "yes".into();
                    claim["status"]["phase"] = "Bound".into();
                    self.api.put_claim(claim);
                    let bound = with(&volume, &json!({"status": {"phase": "Bound"}}));
                    self.api.put_volume(bound);
                }
                None if name.starts_with("disk") => {
                    let free = with(&volume, &json!({"spec": {"claimRef": null}, "status": {"phase": "Available"}}));
                    self.api.put_volume(free);
                }
                None => self.api.remove_volume(name),
            },
            None => self.provision(name),
        }
    }

    fn provision(&mut self, name: &str) {
        let Some(claim) = self.api.claims.get(name).cloned() else { return };
        let host = selected(&tree(&claim)).to_owned();
        if self.fails(30) {
            let refused = with(&claim, &json!({"metadata": {"annotations": {SELECTED_NODE: null}}}));
            self.api.put_claim(refused);
            return;
        }
        let reference = json!({"namespace": NAMESPACE, "name": name, "uid": &*claim.meta().uid});
        self.api.put_volume(volume(&format!("made-{}", claim.meta().uid), "made", &host, &reference));
    }
}
