//! ControllerRevisions: the history of the templates of a StatefulSet or DaemonSet, for `kubectl rollout history` and `undo`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::fingerprint::{fingerprint, short_name};
use super::owners::{self, controller_reference};
use super::plan::{Plan, Write, tree};
use crate::cache::Cache;
use crate::client::Patch;
use crate::codec;
use crate::object::selector::LabelSelector;
use crate::object::{Object, resource};

/// The revisions of one workload, oldest first.
#[derive(Debug)]
pub(super) struct History<'a> {
    owner: &'a Arc<Object>,
    revisions: Vec<Arc<Object>>,
}

/// The revision of the template that is asked for; it may still have to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Latest {
    pub name: String,
    /// The suffix of the name, a hash of the template.
    pub hash: String,
    /// The number of names that were taken.
    pub collisions: i64,
}

/// The fields read from a revision, once per resource version.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    revision: i64,
    data: Data,
}

/// The fingerprint of a revision's data.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
struct Data(u64);

impl From<Value> for Data {
    fn from(data: Value) -> Self {
        Self(fingerprint(&data))
    }
}

fn facts(revision: &Object) -> &Facts {
    revision.part()
}

impl<'a> History<'a> {
    /// The revisions that `owner` controls.
    pub fn claim(cache: &Cache, owner: &'a Arc<Object>, selector: &LabelSelector, plan: &mut Plan) -> Self {
        let mut revisions = owners::claim(cache, owner, &resource::CONTROLLER_REVISION, selector, plan);
        revisions.sort_by(|a, b| {
            let place = |it: &Object| (facts(it).revision, it.meta().created.clone(), it.meta().name.clone());
            place(a).cmp(&place(b))
        });
        Self { owner, revisions }
    }

    /// The revision of the owner's template (`written` is the owner's JSON): it is made, or made the newest again. `label` is where it
    /// shows its hash.
    pub fn latest(&self, cache: &Cache, written: &Value, label: &str, plan: &mut Plan) -> Latest {
        let data = data(&written["spec"]["template"]);
        let print = fingerprint(&data);
        let number = self.revisions.last().map_or(0, |it| facts(it).revision) + 1;
        let collisions = written["status"]["collisionCount"].as_i64().unwrap_or_default();
        if let Some(equal) = self.revisions.iter().rfind(|it| facts(it).data.0 == print) {
            if facts(equal).revision + 1 != number {
                let patch = Patch::Merge(json!({"metadata": {"uid": &*equal.meta().uid}, "revision": number}));
                plan.writes.push(Write::Patch { key: equal.key(), subresource: "", patch });
            }
            let hash = equal.meta().label(label).or_else(|| equal.name().rsplit('-').next()).unwrap_or_default();
            return Latest { name: equal.name().to_owned(), hash: hash.to_owned(), collisions };
        }
        let mut latest = Latest { name: String::new(), hash: String::new(), collisions };
        loop {
            latest.hash = short_name(print, latest.collisions);
            latest.name = format!("{}-{}", self.owner.name(), latest.hash);
            if cache.get(&resource::CONTROLLER_REVISION, self.owner.namespace(), &latest.name).is_none() {
                break;
            }
            latest.collisions += 1;
        }
        if !self.owner.meta().is_deleted() {
            self.create(written, &latest, (label, number), data, plan);
        }
        latest
    }

    fn create(&self, written: &Value, latest: &Latest, (label, number): (&str, i64), data: Value, plan: &mut Plan) {
        let mut labels = written["spec"]["template"]["metadata"]["labels"].clone();
        labels[label] = latest.hash.as_str().into();
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": latest.name,
                "labels": labels,
                "annotations": written["metadata"]["annotations"],
                "ownerReferences": [controller_reference(self.owner)],
            },
            "data": data,
            "revision": number,
        });
        let namespace = self.owner.namespace().to_owned();
        plan.writes.push(Write::Create { resource: &resource::CONTROLLER_REVISION, namespace, object, tell: None });
    }

    pub fn has(&self, name: &str) -> bool {
        self.revisions.iter().any(|it| it.name() == name)
    }

    /// The template that the revision of this name keeps, if it is one.
    pub fn template(&self, name: &str) -> Option<Value> {
        let revision = self.revisions.iter().find(|it| it.name() == name)?;
        let mut template = tree(revision).pointer_mut("/data/spec/template")?.take();
        template.as_object_mut()?.remove("$patch");
        // Anybody may have written the revision, and its data is free in form.
        let conforming = codec::conform(&resource::POD_TEMPLATE, json!({ "template": template })).ok()?;
        conforming.value.get("template").filter(|it| it.is_object()).cloned()
    }

    /// Deletes the oldest revisions beyond `limit` that are not `alive`.
    pub fn truncate(&self, limit: i64, alive: impl Fn(&Object) -> bool, plan: &mut Plan) {
        let spent: Vec<_> = self.revisions.iter().filter(|it| !alive(it)).collect();
        let surplus = spent.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        for revision in spent.into_iter().take(surplus).filter(|it| !it.meta().is_deleted()) {
            plan.delete(revision, None);
        }
    }
}

/// The data of a revision: a strategic merge patch that restores the template.
fn data(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}
