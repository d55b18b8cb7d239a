//! `/healthz`, `/livez` and `/readyz` with their checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Server;
use super::query::Query;
use super::response::{self, Response};

/// A step of the server's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The cache has the content of the store, and follows it.
    Cache,
    /// The addresses and ports of services are claimed.
    Addresses,
    /// The objects that every cluster has exist.
    Objects,
}

/// Progress of the start.
#[derive(Debug, Default)]
pub(crate) struct Health {
    done: [AtomicBool; 3],
}

impl Health {
    pub(crate) fn set_done(&self, step: Step) {
        self.done[step as usize].store(true, Ordering::Relaxed);
    }

    fn is_done(&self, step: Step) -> bool {
        self.done[step as usize].load(Ordering::Relaxed)
    }
}

/// A store that does not answer for this long is not healthy.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// The hooks of Kubernetes' start with a counterpart in km, and the corresponding step; `None` if it is ready from the beginning.
const STARTED: [(&str, Option<Step>); 7] = [
    ("poststarthook/generic-apiserver-start-informers", Some(Step::Cache)),
    ("poststarthook/priority-and-fairness-filter", None),
    ("poststarthook/start-system-namespaces-controller", Some(Step::Objects)),
    ("poststarthook/start-service-ip-repair-controllers", Some(Step::Addresses)),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Some(Step::Objects)),
    ("poststarthook/bootstrap-controller", Some(Step::Objects)),
    ("poststarthook/start-kubernetes-service-cidr-controller", Some(Step::Objects)),
];

/// The checks of an endpoint.
fn checks(endpoint: &str) -> Option<impl Iterator<Item = &'static str> + Clone> {
    let (before, after): (&[&str], &[&str]) = match endpoint {
        "healthz" | "livez" => (&["ping", "log", "etcd"], &[]),
        "readyz" => (&["ping", "log", "etcd", "etcd-readiness", "informer-sync"], &["shutdown"]),
        _ => return None,
    };
    Some(before.iter().copied().chain(STARTED.map(|(name, _)| name)).chain(after.iter().copied()))
}

/// The paths of all checks.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    let of = |endpoint: &'static str| checks(endpoint).into_iter().flatten().map(move |check| format!("/{endpoint}/{check}"));
    ["healthz", "livez", "readyz"].into_iter().flat_map(of)
}

/// The answer of an endpoint, or of one of its checks; `None` for other paths.
pub(crate) async fn serve(server: &Arc<Server>, path: &str, query: &Query) -> Option<Response> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (endpoint, check) = path.split_once('/').map_or((path, None), |(endpoint, check)| (endpoint, Some(check)));
    let checks = checks(endpoint)?;
    if let Some(check) = check {
        let known = checks.clone().find(|it| *it == check)?;
        return Some(match run(server, known).await {
            Ok(()) => response::text(200, "ok"),
            Err(why) => response::text(500, format!("internal server error: {why}\n")),
        });
    }
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), false);
    for name in checks.clone() {
        if excluded.contains(&name) {
            excluded.retain(|it| *it != name);
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if let Err(why) = run(server, name).await {
            tracing::warn!("the check {name} of {endpoint} failed: {why}");
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
            failed = true;
        } else {
            lines.push_str(&format!("[+]{name} ok\n"));
        }
    }
    if !excluded.is_empty() {
        excluded.sort_unstable();
        excluded.dedup();
        let names = excluded.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    Some(match (failed, query.has("verbose")) {
        (true, _) => response::text(500, format!("{lines}{endpoint} check failed\n")),
        (false, true) => response::text(200, format!("{lines}{endpoint} check passed\n")),
        (false, false) => response::text(200, "ok"),
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
        "etcd" | "etcd-readiness" => store(server).await,
        "shutdown" if server.tasks.shutdown().is_cancelled() => Err("process is shutting down".to_owned()),
        _ => {
            let step = STARTED.iter().find(|(name, _)| *name == check).and_then(|(_, step)| *step);
            let step = if check == "informer-sync" { Some(Step::Cache) } else { step };
            if step.is_none_or(|it| server.health.is_done(it)) { Ok(()) } else { Err("not finished".to_owned()) }
        }
    }
}
