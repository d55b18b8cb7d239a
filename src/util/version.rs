//! The versions that km reports.

/// The version of km.
pub const KM: &str = env!("CARGO_PKG_VERSION");
/// The `gitVersion` of the Kubernetes API: clients choose their behaviour by its first two numbers.
pub const KUBERNETES: &str = concat!("v1.33.0-km.", env!("CARGO_PKG_VERSION"));
/// The commit of the source, if the build got one, and whether the source was unchanged (`clean`) or not (`dirty`).
pub const COMMIT: &str = told(option_env!("KM_COMMIT"), "");
pub const TREE_STATE: &str = told(option_env!("KM_TREE_STATE"), "");
/// Time of that commit, not of the build, so that builds are reproducible.
pub const SOURCE_DATE: &str = told(option_env!("KM_SOURCE_DATE"), "1970-01-01T00:00:00Z");
pub const MAJOR: &str = "1";
pub const MINOR: &str = "33";
/// The minor version of the oldest release that a control plane of this version supports.
pub const PREVIOUS_MINOR: &str = "32";

const fn told(value: Option<&'static str>, otherwise: &'static str) -> &'static str {
    match value {
        Some(value) => value,
        None => otherwise,
    }
}

/// The target architecture, by its name in Go.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
