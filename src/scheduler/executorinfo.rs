//! The executor for all agents: its command line, URIs and id, and the copy for each agent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;

use super::config::ExecutorFlags;
use super::resources::ExecutorCost;
use crate::mesos::v1::{CommandInfo, ExecutorId, ExecutorInfo, FrameworkId, Resource, command_info::Uri, executor_info};
use crate::util::duration;
use crate::util::product::Product;

/// The common part of all agents' executors.
#[derive(Clone, Debug)]
pub struct Prototype {
    info: ExecutorInfo,
    pub cost: ExecutorCost,
}

/// A file that agents fetch into the executor's sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub uri: String,
    pub executable: bool,
    pub extract: bool,
}

impl Prototype {
    /// `command` runs in the sandbox with `arguments`, the first of which is the command again. `data` is for the executor itself.
    pub fn new(
        product: &Product,
        command: &str,
        arguments: Vec<String>,
        artifacts: &[Artifact],
        data: Option<Bytes>,
        cost: ExecutorCost,
    ) -> Self {
        let uri = |it: &Artifact| Uri {
            value: it.uri.clone(),
            executable: Some(it.executable),
            extract: (!it.extract).then_some(false),
            ..Uri::default()
        };
        let mut info = ExecutorInfo {
            r#type: Some(executor_info::Type::Custom.into()),
            name: Some(product.executor_name.to_owned()),
            source: Some(product.executor_source.to_owned()),
            command: Some(CommandInfo {
                shell: Some(false),
                value: Some(command.to_owned()),
                arguments,
                uris: artifacts.iter().map(uri).collect(),
                ..CommandInfo::default()
            }),
            data,
            ..ExecutorInfo::default()
        };
        info.executor_id = ExecutorId { value: format!("{:x}_{}", hash(&info), product.executor_id_suffix) };
        Self { info, cost }
    }

    pub fn id(&self) -> &str {
        &self.info.executor_id.value
    }

    /// The executor for one agent. It keeps the prototype's id.
    pub fn on_agent(&self, framework: &str, hostname: &str, resources: Vec<Resource>) -> ExecutorInfo {
        const HOSTNAME: &str = "--hostname-override=";
        let mut info = self.info.clone();
        let command = info.command.get_or_insert_default();
        command.arguments.retain(|it| !it.starts_with(HOSTNAME));
        command.arguments.push(format!("{HOSTNAME}{hostname}"));
        info.framework_id = Some(FrameworkId { value: framework.to_owned() });
        info.resources = resources;
        info
    }
}

/// The arguments of the minion on an agent, with `command` first.
pub fn arguments(command: &str, flags: &ExecutorFlags, served: impl Fn(&std::path::Path) -> String) -> Vec<String> {
    let mut out = vec![command.to_owned(), "minion".to_owned()];
    let mut flag = |name: &str, value: &dyn std::fmt::Display| out.push(format!("--{name}={value}"));
    flag("run-proxy", &flags.run_proxy);
    flag("proxy-bindall", &flags.proxy_bindall);
    if let Some(path) = &flags.proxy_kubeconfig {
        flag("proxy-kubeconfig", &served(path));
    }
    flag("proxy-logv", &flags.proxy_logv);
    flag("proxy-mode", &flags.proxy_mode);
    flag("path-override", &flags.path_override);
    flag("max-log-size", &flags.max_log_size);
    flag("max-log-backups", &flags.max_log_backups);
    flag("max-log-age", &flags.max_log_age);
    flag("conntrack-max", &flags.conntrack_max);
    flag("conntrack-max-per-core", &flags.conntrack_max_per_core);
    flag("conntrack-tcp-timeout-established", &flags.conntrack_tcp_timeout_established);
    flag("api-servers", &flags.kubelet_api_servers.join(","));
    flag("v", &flags.logv);
    flag("allow-privileged", &flags.allow_privileged);
    flag("suicide-timeout", &duration::format(flags.suicide_timeout));
    flag("mesos-launch-grace-period", &duration::format(flags.mesos_launch_grace_period));
    if flags.bindall {
        flag("address", &"0.0.0.0");
    }
    flag("mesos-cgroup-prefix", &flags.mesos_cgroup_prefix);
    flag("cadvisor-port", &flags.cadvisor_port);
    flag("sync-frequency", &duration::format(flags.sync_frequency));
    flag("contain-pod-resources", &flags.contain_pod_resources);
    flag("enable-debugging-handlers", &flags.enable_debugging_handlers);
    if let Some(path) = &flags.kubeconfig {
        flag("kubeconfig", &served(path));
    }
    let dns = flags.cluster_dns.map(|it| it.to_string()).unwrap_or_default();
    let interval = |it: Option<std::time::Duration>| it.map(duration::format).unwrap_or_default();
    for (name, value) in [
        ("cluster-dns", &dns),
        ("cluster-domain", &flags.cluster_domain),
        ("root-dir", &flags.root_dir),
        ("docker-endpoint", &flags.docker_endpoint),
        ("pod-infra-container-image", &flags.pod_infra_container_image),
        ("housekeeping_interval", &interval(flags.housekeeping_interval)),
        ("global_housekeeping_interval", &interval(flags.global_housekeeping_interval)),
    ] {
        if !value.is_empty() {
            flag(name, value);
        }
    }
    out
}

