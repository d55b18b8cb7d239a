//! Which watchers a change wakes. A watcher registers the narrowest interest that covers its query, and each interest lists the changes
//! that concern it. So with ten thousand agents that each watch their own pods, a change costs two look-ups, and no watcher has to read the
//! changes of others or can fall behind because of them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::Query;
use crate::object::{Name, Object, ResourceRef};

/// A set of objects to which a change can be assigned by look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    All,
    Namespace(Box<str>),
    Name(Name),
    Field(&'static str, Box<str>),
}

impl Interest {
    /// The narrowest interest that covers all matches of a query.
    pub(super) fn of(resource: ResourceRef, query: &Query) -> Self {
        let namespace = if resource.namespaced { query.namespace_wanted() } else { Some("") };
        if let (Some(namespace), Some(name)) = (namespace, query.fields.value_of("metadata.name")) {
            return Self::Name(Name::new(namespace, name));
        }
        for field in resource.selectable {
            if let Some(value) = query.fields.value_of(field.path) {
                return Self::Field(field.path, value.into());
            }
        }
        match namespace {
            Some(namespace) if resource.namespaced => Self::Namespace(namespace.into()),
            _ => Self::All,
        }
    }
}

/// The watchers of one interest, and the changes that concern them.
#[derive(Debug, Default)]
pub(super) struct Topic {
    watchers: usize,
    pub(super) wake: Arc<Notify>,
    /// The seqs of the history entries that concern this topic, in order.
    entries: VecDeque<u64>,
    /// Entries before this one are not listed.
    listed_from: u64,
}

impl Topic {
    fn push(&mut self, seq: u64, oldest: u64) {
        while let Some(first) = self.entries.front()
            && *first < oldest
        {
            self.listed_from = first + 1;
            self.entries.pop_front();
        }
        self.entries.push_back(seq);
    }

    /// The listed entries from `seq` on; `None` if the list does not reach back so far.
    pub(super) fn since(&self, seq: u64) -> Option<impl Iterator<Item = u64>> {
        let start = self.entries.partition_point(|it| *it < seq);
        (seq >= self.listed_from).then(|| self.entries.range(start..).copied())
    }

    pub(super) fn has_since(&self, seq: u64) -> bool {
        seq < self.listed_from || self.entries.back().is_some_and(|last| *last >= seq)
    }
}

/// The interests of one resource's watchers.
#[derive(Debug, Default)]
pub(super) struct Interests {
    /// The watchers of everything; they read the history itself.
    everything: Arc<Notify>,
    /// The number of watchers of everything.
    crowd: u32,
    namespaces: HashMap<Box<str>, Topic>,
    names: HashMap<Name, Topic>,
    fields: Vec<(&'static str, HashMap<Box<str>, Topic>)>,
}

impl Interests {
    /// Registers a watcher that has seen everything before `seq`. The returned handle is notified of new entries.
    pub(super) fn enter(&mut self, interest: &Interest, seq: u64) -> Arc<Notify> {
        let topic = match interest {
            Interest::All => {
                self.crowd += 1;
                return self.everything.clone();
            }
            Interest::Namespace(namespace) => self.namespaces.entry(namespace.clone()).or_default(),
            Interest::Name(name) => self.names.entry(name.clone()).or_default(),
            Interest::Field(path, value) => {
                let at = self.fields.iter().position(|(it, _)| it == path).unwrap_or_else(|| {
                    self.fields.push((path, HashMap::new()));
                    self.fields.len() - 1
                });
                self.fields[at].1.entry(value.clone()).or_default()
            }
        };
        if topic.watchers == 0 {
            topic.listed_from = seq;
        }
        topic.watchers += 1;
        topic.wake.clone()
    }

