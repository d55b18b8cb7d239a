//! Counters, gauges, histograms and summaries in the Prometheus text format 0.0.4. Names are used as given: those of the original do not
//! end in `_total`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The metrics of one component. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    /// By the values of the labels.
    series: BTreeMap<Vec<String>, Series>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

#[derive(Clone, Debug)]
enum Series {
    Value(Arc<AtomicU64>),
    Histogram(Arc<Mutex<HistogramState>>),
    Summary(Arc<Mutex<SummaryState>>),
}

#[derive(Debug)]
struct HistogramState {
    bounds: &'static [f64],
    /// One more than the bounds; the last is `+Inf`.
    counts: Vec<u64>,
    sum: f64,
}

/// A summary's quantiles cover this many latest observations.
const SUMMARY_WINDOW: usize = 1024;
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

#[derive(Debug, Default)]
struct SummaryState {
    latest: Vec<f64>,
    next: usize,
    count: u64,
    sum: f64,
}

/// A number that only increases.
#[derive(Clone, Debug)]
pub struct Counter(Arc<AtomicU64>);

/// An integer that may decrease.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<AtomicU64>);

/// Observations counted by bucket.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Mutex<HistogramState>>);

/// Observations with quantiles of the latest ones.
#[derive(Clone, Debug)]
pub struct Summary(Arc<Mutex<SummaryState>>);

impl Registry {
    /// The counter with this name and these label values, created on the first call. Keep the handle on hot paths.
    ///
    /// # Panics
    /// If the name is registered as another kind of metric, or with other labels.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &'static [&'static str], values: &[&str]) -> Counter {
        match self.series(name, help, Kind::Counter, labels, values, || Series::Value(Arc::default())) {
            Series::Value(value) => Counter(value),
            _ => unreachable!("the kind was checked"),
        }
    }

    /// As [`Registry::counter`].
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &'static [&'static str], values: &[&str]) -> Gauge {
        match self.series(name, help, Kind::Gauge, labels, values, || Series::Value(Arc::default())) {
            Series::Value(value) => Gauge(value),
            _ => unreachable!("the kind was checked"),
        }
    }

    /// As [`Registry::counter`]; `bounds` are the ascending upper bounds of the buckets.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64],
        labels: &'static [&'static str],
        values: &[&str],
    ) -> Histogram {
        let make = || Series::Histogram(Arc::new(Mutex::new(HistogramState { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 })));
        match self.series(name, help, Kind::Histogram, labels, values, make) {
            Series::Histogram(state) => Histogram(state),
            _ => unreachable!("the kind was checked"),
        }
    }

    /// As [`Registry::counter`].
    pub fn summary(&self, name: &'static str, help: &'static str, labels: &'static [&'static str], values: &[&str]) -> Summary {
        match self.series(name, help, Kind::Summary, labels, values, || Series::Summary(Arc::default())) {
            Series::Summary(state) => Summary(state),
            _ => unreachable!("the kind was checked"),
        }
    }

    fn series(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        values: &[&str],
        make: impl FnOnce() -> Series,
    ) -> Series {
        let mut families = self.families.lock();
        let family = families.entry(name).or_insert_with(|| Family { help, kind, labels, series: BTreeMap::new() });
        assert!(family.kind == kind && family.labels == labels && labels.len() == values.len(), "metric {name} registered in two ways");
        family.series.entry(values.iter().map(|it| (*it).to_owned()).collect()).or_insert_with(make).clone()
    }

    /// The whole registry in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.families.lock().iter() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Summary => "summary",
            };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (values, series) in &family.series {
                let labels = |extra: Option<(&str, String)>| braces(family.labels, values, extra);
                match series {
                    Series::Value(value) if family.kind == Kind::Gauge => {
                        let _ = writeln!(out, "{name}{} {}", labels(None), value.load(Ordering::Relaxed).cast_signed());
                    }
                    Series::Value(value) => {
                        let _ = writeln!(out, "{name}{} {}", labels(None), value.load(Ordering::Relaxed));
                    }
                    Series::Histogram(state) => {
                        let state = state.lock();
                        let mut total = 0;
                        for (at, count) in state.counts.iter().enumerate() {
                            total += count;
                            let bound = state.bounds.get(at).map_or("+Inf".to_owned(), f64::to_string);
                            let _ = writeln!(out, "{name}_bucket{} {total}", labels(Some(("le", bound))));
                        }
                        let _ = writeln!(out, "{name}_sum{} {}\n{name}_count{} {total}", labels(None), state.sum, labels(None));
                    }
                    Series::Summary(state) => {
                        let state = state.lock();
                        let mut sorted = state.latest.clone();
                        sorted.sort_by(f64::total_cmp);
                        for quantile in QUANTILES {
                            let at = ((sorted.len() as f64 * quantile).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
                            let value = sorted.get(at).copied().unwrap_or(f64::NAN);
                            let _ = writeln!(out, "{name}{} {value}", labels(Some(("quantile", quantile.to_string()))));
                        }
                        let _ = writeln!(out, "{name}_sum{} {}\n{name}_count{} {}", labels(None), state.sum, labels(None), state.count);
                    }
                }
            }
        }
        out
    }
}

