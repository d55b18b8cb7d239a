//! Configuration of the scheduler: one field per flag of `km scheduler`, with its default, and the tuning file of `--scheduler-config`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::frameworkid::StoreUri;
use crate::util::ini;
use crate::util::product::{KUBERNETES, Product};

/// The flags of `km scheduler`. Each field is named after its flag; units are in the type or the comment.
#[derive(Clone, Debug)]
pub struct Config {
    pub product: &'static Product,
    /// The listening address of the HTTP server, also used in artifact URLs, and published unless `published_address` is set.
    pub address: IpAddr,
    pub port: u16,
    /// `host:port` or URLs; the scheduler itself uses the first.
    pub api_servers: Vec<String>,
    pub static_pods_config: Option<PathBuf>,
    pub mesos_master: String,
    pub mesos_user: String,
    pub mesos_framework_roles: Vec<String>,
    pub mesos_default_pod_roles: Vec<String>,
    pub mesos_authentication_principal: Option<String>,
    pub mesos_authentication_secret_file: Option<PathBuf>,
    /// Served to agents as `.dockercfg`.
    pub dockercfg_path: Option<PathBuf>,
    /// Cores and megabytes of the executor itself.
    pub mesos_executor_cpus: f64,
    pub mesos_executor_mem: f64,
    pub checkpoint: bool,
    /// Seconds; with 0 or less, no framework id is kept.
    pub failover_timeout: f64,
    pub mesos_generate_task_discovery: bool,
    /// `--hostname-override`: the host name that the framework registers with.
    pub hostname: String,
    /// Zero: no implicit reconciliation.
    pub reconcile_interval: Duration,
    pub reconcile_cooldown: Duration,
    pub ha: bool,
    pub framework_name: String,
    /// `--framework-store-uri`: where the framework id is kept.
    pub framework_store: StoreUri,
    pub framework_weburi: Option<String>,
    /// `host:port` for artifact URLs, if not `address:port`.
    pub advertised_address: Option<String>,
    pub service_address: Option<IpAddr>,
    /// The address published in the endpoints of the scheduler's service (`LIBPROCESS_IP`), if not `address`.
    pub published_address: Option<IpAddr>,
    pub default_container_cpu_limit: f64,
    /// Megabytes.
    pub default_container_mem_limit: f64,
    pub host_port_endpoints: bool,
    /// Ask Mesos for agents with GPUs, for pods that request `nvidia.com/gpu`.
    pub mesos_gpus: bool,
    /// `--km-path`: a path (served to agents), `file:///p` (already on the agents), or another URI. `None`: this executable.
    pub km_path: Option<String>,
    /// An archive that is served and unpacked in the executor's sandbox.
    pub mesos_sandbox_overlay: Option<PathBuf>,
    pub executor: ExecutorFlags,
    pub tuning: Tuning,
}

