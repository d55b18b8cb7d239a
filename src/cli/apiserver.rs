//! `km apiserver`: its flags.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use super::flag::{Flag, Kind, Values};
use super::{Server, cloud, common, stores};
use crate::apiserver::tokens;
use crate::apiserver::{ApiServer, Config, DEFAULT_PLUGINS, Timeouts};
use crate::tokens::{PublicKey, SigningKey};
use crate::util::cidr::Cidr;
use crate::util::product::KUBERNETES as KUBERNETES_PRODUCT;
use crate::util::version::KUBERNETES;

const FLAGS: &[Flag] = &[
    Flag::new("insecure-bind-address", Kind::Ip, "127.0.0.1", "Address to serve plain HTTP on").alias(&["address"]),
    Flag::new("insecure-port", Kind::Integer, "8080", "Port to serve plain HTTP on").alias(&["port"]),
    Flag::new("secure-port", Kind::Integer, "0", "Port to serve HTTPS on; only 0 (off) is supported yet"),
    Flag::new("advertise-address", Kind::Ip, "", "Address at which the cluster reaches this server; default: the one it serves on"),
    Flag::new("etcd-servers", Kind::List, "", "URLs of the etcd servers"),
    Flag::new("etcd-prefix", Kind::Text, "/registry", "Prefix of all keys in etcd"),
    Flag::new("etcd-cafile", Kind::Text, "", "CA certificate of the etcd servers"),
    Flag::new("etcd-certfile", Kind::Text, "", "Client certificate for etcd"),
    Flag::new("etcd-keyfile", Kind::Text, "", "Private key of --etcd-certfile"),
    Flag::new("data-dir", Kind::Text, "", "Directory of the embedded store, instead of etcd (for a single API server)"),
    Flag::new("service-cluster-ip-range", Kind::Text, "", "CIDR of the services' addresses (required)").alias(&["portal-net"]),
    Flag::new("service-node-port-range", Kind::PortRange, "30000-32767", "Range of the services' node ports"),
    Flag::new("cloud-provider", Kind::Text, "", "mesos, or empty"),
    Flag::new("cloud-config", Kind::Text, "", "Ini file with a section [mesos-cloud]"),
    Flag::new("admission-control", Kind::List, DEFAULT_PLUGINS, "Admission plug-ins, in order; AlwaysAdmit for none")
        .alias(&["enable-admission-plugins"]),
    Flag::new("allow-privileged", Kind::Bool, "false", "Allow privileged containers"),
    Flag::new("event-ttl", Kind::Duration, "1h", "How long events are kept"),
    Flag::new("kubelet-timeout", Kind::Duration, "5s", "Timeout of requests to kubelets"),
    Flag::new("max-requests-inflight", Kind::Integer, "400", "Concurrent reads; 0 is no limit"),
    Flag::new("max-mutating-requests-inflight", Kind::Integer, "200", "Concurrent writes; 0 is no limit"),
    Flag::new("http2-max-streams-per-connection", Kind::Integer, "0", "Concurrent HTTP/2 requests per connection; 0 is 100"),
    Flag::new("request-timeout", Kind::Duration, "1m0s", "Timeout of requests other than watches"),
    Flag::new("min-request-timeout", Kind::Integer, "1800", "Least duration in seconds of a watch without a timeout"),
    Flag::new("authorization-mode", Kind::List, "AlwaysAllow", "Only AlwaysAllow is supported yet"),
    Flag::new(
        "service-account-signing-key-file",
        Kind::Text,
        "",
        "Private key (PEM, RSA or ECDSA) that signs service account tokens; default: a key that API servers keep in the store",
    ),
    Flag::new("service-account-key-file", Kind::List, "", "More keys (PEM) that verify service account tokens, besides the signing key"),
    Flag::new(
        "service-account-issuer",
        Kind::List,
        "",
        "Accepted issuers of service account tokens, the first for new ones; default: https://kubernetes.default.svc",
    ),
    Flag::new("service-account-jwks-uri", Kind::Text, "", "URL of the public keys for token verification; default: this server's"),
    Flag::new("service-account-max-token-expiration", Kind::Duration, "0s", "Longest lifetime of a service account token; 0 is no limit"),
    Flag::new("api-audiences", Kind::List, "", "Audiences that the API server accepts in tokens; default: the issuers"),
    Flag::new("storage-backend", Kind::Text, "etcd3", "Only etcd3 is supported"),
    Flag::obsolete("apiserver-count", Kind::Integer, "any number of API servers may share one etcd"),
    Flag::obsolete("watch-cache", Kind::Bool, "the cache is always on"),
    Flag::obsolete("profiling", Kind::Bool, "use perf"),
    Flag::obsolete("runtime-config", Kind::List, "the served versions are fixed"),
    Flag::obsolete("storage-version", Kind::Text, "there is only one"),
    Flag::obsolete("storage-versions", Kind::Text, "there is only one"),
    Flag::obsolete("api-prefix", Kind::Text, "it is always /api"),
    Flag::obsolete("read-only-port", Kind::Integer, "there is no read-only port"),
    Flag::obsolete("health-check-minions", Kind::Bool, "the node controller checks nodes"),
    Flag::obsolete("enable-logs-support", Kind::Bool, "logs go to standard error"),
    Flag::obsolete("kubelet-https", Kind::Bool, "kubelets are called over HTTP"),
    Flag::obsolete("kubelet-port", Kind::Integer, "every node reports its own port"),
    Flag::obsolete("mesos-master", Kind::Text, "only the controller manager asks Mesos, see --cloud-config there"),
    Flag::obsolete("bind-address", Kind::Ip, "HTTPS is off"),
    Flag::obsolete("public-address-override", Kind::Ip, "HTTPS is off"),
    Flag::obsolete("external-hostname", Kind::Text, "it has no use in km"),
    Flag::obsolete("cors-allowed-origins", Kind::List, "no browser is served"),
    Flag::missing("token-auth-file", Kind::Text, "authentication is not supported yet"),
    Flag::missing("basic-auth-file", Kind::Text, "authentication is not supported yet"),
    Flag::missing("client-ca-file", Kind::Text, "authentication is not supported yet"),
    Flag::missing("authorization-policy-file", Kind::Text, "authorisation is not supported yet"),
    Flag::missing("tls-cert-file", Kind::Text, "HTTPS is not supported yet"),
    Flag::missing("tls-private-key-file", Kind::Text, "HTTPS is not supported yet"),
    Flag::missing("cert-dir", Kind::Text, "HTTPS is not supported yet"),
];