/// Hash of the properties that make an executor the same; resources and the agent's name are not included.
fn hash(info: &ExecutorInfo) -> u64 {
    let command = info.command.clone().unwrap_or_default();
    let mut crc = Crc64::new();
    crc.update(info.name().as_bytes());
    crc.update(info.source().as_bytes());
    crc.update(info.data());
    crc.update(command.value().as_bytes());
    crc.update(command.user().as_bytes());
    crc.update(command.shell().to_string().as_bytes());
    let mut sorted = |mut parts: Vec<String>| {
        parts.sort_unstable();
        parts.iter().for_each(|it| crc.update(it.as_bytes()));
    };
    sorted(command.arguments.clone());
    let variables = command.environment.iter().flat_map(|it| &it.variables);
    sorted(variables.map(|it| format!("{}={}", it.name, it.value())).collect());
    sorted(command.uris.iter().map(|it| format!("{}{}{}", it.value, it.executable(), it.extract())).collect());
    crc.finish()
}

/// CRC-64/XZ.
struct Crc64(u64);

impl Crc64 {
    /// The ECMA-182 polynomial, reflected.
    const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;

    fn new() -> Self {
        Self(!0)
    }

    /// Bitwise: only a few hundred bytes, once.
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u64::from(*byte);
            for _ in 0..8 {
                self.0 = if self.0 & 1 == 1 { (self.0 >> 1) ^ Self::POLYNOMIAL } else { self.0 >> 1 };
            }
        }
    }

    fn finish(&self) -> u64 {
        !self.0
    }
}

/// The node annotation `executorResources`: the resources of the executor that runs on an agent, each as protobuf in base64.
pub fn encode_resources(resources: &[Resource]) -> String {
    resources.iter().map(|it| STANDARD.encode(it.encode_to_vec())).collect::<Vec<_>>().join(",")
}

/// The inverse of [`encode_resources`]; `None` for an invalid or empty annotation.
pub fn decode_resources(annotation: &str) -> Option<Vec<Resource>> {
    annotation.split(',').map(|part| (!part.is_empty()).then(|| Resource::decode(&*STANDARD.decode(part).ok()?).ok())?).collect()
}

#[cfg(test)]
mod tests {
    use super::super::resources::{scalar, tests::of_role};
    use super::*;
    use crate::mesos::v1::{Environment, environment::Variable};
    use crate::util::product::KUBERNETES;

    fn km() -> Artifact {
        Artifact { uri: "http://10.0.0.1:10251/km".to_owned(), executable: true, extract: true }
    }

    fn prototype(arguments: Vec<String>) -> Prototype {
        Prototype::new(KUBERNETES, "./km", arguments, &[km()], None, ExecutorCost::default())
    }

    #[test]
    fn ids_are_those_of_the_original() {
        let mut crc = Crc64::new();
        crc.update(b"123456789");
        assert_eq!(crc.finish(), 0x995d_c9bb_df19_39fa);
        let mut prototype = prototype(["./km", "minion", "--v=0"].map(str::to_owned).into());
        assert_eq!(prototype.id(), "adf65fdd6eded9f4_k8sm-executor");
        let variable = |name: &str, value: &str| Variable { name: name.to_owned(), value: Some(value.to_owned()), ..Variable::default() };
        let environment = Environment { variables: vec![variable("B", "2"), variable("A", "1")] };
        prototype.info.command.as_mut().unwrap().environment = Some(environment);
        assert_eq!(hash(&prototype.info), 0xd5f9_b895_6edc_4d62);
    }

    #[test]
    fn the_tutorials_command_line_has_its_id() {
        let flags = ExecutorFlags {
            kubelet_api_servers: vec!["10.0.0.1:8888".to_owned()],
            cluster_dns: Some([10, 10, 10, 10].into()),
            cluster_domain: "cluster.local".to_owned(),
            ..ExecutorFlags::default()
        };
        let arguments = arguments("./km", &flags, |_| unreachable!("no files are served"));
        assert_eq!(arguments.len(), 27);
        let prototype = prototype(arguments);
        assert_eq!(prototype.id(), "92523c9b599503b0_k8sm-executor");
        let there = prototype.on_agent("f", "agent-1", vec![scalar("cpus", 250)]);
        assert_eq!(there.executor_id.value, prototype.id());
        assert_eq!(there.command.unwrap().arguments.last().unwrap(), "--hostname-override=agent-1");
    }

    #[test]
    fn resources_survive_the_annotation() {
        let resources =
            [of_role(scalar("cpus", 100), "*"), of_role(scalar("mem", 64_000), "*"), of_role(scalar("mem", 128_000), "public_slave")];
        let text = "CgRjcHVzEAAaCQmamZmZmZm5PzIBKg==,CgNtZW0QABoJCQAAAAAAAFBAMgEq,CgNtZW0QABoJCQAAAAAAAGBAMgxwdWJsaWNfc2xhdmU=";
        assert_eq!(encode_resources(&resources), text);
        assert_eq!(decode_resources(text).unwrap(), resources);
        for bad in ["", "x", "CgRjcHVz,"] {
            assert_eq!(decode_resources(bad), None, "{bad}");
        }
    }
}