/// Flags that the scheduler passes on to the minion and executor on the agents.
#[derive(Clone, Debug)]
pub struct ExecutorFlags {
    pub allow_privileged: bool,
    pub cluster_domain: String,
    pub cluster_dns: Option<IpAddr>,
    pub mesos_cgroup_prefix: String,
    pub contain_pod_resources: bool,
    /// `--executor-logv`.
    pub logv: u32,
    /// `--executor-bindall`.
    pub bindall: bool,
    /// `--executor-suicide-timeout`.
    pub suicide_timeout: Duration,
    pub mesos_launch_grace_period: Duration,
    pub proxy_bindall: bool,
    pub run_proxy: bool,
    pub proxy_kubeconfig: Option<PathBuf>,
    pub proxy_logv: u32,
    pub proxy_mode: String,
    /// `--minion-path-override`.
    pub path_override: String,
    /// `--minion-max-log-size`, a quantity.
    pub max_log_size: String,
    /// Days.
    pub max_log_age: u32,
    pub max_log_backups: u32,
    /// `--kubelet-api-servers`; if empty, the scheduler's own.
    pub kubelet_api_servers: Vec<String>,
    pub root_dir: String,
    pub docker_endpoint: String,
    pub pod_infra_container_image: String,
    pub cadvisor_port: u16,
    pub sync_frequency: Duration,
    pub enable_debugging_handlers: bool,
    pub kubeconfig: Option<PathBuf>,
    pub conntrack_max: u32,
    pub conntrack_max_per_core: u32,
    pub conntrack_tcp_timeout_established: u32,
    pub housekeeping_interval: Option<Duration>,
    pub global_housekeeping_interval: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            product: KUBERNETES,
            address: Ipv4Addr::LOCALHOST.into(),
            port: 10251,
            api_servers: Vec::new(),
            static_pods_config: None,
            mesos_master: "localhost:5050".to_owned(),
            mesos_user: "root".to_owned(),
            mesos_framework_roles: vec!["*".to_owned()],
            mesos_default_pod_roles: vec!["*".to_owned()],
            mesos_authentication_principal: None,
            mesos_authentication_secret_file: None,
            dockercfg_path: None,
            mesos_executor_cpus: 0.25,
            mesos_executor_mem: 128.0,
            checkpoint: true,
            failover_timeout: (1u64 << 62) as f64 / 1e9,
            mesos_generate_task_discovery: false,
            hostname: "localhost".to_owned(),
            reconcile_interval: Duration::from_secs(300),
            reconcile_cooldown: MINIMUM_COOLDOWN,
            ha: false,
            framework_name: KUBERNETES.framework_name.to_owned(),
            framework_store: StoreUri::default(),
            framework_weburi: None,
            advertised_address: None,
            service_address: None,
            published_address: None,
            default_container_cpu_limit: 0.25,
            default_container_mem_limit: 64.0,
            host_port_endpoints: true,
            mesos_gpus: false,
            km_path: None,
            mesos_sandbox_overlay: None,
            executor: ExecutorFlags::default(),
            tuning: Tuning::default(),
        }
    }
}

impl Default for ExecutorFlags {
    fn default() -> Self {
        Self {
            allow_privileged: false,
            cluster_domain: String::new(),
            cluster_dns: None,
            mesos_cgroup_prefix: "mesos".to_owned(),
            contain_pod_resources: true,
            logv: 0,
            bindall: false,
            suicide_timeout: Duration::from_secs(20 * 60),
            mesos_launch_grace_period: Duration::from_secs(5 * 60),
            proxy_bindall: false,
            run_proxy: true,
            proxy_kubeconfig: None,
            proxy_logv: 0,
            proxy_mode: "userspace".to_owned(),
            path_override: String::new(),
            max_log_size: "10Mi".to_owned(),
            max_log_age: 7,
            max_log_backups: 5,
            kubelet_api_servers: Vec::new(),
            root_dir: String::new(),
            docker_endpoint: String::new(),
            pod_infra_container_image: String::new(),
            cadvisor_port: 4194,
            sync_frequency: Duration::from_secs(10),
            enable_debugging_handlers: true,
            kubeconfig: None,
            conntrack_max: 0,
            conntrack_max_per_core: 0,
            conntrack_tcp_timeout_established: 0,
            housekeeping_interval: Some(Duration::from_secs(10)),
            global_housekeeping_interval: Some(Duration::from_secs(60)),
        }
    }
}

/// Shortest allowed cooldown between reconciliations.
const MINIMUM_COOLDOWN: Duration = Duration::from_secs(15);

/// An invalid or contradictory configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("--framework-name must not be empty")]
    FrameworkName,
    #[error("--mesos-framework-roles: only one custom role allowed in addition to \"*\", got {0:?}")]
    FrameworkRoles(Vec<String>),
    #[error("--mesos-default-pod-roles: {0:?} is not among the framework roles {1:?}")]
    PodRole(String, Vec<String>),
    #[error("--api-servers: at least one is needed")]
    ApiServers,
    #[error("--{0} must not be negative")]
    Negative(&'static str),
}

