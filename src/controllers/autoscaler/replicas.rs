//! How many replicas a metric asks for: Kubernetes' documented algorithm, with its rules for pods that have no measurement or have just
//! started. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The flags for the calculations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// `--horizontal-pod-autoscaler-tolerance`: ratios this close to 1 change nothing.
    pub tolerance: f64,
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`.
    pub cpu_initialization: Duration,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`.
    pub initial_readiness: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tolerance: 0.1, cpu_initialization: Duration::from_secs(300), initial_readiness: Duration::from_secs(30) }
    }
}

/// A pod of the target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pod {
    pub name: String,
    /// Being deleted, or failed: it is not counted.
    pub leaving: bool,
    pub pending: bool,
    pub started: Option<Timestamp>,
    /// Whether it is ready, and since when it is or is not.
    pub ready: Option<(bool, Timestamp)>,
    /// Its request for the resource, in thousandths; an error if a container has none.
    pub request: Result<i64, String>,
}

/// A measurement of a pod: a value in thousandths, its time, and its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub value: i64,
    pub at: Timestamp,
    pub window: Duration,
}

pub(super) type Samples = BTreeMap<String, Sample>;

/// The target for the average pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Percent of the request.
    Utilization(i64),
    /// Thousandths.
    Average(i64),
}

/// The recommendation from a metric, and its current value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub replicas: i64,
    /// Percent, where the target is a percentage.
    pub utilization: Option<i64>,
    /// Thousandths: the average of a pod, or the whole value of an object.
    pub value: i64,
}

/// From measurements of each pod. `cpu`: the measured value is high while a pod starts.
pub(super) fn by_pods(
    current: i64,
    pods: &[Pod],
    samples: &Samples,
    target: Target,
    cpu: bool,
    settings: &Settings,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let mut known: BTreeMap<&str, i64> = BTreeMap::new();
    let (mut ready, mut unready, mut missing) = (0_i64, Vec::new(), Vec::new());
    for pod in pods.iter().filter(|it| !it.leaving) {
        match samples.get(&pod.name) {
            _ if pod.pending => unready.push(pod),
            None => missing.push(pod),
            Some(sample) if cpu && is_starting(pod, sample, settings, now) => unready.push(pod),
            Some(sample) => {
                ready += 1;
                known.insert(&pod.name, sample.value);
            }
        }
    }
    if known.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let requests: BTreeMap<&str, i64> = match target {
        Target::Utilization(_) => pods.iter().map(|pod| Ok((pod.name.as_str(), pod.request.clone()?))).collect::<Result<_, String>>()?,
        Target::Average(_) => BTreeMap::new(),
    };
    let measured = Measured::of(&known, &requests, target)?;
    let keep = Proposal { replicas: current, ..measured.proposal };
    let up_with_unready = !unready.is_empty() && measured.ratio > 1.0;
    if !up_with_unready && missing.is_empty() {
        if is_near(measured.ratio, settings) {
            return Ok(keep);
        }
        return Ok(Proposal { replicas: ceiling(measured.ratio * ready as f64), ..measured.proposal });
    }
    // Pods without a measurement are assumed to have the value that argues against the change.
    for pod in missing {
        let assumed = match target {
            _ if measured.ratio > 1.0 => 0,
            Target::Utilization(percent) => requests.get(&*pod.name).copied().unwrap_or_default() * percent.max(100) / 100,
            Target::Average(value) => value,
        };
        known.insert(&pod.name, assumed);
    }
    if up_with_unready {
        known.extend(unready.iter().map(|pod| (pod.name.as_str(), 0)));
    }
    let assumed = Measured::of(&known, &requests, target)?.ratio;
    let turned = measured.ratio < 1.0 && assumed > 1.0 || measured.ratio > 1.0 && assumed < 1.0;
    if turned || is_near(assumed, settings) {
        return Ok(keep);
    }
    let replicas = ceiling(assumed * known.len() as f64);
    if assumed < 1.0 && replicas > current || assumed > 1.0 && replicas < current {
        return Ok(keep);
    }
    Ok(Proposal { replicas, ..measured.proposal })
}

