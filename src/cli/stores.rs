//! The store that the flags select.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::flag::Values;
use crate::store::Store;
use crate::store::embedded::{self, Embedded};
use crate::store::etcd::{self, Etcd, Tls};

/// Opens the store of `--etcd-servers` or `--data-dir`; exactly one of them must be given.
///
/// # Errors
/// Names the flag, and why the store cannot be used.
pub(super) async fn open(values: &Values) -> anyhow::Result<Arc<dyn Store>> {
    let (servers, dir) = (values.list("etcd-servers"), values.maybe("data-dir"));
    match (servers.is_empty(), dir) {
        (true, Some(dir)) => embedded_at(Path::new(&dir)),
        (true, None) => bail!("--etcd-servers is missing (or --data-dir, for a single API server)"),
        (false, Some(_)) => bail!("--etcd-servers and --data-dir: give only one of them"),
        (false, None) => etcd(etcd::Config { tls: tls(values)?, ..etcd::Config::new(servers) }).await,
    }
}

/// Connects to etcd.
///
/// # Errors
/// Names the servers if none of them answers.
pub(super) async fn etcd(config: etcd::Config) -> anyhow::Result<Arc<dyn Store>> {
    Ok(Etcd::connect(config).await.context("--etcd-servers")?)
}

fn tls(values: &Values) -> anyhow::Result<Tls> {
    let identity = match (values.maybe("etcd-certfile"), values.maybe("etcd-keyfile")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => bail!("--etcd-certfile and --etcd-keyfile must be given together"),
    };
    Ok(Tls { ca: values.maybe("etcd-cafile").map(Into::into), identity })
}

/// Opens the embedded store in this directory.
pub(super) fn embedded_at(dir: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let store = Embedded::open(embedded::Config::new(dir)).with_context(|| format!("the store in {}", dir.display()))?;
    Ok(store)
}
