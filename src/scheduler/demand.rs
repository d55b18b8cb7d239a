//! A pod's requirements for an agent, read from the pod once. Pods of one controller usually have equal requirements and share one
//! [`Demand`].

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::limits::{Defaults, Limits};
use super::storage::{Hold, Need, PodClaim, Wanted};
use super::taskid;
use crate::object::constraints::{Affinity, Constraints, Toleration};
use crate::object::pod::{MIRROR, has_ended};
use crate::object::{Name, Object};
use crate::util::product::Product;

/// All properties that decide whether an agent's offer fits. Equal demands fit the same agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Demand {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Thousandths of a megabyte.
    pub mem: u64,
    /// Thousandths of a GPU.
    pub gpus: u64,
    /// The host ports that the pod names, ascending.
    pub fixed_ports: Vec<u16>,
    /// The number of further host ports, of any number.
    pub any_ports: u32,
    /// The roles whose resources the pod may take, in order of preference. Empty: none.
    pub roles: Vec<Box<str>>,
    pub constraints: Constraints,
    /// The volumes that the pod gets where it is placed. Like `constraints.volumes`, added later from its claims.
    pub needs: Vec<Need>,
}

/// The configuration for reading pods.
#[derive(Clone, Debug)]
pub struct Rules {
    pub product: &'static Product,
    pub limits: Defaults,
    pub framework_roles: Vec<Box<str>>,
    pub default_pod_roles: Vec<Box<str>>,
    /// `--host-port-endpoints`: host ports that a pod leaves open are assigned, unless its label says otherwise.
    pub any_port_by_default: bool,
}

/// The properties of a pod that matter for scheduling.
#[derive(Clone, Debug)]
pub struct PodFacts {
    pub name: Name,
    pub uid: Box<str>,
    pub demand: Demand,
    pub priority: i32,
    /// Uid of the controller that made the pod; its pods are spread over agents.
    pub owner: Option<Box<str>>,
    pub node_name: Option<Box<str>>,
    /// Seconds, if the pod is being deleted.
    pub deleting: Option<i64>,
    /// Succeeded or Failed.
    pub ended: bool,
    /// The mirror of a static pod, which its executor has created; it is not scheduled.
    pub mirror: bool,
    /// `spec.schedulerName` names another scheduler.
    pub foreign: bool,
    /// The pod's task, if it was launched.
    pub binding: Option<Binding>,
    /// The claims of its volumes, each once.
    pub claims: Vec<PodClaim>,
    /// The claims that matter while the pod waits; added later from its claims.
    pub wanted: Wanted,
    /// Why the pod cannot be placed, regardless of offers.
    pub hold: Option<Hold>,
}

/// The annotations of a launched pod, by which its task is found again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub host: Box<str>,
    pub task: Box<str>,
    pub agent: Box<str>,
    pub offer: Box<str>,
}

const SCHEDULER_NAME: &str = "default-scheduler";

impl PodFacts {
    /// Reads a pod.
    ///
    /// # Errors
    /// If the object is not shaped like a pod.
    pub fn read(pod: &Object, rules: &Rules) -> Result<Self, serde_json::Error> {
        let wire: Wire<'_> = serde_json::from_slice(pod.body())?;
        let (meta, spec) = (pod.meta(), wire.spec);
        let notes = wire.metadata.annotations.unwrap_or_default();
        let note = |name: &str| notes.get(rules.product.annotation(name).as_str()).map(|it| Box::from(&**it));
        // Users can write annotations, too: only a task of this pod binds it.
        let task = note("taskId").filter(|it| taskid::is_of(it, &meta.uid));
        let binding = (|| Some(Binding { host: note("bindingHost")?, task: task?, agent: note("slaveId")?, offer: note("offerId")? }))();
        let wildcard = match meta.label(&rules.product.annotation("portMapping")) {
            Some("fixed") => false,
            Some("wildcard") => true,
            Some(other) => {
                tracing::warn!("pod {}: unknown port mapping {other:?}, taking the default", meta.name);
                rules.any_port_by_default
            }
            None => rules.any_port_by_default,
        };
        let (fixed_ports, any_ports) = ports(&spec, wildcard);
        let claims = claims(&meta.name, spec.volumes.as_deref().unwrap_or_default());
        let limits = sum(&spec, rules.limits);
        let affinity = spec.affinity.and_then(Affinity::terms);
        let mut selector: Vec<_> = spec.node_selector.unwrap_or_default().into_iter().collect();
        selector.sort_unstable();
        let demand = Demand {
            cpu: limits.cpu,
            mem: limits.mem,
            gpus: limits.gpus,
            fixed_ports,
            any_ports,
            roles: roles(note("roles").as_deref(), rules),
            constraints: Constraints {
                node_name: spec.node_name.as_deref().filter(|it| !it.is_empty()).map(Into::into),
                selector,
                affinity,
                tolerations: spec.tolerations.unwrap_or_default(),
                volumes: Vec::new(),
            },
            needs: Vec::new(),
        };
        Ok(Self {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            node_name: demand.constraints.node_name.clone(),
            demand,
            priority: spec.priority.unwrap_or_default(),
            owner: meta.controller().map(|owner| owner.uid.clone()),
            deleting: meta.is_deleted().then(|| meta.deletion_grace_seconds.unwrap_or_default()),
            ended: has_ended(pod),
            mirror: notes.contains_key(MIRROR),
            foreign: spec.scheduler_name.is_some_and(|it| !it.is_empty() && it != SCHEDULER_NAME && it != rules.product.scheduler_service),
            binding,
            claims,
            wanted: Wanted::default(),
            hold: spec.scheduling_gates.is_some_and(|it| !it.is_empty()).then_some(Hold::Gated),
        })
    }
}

