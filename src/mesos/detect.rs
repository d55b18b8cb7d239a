//! Which master leads: `host:port`, `master@host:port`, `zk://[user:pass@]host:port,…/path`, or `file:///f` that holds one of these.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use tokio::sync::watch;

use super::v1::MasterInfo;
use super::zookeeper;
use crate::supervise::Supervisor;

/// The default port of masters.
pub const MASTER_PORT: u16 = 5050;

/// The HTTP address of a master.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MasterAddress {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(to, "[{}]:{}", self.host, self.port) } else { write!(to, "{}:{}", self.host, self.port) }
    }
}

/// A master's location that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is neither host:port, zk://host:port,.../path nor file:///path")]
pub struct BadMaster(String);

impl FromStr for MasterAddress {
    type Err = BadMaster;

    /// Reads `host`, `host:port`, `[ipv6]:port`, or any of them behind `master@`, as in a libprocess id.
    fn from_str(text: &str) -> Result<Self, BadMaster> {
        let bad = || BadMaster(text.to_owned());
        let address = text.split_once('@').map_or(text, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (address, MASTER_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain = |character: char| !character.is_whitespace() && !matches!(character, '/' | ',' | '?' | '#');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl From<&MasterInfo> for MasterAddress {
    /// The address that a master announces. An IP address is preferred to a host name, which this machine may not resolve.
    fn from(info: &MasterInfo) -> Self {
        let named = info.address.as_ref();
        let text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
        // MasterInfo.ip is in network byte order
        let packed = std::net::Ipv4Addr::from(info.ip.to_ne_bytes());
        let host = text(named.and_then(|address| address.ip.as_ref()))
            .or_else(|| (!packed.is_unspecified()).then(|| packed.to_string()))
            .or_else(|| text(named.and_then(|address| address.hostname.as_ref())))
            .or_else(|| text(info.hostname.as_ref()))
            .unwrap_or_else(|| packed.to_string());
        let port = named.and_then(|address| u16::try_from(address.port).ok()).or_else(|| u16::try_from(info.port).ok());
        Self { host, port: port.unwrap_or(MASTER_PORT) }
    }
}

/// Where to look for the leading master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterLocation {
    /// One master, or any master of a cluster: non-leading ones redirect to the leader.
    Fixed(MasterAddress),
    /// The master elected below a path of a ZooKeeper ensemble.
    ZooKeeper(zookeeper::Ensemble),
}

impl MasterLocation {
    /// Reads the value of a flag such as `--mesos-master`; a file named by `file://` is read at once.
    ///
    /// # Errors
    /// If the value, or the file's content, has no known form, or the file cannot be read.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let Some(file) = file_of(text) else { return Ok(text.parse()?) };
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading the Mesos master from {}", file.display()))?;
        text.trim().parse().with_context(|| format!("in {}", file.display()))
    }
}

/// The path in `file:///path`, and in a bare `/path`.
fn file_of(text: &str) -> Option<PathBuf> {
    text.strip_prefix("file://").or_else(|| text.starts_with('/').then_some(text)).map(|path| Path::new(path).to_owned())
}

impl FromStr for MasterLocation {
    type Err = BadMaster;

    fn from_str(text: &str) -> Result<Self, BadMaster> {
        match text.strip_prefix("zk://") {
            Some(ensemble) => zookeeper::Ensemble::parse(ensemble).map(Self::ZooKeeper).ok_or_else(|| BadMaster(text.to_owned())),
            None => text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/').parse().map(Self::Fixed),
        }
    }
}

/// Starts to look for the leading master; the receiver holds the current one, `None` while none leads. While ZooKeeper is unreachable, the
/// last known master stays.
pub fn watch(location: MasterLocation, supervisor: &Supervisor) -> watch::Receiver<Option<MasterAddress>> {
    match location {
        MasterLocation::Fixed(address) => watch::channel(Some(address)).1,
        MasterLocation::ZooKeeper(ensemble) => {
            let (sender, receiver) = watch::channel(None);
            let shutdown = supervisor.shutdown();
            supervisor.spawn("Mesos master detection", async move {
                shutdown.run_until_cancelled_owned(zookeeper::follow_leader(ensemble, sender)).await;
                Ok(())
            });
            receiver
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::Address;

    #[test]
    fn locations_of_every_form_are_read() {
        let fixed = |host: &str, port| MasterLocation::Fixed(MasterAddress { host: host.into(), port });
        for (text, location) in [
            ("localhost:5050", fixed("localhost", 5050)),
            ("m1", fixed("m1", 5050)),
            ("master@10.0.0.1:5051", fixed("10.0.0.1", 5051)),
            ("[::1]:5051", fixed("::1", 5051)),
            ("::1", fixed("::1", 5050)),
            ("http://m1:80/", fixed("m1", 80)),
        ] {
            assert_eq!(text.parse(), Ok(location), "{text}");
        }
        for text in ["", ":5050", "m1:port", "m1:99999", "zk://", "zk://h:p/x", "a b:1", "a,b:1"] {
            assert!(text.parse::<MasterLocation>().is_err(), "{text}");
        }
        assert_eq!(MasterAddress { host: "::1".into(), port: 1 }.to_string(), "[::1]:1");
    }

    #[test]
    fn a_file_holds_a_location() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zk");
        std::fs::write(&path, "zk://a:2181,b/mesos\n").unwrap();
        let expected = "zk://a:2181,b:2181/mesos".parse().unwrap();
        assert_eq!(MasterLocation::read(&format!("file://{}", path.display())).unwrap(), expected);
        assert!(MasterLocation::read("file:///nowhere").unwrap_err().to_string().contains("/nowhere"));
    }

    #[test]
    fn a_master_is_reached_by_address_before_name() {
        let full = MasterInfo {
            ip: u32::from_ne_bytes([10, 0, 0, 9]),
            port: 5055,
            hostname: Some("old".into()),
            address: Some(Address { hostname: Some("new".into()), ip: Some("10.0.0.1".into()), port: 5051 }),
            ..MasterInfo::default()
        };
        assert_eq!(MasterAddress::from(&full).to_string(), "10.0.0.1:5051");
        let old = MasterInfo { address: None, ..full };
        assert_eq!(MasterAddress::from(&old).to_string(), "10.0.0.9:5055");
        let named = MasterInfo { ip: 0, ..old };
        assert_eq!(MasterAddress::from(&named).to_string(), "old:5055");
    }
}
