//! The ConfigMap `kube-root-ca.crt` of every namespace: the certificate by which its pods verify the API server.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Write, covers, tree};
use crate::cache::Cache;
use crate::client::Patch;
use crate::object::{ObjectKey, resource};

/// Publishes the certificate, and repairs changes.
#[derive(Debug)]
pub struct RootCaPublisher {
    /// `--root-ca-file`: certificates as PEM.
    pub certificates: String,
}

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "The certificates by which to verify the API server at addresses inside the cluster.";

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::NAMESPACE),
            Source::leading_to(&resource::CONFIG_MAP, |_, it| {
                let ours = it.name() == NAME;
                ours.then(|| ObjectKey::new(&resource::NAMESPACE, "", it.namespace())).into_iter().collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let namespace = &*key.name.name;
        if cache.get(&resource::NAMESPACE, "", namespace).is_none_or(|it| it.meta().is_deleted()) {
            return plan;
        }
        let content = json!({
            "metadata": { "annotations": { "kubernetes.io/description": DESCRIPTION } },
            "data": { "ca.crt": self.certificates },
        });
        match cache.get(&resource::CONFIG_MAP, namespace, NAME) {
            None => {
                let mut object = content;
                object["apiVersion"] = "v1".into();
                object["kind"] = "ConfigMap".into();
                object["metadata"]["name"] = NAME.into();
                plan.writes.push(Write::Create { resource: &resource::CONFIG_MAP, namespace: namespace.to_owned(), object, tell: None });
            }
            Some(there) if there.meta().is_deleted() => {}
            Some(there) => {
                let tree = tree(&there);
                if tree["data"] != content["data"] || !covers(&tree, &content) {
                    let others = tree["data"].as_object().into_iter().flatten().map(|it| it.0).filter(|it| *it != "ca.crt");
                    let mut patch = content.clone();
                    others.for_each(|it| patch["data"][it] = Value::Null);
                    plan.writes.push(Write::Patch { key: there.key(), subresource: "", patch: Patch::Merge(patch) });
                }
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::simulation::World;

    #[test]
    fn every_namespace_has_the_certificate() {
        let mut world = World::new(vec![Box::new(RootCaPublisher { certificates: "PEM".to_owned() })]);
        let certificate = |world: &World| tree(&world.cache.get(&resource::CONFIG_MAP, "n", NAME).unwrap())["data"]["ca.crt"].take();
        world.put(&resource::NAMESPACE, "", json!({"metadata": {"name": "n"}}));
        world.settle(|_| ());
        assert_eq!(certificate(&world), "PEM");
        let key = ObjectKey::new(&resource::CONFIG_MAP, "n", NAME);
        world.patch(&key, &json!({"data": {"ca.crt": "forged"}}));
        world.settle(|_| ());
        assert_eq!(certificate(&world), "PEM");
        world.patch(&key, &json!({"data": {"another": "x"}}));
        world.settle(|_| ());
        assert_eq!(tree(&world.cache.get(&resource::CONFIG_MAP, "n", NAME).unwrap())["data"], json!({"ca.crt": "PEM"}));
        world.remove(&key);
        world.settle(|_| ());
        assert_eq!(certificate(&world), "PEM");
    }
}
