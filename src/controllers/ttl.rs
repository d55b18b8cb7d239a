//! Deletes jobs some time after they have ended (`ttlSecondsAfterFinished`), with their pods.

use std::time::Duration;

use jiff::Timestamp;

use super::job::Finished;
use super::plan::{Controller, Plan, Source, Write, since, tree};
use crate::cache::Cache;
use crate::client::DeleteOptions;
use crate::object::{ObjectKey, resource};

/// Deletes jobs whose time to live has passed.
#[derive(Debug)]
pub struct TtlAfterFinished;

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&resource::JOB)]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Finished(Some(ended)) = *job.part() else { return plan };
        let Some(ttl) = tree(&job)["spec"]["ttlSecondsAfterFinished"].as_u64().map(Duration::from_secs) else { return plan };
        if job.meta().is_deleted() {
            return plan;
        }
        let left = ttl.saturating_sub(since(ended, now));
        if left.is_zero() {
            // Only this version: its time to live may just have been extended.
            let (uid, revision) = (Some(job.meta().uid.to_string()), Some(job.revision()));
            let options = DeleteOptions { uid, revision, propagation: Some("Foreground"), ..DeleteOptions::default() };
            plan.writes.push(Write::Delete { key: job.key(), options, tell: None });
        } else {
            plan.look_again(left);
        }
        plan
    }
}
