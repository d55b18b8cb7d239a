//! `km apiserver`: its flags.

use super::Server;
use super::flag::{Flag, Kind, Values};

const FLAGS: &[Flag] = &[
    Flag::new("insecure-bind-address", Kind::Ip, "127.0.0.1", "Address to serve plain HTTP on").alias(&["address"]),
    Flag::new("insecure-port", Kind::Integer, "8080", "Port to serve plain HTTP on").alias(&["port"]),
    Flag::new("secure-port", Kind::Integer, "0", "Port to serve HTTPS on; only 0, off, is supported yet"),
    Flag::new("advertise-address", Kind::Ip, "", "Address by which the cluster reaches this server; the default is the one it serves on"),
    Flag::new("etcd-servers", Kind::List, "", "URLs of the etcd servers"),
    Flag::new("etcd-prefix", Kind::Text, "/registry", "Key under which everything is kept in etcd"),
    Flag::new("etcd-cafile", Kind::Text, "", "CA certificate of the etcd servers"),
    Flag::new("etcd-certfile", Kind::Text, "", "Certificate to show to etcd"),
    Flag::new("etcd-keyfile", Kind::Text, "", "Key of that certificate"),
    Flag::new("data-dir", Kind::Text, "", "Keep everything in this directory instead of etcd (a single API server only)"),
    Flag::new("service-cluster-ip-range", Kind::Text, "", "CIDR from which services get their addresses (required)").alias(&["portal-net"]),
    Flag::new("service-node-port-range", Kind::PortRange, "30000-32767", "Ports from which services get their node ports"),
    Flag::new("cloud-provider", Kind::Text, "", "mesos, or nothing"),
    Flag::new("cloud-config", Kind::Text, "", "Ini file with a section [mesos-cloud]"),
    Flag::new(
        "admission-control",
        Kind::List,
        "NamespaceLifecycle,LimitRanger,ServiceAccount,ResourceQuota",
        "Admission plug-ins, in order; AlwaysAdmit for none",
    )
    .alias(&["enable-admission-plugins"]),
    Flag::new("allow-privileged", Kind::Bool, "false", "Allow privileged containers"),
    Flag::new("event-ttl", Kind::Duration, "1h", "How long events are kept"),
    Flag::new("kubelet-timeout", Kind::Duration, "5s", "How long to wait for a kubelet to answer"),
    Flag::new("max-requests-inflight", Kind::Integer, "400", "Reads served at a time; 0 is no limit"),
    Flag::new("max-mutating-requests-inflight", Kind::Integer, "200", "Writes served at a time; 0 is no limit"),
    Flag::new("min-request-timeout", Kind::Integer, "1800", "Seconds after which a watch without a timeout is ended, at the earliest"),
    Flag::new("authorization-mode", Kind::List, "AlwaysAllow", "AlwaysAllow is the only one yet"),
    Flag::new("storage-backend", Kind::Text, "etcd3", "etcd3 is the only one"),
    Flag::obsolete("apiserver-count", Kind::Integer, "any number of API servers may share one etcd"),
    Flag::obsolete("watch-cache", Kind::Bool, "the cache is always on"),
    Flag::obsolete("profiling", Kind::Bool, "use perf"),
    Flag::obsolete("runtime-config", Kind::List, "everything there is is served"),
    Flag::obsolete("storage-version", Kind::Text, "there is one"),
    Flag::obsolete("storage-versions", Kind::Text, "there is one"),
    Flag::obsolete("api-prefix", Kind::Text, "it is always /api"),
    Flag::obsolete("read-only-port", Kind::Integer, "there is no read-only port"),
    Flag::obsolete("health-check-minions", Kind::Bool, "the node controller does it"),
    Flag::obsolete("enable-logs-support", Kind::Bool, "logs go to standard error"),
    Flag::obsolete("kubelet-https", Kind::Bool, "kubelets are reached by HTTP"),
    Flag::obsolete("kubelet-port", Kind::Integer, "every node says its own"),
    Flag::obsolete("mesos-master", Kind::Text, "only the controller manager asks Mesos, see --cloud-config there"),
    Flag::obsolete("bind-address", Kind::Ip, "HTTPS is off"),
    Flag::obsolete("public-address-override", Kind::Ip, "HTTPS is off"),
    Flag::obsolete("external-hostname", Kind::Text, "it was only printed"),
    Flag::obsolete("cors-allowed-origins", Kind::List, "no browser is served"),
    Flag::missing("token-auth-file", Kind::Text, "authentication is not supported yet"),
    Flag::missing("basic-auth-file", Kind::Text, "authentication is not supported yet"),
    Flag::missing("client-ca-file", Kind::Text, "authentication is not supported yet"),
    Flag::missing("service-account-key-file", Kind::Text, "authentication is not supported yet"),
    Flag::missing("authorization-policy-file", Kind::Text, "authorisation is not supported yet"),
    Flag::missing("tls-cert-file", Kind::Text, "HTTPS is not supported yet"),
    Flag::missing("tls-private-key-file", Kind::Text, "HTTPS is not supported yet"),
    Flag::missing("cert-dir", Kind::Text, "HTTPS is not supported yet"),
];

pub(super) const SERVER: Server = Server {
    name: "apiserver",
    installed_as: &["kube-apiserver"],
    about: "Serve the Kubernetes API, kept in etcd",
    flags: FLAGS,
    run,
    hidden: false,
};

fn run(values: Values) -> anyhow::Result<()> {
    let _ = values;
    anyhow::bail!("being wired")
}
