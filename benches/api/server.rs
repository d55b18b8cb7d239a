//! The measured servers, each on free ports and in its own directory; they end with their owners.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use km::store::etcd;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::request::{Ask, Request, TOKEN};

const RANGE: &str = "--service-cluster-ip-range=10.10.10.0/24";
/// No controllers run, so there are no service accounts. Other work that a kube-apiserver does by itself is turned off.
const PLUGINS: &str = "NamespaceLifecycle,LimitRanger,ResourceQuota";
const OTHER_PLUGINS: &str = "ServiceAccount,TaintNodesByCondition,PodSecurity,Priority,DefaultTolerationSeconds,DefaultStorageClass,\
    StorageObjectInUseProtection,PersistentVolumeClaimResize,RuntimeClass,CertificateApproval,CertificateSigning,ClusterTrustBundleAttest,\
    CertificateSubjectRestriction,DefaultIngressClass,MutatingAdmissionPolicy,MutatingAdmissionWebhook,ValidatingAdmissionPolicy,\
    ValidatingAdmissionWebhook";

/// Time for a server to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A measured process, ended with its owner.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> std::io::Result<Self> {
        command.spawn().map(Self)
    }

    /// CPU time so far, user and system.
    pub(super) fn computed(&self) -> Duration {
        // Linux reports hundredths of a second, whatever its clock.
        const TICK: Duration = Duration::from_millis(10);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name, in parentheses, may contain anything.
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        let ticks: u32 = after_name.split(' ').skip(11).take(2).map(|it| it.parse::<u32>().unwrap()).sum();
        TICK * ticks
    }

    /// Resident memory in MB.
    pub(super) fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1e3
    }

    /// Waits until the process has been idle for two seconds.
    pub(super) async fn quiet(&self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let before = self.computed();
            tokio::time::sleep(Duration::from_secs(2)).await;
            if self.computed() - before < Duration::from_millis(30) {
                return;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(super) struct ApiServer {
    pub(super) address: SocketAddr,
    /// TLS, if the server needs it.
    pub(super) tls: Option<TlsConnector>,
    pub(super) process: Process,
    /// Time from the start until ready.
    pub(super) start: Duration,
    dir: TempDir,
}

impl ApiServer {
    pub(super) async fn on_embedded_store(km: &Path) -> Self {
        Self::in_directory(km, tempfile::tempdir().unwrap()).await
    }

    async fn in_directory(km: &Path, dir: TempDir) -> Self {
        let store = format!("--data-dir={}", dir.path().join("data").display());
        Self::start(km, dir, &store).await
    }

    /// Kills the server and starts another on its embedded store.
    pub(super) async fn again(self, km: &Path) -> Self {
        drop(self.process);
        Self::in_directory(km, self.dir).await
    }

    pub(super) async fn on_etcd(km: &Path, url: &str) -> Self {
        Self::start(km, tempfile::tempdir().unwrap(), &format!("--etcd-servers={url}")).await
    }

    async fn start(km: &Path, dir: TempDir, store: &str) -> Self {
        let address = free();
        let mut command = Command::new(km);
        command.args(["apiserver", "--address=127.0.0.1", "--secure-port=0", RANGE, store]);
        command.arg(format!("--port={}", address.port())).arg(format!("--admission-control={PLUGINS}"));
        Self::ready(command, dir, address, None).await
    }

    /// A kube-apiserver, which requires TLS and a token.
    pub(super) async fn kubernetes(path: &Path, etcd_url: &str) -> Self {
        let (address, dir) = (free(), tempfile::tempdir().unwrap());
        let file = |name: &str| dir.path().join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(file("tokens"), format!("{TOKEN},bench,bench,system:masters\n")).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        std::fs::write(file("public"), key.public_key_pem()).unwrap();
        let mut command = Command::new(path);
        command.args(["--bind-address=127.0.0.1", "--authorization-mode=AlwaysAllow", "--etcd-prefix=/kube-apiserver", RANGE]);
        command.args(["--endpoint-reconciler-type=none", "--service-account-issuer=https://bench.example"]);
        command.arg(format!("--etcd-servers={etcd_url}")).arg(format!("--secure-port={}", address.port()));
        command.arg(format!("--enable-admission-plugins={PLUGINS}")).arg(format!("--disable-admission-plugins={OTHER_PLUGINS}"));
        for (flag, file) in [
            ("token-auth-file", file("tokens")),
            ("service-account-key-file", file("public")),
            ("service-account-signing-key-file", file("key")),
            ("cert-dir", file("certificates")),
        ] {
            command.arg(format!("--{flag}={}", file.display()));
        }
        let config = km::client::unverified().unwrap().with_no_client_auth();
        Self::ready(command, dir, address, Some(TlsConnector::from(Arc::new(config)))).await
    }

    /// Starts the server and waits until it is ready.
    async fn ready(mut command: Command, dir: TempDir, address: SocketAddr, tls: Option<TlsConnector>) -> Self {
        let log = dir.path().join("log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let begun = Instant::now();
        let mut process = Process::start(&mut command).unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let requests = Arc::new(vec![Request::read("/readyz".to_owned()).bytes()]);
        loop {
            if let Ok(mut ask) = Ask::open(address, tls.as_ref(), requests.clone()).await
                && ask.ask(0).await.is_ok_and(|(status, _)| status == 200)
            {
                return Self { address, tls, process, start: begun.elapsed(), dir };
            }
            let ended = process.0.try_wait().unwrap().is_some();
            assert!(!ended && begun.elapsed() < PATIENCE, "the API server is not ready: {}", std::fs::read_to_string(log).unwrap());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(super) struct Etcd {
    pub(super) url: String,
    _process: Process,
    _dir: TempDir,
}

impl Etcd {
    /// `None` if etcd is not installed.
    pub(super) async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (url, peer) = (format!("http://{}", free()), format!("http://{}", free()));
        let mut command = Command::new("etcd");
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
        command.arg("--data-dir").arg(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start(&mut command).ok()?;
        etcd::Etcd::connect(etcd::Config::new([&url])).await.unwrap();
        Some(Self { url, _process: process, _dir: dir })
    }
}
