//! The scheduler's metrics, with the names of the original.

use std::time::Duration;

use super::reconcile::Reconciler;
use crate::mesos::v1::TaskStatus;
use crate::telemetry::metrics::{Gauge, Registry, Summary};

/// Counts the core's actions.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    queue_wait: Summary,
    bind_latency: Summary,
    reconciliation_latency: Summary,
    pods_waiting: Gauge,
    tasks: Gauge,
    offers_held: Gauge,
}

impl Metrics {
    pub fn new(registry: Registry) -> Self {
        let summary = |name, help| registry.summary(name, help, &[], &[]);
        Self {
            queue_wait: summary("mesos_scheduler_queue_wait_time_microseconds", "How long pods waited before they were launched."),
            bind_latency: summary("mesos_scheduler_bind_latency_microseconds", "Time from a launch to the executor's first answer."),
            reconciliation_latency: summary("mesos_scheduler_reconciliation_latency_microseconds", "Duration of explicit reconciliations."),
            pods_waiting: registry.gauge("mesos_scheduler_pods_waiting", "Pods waiting to be launched.", &[], &[]),
            tasks: registry.gauge("mesos_scheduler_tasks", "Tasks known.", &[], &[]),
            offers_held: registry.gauge("mesos_offers_held", "Agents of which offers are held.", &[], &[]),
            registry,
        }
    }

    /// The registry of these metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn queue_wait(&self, waited: Duration) {
        self.queue_wait.observe(waited.as_micros() as f64);
    }

    pub fn bind_latency(&self, took: Duration) {
        self.bind_latency.observe(took.as_micros() as f64);
    }

    pub fn status_update(&self, status: &TaskStatus) {
        let source = status.source.map_or("none", |_| status.source().as_str_name());
        let reason = status.reason.map_or("none", |_| status.reason().as_str_name());
        let labels = &["source", "reason", "state"];
        let counter = |values: &[&str]| self.registry.counter("mesos_scheduler_status_updates", "Status updates received.", labels, values);
        counter(&[source, reason, status.state().as_str_name()]).inc();
    }

    pub fn reconciliation_requested(&self, kind: &str) {
        self.reconciliation("mesos_scheduler_reconciliation_requested", "Reconciliations asked for.", kind, 1);
    }

    /// Collects the reconciler's counts.
    pub fn reconciliations(&self, reconciler: &mut Reconciler) {
        for (kind, count) in ["explicit", "implicit"].into_iter().zip(std::mem::take(&mut reconciler.executed)) {
            self.reconciliation("mesos_scheduler_reconciliation_executed", "Reconciliations begun.", kind, count);
        }
        let cancelled = std::mem::take(&mut reconciler.cancelled);
        self.reconciliation("mesos_scheduler_reconciliation_cancelled", "Reconciliations given up for a newer one.", "explicit", cancelled);
        for took in reconciler.latencies.drain(..) {
            self.reconciliation_latency.observe(took.as_micros() as f64);
        }
    }

    fn reconciliation(&self, name: &'static str, help: &'static str, kind: &str, count: u64) {
        if count > 0 {
            self.registry.counter(name, help, &["kind"], &[kind]).add(count);
        }
    }

    pub fn offer_received(&self, host: &str) {
        self.registry.counter("mesos_offers_received", "Offers received.", &["hostname"], &[host]).inc();
    }

    pub fn offers_acquired(&self, host: &str, count: usize) {
        self.registry.counter("mesos_offers_acquired", "Offers accepted.", &["hostname"], &[host]).add(count as u64);
    }

    pub fn offer_declined(&self, host: &str, reason: &str) {
        self.registry.counter("mesos_offers_declined", "Offers declined.", &["hostname", "reason"], &[host, reason]).inc();
    }

    pub fn sizes(&self, pods_waiting: usize, tasks: usize, offers_held: usize) {
        self.pods_waiting.set(pods_waiting as i64);
        self.tasks.set(tasks as i64);
        self.offers_held.set(offers_held as i64);
    }
}
