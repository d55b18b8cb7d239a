//! Pods and pod templates.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus, PodTemplate,
};

use super::row::{NONE, Row};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::pod::is_final;
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::POD,
        columns: &[
            NAME,
            Column::text("Ready", "Containers that are ready, of those that the pod has."),
            Column::text("Status", "What the pod is doing, or what keeps it from running."),
            Column::text("Restarts", "How often containers of the pod were restarted, and when last."),
            AGE,
            Column::text("IP", "Address of the pod.").wide(),
            Column::text("Node", "The node that runs the pod.").wide(),
            Column::text("Nominated Node", "The node that is being made free for the pod.").wide(),
            Column::text("Readiness Gates", "Conditions from outside that are met, of those the pod's readiness waits for.").wide(),
        ],
        cells: |object, row| named(object, row, pod),
    },
    Printer {
        resource: &resource::POD_TEMPLATE,
        columns: &[
            NAME,
            Column::text("Containers", "Names of the template's containers."),
            Column::text("Images", "Images of the template's containers."),
            Column::text("Pod Labels", "Labels of pods made from the template."),
        ],
        cells: |object, row| named(object, row, pod_template),
    },
];

const SUCCEEDED: &str = r#"[{"type":"Completed","status":"True","reason":"Succeeded","message":"The pod has completed successfully."}]"#;
const FAILED: &str = r#"[{"type":"Completed","status":"True","reason":"Failed","message":"The pod failed."}]"#;

fn pod(pod: &Pod, row: &mut Row<'_>) {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let (spec, status) = (pod.spec.as_ref().unwrap_or(&no_spec), pod.status.as_ref().unwrap_or(&no_status));
    match status.phase.as_deref() {
        Some("Succeeded") => row.condition(SUCCEEDED),
        Some("Failed") => row.condition(FAILED),
        _ => {}
    }
    let summary = Summary::of(pod, spec, status);
    row.text(format!("{}/{}", summary.ready, summary.total));
    row.text(&summary.status);
    match summary.restarts {
        Restarts { count, last: Some(last) } if count > 0 => row.text(format!("{count} ({} ago)", row.age_of(Some(last)))),
        Restarts { count, .. } => row.text(count.to_string()),
    }
    row.created();
    let address = status.pod_ips.iter().flatten().map(|it| it.ip.as_str()).next().or(status.pod_ip.as_deref());
    row.text_or(address, NONE);
    row.text_or(spec.node_name.as_deref(), NONE);
    row.text_or(status.nominated_node_name.as_deref(), NONE);
    match spec.readiness_gates.as_deref().unwrap_or_default() {
        [] => row.text(NONE),
        gates => {
            let met = gates.iter().filter(|gate| condition(status, &gate.condition_type)).count();
            row.text(format!("{met}/{}", gates.len()));
        }
    }
}

fn pod_template(template: &PodTemplate, row: &mut Row<'_>) {
    let inner = template.template.as_ref();
    row.containers(inner.and_then(|it| it.spec.as_ref()));
    row.labels(inner.and_then(|it| it.metadata.as_ref()).and_then(|it| it.labels.as_ref()).into_iter().flatten());
}

/// The state of a pod's containers as one word and two numbers.
struct Summary {
    status: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += container.restart_count;
        let last = container.last_state.as_ref().and_then(|it| it.terminated.as_ref()).and_then(|it| it.finished_at.as_ref());
        self.last = self.last.max(last.map(|it| it.0));
    }
}

impl Summary {
    fn of(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Self {
        let phase = status.phase.as_deref().unwrap_or_default();
        let set = |text: &Option<String>| text.clone().filter(|it| !it.is_empty());
        let mut summary = Self {
            status: set(&status.reason).unwrap_or_else(|| phase.to_owned()),
            ready: 0,
            total: spec.containers.len() + spec.init_containers.iter().flatten().filter(|it| is_sidecar(it)).count(),
            restarts: Restarts::default(),
        };
        let gated =
            |it: &&k8s_openapi::api::core::v1::PodCondition| it.type_ == "PodScheduled" && it.reason.as_deref() == Some("SchedulingGated");
        if status.conditions.iter().flatten().find(gated).is_some() {
            summary.status = "SchedulingGated".to_owned();
        }
        let (initialising, sidecars) = summary.init_containers(spec, status);
        if !initialising || condition(status, "Initialized") {
            summary.restarts = sidecars;
            summary.containers(status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if status.reason.as_deref() == Some("NodeLost") {
                summary.status = "Unknown".to_owned();
            } else if !is_final(phase) {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Processes the init containers; returns whether one has yet to finish, and the restarts of sidecars.
    fn init_containers(&mut self, spec: &PodSpec, status: &PodStatus) -> (bool, Restarts) {
        let declared = spec.init_containers.as_deref().unwrap_or_default();
        let mut sidecars = Restarts::default();
        for (at, container) in status.init_container_statuses.iter().flatten().enumerate() {
            let sidecar = declared.iter().any(|it| it.name == container.name && is_sidecar(it));
            self.restarts.add(container);
            if sidecar {
                sidecars.add(container);
            }
            let state = container.state.as_ref();
            let waiting = state.and_then(|it| it.waiting.as_ref()).and_then(|it| it.reason.as_deref()).unwrap_or_default();
            let terminated = state.and_then(|it| it.terminated.as_ref());
            if terminated.is_some_and(|it| it.exit_code == 0) {
                continue;
            }
            if sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            }
            self.status = match terminated {
                Some(terminated) => format!("Init:{}", why_terminated(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{at}/{}", declared.len()),
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    fn containers(&mut self, status: &PodStatus) {
        let mut running = false;
        for container in status.container_statuses.iter().flatten().rev() {
            self.restarts.add(container);
            let no_state = ContainerState::default();
            let state = container.state.as_ref().unwrap_or(&no_state);
            match state.waiting.as_ref().and_then(|it| it.reason.as_deref()) {
                Some(reason) if !reason.is_empty() => self.status = reason.to_owned(),
                _ => match &state.terminated {
                    Some(terminated) => self.status = why_terminated(terminated),
                    None if container.ready && state.running.is_some() => {
                        running = true;
                        self.ready += 1;
                    }
                    None => {}
                },
            }
        }
        if self.status == "Completed" && running {
            self.status = if condition(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn why_terminated(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref(), terminated.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated.exit_code),
    }
}

/// Whether an init container keeps running beside the others.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn condition(status: &PodStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|it| it.type_ == kind && it.status == "True")
}
