//! Discovery, and objects of kinds unknown to the program.

use kube::Api;
use kube::api::{DynamicObject, GroupVersionKind, ListParams};
use kube::discovery::{self, Discovery, Scope, verbs};

use super::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_discovered_can_be_listed() {
    let cluster = Cluster::start();
    let plain = Discovery::new(cluster.client.clone()).run().await.unwrap();
    let aggregated = Discovery::new(cluster.client.clone()).run_aggregated().await.unwrap();
    let mut listed = 0;
    for group in plain.groups_alphabetical() {
        let other = aggregated.get(group.name()).unwrap_or_else(|| panic!("{} is not in the aggregated documents", group.name()));
        for (resource, capabilities) in group.recommended_resources() {
            let (same, _) = other.recommended_kind(&resource.kind).unwrap_or_else(|| panic!("{} is not there", resource.kind));
            assert_eq!((&same.plural, &same.api_version), (&resource.plural, &resource.api_version));
            if capabilities.supports_operation(verbs::LIST) {
                let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
                api.list(&ListParams::default()).await.unwrap_or_else(|error| panic!("{}: {error}", resource.plural));
                listed += 1;
            }
        }
    }
    assert!(listed > 30, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_kinds_and_versions() {
    let cluster = Cluster::start();
    let version = cluster.client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "33"));
    let (deployment, capabilities) =
        discovery::pinned_kind(&cluster.client, &GroupVersionKind::gvk("apps", "v1", "Deployment")).await.unwrap();
    assert_eq!((deployment.plural.as_str(), capabilities.scope), ("deployments", Scope::Namespaced));
    assert!(capabilities.subresources.iter().any(|(resource, _)| resource.plural == "deployments/scale" || resource.kind == "Scale"));
    let autoscaling = discovery::group(&cluster.client, "autoscaling").await.unwrap();
    assert_eq!(autoscaling.preferred_version_or_latest(), "v2");
    assert!(discovery::group(&cluster.client, "none.example.com").await.is_err());
}
