//! The kubeconfig file that `km up` writes.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use crate::codec::yaml;
use crate::util::product::KUBERNETES;

/// Writes the file atomically.
///
/// # Errors
/// Names the file if it cannot be written.
pub(super) fn write(path: &Path, server: SocketAddr) -> anyhow::Result<()> {
    let name = KUBERNETES.binary;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": { "server": format!("http://{server}") } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "users": [{ "name": name, "user": {} }],
        "current-context": name,
    });
    let text = yaml::write(&config);
    let (half, failed) = (path.with_extension("part"), || format!("--kubeconfig: {}", path.display()));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(failed)?;
    }
    std::fs::write(&half, text).with_context(failed)?;
    std::fs::rename(&half, path).with_context(failed)
}
