//! The claims of pods: whether they allow a pod to be placed, the nodes that their volumes allow, and volumes for claims that wait for
//! their first consumer. The necessary writes are returned as [`Write`]s; their outcomes are reported back.

mod binding;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::demand::PodFacts;
use crate::object::constraints::NodeFacts;
use crate::object::storage::{self, Class, Request};
use crate::object::{Name, Object};
pub use binding::Write;
use binding::{Binding, How};
use shelf::{Shelves, Why};

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim {
    pub name: Name,
    /// An ephemeral volume's claim, created for this pod; the claim of another pod does not count.
    pub is_own: bool,
}

/// A volume that a pod is to get where it is placed: part of its [`Demand`](super::demand::Demand), so that pods with equal claims are
/// placed together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    pub request: Arc<Request>,
    /// The claim, if a volume is reserved for it.
    pub claim: Option<Name>,
}

/// The claims that matter while a pod waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Claims that get their volume where the pod is placed, in the order of the pod's needs.
    pub unbound: Vec<Name>,
    /// Claims that no other pod may use (`ReadWriteOncePod`).
    pub exclusive: Vec<Name>,
}

/// Why a pod cannot be placed on any node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A property of the pod or its claims, in Kubernetes' words.
    Pod(String),
    /// A reason that is the same for each node.
    Nodes(&'static str),
    /// The pod has a place, where its claims are being bound.
    Binding,
    /// The pod has scheduling gates; its conditions say so from the beginning.
    Gated,
}

const VOLUME_GONE: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
const UNBOUND: &str = "pod has unbound immediate PersistentVolumeClaims";
const EXCLUSIVE: &str = "ReadWriteOncePod";

impl Hold {
    /// The message for the pod's user, given the number of nodes; `None`: no message.
    pub fn message(&self, nodes: usize) -> Option<String> {
        match self {
            Self::Pod(why) => Some(format!("0/{nodes} nodes are available: {why}.")),
            Self::Nodes(why) => Some(format!("0/{nodes} nodes are available: {nodes} {why}.")),
            Self::Binding | Self::Gated => None,
        }
    }
}

/// Claims, volumes and classes, the pods that use them, and bindings in progress.
#[derive(Debug)]
pub struct Storage {
    /// How long the binding of a claim may take.
    timeout: Duration,
    claims: HashMap<Name, Arc<Object>>,
    classes: HashMap<Box<str>, Arc<Object>>,
    shelves: Shelves,
    /// Pods that use claims.
    pods: HashMap<Name, User>,
    /// The pods that use each claim.
    users: HashMap<Name, BTreeSet<Name>>,
    /// Waiting pods with unbound claims, by the claims' class.
    seekers: HashMap<Box<str>, BTreeSet<Name>>,
    bindings: HashMap<Name, Binding>,
    /// Deadlines of bindings.
    due: BTreeSet<(Duration, Name)>,
    serial: u64,
    writes: Vec<Write>,
    /// Pods to examine again; `repelled` ones only after a while.
    stirred: BTreeSet<Name>,
    repelled: BTreeSet<Name>,
    /// Classes with new free volumes.
    restocked: HashSet<Box<str>>,
}

#[derive(Debug, Default)]
struct User {
    claims: Vec<Name>,
    /// The classes of its unbound claims.
    classes: Vec<Box<str>>,
    /// The pod has a node, or is on its way there.
    is_placed: bool,
}

/// Pods whose claims or volumes have changed.
#[derive(Debug, Default)]
pub struct Stirred {
    pub again: BTreeSet<Name>,
    /// Pods whose binding failed: they back off before they choose again.
    pub later: BTreeSet<Name>,
    /// Pods for which there are new volumes.
    pub offers: BTreeSet<Name>,
}