impl Config {
    /// Checks the constraints between the flags, and normalizes values.
    ///
    /// # Errors
    /// The first fault; it names the flag.
    pub fn check(mut self) -> Result<Self, ConfigError> {
        self.framework_name = self.framework_name.trim().to_owned();
        if self.framework_name.is_empty() {
            return Err(ConfigError::FrameworkName);
        }
        let roles = &self.mesos_framework_roles;
        if !matches!(roles.len(), 1 | 2) || roles.len() == 2 && (!roles.iter().any(|it| it == "*") || roles[0] == roles[1]) {
            return Err(ConfigError::FrameworkRoles(roles.clone()));
        }
        if let Some(stray) = self.mesos_default_pod_roles.iter().find(|it| !roles.contains(it)) {
            return Err(ConfigError::PodRole(stray.clone(), roles.clone()));
        }
        if self.api_servers.is_empty() {
            return Err(ConfigError::ApiServers);
        }
        for (flag, value) in [
            ("mesos-executor-cpus", self.mesos_executor_cpus),
            ("mesos-executor-mem", self.mesos_executor_mem),
            ("default-container-cpu-limit", self.default_container_cpu_limit),
            ("default-container-mem-limit", self.default_container_mem_limit),
        ] {
            if value.is_nan() || value < 0.0 {
                return Err(ConfigError::Negative(flag));
            }
        }
        if self.reconcile_cooldown < MINIMUM_COOLDOWN {
            tracing::warn!("--reconcile-cooldown {:?} is too short, taking {MINIMUM_COOLDOWN:?}", self.reconcile_cooldown);
            self.reconcile_cooldown = MINIMUM_COOLDOWN;
        }
        if self.executor.kubelet_api_servers.is_empty() {
            self.executor.kubelet_api_servers = self.api_servers.clone();
        }
        Ok(self)
    }

    /// The role to subscribe with: offers to it include resources reserved for it, and unreserved ones.
    pub fn subscribed_role(&self) -> &str {
        self.mesos_framework_roles.iter().find(|it| *it != "*").map_or("*", |it| it.as_str())
    }

    /// How long Mesos and the store keep the framework; `None`: not at all.
    pub fn failover(&self) -> Option<Duration> {
        (self.failover_timeout > 0.0).then(|| Duration::try_from_secs_f64(self.failover_timeout).unwrap_or(Duration::MAX))
    }
}

/// The `[scheduler]` section of the tuning file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How long an unused offer is held.
    pub offer_ttl: Duration,
    /// How long a past offer stays listed. No effect: offers are forgotten at once. Accepted for existing files.
    pub offer_linger_ttl: Duration,
    /// No effect: an offer wakes waiting pods at once. Accepted for existing files.
    pub listener_delay: Duration,
    /// No effect: the cache keeps pod updates. Accepted for existing files.
    pub updates_backlog: usize,
    pub framework_id_refresh_interval: Duration,
    pub initial_implicit_reconciliation_delay: Duration,
    pub explicit_reconciliation_max_backoff: Duration,
    pub explicit_reconciliation_abort_timeout: Duration,
    pub initial_pod_backoff: Duration,
    pub max_pod_backoff: Duration,
    pub http_handler_timeout: Duration,
    pub http_bind_interval: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            offer_ttl: Duration::from_secs(5),
            offer_linger_ttl: Duration::from_secs(120),
            listener_delay: Duration::from_secs(1),
            updates_backlog: 2048,
            framework_id_refresh_interval: Duration::from_secs(30),
            initial_implicit_reconciliation_delay: Duration::from_secs(15),
            explicit_reconciliation_max_backoff: Duration::from_secs(120),
            explicit_reconciliation_abort_timeout: Duration::from_secs(30),
            initial_pod_backoff: Duration::from_secs(1),
            max_pod_backoff: Duration::from_secs(60),
            http_handler_timeout: Duration::from_secs(10),
            http_bind_interval: Duration::from_secs(5),
        }
    }
}

