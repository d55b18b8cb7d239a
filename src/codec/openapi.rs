//! The API's description of itself for `kubectl explain` and for clients that validate: OpenAPI v3, a document a group and version, and
//! v2. Rendered from the registry and the schema when first asked for.

use super::Document;

/// `/openapi/v3`: where the documents are.
pub fn index() -> &'static Document {
    todo!()
}

/// `/openapi/v3/api/v1` (the group is empty) or `/openapi/v3/apis/{group}/{version}`; `None` if it is not served.
pub fn document(_group: &str, _version: &str) -> Option<&'static Document> {
    todo!()
}

/// `/openapi/v2` in protobuf (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`).
pub fn v2_protobuf() -> &'static Document {
    todo!()
}

/// `/openapi/v2` in JSON.
pub fn v2_json() -> &'static Document {
    todo!()
}
