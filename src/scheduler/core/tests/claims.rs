//! Pods with claims: held back, placed where their volumes are, and launched once their claims are bound.

use super::*;
use crate::object::ResourceRef;
use crate::object::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
use crate::object::storage::{BIND_COMPLETED, NO_PROVISIONER, SELECTED_NODE};

const HOSTNAME: &str = "kubernetes.io/hostname";

fn stored(resource: ResourceRef, object: &Value, revision: Revision) -> Arc<Object> {
    Object::from_stored(resource, object.to_string().as_bytes(), revision).unwrap()
}

/// A claim of class `local`, which has no provisioner, with changes.
fn claim(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut claim = json!({"metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}"), "annotations": {}},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"}});
    change(&mut claim);
    claim
}

fn bound_to(volume: &str) -> impl FnOnce(&mut Value) {
    move |claim| {
        claim["metadata"]["annotations"] = json!({BIND_COMPLETED: "yes"});
        claim["spec"]["volumeName"] = volume.into();
        claim["status"]["phase"] = "Bound".into();
    }
}

/// A local disk of a host.
fn volume(name: &str, host: &str, claim: Option<&str>) -> Value {
    let term = json!({"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [host]}]});
    let reference = claim.map(|it| json!({"namespace": "n", "name": it, "uid": format!("uid-{it}")}));
    let phase = if claim.is_some() { "Bound" } else { "Available" };
    json!({"metadata": {"name": name, "uid": name}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local", "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}, "claimRef": reference},
        "status": {"phase": phase}})
}

fn class(name: &str, provisioner: &str, topologies: Value) -> Input {
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": topologies});
    Input::Class(stored(&STORAGE_CLASS, &class, 1))
}

fn user(name: &str, claim: &str) -> Input {
    Input::Pod(pod(name, |pod| pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}])))
}

impl Bench {
    fn claim(&mut self, claim: &Value, revision: Revision) {
        self.input(Input::Claim(stored(&PERSISTENT_VOLUME_CLAIM, claim, revision)));
    }

    fn volume(&mut self, volume: &Value, revision: Revision) {
        self.input(Input::Volume(stored(&PERSISTENT_VOLUME, volume, revision)));
    }

    fn offers(&mut self, agents: &[&str]) {
        for agent in agents {
            let id = format!("o-{agent}-{:?}", self.now);
            self.offer(offer(&id, agent, 4000));
        }
    }

    /// The launches since the last time, as `pod@agent`.
    fn launched(&mut self) -> Vec<String> {
        let launches = self.calls().into_iter().filter_map(|call| call.accept).flat_map(|it| it.operations).filter_map(|it| it.launch);
        launches.flat_map(|it| it.task_infos).map(|it| format!("{}@{}", it.name.split('.').next().unwrap(), it.agent_id.value)).collect()
    }

    /// The writes since the last time; other actions are kept.
    fn writes(&mut self) -> Vec<Write> {
        let (writes, rest) = std::mem::take(&mut self.done).into_iter().partition(|it| matches!(it, Action::Bind(_)));
        self.done = rest;
        let write = |action| if let Action::Bind(write) = action { Some(write) } else { None };
        Vec::into_iter(writes).filter_map(write).collect()
    }

    fn written(&mut self, write: &Write, at: Option<Revision>) {
        self.input(Input::Bound { claim: write.claim().meta().name.clone(), serial: write.serial(), at });
    }

    /// The message to be written into the pod's condition.
    fn marked(&mut self) -> Option<String> {
        self.done.clear();
        self.wait(S * 3);
        let message = |action: &Action| if let Action::MarkUnschedulable { message, .. } = action { Some(message.clone()) } else { None };
        self.done.iter().find_map(message)
    }
}

/// A write as a short text: `claim <- volume`, `claim @ host`, `claim @`.
fn brief(write: &Write) -> String {
    let claim = write.claim().name();
    match write {
        Write::Reserve { volume, .. } => format!("{claim} <- {}", volume.name()),
        Write::Select { host, .. } => format!("{claim} @ {host}"),
        Write::Unselect { .. } => format!("{claim} @"),
    }
}

