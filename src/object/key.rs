//! The name of an object, and its key in the store.

use std::cmp::Ordering;
use std::fmt;

use super::ResourceRef;
use super::resource;

/// Namespace and name of an object within its resource. Ordered as the store orders keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name {
    /// Empty for a cluster-scoped object.
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Name {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The store's order of two (namespace, name) pairs: that of the strings `namespace/name`, in which `a-b/x` comes before `a/x`.
    pub fn order(a: (&str, &str), b: (&str, &str)) -> Ordering {
        if a.0 == b.0 {
            return a.1.cmp(b.1);
        }
        let [a, b] = [a, b].map(|(namespace, _)| namespace.bytes().chain([b'/']));
        a.cmp(b)
    }

    pub fn parts(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        Self::order(self.parts(), other.parts())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `namespace/name`, or `name` for a cluster-scoped object.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Identifies an object: resource, namespace and name.
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

    /// The inverse of [`ObjectKey::to_path`]; `None` if no known resource has such a key.
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
    fn names_are_in_the_order_of_keys() {
        let names = ["a", "a-b", "a.b", "a0", "ab", "b"];
        let all: Vec<_> = names.iter().flat_map(|namespace| names.map(|name| ObjectKey::new(&resource::POD, namespace, name))).collect();
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            assert_eq!(a.name.cmp(&b.name), a.to_path("/r").cmp(&b.to_path("/r")), "{a} and {b}");
        }
    }

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
