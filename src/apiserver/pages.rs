//! `/version`, `/metrics` and the list of paths.

use super::response::{self, Response};
use super::{Server, health};
use crate::util::version;

/// For people, whoever asks.
fn indented(body: &serde_json::Value) -> Response {
    response::json(200, format!("{body:#}").into())
}

pub(crate) fn is_version(path: &str) -> bool {
    path.trim_matches('/') == "version"
}

/// The page at a path; `None` if there is none.
pub(crate) fn serve(server: &Server, path: &str) -> Option<Response> {
    match path.strip_prefix('/').unwrap_or(path).trim_end_matches('/') {
        "version" => {
            let platform = format!("{}/{}", std::env::consts::OS, version::architecture());
            let fields = [
                ("major", version::MAJOR),
                ("minor", version::MINOR),
                ("emulationMajor", version::MAJOR),
                ("emulationMinor", version::MINOR),
                ("minCompatibilityMajor", version::MAJOR),
                ("minCompatibilityMinor", version::PREVIOUS_MINOR),
                ("gitVersion", version::KUBERNETES),
                ("gitCommit", version::COMMIT),
                ("gitTreeState", version::TREE_STATE),
                ("buildDate", version::SOURCE_DATE),
                ("goVersion", ""),
                ("compiler", "rustc"),
                ("platform", &platform),
            ];
            // In this order, which a JSON tree would not keep.
            let lines = fields.map(|(name, value)| format!("  \"{name}\": \"{value}\"")).join(",\n");
            Some(response::json(200, format!("{{\n{lines}\n}}").into()))
        }
        "metrics" => Some(response::full(200, "text/plain; version=0.0.4; charset=utf-8", server.config.metrics.render().into())),
        "" => {
            let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
            paths.extend(["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
            for resource in crate::object::resource::ALL {
                let prefix = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
                paths.extend([prefix.clone(), format!("{prefix}/{}", resource.version)]);
            }
            paths.extend(health::paths());
            paths.sort();
            paths.dedup();
            Some(indented(&serde_json::json!({ "paths": paths })))
        }
        _ => None,
    }
}
