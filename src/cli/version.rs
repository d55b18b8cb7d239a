//! `km version`.

use super::Server;
use super::flag::{Flag, Kind, Values};
use crate::util::version::{KM, KUBERNETES};

const FLAGS: &[Flag] = &[Flag::new("output", Kind::Text, "", "json prints the versions as JSON")];

pub(super) const SERVER: Server = Server {
    name: "version",
    installed_as: &[],
    about: "Print the version of km and of the Kubernetes API that it serves",
    flags: FLAGS,
    run,
    hidden: false,
};

fn run(values: Values) -> anyhow::Result<()> {
    match values.text("output").as_str() {
        "" => show(&format!("km v{KM}\nKubernetes {KUBERNETES}")),
        "json" => show(&serde_json::json!({ "km": format!("v{KM}"), "kubernetes": KUBERNETES }).to_string()),
        other => anyhow::bail!("--output: {other:?} is not known, expected json"),
    }
    Ok(())
}

/// Prints the version for `--version` and `--version=raw`.
pub(super) fn print(form: &str) {
    show(&if form == "raw" {
        format!("km v{KM}, Kubernetes {KUBERNETES}, {}", std::env::consts::ARCH)
    } else {
        format!("Kubernetes {KUBERNETES}")
    });
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn show(text: &str) {
    println!("{text}");
}
