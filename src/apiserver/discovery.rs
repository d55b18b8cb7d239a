//! Discovery and OpenAPI: documents that the codec renders once.

use http::HeaderMap;

use super::Server;
use super::negotiate::{Negotiated, wants_aggregated_discovery};
use super::path::Route;
use super::query::Query;
use super::response::{self, Response};
use crate::codec::{discovery, openapi};

/// The document at a path; `None` if there is none.
pub(crate) fn serve(
    server: &Server,
    route: &Route,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
    negotiated: Negotiated,
) -> Option<Response> {
    const JSON: &str = "application/json";
    let document = match route {
        Route::Groups { legacy } if wants_aggregated_discovery(headers) => {
            return Some(response::document(headers, discovery::AGGREGATED, discovery::aggregated(*legacy)));
        }
        Route::Groups { legacy: true } => {
            let document = discovery::api_versions(&server.own_address().to_string());
            return Some(
                negotiated.for_documents().map_or_else(|status| response::status(&status), |_| response::plain_document(JSON, &document)),
            );
        }
        Route::Groups { legacy: false } => discovery::group_list(),
        Route::Group(name) => discovery::group(name)?,
        Route::Resources { group, version } => discovery::resources(group, version)?,
        _ => match path.trim_end_matches('/').strip_prefix("/openapi/")? {
            "v2" if wants_protobuf(headers) => return Some(response::document(headers, openapi::V2_PROTOBUF, openapi::v2_protobuf())),
            "v2" => openapi::v2_json(),
            "v3" => openapi::index(),
            deeper => {
                let (document, hash) = match deeper.split('/').collect::<Vec<_>>().as_slice() {
                    ["v3", "api", version] => (openapi::document("", version)?, openapi::hash("", version)?),
                    ["v3", "apis", group, version] => (openapi::document(group, version)?, openapi::hash(group, version)?),
                    _ => return None,
                };
                match query.get("hash") {
                    None => document,
                    Some(known) if known == hash => return Some(response::immutable(headers, JSON, document)),
                    Some(_) => return Some(response::moved(&format!("/openapi/{deeper}?hash={hash}"))),
                }
            }
        },
    };
    Some(match negotiated.for_documents() {
        // Kubernetes sends no caching headers for these.
        Ok(_) if matches!(route, Route::Groups { .. } | Route::Group(_) | Route::Resources { .. }) => {
            response::plain_document(JSON, document)
        }
        Ok(_) => response::document(headers, JSON, document),
        Err(status) => response::status(&status),
    })
}

/// Whether a path lies below a group of the API, existing or not.
pub(crate) fn has_group(path: &str) -> bool {
    match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api", _, ..] => true,
        ["apis", group, _, ..] => discovery::group(group).is_some(),
        _ => false,
    }
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let clauses = headers.get_all(http::header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    clauses.map(str::trim).next().is_some_and(|it| it.starts_with("application/com.github.proto-openapi.spec.v2"))
}
