//! The steps of every write of an object, in their order: whether the object is new or changed, as a whole or in part, by a client or by
//! the server itself.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::super::Server;
use super::super::admission::{Charge, Operation, Review};
use super::super::allocate::Claims;
use super::super::error::Answer;
use super::super::write_options::WriteOptions;
use super::part::Part;
use super::reserved::Reserved;
use super::{create, json, owners, pods, refuse, strategy, update};
use crate::codec::apply::{self, Managers};
use crate::codec::{self, default};
use crate::object::resource::POD;
use crate::object::{Object, ObjectKey, Revision, Status};
use crate::store::{Entry, Expect};

/// The object that a write changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before<'a> {
    pub(crate) object: &'a Arc<Object>,
    /// All of it but the managed fields, which few writes are about and which are long.
    pub(crate) value: &'a Value,
    pub(crate) managers: Option<&'a Managers>,
}

impl Before<'_> {
    pub(crate) fn whole(&self) -> Value {
        let mut whole = self.value.clone();
        apply::put(&mut whole, self.managers);
        whole
    }
}

/// One attempt to write one object.
pub(super) struct Write<'a> {
    server: &'a Server,
    /// The name of a new object may change on the way.
    pub(super) key: Cow<'a, ObjectKey>,
    part: &'static Part,
    options: &'a WriteOptions,
    /// `None` if the object is new.
    old: Option<Before<'a>>,
    new: Value,
    /// Whether the name is made up, so that another is as good.
    pub(super) is_generated: bool,
}

/// How an attempt ended.
pub(super) enum Outcome {
    /// At this revision.
    Written(Arc<Object>, Revision),
    /// There was no change, or it is a dry run.
    Unwritten(Arc<Object>),
    /// The store has this entry instead of the one that was to be replaced.
    Conflict(Option<Entry>),
}

/// How often a name is made up when it is taken.
const NAMES: usize = 8;

impl<'a> Write<'a> {
    pub(super) fn create(server: &'a Server, key: ObjectKey, options: &'a WriteOptions, new: Value) -> Self {
        Self { server, key: Cow::Owned(key), part: Part::WHOLE, options, old: None, new, is_generated: false }
    }

    pub(super) fn update(
        server: &'a Server,
        key: &'a ObjectKey,
        part: &'static Part,
        options: &'a WriteOptions,
        old: Before<'a>,
        new: Value,
    ) -> Self {
        Self { server, key: Cow::Borrowed(key), part, options, old: Some(old), new, is_generated: false }
    }

    /// Writes the object.
    ///
    /// # Errors
    /// Whatever a step refuses; nothing was written then, unless the store itself failed.
    pub(super) async fn run(&mut self) -> Answer<Outcome> {
        let stated = apply::take(&mut self.new);
        self.restrict()?;
        let managers = if self.part.is_reviewed { self.review(stated).await? } else { self.old.and_then(|it| it.managers.cloned()) };
        if let Some(old) = self.old.filter(|it| *it.value == self.new && it.managers == managers.as_ref()) {
            return Ok(Outcome::Unwritten(old.object.clone()));
        }
        let reserved = self.reserve().await?;
        reserved.commit(self.server, self.store(managers.as_ref())).await
    }

    /// Sets or restores what the author does not choose.
    fn restrict(&mut self) -> Answer<()> {
        let key = &*self.key;
        let Some(old) = self.old else {
            self.is_generated = create::complete(key.resource, &key.name.namespace, &mut self.new)?;
            if key.resource == &POD {
                pods::unbind(&mut self.new, self.server.config.product);
            }
            return Ok(());
        };
        update::check_revision(key, &self.new, old.object)?;
        update::settle_metadata(key, self.part, &mut self.new, old.value)?;
        (self.part.keep)(key.resource, &mut self.new, old.value);
        Ok(())
    }

    /// What the write of a client passes through: defaults, ownership, admission and validation. Returns the managed fields.
    async fn review(&mut self, stated: Option<Value>) -> Answer<Option<Managers>> {
        let labels = json::at(&self.new, "/metadata/labels").and_then(Value::as_object);
        let is_unlabelled = labels.is_none_or(serde_json::Map::is_empty);
        let is_unkept = default::fill(self.key.resource, &mut self.new);
        let managers = self.track(stated);
        if is_unkept {
            // Its author owns it nevertheless.
            default::prune(self.key.resource, &mut self.new, self.old.map(|it| it.value));
        }
        let review = review(&self.key, self.part, self.old.is_none(), self.options);
        self.server.admission.admit(self.server, &review, &mut self.new).await?;
        self.decide(is_unlabelled);
        self.validate()?;
        Ok(managers)
    }

    /// The owners of the fields after this write; `stated` are the managed fields that the client sent.
    fn track(&self, stated: Option<Value>) -> Option<Managers> {
        if self.options.applies {
            return stated.as_ref().map(Managers::from);
        }
        // Only a write of the object itself may set managed fields.
        let stated = stated.filter(|_| self.part.is_whole());
        let now = match self.old {
            None => Cow::Borrowed(json::text(&self.new, "/metadata/creationTimestamp")),
            Some(_) => Cow::Owned(json::now()),
        };
        let writer = self.options.writer(self.key.resource, self.part.subresource, &now);
        let (old, held) = self.old.map(|it| (it.value, it.managers)).unzip();
        apply::track((stated, held.flatten().cloned()), old, &self.new, &writer)
    }

