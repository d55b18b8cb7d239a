//! From offers to launches.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::{Action, Core, REFUSE_BRIEFLY_SECONDS, REFUSE_SECONDS, Settings};
use crate::mesos::v1::scheduler::Call;
use crate::mesos::v1::{ExecutorInfo, Offer, OfferId, Resource};
use crate::object::Object;
use crate::object::constraints::NodeFacts;
use crate::scheduler::executorinfo::Prototype;
use crate::scheduler::launch::{self, Style};
use crate::scheduler::nodes::Nodes;
use crate::scheduler::offers::Lot;
use crate::scheduler::placement::{self, Placed, Surroundings};
use crate::scheduler::queue::Group;
use crate::scheduler::resources::ExecutorCost;
use crate::scheduler::taskid;
use crate::scheduler::tasks::Task;

/// The executor that pods on an agent must use, with the resources to set aside for it.
type Given = Option<(Arc<ExecutorInfo>, Vec<Resource>)>;

struct Around<'a> {
    nodes: &'a Nodes,
    prototype: &'a Prototype,
    roles: &'a [Box<str>],
    framework: &'a str,
}

impl<'a> Around<'a> {
    fn new(nodes: &'a Nodes, settings: &'a Settings, framework: Option<&'a str>) -> Self {
        let roles = &settings.rules.framework_roles;
        Self { nodes, prototype: &settings.prototype, roles, framework: framework.unwrap_or_default() }
    }
}

impl Surroundings for Around<'_> {
    fn node(&self, host: &str) -> Option<&NodeFacts> {
        self.nodes.get(host).map(|it| &it.facts)
    }

    fn executor_cost(&self) -> ExecutorCost {
        self.prototype.cost
    }

    fn framework_roles(&self) -> &[Box<str>] {
        self.roles
    }

    fn executor(&self, host: &str, resources: Vec<Resource>) -> ExecutorInfo {
        self.prototype.on_agent(self.framework, host, resources)
    }
}

impl Core {
    /// Registers the agent's node, and holds the offer if the agent can run our executor.
    pub(super) fn offer(&mut self, now: Duration, offer: Offer) {
        self.metrics.offer_received(&offer.hostname);
        let (host, product) = (offer.hostname.as_str(), self.settings.rules.product);
        let agent: Arc<str> = offer.agent_id.value.as_str().into();
        self.agents.entry(agent.clone()).or_insert_with(|| host.into());
        self.lost.remove(&agent);
        if let Some(labels) = self.nodes.register(host, &offer.attributes, product)
            && self.writing.insert(host.into())
        {
            self.out.push(Action::WriteNode { host: host.into(), labels });
        }
        let Some(executor) = self.executor_for(&agent, &offer) else {
            self.metrics.offer_declined(host, "compat");
            return self.decline(vec![offer.id.value.into()], REFUSE_BRIEFLY_SECONDS);
        };
        let host = offer.hostname.clone();
        if let Err(useless) = self.book.add(offer, executor, now + self.settings.offer_ttl) {
            self.metrics.offer_declined(&host, "compat");
            self.decline(useless, REFUSE_BRIEFLY_SECONDS);
        }
    }

    /// The executor to use on an agent; `None` if the agent's offer cannot be used.
    fn executor_for(&mut self, agent: &Arc<str>, offer: &Offer) -> Option<Given> {
        let known = self.executors.get(agent);
        match offer.executor_ids.as_slice() {
            [] => match known {
                // Launched, but not yet started when the master made the offer: use it again. Its resources are set aside, in case it is
                // not there after all.
                Some(info) if self.tasks.any_on(agent) => Some(Some((info.clone(), info.resources.clone()))),
                _ => {
                    self.executors.remove(agent);
                    Some(None)
                }
            },
            [id] if id.value == self.settings.prototype.id() => {
                if let Some(info) = known {
                    return Some(Some((info.clone(), Vec::new())));
                }
                let node = self.nodes.get(&offer.hostname).filter(|it| it.executor_id.as_deref() == Some(&id.value))?;
                let resources = node.executor_resources.clone()?;
                let framework = self.framework.as_deref().unwrap_or_default();
                let info = Arc::new(self.settings.prototype.on_agent(framework, &offer.hostname, resources));
                self.executors.insert(agent.clone(), info.clone());
                Some(Some((info, Vec::new())))
            }
            [id] => {
                // An executor of another version or configuration. It is shut down after its last pod has ended.
                let ours = id.value.ends_with(&format!("_{}", self.settings.rules.product.executor_id_suffix));
                if ours && self.gate.is_none() && !self.reconciler.is_running() && !self.tasks.any_on(agent) {
                    tracing::info!("executor {id} on agent {agent} is outdated and has no pods; shutting it down");
                    self.call(Call::shutdown(id.clone(), offer.agent_id.clone()));
                }
                None
            }
            _ => None,
        }
    }

