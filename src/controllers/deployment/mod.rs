//! Deployments: a ReplicaSet per version of the template, scaled against each other according to the strategy.

mod rollback;
mod rollout;
mod status;
mod version;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::plan::{Controller, Failure, Plan, Source, Write, tree};
use super::{owners, pods};
use crate::cache::Cache;
use crate::client::events::EventType;
use crate::object::{Object, ObjectKey, ResourceRef, resource};
use rollout::Limits;
use status::Report;
use version::{REVISION, Version};

/// Keeps the ReplicaSets of Deployments.
#[derive(Debug)]
pub struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::DEPLOYMENT),
            Source::leading_to(&resource::REPLICA_SET, |cache, set| owners::concerned(cache, set, &resource::DEPLOYMENT)),
            Source::leading_to(&resource::POD, awaited),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Some(selector) = owners::selector(&object) else {
            let why = "This deployment is selecting all pods. A non-empty selector is required.";
            plan.note(&object, EventType::Warning, "SelectingAll", why);
            return plan;
        };
        let sets = owners::claim(cache, &object, &resource::REPLICA_SET, &selector, &mut plan);
        Rollout::of(&object, sets).advance(cache, now, &mut plan);
        plan
    }

    fn refused(&self, cache: &Cache, key: &ObjectKey, failure: &Failure, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) {
            let status = tree(&object)["status"].take();
            plan.set_status(object.key(), &status, status::creation_refused(&status, failure, now));
        }
        plan
    }
}

/// The deployment that waits for the end of this pod: the strategy `Recreate` waits for all older ones.
fn awaited(cache: &Cache, pod: &Object) -> Vec<ObjectKey> {
    let gone = cache.get(&resource::POD, pod.namespace(), pod.name()).is_none_or(|it| it.meta().uid != pod.meta().uid);
    if !gone && !pods::has_ended(pod) {
        return Vec::new();
    }
    let set = owners::controller_key(pod, &resource::REPLICA_SET).and_then(|it| cache.get(it.resource, &it.name.namespace, &it.name.name));
    set.and_then(|it| owners::controller_key(&it, &resource::DEPLOYMENT)).into_iter().collect()
}

/// A deployment with its versions.
struct Rollout<'a> {
    object: &'a Arc<Object>,
    written: Value,
    limits: Limits,
    /// The fingerprint of the template asked for.
    template: u64,
    /// The version made from that template; the oldest if there are several.
    new: Option<Version>,
    /// The other versions, oldest first.
    old: Vec<Version>,
}

impl<'a> Rollout<'a> {
    fn of(object: &'a Arc<Object>, sets: Vec<Arc<Object>>) -> Self {
        let written = tree(object);
        let template = version::of_template(written["spec"]["template"].clone());
        let mut old: Vec<Version> = sets.into_iter().map(Version::of).collect();
        old.sort_by(|a, b| (&a.object.meta().created, a.object.name()).cmp(&(&b.object.meta().created, b.object.name())));
        let new = old.iter().position(|it| it.is_of(template)).map(|at| old.remove(at));
        Self { object, limits: Limits::of(&written["spec"]), written, template, new, old }
    }

    fn spec(&self) -> &Value {
        &self.written["spec"]
    }

    fn is_paused(&self) -> bool {
        self.spec()["paused"] == true
    }

    /// The next step: scaling, creation and cleanup of versions, and the status.
    fn advance(&mut self, cache: &Cache, now: Timestamp, plan: &mut Plan) {
        let mut report = Report::begin(self, now);
        if !self.object.meta().is_deleted() {
            let scaling = self.limits.changed(self.new.iter().chain(&self.old));
            if let Some(revision) = rollback::asked(self).filter(|_| self.new.is_some() && !self.is_paused()) {
                rollback::carry_out(self, revision, plan);
                return;
            }
            if self.is_paused() || scaling {
                let before = self.written["status"]["replicas"].as_i64().unwrap_or_default();
                rollout::scale(self.limits, before, &mut self.new, &mut self.old);
            } else if self.limits.recreate {
                self.recreate(cache, &mut report, plan);
            } else if let Some(new) = &mut self.new {
                rollout::roll(self.limits, new, &mut self.old);
            } else {
                self.create(cache, &mut report, plan);
            }
            self.write(plan);
            if self.is_paused() || self.is_complete() {
                self.forget(plan);
            }
        }
        report.end(self, plan);
    }

