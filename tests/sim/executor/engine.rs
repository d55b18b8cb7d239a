//! Events of a machine's container engine for executors.

use km::executor::engine::Sign;
use km::executor::names::{OWNER, POD_UID};
use km::runtime::EventKind;

use super::owner;
use crate::world::World;

impl World {
    /// Passes the engine's events on to the machine's executors.
    pub fn engine_tells(&mut self, host: &str) {
        let machine = self.machine(host);
        let events = machine.engine.take_events();
        if machine.engine.is_down() {
            return;
        }
        for event in events.iter().filter(|event| event.kind == EventKind::Died) {
            for (key, executor) in &mut machine.executors {
                if let (Some(process), Some(uid)) = (&mut executor.process, event.labels.get(POD_UID))
                    && event.labels.get(OWNER) == Some(&owner(host, key))
                {
                    process.signs.push_back(Sign::Ended(uid.clone()));
                }
            }
        }
    }

    pub fn engine_returns(&mut self, host: &str) {
        let machine = self.machine(host);
        machine.engine_returns = None;
        machine.engine.set_down(false);
        machine.engine.take_events();
        for process in machine.executors.values_mut().filter_map(|it| it.process.as_mut()) {
            process.signs.push_back(Sign::Up);
        }
    }
}
