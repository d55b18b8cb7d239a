//! The versions that km reports.

/// The version of km.
pub const KM: &str = env!("CARGO_PKG_VERSION");
/// The `gitVersion` of the Kubernetes API: clients choose their behaviour by its first two numbers.
pub const KUBERNETES: &str = concat!("v1.33.0-km.", env!("CARGO_PKG_VERSION"));
pub const MAJOR: &str = "1";
pub const MINOR: &str = "33";
/// The minor version of the oldest release that a control plane of this version supports.
pub const PREVIOUS_MINOR: &str = "32";