    /// Sets what the server decides about an admitted object. Nobody owns these fields.
    fn decide(&mut self, is_unlabelled: bool) {
        let resource = self.key.resource;
        if let Some(old) = self.old {
            return (self.part.record)(resource, &mut self.new, old.value);
        }
        if json::text(&self.new, "/metadata/name").is_empty() {
            self.make_up_name();
        }
        self.options.warnings.add(strategy::create(resource, &mut self.new, is_unlabelled));
        // Of what was added since.
        default::fill(resource, &mut self.new);
    }

    fn make_up_name(&mut self) {
        self.key = Cow::Owned(create::make_up_name(&self.key, &mut self.new));
    }

    fn validate(&mut self) -> Answer<()> {
        let doubled = owners::merge(&mut self.new, owners::Found::Admitted);
        let (key, new, old) = (&*self.key, &self.new, self.old.map(|it| it.value));
        let mut causes = (self.part.validate)(key.resource, new, old);
        match old {
            None if causes.iter().any(|it| it.field == "metadata.name") => {}
            None => causes.extend(create::check_name(key)),
            Some(old) => causes.extend(self.options.version.into_iter().flat_map(|it| codec::validate_version_update(it, new, old))),
        }
        refuse(key, causes)?;
        if self.part.is_whole() {
            self.options.warnings.add(doubled);
            self.options.warnings.add(codec::warnings(key.resource, new, old));
        }
        Ok(())
    }

    /// Reserves what the object will use, in quotas and, if it is a service, of addresses and ports.
    async fn reserve(&mut self) -> Answer<Reserved> {
        let charge = if self.part.is_reviewed {
            let review = review(&self.key, self.part, self.old.is_none(), self.options);
            self.server.admission.validate(self.server, &review, &self.new).await?
        } else {
            Charge::default()
        };
        Reserved::make(self.server, charge, &self.key, &mut self.new, self.old.map(|it| it.value), self.options.dry_run).await
    }

    async fn store(&mut self, managers: Option<&Managers>) -> Answer<Outcome> {
        match self.old {
            None => self.store_new(managers).await,
            Some(old) if self.options.dry_run => self.rendered(managers, old).map(Outcome::Unwritten),
            Some(old) if strategy::is_finished(self.key.resource, &self.new) => self.remove(self.rendered(managers, old)?).await,
            Some(old) => self.put(managers, Expect::At(old.object.revision())).await,
        }
    }

    /// Writes a new object, under another name if the one that was made up is taken.
    async fn store_new(&mut self, managers: Option<&Managers>) -> Answer<Outcome> {
        let mut names = 1;
        loop {
            let outcome = if self.options.dry_run { self.pretend(managers).await? } else { self.put(managers, Expect::Absent).await? };
            match outcome {
                Outcome::Conflict(_) if self.is_generated && names < NAMES => {
                    names += 1;
                    self.make_up_name();
                }
                outcome => return Ok(outcome),
            }
        }
    }

    async fn put(&self, managers: Option<&Managers>, expect: Expect) -> Answer<Outcome> {
        Ok(match self.server.put(&self.key, &self.new, managers, expect).await? {
            Ok(object) => Outcome::Written(object.clone(), object.revision()),
            Err(entry) => Outcome::Conflict(entry),
        })
    }

    /// Removes an object that nothing holds any more; `last` is what remains to be shown.
    async fn remove(&self, last: Arc<Object>) -> Answer<Outcome> {
        Ok(match self.server.remove(&self.key, last.revision()).await? {
            Ok(revision) => {
                Claims::release(self.server, &self.key, &last, revision).await;
                Outcome::Written(last, revision)
            }
            Err(entry) => Outcome::Conflict(entry),
        })
    }

    /// A new object that is not written: it has no resource version.
    async fn pretend(&self, managers: Option<&Managers>) -> Answer<Outcome> {
        if let Some(entry) = self.server.entry(&self.key).await? {
            return Ok(Outcome::Conflict(Some(entry)));
        }
        let object = Object::from_wire(self.key.resource, json::encode(&self.new, managers).0.into());
        object.map(Outcome::Unwritten).map_err(|error| Box::new(Status::internal(error)))
    }

    /// A changed object that is not written: its resource version is the old one.
    fn rendered(&self, managers: Option<&Managers>, old: Before<'_>) -> Answer<Arc<Object>> {
        let object = Object::from_stored(self.key.resource, &json::encode(&self.new, managers).0, old.object.revision());
        object.map_err(|error| Box::new(Status::internal(error)))
    }
}

fn review<'a>(key: &'a ObjectKey, part: &Part, is_new: bool, options: &WriteOptions) -> Review<'a> {
    let operation = if is_new { Operation::Create } else { Operation::Update };
    Review { operation, key, subresource: part.subresource, dry_run: options.dry_run }
}
