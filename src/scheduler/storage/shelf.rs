//! All volumes, and an index of the free ones by class and by node label.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::object::constraints::NodeFacts;
use crate::object::storage::{self, Choice, Request};
use crate::object::{Name, Object};
use crate::util::quantity::Quantity;

const NODE_NAME: &str = "metadata.name";

/// Volumes ordered by size.
type Sizes = BTreeSet<(Quantity, Box<str>)>;

/// All volumes.
#[derive(Debug, Default)]
pub struct Shelves {
    volumes: HashMap<Box<str>, Arc<Object>>,
    /// Free volumes by class; volumes that a claim has, or is about to get, are not free.
    free: HashMap<Box<str>, Shelf>,
    /// Reserved volumes by claim.
    meant: HashMap<Name, BTreeSet<Box<str>>>,
    /// Volumes that a claim names, or that were chosen for a claim.
    spoken_for: HashMap<Box<str>, BTreeSet<(Name, Why)>>,
}

/// Why a volume may not be given to others, whatever its own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The claim names the volume.
    Named,
    /// The volume was chosen for the claim.
    Chosen,
}

/// The free volumes of a class. There may be thousands on as many nodes; each node looks only at its own.
#[derive(Debug, Default)]
struct Shelf {
    all: Sizes,
    anywhere: Sizes,
    /// By a label that the volume requires of its nodes, and the label's value.
    by_label: HashMap<Box<str>, HashMap<Box<str>, Sizes>>,
}

impl Shelves {
    pub fn get(&self, volume: &str) -> Option<&Arc<Object>> {
        self.volumes.get(volume)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.volumes.keys().map(|it| &**it)
    }

    /// Updates a volume.
    pub fn put(&mut self, volume: Arc<Object>) {
        self.remove(volume.name());
        if let Some(claim) = &storage::volume(&volume).claim {
            self.meant.entry(Name::new(&claim.namespace, &claim.name)).or_default().insert(volume.name().into());
        }
        let name = Box::from(volume.name());
        self.volumes.insert(volume.name().into(), volume);
        self.shelve(&name);
    }

    pub fn remove(&mut self, volume: &str) {
        self.unshelve(volume);
        let Some(old) = self.volumes.remove(volume) else { return };
        let Some(claim) = &storage::volume(&old).claim else { return };
        let claim = Name::new(&claim.namespace, &claim.name);
        if let Some(meant) = self.meant.get_mut(&claim) {
            meant.remove(volume);
            if meant.is_empty() {
                self.meant.remove(&claim);
            }
        }
    }

    /// Records that a volume belongs to a claim, for this reason.
    pub fn speak_for(&mut self, volume: &str, claim: &Name, why: Why) {
        self.unshelve(volume);
        self.spoken_for.entry(volume.into()).or_default().insert((claim.clone(), why));
    }

    /// Removes such a record.
    pub fn withdraw(&mut self, volume: &str, claim: &Name, why: Why) {
        let Some(claims) = self.spoken_for.get_mut(volume) else { return };
        claims.remove(&(claim.clone(), why));
        if claims.is_empty() {
            self.spoken_for.remove(volume);
            self.shelve(volume);
        }
    }

    /// The claims that a volume belongs to or is reserved for.
    pub fn claims(&self, volume: &str) -> BTreeSet<Name> {
        let meant = self.volumes.get(volume).and_then(|it| storage::volume(it).claim.as_ref());
        let spoken_for = self.spoken_for.get(volume).into_iter().flatten().map(|(claim, _)| claim.clone());
        spoken_for.chain(meant.map(|it| Name::new(&it.namespace, &it.name))).collect()
    }

    /// The volume that is reserved for a claim.
    pub fn meant(&self, claim: &Object) -> Option<&Arc<Object>> {
        let meant = self.meant.get(&claim.meta().name).into_iter().flatten().map(|it| &self.volumes[it]);
        meant.filter(|it| storage::is_meant(it, claim)).min_by_key(|it| it.name())
    }

    /// The smallest volume on a node that suits a request and is not in `but`.
    pub fn find(&self, request: &Request, node: &NodeFacts, but: &[&str]) -> Option<&Arc<Object>> {
        let shelf = self.free.get(&request.class)?;
        let smallest = |sizes: &Sizes| {
            let large_enough = sizes.range((request.size, Box::default())..);
            let mut usable =
                large_enough.filter(|(_, name)| !but.contains(&&**name) && storage::suits(&self.volumes[name], request, Choice::On(node)));
            usable.next().map(|(size, name)| (*size, &self.volumes[name]))
        };
        shelf.of(node).filter_map(smallest).min_by_key(|(size, _)| *size).map(|(_, volume)| volume)
    }

    /// Whether no node has a volume for a request.
    pub fn is_hopeless(&self, request: &Request) -> bool {
        let largest = self.free.get(&request.class).and_then(|it| it.all.last());
        largest.is_none_or(|(size, _)| *size < request.size)
    }

    /// Whether the volume is free for any claim that it suits.
    pub fn is_free(&self, volume: &str) -> bool {
        let Some(seen) = self.volumes.get(volume).map(|it| storage::volume(it)) else { return false };
        self.free.get(&seen.class).is_some_and(|it| it.all.contains(&(seen.capacity, volume.into())))
    }

    fn shelve(&mut self, volume: &str) {
        let Some(object) = self.volumes.get(volume) else { return };
        let seen = storage::volume(object);
        if !seen.is_free(object) || self.spoken_for.contains_key(volume) {
            return;
        }
        let shelf = self.free.entry(seen.class.clone()).or_default();
        let entry = (seen.capacity, Box::from(volume));
        shelf.all.insert(entry.clone());
        match place(seen) {
            Some((label, value)) => shelf.by_label.entry(label.into()).or_default().entry(value.into()).or_default(),
            None => &mut shelf.anywhere,
        }
        .insert(entry);
    }

    fn unshelve(&mut self, volume: &str) {
        let Some(seen) = self.volumes.get(volume).map(|it| storage::volume(it)) else { return };
        let Some(shelf) = self.free.get_mut(&seen.class) else { return };
        let entry = (seen.capacity, Box::from(volume));
        if !shelf.all.remove(&entry) {
            return;
        }
        match place(seen) {
            Some((label, value)) => {
                let values = shelf.by_label.get_mut(label).expect("it was shelved there");
                let sizes = values.get_mut(value).expect("it was shelved there");
                sizes.remove(&entry);
                if sizes.is_empty() {
                    values.remove(value);
                }
                if values.is_empty() {
                    shelf.by_label.remove(label);
                }
            }
            None => drop(shelf.anywhere.remove(&entry)),
        }
        if shelf.all.is_empty() {
            self.free.remove(&seen.class);
        }
    }
}

impl Shelf {
    /// A superset of the volumes that are usable on a node.
    fn of(&self, node: &NodeFacts) -> impl Iterator<Item = &Sizes> {
        let here = self.by_label.iter().filter_map(|(label, values)| {
            let value = if &**label == NODE_NAME { Some(&*node.name) } else { node.label(label) };
            values.get(value?)
        });
        here.chain([&self.anywhere])
    }
}

/// The label or field, and its only allowed value, that a volume requires of its nodes, in the manner of local volumes.
fn place(volume: &storage::Volume) -> Option<(&str, &str)> {
    let [term] = volume.nodes.as_deref()? else { return None };
    let by_label = term.match_expressions.iter().filter(|it| &*it.key != NODE_NAME);
    by_label.chain(&term.match_fields).find_map(|it| Some((&*it.key, it.sole_value()?)))
}
