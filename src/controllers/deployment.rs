//! Deployments: a ReplicaSet for each version of the template, scaled against each other as the strategy says.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::plan::{Controller, Note, Plan, Source, Write, controller_key, controller_reference, covers, tree};
use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::client::{DeleteOptions, Patch};
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, resource};

const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// Keeps the ReplicaSets of Deployments.
#[derive(Debug)]
pub struct DeploymentController;

/// A ReplicaSet as the rollout sees it; `replicas` is what it is to be scaled to.
#[derive(Clone, Debug)]
struct Version {
    object: Arc<Object>,
    replicas: i64,
    /// What it is scaled to now.
    was: i64,
    /// Pods there are, ready, and available.
    pods: i64,
    ready: i64,
    available: i64,
    revision: i64,
}

/// The numbers a rollout goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    desired: i64,
    max_surge: i64,
    max_unavailable: i64,
}

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::DEPLOYMENT),
            Source::leading_to(&resource::REPLICA_SET, |cache, set| {
                if set.meta().controller().is_some() {
                    return controller_key(set, &resource::DEPLOYMENT).into_iter().collect();
                }
                let query = Query::namespace(set.namespace());
                let all = cache.list(&resource::DEPLOYMENT, &query).objects;
                all.iter().filter(|it| selector(it).is_some_and(|it| it.matches(set))).map(|it| it.key()).collect()
            }),
        ]
    }

    /// The strategy `Recreate` waits for the pods of older versions to be gone.
    fn reads(&self) -> Vec<crate::object::ResourceRef> {
        vec![&resource::POD]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let (Ok(typed), Some(selector)) = (object.typed::<Deployment>(), selector(&object)) else { return plan };
        if object.meta().is_deleted() || selector.requirements.is_empty() {
            return plan;
        }
        let mut written = tree(&object);
        let template = written["spec"]["template"].take();
        let spec = typed.spec.clone().unwrap_or_default();
        let limits = Limits::of(typed);
        let recreate = spec.strategy.as_ref().and_then(|it| it.type_.as_deref()) == Some("Recreate");
        let paused = spec.paused == Some(true);

        let sets = claim(cache, &object, &selector, &mut plan);
        let mut versions: Vec<Version> = sets.iter().map(Version::of).collect();
        versions.sort_by(|a, b| a.object.meta().created.cmp(&b.object.meta().created).then_with(|| a.object.name().cmp(b.object.name())));
        let newest = versions.iter().map(|it| it.revision).max().unwrap_or_default();
        let current = versions.iter().position(|it| same_template(&it.object, &template));
        let mut new = current.map(|at| versions.remove(at));
        let mut old = versions;

        if new.is_none() && !paused {
            let collisions = written["status"]["collisionCount"].as_i64().unwrap_or_default();
            let name = format!("{}-{}", object.name(), template_hash(&template, collisions));
            if cache.get(&resource::REPLICA_SET, object.namespace(), &name).is_some() {
                plan.set_status(object.key(), &written["status"], json!({ "collisionCount": collisions + 1 }));
                return plan;
            }
            let total: i64 = old.iter().map(|it| it.was).sum();
            let replicas = match recreate {
                true if old.iter().any(|it| it.was > 0 || it.pods > 0) => 0,
                true => limits.desired,
                false => (limits.maximum() - total).clamp(0, limits.desired),
            };
            plan.writes.push(create_set(&object, &name, &template, &spec, replicas, newest + 1, limits));
            plan.notes.push(scaling(&object, "up", &name, 0, replicas));
        } else {
            if let Some(version) = &mut new
                && version.revision < old.iter().map(|it| it.revision).max().unwrap_or_default()
            {
                version.revision = newest + 1;
            }
            if limits.desired_changed(new.iter().chain(&old)) || paused {
                scale(limits, recreate, &mut new, &mut old);
            } else if recreate {
                recreate_step(cache, limits, &mut new, &mut old);
            } else if let Some(new) = &mut new {
                rolling_step(limits, new, &mut old);
            }
        }
        for version in new.iter().chain(&old) {
            version.write(&object, limits, version.replicas > 0, &mut plan);
        }
        let revision = new.as_ref().map_or(newest + 1, |it| it.revision);
        let annotation = json!({ "metadata": { "annotations": { REVISION: revision.to_string() } } });
        if (new.is_some() || !paused) && !covers(&written, &annotation) {
            plan.writes.push(Write::Patch { key: object.key(), subresource: "", patch: Patch::Merge(annotation) });
        }
        let status = status(&object, typed, limits, new.as_ref(), &old, paused, now, &mut plan);
        if is_complete(limits, new.as_ref(), &old) {
            forget(&mut old, spec.revision_history_limit.unwrap_or(10), &mut plan);
        }
        plan.set_status(object.key(), &written["status"], status);
        plan
    }
}

