//! The leading master's view of the cluster: its name, its agents and the executors on them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::detect::MasterAddress;
use super::http;
use super::v1::Credential;

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The cluster's name; by default `mesos`.
    pub cluster: String,
    /// The host name of the leading master.
    pub hostname: String,
    pub agents: Vec<Agent>,
}

/// A registered agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agent {
    pub id: String,
    pub hostname: String,
    /// Its libprocess id, such as `slave(1)@10.0.0.1:5051`.
    pub pid: String,
    pub cpus: f64,
    /// In MB.
    pub mem: f64,
    pub executors: Vec<Executor>,
}

/// An executor of any framework.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executor {
    pub framework_id: String,
    pub id: String,
    pub name: String,
}

/// Why there is no state.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("no Mesos master leads")]
    NoMaster,
    #[error("Mesos master {0}: {1}")]
    Http(MasterAddress, Arc<http::Error>),
    #[error("Mesos master {0} answered with status {1}")]
    Status(MasterAddress, u16),
    #[error("Mesos master {0}: its state is not understood: {1}")]
    Malformed(MasterAddress, String),
}

/// Asks the leading master, at most once in a while.
#[derive(Debug)]
pub struct Operator {
    masters: watch::Receiver<Option<MasterAddress>>,
    credential: Option<Credential>,
    timeout: Duration,
    ttl: Duration,
    cached: Mutex<Option<(Instant, Result<Arc<State>, Error>)>>,
    asking: tokio::sync::Mutex<()>,
}

impl Operator {
    /// Asks the master in `masters`, each request with `timeout`; results and failures are cached for `ttl`.
    pub fn new(masters: watch::Receiver<Option<MasterAddress>>, credential: Option<Credential>, timeout: Duration, ttl: Duration) -> Self {
        Self { masters, credential, timeout, ttl, cached: Mutex::new(None), asking: tokio::sync::Mutex::new(()) }
    }

    /// The address of the leading master, once there is one.
    ///
    /// # Errors
    /// If there is none within the timeout of a request.
    pub async fn master(&self) -> Result<MasterAddress, Error> {
        let mut masters = self.masters.clone();
        let found = tokio::time::timeout(self.timeout, masters.wait_for(Option::is_some)).await;
        found.ok().and_then(|found| found.ok()?.clone()).ok_or(Error::NoMaster)
    }

    /// The state of the cluster, not older than the cache lets it be.
    ///
    /// # Errors
    /// If no master leads or it cannot be asked; the same error stands for as long as a state would.
    pub async fn state(&self) -> Result<Arc<State>, Error> {
        let fresh = || self.cached.lock().as_ref().filter(|(at, _)| at.elapsed() < self.ttl).map(|(_, result)| result.clone());
        if let Some(result) = fresh() {
            return result;
        }
        // concurrent callers wait for the first one's answer
        let _asking = self.asking.lock().await;
        if let Some(result) = fresh() {
            return result;
        }
        let result = self.ask().await.map(Arc::new);
        *self.cached.lock() = Some((Instant::now(), result.clone()));
        result
    }

    async fn ask(&self) -> Result<State, Error> {
        let mut master = self.master().await?;
        // a master that does not lead sends us on, and an old one knows only the second path
        for path in ["/state", "/state.json", "/state"] {
            let answer = http::get(&master.to_string(), path, self.credential.as_ref(), self.timeout).await;
            let (head, body) = answer.map_err(|error| Error::Http(master.clone(), Arc::new(error)))?;
            match head.status {
                200 => return State::read(&body).map_err(|error| Error::Malformed(master, error.to_string())),
                307 => {
                    let leader = head.header("location").and_then(http::authority).and_then(|leader| leader.parse().ok());
                    master = leader.ok_or(Error::Status(master, 307))?;
                }
                404 => {}
                status => return Err(Error::Status(master, status)),
            }
        }
        Err(Error::Status(master, 404))
    }
}

impl State {
    /// Reads `/state` of a master of any version.
    ///
    /// # Errors
    /// If it is not JSON of that form.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        let JsonState { cluster, hostname, slaves, frameworks } = serde_json::from_slice(json)?;
        let mut executors: HashMap<String, Vec<Executor>> = HashMap::new();
        for framework in frameworks {
            for JsonExecutor { slave_id, executor_id, name } in framework.executors {
                let framework_id = framework.id.clone();
                executors.entry(slave_id).or_default().push(Executor { framework_id, id: executor_id, name });
            }
        }
        let agent = |JsonAgent { id, hostname, pid, resources }: JsonAgent| Agent {
            executors: executors.remove(&id).unwrap_or_default(),
            cpus: resources.cpus,
            mem: resources.mem,
            id,
            hostname,
            pid,
        };
        let cluster = cluster.filter(|name| !name.is_empty()).unwrap_or_else(|| "mesos".to_owned());
        Ok(Self { cluster, hostname, agents: slaves.into_iter().map(agent).collect() })
    }

    /// The agent on a host.
    pub fn agent(&self, hostname: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.hostname == hostname)
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct JsonState {
    cluster: Option<String>,
    hostname: String,
    slaves: Vec<JsonAgent>,
    frameworks: Vec<JsonFramework>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonAgent {
    id: String,
    hostname: String,
    pid: String,
    resources: JsonResources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonResources {
    cpus: f64,
    mem: f64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonFramework {
    id: String,
    executors: Vec<JsonExecutor>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonExecutor {
    slave_id: String,
    executor_id: String,
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executors_are_found_on_their_agents() {
        let json = br#"{
            "hostname": "m1", "version": "1.11.0",
            "slaves": [
                {"id": "S0", "hostname": "a", "pid": "slave(1)@10.0.0.1:5051", "resources": {"cpus": 4.0, "mem": 1024.0, "ports": "[1-2]"}},
                {"id": "S1", "hostname": "b", "pid": "slave(1)@10.0.0.2:5051"}
            ],
            "frameworks": [{"id": "F", "executors": [{"slave_id": "S0", "executor_id": "e", "name": "Kubelet-Executor"}]}, {"id": "G"}]
        }"#;
        let state = State::read(json).unwrap();
        assert_eq!((state.cluster.as_str(), state.hostname.as_str(), state.agents.len()), ("mesos", "m1", 2));
        let agent = state.agent("a").unwrap();
        assert_eq!((agent.cpus, agent.mem), (4.0, 1024.0));
        assert_eq!(agent.executors, [Executor { framework_id: "F".into(), id: "e".into(), name: "Kubelet-Executor".into() }]);
        assert_eq!(state.agent("b").unwrap().executors, []);
        assert_eq!(state.agent("c"), None);
        assert!(State::read(b"{").is_err());
    }
}
