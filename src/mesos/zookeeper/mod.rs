//! The parts of ZooKeeper that km needs: following the election of the Mesos master, and storing small values such as a framework's id.

mod client;
mod wire;

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;

pub use client::{Client, Error};
pub use wire::Error as ServerError;

use super::detect::MasterAddress;
use super::v1::{Address, MasterInfo};
use crate::util::backoff::Backoff;

const PORT: u16 = 2181;
/// Changes within this time are looked at together: an election is several changes in a row.
const SETTLE: Duration = Duration::from_millis(100);

/// Servers of an ensemble, and a path in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ensemble {
    pub servers: Vec<(String, u16)>,
    /// `user:password` of the digest scheme.
    pub credential: Option<String>,
    /// Without a slash at its end; empty for the root.
    pub path: String,
}

/// Without the credential.
impl std::fmt::Debug for Ensemble {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Ensemble").field("servers", &self.servers).field("path", &self.path).finish_non_exhaustive()
    }
}

/// The form on command lines, without the credential.
impl std::fmt::Display for Ensemble {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers: Vec<String> = self.servers.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        write!(to, "zk://{}{}", servers.join(","), self.path)
    }
}

impl Ensemble {
    /// Parses the rest after `zk://`: `[user:password@]host[:port],…/path`.
    pub fn parse(text: &str) -> Option<Self> {
        let (credential, rest) = match text.rsplit_once('@') {
            Some((credential, rest)) => (Some(credential.to_owned()), rest),
            None => (None, text),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let server = |host: &str| match host.rsplit_once(':') {
            Some((host, port)) => Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)),
            None => Some((host.to_owned(), PORT)),
        };
        let servers = hosts.split(',').map(server).collect::<Option<Vec<_>>>()?;
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        (!servers.iter().any(|(host, _)| host.is_empty())).then_some(Self { servers, credential, path })
    }
}

/// Keeps `leader` at the master that is elected below the ensemble's path. It becomes `None` when ZooKeeper reports that none leads, but
/// not when ZooKeeper is unreachable. Ends when all receivers are dropped.
pub(super) async fn follow_leader(ensemble: Ensemble, leader: watch::Sender<Option<MasterAddress>>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut start = rand::random_range(0..ensemble.servers.len());
    while !leader.is_closed() {
        let error = tokio::select! {
            () = leader.closed() => return,
            Err(error) = follow(&ensemble, start, &leader, &mut backoff) => error,
        };
        start += 1;
        tracing::warn!("{ensemble}: {error}");
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn follow(
    ensemble: &Ensemble,
    start: usize,
    leader: &watch::Sender<Option<MasterAddress>>,
    backoff: &mut Backoff,
) -> Result<(), Error> {
    let mut client = Client::open(ensemble, start).await?;
    loop {
        let found = find_leader(&mut client, &ensemble.path).await?;
        backoff.reset();
        leader.send_if_modified(|known| {
            let changed = *known != found;
            if changed {
                tracing::info!("leading Mesos master: {}", found.as_ref().map_or("none".to_owned(), MasterAddress::to_string));
                *known = found;
            }
            changed
        });
        client.notified().await?;
        tokio::time::sleep(SETTLE).await;
    }
}

/// The leading master, and a watch for its change.
async fn find_leader(client: &mut Client, path: &str) -> Result<Option<MasterAddress>, Error> {
    let root = if path.is_empty() { "/" } else { path };
    loop {
        let children = match client.children(root, true).await {
            Err(Error::Server(ServerError::NoNode)) if client.exists(root, true).await? => continue,
            Err(Error::Server(ServerError::NoNode)) => return Ok(None),
            children => children?,
        };
        let Some(name) = leading(&children) else { return Ok(None) };
        match client.data(&format!("{path}/{name}")).await {
            // it was deleted in between: look again
            Err(Error::Server(ServerError::NoNode)) => {}
            data => return Ok(read_master(name, &data?)),
        }
    }
}

/// The leading candidate: the first of those that announce themselves in JSON (since Mesos 0.24), otherwise of the others.
fn leading(children: &[String]) -> Option<&str> {
    let first = |prefix: &str| {
        let sequence = |name: &str| name.strip_prefix(prefix).and_then(|digits| digits.parse::<u64>().ok());
        children.iter().filter_map(|name| Some((sequence(name)?, name.as_str()))).min().map(|(_, name)| name)
    };
    first("json.info_").or_else(|| first("info_"))
}

fn read_master(name: &str, data: &[u8]) -> Option<MasterAddress> {
    let info = if name.starts_with("json.") {
        serde_json::from_slice::<JsonMaster>(data).map(MasterInfo::from).map_err(|error| error.to_string())
    } else {
        prost::Message::decode(data).map_err(|error: prost::DecodeError| error.to_string())
    };
    info.inspect_err(|error| tracing::error!("the announcement {name} in ZooKeeper is not a MasterInfo: {error}"))
        .ok()
        .map(|info| MasterAddress::from(&info))
}

/// A MasterInfo in JSON; only its address.
#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonMaster {
    id: String,
    ip: u32,
    port: u32,
    hostname: Option<String>,
    address: Option<JsonAddress>,
}

#[derive(Deserialize)]
struct JsonAddress {
    hostname: Option<String>,
    ip: Option<String>,
    port: i32,
}

impl From<JsonMaster> for MasterInfo {
    fn from(JsonMaster { id, ip, port, hostname, address }: JsonMaster) -> Self {
        let address = address.map(|JsonAddress { hostname, ip, port }| Address { hostname, ip, port });
        Self { id, ip, port, hostname, address, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensemble_is_read() {
        let parsed = Ensemble::parse("me:a@b@h1:2181,h2,[::1]:2182/a/mesos/").unwrap();
        assert_eq!(parsed.credential.as_deref(), Some("me:a@b"));
        assert_eq!(parsed.servers, [("h1".to_owned(), 2181), ("h2".to_owned(), 2181), ("::1".to_owned(), 2182)]);
        assert_eq!(parsed.path, "/a/mesos");
        assert!(!format!("{parsed:?}").contains("me:a"));
        assert_eq!(parsed.to_string(), "zk://h1:2181,h2:2181,::1:2182/a/mesos");
        assert_eq!(Ensemble::parse("h").unwrap().path, "");
        assert_eq!(Ensemble::parse("h1,,h2/x"), None);
    }

    #[test]
    fn the_first_json_candidate_leads() {
        for (children, name) in [
            (&["json.info_0000000010", "json.info_0000000009", "info_0000000001", "log_replicas"][..], Some("json.info_0000000009")),
            (&["info_0000000003", "info_0000000002", "log_replicas"], Some("info_0000000002")),
            (&["log_replicas", "json.info_", "info_x"], None),
            (&[], None),
        ] {
            let children: Vec<_> = children.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(leading(&children), name);
        }
    }

    #[test]
    fn both_forms_of_announcement_are_read() {
        let json = br#"{"address":{"hostname":"m1","ip":"10.0.0.1","port":5051},"hostname":"m1","id":"x","ip":16777226,"pid":"master@10.0.0.1:5051","port":5051,"version":"1.11.0"}"#;
        assert_eq!(read_master("json.info_1", json).unwrap().to_string(), "10.0.0.1:5051");
        let old = MasterInfo { ip: u32::from_ne_bytes([10, 0, 0, 1]), port: 5050, ..MasterInfo::default() };
        assert_eq!(read_master("info_1", &prost::Message::encode_to_vec(&old)).unwrap().to_string(), "10.0.0.1:5050");
        assert_eq!(read_master("json.info_1", b"{"), None);
    }
}