fn claims(pod: &Name, volumes: &[Volume<'_>]) -> Vec<PodClaim> {
    let mut claims: Vec<PodClaim> = Vec::new();
    for volume in volumes {
        let (name, is_own) = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => (Name::new(&pod.namespace, &claim.claim_name), false),
            (None, Some(_)) => (Name::new(&pod.namespace, &format!("{}-{}", pod.name, volume.name)), true),
            (None, None) => continue,
        };
        if !claims.iter().any(|it| it.name == name) {
            claims.push(PodClaim { name, is_own });
        }
    }
    claims
}

/// The roles in the annotation that the framework has, without blanks and repetitions; without the annotation, the default roles.
fn roles(annotation: Option<&str>, rules: &Rules) -> Vec<Box<str>> {
    let Some(text) = annotation else { return rules.default_pod_roles.clone() };
    let mut roles: Vec<Box<str>> = Vec::new();
    for role in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        if rules.framework_roles.iter().any(|it| **it == *role) && !roles.iter().any(|it| **it == *role) {
            roles.push(role.into());
        }
    }
    roles
}

/// The named host ports, and the number of ports to assign. A port that TCP and UDP share counts once, because Mesos does not distinguish
/// them.
fn ports(spec: &Spec<'_>, wildcard: bool) -> (Vec<u16>, u32) {
    let mut fixed = BTreeSet::new();
    let mut any = 0;
    for port in spec.containers.iter().chain(spec.sidecars()).flat_map(|it| it.ports.iter().flatten()) {
        match port.host_port {
            Some(named) if named > 0 => {
                fixed.insert(named);
            }
            _ if wildcard => any += 1,
            _ => {}
        }
    }
    (fixed.into_iter().collect(), any)
}

/// The sum of the containers, or the largest init container if that is more, plus the overhead of the RuntimeClass. Init containers run one
/// at a time, on top of the sidecars before them.
fn sum(spec: &Spec<'_>, defaults: Defaults) -> Limits {
    let of = |container: &Container| Limits::of(container.resources.as_ref().unwrap_or(&Value::Null), defaults);
    let (mut held, mut peak) = (Limits::default(), Limits::default());
    for container in spec.init_containers.iter().flatten() {
        if container.is_sidecar() {
            held = held.plus(of(container));
            peak = peak.max(held);
        } else {
            peak = peak.max(held.plus(of(container)));
        }
    }
    let containers = spec.containers.iter().fold(held, |total, container| total.plus(of(container))).max(peak);
    containers.plus(Limits::overhead(spec.overhead.as_ref().unwrap_or(&Value::Null)))
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct WireMeta<'a> {
    #[serde(borrow, default)]
    annotations: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Option<Vec<Container>>,
    #[serde(borrow, default)]
    node_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    scheduler_name: Option<Cow<'a, str>>,
    #[serde(default)]
    node_selector: Option<HashMap<Box<str>, Box<str>>>,
    #[serde(default)]
    affinity: Option<Affinity>,
    #[serde(default)]
    tolerations: Option<Vec<Toleration>>,
    #[serde(default)]
    priority: Option<i32>,
    #[serde(borrow, default)]
    volumes: Option<Vec<Volume<'a>>>,
    #[serde(default)]
    overhead: Option<Value>,
    #[serde(default)]
    scheduling_gates: Option<Vec<IgnoredAny>>,
}

/// Only volumes of claims matter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    persistent_volume_claim: Option<ClaimSource<'a>>,
    #[serde(default)]
    ephemeral: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource<'a> {
    #[serde(borrow)]
    claim_name: Cow<'a, str>,
}

