//! The one agent of `km up`: its resources, and its executor, which is a task of this process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::client::Client;
use crate::executor::{Config, Executor, Mesos};
use crate::local_mesos::{Launcher, Running};
use crate::mesos::executor::{Driver, Environment};
use crate::mesos::v1::ExecutorInfo;
use crate::runtime::Runtime;
use crate::supervise::{Shutdown, Supervisor};

/// Host ports for pods, as Mesos agents offer them.
const PORTS: &str = "31000-32000";
/// MB of memory that are not offered, and MB of disk if the size of the disk is unknown.
const RESERVED: u64 = 512;
/// How long the executor's parts may take to stop.
const GRACE: Duration = Duration::from_secs(5);

/// The resources of this machine, in the syntax of an agent's `--resources`.
pub(super) fn resources(dir: &Path) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|it| it.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let mem = (total.unwrap_or(2 << 20) >> 10).saturating_sub(RESERVED).max(RESERVED);
    let disk = nix::sys::statvfs::statvfs(dir).map_or(RESERVED, |it| (it.blocks_available() * it.fragment_size()) >> 20);
    format!("cpus:{cpus};mem:{mem};disk:{disk};ports:[{PORTS}]")
}

/// Starts executors inside this process.
#[derive(Clone, Debug)]
pub(super) struct InProcess {
    pub client: Client,
    pub cache: Arc<Cache>,
    pub runtime: Arc<dyn Runtime>,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub root_dir: PathBuf,
    pub shutdown: Shutdown,
}

impl Launcher for InProcess {
    fn launch(&self, _: &ExecutorInfo, environment: BTreeMap<String, String>) -> Running {
        let this = self.clone();
        Box::pin(async move {
            match this.run(environment).await {
                Ok(()) => 0,
                Err(error) => {
                    tracing::error!("executor: {error:#}");
                    1
                }
            }
        })
    }
}

impl InProcess {
    async fn run(self, environment: BTreeMap<String, String>) -> anyhow::Result<()> {
        let parts = Supervisor::new(self.shutdown.child_token());
        // To kill the executor is to drop this future, which must end the parts too.
        let _end = parts.shutdown().drop_guard();
        let environment = Environment::read(|name| environment.get(name).cloned())?;
        std::fs::create_dir_all(&self.root_dir)?;
        let mut config = Config::new(&self.node_name, self.node_ip, self.root_dir);
        config.owner = format!("{}/{}", environment.framework_id.value, self.node_name);
        config.container_uuid = environment.container_id().to_owned();
        // Another kubelet may have the usual port; the node reports the actual one.
        config.port = 0;
        config.suicide_timeout = Duration::ZERO;
        let (driver, events) = Driver::start(environment, &parts);
        let mesos = Mesos { updates: Arc::new(driver.clone()), events };
        let executor = Executor::build(config, self.client, self.cache, self.runtime, Some(mesos)).await?;
        executor.run(parts.shutdown()).await?;
        if !self.shutdown.is_cancelled() {
            let _ = tokio::time::timeout(GRACE, driver.settled()).await;
        }
        parts.shutdown().cancel();
        parts.wait(GRACE).await
    }
}
