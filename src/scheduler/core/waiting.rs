//! Waiting pods: queueing, and the effect of changes of their claims.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::Core;
use crate::object::{Name, Object};
use crate::scheduler::demand::PodFacts;

impl Core {
    /// Queues a pod, or updates a queued one.
    pub(super) fn wait(&mut self, now: Duration, mut facts: PodFacts, pod: Arc<Object>) {
        self.storage.wait(now, &mut facts);
        self.queue.put(now, facts, pod);
    }

    /// Requeues a pod after a number of failed attempts, with back-off.
    pub(super) fn wait_longer(&mut self, now: Duration, mut facts: PodFacts, pod: Arc<Object>, attempts: u32) {
        let longest = self.settings.initial_pod_backoff.saturating_mul(1 << (attempts - 1).min(20)).min(self.settings.max_pod_backoff);
        let delay = longest.mul_f64(self.rng.random::<f64>());
        self.storage.wait(now, &mut facts);
        self.queue.requeue(now, facts, pod, attempts, delay);
    }

    /// Re-examines the pods whose claims have changed.
    pub(super) fn stir(&mut self, now: Duration) {
        loop {
            let stirred = self.storage.take_stirred();
            if stirred.again.is_empty() && stirred.later.is_empty() && stirred.offers.is_empty() {
                return;
            }
            for name in stirred.again.difference(&stirred.later) {
                if let Some((facts, pod, _)) = self.waiting(name) {
                    self.wait(now, facts, pod);
                }
            }
            for name in &stirred.later {
                if let Some((facts, pod, attempts)) = self.waiting(name) {
                    self.wait_longer(now, facts, pod, attempts + 1);
                }
            }
            stirred.offers.iter().for_each(|it| self.queue.try_again(it));
            if !stirred.later.is_empty() {
                // Resources that were kept for them are free for all pods.
                self.queue.forget_tried();
            }
            // Offers may have been declined that fit now.
            self.leftovers = true;
        }
    }

    fn waiting(&self, name: &Name) -> Option<(PodFacts, Arc<Object>, u32)> {
        let waiting = self.queue.get(name)?;
        let facts = PodFacts::read(&waiting.pod, &self.settings.rules).ok()?;
        Some((facts, waiting.pod.clone(), waiting.attempts))
    }

    /// Gives up bindings that take too long, and with them the places of their pods.
    pub(super) fn give_up_claims(&mut self, now: Duration) {
        for pod in self.storage.expire(now) {
            if let Some(waiting) = self.queue.get(&pod) {
                let pod = waiting.pod.clone();
                self.tell(pod, true, "FailedScheduling", "binding volumes: context deadline exceeded".to_owned());
            }
        }
    }
}
