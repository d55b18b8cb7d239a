//! Resource quotas of the namespace: no write may exceed them.
//!
//! Usage is in the status of each quota. Before a write happens, its part is added there by compare-and-swap, so that several API servers
//! respect a quota together. The quota controller subtracts deleted objects.

use std::hash::{BuildHasher, RandomState};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use super::super::Server;
use super::super::error::Answer;
use super::super::freshness::Freshness;
use super::super::registry::update::modify;
use super::super::registry::{Before, Part};
use super::super::write_options::WriteOptions;
use super::{Operation, Review, refuse};
use crate::cache::Query;
use crate::object::quota::{self, Amounts};
use crate::object::resource::RESOURCE_QUOTA;
use crate::object::{Object, ObjectKey};
use crate::util::json;
use crate::util::quantity::Quantity;

/// So many locks are shared by all namespaces.
const LOCKS: usize = 64;

/// The locks of namespaces that have quotas: writes of one server wait here, rather than conflict.
#[derive(Debug)]
pub(crate) struct Quotas {
    hasher: RandomState,
    locks: [Mutex<()>; LOCKS],
}

impl Default for Quotas {
    fn default() -> Self {
        Self { hasher: RandomState::new(), locks: std::array::from_fn(|_| Mutex::default()) }
    }
}

/// The amounts that a write has been charged; refunded if the write does not happen.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Charge(Vec<(ObjectKey, Amounts)>);

impl Quotas {
    /// # Errors
    /// 403 if a quota would be exceeded, or limits a resource that the object does not state.
    pub(super) async fn charge(&self, server: &Server, review: &Review<'_>, object: &Value) -> Answer<Charge> {
        let (resource, namespace) = (review.key.resource, &review.key.name.namespace);
        if review.operation == Operation::Delete || namespace.is_empty() || !review.subresource.is_empty() {
            return Ok(Charge::default());
        }
        let all = server.cache.list(&RESOURCE_QUOTA, &Query::namespace(namespace)).objects;
        let all = all.iter().filter_map(|it| Some((it, serde_json::from_slice::<Value>(it.body()).ok()?)));
        let concerned: Vec<_> = all.filter(|(_, it)| quota::may_count(resource, it) && quota::in_scope(it, resource, object)).collect();
        if concerned.is_empty() {
            return Ok(Charge::default());
        }
        let usage = Usage::of(server, review, object);
        let concerned: Vec<_> = concerned.into_iter().map(|(quota, value)| (quota, usage.added(review, &value), value)).collect();
        let _alone = self.lock(namespace).await;
        // Check all quotas before charging any.
        for (_, added, value) in &concerned {
            let used = used(server, value).await?;
            check(review, value, &used, added, object)?;
        }
        let mut charge = Charge::default();
        for (quota, mut part, value) in concerned {
            let limits = quota::limits(&value);
            part.retain(|what, _| limits.contains_key(what));
            if !part.is_empty() && !review.dry_run {
                match record(server, review, quota, &part, object).await {
                    Ok(()) => charge.0.push((quota.key(), part)),
                    // Deleted meanwhile.
                    Err(status) if status.is("NotFound") => {}
                    Err(status) => {
                        charge.refund(server).await;
                        return Err(status);
                    }
                }
            }
        }
        Ok(charge)
    }

    async fn lock(&self, namespace: &str) -> MutexGuard<'_, ()> {
        self.locks[self.hasher.hash_one(namespace) as usize % LOCKS].lock().await
    }
}

impl Charge {
    /// Subtracts the charge again.
    pub(crate) async fn refund(self, server: &Server) {
        for (key, part) in self.0 {
            let change = |it: &Before<'_>| {
                let current = it.value;
                let mut current = current.clone();
                let used = json::entry_map(json::map(&mut current, "status"), "used");
                for (what, amount) in &part {
                    let left = used.get(what).and_then(|it| Quantity::from_json(it).ok()).unwrap_or_default() - *amount;
                    used.insert(what.clone(), left.max(Quantity::ZERO).to_string().into());
                }
                Ok(current)
            };
            // A write of its own, which is reviewed in turn.
            if let Err(status) = Box::pin(modify(server, &key, Part::INTERNAL, &WriteOptions::default(), &change)).await {
                tracing::debug!("{key}: usage of unwritten objects remains until its controller recounts: {status}");
            }
        }
    }
}

