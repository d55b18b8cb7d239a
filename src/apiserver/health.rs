//! `/healthz`, `/livez`, `/readyz` with their checks, `/version`, `/metrics` and the list of paths.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Server;
use super::query::Query;
use super::respond::{self, Response};
use crate::util::version;

/// Whether the server has done what it must before it serves.
#[derive(Debug, Default)]
pub(crate) struct Health {
    ready: AtomicBool,
}

impl Health {
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

/// A store that does not answer for this long is not healthy.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
const ALWAYS: &[&str] = &["ping", "etcd"];
const READINESS: &[&str] = &["ping", "etcd", "informer-sync", "poststarthook/bootstrap", "shutdown"];

pub(crate) async fn serve(server: &Arc<Server>, path: &str, query: &Query) -> Option<Response> {
    let path = path.trim_matches('/');
    let (endpoint, check) = path.split_once('/').unwrap_or((path, ""));
    let checks = match endpoint {
        "healthz" | "livez" => ALWAYS,
        "readyz" => READINESS,
        _ => return page(server, path),
    };
    if !check.is_empty() {
        let known = checks.iter().find(|it| **it == check)?;
        return Some(match run(server, known).await {
            Ok(()) => respond::text(200, "ok"),
            Err(why) => respond::text(500, format!("internal server error: {why}\n")),
        });
    }
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for name in checks {
        if query.all("exclude").any(|it| it == *name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if let Err(why) = run(server, name).await {
            tracing::warn!("the check {name} of {endpoint} failed: {why}");
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
            failed.push(*name);
        } else {
            lines.push_str(&format!("[+]{name} ok\n"));
        }
    }
    Some(match (failed.is_empty(), query.has("verbose")) {
        (false, _) => respond::text(500, format!("{lines}{endpoint} check failed\n")),
        (true, true) => respond::text(200, format!("{lines}{endpoint} check passed\n")),
        (true, false) => respond::text(200, "ok"),
    })
}

/// Whether the store answers.
///
/// # Errors
/// Why it does not.
pub(crate) async fn store(server: &Server) -> Result<(), String> {
    match tokio::time::timeout(STORE_TIMEOUT, server.store.revision()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{:#}", anyhow::Error::from(error))),
        Err(_) => Err(format!("the store did not answer within {STORE_TIMEOUT:?}")),
    }
}

async fn run(server: &Server, check: &str) -> Result<(), String> {
    match check {
        "etcd" => store(server).await,
        "informer-sync" | "poststarthook/bootstrap" if !server.health.ready.load(Ordering::Relaxed) => Err("not finished".to_owned()),
        "shutdown" if server.tasks.shutdown().is_cancelled() => Err("process is shutting down".to_owned()),
        _ => Ok(()),
    }
}

/// For people, whoever asks.
fn indented(body: &serde_json::Value) -> Response {
    respond::json(200, format!("{body:#}").into())
}

fn page(server: &Server, path: &str) -> Option<Response> {
    match path {
        "version" => {
            let fields = [
                ("major", version::MAJOR),
                ("minor", version::MINOR),
                ("emulationMajor", version::MAJOR),
                ("emulationMinor", version::MINOR),
                ("minCompatibilityMajor", version::MAJOR),
                ("minCompatibilityMinor", version::PREVIOUS_MINOR),
                ("gitVersion", version::KUBERNETES),
                ("gitCommit", ""),
                ("gitTreeState", "clean"),
                ("buildDate", "1970-01-01T00:00:00Z"),
                ("goVersion", ""),
                ("compiler", "rustc"),
                ("platform", "linux/amd64"),
            ];
            // In this order, which a JSON tree would not keep.
            let lines = fields.map(|(name, value)| format!("  \"{name}\": \"{value}\"")).join(",\n");
            Some(respond::json(200, format!("{{\n{lines}\n}}").into()))
        }
        "metrics" => Some(respond::full(200, "text/plain; version=0.0.4; charset=utf-8", server.config.metrics.render().into())),
        "" => {
            let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
            paths.extend(["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
            for resource in crate::object::resource::ALL {
                let prefix = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
                paths.extend([prefix.clone(), format!("{prefix}/{}", resource.version)]);
            }
            paths.extend(ALWAYS.iter().flat_map(|check| [format!("/healthz/{check}"), format!("/livez/{check}")]));
            paths.extend(READINESS.iter().map(|check| format!("/readyz/{check}")));
            paths.sort();
            paths.dedup();
            Some(indented(&serde_json::json!({ "paths": paths })))
        }
        _ => None,
    }
}
