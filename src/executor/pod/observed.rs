//! The runtime's view of a pod: its sandboxes and containers, by name and attempt.

use std::collections::BTreeMap;

use crate::executor::names::{self, Role};
use crate::runtime::{Container, Exit, State};

/// One container of the pod, of any attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub attempt: u32,
    /// The sandbox it was made for; empty for a sandbox itself.
    pub sandbox: String,
    pub container: Container,
}

impl Seen {
    pub fn id(&self) -> &str {
        &self.container.id
    }

    pub fn is_running(&self) -> bool {
        self.container.state.is_running()
    }

    pub fn exit(&self) -> Option<&Exit> {
        match &self.container.state {
            State::Exited(exit) => Some(exit),
            State::Created | State::Running { .. } => None,
        }
    }
}

/// All of them; each list has the newest attempt last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub sandboxes: Vec<Seen>,
    pub containers: BTreeMap<String, Vec<Seen>>,
}

impl Observed {
    pub fn new(containers: Vec<Container>) -> Self {
        let mut observed = Self::default();
        for container in containers {
            let attempt = names::attempt(&container);
            match names::role(&container) {
                Some(Role::Sandbox) => observed.sandboxes.push(Seen { attempt, sandbox: String::new(), container }),
                Some(Role::Container { name, sandbox }) => {
                    observed.containers.entry(name).or_default().push(Seen { attempt, sandbox, container });
                }
                None => {}
            }
        }
        let order = |seen: &Seen| (seen.attempt, seen.container.created);
        observed.sandboxes.sort_by_key(order);
        observed.containers.values_mut().for_each(|attempts| attempts.sort_by_key(order));
        observed
    }

    pub fn sandbox(&self) -> Option<&Seen> {
        self.sandboxes.last().filter(|sandbox| sandbox.is_running())
    }

    pub fn newest(&self, name: &str) -> Option<&Seen> {
        self.containers.get(name)?.last()
    }

    /// The last attempt that ended, before the newest.
    pub fn previous(&self, name: &str) -> Option<&Seen> {
        self.containers.get(name)?.iter().rev().skip(1).find(|seen| seen.exit().is_some())
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.containers.iter().flat_map(|(name, attempts)| attempts.iter().map(move |seen| (name.as_str(), seen)))
    }
}
