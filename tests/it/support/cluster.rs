//! The parts of a whole cluster, started as their users start them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::docker::Docker;
use super::host::Host;
use super::process::{Process, run};
use super::{km, source, wait_for};

/// etcd, on the port of the tutorial.
pub fn etcd(host: &Host) -> Process {
    let (data, url) = (host.dir().join("etcd"), format!("http://{}:4001", Host::IP));
    let mut command = host.command("etcd");
    command.arg("--data-dir").arg(data).args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380"]);
    command.args(["--initial-cluster", "default=http://127.0.0.1:2380"]);
    let mut etcd = Process::start("etcd", &mut command, &host.dir().join("etcd.log"));
    wait_for("etcd", Duration::from_secs(30), || {
        assert!(etcd.ended().is_none(), "etcd ended");
        let healthy = host.command("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", &url, "endpoint", "health"]).output();
        if healthy.is_ok_and(|it| it.status.success()) { Ok(()) } else { Err("not healthy".to_owned()) }
    });
    etcd
}

/// A Mesos master and agent in one process; the agent's executors use the Docker engine at `docker`.
pub fn mesos(host: &Host, docker: &str) -> Process {
    let mut command = host.command(source("scripts/mesos"));
    command.args(["start", "--ip", Host::IP, "--port", "5050"]).arg("--work-dir").arg(host.dir().join("mesos"));
    command.args(["--resources", "cpus:8;mem:8192;disk:10000;ports:[31000-32000]"]);
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let cache = std::env::var("XDG_CACHE_HOME").map_or_else(|_| PathBuf::from(home).join(".cache"), PathBuf::from);
    command.env("MESOS_TEST_HOME", std::env::var_os("MESOS_TEST_HOME").unwrap_or_else(|| cache.join("mesos-1.11.0").into()));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("MESOS_EXECUTOR_ENVIRONMENT_VARIABLES", format!("{{\"DOCKER_HOST\": \"{docker}\", \"PATH\": \"{path}\"}}"));
    let mut mesos = Process::start("mesos", &mut command, &host.dir().join("mesos.log"));
    wait_for("the Mesos agent", Duration::from_secs(60), || {
        assert!(mesos.ended().is_none(), "Mesos ended");
        let state = host.command("curl").args(["-sf", &format!("http://{}:5050/master/state", Host::IP)]).output();
        let state = state.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
        if state.contains("\"activated_slaves\":1.0") || state.contains("\"activated_slaves\":1,") { Ok(()) } else { Err(state) }
    });
    mesos
}

/// A registry at `127.0.0.1:5000` that serves as the engine's mirror.
pub fn registry(host: &Host) -> Process {
    let config = host.dir().join("registry.yml");
    let files = host.dir().join("registry");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:5000\n",
        files.display()
    );
    std::fs::write(&config, text).expect("the registry's configuration");
    let mut registry =
        Process::start("docker-registry", host.command("docker-registry").arg("serve").arg(&config), &host.dir().join("registry.log"));
    wait_for("the registry", Duration::from_secs(30), || {
        assert!(registry.ended().is_none(), "the registry ended");
        let answer = host.command("curl").args(["-sf", "http://127.0.0.1:5000/v2/"]).output();
        if answer.is_ok_and(|it| it.status.success()) { Ok(()) } else { Err("no answer".to_owned()) }
    });
    registry
}

/// Puts a local image into the registry under the name by which Docker Hub would have it, and forgets the local one.
pub fn publish(docker: &Docker, local: &str, name: &str) {
    let pushed = format!("127.0.0.1:5000/library/{name}");
    run(docker.command().args(["tag", local, &pushed]));
    run(docker.command().args(["push", "--quiet", &pushed]));
    run(docker.command().args(["rmi", "--force", local, &pushed]));
}

/// Runs one of the tutorial's command lines in a shell: `$IP` and `$MESOS_MASTER` are set, and `km` is on the PATH.
pub fn shell(host: &Host, name: &str, line: &str) -> Process {
    let bin = host.dir().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).expect("a directory");
        std::os::unix::fs::symlink(km(), bin.join("km")).expect("a link to km");
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = host.command("bash");
    // exec: signals reach km itself.
    command.arg("-c").arg(format!("exec {line}")).env("PATH", path).env("IP", Host::IP).env("MESOS_MASTER", format!("{}:5050", Host::IP));
    Process::start(name, &mut command, &host.dir().join(format!("{name}.log")))
}

/// kubectl for the API server of the tutorial.
pub fn kubectl(host: &Host) -> Command {
    let mut command = host.command("kubectl");
    command.arg(format!("--server=http://{}:8888", Host::IP));
    command
}
