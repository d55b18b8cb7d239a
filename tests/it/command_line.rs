//! Errors of km's command line: one line that names the flag, the file or the address, and an exit code.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use crate::support::km;

/// Runs km to its end in a directory; returns its last error line.
fn refused(directory: &tempfile::TempDir, line: &str) -> String {
    let mut command = Command::new(km());
    command.args(line.split_whitespace()).current_dir(directory).stdin(Stdio::null()).env_remove("KUBECONFIG");
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{line}: {said}");
    said.lines().rfind(|line| line.starts_with("Error: ")).unwrap_or_else(|| panic!("{line}: {said}")).to_owned()
}

const APISERVER: &str = "apiserver --secure-port=0 --service-cluster-ip-range=10.10.10.0/24";

#[test]
fn mistakes_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("cloud.conf", "[mesos-cloud]\nmesos-masta = h:1\n"),
        ("torn.conf", "[mesos-cloud]\nmesos-master\n[x]\n"),
        ("tuning.ini", "[scheduler]\noffer-ttl = soon\n"),
        ("file", ""),
    ] {
        std::fs::write(directory.path().join(file), text).unwrap();
    }
    let scheduler = "scheduler --api-servers=127.0.0.1:1 --etcd-servers=http://127.0.0.1:1";
    for (line, expected) in [
        ("controller-manager --master=h:1 --cloud-config=cloud.conf", "cloud.conf: [mesos-cloud] unknown key mesos-masta"),
        ("controller-manager --master=h:1 --cloud-config=torn.conf", "torn.conf: line 2: expected a [section], or key = value"),
        ("controller-manager --master=h:1 --cloud-config=none.conf", "--cloud-config: none.conf: No such file"),
        ("controller-manager", "--master is missing"),
        (&format!("{scheduler} --scheduler-config=tuning.ini"), "tuning.ini: offer-ttl: \"soon\" is not a duration such as 5s"),
        (&format!("{scheduler} --framework-store-uri=zk://h"), "--framework-store-uri: \"zk://h\" is neither etcd://"),
        (&format!("{scheduler} --mesos-authentication-provider=magic"), "\"magic\" is not known, expected SASL or basic"),
        ("scheduler --api-servers=127.0.0.1:1", "--etcd-servers is missing"),
        ("scheduler --prot=1", "unknown flag: --prot (did you mean --port?)"),
        ("apiserver --data-dir=d", "--service-cluster-ip-range is missing"),
        ("apiserver --data-dir=d --service-cluster-ip-range=10.10.10.0", "\"10.10.10.0\" is not a range in CIDR notation"),
        (&format!("{APISERVER} --data-dir=file"), "the store in file: "),
        (&format!("{APISERVER} --port=x"), "expected a whole number"),
        ("executor --api-servers=h:1", "is this not started by a Mesos agent?"),
        ("sheduler", "server not found: sheduler"),
        ("", "no server specified"),
    ] {
        let said = refused(&directory, line);
        assert!(said.contains(expected), "{line}: {said}");
    }
}

#[test]
fn a_taken_port_is_named_by_every_component() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    for line in [
        format!("{APISERVER} --data-dir=d --port={}", at.port()),
        format!("controller-manager --master=127.0.0.1:1 --address=127.0.0.1 --port={}", at.port()),
        format!("scheduler --api-servers=127.0.0.1:1 --framework-store-uri=zk://127.0.0.1:1/x --port={}", at.port()),
        format!("up --data-dir=u --port={}", at.port()),
    ] {
        let said = refused(&directory, &line);
        assert!(said.contains(&at.to_string()) && said.contains("Address already in use"), "{line}: {said}");
    }
}

#[test]
fn an_unreachable_etcd_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let said = refused(&directory, &format!("{APISERVER} --etcd-servers=http://127.0.0.1:1 --port=0"));
    assert!(said.contains("--etcd-servers") && said.contains("http://127.0.0.1:1") && said.contains("Connection refused"), "{said}");
}
