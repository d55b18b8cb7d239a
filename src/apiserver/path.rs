//! Parses URL paths. Pure.

use crate::object::ResourceRef;
use crate::object::resource::{self, NAMESPACE};
use crate::util::url::unescape;

/// A path of the API: a collection, an object, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) resource: ResourceRef,
    /// Empty for a cluster-scoped resource, and for a collection of all namespaces.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// The path began with `watch/`, the older form of a watch.
    pub(crate) watch: bool,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Target(Target),
    /// `/api` or `/apis`.
    Groups {
        legacy: bool,
    },
    /// `/apis/{group}`.
    Group(String),
    /// `/api/v1` or `/apis/{group}/{version}`.
    Resources {
        group: String,
        version: String,
    },
    /// `/healthz`, `/livez` or `/readyz`, or one of their checks.
    Probe,
    /// Anything else.
    Other,
}

/// The route of `path` (without query).
pub(crate) fn parse(path: &str) -> Route {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api"] => return Route::Groups { legacy: true },
        ["apis"] => return Route::Groups { legacy: false },
        ["apis", group] => return Route::Group((*group).to_owned()),
        ["api", version] => return Route::Resources { group: String::new(), version: (*version).to_owned() },
        ["apis", group, version] => return Route::Resources { group: (*group).to_owned(), version: (*version).to_owned() },
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        ["healthz" | "livez" | "readyz", ..] => return Route::Probe,
        _ => return Route::Other,
    };
    target(group, version, rest).map_or(Route::Other, Route::Target)
}

fn target(group: &str, version: &str, segments: &[&str]) -> Option<Target> {
    let (watch, segments) = match segments {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        all => (false, all),
    };
    let find = |plural: &str| resource::served(group, version, plural);
    // `namespaces/N/status` is a part of the namespace, `namespaces/N/pods` a collection within it.
    let (resource, namespace, tail) = match segments {
        ["namespaces", namespace, plural, tail @ ..] if NAMESPACE.subresource(plural).is_none() => {
            (find(plural).filter(|it| it.namespaced)?, unescape(namespace), tail)
        }
        [plural, tail @ ..] => (find(plural)?, String::new(), tail),
        [] => return None,
    };
    let target = |name: &str, subresource: &str| Target {
        resource,
        namespace: namespace.clone(),
        name: unescape(name),
        subresource: subresource.to_owned(),
        watch,
    };
    match tail {
        [] => Some(target("", "")),
        // A single namespaced object needs a namespace.
        _ if resource.namespaced && namespace.is_empty() => None,
        [name] => Some(target(name, "")),
        [name, subresource] => resource.subresource(subresource).map(|_| target(name, subresource)),
        // The target of the proxy interprets the rest.
        [name, "proxy", ..] => resource.subresource("proxy").map(|_| target(name, "proxy")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::{DEPLOYMENT, NODE, POD, SERVICE};

    fn to(resource: ResourceRef, namespace: &str, name: &str, subresource: &str) -> Route {
        Route::Target(Target {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            watch: false,
        })
    }

    #[test]
    fn paths_lead_where_they_should() {
        for (path, route) in [
            ("/api", Route::Groups { legacy: true }),
            ("/readyz/etcd", Route::Probe),
            ("/apis/", Route::Groups { legacy: false }),
            ("/apis/apps", Route::Group("apps".to_owned())),
            ("/api/v1", Route::Resources { group: String::new(), version: "v1".to_owned() }),
            ("/apis/apps/v1", Route::Resources { group: "apps".to_owned(), version: "v1".to_owned() }),
            ("/api/v1/pods", to(&POD, "", "", "")),
            ("/api/v1/namespaces/a/pods", to(&POD, "a", "", "")),
            ("/api/v1/namespaces/a/pods/web", to(&POD, "a", "web", "")),
            ("/api/v1/namespaces/a/pods/web/log", to(&POD, "a", "web", "log")),
            ("/apis/apps/v1/namespaces/a/deployments/web/scale", to(&DEPLOYMENT, "a", "web", "scale")),
            ("/api/v1/nodes", to(&NODE, "", "", "")),
            ("/api/v1/nodes/n1/status", to(&NODE, "", "n1", "status")),
            ("/api/v1/nodes/a%3Ab", to(&NODE, "", "a:b", "")),
            ("/api/v1/namespaces", to(&NAMESPACE, "", "", "")),
            ("/api/v1/namespaces/a", to(&NAMESPACE, "", "a", "")),
            ("/api/v1/namespaces/a/finalize", to(&NAMESPACE, "", "a", "finalize")),
        ] {
            assert_eq!(parse(path), route, "{path}");
        }
        for path in [
            "/",
            "",
            "/apiz",
            "/api/v2/pods",
            "/api/v1/none",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/pods/web",
            "/api/v1/namespaces/a/pods/web/none",
            "/api/v1/namespaces/a/pods/web/status/x",
            "/apis/apps/v1/pods",
            "/api/v1/watch",
        ] {
            assert_eq!(parse(path), Route::Other, "{path}");
        }
    }

    #[test]
    fn proxies_and_old_watches() {
        let Route::Target(proxy) = parse("/api/v1/namespaces/a/services/http:web:80/proxy/x/y") else { panic!() };
        assert_eq!((proxy.resource, proxy.name.as_str(), proxy.subresource.as_str()), (&SERVICE, "http:web:80", "proxy"));
        let Route::Target(watch) = parse("/api/v1/watch/namespaces/a/pods/web") else { panic!() };
        assert!(watch.watch);
        assert_eq!((watch.namespace.as_str(), watch.name.as_str()), ("a", "web"));
    }
}
