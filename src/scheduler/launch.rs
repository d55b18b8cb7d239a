//! What Mesos is sent to launch a pod: the task, with the pod as data, annotated with where it was put and which host ports it has.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::limits::{self, Defaults};
use super::offers::Lot;
use super::placement::Placed;
use crate::mesos::v1::{AgentId, DiscoveryInfo, TaskId, TaskInfo, discovery_info::Visibility};
use crate::object::Object;
use crate::util::product::Product;

/// What launches have in common.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub product: &'static Product,
    pub limits: Defaults,
    /// `--mesos-generate-task-discovery`.
    pub discovery: bool,
}

/// The task of a placed pod.
///
/// # Errors
/// If the pod is not JSON of the shape of a pod.
pub fn task_info(id: &str, placed: &Placed, lot: &Lot, style: Style) -> Result<TaskInfo, serde_json::Error> {
    let pod = &placed.waiting.pod;
    let namespace = if pod.namespace().is_empty() { "default" } else { pod.namespace() };
    let executor = (*placed.executor).clone();
    let notes = [
        ("bindingHost", &*lot.host),
        ("taskId", id),
        ("slaveId", &*lot.agent),
        ("offerId", lot.offer_ids().next().unwrap_or_default()),
        ("executorId", &executor.executor_id.value),
    ];
    let data = annotated(pod, &notes, &placed.grant.chosen_ports, style)?;
    Ok(TaskInfo {
        name: format!("{}.{namespace}.pod", pod.name()),
        task_id: TaskId { value: id.to_owned() },
        agent_id: AgentId { value: lot.agent.to_string() },
        resources: placed.grant.resources.clone(),
        discovery: style.discovery.then(|| discovery(&data, namespace, style.product)),
        data: Some(Bytes::from(serde_json::to_vec(&data)?)),
        executor: Some(executor),
        ..TaskInfo::default()
    })
}

/// The pod as its executor gets it: limits filled in, host ports chosen, annotations set.
fn annotated(pod: &Object, notes: &[(&str, &str)], chosen: &[u16], style: Style) -> Result<Value, serde_json::Error> {
    let mut pod: Value = serde_json::from_slice(pod.body())?;
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    let note = |name: &str| style.product.annotation(name);
    let mut added: Vec<(String, String)> = notes.iter().map(|(name, value)| (note(name), (*value).to_owned())).collect();
    let mut chosen = chosen.iter();
    for container in containers(&mut pod) {
        limits::fill_in(container, style.limits);
        if container.get("startsBefore").is_some() {
            continue;
        }
        for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
            let host_port = match port.get("hostPort").and_then(Value::as_u64).filter(|it| *it > 0) {
                Some(named) => named,
                None => match chosen.next() {
                    Some(port) => u64::from(*port),
                    None => continue,
                },
            };
            port.insert("hostPort".to_owned(), host_port.into());
            let text = |key: &str| port.get(key).and_then(Value::as_str).filter(|it| !it.is_empty());
            let protocol = text("protocol").unwrap_or("TCP");
            let number = port.get("containerPort").and_then(Value::as_u64).unwrap_or_default();
            added.push((note(&format!("port_{protocol}_{number}")), host_port.to_string()));
            if let Some(name) = text("name") {
                added.push((note(&format!("portName_{protocol}_{name}")), host_port.to_string()));
            }
        }
    }
    let annotations = &mut pod["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = Value::Object(Map::new());
    }
    for (key, value) in added {
        annotations[key] = value.into();
    }
    Ok(pod)
}

fn discovery(pod: &Value, namespace: &str, product: &Product) -> DiscoveryInfo {
    let metadata = &pod["metadata"];
    let field = |name: &str| {
        let annotation = metadata["annotations"][product.annotation(&format!("discovery-{name}"))].as_str();
        annotation.or_else(|| metadata["labels"][name].as_str()).map(str::to_owned)
    };
    let visibility = match metadata["annotations"][product.annotation("discovery-visibility")].as_str() {
        Some("framework") => Visibility::Framework,
        Some("external") => Visibility::External,
        _ => Visibility::Cluster,
    };
    DiscoveryInfo {
        visibility: visibility.into(),
        name: field("name").map(|it| format!("{it}.{namespace}.pod")),
        environment: field("environment"),
        location: field("location"),
        version: field("version"),
        ..DiscoveryInfo::default()
    }
}
