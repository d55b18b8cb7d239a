//! The secrets that a pod references: a service account may restrict them, and a mirror pod may reference none.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use crate::util::go;
use crate::util::json;

const LIMITED: &str = "kubernetes.io/enforce-mountable-secrets";
/// The lists of containers of a pod, and how they are called.
const LISTS: [(&str, &str); 3] =
    [("/spec/initContainers", "init container"), ("/spec/containers", "container"), ("/spec/ephemeralContainers", "ephemeral container")];

/// Why a pod may not run under an account that is limited to the secrets that it names, if it is.
pub(super) fn refusal(account: &ServiceAccount, pod: &Value) -> Option<String> {
    let annotated = account.metadata.annotations.as_ref()?.get(LIMITED)?;
    if !go::is_true(annotated) {
        return None;
    }
    let own = account.metadata.name.as_deref().unwrap_or_default();
    let secrets = account.secrets.iter().flatten().filter_map(|it| it.name.as_deref()).collect::<HashSet<_>>();
    let is_strange = |name: &str| !secrets.contains(name);
    let not_allowed =
        |what: String, kind: &str| format!("{what} is not allowed because service account {own} does not reference that {kind}");
    for name in json::items(pod, "/spec/volumes").iter().filter_map(|it| it.pointer("/secret/secretName")?.as_str()) {
        if is_strange(name) {
            return Some(not_allowed(format!("volume with secret.secretName={name:?}"), "secret"));
        }
    }
    for (container, called) in LISTS.iter().flat_map(|(list, called)| json::items(pod, list).iter().map(move |it| (it, called))) {
        for (variable, name) in of_container(container) {
            if is_strange(name) {
                let through = variable.map_or_else(|| "envFrom".to_owned(), |it| format!("envVar {it}"));
                let what = format!("{called} {} with {through} referencing secret.secretName={name:?}", json::text(container, "/name"));
                return Some(not_allowed(what, "secret"));
            }
        }
    }
    let pulled = account.image_pull_secrets.iter().flatten().map(|it| it.name.as_str()).collect::<HashSet<_>>();
    for (at, secret) in json::items(pod, "/spec/imagePullSecrets").iter().enumerate() {
        let name = json::text(secret, "/name");
        if !pulled.contains(name) {
            return Some(not_allowed(format!("imagePullSecrets[{at}].name={name:?}"), "imagePullSecret"));
        }
    }
    None
}

/// The secrets that a container's environment is from, each with the variable, if it is for one.
fn of_container(container: &Value) -> impl Iterator<Item = (Option<&str>, &str)> {
    let variables = json::items(container, "/env").iter();
    let variables = variables.filter_map(|it| Some((Some(json::text(it, "/name")), it.pointer("/valueFrom/secretKeyRef/name")?.as_str()?)));
    let all = json::items(container, "/envFrom").iter().filter_map(|it| Some((None, it.pointer("/secretRef/name")?.as_str()?)));
    variables.chain(all)
}

/// Why a mirror pod is refused: it may not depend on the cluster.
pub(super) fn mirror_refusal(pod: &Value) -> Option<&'static str> {
    if ["/spec/serviceAccountName", "/spec/serviceAccount"].iter().any(|it| !json::text(pod, it).is_empty()) {
        return Some("a mirror pod may not reference service accounts");
    }
    let volumes = || json::items(pod, "/spec/volumes").iter();
    let sources = || volumes().flat_map(|it| json::items(it, "/projected/sources"));
    let mounted = volumes().flat_map(|it| it.as_object().into_iter().flatten()).any(|(kind, source)| match kind.as_str() {
        "secret" => true,
        "azureFile" => source.get("secretName").is_some(),
        _ => ["secretRef", "nodePublishSecretRef"].iter().any(|it| source.get(it).is_some()),
    });
    let named = LISTS.iter().flat_map(|(list, _)| json::items(pod, list)).any(|it| of_container(it).next().is_some());
    let pulled = json::items(pod, "/spec/imagePullSecrets").iter().any(|it| !json::text(it, "/name").is_empty());
    if mounted || named || pulled || sources().any(|it| it.get("secret").is_some()) {
        return Some("a mirror pod may not reference secrets");
    }
    sources().any(|it| it.get("serviceAccountToken").is_some()).then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn accounts_may_be_limited_to_their_secrets() {
        let account = |limited: &str| -> ServiceAccount {
            let annotations = json!({LIMITED: limited});
            let account = json!({"metadata": {"name": "a", "annotations": annotations}, "secrets": [{"name": "m"}], "imagePullSecrets": [{"name": "p"}]});
            serde_json::from_value(account).unwrap()
        };
        let tail = "is not allowed because service account a does not reference that";
        for (spec, expected) in [
            (json!({"volumes": [{"secret": {"secretName": "m"}}], "imagePullSecrets": [{"name": "p"}]}), None),
            (json!({"volumes": [{"secret": {"secretName": "n"}}]}), Some(format!("volume with secret.secretName=\"n\" {tail} secret"))),
            (
                json!({"containers": [{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "n"}}}]}]}),
                Some(format!("container c with envVar A referencing secret.secretName=\"n\" {tail} secret")),
            ),
            (
                json!({"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "n"}}]}]}),
                Some(format!("init container i with envFrom referencing secret.secretName=\"n\" {tail} secret")),
            ),
            (json!({"imagePullSecrets": [{"name": "m"}]}), Some(format!("imagePullSecrets[0].name=\"m\" {tail} imagePullSecret"))),
        ] {
            let pod = json!({ "spec": spec });
            assert_eq!(refusal(&account("true"), &pod), expected, "{pod}");
            assert_eq!(refusal(&account("no"), &pod), None);
        }
    }

    #[test]
    fn mirrors_need_nothing_of_the_cluster() {
        for (spec, expected) in [
            (json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}], "containers": [{"name": "c"}]}), None),
            (json!({"serviceAccountName": "a"}), Some("a mirror pod may not reference service accounts")),
            (json!({"volumes": [{"secret": {"secretName": "s"}}]}), Some("a mirror pod may not reference secrets")),
            (json!({"volumes": [{"projected": {"sources": [{"secret": {}}]}}]}), Some("a mirror pod may not reference secrets")),
            (json!({"containers": [{"envFrom": [{"secretRef": {"name": "n"}}]}]}), Some("a mirror pod may not reference secrets")),
            (
                json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}),
                Some("a mirror pod may not use ServiceAccountToken volume projections"),
            ),
        ] {
            assert_eq!(mirror_refusal(&json!({ "spec": spec })), expected, "{spec}");
        }
    }
}
