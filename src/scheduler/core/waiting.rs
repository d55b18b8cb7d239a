//! Pods that wait: into the queue, and what their claims' changes mean for them.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::Core;
use crate::object::{Name, Object};
use crate::scheduler::demand::PodFacts;

impl Core {
    /// Queues a pod, or takes in its new state.
    pub(super) fn wait(&mut self, now: Duration, mut facts: PodFacts, pod: Arc<Object>) {
        self.storage.wait(now, &mut facts);
        self.queue.put(now, facts, pod);
    }

    /// Queues a pod again for which something came to nothing, after so many attempts: it is not tried at once.
    pub(super) fn wait_longer(&mut self, now: Duration, mut facts: PodFacts, pod: Arc<Object>, attempts: u32) {
        let longest = self.settings.initial_pod_backoff.saturating_mul(1 << (attempts - 1).min(20)).min(self.settings.max_pod_backoff);
        let delay = longest.mul_f64(self.rng.random::<f64>());
        self.storage.wait(now, &mut facts);
        self.queue.requeue(now, facts, pod, attempts, delay);
    }

    /// Looks again at the pods for whose claims something has changed.
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
                // What was kept for them is there for all.
                self.queue.forget_tried();
            }
            // Offers may have been declined that will do now.
            self.leftovers = true;
        }
    }

    fn waiting(&self, name: &Name) -> Option<(PodFacts, Arc<Object>, u32)> {
        let waiting = self.queue.get(name)?;
        let facts = PodFacts::read(&waiting.pod, &self.settings.rules).ok()?;
        Some((facts, waiting.pod.clone(), waiting.attempts))
    }

    /// Gives up claims that take too long to be bound, and with them the places of their pods.
    pub(super) fn give_up_claims(&mut self, now: Duration) {
        for pod in self.storage.expire(now) {
            if let Some(waiting) = self.queue.get(&pod) {
                let pod = waiting.pod.clone();
                self.tell(pod, true, "FailedScheduling", "binding volumes: context deadline exceeded".to_owned());
            }
        }
    }
}
