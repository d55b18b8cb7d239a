//! The file of `--cloud-config`: section `[mesos-cloud]` of an ini file in git's syntax.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::util::{duration, ini};

/// Configuration of the Mesos cloud provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CloudConfig {
    /// As `--mesos-master`.
    pub mesos_master: String,
    /// Timeout of a request for the master's state.
    pub http_client_timeout: Duration,
    /// How long the master's state may be cached.
    pub state_cache_ttl: Duration,
}

impl Default for CloudConfig {
    fn default() -> Self {
        let (http_client_timeout, state_cache_ttl) = (Duration::from_secs(10), Duration::from_secs(5));
        Self { mesos_master: "localhost:5050".to_owned(), http_client_timeout, state_cache_ttl }
    }
}

const SECTION: &str = "mesos-cloud";

/// Reads the file; the defaults without one.
///
/// # Errors
/// Names the file, and the section or key that is unknown or has a wrong value.
pub(super) fn read(path: Option<&str>) -> anyhow::Result<CloudConfig> {
    let Some(path) = path else { return Ok(CloudConfig::default()) };
    let text = std::fs::read_to_string(Path::new(path)).with_context(|| format!("--cloud-config: {path}"))?;
    parse(&text).with_context(|| format!("--cloud-config: {path}"))
}

fn parse(text: &str) -> anyhow::Result<CloudConfig> {
    let mut config = CloudConfig::default();
    for (key, value) in ini::entries(text, SECTION)? {
        let parsed = || duration::parse(value).map_err(|_| anyhow::anyhow!("[{SECTION}] {key} = {value}: expected a duration such as 10s"));
        match key {
            "mesos-master" if !value.is_empty() => config.mesos_master = value.to_owned(),
            "mesos-master" => bail!("[{SECTION}] mesos-master is empty, expected host:port or zk://host:port/path"),
            "http-client-timeout" => config.http_client_timeout = parsed()?,
            "state-cache-ttl" => config.state_cache_ttl = parsed()?,
            _ => bail!("[{SECTION}] unknown key {key}, expected mesos-master, http-client-timeout or state-cache-ttl"),
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_tutorial_writes() {
        let config = parse("[mesos-cloud]\n\tmesos-master        = zk://a:2181,b:2181/mesos\n; note\nstate-cache-ttl = 20s\n").unwrap();
        assert_eq!(config.mesos_master, "zk://a:2181,b:2181/mesos");
        assert_eq!(config.state_cache_ttl, Duration::from_secs(20));
        assert_eq!(config.http_client_timeout, Duration::from_secs(10));
        assert_eq!(parse("").unwrap(), CloudConfig::default());
    }

    #[test]
    fn mistakes_name_the_key() {
        for (text, expected) in [
            ("[mesos-cloud]\nmesos-mastr = a:1\n", "unknown key mesos-mastr"),
            ("[mesos-clod]\nmesos-master = a:1\n", "unknown section [mesos-clod]"),
            ("[mesos-cloud]\nstate-cache-ttl = 5\n", "state-cache-ttl = 5: expected a duration"),
            ("mesos-master = a:1\n", "before any section"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(expected), "{text}");
        }
    }
}
