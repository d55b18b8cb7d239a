//! The values that cross the runtime contract.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWrite;

/// The engine's name and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Lower case, as in `docker://<container id>`.
    pub name: String,
    pub version: String,
    pub kernel: String,
    pub os: String,
    pub os_image: String,
    pub arch: String,
    /// Whether a container's cgroup parent is a path, rather than a systemd slice.
    pub cgroup_paths: bool,
}

/// A local image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// `name@sha256:…`, for an image that came from a registry.
    pub digest: Option<String>,
    /// The user of its processes, from the image; empty for root.
    pub user: String,
}

/// Credentials for a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub server: String,
    pub user: String,
    pub password: String,
}

/// Without the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.server)
    }
}

/// Everything about a container to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entrypoint (and with it the image's arguments).
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's arguments.
    pub args: Option<Vec<String>>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    /// `uid`, `uid:gid` or a name.
    pub user: Option<String>,
    pub extra_groups: Vec<i64>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub mounts: Vec<Mount>,
    pub network: Network,
    pub ipc: Namespace,
    pub pid: Namespace,
    pub limits: Limits,
    pub security: Security,
    pub log: LogRotation,
}

/// Where a container's network comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Network {
    /// A network of its own.
    Own(Box<OwnNetwork>),
    /// The network of another container, by id.
    Of(String),
    #[default]
    Host,
}

/// A network namespace to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnNetwork {
    pub hostname: String,
    pub ports: Vec<PublishedPort>,
    /// Empty: as on the host.
    pub dns: Dns,
    /// Lines for `/etc/hosts`: name and address.
    pub hosts: Vec<(String, String)>,
}

/// The content of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// A port of the host that leads into the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    pub container: u16,
    pub host: u16,
    /// Empty: every address of the host.
    pub host_ip: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// The namespace that a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    #[default]
    Own,
    /// Its own, which other containers may join.
    Shareable,
    Of(String),
    Host,
}

/// A directory or file of the host inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub propagation: Propagation,
}

/// Which way mounts made below a mount travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// Zero means no limit, or the engine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight: 1024 for one CPU.
    pub cpu_shares: i64,
    /// Microseconds of CPU time in each period of 100 ms.
    pub cpu_quota: i64,
    /// Bytes; swap is not allowed on top.
    pub memory: i64,
    pub pids: i64,
    pub oom_score_adj: i64,
    pub cgroup_parent: String,
    /// Bytes of `/dev/shm`.
    pub shm: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub add: Vec<String>,
    pub drop: Vec<String>,
    /// `unconfined`, or the path of a profile.
    pub seccomp: Option<String>,
    pub apparmor: Option<String>,
    pub sysctls: BTreeMap<String, String>,
}

/// How much of a container's output is kept. Zero means no rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRotation {
    /// Bytes.
    pub max_size: u64,
    pub max_files: u32,
}

/// One entry of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub running: bool,
}

/// A container as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// The reference it was made from.
    pub image: String,
    pub image_id: String,
    pub created: Timestamp,
    pub state: State,
    /// Its addresses, if its network is its own.
    pub ips: Vec<String>,
    pub pid: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    Running {
        started: Timestamp,
    },
    Exited(Exit),
}

impl State {
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    /// When it started; if it could not be started, when that was tried.
    pub started: Timestamp,
    /// Not before `started`.
    pub finished: Timestamp,
    pub oom_killed: bool,
    /// The engine's message, if it could not start the container.
    pub error: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    /// Only this many lines at the end.
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    /// Each line begins with its time, RFC 3339 with nanoseconds.
    pub timestamps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    pub stream: LogStream,
    pub data: Bytes,
}

/// A command to run inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    pub command: Vec<String>,
    pub stdin: bool,
    pub tty: bool,
}

/// A running command, with its output and input.
pub struct ExecSession {
    /// For [`super::Runtime::exec_exit_code`].
    pub id: String,
    pub output: BoxStream<'static, super::Result<LogChunk>>,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exec {}", self.id)
    }
}

/// A state change of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Started,
    Died,
    OutOfMemory,
    Removed,
}

/// The current resource usage of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds since it started.
    pub cpu: u64,
    /// Bytes, without caches that can be dropped at once.
    pub memory: u64,
}
