//! Binding of claims at the place of a pod: the scheduler reserves a volume for the claim, or sets the node for its provisioner. The volume
//! controller does the rest, and the API shows the result.

use std::sync::Arc;
use std::time::Duration;

use super::{Storage, Why};
use crate::object::storage;
use crate::object::{Name, Object, Revision};

/// A write for a binding. Its outcome is reported with its serial number.
#[derive(Clone, Debug)]
pub enum Write {
    /// Reserve a volume for a claim, unless the volume has changed.
    Reserve { volume: Arc<Object>, claim: Arc<Object>, serial: u64 },
    /// Set the node for which a claim's volume is to be provisioned, unless the claim has changed.
    Select { claim: Arc<Object>, host: Arc<str>, serial: u64 },
    /// Remove that node again.
    Unselect { claim: Arc<Object>, serial: u64 },
}

impl Write {
    pub fn claim(&self) -> &Object {
        let (Self::Reserve { claim, .. } | Self::Select { claim, .. } | Self::Unselect { claim, .. }) = self;
        claim
    }

    pub fn serial(&self) -> u64 {
        let (Self::Reserve { serial, .. } | Self::Select { serial, .. } | Self::Unselect { serial, .. }) = self;
        *serial
    }
}

/// A claim being bound.
#[derive(Debug)]
pub(super) struct Binding {
    /// The pod for which the binding was begun.
    pub(super) pod: Name,
    pub(super) host: Arc<str>,
    pub(super) how: How,
    uid: Box<str>,
    serial: u64,
    until: Duration,
}

/// The way in which a claim is bound; `written` is the revision at which the API shows the write.
#[derive(Debug)]
pub(super) enum How {
    Volume {
        name: Box<str>,
        written: Option<Revision>,
    },
    Provisioner {
        written: Option<Revision>,
    },
    /// The binding was given up: the selected node is being removed from the claim.
    Release,
}

/// Retry interval of overdue bindings.
const RETRY: Duration = Duration::from_secs(2);

impl Storage {
    /// Binds the claims of a pod on the node chosen for it, each to the volume chosen for it.
    pub fn begin(&mut self, now: Duration, pod: &Name, host: &Arc<str>, claims: Vec<Name>, volumes: Vec<Option<Box<str>>>) {
        for (name, volume) in claims.into_iter().zip(volumes) {
            let Some(claim) = self.claims.get(&name).cloned() else { continue };
            self.serial += 1;
            let serial = self.serial;
            let how = match volume.and_then(|it| self.shelves.get(&it)).cloned() {
                Some(volume) => {
                    self.shelves.speak_for(volume.name(), &name, Why::Chosen);
                    let is_reserved = storage::volume(&volume).claim.as_ref().is_some_and(|it| !it.uid.is_empty());
                    let how = How::Volume { name: volume.name().into(), written: is_reserved.then(|| volume.revision()) };
                    if !is_reserved {
                        self.writes.push(Write::Reserve { volume, claim: claim.clone(), serial });
                    }
                    how
                }
                None => {
                    self.writes.push(Write::Select { claim: claim.clone(), host: host.clone(), serial });
                    How::Provisioner { written: None }
                }
            };
            self.insert(
                name,
                &claim,
                Binding { pod: pod.clone(), host: host.clone(), how, uid: Box::default(), serial, until: now + self.timeout },
            );
        }
    }

    /// Continues the binding of a claim that already has a selected node.
    pub(super) fn resume(&mut self, now: Duration, pod: &Name, name: Name, host: Arc<str>) {
        let claim = self.claims[&name].clone();
        self.serial += 1;
        let how = How::Provisioner { written: Some(claim.revision()) };
        let binding = Binding { pod: pod.clone(), host, how, uid: Box::default(), serial: self.serial, until: now + self.timeout };
        self.insert(name, &claim, binding);
    }

    fn insert(&mut self, name: Name, claim: &Object, binding: Binding) {
        self.due.insert((binding.until, name.clone()));
        self.stir_users(&name);
        self.bindings.insert(name, Binding { uid: claim.meta().uid.clone(), ..binding });
    }

