//! The addresses and ports of a pod that endpoints need.

use serde::Deserialize;

use super::Wire;

/// Addresses and ports of a pod and of its place on the host.
#[derive(Debug, Default)]
pub struct Serving {
    pub host_network: bool,
    pub hostname: Option<Box<str>>,
    pub subdomain: Option<Box<str>>,
    pub addresses: Box<[Box<str>]>,
    pub host_addresses: Box<[Box<str>]>,
    /// Of its containers, then of its sidecars.
    pub ports: Box<[Declared]>,
    /// Its assigned host ports, by the names of the annotations that hold them.
    pub given: Box<[(Box<str>, i32)]>,
}

/// A port that a container declares.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    #[serde(default)]
    name: Option<Box<str>>,
    /// `None`: TCP.
    #[serde(default)]
    protocol: Option<Box<str>>,
    pub container_port: i32,
    #[serde(default)]
    pub host_port: Option<i32>,
}

impl Declared {
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub fn protocol(&self) -> &str {
        self.protocol.as_deref().unwrap_or("TCP")
    }
}

impl Container {
    /// Whether it is an init container that runs beside later ones.
    pub(super) fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

impl Serving {
    /// The host port in an annotation.
    pub fn given(&self, annotation: &str) -> Option<i32> {
        self.given.iter().find(|(name, _)| **name == *annotation).map(|(_, port)| *port)
    }
}

/// Whether an annotation may hold a host port: those of every product end like this.
pub(super) fn tells_port(annotation: &str) -> bool {
    annotation.rsplit_once('/').is_some_and(|(_, name)| name.starts_with("port_") || name.starts_with("portName_"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    #[serde(default)]
    pub(super) name: Box<str>,
    #[serde(default)]
    restart_policy: Option<Box<str>>,
    #[serde(default)]
    ports: Option<Vec<Declared>>,
}

#[derive(Deserialize)]
pub(super) struct Address {
    #[serde(default)]
    ip: Box<str>,
}

impl Serving {
    /// Moves the needed fields out of `pod`.
    pub(super) fn of(pod: &mut Wire, given: Vec<(Box<str>, i32)>) -> Self {
        let (spec, status) = (&mut pod.spec, &mut pod.status);
        let sidecars = spec.init_containers.take().into_iter().flatten().filter(Container::is_sidecar);
        let containers = spec.containers.take().into_iter().flatten().chain(sidecars);
        Self {
            host_network: spec.host_network == Some(true),
            hostname: spec.hostname.take(),
            subdomain: spec.subdomain.take(),
            addresses: all(status.pod_ip.take(), status.pod_ips.take()),
            host_addresses: all(status.host_ip.take(), status.host_ips.take()),
            ports: containers.flat_map(|it| it.ports.unwrap_or_default()).collect(),
            given: given.into(),
        }
    }
}

/// The list, or the older single field if there is none.
fn all(one: Option<Box<str>>, many: Option<Vec<Address>>) -> Box<[Box<str>]> {
    match many.filter(|it| !it.is_empty()) {
        Some(many) => many.into_iter().map(|it| it.ip).collect(),
        None => one.into_iter().collect(),
    }
}
