//! Every name under which users know km, in one value, so that another product can be built from the same code.

/// The names of a product: what Mesos shows, what kubectl lists, prefixes of annotations.
#[derive(Debug, PartialEq, Eq)]
pub struct Product {
    /// Name of the executable and of the logs' origin.
    pub binary: &'static str,
    /// Default of `--framework-name`: what the Mesos UI shows.
    pub framework_name: &'static str,
    /// The API server's own service in namespace `default`, and the value of its label `provider`.
    pub api_service: &'static str,
    /// The scheduler's service in namespace `default`.
    pub scheduler_service: &'static str,
    /// Value of the label `provider` on the scheduler's service.
    pub scheduler_provider: &'static str,
    /// Namespace for the cluster's own add-ons.
    pub system_namespace: &'static str,
    /// Prefix, slash included, of the annotations and labels that tie pods and nodes to Mesos.
    pub annotation_prefix: &'static str,
    /// The suffix, after the hash, of an executor id.
    pub executor_id_suffix: &'static str,
    /// ExecutorInfo.name, by which the cloud provider recognises an agent that runs a kubelet.
    pub executor_name: &'static str,
    /// ExecutorInfo.source.
    pub executor_source: &'static str,
    /// First component of the paths kept in etcd or ZooKeeper: `/<state_root>/<framework>/frameworkid`.
    pub state_root: &'static str,
    /// The command that users type, its configuration file below the home directory, and its environment variable.
    pub client: &'static str,
    pub client_config: &'static str,
    pub client_env: &'static str,
}

/// The names of the original, used by default.
pub const KUBERNETES: &Product = &Product {
    binary: "km",
    framework_name: "Kubernetes",
    api_service: "kubernetes",
    scheduler_service: "k8sm-scheduler",
    scheduler_provider: "k8sm",
    system_namespace: "kube-system",
    annotation_prefix: "k8s.mesosphere.io/",
    executor_id_suffix: "k8sm-executor",
    executor_name: "Kubelet-Executor",
    executor_source: "kubernetes",
    state_root: "k8sm",
    client: "kubectl",
    client_config: ".kube/config",
    client_env: "KUBERNETES_MASTER",
};

impl Product {
    /// The full annotation or label key for `name`, such as `k8s.mesosphere.io/taskId`.
    pub fn annotation(&self, name: &str) -> String {
        format!("{}{name}", self.annotation_prefix)
    }
}
