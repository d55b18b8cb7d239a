//! A pod's sandbox and containers, as descriptions for the runtime. Pure.

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec};

use super::config::Config;
use super::expand::expand;
use super::names::{self, PodId};
use super::pod::Failure;
use super::status::{amount, qos_class};
use crate::runtime::{ContainerSpec, Dns, Image, Limits, Mount, Namespace, Network, OwnNetwork, PublishedPort, Security};

/// Bytes of `/dev/shm`: the default of Docker itself.
const SHM: i64 = 64 << 20;
/// The shares of a container that asks for no CPU.
const MIN_SHARES: i64 = 2;
/// The least CPU time the kernel can limit to, in microseconds.
const MIN_QUOTA: i64 = 1000;

/// The node's contribution to every container.
#[derive(Debug)]
pub struct Node<'a> {
    pub config: &'a Config,
    /// Bytes.
    pub memory: i64,
    /// Whether this process may lower OOM scores of others.
    pub may_protect: bool,
    /// Whether the engine expects a cgroup path (rather than a systemd slice).
    pub cgroup_paths: bool,
}

/// The sandbox that holds a pod's network.
pub fn sandbox(pod: &Pod, attempt: u32, image: &str, node: &Node<'_>) -> ContainerSpec {
    let (id, config) = (PodId::of(pod), node.config);
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let on_host = spec.host_network == Some(true);
    let network = OwnNetwork {
        hostname: hostname(spec, &id),
        ports: published_ports(pod, config),
        dns: dns(spec, &id, config),
        hosts: host_aliases(spec),
    };
    ContainerSpec {
        name: names::sandbox_name(&id, attempt),
        image: image.to_owned(),
        labels: names::sandbox_labels(&id, &config.owner, attempt),
        env: executor_env(config),
        network: if on_host { Network::Host } else { Network::Own(Box::new(network)) },
        ipc: if spec.host_ipc == Some(true) { Namespace::Host } else { Namespace::Shareable },
        pid: if spec.host_pid == Some(true) { Namespace::Host } else { Namespace::Own },
        limits: Limits {
            cpu_shares: MIN_SHARES,
            oom_score_adj: if node.may_protect { -998 } else { 0 },
            cgroup_parent: cgroup_parent(node),
            shm: SHM,
            ..Limits::default()
        },
        security: Security {
            sysctls: spec
                .security_context
                .iter()
                .flat_map(|context| context.sysctls.iter().flatten())
                .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
                .collect(),
            ..Security::default()
        },
        ..ContainerSpec::default()
    }
}

/// Inputs for a container beyond its pod's specification.
#[derive(Debug)]
pub struct Made<'a> {
    pub attempt: u32,
    pub sandbox: &'a str,
    pub image: &'a Image,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
}

/// Builds the specification of one container.
///
/// # Errors
/// `CreateContainerConfigError` for a specification that this node, or the image, does not allow.
pub fn container(pod: &Pod, container: &Container, made: Made<'_>, node: &Node<'_>) -> Result<ContainerSpec, Failure> {
    let (id, config) = (PodId::of(pod), node.config);
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let security = security(container, config)?;
    let user = user(spec, container, made.image)?;
    let expand_all = |words: &Option<Vec<String>>| {
        let lookup = |name: &str| made.env.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
        words.as_ref().filter(|words| !words.is_empty()).map(|words| words.iter().map(|word| expand(word, lookup)).collect::<Vec<_>>())
    };
    let (entrypoint, args) = (expand_all(&container.command), expand_all(&container.args));
    let of_sandbox = || Namespace::Of(made.sandbox.to_owned());
    let mut groups = Vec::new();
    if let Some(context) = &spec.security_context {
        groups.extend(context.supplemental_groups.iter().flatten().chain(&context.fs_group).copied());
    }
    let mut env = made.env;
    env.extend(executor_env(config));
    Ok(ContainerSpec {
        name: names::container_name(&id, &container.name, made.attempt),
        image: made.image.id.clone(),
        labels: names::container_labels(&id, &config.owner, made.attempt, &container.name, made.sandbox),
        entrypoint,
        args,
        env,
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        user,
        extra_groups: groups,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        mounts: made.mounts,
        network: Network::Of(made.sandbox.to_owned()),
        ipc: of_sandbox(),
        pid: if spec.host_pid == Some(true) {
            Namespace::Host
        } else if spec.share_process_namespace == Some(true) {
            of_sandbox()
        } else {
            Namespace::Own
        },
        limits: limits(pod, container, node),
        security,
        log: config.log,
    })
}

/// The port of the host that a container's port was given: the scheduler's choice, noted in an annotation, or the specification's.
pub fn host_port(pod: &Pod, port: &ContainerPort, config: &Config) -> Option<u16> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let key = config.product.annotation(&format!("port_{protocol}_{}", port.container_port));
    let annotated = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(&key)).and_then(|text| text.parse().ok());
    annotated.or_else(|| port.host_port.and_then(|port| u16::try_from(port).ok())).filter(|port| *port > 0)
}

