//! The versions that km reports.

/// Of km itself.
pub const KM: &str = env!("CARGO_PKG_VERSION");
/// Of the Kubernetes API, as `gitVersion`: clients choose their behaviour by its first two numbers.
pub const KUBERNETES: &str = concat!("v1.33.0-km.", env!("CARGO_PKG_VERSION"));
pub const MAJOR: &str = "1";
pub const MINOR: &str = "33";
/// Of the oldest release that a control plane of this one still understands.
pub const PREVIOUS_MINOR: &str = "32";
