//! A simulated cluster for tests: plans are applied to a cache at once, and pods become ready when the test decides.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::conditions::time;
use super::plan::{Controller, Plan, Write};
use crate::cache::{Cache, Change, Event, Query};
use crate::client::Patch;
use crate::codec::{PatchKind, default, patch, validate};
use crate::object::{Object, ObjectKey, ResourceRef, Revision, resource};

/// The cache, with the controllers that run on it.
pub(super) struct World {
    pub cache: Arc<Cache>,
    pub now: Timestamp,
    revision: Revision,
    controllers: Vec<Box<dyn Controller>>,
    /// The recorded events as `reason: message`, without those of writes.
    pub told: Vec<String>,
    /// Objects that the server has but the cache does not know yet.
    pub unseen: Vec<Arc<Object>>,
    /// When the first of them wants to look again, as of the last step.
    due: Option<Timestamp>,
}

impl World {
    pub(super) fn new(controllers: Vec<Box<dyn Controller>>) -> Self {
        let cache = Cache::new(10_000);
        for resource in resource::ALL {
            cache.replace(resource, Vec::new(), 1);
        }
        Self {
            cache,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            revision: 1,
            controllers,
            told: Vec::new(),
            unseen: Vec::new(),
            due: None,
        }
    }

    /// Puts an object as a server would: with a uid, a time of creation, and a new revision.
    pub(super) fn put(&mut self, resource: ResourceRef, namespace: &str, mut object: Value) -> Arc<Object> {
        self.revision += 1;
        default(resource, &mut object);
        let metadata = &mut object["metadata"];
        if metadata["name"].is_null() {
            metadata["name"] = format!("{}{}", metadata["generateName"].as_str().unwrap_or("x-"), self.revision).into();
        }
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{}", self.revision).into();
            metadata["creationTimestamp"] = time(self.now).into();
            metadata["generation"] = 1.into();
        }
        metadata.as_object_mut().unwrap().remove("resourceVersion");
        if resource.namespaced {
            metadata["namespace"] = namespace.into();
        }
        let object = Object::from_stored(resource, object.to_string().as_bytes(), self.revision).unwrap();
        self.change(object.key(), Some(object.clone()));
        object
    }

    fn change(&self, key: ObjectKey, object: Option<Arc<Object>>) {
        self.cache.apply(vec![Change { key, revision: self.revision, object }], self.revision);
    }

    pub(super) fn patch(&mut self, key: &ObjectKey, merge: &Value) {
        self.apply(key, &Patch::Merge(merge.clone()));
    }

    fn apply(&mut self, key: &ObjectKey, write: &Patch) {
        let Some(object) = self.cache.get(key.resource, &key.name.namespace, &key.name.name) else { return };
        let tree: Value = serde_json::from_slice(object.body()).unwrap();
        let (Patch::Json(asked) | Patch::Merge(asked) | Patch::Strategic(asked)) = write;
        let now = object.revision().to_string();
        assert!(asked["metadata"]["resourceVersion"].as_str().is_none_or(|it| it == now), "{key} has changed since: {asked}");
        let (kind, write) = match write {
            Patch::Json(it) => (PatchKind::Json, it),
            Patch::Merge(it) => (PatchKind::Merge, it),
            Patch::Strategic(it) => (PatchKind::Strategic, it),
        };
        let mut tree = patch(key.resource, &tree, kind, write).unwrap();
        if tree["spec"] != super::plan::tree(&object)["spec"] {
            tree["metadata"]["generation"] = (object.meta().generation + 1).into();
        }
        self.keep_or_remove(key, object.meta().is_deleted(), tree);
    }

    /// Stores an object, unless it is deleted and has no finalizers.
    fn keep_or_remove(&mut self, key: &ObjectKey, deleted: bool, tree: Value) {
        let none = |it: &Value| it["finalizers"].as_array().is_none_or(Vec::is_empty);
        if deleted && none(&tree["metadata"]) && none(&tree["spec"]) {
            self.remove(key);
        } else {
            self.put(key.resource, &key.name.namespace, tree);
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        self.revision += 1;
        self.change(key.clone(), None);
    }

    pub(super) fn delete(&mut self, key: &ObjectKey, propagation: Option<&str>) {
        let Some(object) = self.cache.get(key.resource, &key.name.namespace, &key.name.name) else { return };
        let finalizer = match propagation {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        let mut finalizers: Vec<Value> = object.meta().finalizers.iter().map(|it| (**it).into()).collect();
        if propagation.is_some() {
            finalizers.retain(|it| it != "foregroundDeletion" && it != "orphan");
        }
        finalizers.extend(finalizer.map(Value::from));
        if finalizers.is_empty() {
            return self.remove(key);
        }
        let stamp = time(self.now);
        self.patch(key, &json!({"metadata": {"deletionTimestamp": stamp, "finalizers": finalizers}}));
    }

    pub(super) fn list(&self, resource: ResourceRef) -> Vec<Arc<Object>> {
        self.cache.list(resource, &Query::default()).objects
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// The formatted time in this many seconds.
    pub(super) fn time_in(&self, seconds: i64) -> String {
        time(self.now + SignedDuration::from_secs(seconds))
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Says of every pod that it runs and is ready.
    pub(super) fn make_ready(&mut self, pods: &[Arc<Object>]) {
        for pod in pods {
            let stamp = time(self.now);
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": stamp}]);
            self.patch(&pod.key(), &json!({"status": {"phase": "Running", "conditions": ready}}));
        }
    }

    /// Ends a pod: its containers exit with this code.
    pub(super) fn end(&mut self, pod: &Object, phase: &str, code: i64) {
        let terminated = json!({ "exitCode": code, "finishedAt": time(self.now) });
        let container =
            json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": terminated } });
        self.patch(&pod.key(), &json!({"status": {"phase": phase, "conditions": null, "containerStatuses": [container]}}));
    }

    /// Lets the time come at which the first controller wants to look again.
    pub(super) fn wait(&mut self) {
        self.settle(|_| ());
        let due = self.due.expect("nobody waits for anything");
        // Objects have whole seconds.
        self.now = Timestamp::from_second(due.as_second() + i64::from(due.subsec_nanosecond() > 0)).unwrap();
    }

    /// Runs every controller and makes every pod ready, until no work is left.
    pub(super) fn complete(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..200 {
            self.settle(&mut check);
            let waiting: Vec<_> = self.list(&resource::POD).into_iter().filter(|it| !super::pods::is_ready(it)).collect();
            if waiting.is_empty() {
                return;
            }
            self.make_ready(&waiting);
            self.pass(1);
        }
        panic!("there are always pods that are not ready");
    }

    /// Runs every controller until none has work left; `check` sees the cluster after every write.
    pub(super) fn settle(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..1000 {
            if !self.step(&mut check) {
                return;
            }
        }
        panic!("the controllers never come to rest");
    }

    /// Lets every controller work once; whether one had anything to do.
    pub(super) fn step(&mut self, check: &mut impl FnMut(&Self)) -> bool {
        let controllers = std::mem::take(&mut self.controllers);
        let mut busy = false;
        self.due = None;
        for controller in &controllers {
            let mut keys: VecDeque<ObjectKey> = VecDeque::new();
            for source in controller.sources() {
                let mut watch = self.cache.follow(source.resource, source.query.clone());
                while let Ok(Some(event)) = watch.try_next() {
                    if let Event::Added(object) = event {
                        keys.extend((source.keys)(&self.cache, &object));
                    }
                }
            }
            let mut done = std::collections::HashSet::new();
            for key in keys {
                if done.insert(key.clone()) {
                    let plan = controller.plan(&self.cache, &key, self.now);
                    busy |= !plan.writes_nothing();
                    self.told.extend(plan.notes.iter().map(|it| format!("{}: {}", it.reason, it.message)));
                    let due = plan.again.map(|it| self.now + it);
                    self.due = [self.due, due].into_iter().flatten().min();
                    self.carry_out(plan, check);
                }
            }
        }
        self.controllers = controllers;
        busy
    }

    fn carry_out(&mut self, plan: Plan, check: &mut impl FnMut(&Self)) {
        for write in plan.writes.into_iter().chain(plan.slowly) {
            self.write(write);
            check(self);
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Create { resource, namespace, object, .. } => {
                let created = self.put(resource, &namespace, object);
                let faults = validate(resource, &super::plan::tree(&created), None);
                assert!(faults.is_empty(), "{created:?}: {faults:?}");
            }
            Write::Patch { key, patch, .. } => self.apply(&key, &patch),
            Write::Replace { key, subresource: "status", object } => drop(self.put(key.resource, &key.name.namespace, object)),
            Write::Replace { key, object, .. } => self.keep_or_remove(&key, true, object),
            Write::DeleteAll { resource, namespace } => {
                for object in self.list(resource).iter().filter(|it| it.namespace() == namespace) {
                    self.remove(&object.key());
                }
            }
            Write::Delete { key, options, .. } => self.delete(&key, options.propagation),
            Write::UnlessFound { objects, write } => {
                let is = |it: &Object, (key, uid): &(ObjectKey, String)| it.key() == *key && (uid.is_empty() || *it.meta().uid == **uid);
                if !objects.iter().any(|wanted| self.unseen.iter().any(|it| is(it, wanted))) {
                    self.write(*write);
                }
            }
            Write::UnlessAny { resource, namespace, is, name, write } => {
                let of = |it: &&Arc<Object>| it.resource() == resource && it.namespace() == namespace;
                if !self.unseen.iter().filter(of).any(|it| is(it, &name)) {
                    self.write(*write);
                }
            }
        }
    }
}
