//! Additions and rejections by the server that depend on other objects.

use serde_json::{Value, json};

use super::{PODS, pod, start_with};

const PRIORITIES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

#[tokio::test]
async fn pods_have_the_priority_of_their_class() {
    let it = start_with(|config| config.admission = vec!["Priority".to_owned()]).await;
    let of = |pod: &Value| (pod["spec"]["priority"].clone(), pod["spec"]["preemptionPolicy"].clone());
    let plain = it.create(PODS, pod("plain")).await.ok();
    assert_eq!(of(&plain), (json!(0), json!("PreemptLowerPriority")));
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
    it.create(PRIORITIES, class("usual", 10, true)).await.ok();
    let second = it.create(PRIORITIES, class("also-usual", 11, true)).await.failed();
    assert!(second.2.ends_with("PriorityClass usual is already marked as default. Only one default can exist"), "{second:?}");
    let usual = it.create(PODS, pod("usual")).await.ok();
    assert_eq!((of(&usual), &usual["spec"]["priorityClassName"]), ((json!(10), json!("Never")), &json!("usual")));
    let with = |name: &str, field: &str, value: Value| {
        let mut pod = pod(name);
        pod["spec"][field] = value;
        pod
    };
    let critical = it.create(PODS, with("critical", "priorityClassName", "system-node-critical".into())).await.ok();
    assert_eq!(of(&critical).0, 2_000_001_000);
    let unknown = it.create(PODS, with("unknown", "priorityClassName", "none".into())).await.failed();
    assert_eq!(
        unknown,
        (403, "Forbidden".to_owned(), "pods \"unknown\" is forbidden: no PriorityClass with name none was found".to_owned())
    );
    // Rejected before it has a name, with the same message for all attempts.
    let mut unnamed = with("", "priorityClassName", "none".into());
    unnamed["metadata"] = json!({"generateName": "web-"});
    let refused = it.create(PODS, unnamed.clone()).await.failed();
    assert_eq!(refused.2, "pods \"web-\" is forbidden: no PriorityClass with name none was found");
    unnamed["metadata"] = json!({});
    assert!(it.create(PODS, unnamed).await.failed().2.starts_with("pods \"Unknown\" is forbidden"));
    assert_eq!(it.create(PODS, with("odd", "priority", 3.into())).await.failed().0, 403);
    // A client that sends its manifest again does not know the added fields.
    let mut again = usual.clone();
    again["spec"].as_object_mut().unwrap().remove("priority");
    assert_eq!(of(&it.put(&format!("{PODS}/usual"), again).await.ok()), of(&usual));
    let kept = it.delete(&format!("{PRIORITIES}/system-node-critical"), Value::Null).await.failed();
    assert!(kept.2.ends_with("this is a system priority class and cannot be deleted"), "{kept:?}");
    it.stop().await;
}

#[tokio::test]
async fn claims_and_ingresses_get_the_default_class() {
    let it = start_with(|config| config.admission = vec!["DefaultStorageClass".to_owned(), "DefaultIngressClass".to_owned()]).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str, class: Value| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1024Mi"}}}})
    };
    let before = it.create(claims, claim("before", Value::Null)).await.ok();
    assert_eq!((before["spec"].get("storageClassName"), &before["spec"]["resources"]["requests"]["storage"]), (None, &json!("1Gi")));
    for (name, default) in [("slow", "false"), ("fast", "true")] {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": default});
        let class = json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": "example.com/disks"});
        it.create("/apis/storage.k8s.io/v1/storageclasses", class).await.ok();
    }
    assert_eq!(it.create(claims, claim("after", Value::Null)).await.ok()["spec"]["storageClassName"], "fast");
    assert_eq!(it.create(claims, claim("none", "".into())).await.ok()["spec"]["storageClassName"], "");
    let annotations = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "front", "annotations": annotations}, "spec": {"controller": "example.com/x"}});
    it.create("/apis/networking.k8s.io/v1/ingressclasses", class).await.ok();
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}});
    let made = it.create("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress).await.ok();
    assert_eq!((&made["spec"]["ingressClassName"], &made["metadata"]["generation"]), (&json!("front"), &json!(1)));
    it.stop().await;
}

#[tokio::test]
async fn claims_grow_where_their_class_lets_them() {
    let it = start_with(|config| config.admission = vec!["PersistentVolumeClaimResize".to_owned()]).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    for (class, expands) in [("fixed", false), ("grows", true)] {
        let class = json!({"metadata": {"name": class}, "provisioner": "example.com/disks", "allowVolumeExpansion": expands});
        it.create("/apis/storage.k8s.io/v1/storageclasses", class).await.ok();
    }
    for (class, grows) in [("fixed", false), ("missing", false), ("grows", true)] {
        let mut claim = json!({"metadata": {"name": class}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}});
        it.create(claims, claim.clone()).await.ok();
        it.patch(&format!("{claims}/{class}/status"), json!({"status": {"phase": "Bound"}})).await.ok();
        claim["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
        let grown = it.put(&format!("{claims}/{class}"), claim).await;
        if grows {
            assert_eq!(grown.ok()["spec"]["resources"]["requests"]["storage"], "2Gi");
        } else {
            let (code, _, message) = grown.failed();
            assert!(code == 403 && message.ends_with("the storageclass that provisions the pvc must support resize"), "{class}: {message}");
        }
    }
    it.stop().await;
}

#[tokio::test]
async fn pods_get_what_their_runtime_class_says() {
    let it = start_with(|config| config.admission = vec!["RuntimeClass".to_owned(), "StorageObjectInUseProtection".to_owned()]).await;
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "0.25"}}});
    it.create(classes, class).await.ok();
    let mut wanted = pod("in-vm");
    wanted["spec"]["runtimeClassName"] = "vm".into();
    assert_eq!(it.create(PODS, wanted.clone()).await.ok()["spec"]["overhead"], json!({"cpu": "250m"}));
    wanted["metadata"]["name"] = "other".into();
    wanted["spec"]["runtimeClassName"] = "none".into();
    let refused = it.create(PODS, wanted).await.failed();
    assert_eq!(
        refused,
        (403, "Forbidden".to_owned(), "pods \"other\" is forbidden: pod rejected: RuntimeClass \"none\" not found".to_owned())
    );
    let claim =
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = it.create("/api/v1/namespaces/default/persistentvolumeclaims", claim).await.ok();
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    it.stop().await;
}

#[tokio::test]
async fn a_quota_counts_what_comes_into_its_scope() {
    let it = start_with(|config| config.admission = vec!["ResourceQuota".to_owned()]).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "limits.cpu": "100m"}, "scopes": ["Terminating"]}});
    it.create("/api/v1/namespaces/default/resourcequotas", quota).await.ok();
    let mut large = pod("p");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "200m"}});
    it.create(PODS, large).await.ok();
    let refused = it.patch(&format!("{PODS}/p"), json!({"spec": {"activeDeadlineSeconds": 10}})).await.failed();
    let why = "exceeded quota: q, requested: limits.cpu=200m, used: limits.cpu=0, limited: limits.cpu=100m";
    assert_eq!(refused, (403, "Forbidden".to_owned(), format!("pods \"p\" is forbidden: {why}")));
    it.stop().await;
}