impl Spec<'_> {
    fn sidecars(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().flatten().filter(|it| it.is_sidecar())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    resources: Option<Value>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    restart_policy: Option<Box<str>>,
}

impl Container {
    /// An init container that keeps running beside the others.
    fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    host_port: Option<u16>,
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::object::resource;
    use crate::util::product::KUBERNETES;

    pub(in crate::scheduler) fn rules() -> Rules {
        let roles = vec![Box::from("*"), Box::from("public")];
        Rules {
            product: KUBERNETES,
            limits: Defaults::default(),
            framework_roles: roles.clone(),
            default_pod_roles: roles,
            any_port_by_default: true,
        }
    }

    pub(in crate::scheduler) fn object(pod: &Value) -> Arc<Object> {
        Object::from_stored(&resource::POD, pod.to_string().as_bytes(), 1).unwrap()
    }

    fn read(pod: &Value) -> PodFacts {
        PodFacts::read(&object(pod), &rules()).unwrap()
    }

    #[test]
    fn containers_add_up_and_init_containers_peak() {
        let cpu = |it: &str| json!({"limits": {"cpu": it}});
        let facts = read(&json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": cpu("100m")},
                {"name": "i", "resources": cpu("2")}],
            "containers": [{"name": "b", "resources": cpu("500m")}, {"name": "c"}]}}));
        assert_eq!(facts.demand.cpu, 2100);
        assert_eq!(facts.demand.mem, 3 * 64_000);
    }

    #[test]
    fn the_overhead_of_a_runtime_class_comes_on_top() {
        let facts = read(&json!({"metadata": {"name": "a"}, "spec": {
            "overhead": {"cpu": "5m", "memory": "128Mi", "ephemeral-storage": "1Gi"},
            "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "2"}}}],
            "containers": [{"name": "b", "resources": {"limits": {"cpu": "1", "memory": "100Mi"}}}]}}));
        assert_eq!((facts.demand.cpu, facts.demand.mem), (2005, 228_000));
    }

    #[test]
    fn ports_are_named_or_left_to_choose() {
        let pod = |label: &str| {
            read(&json!({"metadata": {"name": "a", "labels": {"k8s.mesosphere.io/portMapping": label}}, "spec": {"containers": [
                {"name": "b", "ports": [{"containerPort": 53, "hostPort": 53}, {"containerPort": 53, "protocol": "UDP", "hostPort": 53},
                    {"containerPort": 80}, {"containerPort": 81, "hostPort": 0}]}]}}))
            .demand
        };
        assert_eq!((pod("wildcard").fixed_ports, pod("wildcard").any_ports), (vec![53], 2));
        assert_eq!((pod("fixed").fixed_ports, pod("fixed").any_ports), (vec![53], 0));
        assert_eq!(pod("odd").any_ports, 2);
    }

    #[test]
    fn roles_are_those_the_framework_has() {
        let pod = |roles: &str| {
            read(&json!({"metadata": {"name": "a", "annotations": {"k8s.mesosphere.io/roles": roles}}, "spec": {}})).demand.roles
        };
        assert_eq!(pod(" public ,, other,public,*"), [Box::from("public"), Box::from("*")]);
        assert_eq!(pod("other"), []);
    }

    #[test]
    fn claims_are_named_or_brought() {
        let facts = read(&json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"volumes": [
            {"name": "u", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "v", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "w", "ephemeral": {"volumeClaimTemplate": {}}}, {"name": "x", "emptyDir": {}}]}}));
        let claims: Vec<_> = facts.claims.iter().map(|it| (&*it.name.name, it.is_own)).collect();
        assert_eq!(claims, [("c", false), ("a-w", true)]);
    }

    #[test]
    fn bindings_and_exceptions_are_seen() {
        let facts = read(&json!({"metadata": {"name": "a", "annotations": {"kubernetes.io/config.mirror": ""}},
            "spec": {"schedulerName": "mine", "nodeName": "h"}, "status": {"phase": "Failed"}}));
        assert!(facts.mirror && facts.foreign && facts.ended && facts.node_name.as_deref() == Some("h"));
        let task = taskid::task_id("u", 1);
        let bound = |uid: &str| {
            read(&json!({"metadata": {"name": "a", "uid": uid, "annotations": {"k8s.mesosphere.io/bindingHost": "h",
                "k8s.mesosphere.io/taskId": task, "k8s.mesosphere.io/slaveId": "a", "k8s.mesosphere.io/offerId": "o"}}, "spec": {}}))
            .binding
        };
        let binding = Binding { host: "h".into(), task: task.as_str().into(), agent: "a".into(), offer: "o".into() };
        assert_eq!((bound("u"), bound("of-a-copy")), (Some(binding), None));
    }
}
