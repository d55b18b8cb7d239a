//! The mirror pod of one static pod, by which users see it in the API. A deleted mirror is created again; the static pod keeps running.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::sync::watch;

use super::super::names::{self, PodId};
use super::super::shared::Shared;
use super::super::statuses;
use crate::cache::{Event, Query};
use crate::client::{Client, ClientError, DeleteOptions, Patch};
use crate::object::pod::MIRROR;
use crate::object::{Object, resource};
use crate::util::backoff::Backoff;

/// First and longest pause between tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// The next step.
#[derive(Debug, PartialEq)]
enum Step {
    Create,
    /// The pod of this uid shows another static pod, or is being deleted.
    Remove(String),
    /// Write the status of the mirror with this uid.
    Report(String),
    /// A foreign pod has the name.
    Taken,
    Rest,
}

/// Decides for the static pod of this uid. `written` is the mirror's uid and the status that was written last.
fn step(uid: &str, seen: Option<&Object>, status: Option<&PodStatus>, written: Option<&(String, PodStatus)>) -> Step {
    let Some(object) = seen else { return Step::Create };
    let Some(shows) = object.typed::<Pod>().ok().and_then(names::mirrored) else { return Step::Taken };
    let mirror = object.meta().uid.to_string();
    if shows != uid || object.meta().is_deleted() {
        return Step::Remove(mirror);
    }
    match status {
        Some(status) if written.is_none_or(|(to, last)| *to != mirror || last != status) => Step::Report(mirror),
        _ => Step::Rest,
    }
}

/// Keeps the mirror of a static pod as it should be until it is dropped.
pub async fn show(shared: Arc<Shared>, pod: Arc<Pod>, mut statuses: watch::Receiver<Option<PodStatus>>) {
    let id = PodId::of(&pod);
    let query = Query { namespace: Some(id.namespace.clone()), ..Query::field("metadata.name", &id.name) };
    let mut mirror = Mirror { shared: shared.clone(), pod, id, seen: None, written: None };
    let (mut backoff, mut told) = (Backoff::new(RETRY.0, RETRY.1), String::new());
    loop {
        let (pods, mut watch) = shared.cache.list_and_watch(&resource::POD, &query);
        mirror.seen = pods.into_iter().next();
        loop {
            let status = statuses.borrow_and_update().clone();
            let (pause, again) = match mirror.advance(status).await {
                Ok(again) => {
                    backoff.reset();
                    told.clear();
                    (None, again)
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    if why != told {
                        tracing::warn!("mirror pod {}: {why}", mirror.id);
                        told = why;
                    }
                    (Some(backoff.pause()), false)
                }
            };
            if again {
                continue;
            }
            let retry = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = watch.next() => match event {
                    Ok(event) => mirror.note(event),
                    Err(_) => break,
                },
                changed = statuses.changed() => if changed.is_err() { return },
                () = retry => {}
            }
        }
    }
}

struct Mirror {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    id: PodId,
    /// The newest state of the pod with this name, including own writes before the watch shows them.
    seen: Option<Arc<Object>>,
    written: Option<(String, PodStatus)>,
}

impl Mirror {
    fn note(&mut self, event: Event) {
        let newest = self.seen.as_ref().map_or(0, |seen| seen.revision());
        match event {
            Event::Added(object) | Event::Modified(object) if object.revision() >= newest => self.seen = Some(object),
            Event::Deleted(object) if self.seen.as_ref().is_some_and(|seen| seen.meta().uid == object.meta().uid) => self.seen = None,
            _ => {}
        }
    }

    /// Takes the next step. True if there may be another.
    async fn advance(&mut self, status: Option<PodStatus>) -> anyhow::Result<bool> {
        let (client, id) = (&self.shared.client, &self.id);
        match step(&id.uid, self.seen.as_deref(), status.as_ref(), self.written.as_ref()) {
            Step::Rest => return Ok(false),
            Step::Taken => anyhow::bail!("another pod has the name"),
            Step::Create => self.seen = Some(client.create(&resource::POD, &id.namespace, &self.copy().await?).await?),
            Step::Remove(uid) => {
                remove(client, &id.namespace, &id.name, &uid).await?;
                // With finalizers the object stays for a while; the watch will show its end.
                self.seen = None;
            }
            Step::Report(uid) => {
                let Some(status) = status else { return Ok(false) };
                let target = PodId { uid: uid.clone(), ..id.clone() };
                let patch = Patch::Strategic(statuses::patch(&target, &status));
                match client.patch(&resource::POD, &id.namespace, &id.name, "status", &patch).await {
                    Ok(object) => (self.seen, self.written) = (Some(object), Some((uid, status))),
                    // The watch will show the object that exists instead, if it has not yet.
                    Err(error) if error.is("NotFound") || error.is("Conflict") => {
                        self.seen = client.get(&resource::POD, &id.namespace, &id.name).await.ok();
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(true)
    }

    /// The pod for the API, owned by its node.
    async fn copy(&self) -> anyhow::Result<Pod> {
        let name = &self.shared.config.node_name;
        let node = self.shared.client.get(&resource::NODE, "", name).await.with_context(|| format!("node {name}"))?;
        let mut copy = Pod { status: None, ..Pod::clone(&self.pod) };
        copy.metadata.uid = None;
        copy.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), self.id.uid.clone());
        copy.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid: node.meta().uid.to_string(),
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        Ok(copy)
    }
}

/// Deletes a mirror; a missing one is fine.
pub async fn remove(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<(), ClientError> {
    let options = DeleteOptions { grace_period_seconds: Some(0), uid: Some(uid.to_owned()), ..DeleteOptions::default() };
    match client.delete(&resource::POD, namespace, name, &options).await {
        Err(error) if !error.is("NotFound") && !error.is("Conflict") => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_state_has_its_step() {
        let object = |shows: Option<&str>, deleted: bool| {
            let mut pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "m"}});
            if let Some(shows) = shows {
                pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": shows});
            }
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            Object::from_stored(&resource::POD, pod.to_string().as_bytes(), 1).unwrap()
        };
        let (status, other) = (PodStatus::default(), PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() });
        let written = |to: &str| Some((to.to_owned(), status.clone()));
        for (seen, now, last, expected) in [
            (None, Some(&status), None, Step::Create),
            (Some(object(None, false)), Some(&status), None, Step::Taken),
            (Some(object(Some("old"), false)), Some(&status), None, Step::Remove("m".to_owned())),
            (Some(object(Some("u"), true)), Some(&status), None, Step::Remove("m".to_owned())),
            (Some(object(Some("u"), false)), None, None, Step::Rest),
            (Some(object(Some("u"), false)), Some(&status), None, Step::Report("m".to_owned())),
            (Some(object(Some("u"), false)), Some(&status), written("m"), Step::Rest),
            (Some(object(Some("u"), false)), Some(&other), written("m"), Step::Report("m".to_owned())),
            (Some(object(Some("u"), false)), Some(&status), written("before"), Step::Report("m".to_owned())),
        ] {
            assert_eq!(step("u", seen.as_deref(), now, last.as_ref()), expected, "{seen:?}");
        }
    }
}
