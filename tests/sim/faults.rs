//! Actions of users, and faults.

use std::time::Duration;

use serde_json::json;

use crate::api::NAMESPACE;
use crate::mesos::Place;
use crate::world::World;

/// Bound of concurrent pods, so that all of them fit.
const PODS: usize = 10;

impl World {
    pub fn user_creates(&mut self, extra: Option<&str>) {
        self.next_pod += 1;
        let image = ["app", "app", "app", "done", "fails", "broken", "stubborn", "slow"][self.rng_index(8)];
        let policy = ["Always", "Always", "Never", "OnFailure"][self.rng_index(4)];
        let cpu = ["100m", "500m", "1"][self.rng_index(3)];
        let ports = if self.chance(30) { json!([{"containerPort": 80}]) } else { json!([]) };
        let name = match extra {
            Some(extra) => extra.to_owned(),
            // Names are reused, uids are not.
            None => format!("p{}", self.rng_index(PODS)),
        };
        if self.api.pods.contains_key(&name) {
            return;
        }
        let container =
            |name: &str| json!({"name": name, "image": image, "ports": ports, "resources": {"limits": {"cpu": cpu, "memory": "64Mi"}}});
        let mut spec = json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 10, "containers": [container("c")]});
        if self.chance(25) {
            spec["initContainers"] = json!([{"name": "i", "image": "done", "resources": {"limits": {"cpu": cpu, "memory": "64Mi"}}}]);
        }
        if extra.is_none() && self.chance(30) {
            self.use_claim(&mut spec);
        }
        if extra.is_some() {
            // It must be the only one on its machine.
            spec["containers"][0]["ports"] = json!([{"containerPort": 81, "hostPort": 31009}]);
            spec["containers"][0]["image"] = "app".into();
            spec["containers"][0]["resources"]["limits"]["cpu"] = "40m".into();
            spec["initContainers"] = json!([]);
            spec["restartPolicy"] = "Always".into();
        }
        let uid = format!("u{}", self.next_pod);
        self.note(|| format!("the user creates {name} ({uid}): {image}, {policy}"));
        self.stats.created += 1;
        // A manifest may be a copy of another pod, with its annotations.
        let copied =
            if self.chance(15) { self.api.pods.values().next_back().map(|pod| pod["metadata"]["annotations"].clone()) } else { None };
        let metadata = json!({"name": name, "namespace": NAMESPACE, "uid": uid, "annotations": copied});
        self.api.create(json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}));
    }

    fn rng_index(&mut self, below: usize) -> usize {
        (self.random() % below as u64) as usize
    }

    fn user_deletes(&mut self) {
        let names = self.pod_names();
        if !names.is_empty() {
            let name = names[self.rng_index(names.len())].clone();
            self.note(|| format!("the user deletes {name}"));
            self.api.user_deletes(&name, self.now);
        }
    }

    pub fn fault(&mut self) {
        self.stats.faults += 1;
        let hosts = self.hosts();
        let host = hosts[self.rng_index(hosts.len())].clone();
        let keys: Vec<_> = self.machines[&host].executors.keys().cloned().collect();
        let key = (!keys.is_empty()).then(|| keys[self.rng_index(keys.len())].clone());
        let kind = self.rng_index(100);
        if kind >= 50 {
            self.note(|| format!("fault {kind} at {host} {key:?}"));
        }
        match (kind, key) {
            (0..24, _) => self.user_creates(None),
            (24..30, _) => self.user_turns_to_claims(),
            (30..42, _) => self.user_deletes(),
            (42..50, _) => {
                let far = self.chance(10);
                let later = self.up_to(if far { 700.0 } else { 60.0 });
                self.now += later;
            }
            (50..54, _) => self.scheduler_loses_master(),
            (54..57, _) => self.scheduler_dies(),
            (57..60, _) => {
                let until = self.now + self.up_to(60.0);
                self.scheduler.process.iter_mut().for_each(|it| it.cut_off = until);
            }
            (60..64, Some(key)) => self.executor_loses_agent(&host, &key),
            (64..68, Some(key)) => self.executor_dies(&host, &key),
            (68..70, Some(key)) => self.executor_is_killed(&host, &key),
            (70..73, Some(key)) => {
                let until = self.now + self.up_to(60.0);
                self.process(&host, &key).into_iter().for_each(|it| it.cut_off = until);
            }
            (73..76, Some(key)) => self.executor_falls_behind(&host, &key),
            (76..80, _) => {
                let away = self.up_to(90.0);
                self.agent_is_cut_off(&host, away);
            }
            (80..83, _) if matches!(self.machines[&host].agent, Place::WithMaster) => {
                let away = self.up_to(90.0);
                self.agent_dies(&host, away);
            }
            (83..85, _) => self.master_dies(),
            (85..87, _) => self.everything_dies(),
            (87..91, _) => self.engine_dies(&host),
            (91..95, _) => self.container_dies(&host),
            (95..97, _) if matches!(self.machines[&host].agent, Place::WithMaster) => self.machine_reboots(&host),
            _ => {}
        }
    }

    /// The whole of `km up` ends, and restarts on its directory.
    fn everything_dies(&mut self) {
        self.scheduler_dies();
        for host in self.hosts() {
            if matches!(self.machines[&host].agent, Place::WithMaster) {
                self.agent_dies(&host, Duration::ZERO);
            }
        }
        self.mesos.broken.clear();
        self.mesos.master = None;
        self.mesos.remembers = true;
        self.mesos.starts_at = self.now + self.up_to(5.0);
    }

    fn engine_dies(&mut self, host: &str) {
        let returns = self.now + self.up_to(100.0);
        let machine = self.machine(host);
        machine.engine.set_down(true);
        machine.engine_returns = Some(returns);
    }

    fn container_dies(&mut self, host: &str) {
        let running: Vec<String> =
            self.machines[host].engine.containers().filter(|it| it.state.is_running()).map(|it| it.name.clone()).collect();
        if !running.is_empty() {
            let name = running[self.rng_index(running.len())].clone();
            let now = crate::world::timestamp(self.now);
            self.machine(host).engine.crash(139, now, |it| it.name == name);
            self.engine_tells(host);
        }
    }

    fn machine_reboots(&mut self, host: &str) {
        let now = crate::world::timestamp(self.now);
        let away = Duration::from_secs(5) + self.up_to(60.0);
        self.agent_dies(host, away);
        self.machine(host).engine.crash(137, now, |_| true);
    }

    /// Stops all faults.
    pub fn mend(&mut self) {
        self.note(|| "nothing goes wrong any more".to_owned());
        self.faulty = false;
        if let Some(process) = &mut self.scheduler.process {
            process.cut_off = Duration::ZERO;
        }
        for machine in self.machines.values_mut() {
            for process in machine.executors.values_mut().filter_map(|it| it.process.as_mut()) {
                process.cut_off = Duration::ZERO;
            }
        }
        self.mend_claims();
        // One pod for each machine, so that each gets an executor, which cleans up after earlier ones.
        for number in 0..self.machines.len() {
            self.user_creates(Some(&format!("everywhere-{number}")));
        }
    }
}
