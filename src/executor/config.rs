//! Configuration of an executor.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache::Query;
use crate::runtime::LogRotation;
use crate::util::product::{KUBERNETES, Product};

/// The values of the command line and of the agent's environment. Build it with [`Config::new`] and change fields as needed.
#[derive(Clone, Debug)]
pub struct Config {
    pub product: &'static Product,
    /// The agent's host name, set by the scheduler; also the name of the Node object.
    pub node_name: String,
    /// The address at which pods and users reach the node.
    pub node_ip: IpAddr,
    /// Where the kubelet API listens; port 0 picks a free one.
    pub address: IpAddr,
    pub port: u16,
    /// Directory for volumes and other data of pods.
    pub root_dir: PathBuf,
    /// Distinguishes this executor's containers from others on the same engine: the framework's id and the node's name.
    pub owner: String,
    /// The file from which the pause image is built: the running executable.
    pub executable: PathBuf,
    /// A pause image to use instead of the one built from `executable`; it must exist or be pullable.
    pub pause_image: Option<String>,
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    /// cgroup below which containers are put; empty for the engine's own.
    pub cgroup_parent: String,
    /// Mesos' id of the container that the executor runs in; empty without Mesos.
    pub container_uuid: String,
    pub allow_privileged: bool,
    /// Zero means never.
    pub suicide_timeout: Duration,
    /// Zero means for ever.
    pub launch_grace_period: Duration,
    pub node_status_period: Duration,
    /// How often the files of ConfigMaps, Secrets and pod fields in running pods are brought up to date; zero means never.
    pub sync_period: Duration,
    /// Events a second, and how many may come at once; `None` is no limit.
    pub event_rate: Option<(f64, u32)>,
    pub log: LogRotation,
    pub max_pods: u32,
    /// Whether log and exec requests are served.
    pub debugging_handlers: bool,
    /// `.docker/config.json` or `.dockercfg`, with registry credentials.
    pub docker_config: Option<PathBuf>,
}

impl Config {
    pub fn new(node_name: &str, node_ip: IpAddr, root_dir: PathBuf) -> Self {
        Self {
            product: KUBERNETES,
            node_name: node_name.to_owned(),
            node_ip,
            address: node_ip,
            port: 10250,
            root_dir,
            owner: node_name.to_owned(),
            executable: PathBuf::from("/proc/self/exe"),
            pause_image: None,
            cluster_dns: Vec::new(),
            cluster_domain: String::new(),
            cgroup_parent: String::new(),
            container_uuid: String::new(),
            allow_privileged: false,
            suicide_timeout: Duration::from_mins(20),
            launch_grace_period: Duration::from_mins(5),
            node_status_period: Duration::from_secs(10),
            sync_period: Duration::from_secs(10),
            event_rate: None,
            log: LogRotation { max_size: 10 << 20, max_files: 5 },
            max_pods: 110,
            debugging_handlers: true,
            docker_config: None,
        }
    }

    /// The pods that are bound to this node.
    pub fn pods(&self) -> Query {
        Query::field("spec.nodeName", &self.node_name)
    }
}