/// Whether a pod's measurement may be distorted by its start.
fn is_starting(pod: &Pod, sample: &Sample, settings: &Settings, now: Timestamp) -> bool {
    let (Some((ready, since)), Some(started)) = (pod.ready, pod.started) else { return true };
    let span = |it: Duration| SignedDuration::try_from(it).unwrap_or(SignedDuration::MAX);
    if started.saturating_add(span(settings.cpu_initialization)).is_ok_and(|it| it > now) {
        return !ready || since.saturating_add(span(sample.window)).is_ok_and(|it| sample.at < it);
    }
    // It has never been ready.
    !ready && started.saturating_add(span(settings.initial_readiness)).is_ok_and(|it| it > since)
}

struct Measured {
    ratio: f64,
    proposal: Proposal,
}

impl Measured {
    fn of(known: &BTreeMap<&str, i64>, requests: &BTreeMap<&str, i64>, target: Target) -> Result<Self, String> {
        let total: i64 = known.values().sum();
        let average = total / known.len() as i64;
        match target {
            Target::Utilization(percent) => {
                let both = || known.iter().filter_map(|(pod, value)| Some((value, requests.get(pod)?)));
                let (used, asked) = both().fold((0, 0), |(used, asked), (value, request)| (used + value, asked + request));
                if asked == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let utilization = used * 100 / asked;
                let proposal = Proposal { replicas: 0, utilization: Some(utilization), value: used / both().count() as i64 };
                Ok(Self { ratio: utilization as f64 / percent as f64, proposal })
            }
            Target::Average(value) => {
                Ok(Self { ratio: average as f64 / value as f64, proposal: Proposal { replicas: 0, utilization: None, value: average } })
            }
        }
    }
}

/// From one value for all pods: of an object, or the sum of an external metric. `ready` is the number of ready pods.
pub(super) fn by_value(current: i64, ready: i64, value: i64, target: i64, settings: &Settings) -> Proposal {
    let ratio = value as f64 / target as f64;
    let replicas = match current {
        0 => ceiling(ratio),
        _ if is_near(ratio, settings) => current,
        _ => ceiling(ratio * ready as f64),
    };
    Proposal { replicas, utilization: None, value }
}

/// From one value that is divided among all pods.
pub(super) fn by_share(current: i64, value: i64, target: i64, settings: &Settings) -> Proposal {
    let ratio = value as f64 / (target as f64 * current as f64);
    let replicas = if is_near(ratio, settings) { current } else { ceiling(value as f64 / target as f64) };
    let share = if replicas == 0 { 0 } else { ceiling(value as f64 / current.max(1) as f64) };
    Proposal { replicas, utilization: None, value: share }
}

fn is_near(ratio: f64, settings: &Settings) -> bool {
    (1.0 - ratio).abs() <= settings.tolerance
}