impl Limits {
    fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let desired = i64::from(spec.and_then(|it| it.replicas).unwrap_or(1));
        let rolling = spec.and_then(|it| it.strategy.as_ref()).and_then(|it| it.rolling_update.as_ref());
        let part = |value: Option<&IntOrString>, up: bool| match value {
            Some(IntOrString::Int(number)) => i64::from(*number),
            Some(IntOrString::String(text)) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(25);
                if up { (desired * percent + 99) / 100 } else { desired * percent / 100 }
            }
            None if up => (desired * 25 + 99) / 100,
            None => desired * 25 / 100,
        };
        let max_surge = part(rolling.and_then(|it| it.max_surge.as_ref()), true);
        let max_unavailable = part(rolling.and_then(|it| it.max_unavailable.as_ref()), false);
        // Both may round to nothing, and then nothing could ever move.
        let max_unavailable = if max_surge == 0 && max_unavailable == 0 { 1 } else { max_unavailable };
        Self { desired, max_surge, max_unavailable: max_unavailable.min(desired) }
    }

    fn maximum(self) -> i64 {
        self.desired + self.max_surge
    }

    /// Whether the user changed `spec.replicas` since the versions were last scaled.
    fn desired_changed<'a>(self, versions: impl Iterator<Item = &'a Version>) -> bool {
        versions.filter(|it| it.was > 0).any(|it| it.noted(DESIRED).is_some_and(|noted| noted != self.desired))
    }
}

impl Version {
    fn of(object: &Arc<Object>) -> Self {
        let typed = object.typed::<ReplicaSet>().ok();
        let replicas = i64::from(typed.and_then(|it| it.spec.as_ref()?.replicas).unwrap_or(1));
        let status = typed.and_then(|it| it.status.as_ref());
        let count = |it: Option<i32>| i64::from(it.unwrap_or_default());
        let mut version = Self {
            object: object.clone(),
            replicas,
            was: replicas,
            pods: status.map_or(0, |it| i64::from(it.replicas)),
            ready: status.map_or(0, |it| count(it.ready_replicas)),
            available: status.map_or(0, |it| count(it.available_replicas)),
            revision: 0,
        };
        version.revision = version.noted(REVISION).unwrap_or_default();
        version
    }

    fn noted(&self, annotation: &str) -> Option<i64> {
        self.object.typed::<ReplicaSet>().ok()?.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
    }

    /// Writes what changed: the scale, the revision, and the numbers noted for the next scaling.
    fn write(&self, deployment: &Arc<Object>, limits: Limits, noted: bool, plan: &mut Plan) {
        let mut patch = json!({ "metadata": { "annotations": { REVISION: self.revision.to_string() } } });
        if noted || self.replicas != self.was {
            patch["metadata"]["annotations"][DESIRED] = limits.desired.to_string().into();
            patch["metadata"]["annotations"][MAXIMUM] = limits.maximum().to_string().into();
        }
        if self.replicas != self.was {
            patch["spec"] = json!({ "replicas": self.replicas });
            let direction = if self.replicas > self.was { "up" } else { "down" };
            plan.notes.push(scaling(deployment, direction, self.object.name(), self.was, self.replicas));
        }
        if !covers(&tree(&self.object), &patch) {
            plan.writes.push(Write::Patch { key: self.object.key(), subresource: "", patch: Patch::Merge(patch) });
        }
    }
}

fn scaling(deployment: &Arc<Object>, direction: &str, set: &str, from: i64, to: i64) -> Note {
    let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
    Note { about: deployment.clone(), kind: EventType::Normal, reason: "ScalingReplicaSet", message }
}

/// After a change of `spec.replicas`, or while paused: one version follows at once, several share the difference by their sizes.
fn scale(limits: Limits, recreate: bool, new: &mut Option<Version>, old: &mut [Version]) {
    let mut active: Vec<&mut Version> = new.iter_mut().chain(old.iter_mut()).filter(|it| it.was > 0).collect();
    if active.len() <= 1 {
        drop(active);
        let only = old.iter_mut().rfind(|it| it.was > 0);
        if let Some(version) = only.or(new.as_mut()) {
            version.replicas = limits.desired;
        }
        return;
    }
    let total: i64 = active.iter().map(|it| it.was).sum();
    let allowed = if recreate || limits.desired == 0 { limits.desired } else { limits.maximum() };
    let difference = allowed - total;
    active.sort_by_key(|it| Reverse(it.was));
    let mut left = difference;
    for version in &mut active {
        let share = (difference * version.was) / total;
        version.replicas = (version.was + share).max(0);
        left -= version.replicas - version.was;
    }
    // What rounding left over goes to the largest.
    active[0].replicas = (active[0].replicas + left).max(0);
}

