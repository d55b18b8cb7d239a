//! Which groups, versions and resources are served, in both forms that clients ask for. Rendered once from the registry.

use super::Document;

/// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`: of the core group for `/api` (`legacy`), of all others for `/apis`.
pub fn aggregated(_legacy: bool) -> &'static Document {
    todo!()
}

/// `/api`.
pub fn api_versions() -> &'static Document {
    todo!()
}

/// `/apis`.
pub fn group_list() -> &'static Document {
    todo!()
}

/// `/apis/{group}`; `None` if it is not served.
pub fn group(_name: &str) -> Option<&'static Document> {
    todo!()
}

/// `/api/v1` (the group is empty) or `/apis/{group}/{version}`; `None` if it is not served.
pub fn resources(_group: &str, _version: &str) -> Option<&'static Document> {
    todo!()
}
