//! Metrics of a controller's queue and workers, under the names that Kubernetes' dashboards use.

use std::time::Duration;

use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};

/// The numbers of one controller.
#[derive(Clone, Debug)]
pub(super) struct Workqueue {
    depth: Gauge,
    added: Counter,
    retried: Counter,
    worked: Histogram,
}

impl Workqueue {
    pub(super) fn new(registry: &Registry, controller: &str) -> Self {
        const BOUNDS: &[f64] = &[1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
        const LABELS: &[&str] = &["name"];
        let name = [controller.strip_suffix("-controller").unwrap_or(controller)];
        Self {
            depth: registry.gauge("workqueue_depth", "Keys that are ready to be worked on.", LABELS, &name),
            added: registry.counter("workqueue_adds_total", "Keys added to the queue.", LABELS, &name),
            retried: registry.counter("workqueue_retries_total", "Keys whose work failed.", LABELS, &name),
            worked: registry.histogram(
                "workqueue_work_duration_seconds",
                "How long the work on a key takes: the plan, its writes, and until the cache has seen them.",
                BOUNDS,
                LABELS,
                &name,
            ),
        }
    }

    /// So many keys came, and so many are ready now.
    pub(super) fn added(&self, keys: usize, ready: usize) {
        self.added.add(keys as u64);
        self.ready(ready);
    }

    pub(super) fn ready(&self, keys: usize) {
        self.depth.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    pub(super) fn worked(&self, took: Duration, failed: bool) {
        self.worked.observe(took.as_secs_f64());
        if failed {
            self.retried.inc();
        }
    }
}
