//! Keeps the node controller's view of the Mesos agents up to date.

use std::collections::HashMap;
use std::time::Duration;

use crate::controllers::node::{Agent, Agents};
use crate::mesos::operator::{Operator, State};
use crate::supervise::Shutdown;
use crate::util::product::Product;

/// Interval of the requests to Mesos, as in the original.
const PERIOD: Duration = Duration::from_secs(10);

/// Polls the master for its agents until the shutdown. An outage is logged once, and its end.
pub(super) async fn follow(operator: Operator, product: &'static Product, agents: Agents, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut failing = false;
    loop {
        match operator.state().await {
            Ok(state) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("Mesos answers again");
                }
                agents.set(Some(by_host(&state, product)));
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("the state of the Mesos agents: {error}");
                }
                agents.set(None);
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

fn by_host(state: &State, product: &Product) -> HashMap<String, Agent> {
    let mut agents: HashMap<String, Agent> = HashMap::new();
    for agent in state.agents.iter().filter(|it| !it.hostname.is_empty()) {
        // Several agents on one host are one node.
        let known = agents.entry(agent.hostname.clone()).or_insert(Agent { has_kubelet: false });
        known.has_kubelet |= agent.executors.iter().any(|it| it.name == product.executor_name);
    }
    agents
}