    pub(super) fn decline(&mut self, offers: Vec<Box<str>>, refuse_seconds: f64) {
        if !offers.is_empty() {
            self.call(Call::decline(offers.into_iter().map(OfferId::from).collect(), Some(refuse_seconds)));
        }
    }

    pub(super) fn give_back_expired(&mut self, now: Duration) {
        let expired = self.book.expire(now);
        for (_, host) in &expired {
            self.metrics.offer_declined(host, "expired");
        }
        self.decline(expired.into_iter().map(|(id, _)| id).collect(), REFUSE_SECONDS);
    }

    /// Launches every waiting pod that fits: one ACCEPT per agent, with all its pods.
    pub(super) fn launch_round(&mut self, now: Duration) {
        if self.gate.is_some() || self.queue.ready() == 0 || self.book.is_empty() {
            return self.queue.stop_at(None);
        }
        let around = Around::new(&self.nodes, &self.settings, self.framework.as_deref());
        let launches = placement::round(now, &mut self.queue, &mut self.book, &mut self.spread, &mut self.storage, &around);
        for (slot, placed) in launches {
            let lot = self.book.take(slot);
            self.launch(now, &lot, placed);
            self.book.remember(lot);
        }
        self.stir(now);
    }

    /// Why a pod waits.
    pub(super) fn explain(&self, group: &Group) -> String {
        let around = Around::new(&self.nodes, &self.settings, self.framework.as_deref());
        placement::explain(group, &self.book, &self.storage, &around)
    }

    fn launch(&mut self, now: Duration, lot: &Lot, pods: Vec<Placed>) {
        let rules = &self.settings.rules;
        let style = Style { product: rules.product, limits: rules.limits, discovery: self.settings.discovery };
        let mut tasks = Vec::with_capacity(pods.len());
        for placed in pods {
            let id = taskid::task_id(&placed.waiting.uid, self.rng.random());
            let waiting = &placed.waiting;
            match launch::task_info(&id, &placed, lot, style) {
                Ok(task) => tasks.push(task),
                Err(error) => {
                    self.spread.remove(waiting.owner.as_deref(), &lot.host);
                    self.storage.forget(&waiting.name);
                    self.tell(waiting.pod.clone(), true, "FailedScheduling", format!("Binding rejected: {error}"));
                    continue;
                }
            }
            self.metrics.queue_wait(now.saturating_sub(waiting.since));
            self.executors.insert(lot.agent.clone(), placed.executor);
            let message = format!("Successfully assigned {} to {}", waiting.name, lot.host);
            self.tell(waiting.pod.clone(), false, "Scheduled", message);
            let offer = lot.offer_ids().next().unwrap_or_default();
            self.tasks.insert(Task::launched(&id, placed.waiting, lot.agent.clone(), lot.host.clone(), offer, now));
        }
        self.metrics.offers_acquired(&lot.host, lot.offer_ids().count());
        self.leftovers = true;
        let offers = lot.offer_ids().map(OfferId::from).collect();
        self.call(if tasks.is_empty() { Call::decline(offers, Some(0.0)) } else { Call::launch(offers, tasks, Some(0.0)) });
    }

    pub(super) fn tell(&mut self, pod: Arc<Object>, warning: bool, reason: &'static str, message: String) {
        self.out.push(Action::Tell { pod, warning, reason, message });
    }
}
