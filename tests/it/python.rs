//! The Python client of Kubernetes, from PyPI, against a running km: the scripts in `python/`.

use std::path::Path;
use std::process::Command;

use crate::support::plane::Plane;
use crate::support::process::run;
use crate::support::source;

/// The client for the API version that km serves.
const CLIENT: &str = "kubernetes==33.1.0";

/// A Python with the client, made once for a target directory.
fn python() -> std::path::PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(CLIENT);
    let python = dir.join("bin/python");
    if !dir.join("complete").exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", CLIENT]));
        std::fs::write(dir.join("complete"), "").unwrap();
    }
    python
}

#[test]
fn the_python_client() {
    let (python, plane) = (python(), Plane::start());
    let mut tests = Command::new(python);
    tests.args(["-B", "-m", "unittest", "discover", "--start-directory", "."]).current_dir(source("tests/it/python"));
    run(tests.env("SERVER", &plane.url).env("NO_PROXY", "127.0.0.1"));
}
