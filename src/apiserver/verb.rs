//! The verb of a request: the action on the target of its path.

use http::Method;

use super::path::{Route, Target};
use super::query::Query;

/// The verbs of authorization and discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A method that has no meaning here.
    Unknown,
}

impl Verb {
    pub(crate) fn of(method: &Method, route: &Route, query: &Query) -> Self {
        let collection = matches!(route, Route::Target(it) if it.name.is_empty());
        let watch = matches!(route, Route::Target(it) if it.watch);
        match *method {
            Method::GET if watch || collection && query.flag("watch") => Self::Watch,
            Method::GET if collection => Self::List,
            Method::GET => Self::Get,
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if collection => Self::DeleteCollection,
            Method::DELETE => Self::Delete,
            _ => Self::Unknown,
        }
    }

    /// As discovery writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Unknown => "",
        }
    }

    /// Whether the target has this verb.
    pub(crate) fn is_allowed(self, target: &Target) -> bool {
        match target.resource.subresource(&target.subresource) {
            Some(subresource) => subresource.verbs.contains(&self.name()),
            None => target.resource.allows(self.name()) && self.fits(target),
        }
    }

    /// Objects are created and deleted in a collection, in one namespace, and changed by name. All namespaces at once can only be read.
    fn fits(self, target: &Target) -> bool {
        match self {
            Self::Create | Self::DeleteCollection => target.name.is_empty() && target.resource.namespaced != target.namespace.is_empty(),
            Self::Update | Self::Patch => !target.name.is_empty(),
            _ => true,
        }
    }
}