impl Storage {
    /// A claim that is not bound after `timeout` is given up.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            claims: HashMap::new(),
            classes: HashMap::new(),
            shelves: Shelves::default(),
            pods: HashMap::new(),
            users: HashMap::new(),
            seekers: HashMap::new(),
            bindings: HashMap::new(),
            due: BTreeSet::new(),
            serial: 0,
            writes: Vec::new(),
            stirred: BTreeSet::new(),
            repelled: BTreeSet::new(),
            restocked: HashSet::new(),
        }
    }

    pub fn claim(&mut self, claim: Arc<Object>) {
        let name = claim.meta().name.clone();
        self.withdraw_named(&name);
        if let Some(volume) = &storage::claim(&claim).volume {
            self.shelves.speak_for(volume, &name, Why::Named);
        }
        self.claims.insert(name.clone(), claim);
        self.settle(&name);
        self.stir_users(&name);
    }

    pub fn claim_gone(&mut self, name: &Name) {
        self.withdraw_named(name);
        self.claims.remove(name);
        self.settle(name);
        self.stir_users(name);
    }

    fn withdraw_named(&mut self, claim: &Name) {
        let Some(volume) = self.claims.get(claim).and_then(|it| storage::claim(it).volume.as_ref()) else { return };
        self.shelves.withdraw(volume, claim, Why::Named);
    }

    pub fn volume(&mut self, volume: Arc<Object>) {
        let name = volume.name().to_owned();
        let before = self.shelves.claims(&name);
        self.shelves.put(volume);
        self.restock(&name);
        self.volume_changed(before.union(&self.shelves.claims(&name)));
    }

    pub fn volume_gone(&mut self, name: &str) {
        let claims = self.shelves.claims(name);
        self.shelves.remove(name);
        self.volume_changed(&claims);
    }

    fn volume_changed<'a>(&mut self, claims: impl IntoIterator<Item = &'a Name>) {
        for claim in claims {
            self.settle(claim);
            self.stir_users(claim);
        }
    }

    /// A free volume may now suit other claims.
    fn restock(&mut self, volume: &str) {
        if self.shelves.is_free(volume) {
            self.restocked.extend(self.shelves.get(volume).map(|it| storage::volume(it).class.clone()));
        }
    }

    pub fn class(&mut self, class: Arc<Object>) {
        let name = Box::from(class.name());
        self.classes.insert(class.name().into(), class);
        self.class_changed(name);
    }

    pub fn class_gone(&mut self, name: &str) {
        self.classes.remove(name);
        self.class_changed(name.into());
    }

    fn class_changed(&mut self, name: Box<str>) {
        self.stirred.extend(self.seekers.get(&name).into_iter().flatten().cloned());
        self.restocked.insert(name);
    }

    /// The names of the known claims, for a watch that has missed deletions; likewise for volumes and classes.
    pub fn claims(&self) -> Vec<Name> {
        self.claims.keys().cloned().collect()
    }

    pub fn volumes(&self) -> Vec<Name> {
        self.shelves.names().map(|it| Name::new("", it)).collect()
    }

    pub fn classes(&self) -> Vec<Name> {
        self.classes.keys().map(|it| Name::new("", it)).collect()
    }

    fn stir_users(&mut self, claim: &Name) {
        self.stirred.extend(self.users.get(claim).into_iter().flatten().cloned());
    }

    /// The pods whose claims or volumes have changed since the last call.
    pub fn take_stirred(&mut self) -> Stirred {
        let offers = std::mem::take(&mut self.restocked).iter().filter_map(|it| self.seekers.get(it)).flatten().cloned().collect();
        Stirred { again: std::mem::take(&mut self.stirred), later: std::mem::take(&mut self.repelled), offers }
    }

    /// Before a pod is queued: adds its claims to its demand, or sets the reason to hold it back.
    pub fn wait(&mut self, now: Duration, pod: &mut PodFacts) {
        if pod.claims.is_empty() {
            return self.forget(&pod.name);
        }
        self.register(pod, false);
        if pod.hold.is_some() {
            return;
        }
        pod.hold = self.examine(now, pod).err();
        if pod.hold.is_some() {
            (pod.wanted, pod.demand.needs, pod.demand.constraints.volumes) = (Wanted::default(), Vec::new(), Vec::new());
        }
    }

    /// A pod has a node, or is on its way there.
    pub fn place(&mut self, pod: &PodFacts) {
        if pod.claims.is_empty() { self.forget(&pod.name) } else { self.register(pod, true) }
    }

    /// The waiting pod of this name has been launched.
    pub fn launched(&mut self, pod: &Name) {
        let Some(user) = self.pods.get_mut(pod).filter(|it| !it.is_placed) else { return };
        user.is_placed = true;
        let (claims, classes) = (user.claims.clone(), std::mem::take(&mut user.classes));
        self.unseek(pod, &classes);
        claims.iter().for_each(|it| self.stir_rivals(it));
    }

    /// A pod has ended or is gone.
    pub fn forget(&mut self, pod: &Name) {
        let Some(user) = self.pods.remove(pod) else { return };
        self.unseek(pod, &user.classes);
        for claim in user.claims {
            if let Some(users) = self.users.get_mut(&claim) {
                users.remove(pod);
                if users.is_empty() {
                    self.users.remove(&claim);
                }
            }
            self.stir_rivals(&claim);
        }
    }

    fn register(&mut self, pod: &PodFacts, is_placed: bool) {
        let was_placed = self.pods.get(&pod.name).is_some_and(|it| it.is_placed);
        let classes = if is_placed { Vec::new() } else { self.unbound_classes(pod) };
        let claims: Vec<Name> = pod.claims.iter().map(|it| it.name.clone()).collect();
        if self.pods.get(&pod.name).is_some_and(|it| it.claims != claims) {
            // The name was reused.
            self.forget(&pod.name);
        }
        let old = self.pods.insert(pod.name.clone(), User { claims, classes: classes.clone(), is_placed });
        self.unseek(&pod.name, &old.unwrap_or_default().classes);
        for class in classes {
            self.seekers.entry(class).or_default().insert(pod.name.clone());
        }
        for claim in &pod.claims {
            self.users.entry(claim.name.clone()).or_default().insert(pod.name.clone());
            if was_placed != is_placed {
                self.stir_rivals(&claim.name);
            }
        }
    }

    fn unbound_classes(&self, pod: &PodFacts) -> Vec<Box<str>> {
        let claims = pod.claims.iter().filter_map(|it| self.claims.get(&it.name)).map(|it| storage::claim(it));
        claims.filter(|it| !it.is_bound()).map(|it| it.asks.class.clone()).collect()
    }

    fn unseek(&mut self, pod: &Name, classes: &[Box<str>]) {
        for class in classes {
            if let Some(seekers) = self.seekers.get_mut(class) {
                seekers.remove(pod);
                if seekers.is_empty() {
                    self.seekers.remove(class);
                }
            }
        }
    }

    /// Wakes pods that may use an exclusive claim only one at a time.
    fn stir_rivals(&mut self, claim: &Name) {
        if self.claims.get(claim).is_some_and(|it| is_exclusive(it)) {
            self.stir_users(claim);
        }
    }

    /// Adds the needs of a pod's claims to its demand.
    fn examine(&mut self, now: Duration, pod: &mut PodFacts) -> Result<(), Hold> {
        for claim in &pod.claims {
            self.check(pod, claim).map_err(Hold::Pod)?;
        }
        let (mut unbound, mut being_bound) = (Vec::new(), false);
        for PodClaim { name, .. } in &pod.claims {
            let object = &self.claims[name];
            let claim = storage::claim(object);
            if is_exclusive(object) {
                pod.wanted.exclusive.push(name.clone());
            }
            if claim.is_bound() {
                continue;
            }
            if claim.volume.is_some() || !self.class_of(&claim.asks).is_some_and(|it| it.is_delayed) {
                return Err(Hold::Pod(UNBOUND.to_owned()));
            }
            match &claim.selected_node {
                _ if self.bindings.contains_key(name) => being_bound = true,
                // Begun by an earlier run, or by another scheduler.
                Some(host) => {
                    let host = Arc::from(&**host);
                    self.resume(now, &pod.name, name.clone(), host);
                    being_bound = true;
                }
                None => {
                    let claim_alone = self.shelves.meant(object).map(|_| name.clone());
                    unbound.push((Need { request: claim.asks.clone(), claim: claim_alone }, name.clone()));
                }
            }
        }
        // The smallest need chooses first, so that it does not take a volume that only a larger one could use.
        unbound.sort_by_key(|(need, _)| need.request.size);
        (pod.demand.needs, pod.wanted.unbound) = unbound.into_iter().unzip();
        if self.are_in_use(&pod.wanted.exclusive, &pod.name) {
            return Err(Hold::Nodes(IN_USE));
        }
        for volume in pod.claims.iter().filter_map(|it| storage::claim(&self.claims[&it.name]).volume.as_ref()) {
            let volume = self.shelves.get(volume).ok_or(Hold::Nodes(VOLUME_GONE))?;
            pod.demand.constraints.volumes.extend(storage::volume(volume).nodes.clone());
        }
        if being_bound { Err(Hold::Binding) } else { Ok(()) }
    }

    /// Whether a claim can be used; if not, why, in Kubernetes' words.
    fn check(&self, pod: &PodFacts, PodClaim { name, is_own }: &PodClaim) -> Result<(), String> {
        let Some(claim) = self.claims.get(name) else {
            return Err(if *is_own {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {:?}", name.name)
            } else {
                format!("persistentvolumeclaim {:?} not found", name.name)
            });
        };
        let seen = storage::claim(claim);
        if &*seen.phase == "Lost" {
            let volume = seen.volume.as_deref().unwrap_or_default();
            return Err(format!("persistentvolumeclaim {:?} bound to non-existent persistentvolume {volume:?}", name.name));
        }
        if claim.meta().is_deleted() {
            return Err(format!("persistentvolumeclaim {:?} is being deleted", name.name));
        }
        if *is_own && claim.meta().controller().is_none_or(|it| it.uid != pod.uid) {
            return Err(format!("PVC {name} was not created for pod {} (pod is not owner)", pod.name));
        }
        Ok(())
    }

    fn class_of(&self, request: &Request) -> Option<&Class> {
        self.classes.get(&request.class).map(|it| storage::class(it))
    }

    /// Whether another placed pod uses one of these claims.
    fn are_in_use(&self, exclusive: &[Name], pod: &Name) -> bool {
        let mut users = exclusive.iter().filter_map(|it| self.users.get(it)).flatten();
        users.any(|it| it != pod && self.pods.get(it).is_some_and(|it| it.is_placed))
    }

    /// Whether other pods have got a pod's claims since it was last examined, or these are being bound.
    pub fn are_taken(&self, wanted: &Wanted, pod: &Name) -> bool {
        self.are_in_use(&wanted.exclusive, pod) || wanted.unbound.iter().any(|it| self.bindings.contains_key(it))
    }

    /// Whether one of these needs has no volume on any node.
    pub fn are_hopeless(&self, needs: &[Need]) -> bool {
        let provided = |it: &Need| it.claim.is_some() || self.class_of(&it.request).is_some_and(Class::has_provisioner);
        needs.iter().any(|it| !provided(it) && self.shelves.is_hopeless(&it.request))
    }

    /// A volume for each need, on a node; `None` stands for one to be provisioned.
    pub fn choose(&self, needs: &[Need], node: &NodeFacts) -> Option<Vec<Option<Box<str>>>> {
        let mut chosen: Vec<Option<&str>> = Vec::new();
        for Need { request, claim } in needs {
            let taken: Vec<&str> = chosen.iter().copied().flatten().collect();
            let volume = match claim.as_ref().and_then(|it| self.shelves.meant(self.claims.get(it)?)) {
                Some(meant) => Some(meant).filter(|it| storage::volume(it).is_usable_on(node)),
                None => self.shelves.find(request, node, &taken),
            };
            if volume.is_none() && !self.class_of(request).is_some_and(|it| it.provisions_on(node)) {
                return None;
            }
            chosen.push(volume.map(|it| it.name()));
        }
        Some(chosen.into_iter().map(|it| it.map(Into::into)).collect())
    }

    /// Pods whose claims are being bound, with their hosts.
    pub fn promised(&self) -> impl Iterator<Item = (&Name, &Arc<str>)> {
        self.bindings.values().filter(|it| !matches!(it.how, How::Release)).map(|it| (&it.pod, &it.host))
    }
}

fn is_exclusive(claim: &Object) -> bool {
    storage::claim(claim).asks.access_modes.iter().any(|it| &**it == EXCLUSIVE)
}
