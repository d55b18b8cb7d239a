//! `km up`: everything on one machine, in one process.

use super::Server;
use super::flag::{Flag, Kind, Values};

const FLAGS: &[Flag] = &[
    Flag::new("data-dir", Kind::Text, "", "Where everything is kept; the default is km below XDG_DATA_HOME, or ~/.local/share/km"),
    Flag::new("address", Kind::Ip, "127.0.0.1", "Address to serve the API on"),
    Flag::new("port", Kind::Integer, "8888", "Port to serve the API on; 0 picks a free one"),
    Flag::new("service-cluster-ip-range", Kind::Text, "10.10.10.0/24", "CIDR from which services get their addresses"),
    Flag::new("docker-endpoint", Kind::Text, "", "Docker engine; the default is DOCKER_HOST, or unix:///var/run/docker.sock"),
    Flag::new("kubeconfig", Kind::Text, "", "Where to write the kubeconfig; the default is in the data directory"),
    Flag::new(
        "resources",
        Kind::Text,
        "",
        "What the one agent offers, such as cpus:4;mem:4096;ports:[31000-32000]; the default is this machine's",
    ),
];

pub(super) const SERVER: Server = Server {
    name: "up",
    installed_as: &[],
    about: "Run a whole cluster on this machine, in one process",
    flags: FLAGS,
    run,
    hidden: false,
};

fn run(values: Values) -> anyhow::Result<()> {
    let _ = values;
    anyhow::bail!("being wired")
}