fn published_ports(pod: &Pod, config: &Config) -> Vec<PublishedPort> {
    let spec = pod.spec.as_ref();
    let sidecars =
        spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let containers = sidecars.chain(spec.iter().flat_map(|spec| &spec.containers));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(PublishedPort {
                container: u16::try_from(port.container_port).ok()?,
                host: host_port(pod, port, config)?,
                host_ip: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            })
        })
        .collect()
}

fn hostname(spec: &PodSpec, id: &PodId) -> String {
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(&id.name);
    // The kernel's limit; a truncated name may not end in punctuation.
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

fn host_aliases(spec: &PodSpec) -> Vec<(String, String)> {
    let aliases = spec.host_aliases.iter().flatten();
    aliases.flat_map(|alias| alias.hostnames.iter().flatten().map(|name| (name.clone(), alias.ip.clone()))).collect()
}

/// The content of a pod's `resolv.conf`; empty for the host's.
fn dns(spec: &PodSpec, id: &PodId, config: &Config) -> Dns {
    let mut dns = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" | "ClusterFirstWithHostNet" if !config.cluster_dns.is_empty() => {
            let domain = &config.cluster_domain;
            let searches = [format!("{}.svc.{domain}", id.namespace), format!("svc.{domain}"), domain.clone()];
            Dns {
                servers: config.cluster_dns.clone(),
                searches: if domain.is_empty() { Vec::new() } else { searches.into() },
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => Dns::default(),
    };
    if let Some(own) = &spec.dns_config {
        let add = |list: &mut Vec<String>, more: Option<&Vec<String>>| {
            for entry in more.into_iter().flatten() {
                if !list.contains(entry) {
                    list.push(entry.clone());
                }
            }
        };
        add(&mut dns.servers, own.nameservers.as_ref());
        add(&mut dns.searches, own.searches.as_ref());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options.retain(|it| it.split(':').next() != Some(name.as_str()));
            dns.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    dns
}

/// The variable by which Mesos finds leftovers of an executor.
fn executor_env(config: &Config) -> Vec<(String, String)> {
    let uuid = Some(&config.container_uuid).filter(|uuid| !uuid.is_empty());
    uuid.map(|uuid| ("MESOS_EXECUTOR_CONTAINER_UUID".to_owned(), uuid.clone())).into_iter().collect()
}

fn cgroup_parent(node: &Node<'_>) -> String {
    if node.cgroup_paths { node.config.cgroup_parent.clone() } else { String::new() }
}

fn limits(pod: &Pod, container: &Container, node: &Node<'_>) -> Limits {
    let cpu_limit = amount(container, "cpu", true);
    let cpu = amount(container, "cpu", false).or(cpu_limit);
    let memory = amount(container, "memory", true);
    Limits {
        cpu_shares: cpu.map_or(MIN_SHARES, |millis| (millis * 1024 / 1000).max(MIN_SHARES)),
        cpu_quota: cpu_limit.map_or(0, |millis| (millis * 100).max(MIN_QUOTA)),
        memory: memory.unwrap_or_default(),
        oom_score_adj: oom_score(pod, container, node),
        cgroup_parent: cgroup_parent(node),
        ..Limits::default()
    }
}

/// The more of the node's memory a container asked for, the later it is killed when memory runs out.
fn oom_score(pod: &Pod, container: &Container, node: &Node<'_>) -> i64 {
    match qos_class(pod) {
        "Guaranteed" => {
            if node.may_protect {
                -997
            } else {
                0
            }
        }
        "BestEffort" => 1000,
        _ => {
            let asked = amount(container, "memory", false).unwrap_or_default();
            (1000 - 1000 * asked / node.memory.max(1)).clamp(3, 999)
        }
    }
}

fn security(container: &Container, config: &Config) -> Result<Security, Failure> {
    let Some(context) = &container.security_context else { return Ok(Security::default()) };
    let privileged = context.privileged == Some(true);
    if privileged && !config.allow_privileged {
        return Err(Failure::new("CreateContainerConfigError", "privileged containers are not allowed on this node (--allow-privileged)"));
    }
    let capabilities = context.capabilities.as_ref();
    let list = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let profile = context.seccomp_profile.as_ref().map(|profile| (profile.type_.as_str(), profile.localhost_profile.clone()));
    Ok(Security {
        privileged,
        read_only_root: context.read_only_root_filesystem == Some(true),
        no_new_privileges: context.allow_privilege_escalation == Some(false) && !privileged,
        add: list(capabilities.and_then(|it| it.add.as_ref())),
        drop: list(capabilities.and_then(|it| it.drop.as_ref())),
        seccomp: match profile {
            Some(("Unconfined", _)) => Some("unconfined".to_owned()),
            Some(("Localhost", path)) => path,
            _ => None,
        },
        ..Security::default()
    })
}

/// `uid[:gid]`; `None` leaves it to the image.
fn user(spec: &PodSpec, container: &Container, image: &Image) -> Result<Option<String>, Failure> {
    let (own, of_pod) = (container.security_context.as_ref(), spec.security_context.as_ref());
    let uid = own.and_then(|it| it.run_as_user).or(of_pod.and_then(|it| it.run_as_user));
    let gid = own.and_then(|it| it.run_as_group).or(of_pod.and_then(|it| it.run_as_group));
    let non_root = own.and_then(|it| it.run_as_non_root).or(of_pod.and_then(|it| it.run_as_non_root)) == Some(true);
    let of_image = image.user.split(':').next().unwrap_or_default();
    if non_root {
        let refuse = |why: String| Err(Failure::new("CreateContainerConfigError", why));
        match (uid, of_image) {
            (Some(0), _) => return refuse("container's runAsUser breaks non-root policy".to_owned()),
            (Some(_), _) => {}
            (None, "" | "0" | "root") => return refuse("container has runAsNonRoot and image will run as root".to_owned()),
            (None, name) if name.parse::<u32>().is_err() => {
                return refuse(format!(
                    "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
                ));
            }
            (None, _) => {}
        }
    }
    Ok(match (uid, gid) {
        (None, None) => None,
        (Some(uid), None) => Some(uid.to_string()),
        (Some(uid), Some(gid)) => Some(format!("{uid}:{gid}")),
        (None, Some(gid)) => Some(format!("{}:{gid}", if of_image.is_empty() { "0" } else { of_image })),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let mut config = Config::new("n1", [127, 0, 0, 1].into(), "/tmp".into());
        config.cluster_dns = vec!["10.10.10.10".to_owned()];
        config.cluster_domain = "cluster.local".to_owned();
        config.container_uuid = "uuid-1".to_owned();
        config
    }

    fn pod(spec: serde_json::Value) -> Pod {
        let annotations = json!({"k8s.mesosphere.io/port_TCP_80": "31005"});
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "a", "uid": "u", "annotations": annotations}, "spec": spec}))
            .unwrap()
    }

    fn made(image: &Image) -> Made<'_> {
        Made { attempt: 2, sandbox: "s1", image, env: vec![("A".to_owned(), "1".to_owned())], mounts: vec![] }
    }

    #[test]
    fn a_sandbox_has_the_pods_network() {
        let config = config();
        let node = Node { config: &config, memory: 1 << 30, may_protect: false, cgroup_paths: true };
        let ports = json!([{"containerPort": 80}, {"containerPort": 53, "hostPort": 5353, "protocol": "UDP"}, {"containerPort": 81}]);
        let pod = pod(json!({"containers": [{"name": "c", "ports": ports}], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]}));
        let sandbox = sandbox(&pod, 0, "pause", &node);
        assert_eq!(sandbox.name, "k8s_POD_web_a_u_0");
        let Network::Own(own) = sandbox.network else { panic!("{:?}", sandbox.network) };
        assert_eq!(own.hostname, "web");
        let ports: Vec<_> = own.ports.iter().map(|it| (it.container, it.host, it.protocol.as_str())).collect();
        assert_eq!(ports, [(80, 31005, "tcp"), (53, 5353, "udp")]);
        assert_eq!(own.dns.searches, ["a.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!(own.hosts.len(), 2);
        assert_eq!(sandbox.env, [("MESOS_EXECUTOR_CONTAINER_UUID".to_owned(), "uuid-1".to_owned())]);
    }

    #[test]
    fn a_container_has_its_limits_and_words() {
        let config = config();
        let node = Node { config: &config, memory: 1 << 30, may_protect: false, cgroup_paths: true };
        let pod = pod(json!({"containers": [{
            "name": "c", "command": ["sh", "-c"], "args": ["echo $(A) $(B)"],
            "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "512Mi"}},
            "securityContext": {"runAsUser": 7, "runAsGroup": 8},
        }]}));
        let image = Image { id: "sha".to_owned(), ..Image::default() };
        let spec = container(&pod, &pod.spec.as_ref().unwrap().containers[0], made(&image), &node).unwrap();
        assert_eq!((spec.entrypoint, spec.args), (Some(vec!["sh".into(), "-c".into()]), Some(vec!["echo 1 $(B)".into()])));
        assert_eq!(spec.user.as_deref(), Some("7:8"));
        let limits = spec.limits;
        assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.memory, limits.oom_score_adj), (102, 25_000, 64 << 20, 500));
        assert_eq!((spec.network, spec.name.as_str()), (Network::Of("s1".into()), "k8s_c_web_a_u_2"));
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        let config = config();
        let node = Node { config: &config, memory: 1 << 30, may_protect: false, cgroup_paths: true };
        let image = Image::default();
        for (context, part) in [
            (json!({"privileged": true}), "--allow-privileged"),
            (json!({"runAsNonRoot": true}), "image will run as root"),
            (json!({"runAsNonRoot": true, "runAsUser": 0}), "breaks non-root policy"),
        ] {
            let pod = pod(json!({"containers": [{"name": "c", "securityContext": context}]}));
            let failure = container(&pod, &pod.spec.as_ref().unwrap().containers[0], made(&image), &node).unwrap_err();
            assert!(failure.message.contains(part), "{failure:?}");
        }
    }
}
