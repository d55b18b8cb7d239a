//! The tutorial, as its users type it: real etcd, real Mesos, real Docker, a registry as the engine's mirror, a real kubectl.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::cluster::{etcd, kubectl, mesos, publish, registry, shell};
use crate::support::docker::Docker;
use crate::support::host::Host;
use crate::support::process::{Process, run};
use crate::support::wait_for;

const APISERVER: &str = "km apiserver --address=$IP --etcd-servers=http://$IP:4001 --service-cluster-ip-range=10.10.10.0/24 --port=8888 \
    --cloud-provider=mesos --cloud-config=mesos-cloud.conf --secure-port=0 --v=1";
const CONTROLLER_MANAGER: &str = "km controller-manager --master=$IP:8888 --cloud-provider=mesos --cloud-config=./mesos-cloud.conf --v=1";
const SCHEDULER: &str = "km scheduler --address=$IP --mesos-master=$MESOS_MASTER --etcd-servers=http://$IP:4001 --mesos-user=root \
    --api-servers=$IP:8888 --cluster-dns=10.10.10.10 --cluster-domain=cluster.local --v=2";

const NGINX: &str = "apiVersion: v1
kind: Pod
metadata:
  name: nginx
  labels:
    app: web
spec:
  containers:
  - name: nginx
    image: nginx
    ports:
    - containerPort: 80
";

const RC: &str = "apiVersion: v1
kind: ReplicationController
metadata:
  name: web
spec:
  replicas: 3
  selector:
    app: rc-web
  template:
    metadata:
      labels:
        app: rc-web
    spec:
      containers:
      - name: nginx
        image: nginx
        ports:
        - containerPort: 80
";

/// A whole cluster after the tutorial's set-up. Fields are dropped, and so stopped, in this order.
struct Tutorial {
    scheduler: Option<Process>,
    controller_manager: Process,
    apiserver: Process,
    mesos: Option<Process>,
    etcd: Option<Process>,
    docker: Docker,
    _registry: Process,
    host: Host,
}