fn braces(names: &[&str], values: &[String], extra: Option<(&str, String)>) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs = names.iter().copied().zip(values.iter().cloned()).chain(extra);
    let listed = pairs.map(|(name, value)| format!("{name}=\"{}\"", escape(&value))).collect::<Vec<_>>().join(",");
    if listed.is_empty() { listed } else { format!("{{{listed}}}") }
}

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    pub fn set(&self, to: i64) {
        self.0.store(to.cast_unsigned(), Ordering::Relaxed);
    }

    pub fn add(&self, by: i64) {
        self.0.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed).cast_signed()
    }
}

impl Histogram {
    pub fn observe(&self, value: f64) {
        let mut state = self.0.lock();
        let bucket = state.bounds.partition_point(|bound| *bound < value);
        state.counts[bucket] += 1;
        state.sum += value;
    }
}

impl Summary {
    pub fn observe(&self, value: f64) {
        let mut state = self.0.lock();
        let at = state.next;
        if state.latest.len() < SUMMARY_WINDOW {
            state.latest.push(value);
        } else {
            state.latest[at] = value;
        }
        state.next = (at + 1) % SUMMARY_WINDOW;
        state.count += 1;
        state.sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_text_format() {
        let registry = Registry::default();
        registry.counter("updates", "Seen.", &["state"], &["TASK_\"LOST\""]).add(3);
        registry.gauge("depth", "Now.", &[], &[]).add(-2);
        let latency = registry.histogram("seconds", "Took.", &[0.1, 1.0], &["verb"], &["get"]);
        for value in [0.05, 0.1, 0.5, 7.0] {
            latency.observe(value);
        }
        let wait = registry.summary("wait", "Waited.", &[], &[]);
        for value in 1..=100 {
            wait.observe(f64::from(value));
        }
        let expected = "# HELP depth Now.\n# TYPE depth gauge\ndepth -2\n\
            # HELP seconds Took.\n# TYPE seconds histogram\n\
            seconds_bucket{verb=\"get\",le=\"0.1\"} 2\nseconds_bucket{verb=\"get\",le=\"1\"} 3\nseconds_bucket{verb=\"get\",le=\"+Inf\"} 4\n\
            seconds_sum{verb=\"get\"} 7.65\nseconds_count{verb=\"get\"} 4\n\
            # HELP updates Seen.\n# TYPE updates counter\nupdates{state=\"TASK_\\\"LOST\\\"\"} 3\n\
            # HELP wait Waited.\n# TYPE wait summary\n\
            wait{quantile=\"0.5\"} 50\nwait{quantile=\"0.9\"} 90\nwait{quantile=\"0.99\"} 99\nwait_sum 5050\nwait_count 100\n";
        assert_eq!(registry.render(), expected);
    }

    #[test]
    fn handles_of_one_series_share_it() {
        let registry = Registry::default();
        registry.counter("a", "", &[], &[]).inc();
        registry.clone().counter("a", "", &[], &[]).inc();
        assert_eq!(registry.counter("a", "", &[], &[]).get(), 2);
    }
}
