//! The pod's status, computed from its machine: phase, conditions, container statuses. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
    PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pod::{Role, Seen, UnitView, View};
use crate::object::pod;
use crate::runtime::{Exit, State};

/// Bound in bytes of a termination message; three times this for all messages of a pod.
pub const MESSAGE_LIMIT: usize = 4096;

/// Inputs for the status beyond the machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The node's own address.
    pub ip: String,
    /// The engine's name, before `://` in container ids.
    pub engine: String,
}

/// Termination messages by container id.
pub type Messages = std::collections::BTreeMap<String, String>;

/// The pod's status now. Transition times of conditions that did not change are taken over from `last`. It has our conditions only.
pub fn pod_status(view: &View<'_>, host: &Host, messages: &Messages, last: Option<&PodStatus>, now: Timestamp) -> PodStatus {
    let phase = phase(view);
    let statuses = |init: bool| -> Vec<ContainerStatus> {
        let of_kind = view.units.iter().filter(|unit| (unit.unit.role != Role::Main) == init);
        of_kind.map(|unit| container_status(view, unit, host, messages)).collect()
    };
    let (init, main) = (statuses(true), statuses(false));
    let spec = view.pod.spec.as_ref();
    let ips = match view.sandbox {
        Some(_) if spec.and_then(|spec| spec.host_network) == Some(true) => vec![host.ip.clone()],
        Some(sandbox) => sandbox.container.ips.clone(),
        // A pod that has ended keeps its last address.
        None => last.and_then(|last| last.pod_ips.clone()).unwrap_or_default().into_iter().map(|ip| ip.ip).collect(),
    };
    PodStatus {
        conditions: Some(conditions(view, phase, last, now)),
        host_ip: Some(host.ip.clone()).filter(|ip| !ip.is_empty()),
        host_ips: Some(vec![HostIP { ip: host.ip.clone() }]).filter(|_| !host.ip.is_empty()),
        pod_ip: ips.first().cloned(),
        pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect::<Vec<_>>()).filter(|ips| !ips.is_empty()),
        init_container_statuses: Some(init).filter(|init| !init.is_empty()),
        container_statuses: Some(main),
        phase: Some(phase.to_owned()),
        qos_class: last.and_then(|last| last.qos_class.clone()).or_else(|| Some(qos_class(view.pod).to_owned())),
        reason: view.failed.map(|(reason, _)| reason.to_owned()),
        message: view.failed.map(|(_, message)| message.to_owned()),
        start_time: last.and_then(|last| last.start_time.clone()).or(Some(whole_seconds(now))),
        ..PodStatus::default()
    }
}

/// `metav1.Time` has whole seconds.
fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn phase(view: &View<'_>) -> &'static str {
    match view.outcome {
        Some(well) if view.failed.is_none() => return if well { "Succeeded" } else { "Failed" },
        Some(_) => return "Failed",
        None => {}
    }
    let main = || view.units.iter().filter(|unit| unit.unit.role == Role::Main);
    if view.ending && main().all(|unit| unit.newest.is_none_or(|seen| !seen.is_running())) && main().any(|unit| unit.over) {
        let well = main().all(|unit| unit.newest.and_then(Seen::exit).is_some_and(|exit| exit.code == 0));
        return if well { "Succeeded" } else { "Failed" };
    }
    // Every main container has been started, or at least tried; waiting for a restart changes nothing.
    let begun = |unit: &UnitView<'_>| unit.newest.is_some_and(|seen| seen.attempt > 0 || seen.container.state != State::Created);
    if view.initialized && main().all(begun) && main().next().is_some() { "Running" } else { "Pending" }
}

fn container_status(view: &View<'_>, unit: &UnitView<'_>, host: &Host, messages: &Messages) -> ContainerStatus {
    let spec = unit.unit.spec;
    let (state, last_state) = states(view, unit, host, messages);
    let newest = unit.newest;
    ContainerStatus {
        name: spec.name.clone(),
        image: newest.map_or_else(|| spec.image.clone().unwrap_or_default(), |seen| seen.container.image.clone()),
        image_id: newest.map(|seen| format!("{}://{}", host.engine, seen.container.image_id)).unwrap_or_default(),
        container_id: newest.map(|seen| container_id(host, seen)),
        ready: unit.ready,
        started: Some(unit.started),
        restart_count: newest.map_or(0, |seen| i32::try_from(seen.attempt).unwrap_or(i32::MAX)),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn container_id(host: &Host, seen: &Seen) -> String {
    format!("{}://{}", host.engine, seen.id())
}

/// The state now, and the last one before.
fn states(view: &View<'_>, unit: &UnitView<'_>, host: &Host, messages: &Messages) -> (ContainerState, Option<ContainerState>) {
    let ended = |seen: Option<&Seen>| {
        let (seen, exit) = seen.and_then(|seen| Some((seen, seen.exit()?)))?;
        let terminated = terminated(exit, container_id(host, seen), messages.get(seen.id()));
        Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() })
    };
    let wait = |reason: &str, message: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        }),
        ..ContainerState::default()
    };
    match (unit.newest.map(|seen| &seen.container.state), unit.waiting) {
        (Some(State::Running { started }), _) => {
            let running = ContainerStateRunning { started_at: Some(whole_seconds(*started)) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, ended(unit.previous))
        }
        (Some(State::Exited(_)), Some((reason, message))) => (wait(reason, message), ended(unit.newest)),
        (Some(State::Exited(_)), None) => (ended(unit.newest).unwrap_or_default(), ended(unit.previous)),
        (Some(State::Created) | None, Some((reason, message))) => (wait(reason, message), ended(unit.previous)),
        (Some(State::Created) | None, None) => {
            let has_init = view.units.iter().any(|unit| unit.unit.role != Role::Main);
            let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
            (wait(reason, ""), ended(unit.previous))
        }
    }
}