/// The usage of an object now, and before the write if it existed.
struct Usage {
    now: Amounts,
    before: Option<(Value, Amounts)>,
}

impl Usage {
    fn of(server: &Server, review: &Review<'_>, object: &Value) -> Self {
        let (resource, now) = (review.key.resource, Timestamp::now());
        let before = (review.operation == Operation::Update).then(|| {
            let before = server.cached(review.key).and_then(|it| serde_json::from_slice(it.body()).ok()).unwrap_or_default();
            let used = quota::usage(resource, &before, now);
            (before, used)
        });
        Self { now: quota::usage(resource, object, now), before }
    }

    /// The increase that a write causes in a quota: the whole usage, if the object was not in the quota's scope before.
    fn added(&self, review: &Review<'_>, quota: &Value) -> Amounts {
        let mut added = self.now.clone();
        let before = self.before.as_ref().filter(|(it, _)| quota::in_scope(quota, review.key.resource, it));
        for (what, amount) in before.map(|it| &it.1).into_iter().flatten() {
            if let Some(it) = added.get_mut(what) {
                *it -= *amount;
            }
        }
        added.retain(|_, amount| *amount > Quantity::ZERO);
        added
    }
}

fn recount(server: &Server, quota: &Value) -> Amounts {
    quota::recount(quota, Timestamp::now(), |kind, namespace| server.cache.list(kind, &Query::namespace(namespace)).objects)
}

/// The current usage of a quota; counted here if its controller has not done so yet.
async fn used(server: &Server, quota: &Value) -> Answer<Amounts> {
    if let Some(used) = quota::recorded(quota) {
        return Ok(used);
    }
    for resource in crate::object::resource::ALL.iter().filter(|it| quota::may_count(it, quota)) {
        server.freshen(resource, Freshness::Newest).await?;
    }
    Ok(recount(server, quota))
}

/// # Errors
/// 403, in the words of Kubernetes.
fn check(review: &Review<'_>, quota: &Value, used: &Amounts, added: &Amounts, object: &Value) -> Answer<()> {
    let (name, limits) = (json::text(quota, "/metadata/name"), quota::limits(quota));
    if review.creates("pods") {
        let missing = quota::unspecified(&limits, object);
        if !missing.is_empty() {
            return Err(refuse(review, &format!("failed quota: {name}: must specify {missing}")));
        }
    }
    let have = |what: &str| used.get(what).copied().unwrap_or_default();
    let over: Vec<(&String, Quantity, Quantity)> = added
        .iter()
        .filter_map(|(what, amount)| Some((what, *amount, *limits.get(what)?)))
        .filter(|(what, amount, limit)| have(what) + *amount > *limit)
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let list = |amount: &dyn Fn(&(&String, Quantity, Quantity)) -> Quantity| {
        over.iter().map(|it| format!("{}={}", it.0, amount(it))).collect::<Vec<_>>().join(",")
    };
    let (requested, used, limited) = (list(&|it| it.1), list(&|it| have(it.0)), list(&|it| it.2));
    Err(refuse(review, &format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}")))
}

/// Adds a write's part to the quota's status, unless that is too much by now.
async fn record(server: &Server, review: &Review<'_>, quota: &Object, part: &Amounts, object: &Value) -> Answer<()> {
    let change = |it: &Before<'_>| {
        let current = it.value;
        let mut used = quota::recorded(current).unwrap_or_else(|| recount(server, current));
        check(review, current, &used, part, object)?;
        part.iter().for_each(|(what, amount)| *used.entry(what.clone()).or_default() += *amount);
        let mut current = current.clone();
        let hard = current.pointer("/spec/hard").cloned().unwrap_or_default();
        let status = json::map(&mut current, "status");
        status.insert("hard".to_owned(), hard);
        status.insert("used".to_owned(), quota::shown(&used).into());
        Ok(current)
    };
    Box::pin(modify(server, &quota.key(), Part::INTERNAL, &WriteOptions::default(), &change)).await.map(drop)
}
