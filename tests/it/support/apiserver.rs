//! `km apiserver` as a process, and requests to it over bare sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::Process;
use super::{free_port, km, wait_for};

fn launch(dir: &Path, flags: &[String], address: SocketAddr) -> Process {
    let mut command = Command::new(km());
    command.arg("apiserver").arg(format!("--port={}", address.port())).args(flags);
    if !flags.iter().any(|it| it.starts_with("--etcd-servers")) {
        command.arg(format!("--data-dir={}", dir.join("data").display()));
    }
    command.args(["--address=127.0.0.1", "--secure-port=0", "--service-cluster-ip-range=10.10.10.0/24"]);
    // Accounts of namespaces would have to be waited for, where there is no controller.
    if !flags.iter().any(|it| it.starts_with("--admission-control")) {
        command.arg("--admission-control=NamespaceLifecycle,LimitRanger,ResourceQuota");
    }
    Process::start("apiserver", &mut command, &dir.join(format!("apiserver-{}.log", address.port())))
}

/// An API server that serves.
#[derive(Debug)]
pub struct ApiServer {
    pub address: SocketAddr,
    pub process: Process,
    dir: PathBuf,
    flags: Vec<String>,
}

impl ApiServer {
    /// Starts a server with additional flags; its log is in `dir`, and so is its data unless the flags override that.
    pub fn start(dir: &Path, flags: &[String]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let process = launch(dir, flags, address);
        let mut server = Self { address, process, dir: dir.to_owned(), flags: flags.to_vec() };
        server.wait();
        server
    }

    /// Ends it by this signal, and starts it again at the same address.
    pub fn restart(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.stop();
        self.process = launch(&self.dir, &self.flags, self.address);
        self.wait();
    }

    fn wait(&mut self) {
        wait_for("the API server", Duration::from_secs(60), || {
            assert!(self.process.ended().is_none(), "the API server ended: {}", self.process.said());
            let ready = self.try_get("/readyz").map_err(|error| error.to_string())?;
            if ready.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(ready) }
        });
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn try_get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The whole answer, head included.
    pub fn get(&self, path: &str) -> String {
        self.try_get(path).expect("the API server answers")
    }

    /// The response to these bytes, until the server closes the connection; `half_close` first closes the sending side.
    pub fn say(&self, bytes: &[u8], half_close: bool) -> String {
        let mut stream = TcpStream::connect(self.address).expect("the API server is there");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        // It may close the connection before all is sent.
        let _ = stream.write_all(bytes);
        if half_close {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the connection does not end: {error}; so far: {}", String::from_utf8_lossy(&answer)),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("the server runs");
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}
