//! Offers: allocation, acceptance and return.

use std::collections::BTreeMap;
use std::time::Duration;

use super::frameworks::{Framework, has, roles};
use super::{Action, Master, new_event};
use crate::local_mesos::agent::Agent;
use crate::local_mesos::resources::{Resources, UNRESERVED};
use crate::mesos::v1::framework_info::capability::Type as Capability;
use crate::mesos::v1::scheduler::{Event, event};
use crate::mesos::v1::{Filters, Offer};

#[derive(Debug)]
pub(super) struct Offered {
    pub(super) framework: String,
    pub(super) agent: String,
    role: String,
    pub(super) resources: Resources,
}

impl Master {
    /// Offers that are out, as id, framework, agent, role.
    pub fn outstanding(&self) -> impl Iterator<Item = (&str, &str, &str, &str)> {
        self.offers.iter().map(|(id, offer)| (id.as_str(), offer.framework.as_str(), offer.agent.as_str(), offer.role.as_str()))
    }

    /// Ends an offer of a framework and returns its resources; `unused` is the unused part, if not all.
    pub(super) fn take_back(&mut self, now: Duration, framework: &str, id: &str, unused: Option<&Resources>, filters: Option<&Filters>) {
        if self.offers.get(id).is_none_or(|offer| offer.framework != framework) {
            return;
        }
        let Some(offer) = self.drop_offer(id) else { return };
        let unused = unused.unwrap_or(&offer.resources);
        let refuse = filters.map_or_else(|| Filters::default().refuse_seconds(), Filters::refuse_seconds);
        if let Ok(refuse) = Duration::try_from_secs_f64(refuse)
            && !refuse.is_zero()
            && !unused.is_empty()
            && let Some(framework) = self.frameworks.get_mut(framework)
        {
            // Mesos takes at most a year
            let until = now + refuse.min(Duration::from_secs(365 * 86_400));
            framework.filters.insert(offer.agent.clone(), (until, unused.clone()));
            self.filter_ends.insert((until, offer.agent));
        }
    }

    fn drop_offer(&mut self, id: &str) -> Option<Offered> {
        let offer = self.offers.remove(id)?;
        if let Some(of_agent) = self.offers_of.get_mut(&offer.agent) {
            of_agent.remove(id);
        }
        self.unoffered.insert(offer.agent.clone());
        Some(offer)
    }

    pub(super) fn rescind(&mut self, id: &str, out: &mut Vec<Action>) {
        let Some(offer) = self.drop_offer(id) else { return };
        if let Some(framework) = self.frameworks.get(&offer.framework) {
            framework.send(Event { rescind: Some(event::Rescind { offer_id: id.into() }), ..new_event(event::Type::Rescind) }, out);
        }
    }

    pub(super) fn withdraw_offers(&mut self, framework: &str) {
        let mine: Vec<_> = self.offers.iter().filter(|(_, offer)| offer.framework == framework).map(|(id, _)| id.clone()).collect();
        mine.iter().for_each(|id| drop(self.drop_offer(id)));
    }

    /// Offers free resources: each agent's go to the interested, subscribed framework with the fewest tasks.
    pub(super) fn allocate(&mut self, now: Duration, out: &mut Vec<Action>) {
        let mut batches: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
        for agent_id in std::mem::take(&mut self.unoffered) {
            let Some(agent) = self.agents.get(&agent_id) else { continue };
            let mut free = agent.free().clone();
            free.subtract(&self.offered(&agent_id));
            let mut candidates: Vec<_> = self.frameworks.iter().filter(|(_, framework)| framework.stream.is_some()).collect();
            candidates.sort_by_key(|(_, framework)| framework.tasks.len());
            for (id, framework) in candidates {
                for role in roles(&framework.info) {
                    if framework.suppressed.contains(role) {
                        continue;
                    }
                    let mut part = free.for_role(UNRESERVED);
                    if role != UNRESERVED {
                        part.add(&free.for_role(role));
                    }
                    let filtered =
                        framework.filters.get(&agent_id).is_some_and(|(until, unwanted)| *until > now && unwanted.contains(&part));
                    if filtered || !part.is_allocatable() {
                        continue;
                    }
                    free.subtract(&part);
                    self.next_id += 1;
                    let offer_id = format!("{}-O{}", self.config.master.id, self.next_id - 1);
                    batches.entry(id.clone()).or_default().push(framework.offer(&offer_id, agent, id, role, &part));
                    self.offers_of.entry(agent_id.clone()).or_default().insert(offer_id.clone());
                    let offered = Offered { framework: id.clone(), agent: agent_id.clone(), role: role.to_owned(), resources: part };
                    self.offers.insert(offer_id, offered);
                }
            }
        }
        for (id, offers) in batches {
            if let Some(framework) = self.frameworks.get(&id) {
                framework.send(Event { offers: Some(event::Offers { offers }), ..new_event(event::Type::Offers) }, out);
            }
        }
    }
}

impl Framework {
    fn offer(&self, offer_id: &str, agent: &Agent, id: &str, role: &str, resources: &Resources) -> Offer {
        let multi_role = has(&self.info, Capability::MultiRole);
        let refined = has(&self.info, Capability::ReservationRefinement);
        let allocation_info = crate::mesos::v1::resource::AllocationInfo { role: Some(role.to_owned()) };
        Offer {
            id: offer_id.into(),
            framework_id: id.into(),
            agent_id: agent.info.id.clone().unwrap_or_default(),
            hostname: agent.info.hostname.clone(),
            resources: resources.to_messages(refined, multi_role.then_some(role)),
            attributes: agent.info.attributes.clone(),
            executor_ids: agent.executors().filter(|(key, _)| key.0 == id).map(|(key, _)| key.1.clone().into()).collect(),
            allocation_info: multi_role.then_some(allocation_info),
            ..Offer::default()
        }
    }
}
