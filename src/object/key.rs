//! What an object is called, and where the store keeps it.

use std::fmt;

use super::ResourceRef;
use super::resource;

/// Namespace and name of an object within its resource. Ordered as the store orders keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Empty for a cluster-scoped object.
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Name {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `namespace/name`, or `name` for a cluster-scoped object.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Which object: its resource, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    pub resource: ResourceRef,
    pub name: Name,
}

impl ObjectKey {
    pub fn new(resource: ResourceRef, namespace: &str, name: &str) -> Self {
        Self { resource, name: Name::new(namespace, name) }
    }

    /// The store's key below `root`, for example `/registry/pods/default/web` or `/registry/apps/deployments/default/web`.
    pub fn to_path(&self, root: &str) -> String {
        format!("{}{}", self.resource.store_prefix(root), self.name)
    }

    /// The inverse of [`ObjectKey::to_path`]; `None` for a key that no known resource has.
    pub fn from_path(root: &str, path: &str) -> Option<Self> {
        let rest = path.strip_prefix(root)?.strip_prefix('/')?;
        let (first, after) = rest.split_once('/')?;
        let (resource, rest) = match resource::stored("", first) {
            Some(resource) => (resource, after),
            None => {
                let (plural, after) = after.split_once('/')?;
                (resource::stored(first, plural)?, after)
            }
        };
        let name = match (resource.namespaced, rest.split_once('/')) {
            (true, Some((namespace, name))) => Name::new(namespace, name),
            (false, None) => Name::new("", rest),
            _ => return None,
        };
        Some(Self { resource, name })
    }
}

/// `pods default/web`, as log lines name objects.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource.plural, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_inverse() {
        for (key, path) in [
            (ObjectKey::new(&resource::POD, "default", "web"), "/registry/pods/default/web"),
            (ObjectKey::new(&resource::NODE, "", "agent-1"), "/registry/nodes/agent-1"),
            (ObjectKey::new(&resource::DEPLOYMENT, "a", "b"), "/registry/apps/deployments/a/b"),
        ] {
            assert_eq!(key.to_path("/registry"), path);
            assert_eq!(ObjectKey::from_path("/registry", path), Some(key));
        }
        for path in ["/registry/pods/web", "/registry/nodes/a/b", "/registry/none/a", "/other/pods/a/b", "/registry/pods"] {
            assert_eq!(ObjectKey::from_path("/registry", path), None, "{path}");
        }
    }
}
