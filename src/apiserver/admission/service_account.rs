//! Every pod runs under a service account of its namespace, by default `default`.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};

use super::super::Server;
use super::super::error::Answer;
use super::{Operation, Review, mountable, refuse};
use crate::cache::{Event, Query};
use crate::object::resource::{POD, SERVICE_ACCOUNT};
use crate::object::selector::FieldSelector;
use crate::object::{Object, ObjectKey};
use crate::util::json;

/// The account `default` of a new namespace is made by a controller: pods made at once wait for it this long.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn admit(server: &Server, review: &Review<'_>, pod: &mut Value) -> Answer<()> {
    if review.operation == Operation::Update && review.key.resource == &POD && review.subresource == "ephemeralcontainers" {
        let name = json::text(pod, "/spec/serviceAccountName");
        let account = server.cache.get(&SERVICE_ACCOUNT, &review.key.name.namespace, name);
        // The other containers have been checked already.
        let added = json!({"spec": {"ephemeralContainers": json::items(pod, "/spec/ephemeralContainers")}});
        return account.map_or(Ok(()), |account| check_secrets(review, &account, &added));
    }
    if !review.creates("pods") {
        return Ok(());
    }
    // A mirror pod represents a static pod of a node.
    if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
        return mountable::mirror_refusal(pod).map_or(Ok(()), |why| Err(refuse(review, why)));
    }
    let spec = json::map(pod, "spec");
    let older = spec.get("serviceAccount").and_then(Value::as_str).unwrap_or_default().to_owned();
    let named = spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = [named, older].into_iter().find(|it| !it.is_empty()).unwrap_or_else(|| "default".to_owned());
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.clone().into());
    let namespace = &*review.key.name.namespace;
    let account = match server.cache.get(&SERVICE_ACCOUNT, namespace, &name) {
        None if name == "default" => wait_for(server, namespace, &name).await,
        // Another API server may have created it just now.
        None => server.live(&ObjectKey::new(&SERVICE_ACCOUNT, namespace, &name)).await.ok().map(|it| it.object),
        account => account,
    };
    let Some(account) = account else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(refuse(review, &why));
    };
    let secrets = account.typed::<ServiceAccount>().ok().and_then(|it| it.image_pull_secrets.clone());
    if let Some(secrets) = secrets.filter(|it| !it.is_empty())
        && json::items(pod, "/spec/imagePullSecrets").is_empty()
    {
        let secrets = serde_json::to_value(secrets).unwrap_or_default();
        json::map(pod, "spec").insert("imagePullSecrets".to_owned(), secrets);
    }
    check_secrets(review, &account, pod)
}

fn check_secrets(review: &Review<'_>, account: &Object, pod: &Value) -> Answer<()> {
    let why = account.typed::<ServiceAccount>().ok().and_then(|it| mountable::refusal(it, pod));
    why.map_or(Ok(()), |why| Err(refuse(review, &why)))
}

async fn wait_for(server: &Server, namespace: &str, name: &str) -> Option<std::sync::Arc<Object>> {
    let query = Query { namespace: Some(namespace.to_owned()), fields: FieldSelector::equal("metadata.name", name), ..Query::default() };
    let mut watch = server.cache.follow(&SERVICE_ACCOUNT, query);
    let added = async {
        loop {
            if let Event::Added(object) = watch.next().await.ok()? {
                return Some(object);
            }
        }
    };
    tokio::time::timeout(PATIENCE, added).await.ok()?
}
