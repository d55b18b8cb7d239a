//! Files that agents fetch from the scheduler: km itself, credentials, an overlay for the sandbox.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::config::Config;
use super::executorinfo::{self, Artifact, Prototype};
use super::limits::Defaults;
use super::resources::ExecutorCost;
use super::staticpods::{self, StaticPods};

/// The served files, by the name in their URL.
pub(super) type Files = BTreeMap<String, PathBuf>;

/// The running program, even if its file has since been replaced.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Decides which files are served under `base` (`http://host:port`), and builds the executor for the agents.
///
/// # Errors
/// If a file is missing, or two different files would be served under one name.
pub(super) fn prepare(config: &Config, base: &str) -> anyhow::Result<(Files, Prototype)> {
    let product = config.product;
    let mut served = Served { base, files: Files::new(), artifacts: Vec::new() };
    let command = match config.km_path.as_deref() {
        None => served.add(product.binary, Path::new(OWN_EXECUTABLE), true, true)?,
        Some(uri) if uri.starts_with("file://") => uri.trim_start_matches("file://").to_owned(),
        Some(uri) if uri.contains("://") => {
            served.artifacts.push(Artifact { uri: uri.to_owned(), executable: true, extract: true });
            format!("./{}", product.binary)
        }
        Some(path) => served.add_file(Path::new(path), true, true)?,
    };
    let flags = &config.executor;
    for path in [&flags.proxy_kubeconfig, &flags.kubeconfig].into_iter().flatten() {
        served.add_file(path, false, true)?;
    }
    if let Some(path) = &config.mesos_sandbox_overlay {
        served.add_file(path, false, true).context("--mesos-sandbox-overlay")?;
    }
    if let Some(path) = &config.dockercfg_path {
        served.add(".dockercfg", path, false, false)?;
    }
    let defaults = limits(config);
    let pods = match &config.static_pods_config {
        Some(directory) => staticpods::read(directory, product, defaults)?,
        None => StaticPods::default(),
    };
    let cost = ExecutorCost {
        cpu: thousandths(config.mesos_executor_cpus).saturating_add(pods.limits.cpu),
        mem: thousandths(config.mesos_executor_mem).saturating_add(pods.limits.mem),
    };
    let arguments = executorinfo::arguments(&command, flags, basename);
    let prototype = Prototype::new(product, &command, arguments, &served.artifacts, pods.data, cost);
    Ok((served.files, prototype))
}

/// The limits of containers that set none.
pub(super) fn limits(config: &Config) -> Defaults {
    Defaults { cpu: thousandths(config.default_container_cpu_limit), mem: thousandths(config.default_container_mem_limit) }
}

fn thousandths(value: f64) -> u64 {
    (value * 1000.0).round() as u64
}

fn basename(path: &Path) -> String {
    path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
}

struct Served<'a> {
    base: &'a str,
    files: Files,
    artifacts: Vec<Artifact>,
}

impl Served<'_> {
    /// Serves a file under its own name; returns its path in the sandbox.
    fn add_file(&mut self, path: &Path, executable: bool, extract: bool) -> anyhow::Result<String> {
        self.add(&basename(path), path, executable, extract)
    }

    fn add(&mut self, name: &str, path: &Path, executable: bool, extract: bool) -> anyhow::Result<String> {
        if !path.is_file() {
            bail!("{}: there is no such file", path.display());
        }
        match self.files.insert(name.to_owned(), path.to_owned()) {
            Some(other) if other != path => bail!("{} and {} cannot both be served as {name:?}", other.display(), path.display()),
            Some(_) => {}
            None => self.artifacts.push(Artifact { uri: format!("{}/{name}", self.base), executable, extract }),
        }
        Ok(format!("./{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::config::ExecutorFlags;

    #[test]
    fn km_is_served_fetched_or_there() {
        let command = |km_path: Option<&str>| {
            let config = Config { km_path: km_path.map(str::to_owned), ..Config::default() };
            let (files, prototype) = prepare(&config, "http://h:1").unwrap();
            let command = prototype.on_agent("f", "a", Vec::new()).command.unwrap();
            (command.value.unwrap(), command.uris.first().map(|it| it.value.clone()), files.len())
        };
        assert_eq!(command(None), ("./km".to_owned(), Some("http://h:1/km".to_owned()), 1));
        assert_eq!(command(Some("file:///opt/km")), ("/opt/km".to_owned(), None, 0));
        assert_eq!(command(Some("hdfs://n/km")), ("./km".to_owned(), Some("hdfs://n/km".to_owned()), 0));
    }

    #[test]
    fn one_name_is_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            path
        };
        let with = |proxy: PathBuf, kubelet: PathBuf| {
            let executor = ExecutorFlags { proxy_kubeconfig: Some(proxy), kubeconfig: Some(kubelet), ..ExecutorFlags::default() };
            prepare(&Config { executor, ..Config::default() }, "http://h:1")
        };
        let (one, other) = (file("a/config"), file("b/config"));
        assert_eq!(with(one.clone(), one.clone()).unwrap().0.len(), 2);
        assert!(with(one.clone(), other).unwrap_err().to_string().contains("cannot both be served as \"config\""));
        assert!(with(one, directory.path().join("none")).is_err());
    }
}
