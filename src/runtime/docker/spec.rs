//! Translates our container specification into Docker's.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountType, PortBinding,
};

use crate::runtime::{ContainerSpec, Limits, LogRotation, Mount, Namespace, Network, Propagation, PublishedPort};

/// Microseconds; the period that [`Limits::cpu_quota`] is out of.
const CPU_PERIOD: i64 = 100_000;

pub(super) fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    let own = match &spec.network {
        Network::Own(own) => Some(own),
        Network::Of(_) | Network::Host => None,
    };
    ContainerCreateBody {
        hostname: own.map(|own| own.hostname.clone()),
        user: spec.user.clone(),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        tty: Some(spec.tty),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.args.clone(),
        image: Some(spec.image.clone()),
        working_dir: spec.working_dir.clone(),
        labels: Some(spec.labels.clone().into_iter().collect()),
        exposed_ports: own.map(|own| own.ports.iter().map(port_key).collect()),
        host_config: Some(host(spec)),
        ..Default::default()
    }
}

fn host(spec: &ContainerSpec) -> HostConfig {
    let mut config = HostConfig {
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        network_mode: Some(match &spec.network {
            Network::Own(_) => "default".to_owned(),
            Network::Of(id) => format!("container:{id}"),
            Network::Host => "host".to_owned(),
        }),
        ipc_mode: namespace(&spec.ipc),
        // "shareable" is a word of the IPC mode only; any PID namespace can be joined.
        pid_mode: namespace(&spec.pid).filter(|mode| mode != "shareable"),
        privileged: Some(spec.security.privileged),
        readonly_rootfs: Some(spec.security.read_only_root),
        cap_add: Some(spec.security.add.clone()),
        cap_drop: Some(spec.security.drop.clone()),
        security_opt: Some(security_options(spec)),
        sysctls: Some(spec.security.sysctls.clone().into_iter().collect()),
        group_add: Some(spec.extra_groups.iter().map(i64::to_string).collect()),
        log_config: log_config(spec.log),
        ..limits(&spec.limits)
    };
    if let Network::Own(own) = &spec.network {
        let some = |list: &Vec<String>| Some(list.clone()).filter(|list| !list.is_empty());
        config.dns = some(&own.dns.servers);
        config.dns_search = some(&own.dns.searches);
        config.dns_options = some(&own.dns.options);
        config.extra_hosts = Some(own.hosts.iter().map(|(name, ip)| format!("{name}:{ip}")).collect());
        let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
        for port in &own.ports {
            let binding = PortBinding { host_ip: Some(port.host_ip.clone()), host_port: Some(port.host.to_string()) };
            bindings.entry(port_key(port)).or_default().get_or_insert_default().push(binding);
        }
        config.port_bindings = Some(bindings);
    }
    config
}

fn limits(limits: &Limits) -> HostConfig {
    let some = |value: i64| Some(value).filter(|value| *value != 0);
    HostConfig {
        cpu_shares: some(limits.cpu_shares),
        cpu_quota: some(limits.cpu_quota),
        cpu_period: some(limits.cpu_quota).map(|_| CPU_PERIOD),
        memory: some(limits.memory),
        memory_swap: some(limits.memory),
        pids_limit: some(limits.pids),
        oom_score_adj: some(limits.oom_score_adj),
        cgroup_parent: Some(limits.cgroup_parent.clone()).filter(|parent| !parent.is_empty()),
        shm_size: some(limits.shm),
        ..Default::default()
    }
}

fn port_key(port: &PublishedPort) -> String {
    format!("{}/{}", port.container, port.protocol)
}

fn namespace(of: &Namespace) -> Option<String> {
    match of {
        Namespace::Own => None,
        Namespace::Shareable => Some("shareable".to_owned()),
        Namespace::Of(id) => Some(format!("container:{id}")),
        Namespace::Host => Some("host".to_owned()),
    }
}

fn mount(mount: &Mount) -> EngineMount {
    let propagation = match mount.propagation {
        Propagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        Propagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
        Propagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
    };
    EngineMount {
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..Default::default() }),
        ..Default::default()
    }
}

fn security_options(spec: &ContainerSpec) -> Vec<String> {
    let mut options = Vec::new();
    if spec.security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    options.extend(spec.security.seccomp.iter().map(|profile| format!("seccomp={profile}")));
    options.extend(spec.security.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    options
}

/// Rotation is the json-file driver's own; without it the engine's default driver is left alone.
fn log_config(rotation: LogRotation) -> Option<HostConfigLogConfig> {
    (rotation.max_size > 0).then(|| HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), rotation.max_size.to_string()),
            ("max-file".to_owned(), rotation.max_files.max(1).to_string()),
        ])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::OwnNetwork;

    #[test]
    fn a_sandbox_publishes_and_a_container_joins() {
        let port = |host| PublishedPort { container: 80, host, host_ip: String::new(), protocol: "tcp".to_owned() };
        let own = OwnNetwork { hostname: "web".to_owned(), ports: vec![port(8080), port(8081)], ..Default::default() };
        let sandbox = ContainerSpec { network: Network::Own(Box::new(own)), ipc: Namespace::Shareable, ..Default::default() };
        let sandbox = body(&sandbox);
        assert_eq!(sandbox.hostname.as_deref(), Some("web"));
        let host = sandbox.host_config.unwrap();
        let bound = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
        assert_eq!(bound.iter().map(|it| it.host_port.clone().unwrap()).collect::<Vec<_>>(), ["8080", "8081"]);
        assert_eq!(host.ipc_mode.as_deref(), Some("shareable"));

        let joined = ContainerSpec { network: Network::Of("s1".to_owned()), ipc: Namespace::Of("s1".to_owned()), ..Default::default() };
        let joined = body(&joined);
        assert_eq!(joined.hostname, None);
        let host = joined.host_config.unwrap();
        assert_eq!((host.network_mode.as_deref(), host.port_bindings), (Some("container:s1"), None));
    }

    #[test]
    fn only_limits_that_are_set_are_sent() {
        let set = limits(&Limits { cpu_quota: 25_000, memory: 64 << 20, ..Default::default() });
        assert_eq!((set.cpu_quota, set.cpu_period, set.cpu_shares), (Some(25_000), Some(CPU_PERIOD), None));
        assert_eq!((set.memory, set.memory_swap, set.pids_limit), (Some(64 << 20), Some(64 << 20), None));
        assert_eq!(limits(&Limits::default()), HostConfig::default());
    }
}