fn with_node(claim: Value, host: &str) -> Value {
    let mut claim = claim;
    claim["metadata"]["annotations"][SELECTED_NODE] = host.into();
    claim
}

#[test]
fn pods_are_held_back_for_their_claims() {
    let immediate = |claim: &mut Value| claim["spec"]["storageClassName"] = "immediate".into();
    let lost = |claim: &mut Value| (claim["status"]["phase"], claim["spec"]["volumeName"]) = ("Lost".into(), "v".into());
    let deleted = |claim: &mut Value| claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let named = |claim: &mut Value| claim["spec"]["volumeName"] = "v".into();
    for (claim, message) in [
        (None, "persistentvolumeclaim \"c\" not found."),
        (Some(claim("c", immediate)), "pod has unbound immediate PersistentVolumeClaims."),
        (Some(claim("c", named)), "pod has unbound immediate PersistentVolumeClaims."),
        (Some(claim("c", lost)), "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\"."),
        (Some(claim("c", deleted)), "persistentvolumeclaim \"c\" is being deleted."),
        (Some(claim("c", bound_to("v"))), "1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)."),
    ] {
        let mut bench = Bench::subscribed();
        bench.input(class("local", NO_PROVISIONER, Value::Null));
        claim.into_iter().for_each(|it| bench.claim(&it, 1));
        bench.input(user("p", "c"));
        bench.offers(&["a"]);
        assert_eq!((bench.launched(), bench.core.queue.ready()), (Vec::new(), 0));
        assert_eq!(bench.marked(), Some(format!("0/1 nodes are available: {message}")));
        assert_eq!(bench.marked(), None, "once");
        // The pod is released.
        bench.volume(&volume("v", "host-a", Some("c")), 2);
        bench.claim(&super::claims::claim("c", bound_to("v")), 3);
        bench.offers(&["a"]);
        assert_eq!(bench.launched(), ["p@a"], "{message}");
    }
}

#[test]
fn a_volume_says_where_its_pod_goes() {
    let mut bench = Bench::subscribed();
    bench.volume(&volume("v", "host-b", Some("c")), 1);
    bench.claim(&claim("c", bound_to("v")), 1);
    bench.input(user("p", "c"));
    bench.offers(&["a"]);
    assert_eq!(bench.launched(), Vec::<String>::new());
    let waiting = bench.core.queue.get(&Name::new("n", "p")).unwrap();
    assert_eq!(waiting.demand.constraints.volumes.len(), 1);
    bench.offers(&["b"]);
    assert_eq!(bench.launched(), ["p@b"]);
}

#[test]
fn a_claim_gets_a_volume_where_its_pod_is_placed() {
    let mut bench = Bench::subscribed();
    bench.input(class("local", NO_PROVISIONER, Value::Null));
    bench.claim(&claim("c", |_| ()), 1);
    bench.volume(&volume("v", "host-b", None), 1);
    bench.input(user("p", "c"));
    bench.offers(&["a"]);
    assert!(bench.writes().is_empty());
    bench.offers(&["b"]);
    let writes = bench.writes();
    assert_eq!(writes.iter().map(brief).collect::<Vec<_>>(), ["c <- v"]);
    assert_eq!(bench.launched(), Vec::<String>::new(), "not before the claim is bound");
    assert_eq!(bench.marked(), None, "that is nothing to tell");
    bench.written(&writes[0], Some(2));
    bench.volume(&volume("v", "host-b", Some("c")), 2);
    bench.claim(&claim("c", bound_to("v")), 3);
    bench.offers(&["b"]);
    assert_eq!(bench.launched(), ["p@b"]);
    assert_eq!(bench.core.storage.next_due(), None);
}