fn recreate_step(cache: &Cache, limits: Limits, new: &mut Option<Version>, old: &mut [Version]) {
    for version in old.iter_mut() {
        version.replicas = 0;
    }
    let pods_left = old.iter().any(|it| {
        let pods = cache.owned_by(&it.object.meta().uid);
        it.was > 0 || pods.iter().any(|pod| !super::pods::has_ended(pod))
    });
    if let Some(new) = new.as_mut().filter(|_| !pods_left) {
        new.replicas = limits.desired;
    }
}

/// One step of a rolling update: the new version grows as far as the surge allows, or else the old ones shrink as far as availability does.
fn rolling_step(limits: Limits, new: &mut Version, old: &mut [Version]) {
    let total = new.was + old.iter().map(|it| it.was).sum::<i64>();
    if new.was > limits.desired {
        new.replicas = limits.desired;
        return;
    }
    let grow = (limits.maximum() - total).min(limits.desired - new.was);
    if grow > 0 {
        new.replicas = new.was + grow;
        return;
    }
    let minimum = limits.desired - limits.max_unavailable;
    let mut spare = total - minimum - (new.was - new.available);
    // First those that serve nobody.
    for version in old.iter_mut() {
        let sick = (version.was - version.available).clamp(0, spare.max(0));
        version.replicas = version.was - sick;
        spare -= sick;
    }
    let mut surplus = new.available + old.iter().map(|it| it.available.min(it.replicas)).sum::<i64>() - minimum;
    for version in old.iter_mut() {
        let down = version.replicas.min(surplus.max(0));
        version.replicas -= down;
        surplus -= down;
    }
}

fn is_complete(limits: Limits, new: Option<&Version>, old: &[Version]) -> bool {
    new.is_some_and(|new| new.was == limits.desired && new.pods == limits.desired && new.available >= limits.desired)
        && old.iter().all(|it| it.was == 0 && it.pods == 0)
}

/// Deletes the oldest versions beyond the history limit that hold no pods.
fn forget(old: &mut [Version], limit: i32, plan: &mut Plan) {
    old.sort_by_key(|it| it.revision);
    let idle: Vec<_> = old.iter().filter(|it| it.was == 0 && it.pods == 0 && !it.object.meta().is_deleted()).collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for version in idle.into_iter().take(surplus) {
        let options = DeleteOptions { uid: Some(version.object.meta().uid.to_string()), ..DeleteOptions::default() };
        plan.writes.push(Write::Delete { key: version.object.key(), options, owner: None });
    }
}