/// Why a tuning file is invalid. None of it is applied.
#[derive(Debug, thiserror::Error)]
pub enum TuningError {
    #[error(transparent)]
    Syntax(#[from] ini::Error),
    #[error("unknown key {0:?} in section [scheduler]")]
    Key(String),
    #[error("{key}: {value:?} is not {expected}")]
    Value { key: String, value: String, expected: &'static str },
}

impl Tuning {
    /// Reads an ini file with a section `[scheduler]` on top of the defaults.
    ///
    /// # Errors
    /// For any unknown key or invalid value; it names the key.
    pub fn parse(text: &str) -> Result<Self, TuningError> {
        let mut tuning = Self::default();
        for (key, value) in ini::entries(text, "scheduler")? {
            tuning.set(key, value)?;
        }
        Ok(tuning)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), TuningError> {
        let wrong = |expected| TuningError::Value { key: key.to_owned(), value: value.to_owned(), expected };
        let target = match key.to_ascii_lowercase().as_str() {
            "offer-ttl" => &mut self.offer_ttl,
            "offer-linger-ttl" => &mut self.offer_linger_ttl,
            "listener-delay" => &mut self.listener_delay,
            "updates-backlog" => {
                self.updates_backlog = value.parse().map_err(|_| wrong("a whole number"))?;
                return Ok(());
            }
            "framework-id-refresh-interval" => &mut self.framework_id_refresh_interval,
            "initial-implicit-reconciliation-delay" => &mut self.initial_implicit_reconciliation_delay,
            "explicit-reconciliation-max-backoff" => &mut self.explicit_reconciliation_max_backoff,
            "explicit-reconciliation-abort-timeout" => &mut self.explicit_reconciliation_abort_timeout,
            "initial-pod-backoff" => &mut self.initial_pod_backoff,
            "max-pod-backoff" => &mut self.max_pod_backoff,
            "http-handler-timeout" => &mut self.http_handler_timeout,
            "http-bind-interval" => &mut self.http_bind_interval,
            _ => return Err(TuningError::Key(key.to_owned())),
        };
        *target = crate::util::duration::parse(value).map_err(|_| wrong("a duration such as 5s"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuning_files_are_read_whole_or_not_at_all() {
        let text = "; slower\n[scheduler]\noffer-ttl = 7s\n# and\nupdates-backlog=9\nmax-pod-backoff = 1m30s\n";
        let expected =
            Tuning { offer_ttl: Duration::from_secs(7), updates_backlog: 9, max_pod_backoff: Duration::from_secs(90), ..Tuning::default() };
        assert_eq!(Tuning::parse(text).unwrap(), expected);
        assert_eq!(Tuning::parse("").unwrap(), Tuning::default());
        for (text, message) in [
            ("[scheduler]\noffer-tl = 7s", "unknown key \"offer-tl\" in section [scheduler]"),
            ("[scheduler]\noffer-ttl = soon", "offer-ttl: \"soon\" is not a duration such as 5s"),
            ("[scheduler]\nupdates-backlog = x", "updates-backlog: \"x\" is not a whole number"),
            ("[other]\na = 1", "unknown section [other], expected [scheduler]"),
            ("[scheduler]\noffer-ttl 7s\na = 1", "line 2: expected a [section], or key = value"),
        ] {
            assert_eq!(Tuning::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn roles_are_checked() {
        let with = |framework: &[&str], pods: &[&str]| {
            let own = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
            let config = Config { api_servers: own(&["a:1"]), mesos_framework_roles: own(framework), ..Config::default() };
            Config { mesos_default_pod_roles: own(pods), ..config }.check().map(|it| it.subscribed_role().to_owned())
        };
        assert_eq!(with(&["*"], &["*"]).as_deref(), Ok("*"));
        assert_eq!(with(&["*", "public"], &["public", "*"]).as_deref(), Ok("public"));
        assert!(with(&["a", "b"], &["a"]).is_err());
        assert!(with(&["*", "a", "b"], &["a"]).is_err());
        assert!(with(&["*"], &["a"]).is_err());
        assert_eq!(Config::default().check().unwrap_err(), ConfigError::ApiServers);
    }
}