#[test]
fn two_pods_do_not_get_one_volume() {
    let mut bench = Bench::subscribed();
    bench.input(class("local", NO_PROVISIONER, Value::Null));
    for name in ["c", "d"] {
        bench.claim(&claim(name, |_| ()), 1);
        bench.input(user(&format!("p-{name}"), name));
    }
    bench.volume(&volume("v", "host-a", None), 1);
    bench.offers(&["a"]);
    let writes = bench.writes();
    assert_eq!(writes.iter().map(brief).collect::<Vec<_>>(), ["c <- v"]);
    // Another claim got the volume first.
    bench.volume(&volume("v", "host-a", Some("x")), 2);
    bench.written(&writes[0], None);
    assert!(bench.writes().is_empty());
    bench.volume(&volume("w", "host-a", None), 3);
    let writes = bench.writes();
    assert_eq!(writes.iter().map(brief).collect::<Vec<_>>(), ["d <- w"], "the other is not to try again at once");
    // The reservation is undone.
    bench.written(&writes[0], Some(5));
    bench.volume(&volume("w", "host-a", None), 4);
    bench.wait(S * 2);
    assert!(bench.writes().is_empty(), "that was before");
    bench.volume(&volume("w", "host-a", Some("y")), 6);
    bench.offers(&["a"]);
    let told = bench.marked().unwrap();
    assert!(told.ends_with("node(s) didn't find available persistent volumes to bind"), "{told}");
    bench.volume(&volume("w", "host-a", None), 7);
    bench.offers(&["a"]);
    assert_eq!(bench.writes().len(), 1);
}

#[test]
fn provisioners_are_told_the_node() {
    let mut bench = Bench::subscribed();
    let zone = json!([{"matchLabelExpressions": [{"key": HOSTNAME, "values": ["host-b", "host-c"]}]}]);
    bench.input(class("local", "example.com/disk", zone));
    bench.claim(&claim("c", |_| ()), 1);
    bench.input(user("p", "c"));
    bench.offers(&["a", "b"]);
    let writes = bench.writes();
    assert_eq!(writes.iter().map(brief).collect::<Vec<_>>(), ["c @ host-b"]);
    bench.written(&writes[0], Some(3));
    bench.claim(&claim("c", |_| ()), 2);
    bench.claim(&with_node(claim("c", |_| ()), "host-b"), 3);
    assert!(bench.writes().is_empty());
    // The provisioner refuses, this time.
    bench.claim(&claim("c", |_| ()), 4);
    assert!(bench.writes().is_empty(), "not at once");
    bench.wait(S * 2);
    let writes = bench.writes();
    assert_eq!(writes.iter().map(brief).collect::<Vec<_>>(), ["c @ host-b"]);
    bench.written(&writes[0], Some(5));
    bench.claim(&with_node(claim("c", |_| ()), "host-b"), 5);
    // No progress.
    bench.done.clear();
    bench.wait(BIND_TIMEOUT - S * 5);
    assert!(bench.writes().is_empty());
    bench.wait(S * 10);
    let writes = bench.writes();
    assert_eq!(writes.iter().map(brief).collect::<Vec<_>>(), ["c @"]);
    let late = |action: &Action| matches!(action, Action::Tell { message, .. } if message.starts_with("binding volumes"));
    assert!(bench.done.iter().any(late));
    bench.written(&writes[0], None);
    bench.wait(S * 3);
    assert_eq!(bench.writes().iter().map(brief).collect::<Vec<_>>(), ["c @"], "tried again");
    bench.offers(&["b"]);
    assert!(bench.writes().is_empty(), "not before it is taken off");
    bench.claim(&claim("c", |_| ()), 6);
    assert_eq!(bench.writes().iter().map(brief).collect::<Vec<_>>(), ["c @ host-b"]);
    // The node is deleted.
    bench.claim(&with_node(claim("c", |_| ()), "host-b"), 7);
    bench.input(Input::NodeGone("host-b".into()));
    assert_eq!(bench.writes().iter().map(brief).collect::<Vec<_>>(), ["c @"]);
}

#[test]
fn what_an_earlier_run_began_is_waited_for() {
    let mut bench = Bench::new(false);
    bench.input(class("local", "example.com/disk", Value::Null));
    bench.claim(&with_node(claim("c", |_| ()), "host-b"), 1);
    bench.input(user("p", "c"));
    bench.input(Input::Subscribed("f".to_owned()));
    bench.offers(&["a", "b"]);
    assert!(bench.writes().is_empty() && bench.launched().is_empty());
    bench.volume(&volume("v", "host-b", Some("c")), 2);
    bench.claim(&claim("c", bound_to("v")), 3);
    assert_eq!(bench.launched(), ["p@b"]);
}

