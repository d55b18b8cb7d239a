//! The task that launches a pod: it carries the pod as data, with annotations for its place and its host ports.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::limits::{self, Defaults};
use super::offers::Lot;
use super::placement::Placed;
use crate::mesos::v1::{AgentId, DiscoveryInfo, TaskId, TaskInfo, discovery_info::Visibility};
use crate::object::Object;
use crate::util::product::Product;

/// The common configuration of launches.
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
/// If the pod does not have the JSON structure of a pod.
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

/// The pod for its executor: with limits, host ports and annotations.
fn annotated(pod: &Object, notes: &[(&str, &str)], chosen: &[u16], style: Style) -> Result<Value, serde_json::Error> {
    let mut pod: Value = serde_json::from_slice(pod.body())?;
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    let note = |name: &str| style.product.annotation(name);
    let mut added: Vec<(String, String)> = notes.iter().map(|(name, value)| (note(name), (*value).to_owned())).collect();
    let mut chosen = chosen.iter();
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"][list].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
        for container in containers {
            limits::fill_in(container, style.limits);
            // Of init containers only sidecars have ports, as in the demand.
            let runs_on = list == "containers" || container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            let ports = container.get_mut("ports").and_then(Value::as_array_mut).filter(|_| runs_on);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                let named = port.get("hostPort").and_then(Value::as_u64).filter(|it| *it > 0);
                let Some(host_port) = named.or_else(|| chosen.next().map(|it| u64::from(*it))) else { continue };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::mesos::v1::ExecutorInfo;
    use crate::scheduler::demand::{
        PodFacts,
        tests::{object, rules},
    };
    use crate::scheduler::offers::{Book, tests::offer};
    use crate::scheduler::placement::Placed;
    use crate::scheduler::queue::Queue;
    use crate::scheduler::resources::{ExecutorCost, Ledger};
    use std::time::Duration;

    fn launched(pod: &Value, discovery: bool) -> TaskInfo {
        let pod = object(pod);
        let mut queue = Queue::new(Duration::ZERO, Duration::ZERO);
        let facts = PodFacts::read(&pod, &rules()).unwrap();
        let name = facts.name.clone();
        let mut book = Book::default();
        let slot = book.add(offer("o1", "a1", 4000), None, Duration::ZERO).unwrap();
        let mut ledger: Ledger = book.lot(slot).unwrap().ledger.clone();
        let grant = ledger.take(&facts.demand, ExecutorCost::default(), &rules().framework_roles).unwrap();
        queue.put(Duration::ZERO, facts, pod);
        let executor = Arc::new(ExecutorInfo { executor_id: "e1".into(), ..ExecutorInfo::default() });
        let placed = Placed { waiting: queue.remove(&name).unwrap(), grant, executor };
        let style = Style { product: rules().product, limits: rules().limits, discovery };
        task_info("t1", &placed, book.lot(slot).unwrap(), style).unwrap()
    }

    #[test]
    fn the_pod_travels_with_its_annotations_and_ports() {
        let task = launched(
            &json!({"metadata": {"name": "web", "namespace": "n", "annotations": {"mine": "1"}}, "spec": {"unheard": {"of": [1]},
                "initContainers": [{"name": "i", "ports": [{"containerPort": 1}]}],
                "containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http"},
                    {"containerPort": 53, "protocol": "UDP", "hostPort": 31_500}, {"containerPort": 81}]}]}}),
            false,
        );
        assert_eq!((task.name.as_str(), task.task_id.value.as_str(), task.agent_id.value.as_str()), ("web.n.pod", "t1", "a1"));
        assert_eq!(task.discovery, None);
        let data: Value = serde_json::from_slice(&task.data.unwrap()).unwrap();
        let annotations: Vec<_> = data["metadata"]["annotations"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| format!("{}={}", key.trim_start_matches("k8s.mesosphere.io/"), value.as_str().unwrap()))
            .collect();
        let expected = [
            "bindingHost=host-a1",
            "executorId=e1",
            "offerId=o1",
            "portName_TCP_http=31000",
            "port_TCP_80=31000",
            "port_TCP_81=31001",
            "port_UDP_53=31500",
            "slaveId=a1",
            "taskId=t1",
            "mine=1",
        ];
        assert_eq!(annotations, expected);
        let ports = &data["spec"]["containers"][0]["ports"];
        assert_eq!([&ports[0]["hostPort"], &ports[1]["hostPort"], &ports[2]["hostPort"]], [31_000, 31_500, 31_001]);
        assert_eq!(data["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "250m", "memory": "64Mi"}));
        assert_eq!(data["spec"]["initContainers"][0]["ports"][0].get("hostPort"), None);
        assert_eq!((&data["spec"]["unheard"]["of"][0], &data["kind"]), (&json!(1), &json!("Pod")));
    }

    #[test]
    fn discovery_is_opt_in() {
        let pod = json!({"metadata": {"name": "web", "namespace": "n", "labels": {"name": "front", "version": "1"},
            "annotations": {"k8s.mesosphere.io/discovery-version": "2", "k8s.mesosphere.io/discovery-visibility": "external"}}, "spec": {}});
        let info = launched(&pod, true).discovery.unwrap();
        assert_eq!((info.name.as_deref(), info.version.as_deref(), info.environment.as_deref()), (Some("front.n.pod"), Some("2"), None));
        assert_eq!(info.visibility(), Visibility::External);
    }
}
