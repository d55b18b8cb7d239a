//! The view of the machine from which the pod's status is computed.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::super::probes::Probes;
use super::{Machine, Role, Seen, Unit, units};

/// The current state of one container.
#[derive(Debug)]
pub struct UnitView<'a> {
    pub unit: Unit<'a>,
    pub newest: Option<&'a Seen>,
    pub previous: Option<&'a Seen>,
    /// Reason and message, if it waits to be started.
    pub waiting: Option<(&'a str, &'a str)>,
    /// Whether it runs and its startup probe, if any, has passed.
    pub started: bool,
    pub ready: bool,
    /// Whether it has ended and is not started again.
    pub over: bool,
}

/// The pod, as it stands.
#[derive(Debug)]
pub struct View<'a> {
    pub pod: &'a Arc<Pod>,
    pub sandbox: Option<&'a Seen>,
    pub units: Vec<UnitView<'a>>,
    /// Whether every init container has done its work.
    pub initialized: bool,
    /// Whether it has ended for good, and well.
    pub outcome: Option<bool>,
    /// Reason and message of the pod's failure as a whole.
    pub failed: Option<(&'a str, &'a str)>,
    pub ending: bool,
    /// Whether the containers have been looked at at all.
    pub observed: bool,
}

impl Machine {
    pub fn view(&self) -> View<'_> {
        let sandbox = self.observed.sandbox();
        let begun = units(&self.spec).filter(|unit| unit.role == Role::Main).any(|unit| {
            self.observed.newest(&unit.spec.name).is_some_and(|seen| sandbox.is_none_or(|sandbox| sandbox.id() == seen.sandbox))
        });
        let initialized = begun
            || units(&self.spec).all(|unit| match unit.role {
                Role::Main => true,
                Role::Sidecar => self.is_up(&unit.spec.name),
                Role::Init => self.is_initialized_by(&unit.spec.name, sandbox.map_or("", Seen::id)),
            });
        View {
            pod: &self.pod,
            sandbox,
            units: units(&self.spec).map(|unit| self.unit_view(unit)).collect(),
            initialized,
            outcome: self.outcome,
            failed: self.failed.as_ref().map(|(reason, message)| (reason.as_str(), message.as_str())),
            ending: self.ending.is_some(),
            observed: self.seen.is_some(),
        }
    }

    fn unit_view<'a>(&'a self, unit: Unit<'a>) -> UnitView<'a> {
        let name = &unit.spec.name;
        let slot = self.slots.get(name);
        let newest = self.observed.newest(name);
        let running = newest.is_some_and(Seen::is_running);
        let over = newest.and_then(Seen::exit).is_some_and(|exit| self.is_stopping() || !self.restarts(unit.role, exit));
        let waiting = slot.and_then(|slot| slot.waiting.as_ref()).filter(|_| !running && !over);
        let probes = slot.and_then(|slot| slot.probes.as_ref()).filter(|_| running);
        UnitView {
            unit,
            newest,
            previous: self.observed.previous(name),
            waiting: waiting.map(|(reason, message)| (reason.as_str(), message.as_str())),
            started: probes.is_some_and(Probes::has_started),
            ready: match unit.role {
                Role::Init => newest.and_then(Seen::exit).is_some_and(|exit| exit.code == 0),
                Role::Main | Role::Sidecar => probes.is_some_and(Probes::is_ready),
            },
            over,
        }
    }
}
