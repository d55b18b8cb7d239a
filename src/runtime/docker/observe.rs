//! The engine's answers, as our values.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStatsResponse, ContainerSummary, ContainerSummaryStateEnum, EventMessage,
    ImageInspect, SystemInfo, SystemVersion,
};
use jiff::Timestamp;

use crate::runtime::{Container, Event, EventKind, Exit, Image, State, Stats, Summary, Version};

pub(super) fn version(version: SystemVersion, info: SystemInfo) -> Version {
    Version {
        name: "docker".to_owned(),
        version: version.version.unwrap_or_default(),
        kernel: version.kernel_version.unwrap_or_default(),
        os: version.os.unwrap_or_default(),
        os_image: info.operating_system.unwrap_or_default(),
        arch: version.arch.unwrap_or_default(),
        cgroup_paths: info.cgroup_driver == Some(bollard::models::SystemInfoCgroupDriverEnum::CGROUPFS),
    }
}

pub(super) fn image(image: ImageInspect) -> Image {
    Image {
        id: image.id.unwrap_or_default(),
        digest: image.repo_digests.and_then(|digests| digests.into_iter().next()),
        user: image.config.and_then(|config| config.user).unwrap_or_default(),
    }
}

pub(super) fn summary(line: ContainerSummary) -> Summary {
    Summary {
        id: line.id.unwrap_or_default(),
        labels: sorted(line.labels),
        running: matches!(line.state, Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)),
    }
}

pub(super) fn container(answer: ContainerInspectResponse) -> Container {
    let config = answer.config.unwrap_or_default();
    let networks = answer.network_settings.and_then(|network| network.networks).unwrap_or_default();
    let pid = answer.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0);
    let created = time(answer.created.as_deref());
    Container {
        id: answer.id.unwrap_or_default(),
        name: answer.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        labels: sorted(config.labels),
        image: config.image.unwrap_or_default(),
        image_id: answer.image.unwrap_or_default(),
        created,
        state: state(answer.state.unwrap_or_default(), created),
        ips: networks
            .into_values()
            .flat_map(|endpoint| [endpoint.ip_address, endpoint.global_ipv6_address])
            .flatten()
            .filter(|ip| !ip.is_empty())
            .collect(),
        pid,
    }
}

/// The engine does not write down when it failed to start a container: that was when it was made, at the earliest.
fn state(state: ContainerState, created: Timestamp) -> State {
    let started = time(state.started_at.as_deref());
    let error = state.error.unwrap_or_default();
    if state.running == Some(true) {
        State::Running { started }
    } else if started == Timestamp::UNIX_EPOCH && error.is_empty() {
        State::Created
    } else {
        let started = started.max(created);
        let finished = time(state.finished_at.as_deref()).max(started);
        let code = state.exit_code.unwrap_or_default();
        State::Exited(Exit { code, started, finished, oom_killed: state.oom_killed == Some(true), error })
    }
}

pub(super) fn event(message: EventMessage) -> Option<Event> {
    let actor = message.actor?;
    let kind = match message.action?.as_str() {
        "start" => EventKind::Started,
        "die" => EventKind::Died,
        "oom" => EventKind::OutOfMemory,
        "destroy" => EventKind::Removed,
        _ => return None,
    };
    Some(Event { id: actor.id?, labels: sorted(actor.attributes), kind })
}

pub(super) fn stats(answer: &ContainerStatsResponse) -> Stats {
    let memory = answer.memory_stats.clone().unwrap_or_default();
    let details = memory.stats.unwrap_or_default();
    // cgroup v2 and v1 name the file cache that can be dropped differently.
    let reclaimable = details.get("inactive_file").or_else(|| details.get("total_inactive_file")).copied().unwrap_or_default();
    Stats {
        cpu: answer.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()).and_then(|usage| usage.total_usage).unwrap_or_default(),
        memory: memory.usage.unwrap_or_default().saturating_sub(reclaimable),
    }
}

fn sorted(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

/// The engine writes the year 1 for a time that never was; that is the epoch here.
fn time(text: Option<&str>) -> Timestamp {
    text.and_then(|text| text.parse().ok()).filter(|at: &Timestamp| at.as_second() > 0).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart() {
        let never = Some("0001-01-01T00:00:00Z".to_owned());
        let at = Some("2026-01-02T03:04:05.5Z".to_owned());
        let made: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let created = ContainerState { started_at: never.clone(), finished_at: never.clone(), ..Default::default() };
        assert_eq!(state(created.clone(), made), State::Created);
        let refused = ContainerState { error: Some("no such file".to_owned()), exit_code: Some(127), ..created };
        let State::Exited(exit) = state(refused, made) else { panic!("it has not ended") };
        assert_eq!((exit.code, exit.started, exit.finished), (127, made, made), "the time of the attempt, not the year 1");
        let running = ContainerState { running: Some(true), started_at: at.clone(), finished_at: never, ..Default::default() };
        assert!(state(running, made).is_running());
        let ended = ContainerState { started_at: at.clone(), finished_at: at, oom_killed: Some(true), ..Default::default() };
        assert!(matches!(state(ended, made), State::Exited(Exit { code: 0, oom_killed: true, .. })));
    }
}
