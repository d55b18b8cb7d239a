//! Reads and writes of single objects: the read-modify-write loop over the store, and the specifics of each kind.

mod app_armor;
mod apply;
pub(crate) mod binding;
pub(crate) mod certificates;
pub(crate) mod components;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod eviction;
pub(crate) mod json;
pub(crate) mod namespaces;
mod owners;
mod part;
pub(crate) mod patch;
pub(crate) mod pods;
mod reserved;
pub(crate) mod reviews;
pub(crate) mod scale;
pub(crate) mod services;
pub(crate) mod strategy;
pub(crate) mod tokens;
pub(crate) mod update;
pub(crate) mod volume_claims;
mod write;

use std::sync::Arc;

pub(crate) use part::Part;
use serde_json::Value;
pub(crate) use write::Before;

use super::Server;
use super::error::{Answer, store_status};
use super::freshness::Freshness;
use super::write_options::{FieldValidation, WriteOptions};
use crate::codec::Decoded;
use crate::codec::apply::Managers;
use crate::object::status::Cause;
use crate::object::{Draft, Object, ObjectKey, Revision, Status, resource};
use crate::store::{Entry, Expect, Outcome};

/// An object a write begins with.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) object: Arc<Object>,
    /// Read from the store itself, so at least as new as the request.
    pub(crate) live: bool,
}

impl Server {
    /// The object under a key, at the required freshness (`None`: the newest).
    ///
    /// # Errors
    /// 404 if there is none.
    pub(crate) async fn read(&self, key: &ObjectKey, revision: Option<Revision>) -> Answer<Arc<Object>> {
        let freshness = match revision {
            None => Freshness::Newest,
            Some(0) => Freshness::Any,
            Some(revision) => Freshness::NotOlderThan(revision),
        };
        self.freshen(key.resource, freshness).await?;
        self.cached(key).ok_or_else(|| not_found(key))
    }

    /// The object in the cache.
    pub(crate) fn cached(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.cache.get(key.resource, &key.name.namespace, &key.name.name)
    }

    /// The object that a write starts from: the cached one; if that is stale, the write conflicts.
    ///
    /// # Errors
    /// 404 if the store has none.
    pub(crate) async fn current(&self, key: &ObjectKey) -> Answer<Current> {
        match self.cached(key) {
            Some(object) => Ok(Current { object, live: false }),
            None => self.live(key).await,
        }
    }

    /// The object in the store.
    ///
    /// # Errors
    /// 404 if the store has none.
    pub(crate) async fn live(&self, key: &ObjectKey) -> Answer<Current> {
        let entry = self.entry(key).await?;
        self.adopt(key, entry)
    }

    /// The store's entry for a key.
    pub(crate) async fn entry(&self, key: &ObjectKey) -> Answer<Option<Entry>> {
        self.store.get(&key.to_path(&self.config.prefix)).await.map_err(store_status)
    }

    /// The object of an entry that the store answered with.
    pub(crate) fn adopt(&self, key: &ObjectKey, entry: Option<Entry>) -> Answer<Current> {
        let entry = entry.ok_or_else(|| not_found(key))?;
        let object = Object::from_stored(key.resource, &entry.value, entry.revision).map_err(|error| Box::new(Status::internal(error)))?;
        Ok(Current { object, live: true })
    }

    /// Writes an object if `expect` holds, and waits until readers see it. The inner error is the entry that the store has instead.
    pub(crate) async fn put(
        &self,
        key: &ObjectKey,
        value: &Value,
        managers: Option<&Managers>,
        expect: Expect,
    ) -> Answer<Result<Arc<Object>, Option<Entry>>> {
        let (json, at) = json::encode(value, managers);
        let draft = Draft::new(key.resource, value, json.into(), at).map(Arc::new).map_err(|error| Box::new(Status::internal(error)))?;
        let path = key.to_path(&self.config.prefix);
        let _writing = self.pending_writes.enter(&path, draft.clone());
        let ttl = (key.resource == &resource::EVENT).then_some(self.config.event_ttl);
        let outcome = self.store.put(&path, draft.stored().clone(), expect, ttl).await.map_err(store_status)?;
        let revision = match outcome {
            Outcome::Conflict(entry) => return Ok(Err(entry)),
            Outcome::Done(revision) => revision,
        };
        self.show(key.resource, revision).await;
        let seen = self.cached(key).filter(|it| it.revision() == revision);
        Ok(Ok(seen.unwrap_or_else(|| draft.at_revision(revision))))
    }

    /// Deletes an object that is still at this revision, and waits until readers see that. Returns the revision of the deletion; the inner
    /// error is the entry that the store has instead.
    pub(crate) async fn remove(&self, key: &ObjectKey, revision: Revision) -> Answer<Result<Revision, Option<Entry>>> {
        match self.store.delete(&key.to_path(&self.config.prefix), revision).await.map_err(store_status)? {
            Outcome::Conflict(entry) => Ok(Err(entry)),
            Outcome::Done(revision) => {
                self.show(key.resource, revision).await;
                Ok(Ok(revision))
            }
        }
    }
}

pub(crate) fn not_found(key: &ObjectKey) -> Box<Status> {
    Box::new(Status::not_found(key.resource, &key.name.name))
}

/// # Errors
/// 422 if there is a cause.
pub(crate) fn refuse(key: &ObjectKey, causes: Vec<Cause>) -> Answer<()> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Box::new(Status::invalid(key.resource, &key.name.name, causes)))
}

/// Takes a decoded body as strictly as the client wishes.
///
/// # Errors
/// 400 for unknown and duplicate fields in strict mode.
pub(crate) fn accept_fields(decoded: Decoded, options: &WriteOptions) -> Answer<Value> {
    match options.fields {
        _ if decoded.strict_errors.is_empty() => Ok(decoded.value),
        FieldValidation::Ignore => Ok(decoded.value),
        FieldValidation::Warn => {
            let (value, warnings) = decoded.warnings();
            options.warnings.add(warnings);
            Ok(value)
        }
        FieldValidation::Strict => {
            let Decoded { value, strict_errors } = decoded;
            let kind = json::text(&value, "/kind").to_owned();
            let version = json::text(&value, "/apiVersion").rsplit('/').next().unwrap_or_default().to_owned();
            let listed = strict_errors.join(", ");
            Err(super::error::bad(format!("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {listed}")))
        }
    }
}
