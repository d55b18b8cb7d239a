//! How fast the number of replicas may follow the metrics: stabilisation windows, rates and limits. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// The recent history of one autoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    /// Recommendations from the metrics, with their times.
    recommendations: VecDeque<(Timestamp, i64)>,
    /// Changes of the number, with their times.
    changes: VecDeque<(Timestamp, i64)>,
}

/// Longer than any window or period may be.
const MEMORY: SignedDuration = SignedDuration::from_hours(1);

/// The limits of an autoscaler.
#[derive(Clone, Debug)]
pub(super) struct Bounds<'a> {
    pub min: i64,
    pub max: i64,
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`.
    pub stabilization: Duration,
}

/// The number of replicas to scale to, with the conditions (type, status, reason, message) that explain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub replicas: i64,
    pub able: (&'static str, &'static str),
    /// Whether a limit applied, and which.
    pub limited: (bool, &'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: (&str, &str) =
    ("ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation");
const UP_STABILIZED: (&str, &str) =
    ("ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation");
const WITHIN: (bool, &str, &str) = (false, "DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (bool, &str, &str) = (true, "TooFewReplicas", "the desired replica count is less than the minimum replica count");
const NONE: (bool, &str, &str) = (true, "TooFewReplicas", "the desired replica count is zero");
const TOO_MANY: (bool, &str, &str) = (true, "TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: (bool, &str, &str) = (true, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (bool, &str, &str) =
    (true, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

impl History {
    /// When an autoscaler is first seen, its current size counts as the earlier recommendation.
    pub fn begin(&mut self, current: i64, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push_back((now, current));
        }
    }

    pub fn changed(&mut self, from: i64, to: i64, now: Timestamp) {
        self.changes.push_back((now, to - from));
    }

    /// Turns a recommendation into a decision.
    pub fn decide(&mut self, current: i64, recommended: i64, bounds: &Bounds<'_>, now: Timestamp) -> Decision {
        let old = |it: &(Timestamp, i64)| now.duration_since(it.0) > MEMORY;
        self.recommendations.retain(|it| !old(it));
        self.changes.retain(|it| !old(it));
        let (stable, able) = self.stabilize(current, recommended, bounds, now);
        self.recommendations.push_back((now, recommended));
        let (replicas, limited) = match bounds.behavior {
            Some(behavior) => self.with_rates(current, stable, behavior, bounds, now),
            None => by_default(current, stable, bounds),
        };
        Decision { replicas, able, limited }
    }

    fn stabilize(&self, current: i64, recommended: i64, bounds: &Bounds<'_>, now: Timestamp) -> (i64, (&'static str, &'static str)) {
        let window = |rules: Option<&HPAScalingRules>, otherwise: Duration| {
            let seconds = rules.and_then(|it| it.stabilization_window_seconds);
            seconds.map_or(otherwise, |it| Duration::from_secs(it.try_into().unwrap_or_default()))
        };
        let within = |window: Duration| {
            let recent = move |it: &&(Timestamp, i64)| Duration::try_from(now.duration_since(it.0)).is_ok_and(|age| age < window);
            self.recommendations.iter().filter(recent).map(|it| it.1).chain([recommended])
        };
        let down = window(bounds.behavior.and_then(|it| it.scale_down.as_ref()), bounds.stabilization);
        let highest = within(down).max().unwrap_or(recommended);
        let Some(behavior) = bounds.behavior else {
            let able = if highest == recommended { READY } else { DOWN_STABILIZED };
            return (highest, able);
        };
        let lowest = within(window(behavior.scale_up.as_ref(), Duration::ZERO)).min().unwrap_or(recommended);
        let stable = current.max(lowest).min(highest.max(lowest));
        let able = match stable {
            _ if stable == recommended => READY,
            // The stabilisation window that keeps the number from the recommendation.
            _ if recommended >= current => UP_STABILIZED,
            _ => DOWN_STABILIZED,
        };
        (stable, able)
    }

    fn with_rates(
        &self,
        current: i64,
        desired: i64,
        behavior: &HorizontalPodAutoscalerBehavior,
        bounds: &Bounds<'_>,
        now: Timestamp,
    ) -> (i64, (bool, &'static str, &'static str)) {
        if desired > current {
            let limit = self.limit(current, behavior.scale_up.as_ref(), true, now).max(current);
            let (most, why) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
            if desired > most { (most, why) } else { (desired, WITHIN) }
        } else if desired < current {
            let limit = self.limit(current, behavior.scale_down.as_ref(), false, now).min(current);
            let (least, why) = if bounds.min < limit { (limit, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
            if desired < least { (least, why) } else { (desired, WITHIN) }
        } else {
            (desired, WITHIN)
        }
    }

    /// How far the policies of a direction let the number go.
    fn limit(&self, current: i64, rules: Option<&HPAScalingRules>, up: bool, now: Timestamp) -> i64 {
        let select = rules.and_then(|it| it.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let policies = rules.and_then(|it| it.policies.clone()).unwrap_or_else(|| default_policies(up));
        let allowed = policies.iter().map(|policy| {
            let period = Duration::from_secs(policy.period_seconds.try_into().unwrap_or_default());
            let recent = |it: &&(Timestamp, i64)| Duration::try_from(now.duration_since(it.0)).is_ok_and(|age| age < period);
            let start = current - self.changes.iter().filter(recent).map(|it| it.1).sum::<i64>();
            let value = i64::from(policy.value);
            match (policy.type_.as_str(), up) {
                ("Pods", true) => start + value,
                ("Pods", false) => start - value,
                (_, true) => (start * (100 + value) + 99).div_euclid(100),
                (_, false) => start * (100 - value) / 100,
            }
        });
        // The policy that changes most, or least.
        let far = if (select == "Min") ^ up { allowed.max() } else { allowed.min() };
        far.unwrap_or(current)
    }
}

fn default_policies(up: bool) -> Vec<HPAScalingPolicy> {
    let policy = |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 };
    if up { vec![policy("Pods", 4), policy("Percent", 100)] } else { vec![policy("Percent", 100)] }
}

/// Without its own behaviour, an autoscaler at most doubles at a time (or goes to four).
fn by_default(current: i64, desired: i64, bounds: &Bounds<'_>) -> (i64, (bool, &'static str, &'static str)) {
    let limit = (2 * current).max(4);
    let (most, why) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
    match desired {
        _ if desired < bounds.min => (bounds.min, if desired == 0 { NONE } else { TOO_FEW }),
        _ if desired > most => (most, why),
        _ => (desired, WITHIN),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    /// Follows recommendations (each some seconds after the beginning), and returns the resulting sizes.
    fn follow(behavior: Value, begin: i64, recommendations: &[(i64, i64)]) -> Vec<(i64, &'static str, &'static str)> {
        let behavior: Option<HorizontalPodAutoscalerBehavior> = serde_json::from_value(behavior).unwrap();
        let bounds = Bounds { min: 1, max: 100, behavior: behavior.as_ref(), stabilization: Duration::from_secs(300) };
        let (mut history, mut current) = (History::default(), begin);
        let mut step = |&(seconds, recommended): &(i64, i64)| {
            history.begin(current, at(seconds));
            let Decision { replicas, able, limited } = history.decide(current, recommended, &bounds, at(seconds));
            if replicas != current {
                history.changed(current, replicas, at(seconds));
            }
            current = replicas;
            (replicas, able.0, limited.1)
        };
        recommendations.iter().map(&mut step).collect()
    }

    #[test]
    fn without_a_behaviour() {
        let sizes = follow(Value::Null, 2, &[(0, 50), (15, 50), (30, 5), (200, 6), (331, 0), (600, 0)]);
        assert_eq!(
            sizes,
            [
                (4, "ReadyForNewScale", "ScaleUpLimit"),
                (8, "ReadyForNewScale", "ScaleUpLimit"),
                // The highest of five minutes counts.
                (16, "ScaleDownStabilized", "ScaleUpLimit"),
                (32, "ScaleDownStabilized", "ScaleUpLimit"),
                (6, "ScaleDownStabilized", "DesiredWithinRange"),
                (1, "ReadyForNewScale", "TooFewReplicas"),
            ]
        );
    }

    #[test]
    fn rates() {
        let policies = |direction: &str, select: &str, list: Value| json!({direction: {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": list}});
        let pods = |value: i64, period: i64| json!({"type": "Pods", "value": value, "periodSeconds": period});
        let percent = |value: i64, period: i64| json!({"type": "Percent", "value": value, "periodSeconds": period});
        for (behavior, begin, steps, expected) in [
            (policies("scaleUp", "Max", json!([pods(4, 60)])), 10, vec![(0, 50), (15, 50), (61, 50)], vec![14, 14, 18]),
            (policies("scaleUp", "Max", json!([pods(4, 60), percent(100, 60)])), 10, vec![(0, 50)], vec![20]),
            (policies("scaleUp", "Min", json!([pods(4, 60), percent(100, 60)])), 10, vec![(0, 50)], vec![14]),
            (policies("scaleUp", "Disabled", json!([pods(4, 60)])), 10, vec![(0, 50)], vec![10]),
            (policies("scaleUp", "Max", json!([percent(10, 60)])), 15, vec![(0, 50)], vec![17]),
            (policies("scaleDown", "Max", json!([pods(2, 60)])), 10, vec![(0, 1), (30, 1), (61, 1)], vec![8, 8, 6]),
            (policies("scaleDown", "Max", json!([pods(2, 60), percent(50, 60)])), 10, vec![(0, 1)], vec![5]),
            (policies("scaleDown", "Min", json!([pods(2, 60), percent(50, 60)])), 10, vec![(0, 1)], vec![8]),
            (policies("scaleDown", "Disabled", json!([pods(2, 60)])), 10, vec![(0, 1)], vec![10]),
        ] {
            let sizes: Vec<i64> = follow(behavior.clone(), begin, &steps).iter().map(|it| it.0).collect();
            assert_eq!(sizes, expected, "{behavior}");
        }
    }

    #[test]
    fn windows() {
        let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": 60}, "scaleDown": {"stabilizationWindowSeconds": 120}});
        let sizes = follow(behavior, 10, &[(0, 12), (30, 14), (61, 14), (91, 20), (100, 5), (182, 5), (212, 5)]);
        assert_eq!(
            sizes.iter().map(|it| (it.0, it.1)).collect::<Vec<_>>(),
            [
                (10, "ScaleUpStabilized"),
                (10, "ScaleUpStabilized"),
                (14, "ReadyForNewScale"),
                (14, "ScaleUpStabilized"),
                (14, "ScaleDownStabilized"),
                (14, "ScaleDownStabilized"),
                (5, "ReadyForNewScale"),
            ]
        );
    }
}