    fn recreate(&mut self, cache: &Cache, report: &mut Report, plan: &mut Plan) {
        for version in &mut self.old {
            version.replicas = 0;
        }
        let runs = |it: &Version| cache.owned(&resource::POD, &it.object.meta().uid).iter().any(|pod| !pods::has_ended(pod));
        if self.old.iter().any(|it| it.was > 0 || it.pods > 0 || runs(it)) {
            return;
        }
        match &mut self.new {
            Some(new) => new.replicas = self.limits.desired,
            None => self.create(cache, report, plan),
        }
    }

    /// Makes the version asked for.
    fn create(&self, cache: &Cache, report: &mut Report, plan: &mut Plan) {
        let collisions = report.collisions();
        let name = version::name(self.object, self.template, collisions);
        if cache.get(&resource::REPLICA_SET, self.object.namespace(), &name).is_some() {
            report.set_collisions(collisions + 1);
            return;
        }
        let replicas = self.limits.first(&self.old);
        plan.slowly.push(version::create(self.object, &self.written, &name, replicas, self.next_revision(), self.limits));
        report.created(&name, replicas);
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|it| it.revision).max().unwrap_or_default().saturating_add(1)
    }

    /// Plans the writes of the step, and the newest revision.
    fn write(&mut self, plan: &mut Plan) {
        let next = self.next_revision();
        for version in self.new.iter().chain(&self.old).filter(|it| it.replicas != it.was) {
            let message = version::scaling(version.object.name(), version.was, version.replicas);
            plan.note(self.object, EventType::Normal, version::SCALING, message);
        }
        for version in &self.old {
            version.write_scale(self.limits, plan);
        }
        let revision = match &mut self.new {
            Some(new) => {
                new.revision = new.revision.max(next);
                let (none, min_ready) = (Map::new(), self.written["spec"]["minReadySeconds"].as_i64().unwrap_or_default());
                let annotations = self.written["metadata"]["annotations"].as_object().unwrap_or(&none);
                new.write_newest(self.limits, annotations, min_ready, plan);
                new.revision
            }
            // Either a new version is being created, or none is: paused, waiting for old pods, or the name was taken.
            None if plan.creates(&resource::REPLICA_SET) => next,
            None => return,
        };
        let annotation = json!({ "metadata": { "annotations": { REVISION: revision.to_string() } } });
        // As part of the status: a change of annotations would count as a change of the specification.
        plan.merge_part(self.object.key(), "status", &self.written, annotation);
    }

    fn is_complete(&self) -> bool {
        let Some(new) = &self.new else { return false };
        let desired = self.limits.desired;
        new.was == desired && new.pods == desired && new.available >= desired && self.old.iter().all(|it| it.was == 0 && it.pods == 0)
    }

    /// Deletes the oldest versions beyond the history limit, unless they hold pods.
    fn forget(&self, plan: &mut Plan) {
        let Some(limit) = self.spec()["revisionHistoryLimit"].as_u64().filter(|it| *it < i32::MAX as u64) else { return };
        let mut versions: Vec<_> = self.old.iter().filter(|it| !it.object.meta().is_deleted()).collect();
        versions.sort_by_key(|it| it.revision);
        let surplus = versions.len().saturating_sub(limit as usize);
        for version in versions.into_iter().take(surplus).filter(|it| it.is_idle()) {
            plan.delete(&version.object, None);
        }
    }
}

impl Plan {
    fn creates(&self, resource: ResourceRef) -> bool {
        self.slowly.iter().any(|it| matches!(it, Write::Create { resource: made, .. } if *made == resource))
    }
}