pub(super) const SERVER: Server = Server {
    name: "apiserver",
    installed_as: &["kube-apiserver"],
    about: "Serve the Kubernetes API from etcd or an embedded store",
    flags: FLAGS,
    run,
    hidden: false,
};

fn run(values: Values) -> anyhow::Result<()> {
    let config = config(&values)?;
    common::run(async move |supervisor| {
        let store = stores::open(&values).await?;
        let server = ApiServer::build(config, store)?;
        server.start(&supervisor).await?;
        for address in server.addresses() {
            tracing::info!("serving the Kubernetes API {KUBERNETES} on http://{address}");
        }
        supervisor.shutdown().cancelled().await;
        Ok(())
    })
}

fn config(values: &Values) -> anyhow::Result<Config> {
    if values.integer::<u16>("secure-port")? != 0 {
        bail!("--secure-port: HTTPS is not supported yet, give 0");
    }
    for (flag, only) in [("storage-backend", "etcd3"), ("cloud-provider", "mesos")] {
        if let Some(other) = values.maybe(flag).filter(|it| it != only) {
            bail!("--{flag}: {other:?} is not known, expected {only}");
        }
    }
    if let Some(mode) = values.list("authorization-mode").iter().find(|it| *it != "AlwaysAllow") {
        bail!("--authorization-mode: {mode} is not supported yet, expected AlwaysAllow");
    }
    // Only checked for errors: the API server itself does not call Mesos.
    cloud::read(values.maybe("cloud-config").as_deref())?;
    let range = values.maybe("service-cluster-ip-range").context("--service-cluster-ip-range is missing, for example 10.10.10.0/24")?;
    let range: Cidr = range.parse().context("--service-cluster-ip-range")?;
    let address = values.ip("insecure-bind-address").unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let listen = SocketAddr::new(address, values.integer("insecure-port")?);
    let (low, high) = values.ports("service-node-port-range");
    let mut admission = values.list("admission-control");
    admission.retain(|it| it != "AlwaysAdmit");
    Ok(Config {
        advertise: values.ip("advertise-address").unwrap_or_else(|| common::reachable(address)),
        node_ports: low..=high,
        event_ttl: values.duration("event-ttl"),
        prefix: values.text("etcd-prefix").trim_end_matches('/').to_owned(),
        kubelet_timeout: values.duration("kubelet-timeout"),
        admission,
        min_watch: Duration::from_secs(values.integer("min-request-timeout")?),
        max_reads: values.integer("max-requests-inflight")?,
        max_writes: values.integer("max-mutating-requests-inflight")?,
        max_streams: match values.integer("http2-max-streams-per-connection")? {
            0 => 100,
            streams => streams,
        },
        timeouts: Timeouts { request: values.duration("request-timeout"), ..Timeouts::default() },
        tokens: tokens(values)?,
        shared: values.maybe("data-dir").is_none(),
        ..Config::new(KUBERNETES_PRODUCT, listen, range)
    })
}

fn tokens(values: &Values) -> anyhow::Result<tokens::Config> {
    let mut config = tokens::Config::new(KUBERNETES_PRODUCT);
    let read = |flag: &str, path: &str| std::fs::read(path).with_context(|| format!("--{flag}: {path}"));
    if let Some(path) = values.maybe("service-account-signing-key-file") {
        let pem = read("service-account-signing-key-file", &path)?;
        let key = SigningKey::read(&pem).with_context(|| format!("--service-account-signing-key-file: {path}"))?;
        config.signing_key = Some(Arc::new(key));
    }
    for path in values.list("service-account-key-file") {
        let pem = read("service-account-key-file", &path)?;
        config.keys.extend(PublicKey::read(&pem).with_context(|| format!("--service-account-key-file: {path}"))?);
    }
    if !config.keys.is_empty() && config.signing_key.is_none() {
        bail!("--service-account-key-file: needs --service-account-signing-key-file");
    }
    let (issuers, audiences) = (values.list("service-account-issuer"), values.list("api-audiences"));
    if !issuers.is_empty() {
        config.issuers = issuers;
    }
    config.audiences = if audiences.is_empty() { config.issuers.clone() } else { audiences };
    config.keys_url = values.maybe("service-account-jwks-uri");
    if let Some(url) = config.keys_url.as_ref().filter(|it| !it.starts_with("https://")) {
        bail!("--service-account-jwks-uri: {url} is no https URL");
    }
    let longest = values.duration("service-account-max-token-expiration");
    if !longest.is_zero() && !(Duration::from_secs(3600)..=Duration::from_secs(1 << 32)).contains(&longest) {
        bail!("--service-account-max-token-expiration: must be between 1 hour and 2^32 seconds");
    }
    config.longest = (!longest.is_zero()).then_some(longest);
    Ok(config)
}
