//! Who asks, and whether they may. Every request passes here; with the only mode there is (`AlwaysAllow` on a plain port) everyone may.

use http::HeaderMap;

use super::path::Target;
use super::query::Answer;

/// The client behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// What a request is about to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attributes<'a> {
    Resource { verb: &'a str, target: &'a Target },
    Path(&'a str),
}

/// The user a request comes from: whoever reaches the plain port is trusted. (A bearer token is not asked for yet; whose it is,
/// [`Tokens::verify`](super::tokens::Tokens::verify) knows.)
///
/// # Errors
/// 401 for credentials that are wrong.
pub(crate) fn authenticate(_headers: &HeaderMap) -> Answer<User> {
    Ok(User { name: "system:unsecured".to_owned(), groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()] })
}

/// # Errors
/// 403 if the user may not.
pub(crate) fn authorize(user: &User, attributes: Attributes<'_>) -> Answer<()> {
    match attributes {
        Attributes::Resource { verb, target } => {
            let Target { resource, namespace, name, subresource, .. } = target;
            tracing::trace!(user = user.name, groups = ?user.groups, verb, ?resource, namespace, name, subresource, "allowed");
        }
        Attributes::Path(path) => tracing::trace!(user = user.name, groups = ?user.groups, path, "allowed"),
    }
    Ok(())
}