    pub(super) fn leave(&mut self, interest: &Interest) {
        fn leave<K>(entry: Entry<'_, K, Topic>) {
            if let Entry::Occupied(mut topic) = entry {
                topic.get_mut().watchers -= 1;
                if topic.get().watchers == 0 {
                    topic.remove();
                }
            }
        }
        match interest {
            Interest::All => self.crowd -= 1,
            Interest::Namespace(namespace) => leave(self.namespaces.entry(namespace.clone())),
            Interest::Name(name) => leave(self.names.entry(name.clone())),
            Interest::Field(path, value) => {
                if let Some(at) = self.fields.iter().position(|(it, _)| it == path) {
                    leave(self.fields[at].1.entry(value.clone()));
                    if self.fields[at].1.is_empty() {
                        self.fields.swap_remove(at);
                    }
                }
            }
        }
    }

    /// The number of watchers of everything.
    pub(super) fn crowd(&self) -> u32 {
        self.crowd
    }

    /// `None` for [`Interest::All`], which has no list of its own.
    pub(super) fn topic(&self, interest: &Interest) -> Option<&Topic> {
        match interest {
            Interest::All => None,
            Interest::Namespace(namespace) => self.namespaces.get(namespace),
            Interest::Name(name) => self.names.get(name),
            Interest::Field(path, value) => self.fields.iter().find(|(it, _)| it == path).and_then(|(_, topics)| topics.get(value)),
        }
    }

    /// Lists the entry `seq` under all topics that it concerns, and adds their handles to `wake`. `oldest` is the first entry still kept.
    pub(super) fn note(&mut self, seq: u64, oldest: u64, old: Option<&Object>, new: Option<&Object>, wake: &mut Vec<Arc<Notify>>) {
        wake.push(self.everything.clone());
        let Some(object) = new.or(old) else { return };
        let mut push = |topic: Option<&mut Topic>| {
            if let Some(topic) = topic {
                topic.push(seq, oldest);
                wake.push(topic.wake.clone());
            }
        };
        if !self.namespaces.is_empty() {
            push(self.namespaces.get_mut(object.namespace()));
        }
        if !self.names.is_empty() {
            push(self.names.get_mut(&object.meta().name));
        }
        for (path, topics) in &mut self.fields {
            let (before, after) = (old.and_then(|it| it.field(path)), new.and_then(|it| it.field(path)));
            if let Some(value) = after {
                push(topics.get_mut(value));
            }
            if let Some(value) = before.filter(|_| before != after) {
                push(topics.get_mut(value));
            }
        }
    }

    /// The handles of all watchers.
    pub(super) fn all(&self) -> Vec<Arc<Notify>> {
        let topics = self.namespaces.values().chain(self.names.values()).chain(self.fields.iter().flat_map(|(_, topics)| topics.values()));
        topics.map(|topic| topic.wake.clone()).chain([self.everything.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource;

    #[test]
    fn the_narrowest_interest_is_taken() {
        let namespaced = |namespace: &str, query: Query| Query { namespace: Some(namespace.to_owned()), ..query };
        let name = || Query::field("metadata.name", "x");
        for (resource, query, interest) in [
            (&resource::POD, Query::default(), Interest::All),
            (&resource::POD, Query::namespace("a"), Interest::Namespace("a".into())),
            (&resource::POD, Query::namespace(""), Interest::All),
            (&resource::POD, namespaced("a", name()), Interest::Name(Name::new("a", "x"))),
            (&resource::POD, name(), Interest::All),
            (&resource::NODE, name(), Interest::Name(Name::new("", "x"))),
            (&resource::POD, namespaced("a", Query::field("spec.nodeName", "n")), Interest::Field("spec.nodeName", "n".into())),
        ] {
            assert_eq!(Interest::of(resource, &query), interest);
        }
    }

    #[test]
    fn nothing_is_left_of_those_who_left() {
        let mut interests = Interests::default();
        let all = [
            Interest::All,
            Interest::Namespace("a".into()),
            Interest::Name(Name::new("a", "x")),
            Interest::Field("spec.nodeName", "n".into()),
        ];
        for interest in all.iter().chain(&all) {
            interests.enter(interest, 0);
        }
        assert_eq!(interests.all().len(), 4);
        for interest in all.iter().chain(&all) {
            interests.leave(interest);
        }
        assert_eq!((interests.all().len(), interests.fields.len()), (1, 0));
    }
}
