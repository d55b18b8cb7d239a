//! The registry of resources: the data about each kind that discovery, storage, tables and selectors need.

use std::fmt;
use std::hash::{Hash, Hasher};

pub use super::resources::*;

/// A row of the registry; rows live as long as the process.
pub type ResourceRef = &'static Resource;

/// One resource in one group and version.
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The lower-case plural in URLs.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Selectable fields besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [Selectable],
    /// Name of the schema type, such as `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// The version in which the objects are stored, if not this one.
    pub stored_as: Option<ResourceRef>,
    /// The deprecation warning that clients get: since when, and the replacement. Empty if not deprecated.
    pub deprecated: &'static str,
    /// Whether `metadata.generation` counts the changes of what an object asks for.
    pub counts_generations: bool,
    /// Whether an update must say which `resourceVersion` it changes. The controllers of such kinds would lose each other's changes.
    pub updates_need_a_revision: bool,
    /// Whether a PUT of an object that does not exist creates it.
    pub created_by_put: bool,
    /// Whether a DELETE responds with the deleted object rather than with a `Status`.
    pub shown_when_deleted: bool,
    /// The finalizer that protects objects while they are in use.
    pub protection: Option<&'static str>,
}

/// A field that field selectors may use.
#[derive(Debug)]
pub struct Selectable {
    /// Dotted JSON path.
    pub path: &'static str,
    /// The value of an object that lacks the field.
    pub absent: &'static str,
    /// Its path in the stored version.
    pub stored: &'static str,
}

/// A part of a resource with its own URL.
#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// Group, version and kind of its body.
    pub kind: (&'static str, &'static str, &'static str),
    pub verbs: &'static [&'static str],
}

impl Resource {
    /// `v1`, or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The plural with its group as error messages name it: `pods`, or `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `/registry/pods/`, or `/registry/apps/deployments/`: where the store keeps the objects, below `root`.
    pub fn store_prefix(&self, root: &str) -> String {
        if self.group.is_empty() { format!("{root}/{}/", self.plural) } else { format!("{root}/{}/{}/", self.group, self.plural) }
    }

    /// The URL path of the collection, of one namespace if the resource has namespaces and one is given.
    pub fn url(&self, namespace: &str) -> String {
        let base = if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) };
        match (self.namespaced, namespace) {
            (true, namespace) if !namespace.is_empty() => format!("{base}/namespaces/{namespace}/{}", self.plural),
            _ => format!("{base}/{}", self.plural),
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|it| it.name == name)
    }

    /// The version in which objects are stored, cached and validated. Other versions exist only in requests and responses.
    pub fn storage(&'static self) -> ResourceRef {
        self.stored_as.unwrap_or(self)
    }

    /// Whether the store keeps objects of this resource in this version.
    pub fn is_stored(&self) -> bool {
        self.allows("watch") && self.stored_as.is_none()
    }

    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
}

/// The resource served under this group, version and plural.
pub fn served(group: &str, version: &str, plural: &str) -> Option<ResourceRef> {
    ALL.iter().copied().find(|it| it.plural == plural && it.group == group && it.version == version)
}

/// The resource that the store keeps under this group and plural.
pub fn stored(group: &str, plural: &str) -> Option<ResourceRef> {
    ALL.iter().copied().find(|it| it.plural == plural && it.group == group && it.is_stored())
}

/// The storage version of the resource with this `apiVersion` and `kind`.
pub fn of_kind(api_version: &str, kind: &str) -> Option<ResourceRef> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ALL.iter().copied().find(|it| it.kind == kind && it.group == group && it.version == version).map(Resource::storage)
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        (self.plural, self.group, self.version) == (other.plural, other.group, other.version)
    }
}

impl Eq for Resource {}

impl Hash for Resource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.plural, self.group).hash(state);
    }
}