fn terminated(exit: &Exit, id: String, message: Option<&String>) -> ContainerStateTerminated {
    let reason = if exit.oom_killed {
        "OOMKilled"
    } else if !exit.error.is_empty() {
        "ContainerCannotRun"
    } else if exit.code == 0 {
        "Completed"
    } else {
        "Error"
    };
    let message = Some(exit.error.clone()).filter(|error| !error.is_empty()).or_else(|| message.cloned());
    ContainerStateTerminated {
        container_id: Some(id),
        exit_code: i32::try_from(exit.code).unwrap_or(-1),
        finished_at: Some(whole_seconds(exit.finished)),
        message,
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: Some(whole_seconds(exit.started)),
    }
}

fn conditions(view: &View<'_>, phase: &str, last: Option<&PodStatus>, now: Timestamp) -> Vec<PodCondition> {
    let old = last.and_then(|last| last.conditions.as_deref()).unwrap_or_default();
    // Controllers open readiness gates in the API.
    let others = view.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let containers = containers_ready(view, phase);
    let completed = Some(("PodCompleted".to_owned(), String::new())).filter(|_| phase == "Succeeded");
    let unfinished = || {
        let names: Vec<&str> =
            view.units.iter().filter(|unit| unit.unit.role == Role::Init && !unit.ready).map(|unit| &*unit.unit.spec.name).collect();
        ("ContainersNotInitialized".to_owned(), format!("containers with incomplete status: [{}]", names.join(" ")))
    };
    let initialized = view.initialized || phase == "Succeeded";
    let gates = view.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed: Vec<&str> = gates
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| !others.iter().any(|condition| condition.type_ == *gate && condition.status == "True"))
        .collect();
    let ready = match (&containers, closed.is_empty()) {
        (None, false) => {
            Some(("ReadinessGatesNotReady".to_owned(), format!("the status of pod readiness gate {:?} is not \"True\"", closed.join(", "))))
        }
        (containers, _) => containers.clone(),
    };
    let ours = [
        ("PodReadyToStartContainers", view.sandbox.is_some(), None),
        ("Initialized", initialized, if initialized { completed } else { Some(unfinished()) }),
        ("Ready", ready.is_none(), ready),
        ("ContainersReady", containers.is_none(), containers),
        ("PodScheduled", true, None),
    ];
    let condition = |(kind, holds, why): (&str, bool, Option<(String, String)>)| {
        let status = if holds { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(whole_seconds(now))),
            reason: why.as_ref().map(|(reason, _)| reason.clone()),
            message: why.map(|(_, message)| message).filter(|message| !message.is_empty()),
            ..PodCondition::default()
        }
    };
    ours.map(condition).into()
}

/// Why not all containers are ready; `None` if they are.
fn containers_ready(view: &View<'_>, phase: &str) -> Option<(String, String)> {
    match phase {
        "Succeeded" => return Some(("PodCompleted".to_owned(), String::new())),
        "Failed" => return Some(("PodFailed".to_owned(), String::new())),
        _ => {}
    }
    let relevant = view.units.iter().filter(|unit| unit.unit.role != Role::Init);
    let unready: Vec<&str> = relevant.filter(|unit| !unit.ready).map(|unit| &*unit.unit.spec.name).collect();
    if unready.is_empty() {
        return None;
    }
    Some(("ContainersNotReady".to_owned(), format!("containers with unready status: [{}]", unready.join(" "))))
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    let spec = pod.spec.as_ref();
    let containers = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    pod::qos_class(containers, |container, what, resource| {
        let resources = container.resources.as_ref()?;
        let amounts = if what == "limits" { &resources.limits } else { &resources.requests };
        amounts.as_ref()?.get(resource)?.0.parse().ok()
    })
}

/// A container's request or limit of a resource, if there is one above zero: thousandths of a CPU, or bytes.
pub fn amount(container: &Container, resource: &str, limit: bool) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    let map = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    let quantity: crate::util::quantity::Quantity = map?.get(resource)?.0.parse().ok()?;
    Some(if resource == "cpu" { quantity.millis() } else { quantity.value() }).filter(|amount| *amount > 0)
}