fn ceiling(number: f64) -> i64 {
    number.ceil().clamp(0.0, f64::from(i32::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn ago(seconds: i64) -> Timestamp {
        NOW.parse::<Timestamp>().unwrap() - SignedDuration::from_secs(seconds)
    }

    /// Pods that have long been ready, with their measurements; `None` for none.
    fn pods(values: &[Option<i64>]) -> (Vec<Pod>, Samples) {
        let pod = |at: usize| Pod {
            name: format!("p{at}"),
            started: Some(ago(3600)),
            ready: Some((true, ago(3000))),
            request: Ok(1000),
            leaving: false,
            pending: false,
        };
        let sample = |value: i64| Sample { value, at: ago(10), window: Duration::from_secs(30) };
        let samples = values.iter().enumerate().filter_map(|(at, value)| Some((format!("p{at}"), sample((*value)?)))).collect();
        ((0..values.len()).map(pod).collect(), samples)
    }

    fn replicas(values: &[Option<i64>], target: Target, adapt: impl Fn(&mut Vec<Pod>)) -> Result<i64, String> {
        let (mut pods, samples) = pods(values);
        adapt(&mut pods);
        by_pods(values.len() as i64, &pods, &samples, target, true, &Settings::default(), NOW.parse().unwrap()).map(|it| it.replicas)
    }

    #[test]
    fn by_what_pods_use() {
        use Target::{Average, Utilization};
        let all = |value: i64, count: usize| vec![Some(value); count];
        for (values, target, expected) in [
            // ceil(ratio × pods)
            (vec![Some(300), Some(500), Some(700)], Utilization(30), 5),
            (all(900, 3), Utilization(50), 6),
            (all(100, 4), Utilization(50), 1),
            // Within a tenth of the target.
            (all(540, 3), Utilization(50), 3),
            (all(460, 3), Utilization(50), 3),
            (all(560, 3), Utilization(50), 4),
            (all(20_000, 3), Average(10_000), 6),
            // Pods without a measurement: idle if more are wanted, busy if fewer are.
            (vec![Some(950), Some(950), None], Utilization(50), 4),
            (vec![Some(100), Some(100), None], Utilization(50), 3),
            (vec![Some(100), Some(100), Some(100), Some(100), None], Utilization(50), 3),
            (vec![Some(600), Some(600), None], Utilization(50), 3),
            (vec![Some(1_000), None, None], Average(10_000), 3),
        ] {
            assert_eq!(replicas(&values, target, |_| ()), Ok(expected), "{values:?} {target:?}");
        }
    }

    #[test]
    fn pods_that_are_not_ready_do_not_make_more_of_themselves() {
        let values = [Some(1000), Some(1000), Some(1000)];
        let with = |adapt: &dyn Fn(&mut Pod)| replicas(&values, Target::Utilization(50), |all| adapt(&mut all[2]));
        assert_eq!(with(&|_| ()), Ok(6));
        assert_eq!(with(&|it| it.pending = true), Ok(4));
        assert_eq!(with(&|it| it.leaving = true), Ok(4));
        // Started just now: not ready, or measured before it was.
        assert_eq!(with(&|it| (it.started, it.ready) = (Some(ago(60)), Some((false, ago(60))))), Ok(4));
        assert_eq!(with(&|it| (it.started, it.ready) = (Some(ago(60)), Some((true, ago(20))))), Ok(4));
        assert_eq!(with(&|it| (it.started, it.ready) = (Some(ago(60)), Some((true, ago(50))))), Ok(6));
        // Never ready since the start; and not ready any more.
        assert_eq!(with(&|it| (it.started, it.ready) = (Some(ago(3000)), Some((false, ago(3000))))), Ok(4));
        assert_eq!(with(&|it| (it.started, it.ready) = (Some(ago(3000)), Some((false, ago(100))))), Ok(6));
        assert_eq!(with(&|it| it.ready = None), Ok(4));
    }

    #[test]
    fn what_cannot_be_calculated() {
        let target = Target::Utilization(50);
        assert_eq!(replicas(&[], target, |_| ()).unwrap_err(), "no pods returned by selector while calculating replica count");
        assert_eq!(replicas(&[None], target, |_| ()).unwrap_err(), "did not receive metrics for targeted pods (pods might be unready)");
        let error = replicas(&[Some(1), Some(1)], target, |all| all[1].request = Err("missing".to_owned())).unwrap_err();
        assert_eq!(error, "missing");
    }

    #[test]
    fn by_one_value() {
        let settings = Settings::default();
        for (current, ready, value, target, expected) in
            [(3, 3, 20_000, 10_000, 6), (3, 3, 10_500, 10_000, 3), (3, 2, 20_000, 10_000, 4), (0, 0, 25_000, 10_000, 3)]
        {
            assert_eq!(by_value(current, ready, value, target, &settings).replicas, expected, "{current} {value}");
        }
        for (current, value, expected) in [(3, 60_000, 6), (3, 31_000, 3), (3, 10_000, 1), (0, 25_000, 3), (3, 0, 0)] {
            assert_eq!(by_share(current, value, 10_000, &settings).replicas, expected, "{current} {value}");
        }
    }
}
