//! Horizontal pod autoscalers, which scale a target by metrics of its pods.

mod behavior;
mod measure;
pub mod metrics;
pub mod replicas;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::conditions::{self, Conditions};
use super::plan::{Controller, Plan, Source, Write, since, tree};
use crate::cache::{Cache, Query};
use crate::client::Patch;
use crate::client::events::EventType;
use crate::object::resource::{self, of_kind};
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, ResourceRef};
use behavior::{Bounds, Decision, History};
use measure::{Measured, Pods};
use metrics::Metrics;
use replicas::Settings;

/// Keeps the scale of every autoscaler's target.
#[derive(Debug)]
pub struct AutoscalerController {
    pub metrics: Metrics,
    pub config: Config,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

/// The autoscaler flags.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `--horizontal-pod-autoscaler-sync-period`.
    pub period: Duration,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`.
    pub stabilization: Duration,
    pub settings: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self { period: Duration::from_secs(15), stabilization: Duration::from_secs(300), settings: Settings::default() }
    }
}

/// The state of an autoscaler between its plans.
#[derive(Clone, Debug, Default)]
struct Memory {
    history: History,
    /// The time and the recommendation of the last evaluation.
    seen: Option<(Timestamp, String)>,
    /// A decided rescaling, to be reported once done.
    rescale: Option<Rescale>,
}

/// A change of the target's scale.
#[derive(Clone, Debug)]
struct Rescale {
    from: i64,
    to: i64,
    why: String,
    /// The status once it is done.
    status: Value,
    conditions: Conditions,
}

/// The kinds that have a scale and pods.
const SCALED: [ResourceRef; 4] =
    [&resource::DEPLOYMENT, &resource::REPLICA_SET, &resource::REPLICATION_CONTROLLER, &resource::STATEFUL_SET];

/// How long the first answer of a metrics API is waited for before looking again.
const FETCH: Duration = Duration::from_millis(200);

impl AutoscalerController {
    pub fn new(metrics: Metrics, config: Config) -> Self {
        Self { metrics, config, memory: Mutex::default() }
    }
}

impl Controller for AutoscalerController {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&resource::HORIZONTAL_POD_AUTOSCALER)]
    }

    fn reads(&self) -> Vec<ResourceRef> {
        std::iter::once(&resource::POD).chain(SCALED).collect()
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let plan = Plan::default();
        let autoscaler = cache.get(key.resource, &key.name.namespace, &key.name.name).filter(|it| !it.meta().is_deleted());
        let Some(autoscaler) = autoscaler else {
            self.memory.lock().remove(key);
            return plan;
        };
        let Some(spec) = autoscaler.typed::<HorizontalPodAutoscaler>().ok().and_then(|it| it.spec.as_ref()) else { return plan };
        let mut memory = self.memory.lock().get(key).cloned().unwrap_or_default();
        let asked = serde_json::to_string(spec).unwrap_or_default();
        let mut round = Round { controller: self, cache, now, autoscaler: &autoscaler, spec, plan };
        let rescaled = memory.rescale.take().filter(|it| round.scale().is_ok_and(|scale| scale.spec == it.to));
        let outcome = if let Some(rescale) = rescaled {
            memory.history.changed(rescale.from, rescale.to, now);
            round.announce(rescale);
            Outcome::Done
        } else if let Some((at, before)) = &memory.seen
            && *before == asked
            && since(*at, now) < self.config.period
        {
            // Its own status wakes it, too; time counts in the windows, so it is looked at at its own pace.
            round.plan.look_again(self.config.period - since(*at, now));
            return round.plan;
        } else {
            round.run(&mut memory.history)
        };
        match outcome {
            Outcome::Unknown => round.plan.look_again(FETCH),
            Outcome::Done => {
                round.plan.look_again(self.config.period);
                memory.seen = Some((now, asked));
            }
            Outcome::Rescales(rescale) => {
                round.plan.look_again(Duration::ZERO);
                memory.rescale = Some(rescale);
            }
        }
        self.memory.lock().insert(key.clone(), memory);
        round.plan
    }
}

/// One evaluation of one autoscaler.
struct Round<'a> {
    controller: &'a AutoscalerController,
    cache: &'a Cache,
    now: Timestamp,
    autoscaler: &'a Arc<Object>,
    spec: &'a HorizontalPodAutoscalerSpec,
    plan: Plan,
}

/// The outcome of an evaluation.
enum Outcome {
    /// Values are missing: nothing was decided.
    Unknown,
    Done,
    Rescales(Rescale),
}

/// The recommendation from all metrics together.
struct Proposal {
    replicas: i64,
    /// The metric with the highest recommendation.
    metric: String,
    statuses: Vec<Value>,
}

/// The target's scale.
struct Scale {
    target: Arc<Object>,
    spec: i64,
    status: i64,
    selector: LabelSelector,
}

impl Round<'_> {
    fn run(&mut self, history: &mut History) -> Outcome {
        let before = tree(self.autoscaler)["status"].take();
        let mut conditions = Conditions::of(&before, None);
        let scale = match self.scale() {
            Ok(scale) => scale,
            Err(why) => {
                self.plan.note(self.autoscaler, EventType::Warning, "FailedGetScale", why.clone());
                let message = format!("the HPA controller was unable to get the target's current scale: {why}");
                conditions.renew("AbleToScale", "False", "FailedGetScale", &message, self.now);
                self.finish(&before, json!({}), conditions);
                return Outcome::Done;
            }
        };
        conditions.renew(
            "AbleToScale",
            "True",
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
            self.now,
        );
        history.begin(scale.spec, self.now);
        let (min, max) = (i64::from(self.spec.min_replicas.unwrap_or(1)), i64::from(self.spec.max_replicas));
        let mut status =
            json!({ "currentReplicas": scale.status, "desiredReplicas": before["desiredReplicas"].as_i64().unwrap_or_default() });
        let (desired, why) = if scale.spec == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            conditions.renew("ScalingActive", "False", "ScalingDisabled", message, self.now);
            (0, String::new())
        } else if scale.spec > max {
            (max, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if scale.spec < min {
            (min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            let Some(proposal) = self.propose(&scale, &mut conditions) else { return Outcome::Unknown };
            let Proposal { replicas, metric, statuses } = match proposal {
                Ok(proposal) => proposal,
                Err(statuses) => {
                    status["currentMetrics"] = statuses.into();
                    self.finish(&before, status, conditions);
                    return Outcome::Done;
                }
            };
            let why = if replicas > scale.spec { format!("{metric} above target") } else { "All metrics below target".to_owned() };
            let stabilization = self.controller.config.stabilization;
            let bounds = Bounds { min, max, behavior: self.spec.behavior.as_ref(), stabilization };
            let Decision { replicas, able, limited } = history.decide(scale.spec, replicas, &bounds, self.now);
            conditions.renew("AbleToScale", "True", able.0, able.1, self.now);
            conditions.renew("ScalingLimited", if limited.0 { "True" } else { "False" }, limited.1, limited.2, self.now);
            status["currentMetrics"] = statuses.into();
            (replicas, why)
        };
        status["desiredReplicas"] = desired.into();
        if desired != scale.spec {
            self.plan.writes.push(rescaling(&scale, desired));
            return Outcome::Rescales(Rescale { from: scale.spec, to: desired, why, status, conditions });
        }
        self.finish(&before, status, conditions);
        Outcome::Done
    }

    /// Tells of a change of the scale that has been made.
    fn announce(&mut self, rescale: Rescale) {
        let Rescale { to, why, mut status, mut conditions, .. } = rescale;
        let before = tree(self.autoscaler)["status"].take();
        self.plan.note(self.autoscaler, EventType::Normal, "SuccessfulRescale", format!("New size: {to}; reason: {why}"));
        let message = format!("the HPA controller was able to update the target scale to {to}");
        conditions.renew("AbleToScale", "True", "SucceededRescale", &message, self.now);
        status["lastScaleTime"] = conditions::time(self.now).into();
        self.finish(&before, status, conditions);
    }

    fn scale(&self) -> Result<Scale, String> {
        let target = &self.spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or_default();
        let resource = of_kind(version, &target.kind)
            .ok_or_else(|| format!("no matches for kind {:?} in group {:?}", target.kind, version.split_once('/').map_or("", |it| it.0)))?;
        if resource.subresource("scale").is_none() {
            return Err(metrics::NOT_SERVED.to_owned());
        }
        let object = self.cache.get(resource, self.autoscaler.namespace(), &target.name);
        let object = object.ok_or_else(|| format!("{} {:?} not found", resource.qualified(), target.name))?;
        let content = tree(&object);
        Ok(Scale {
            spec: content["spec"]["replicas"].as_i64().unwrap_or(1),
            status: content["status"]["replicas"].as_i64().unwrap_or_default(),
            selector: LabelSelector::in_spec(&object).unwrap_or_default(),
            target: object,
        })
    }

    /// Evaluates every metric. `None`: not all are known yet; `Err`: they give no recommendation, but their statuses.
    fn propose(&mut self, scale: &Scale, conditions: &mut Conditions) -> Option<Result<Proposal, Vec<Value>>> {
        if scale.selector.is_empty() {
            let message = "the HPA target's scale is missing a selector";
            conditions.renew("ScalingActive", "False", "InvalidSelector", message, self.now);
            return Some(Err(self.unselected("SelectorRequired", "selector is required")));
        }
        let pods = Pods::new(self.cache, self.autoscaler.namespace(), &scale.selector);
        let rivals = self.rivals(&pods);
        if rivals.len() > 1 {
            let shown: Vec<_> = rivals.iter().map(|it| format!("{{{it} {}}}", self.autoscaler.namespace())).collect();
            let message = format!("pods by selector {} are controlled by multiple HPAs: [{}]", scale.selector, shown.join(" "));
            conditions.renew("ScalingActive", "False", "AmbiguousSelector", &message, self.now);
            return Some(Err(self.unselected("AmbiguousSelector", &message)));
        }
        let metrics = self.spec.metrics.as_deref().unwrap_or_default();
        let config = &self.controller.config;
        let mut answers = Vec::new();
        for metric in metrics {
            answers.push(measure::ask(metric, &self.controller.metrics, &pods, (scale.spec, scale.status), &config.settings, self.now)?);
        }
        let invalid = answers.iter().filter(|it| it.is_err()).count();
        let mut statuses = Vec::new();
        let (mut most, mut first_error): (Option<(i64, String)>, Option<measure::Failure>) = (None, None);
        for answer in answers {
            match answer {
                Ok(Measured { replicas, name, status }) => {
                    statuses.push(status);
                    if most.as_ref().is_none_or(|it| replicas > it.0) {
                        most = Some((replicas, name));
                    }
                }
                Err(failure) => {
                    // As in Kubernetes, each metric has its place.
                    statuses.push(json!({ "type": "" }));
                    self.plan.note(self.autoscaler, EventType::Warning, failure.reason, failure.message.clone());
                    first_error.get_or_insert(failure);
                }
            }
        }
        match (most, first_error) {
            // If some metrics are not available, the others may scale up, but not down.
            (Some((replicas, metric)), error) if error.is_none() || replicas >= scale.spec => {
                let message = format!("the HPA was able to successfully calculate a replica count from {metric}");
                conditions.renew("ScalingActive", "True", "ValidMetricFound", &message, self.now);
                Some(Ok(Proposal { replicas, metric, statuses }))
            }
            (_, Some(failure)) => {
                let message = format!("the HPA was unable to compute the replica count: {}", failure.message);
                conditions.renew("ScalingActive", "False", failure.reason, &message, self.now);
                let count = metrics.len();
                let message = format!("invalid metrics ({invalid} invalid out of {count}), first error is: {}", failure.in_context());
                self.plan.note(self.autoscaler, EventType::Warning, "FailedComputeMetricsReplicas", message);
                Some(Err(statuses))
            }
            (_, None) => Some(Err(statuses)),
        }
    }

    /// The pods cannot be determined, so there are no statuses of metrics.
    fn unselected(&mut self, reason: &'static str, message: &str) -> Vec<Value> {
        for reason in [reason, "FailedComputeMetricsReplicas"] {
            self.plan.note(self.autoscaler, EventType::Warning, reason, message);
        }
        Vec::new()
    }

    /// The names of the autoscalers whose targets select any of these pods, if there are several.
    fn rivals(&self, pods: &Pods) -> Vec<String> {
        let namespace = self.autoscaler.namespace();
        let all = self.cache.list(&resource::HORIZONTAL_POD_AUTOSCALER, &Query::namespace(namespace)).objects;
        if all.len() < 2 {
            return Vec::new();
        }
        let mut targets = HashSet::new();
        // Most pods of a target are labelled alike.
        for pod in pods.objects.chunk_by(|a, b| a.meta().labels == b.meta().labels).filter_map(|it| it.first()) {
            let selecting = SCALED.into_iter().flat_map(|it| self.cache.selecting(it, pod));
            targets.extend(selecting.map(|it| (it.resource().kind, it.name().to_owned())));
        }
        let is_rival = |it: &Arc<Object>| {
            let spec = it.typed::<HorizontalPodAutoscaler>().ok().and_then(|it| it.spec.as_ref());
            let target = spec.map(|it| &it.scale_target_ref);
            !it.meta().is_deleted() && target.is_some_and(|it| targets.iter().any(|(kind, name)| **kind == *it.kind && *name == it.name))
        };
        all.into_iter().filter(is_rival).map(|it| it.name().to_owned()).collect()
    }

    /// Events report only changes: a fault persists in every round.
    fn finish(&mut self, before: &Value, mut status: Value, conditions: Conditions) {
        status["conditions"] = conditions.into_json();
        let (writes, key) = (self.plan.writes.len(), self.autoscaler.key());
        self.plan.set_status(key, before, status);
        if self.plan.writes.len() == writes {
            self.plan.notes.clear();
        }
    }
}

/// Replaces the scale, unless it has changed.
fn rescaling(scale: &Scale, desired: i64) -> Write {
    let metadata = json!({ "resourceVersion": scale.target.revision().to_string() });
    let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "replicas": desired } }));
    Write::Patch { key: scale.target.key(), subresource: "scale", patch }
}
