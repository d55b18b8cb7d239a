//! `Api`: objects, patches, subresources, entries.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Cluster, config_map, pod, refused};

#[tokio::test(flavor = "multi_thread")]
async fn objects_live_and_die() {
    let cluster = Cluster::start();
    let api: Api<ConfigMap> = cluster.api();
    let post = PostParams::default();
    assert!(api.get_opt("a").await.unwrap().is_none());
    let made = api.create(&post, &config_map("a")).await.unwrap();
    assert!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    let again = refused(api.create(&post, &config_map("a")).await);
    assert!(again.is_already_exists());
    assert_eq!((again.code, again.message.as_str()), (409, "configmaps \"a\" already exists"));
    let wrong = refused(api.create(&post, &config_map("Wrong_Name")).await);
    assert_eq!((wrong.code, wrong.reason.as_str()), (422, "Invalid"));
    assert_eq!(wrong.details.unwrap().causes[0].field, "metadata.name");

    let mut changed = made.clone();
    changed.data.get_or_insert_default().insert("x".to_owned(), "2".to_owned());
    let replaced = api.replace("a", &post, &changed).await.unwrap();
    assert_ne!(replaced.resource_version(), made.resource_version());
    assert!(refused(api.replace("a", &post, &changed).await).is_conflict());
    assert_eq!(api.get("a").await.unwrap().data.unwrap()["x"], "2");
    assert_eq!(api.get_metadata("a").await.unwrap().labels()["app"], "test");

    for name in ["b", "c", "d"] {
        api.create(&post, &config_map(name)).await.unwrap();
    }
    let labelled = ListParams::default().labels("app=test");
    let names = |list: kube::api::ObjectList<ConfigMap>| list.into_iter().map(|it| it.name_any()).collect::<Vec<_>>();
    assert_eq!(names(api.list(&labelled).await.unwrap()), ["a", "b", "c", "d"]);
    assert_eq!(names(api.list(&ListParams::default().fields("metadata.name=b")).await.unwrap()), ["b"]);
    let first = api.list(&labelled.clone().limit(3)).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    assert_eq!(names(first), ["a", "b", "c"]);
    assert_eq!(names(api.list(&labelled.clone().limit(3).continue_token(&token)).await.unwrap()), ["d"]);
    assert_eq!(api.list_metadata(&labelled).await.unwrap().items.len(), 4);

    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(refused(api.delete("a", &DeleteParams::default()).await).is_not_found());
    let other = DeleteParams::default().preconditions(kube::api::Preconditions { uid: Some("other".to_owned()), resource_version: None });
    assert!(refused(api.delete("b", &other).await).is_conflict());
    api.delete_collection(&DeleteParams::default(), &labelled).await.unwrap();
    assert!(api.list(&labelled).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_every_kind() {
    let cluster = Cluster::start();
    let api: Api<Deployment> = cluster.api();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}},
        },
    }))
    .unwrap();
    api.create(&PostParams::default(), &deployment).await.unwrap();
    let params = PatchParams::default();
    let images = |it: &Deployment| {
        let spec = it.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        spec.containers.iter().map(|it| it.image.clone().unwrap()).collect::<Vec<_>>()
    };
    let containers = |containers| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let side = containers(json!([{"name": "side", "image": "side:1"}]));
    let both = api.patch("web", &params, &Patch::Strategic(&side)).await.unwrap();
    assert_eq!(images(&both), ["side:1", "nginx:1"]);
    assert_eq!(images(&api.patch("web", &params, &Patch::Merge(&side)).await.unwrap()), ["side:1"]);
    let operations: json_patch::Patch =
        serde_json::from_value(json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "side:2"}])).unwrap();
    assert_eq!(images(&api.patch("web", &params, &Patch::<()>::Json(operations)).await.unwrap()), ["side:2"]);
    let bad = refused(api.patch("web", &params, &Patch::Merge(json!({"spec": {"replicas": -1}}))).await);
    assert_eq!(bad.details.unwrap().causes[0].field, "spec.replicas");
    let dry = api.patch("web", &params.clone().dry_run(), &Patch::Merge(json!({"spec": {"replicas": 7}}))).await.unwrap();
    assert_eq!(dry.spec.unwrap().replicas, Some(7));
    assert_eq!(api.get("web").await.unwrap().spec.unwrap().replicas, Some(1));
    api.restart("web").await.unwrap();
    let template = api.get("web").await.unwrap().spec.unwrap().template;
    assert!(template.metadata.unwrap().annotations.unwrap().contains_key("kube.kubernetes.io/restartedAt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_by_two_managers() {
    let cluster = Cluster::start();
    let api: Api<ConfigMap> = cluster.api();
    let applied = |data| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let one = PatchParams::apply("one");
    api.patch("a", &one, &Patch::Apply(applied(json!({"x": "1", "y": "1"})))).await.unwrap();
    let other = PatchParams::apply("other");
    let conflict = refused(api.patch("a", &other, &Patch::Apply(applied(json!({"x": "2"})))).await);
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    let cause = &conflict.details.as_ref().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.x"));
    let forced = api.patch("a", &other.force(), &Patch::Apply(applied(json!({"x": "2"})))).await.unwrap();
    let managers: Vec<String> = forced.managed_fields().iter().map(|it| it.manager.clone().unwrap()).collect();
    assert_eq!(managers, ["one", "other"]);
    // Entries that no manager applies any more are removed; those of another manager stay.
    let left = api.patch("a", &one, &Patch::Apply(applied(json!({})))).await.unwrap();
    assert_eq!(left.data.unwrap().into_iter().collect::<Vec<_>>(), [("x".to_owned(), "2".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_objects() {
    let cluster = Cluster::start();
    let (post, params) = (PostParams::default(), PatchParams::default());
    let pods: Api<Pod> = cluster.api();
    pods.create(&post, &pod("web")).await.unwrap();
    let running = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"seen": "yes"}}});
    let patched = pods.patch_status("web", &params, &Patch::Merge(&running)).await.unwrap();
    assert_eq!(patched.status.unwrap().phase.as_deref(), Some("Running"));
    let mut seen = pods.get_status("web").await.unwrap();
    seen.status.get_or_insert_default().message = Some("fine".to_owned());
    assert_eq!(pods.replace_status("web", &post, &seen).await.unwrap().status.unwrap().message.as_deref(), Some("fine"));
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    let with = pods.patch_ephemeral_containers("web", &params, &Patch::Strategic(debug)).await.unwrap();
    assert_eq!(with.spec.unwrap().ephemeral_containers.unwrap()[0].name, "debug");
    assert!(pods.evict("web", &EvictParams::default()).await.unwrap().is_success());

    let deployments: Api<Deployment> = cluster.api();
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}}}});
    deployments.create(&post, &serde_json::from_value(deployment).unwrap()).await.unwrap();
    assert_eq!(deployments.get_scale("web").await.unwrap().spec.unwrap().replicas, Some(1));
    let scaled = deployments.patch_scale("web", &params, &Patch::Merge(json!({"spec": {"replicas": 2}}))).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(2));
    deployments
        .delete("web", &DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() })
        .await
        .unwrap();

    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.create(&post, &serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap()).await.unwrap();
    assert_eq!(nodes.cordon("n").await.unwrap().spec.unwrap().unschedulable, Some(true));
    assert!(!nodes.uncordon("n").await.unwrap().spec.unwrap_or_default().unschedulable.unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_approved() {
    let cluster = Cluster::start();
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(vec!["web".to_owned()]).unwrap().serialize_request(&key).unwrap();
    let request = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, request.pem().unwrap());
    let request =
        json!({"metadata": {"name": "web"}, "spec": {"request": request, "signerName": "example.com/signer", "usages": ["client auth"]}});
    requests.create(&PostParams::default(), &serde_json::from_value(request).unwrap()).await.unwrap();
    let approved = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Test", "message": "", "lastUpdateTime": "2026-01-01T00:00:00Z"}]}});
    requests.patch_approval("web", &PatchParams::default(), &Patch::Merge(approved)).await.unwrap();
    let conditions = requests.get_approval("web").await.unwrap().status.unwrap().conditions.unwrap();
    assert_eq!((conditions[0].type_.as_str(), conditions[0].reason.as_deref()), ("Approved", Some("Test")));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries() {
    let cluster = Cluster::start();
    let (api, post): (Api<ConfigMap>, _) = (cluster.api(), PostParams::default());
    let mut entry = api.entry("a").await.unwrap().or_insert(|| config_map("a"));
    entry.commit(&PostParams { dry_run: true, ..post.clone() }).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
    let mut entry = api.entry("a").await.unwrap().or_insert(|| config_map("a"));
    entry.commit(&post).await.unwrap();
    let set = |it: &mut ConfigMap, value: &str| drop(it.data.get_or_insert_default().insert("x".to_owned(), value.to_owned()));
    let mut first = api.entry("a").await.unwrap().and_modify(|it| set(it, "2")).or_insert(|| config_map("a"));
    let mut second = api.entry("a").await.unwrap().and_modify(|it| set(it, "3")).or_insert(|| config_map("a"));
    first.commit(&post).await.unwrap();
    assert!(second.commit(&post).await.is_err(), "it was changed meanwhile");
    assert_eq!(api.get("a").await.unwrap().data.unwrap()["x"], "2");
}