#[test]
fn room_is_kept_while_claims_are_bound() {
    let mut bench = Bench::subscribed();
    bench.input(class("local", NO_PROVISIONER, Value::Null));
    bench.claim(&claim("c", |_| ()), 1);
    bench.volume(&volume("v", "host-a", None), 1);
    let large = |pod: &mut Value| pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "2".into();
    bench.input(Input::Pod(pod("p", |pod| {
        pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        large(pod);
    })));
    bench.offers(&["a"]);
    assert_eq!(bench.writes().len(), 1);
    bench.input(Input::Pod(pod("other", large)));
    assert_eq!(bench.launched(), Vec::<String>::new());
    bench.volume(&volume("v", "host-a", Some("c")), 2);
    bench.claim(&claim("c", bound_to("v")), 3);
    assert_eq!(bench.launched(), ["p@a"]);
}

#[test]
fn pods_with_claims_alike_are_placed_in_one_round() {
    let mut bench = Bench::subscribed();
    bench.input(class("local", NO_PROVISIONER, Value::Null));
    for name in ["v1", "v2", "v3"] {
        bench.volume(&volume(name, "host-b", None), 1);
    }
    for (name, of) in [("p", "c"), ("also-p", "c"), ("q", "d"), ("r", "e")] {
        bench.claim(&claim(of, |_| ()), 1);
        bench.input(Input::Pod(pod(name, |pod| {
            pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": of}}]);
            pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1500m".into();
        })));
    }
    let both = ["a", "b"].map(|agent| offer(&format!("o-{agent}"), agent, 4000));
    let offers = Some(event::Offers { offers: both.into() });
    bench.input(Input::Event(Box::new(Event { r#type: Some(event::Type::Offers.into()), offers, ..Event::default() })));
    let writes: Vec<_> = bench.writes().iter().map(brief).collect();
    assert_eq!(writes, ["c <- v1", "d <- v2"], "a claim is bound once, and there is no room for a third pod");
}

#[test]
fn some_claims_are_for_one_pod_at_a_time() {
    let mut bench = Bench::subscribed();
    let exclusive = |claim: &mut Value| {
        claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
        bound_to("v")(claim);
    };
    bench.volume(&volume("v", "host-a", Some("c")), 1);
    bench.claim(&claim("c", exclusive), 1);
    for name in ["p", "q"] {
        bench.input(user(name, "c"));
    }
    bench.offers(&["a"]);
    assert_eq!(bench.launched(), ["p@a"]);
    let told = bench.marked().unwrap();
    assert!(told.ends_with("1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."), "{told}");
    let Input::Pod(gone) = user("p", "c") else { unreachable!() };
    bench.input(Input::PodGone(gone));
    bench.done.clear();
    bench.offers(&["a"]);
    assert_eq!(bench.launched(), ["q@a"]);
}

#[test]
fn a_pod_waits_for_the_claim_that_it_brings() {
    let mut bench = Bench::subscribed();
    bench.volume(&volume("v", "host-a", Some("p-v")), 1);
    bench.input(Input::Pod(pod("p", |pod| pod["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]))));
    let message = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\".";
    assert_eq!(bench.marked(), Some(format!("0/0 nodes are available: {message}")));
    bench.claim(&claim("p-v", bound_to("v")), 1);
    let message = "PVC n/p-v was not created for pod n/p (pod is not owner).";
    assert_eq!(bench.marked(), Some(format!("0/0 nodes are available: {message}")));
    let own = |claim: &mut Value| {
        bound_to("v")(claim);
        claim["metadata"]["ownerReferences"] = json!([{"uid": "uid-p", "controller": true}]);
    };
    bench.claim(&claim("p-v", own), 2);
    bench.offers(&["a"]);
    assert_eq!(bench.launched(), ["p@a"]);
}
