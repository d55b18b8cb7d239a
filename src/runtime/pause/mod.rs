//! The process that holds a pod's namespaces open, and the image it runs from: both are km itself, so that nothing has to be pulled.

mod image;

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

pub use image::{ensure, reference};

/// Sleeps until SIGINT or SIGTERM, collecting the exit status of processes that ended up as its children (in a pod that shares its PID
/// namespace this process is the first). Needs a process without other threads.
///
/// # Errors
/// If signals cannot be blocked or waited for.
pub fn run() -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    loop {
        // Before each wait: SIGCHLD tells of one child or of many, and some may have ended before it was blocked.
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        if signals.wait()? != Signal::SIGCHLD {
            return Ok(());
        }
    }
}
