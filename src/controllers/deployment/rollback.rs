//! Going back to an earlier version because an annotation asks for it: the way of `apps/v1beta1`, which Kubernetes still follows.

use serde_json::{Map, Value, json};

use super::Rollout;
use super::version::{OWN, ROLLBACK, Version, without_hash};
use crate::client::Patch;
use crate::client::events::EventType;
use crate::controllers::plan::{Plan, Write, tree};

/// The revision that the annotation asks for; zero is the last one.
pub(super) fn asked(rollout: &Rollout<'_>) -> Option<i64> {
    rollout.written["metadata"]["annotations"][ROLLBACK].as_str()?.parse().ok()
}

/// Plans to go back to `revision`, or tells why that is not possible. The annotation goes in any case.
pub(super) fn carry_out(rollout: &Rollout<'_>, revision: i64, plan: &mut Plan) {
    let name = rollout.object.name();
    let mut tell = |kind: EventType, reason: &'static str, message: String| plan.note(rollout.object, kind, reason, message);
    let all = || rollout.new.iter().chain(&rollout.old);
    let revision = if revision == 0 { last(all()) } else { revision };
    let mut annotations = rollout.written["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let mut template = None;
    match all().find(|it| it.revision == revision && revision != 0) {
        None => {
            let what = if revision == 0 { "last revision" } else { "the revision to rollback to" };
            tell(EventType::Warning, "DeploymentRollbackRevisionNotFound", format!("Unable to find {what}."));
        }
        Some(version) if version.is_of(rollout.template) => {
            let message = format!("The rollback revision contains the same template as current deployment {name:?}");
            tell(EventType::Warning, "DeploymentRollbackTemplateUnchanged", message);
        }
        Some(version) => {
            let mut content = tree(&version.object);
            template = Some(without_hash(content["spec"]["template"].take()));
            // The reason for a version belongs to it, and comes back with it.
            let others = |it: &Map<String, Value>| it.clone().into_iter().filter(|it| !OWN.contains(&it.0.as_str()));
            annotations.retain(|key, _| OWN.contains(&key.as_str()));
            annotations.extend(content["metadata"]["annotations"].as_object().into_iter().flat_map(others));
            tell(EventType::Normal, "DeploymentRollback", format!("Rolled back deployment {name:?} to revision {revision}"));
        }
    }
    annotations.remove(ROLLBACK);
    let mut patch = vec![
        json!({ "op": "test", "path": "/metadata/resourceVersion", "value": rollout.object.revision().to_string() }),
        json!({ "op": "replace", "path": "/metadata/annotations", "value": annotations }),
    ];
    patch.extend(template.map(|it| json!({ "op": "replace", "path": "/spec/template", "value": it })));
    plan.writes.push(Write::Patch { key: rollout.object.key(), subresource: "", patch: Patch::Json(patch.into()) });
}

/// The second highest revision; zero if there is none.
fn last<'a>(versions: impl Iterator<Item = &'a Version>) -> i64 {
    let mut revisions: Vec<i64> = versions.map(|it| it.revision).collect();
    revisions.sort_unstable();
    revisions.iter().rev().nth(1).copied().unwrap_or_default()
}