impl Tutorial {
    fn start() -> Self {
        let host = Host::new();
        let registry = registry(&host);
        let docker = Docker::start(&host, Some("http://127.0.0.1:5000"));
        add_nginx(&docker, host.dir());
        publish(&docker, "local/nginx", "nginx");
        let etcd = etcd(&host);
        let mesos = mesos(&host, &docker.endpoint());
        std::fs::write(host.dir().join("mesos-cloud.conf"), format!("[mesos-cloud]\n\tmesos-master        = {}:5050\n", Host::IP)).unwrap();
        let mut apiserver = shell(&host, "apiserver", APISERVER);
        wait_for("the API server", Duration::from_secs(30), || {
            assert!(apiserver.ended().is_none(), "the API server ended: {}", apiserver.said());
            let ready = kubectl(&host).args(["get", "--raw", "/readyz"]).output().expect("kubectl is installed");
            if ready.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ready.stderr).into_owned()) }
        });
        let controller_manager = shell(&host, "controller-manager", CONTROLLER_MANAGER);
        let scheduler = shell(&host, "scheduler", SCHEDULER);
        Self {
            scheduler: Some(scheduler),
            controller_manager,
            apiserver,
            mesos: Some(mesos),
            etcd: Some(etcd),
            docker,
            _registry: registry,
            host,
        }
    }

    fn create(&self, name: &str, manifest: &str) {
        let file = self.host.dir().join(name);
        std::fs::write(&file, manifest).unwrap();
        let said = run(kubectl(&self.host).arg("create").arg("-f").arg(file));
        assert!(said.contains("created"), "{said}");
    }

    /// Waits until the controller manager's log has this so many times.
    fn controller_manager_says(&self, what: &str, count: usize) {
        wait_for(what, Duration::from_secs(60), || {
            let said = self.controller_manager.said();
            if said.matches(what).count() == count { Ok(()) } else { Err(said) }
        });
    }

    /// Rows of `kubectl get pods`, without the header.
    fn pods(&self, labels: &str) -> Vec<Vec<String>> {
        let out = kubectl(&self.host).args(["get", "pods", "--no-headers", "-l", labels]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    /// Waits until exactly `count` pods with this label are `1/1 Running`; returns their rows.
    fn running(&self, labels: &str, count: usize) -> Vec<Vec<String>> {
        wait_for(&format!("{count} pods {labels}"), Duration::from_secs(120), || {
            let rows = self.pods(labels);
            let up = rows.iter().filter(|row| row[1] == "1/1" && row[2] == "Running").count();
            if up == count && rows.len() == count { Ok(rows) } else { Err(format!("{rows:?}")) }
        })
    }
}

/// nginx from Debian's package, with the libraries it needs, as `local/nginx`.
fn add_nginx(docker: &Docker, dir: &Path) {
    let (debs, root) = (dir.join("debs"), dir.join("nginx"));
    std::fs::create_dir_all(&debs).unwrap();
    for package in ["nginx", "nginx-common"] {
        run(Command::new("apt-get").args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]).current_dir(&debs));
    }
    for deb in std::fs::read_dir(&debs).unwrap() {
        run(Command::new("dpkg").arg("-x").arg(deb.unwrap().path()).arg(&root));
    }
    let linked = run(Command::new("ldd").arg(root.join("usr/sbin/nginx")));
    for library in linked.split_whitespace().filter(|it| it.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(library, to).unwrap();
    }
    for made in ["var/log/nginx", "var/lib/nginx", "run", "tmp", "var/www/html"] {
        std::fs::create_dir_all(root.join(made)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    std::fs::write(root.join("var/www/html/index.html"), "Welcome to nginx!\n").unwrap();
    let config =
        "user root;\nevents {}\nhttp { access_log /dev/stdout; error_log /dev/stderr; server { listen 80; root /var/www/html; } }\n";
    std::fs::write(root.join("etc/nginx/nginx.conf"), config).unwrap();
    docker.import("local/nginx", &root, &["CMD [\"/usr/sbin/nginx\", \"-g\", \"daemon off;\"]", "EXPOSE 80"]);
}

/// The response of a component; empty while it is down.
fn fetch(host: &Host, port: u16, path: &str) -> String {
    let answer = host.command("curl").args(["-sf", &format!("http://{}:{port}{path}", Host::IP)]).output().expect("curl is installed");
    String::from_utf8_lossy(&answer.stdout).into_owned()
}

#[test]
fn the_tutorial_runs_nginx() {
    let mut cluster = Tutorial::start();
    cluster.create("nginx.yaml", NGINX);
    cluster.running("app=web", 1);

    let services = wait_for("the services", Duration::from_secs(30), || {
        let out = run(kubectl(&cluster.host).args(["get", "services"]));
        if out.contains("k8sm-scheduler") { Ok(out) } else { Err(out) }
    });
    let row = |name: &str| {
        services.lines().find(|it| it.starts_with(name)).map(|it| it.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!((row("kubernetes")[2], row("kubernetes")[4]), ("10.10.10.1", "443/TCP"), "{services}");
    assert_eq!(row("k8sm-scheduler")[4], "10251/TCP", "{services}");

    // The pod serves on its host port, and its log shows that.
    let port = run(kubectl(&cluster.host).args([
        "get",
        "pod",
        "nginx",
        "-o",
        "jsonpath={.metadata.annotations.k8s\\.mesosphere\\.io/port_TCP_80}",
    ]));
    let page = run(cluster.host.command("curl").args(["-sf", &format!("http://{}:{port}/", Host::IP)]));
    assert!(page.contains("Welcome to nginx!"), "{page}");
    wait_for("the log", Duration::from_secs(10), || {
        let log = run(kubectl(&cluster.host).args(["logs", "nginx"]));
        if log.contains("GET / HTTP") { Ok(()) } else { Err(log) }
    });

    // Mesos knows the framework and the task by the original's names.
    let state = fetch(&cluster.host, 5050, "/master/state");
    assert!(state.contains("\"name\":\"Kubernetes\"") && state.contains("\"name\":\"nginx.default.pod\""), "{state}");

    run(kubectl(&cluster.host).args(["delete", "pod", "nginx", "--timeout=60s"]));
    wait_for("no container", Duration::from_secs(30), || {
        let left = cluster.docker.running("io.kubernetes.pod.name=nginx");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert!(cluster.apiserver.ended().is_none());
    assert!(cluster.apiserver.stop().success(), "SIGTERM is a clean end");
}

#[test]
fn three_replicas_survive_whatever_is_restarted() {
    let mut cluster = Tutorial::start();
    cluster.create("rc.yaml", RC);
    let before = cluster.running("app=rc-web", 3);

    // A deleted pod is recreated.
    run(kubectl(&cluster.host).args(["delete", "pod", &before[0][0], "--timeout=60s"]));
    let names = |rows: &[Vec<String>]| rows.iter().map(|row| row[0].clone()).collect::<std::collections::BTreeSet<_>>();
    let after = cluster.running("app=rc-web", 3);
    assert_ne!(names(&before), names(&after));
    let mut containers = cluster.docker.running("io.kubernetes.pod.namespace=default");
    containers.sort();
    let unchanged = |cluster: &Tutorial, what: &str| {
        assert_eq!(names(&cluster.running("app=rc-web", 3)), names(&after), "{what}");
        let mut now = cluster.docker.running("io.kubernetes.pod.namespace=default");
        now.sort();
        assert_eq!(now, containers, "{what}");
    };

    // The scheduler is killed, and started again.
    cluster.scheduler.take().unwrap().kill();
    cluster.scheduler = Some(shell(&cluster.host, "scheduler-2", SCHEDULER));
    wait_for("the second scheduler", Duration::from_secs(60), || {
        let state = fetch(&cluster.host, 10251, "/debug/registry/tasks");
        if state.matches("default/web-").count() == 3 { Ok(()) } else { Err(state) }
    });
    unchanged(&cluster, "after the scheduler's restart");

    // etcd is away for so long that the controller manager loses its lease.
    cluster.etcd.take().unwrap().kill();
    cluster.controller_manager_says("standing for election again", 1);
    assert_eq!(fetch(&cluster.host, 8888, "/readyz"), "", "the API server is not ready");
    cluster.etcd = Some(etcd(&cluster.host));
    wait_for("the API server to write again", Duration::from_secs(60), || {
        let said = kubectl(&cluster.host).args(["label", "--overwrite", "rc", "web", "etcd=back"]).output().unwrap();
        if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into_owned()) }
    });
    cluster.controller_manager_says("leads kube-controller-manager", 2);
    unchanged(&cluster, "after etcd's restart");

    // The agent (and with it the master) is killed, and started again on the same work directory.
    cluster.mesos.take().unwrap().signal(Signal::SIGKILL);
    cluster.mesos = Some(mesos(&cluster.host, &cluster.docker.endpoint()));
    wait_for("the executor to be back", Duration::from_secs(60), || {
        let state = fetch(&cluster.host, 5050, "/master/state");
        if state.matches("\"state\":\"TASK_RUNNING\"").count() >= 3 { Ok(()) } else { Err(state) }
    });
    unchanged(&cluster, "after the agent's restart");

    // And everything still works.
    run(kubectl(&cluster.host).args(["scale", "rc", "web", "--replicas=1"]));
    cluster.running("app=rc-web", 1);
}
