//! The environment variables that an agent sets for an executor.

use std::path::PathBuf;
use std::time::Duration;

use crate::mesos::v1::{AgentId, ExecutorId, FrameworkId};

/// An executor's surroundings, out of the `MESOS_…` variables.
#[derive(Clone, PartialEq, Eq)]
pub struct Environment {
    pub framework_id: FrameworkId,
    pub executor_id: ExecutorId,
    /// The agent's id, if it sets one.
    pub agent_id: Option<AgentId>,
    /// `host:port` of the agent.
    pub endpoint: String,
    /// Where that agent serves the executor API: several agents may share an endpoint.
    pub path: String,
    /// The sandbox; its last component is the id of the container.
    pub directory: PathBuf,
    /// Whether the agent expects its executors to survive its restart.
    pub checkpoint: bool,
    /// How long to wait for the agent to return, if it checkpoints.
    pub recovery_timeout: Duration,
    /// How long the agent waits between asking the executor to shut down and killing it.
    pub shutdown_grace_period: Duration,
    /// Longest pause between attempts to subscribe.
    pub subscription_backoff_max: Duration,
    /// Authenticates the executor where the agent wants that. Never logged.
    pub token: Option<String>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { framework_id, executor_id, endpoint, path, directory, checkpoint, .. } = self;
        write!(to, "executor {executor_id} of {framework_id}, agent {endpoint}{path}, sandbox {directory:?}, checkpoint {checkpoint}")
    }
}

/// A variable that is not there or makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("{0} is not set: is this not started by a Mesos agent?")]
    Missing(&'static str),
    #[error("{name}={value:?} cannot be understood")]
    Invalid { name: &'static str, value: String },
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// If a variable is missing or makes no sense.
    pub fn of_process() -> Result<Self, Error> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads variables by their names.
    ///
    /// # Errors
    /// If a variable is missing or makes no sense.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let get = |name: &'static str| variable(name).filter(|value| !value.is_empty()).ok_or(Error::Missing(name));
        let duration = |name: &'static str, default: Duration| match get(name) {
            Ok(value) => parse_duration(&value).ok_or(Error::Invalid { name, value }),
            Err(_) => Ok(default),
        };
        let (endpoint, path) = match (get("MESOS_AGENT_ENDPOINT"), get("MESOS_SLAVE_PID")) {
            (endpoint, Ok(pid)) => {
                let Some((process, address)) = pid.split_once('@') else {
                    return Err(Error::Invalid { name: "MESOS_SLAVE_PID", value: pid });
                };
                (endpoint.unwrap_or_else(|_| address.to_owned()), format!("/{process}/api/v1/executor"))
            }
            (endpoint, Err(_)) => (endpoint?, "/api/v1/executor".to_owned()),
        };
        Ok(Self {
            framework_id: get("MESOS_FRAMEWORK_ID")?.into(),
            executor_id: get("MESOS_EXECUTOR_ID")?.into(),
            agent_id: get("MESOS_SLAVE_ID").ok().map(AgentId::from),
            endpoint,
            path,
            directory: get("MESOS_DIRECTORY").unwrap_or_else(|_| ".".to_owned()).into(),
            checkpoint: get("MESOS_CHECKPOINT").is_ok_and(|value| matches!(value.as_str(), "1" | "true")),
            recovery_timeout: duration("MESOS_RECOVERY_TIMEOUT", Duration::from_secs(15 * 60))?,
            shutdown_grace_period: duration("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", Duration::from_secs(5))?,
            subscription_backoff_max: duration("MESOS_SUBSCRIPTION_BACKOFF_MAX", Duration::from_secs(2))?,
            token: get("MESOS_EXECUTOR_AUTHENTICATION_TOKEN").ok(),
        })
    }

    /// The id of the container that holds the executor: the last component of its sandbox.
    pub fn container_id(&self) -> &str {
        self.directory.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// A duration as Mesos prints it: a number, possibly with a fraction, and a unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_agents_path_comes_from_its_pid() {
        let ids = [("MESOS_FRAMEWORK_ID", "f"), ("MESOS_EXECUTOR_ID", "e")];
        let found =
            read(&[&ids[..], &[("MESOS_SLAVE_PID", "slave(2)@10.0.0.1:5051"), ("MESOS_DIRECTORY", "/var/x/runs/c-1")]].concat()).unwrap();
        assert_eq!((found.endpoint.as_str(), found.path.as_str()), ("10.0.0.1:5051", "/slave(2)/api/v1/executor"));
        assert_eq!((found.container_id(), found.checkpoint), ("c-1", false));
        assert_eq!(found.recovery_timeout, Duration::from_secs(900));
        let found = read(
            &[&ids[..], &[("MESOS_AGENT_ENDPOINT", "a:1"), ("MESOS_CHECKPOINT", "1"), ("MESOS_RECOVERY_TIMEOUT", "1.5mins")]].concat(),
        )
        .unwrap();
        assert_eq!((found.endpoint.as_str(), found.path.as_str()), ("a:1", "/api/v1/executor"));
        assert_eq!((found.checkpoint, found.recovery_timeout), (true, Duration::from_secs(90)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(read(&[]), Err(Error::Missing("MESOS_AGENT_ENDPOINT")));
        assert_eq!(read(&[("MESOS_AGENT_ENDPOINT", "a:1")]), Err(Error::Missing("MESOS_FRAMEWORK_ID")));
        let invalid = read(&[("MESOS_SLAVE_PID", "x")]);
        assert_eq!(invalid, Err(Error::Invalid { name: "MESOS_SLAVE_PID", value: "x".into() }));
    }

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [
            ("15mins", Some(900_000)),
            ("5secs", Some(5000)),
            ("250ms", Some(250)),
            ("1.5hrs", Some(5_400_000)),
            ("1weeks", Some(604_800_000)),
            ("5", None),
            ("5s", None),
            ("secs", None),
            ("-5secs", None),
        ] {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }
}