    /// Records the outcome of a write: its revision if it succeeded.
    pub fn written(&mut self, now: Duration, claim: &Name, serial: u64, at: Option<Revision>) {
        let Some(binding) = self.bindings.get_mut(claim).filter(|it| it.serial == serial) else { return };
        match (&mut binding.how, at) {
            (How::Release, None) => self.postpone(claim, now + RETRY),
            (How::Release, Some(_)) => {}
            (_, None) => self.give_up(claim),
            (How::Volume { written, .. } | How::Provisioner { written }, Some(at)) => {
                *written = Some(at);
                self.settle(claim);
            }
        }
    }

    /// Ends a binding that the API shows to be complete or failed.
    pub(super) fn settle(&mut self, name: &Name) {
        let Some(binding) = self.bindings.get(name) else { return };
        let claim = self.claims.get(name).filter(|it| it.meta().uid == binding.uid);
        let Some((object, claim)) = claim.map(|it| (it, storage::claim(it))) else { return self.end(name) };
        if claim.is_bound() {
            return self.end(name);
        }
        match &binding.how {
            How::Volume { name: volume, written } => {
                let volume = self.shelves.get(volume);
                let is_reserved = |it: &Arc<Object>| {
                    let volume = storage::volume(it);
                    volume.is_for(object) && volume.claim.as_ref().is_some_and(|it| !it.uid.is_empty())
                };
                // The cache does not show the write yet.
                let is_old = |it: &Arc<Object>| written.is_none_or(|at| it.revision() < at);
                if !volume.is_some_and(|it| is_old(it) || is_reserved(it)) {
                    self.give_up(name);
                }
            }
            How::Provisioner { written: Some(at) } if object.revision() >= *at => {
                // The provisioner signals failure by removing the selected node.
                if claim.volume.is_none() && claim.selected_node.as_deref() != Some(&*binding.host) {
                    self.give_up(name);
                }
            }
            How::Provisioner { .. } => {}
            How::Release if claim.selected_node.is_none() => self.end(name),
            How::Release => {}
        }
    }

    /// Gives up overdue bindings; returns the pods of their claims.
    pub fn expire(&mut self, now: Duration) -> Vec<Name> {
        let mut late = Vec::new();
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            let (_, claim) = self.due.pop_first().expect("seen above");
            late.extend(self.overdue(now, &claim));
        }
        late
    }

    /// A node was deleted: no volume will be provisioned for it.
    pub fn host_gone(&mut self, now: Duration, host: &str) {
        let on_host = self.bindings.iter().filter(|(_, it)| &*it.host == host && matches!(it.how, How::Provisioner { .. }));
        for claim in on_host.map(|(claim, _)| claim.clone()).collect::<Vec<_>>() {
            self.overdue(now, &claim);
        }
    }

    fn overdue(&mut self, now: Duration, name: &Name) -> Option<Name> {
        let binding = self.bindings.get_mut(name)?;
        let pod = binding.pod.clone();
        let claim = self.claims.get(name)?.clone();
        match binding.how {
            How::Volume { .. } => self.give_up(name),
            // The volume exists already.
            How::Provisioner { .. } if storage::claim(&claim).volume.is_some() => {
                self.postpone(name, now + self.timeout);
                return None;
            }
            How::Provisioner { .. } | How::Release => {
                let is_first = !matches!(binding.how, How::Release);
                self.serial += 1;
                (binding.how, binding.serial) = (How::Release, self.serial);
                self.writes.push(Write::Unselect { claim, serial: self.serial });
                self.postpone(name, now + RETRY.max(self.timeout / 10));
                return is_first.then_some(pod);
            }
        }
        Some(pod)
    }

    fn postpone(&mut self, claim: &Name, until: Duration) {
        let Some(binding) = self.bindings.get_mut(claim) else { return };
        self.due.remove(&(binding.until, claim.clone()));
        binding.until = until;
        self.due.insert((until, claim.clone()));
    }

    fn give_up(&mut self, claim: &Name) {
        self.end(claim);
        self.repelled.extend(self.users.get(claim).into_iter().flatten().cloned());
    }

    fn end(&mut self, claim: &Name) {
        let Some(binding) = self.bindings.remove(claim) else { return };
        self.due.remove(&(binding.until, claim.clone()));
        if let How::Volume { name, .. } = &binding.how {
            self.shelves.withdraw(name, claim, Why::Chosen);
            let name = name.clone();
            self.restock(&name);
        }
        self.stir_users(claim);
    }

    /// The writes since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// When the next binding is overdue.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }
}
