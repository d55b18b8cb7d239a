//! The volumes there are, and among them those that claims can be given, by class and by where they can be used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::object::constraints::NodeFacts;
use crate::object::storage::{self, Choice, Request};
use crate::object::{Name, Object};
use crate::util::quantity::Quantity;

const NODE_NAME: &str = "metadata.name";

/// Volumes in the order of their size.
type Sizes = BTreeSet<(Quantity, Box<str>)>;

/// All volumes.
#[derive(Debug, Default)]
pub struct Shelves {
    volumes: HashMap<Box<str>, Arc<Object>>,
    /// Of those that nobody has or is about to get, by class.
    free: HashMap<Box<str>, Shelf>,
    /// Volumes that are reserved, by the claim.
    meant: HashMap<Name, BTreeSet<Box<str>>>,
    /// Claims that name a volume, or for which it was chosen.
    spoken_for: HashMap<Box<str>, BTreeSet<(Name, Why)>>,
}

/// Why a volume is not to be given to others, whatever it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The claim names it.
    Named,
    /// It was chosen for the claim.
    Chosen,
}

/// The free volumes of a class. There may be thousands on as many nodes, of which each node sees its own.
#[derive(Debug, Default)]
struct Shelf {
    all: Sizes,
    anywhere: Sizes,
    /// By a label that their nodes must have, and its value.
    by_label: HashMap<Box<str>, HashMap<Box<str>, Sizes>>,
}

impl Shelves {
    pub fn get(&self, volume: &str) -> Option<&Arc<Object>> {
        self.volumes.get(volume)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.volumes.keys().map(|it| &**it)
    }

    /// Takes in a volume's newest state.
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

    /// Notes that a volume is a claim's.
    pub fn speak_for(&mut self, volume: &str, claim: &Name, why: Why) {
        self.unshelve(volume);
        self.spoken_for.entry(volume.into()).or_default().insert((claim.clone(), why));
    }

    /// Notes that it is not, or not for this reason.
    pub fn withdraw(&mut self, volume: &str, claim: &Name, why: Why) {
        let Some(claims) = self.spoken_for.get_mut(volume) else { return };
        claims.remove(&(claim.clone(), why));
        if claims.is_empty() {
            self.spoken_for.remove(volume);
            self.shelve(volume);
        }
    }

    /// The claims that a volume is spoken for by, or meant for.
    pub fn claims(&self, volume: &str) -> BTreeSet<Name> {
        let meant = self.volumes.get(volume).and_then(|it| storage::volume(it).claim.as_ref());
        let spoken_for = self.spoken_for.get(volume).into_iter().flatten().map(|(claim, _)| claim.clone());
        spoken_for.chain(meant.map(|it| Name::new(&it.namespace, &it.name))).collect()
    }

    /// The volume that is meant for a claim.
    pub fn meant(&self, claim: &Object) -> Option<&Arc<Object>> {
        let meant = self.meant.get(&claim.meta().name).into_iter().flatten().map(|it| &self.volumes[it]);
        meant.filter(|it| storage::is_meant(it, claim)).min_by_key(|it| it.name())
    }

    /// The smallest volume on a node that suits a request and is none of `but`.
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

    /// Whether no node whatever has a volume for a request.
    pub fn is_hopeless(&self, request: &Request) -> bool {
        let largest = self.free.get(&request.class).and_then(|it| it.all.last());
        largest.is_none_or(|(size, _)| *size < request.size)
    }

    /// Whether claims that ask for what it is can be given it.
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
    /// Among these are all that can be used on a node.
    fn of(&self, node: &NodeFacts) -> impl Iterator<Item = &Sizes> {
        let here = self.by_label.iter().filter_map(|(label, values)| {
            let value = if &**label == NODE_NAME { Some(&*node.name) } else { node.label(label) };
            values.get(value?)
        });
        here.chain([&self.anywhere])
    }
}

/// The label, or the field, and the one value that a volume asks of its nodes, if it does so in the way of local volumes.
fn place(volume: &storage::Volume) -> Option<(&str, &str)> {
    let [term] = volume.nodes.as_deref()? else { return None };
    let by_label = term.match_expressions.iter().filter(|it| &*it.key != NODE_NAME);
    by_label.chain(&term.match_fields).find_map(|it| Some((&*it.key, it.sole_value()?)))
}