fn status(
    object: &Arc<Object>,
    typed: &Deployment,
    limits: Limits,
    new: Option<&Version>,
    old: &[Version],
    paused: bool,
    now: Timestamp,
    plan: &mut Plan,
) -> Value {
    let sum = |of: fn(&Version) -> i64| new.into_iter().chain(old).map(of).sum::<i64>();
    let (pods, ready, available) = (sum(|it| it.pods), sum(|it| it.ready), sum(|it| it.available));
    let updated = new.map_or(0, |it| it.pods);
    let shown = |number: i64| if number == 0 { Value::Null } else { number.into() };
    let before = typed.status.clone().unwrap_or_default();
    let conditions = before.conditions.clone().unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|it| it.type_ == kind);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let was = find(kind);
        let time = |it: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            it.map_or(stamp.clone(), |it| it.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        };
        let transition = time(was.filter(|it| it.status == status).and_then(|it| it.last_transition_time.as_ref()));
        let same = was.filter(|it| it.status == status && it.reason.as_deref() == Some(reason) && it.message.as_deref() == Some(message));
        let update = time(same.and_then(|it| it.last_update_time.as_ref()));
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": transition, "lastUpdateTime": update})
    };
    let mut list = Vec::new();
    list.push(if available >= limits.desired - limits.max_unavailable {
        condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        condition("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    });
    let name = new.map_or("", |it| it.object.name());
    let progressed = updated > i64::from(before.updated_replicas.unwrap_or_default())
        || ready > i64::from(before.ready_replicas.unwrap_or_default())
        || available > i64::from(before.available_replicas.unwrap_or_default())
        || pods - updated < i64::from(before.replicas.unwrap_or_default() - before.updated_replicas.unwrap_or_default());
    let was = find("Progressing");
    let was_reason = was.and_then(|it| it.reason.as_deref());
    let deadline = typed.spec.as_ref().and_then(|it| it.progress_deadline_seconds).filter(|it| *it != i32::MAX).unwrap_or(600);
    let since = was.and_then(|it| it.last_update_time.as_ref()).map_or(now, |it| it.0);
    let silent = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let limit = Duration::from_secs(u64::try_from(deadline).unwrap_or_default());
    list.push(if paused {
        condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
    } else if is_complete(limits, new, old) {
        condition("Progressing", "True", "NewReplicaSetAvailable", &format!("ReplicaSet \"{name}\" has successfully progressed."))
    } else if new.is_none() {
        condition("Progressing", "True", "NewReplicaSetCreated", "A new replica set is being created.")
    } else if progressed || was_reason.is_none_or(|it| matches!(it, "NewReplicaSetAvailable" | "DeploymentPaused" | "NewReplicaSetCreated"))
    {
        // A change of the message would not renew the update time, so the numbers are not in it; progress itself is noted by a new time.
        let mut renewed = condition("Progressing", "True", "ReplicaSetUpdated", &format!("ReplicaSet \"{name}\" is progressing."));
        renewed["lastUpdateTime"] = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        plan.look_again(limit + Duration::from_secs(1));
        renewed
    } else if was_reason == Some("ProgressDeadlineExceeded") || silent > limit {
        condition("Progressing", "False", "ProgressDeadlineExceeded", &format!("ReplicaSet \"{name}\" has timed out progressing."))
    } else {
        plan.look_again(limit - silent + Duration::from_secs(1));
        condition("Progressing", "True", "ReplicaSetUpdated", &format!("ReplicaSet \"{name}\" is progressing."))
    });
    json!({
        "observedGeneration": object.meta().generation,
        "replicas": shown(pods),
        "updatedReplicas": shown(updated),
        "readyReplicas": shown(ready),
        "availableReplicas": shown(available),
        "unavailableReplicas": shown((limits.desired.max(pods) - available).max(0)),
        "conditions": list,
    })
}

fn create_set(
    deployment: &Arc<Object>,
    name: &str,
    template: &Value,
    spec: &k8s_openapi::api::apps::v1::DeploymentSpec,
    replicas: i64,
    revision: i64,
    limits: Limits,
) -> Write {
    let hash = name.rsplit('-').next().unwrap_or_default();
    let mut template = template.clone();
    template["metadata"]["labels"][HASH_LABEL] = hash.into();
    let mut selector = tree(deployment)["spec"]["selector"].take();
    selector["matchLabels"][HASH_LABEL] = hash.into();
    let mut annotations = tree(deployment)["metadata"]["annotations"].take();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    annotations[REVISION] = revision.to_string().into();
    annotations[DESIRED] = limits.desired.to_string().into();
    annotations[MAXIMUM] = limits.maximum().to_string().into();
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": { "replicas": replicas, "selector": selector, "template": template },
    });
    if let Some(seconds) = spec.min_ready_seconds.filter(|it| *it > 0) {
        object["spec"]["minReadySeconds"] = seconds.into();
    }
    Write::Create { resource: &resource::REPLICA_SET, namespace: deployment.namespace().to_owned(), object, owner: None }
}

/// The ReplicaSets that `deployment` controls; matching ones without a controller are adopted.
fn claim(cache: &Cache, deployment: &Arc<Object>, selector: &LabelSelector, plan: &mut Plan) -> Vec<Arc<Object>> {
    let uid = &deployment.meta().uid;
    let mut mine: Vec<_> = cache.owned_by(uid).into_iter().filter(|it| it.resource() == &resource::REPLICA_SET).collect();
    let query = Query { namespace: Some(deployment.namespace().to_owned()), labels: selector.clone(), ..Query::default() };
    for set in cache.list(&resource::REPLICA_SET, &query).objects {
        if set.meta().controller().is_none() && !set.meta().is_deleted() {
            let mut owners = tree(&set)["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.push(controller_reference(deployment));
            let patch = Patch::Merge(json!({"metadata": {"uid": &*set.meta().uid, "ownerReferences": owners}}));
            plan.writes.push(Write::Patch { key: set.key(), subresource: "", patch });
            mine.push(set);
        }
    }
    mine
}

fn selector(deployment: &Object) -> Option<LabelSelector> {
    let spec = deployment.typed::<Deployment>().ok()?.spec.as_ref()?;
    LabelSelector::from_spec(&spec.selector).ok()
}

/// Whether a ReplicaSet was made from this template: equal but for the hash label.
fn same_template(set: &Object, template: &Value) -> bool {
    let mut theirs = tree(set)["spec"]["template"].take();
    if let Some(labels) = theirs.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.shift_remove(HASH_LABEL);
    }
    theirs == *template
}

/// A short hash of a template that may stand in names and labels; another for every number of collisions.
fn template_hash(template: &Value, collisions: i64) -> String {
    // FNV-1a over the JSON with sorted keys, written in letters that spell no words.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut text = String::new();
    sorted(template, &mut text);
    if collisions > 0 {
        text.push_str(&collisions.to_string());
    }
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let mut name = String::new();
    for _ in 0..10 {
        name.push(char::from(LETTERS[(hash % LETTERS.len() as u64) as usize]));
        hash /= LETTERS.len() as u64;
    }
    name
}

fn sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|it| it.0);
            out.push('{');
            for (name, value) in fields {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                sorted(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                sorted(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
