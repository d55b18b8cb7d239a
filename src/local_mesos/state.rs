//! `/state`, in the form of the Mesos master's.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::agent::{Agent, Task};
use super::master::{Framework, Master};
use super::resources::Resources;
use crate::mesos::v1::value::Type;
use crate::mesos::v1::{Attribute, ExecutorInfo};

/// The whole state; `pid` returns the libprocess id of an agent.
pub(super) fn state(master: &Master, started: Duration, pid: impl Fn(&str) -> String) -> Json {
    let info = &master.config().master;
    json!({
        "version": info.version(),
        "id": info.id,
        "pid": info.pid(),
        "hostname": info.hostname(),
        "cluster": master.config().cluster,
        "leader": info.pid(),
        "leader_info": {"id": info.id, "pid": info.pid(), "port": info.port, "hostname": info.hostname()},
        "start_time": started.as_secs_f64(),
        "elected_time": started.as_secs_f64(),
        "activated_slaves": master.agents().count(),
        "deactivated_slaves": 0,
        "unreachable_slaves": 0,
        "flags": {},
        "slaves": agents(master, pid),
        "frameworks": master.frameworks().map(|(id, framework)| self::framework(master, id, framework)).collect::<Vec<_>>(),
        "completed_frameworks": [],
        "orphan_tasks": [],
        "unregistered_frameworks": [],
    })
}

/// The agents alone, as in `/slaves`.
pub(super) fn agents(master: &Master, pid: impl Fn(&str) -> String) -> Json {
    master.agents().map(|(id, agent)| self::agent(master, id, agent, pid(id))).collect()
}

fn agent(master: &Master, id: &str, agent: &Agent, pid: String) -> Json {
    let mut used = agent.total.clone();
    used.subtract(agent.free());
    json!({
        "id": id,
        "hostname": agent.info.hostname,
        "port": agent.info.port(),
        "pid": pid,
        "active": true,
        "attributes": agent.info.attributes.iter().map(attribute).collect::<Map<_, _>>(),
        "resources": agent.total.to_json(),
        "used_resources": used.to_json(),
        "offered_resources": master.offered(id).to_json(),
        "version": master.config().master.version(),
    })
}

fn attribute(attribute: &Attribute) -> (String, Json) {
    let value = match attribute.r#type() {
        Type::Scalar => attribute.scalar.map(|scalar| scalar.value).into(),
        Type::Text => attribute.text.as_ref().map(|text| text.value.clone()).into(),
        Type::Ranges => {
            let ranges = attribute.ranges.iter().flat_map(|ranges| &ranges.range);
            format!("[{}]", ranges.map(|range| format!("{}-{}", range.begin, range.end)).collect::<Vec<_>>().join(", ")).into()
        }
        Type::Set => format!("{{{}}}", attribute.set.iter().flat_map(|set| set.item.clone()).collect::<Vec<_>>().join(", ")).into(),
    };
    (attribute.name.clone(), value)
}

fn framework(master: &Master, id: &str, framework: &Framework) -> Json {
    let info = &framework.info;
    let mine = || master.agents().flat_map(|(agent, found)| found.tasks().map(move |(key, task)| (agent, key, task)));
    let (ended, living): (Vec<_>, Vec<_>) = mine().filter(|(_, key, _)| key.0 == id).partition(|(_, _, task)| task.state().is_terminal());
    let tasks = |tasks: Vec<(&String, &super::agent::Key, &Task)>| {
        tasks.into_iter().map(|(agent, _, task)| self::task(agent, task)).collect::<Vec<_>>()
    };
    let executors = master.agents().flat_map(|(agent, found)| found.executors().map(move |(key, executor)| (agent, key, executor)));
    json!({
        "id": id,
        "name": info.name,
        "user": info.user,
        "failover_timeout": info.failover_timeout(),
        "checkpoint": info.checkpoint(),
        "hostname": info.hostname(),
        "webui_url": info.webui_url(),
        "principal": info.principal(),
        "active": framework.stream.is_some(),
        "connected": framework.stream.is_some(),
        "role": info.role(),
        "roles": info.roles,
        "capabilities": info.capabilities.iter().map(|capability| capability.r#type().as_str_name()).collect::<Vec<_>>(),
        "tasks": tasks(living),
        "completed_tasks": tasks(ended),
        "unreachable_tasks": [],
        "offers": master.outstanding().filter(|offer| offer.1 == id).map(|offer| offer.0).collect::<Vec<_>>(),
        "executors": executors.filter(|(_, key, _)| key.0 == id).map(|(agent, key, found)| executor(agent, &key.0, &found.info)).collect::<Vec<_>>(),
    })
}

fn executor(agent: &str, framework: &str, info: &ExecutorInfo) -> Json {
    json!({
        "executor_id": info.executor_id.value,
        "framework_id": framework,
        "slave_id": agent,
        "name": info.name(),
        "source": info.source(),
        "resources": Resources::of(&info.resources).unwrap_or_default().to_json(),
    })
}

fn task(agent: &str, task: &Task) -> Json {
    json!({
        "id": task.info.task_id.value,
        "name": task.info.name,
        "framework_id": task.framework_id,
        "executor_id": task.executor_id,
        "slave_id": agent,
        "state": task.state().as_str_name(),
        "resources": Resources::of(&task.info.resources).unwrap_or_default().to_json(),
        "statuses": task.latest.iter().map(|status| json!({"state": status.state().as_str_name(), "timestamp": status.timestamp()})).collect::<Vec<_>>(),
    })
}
