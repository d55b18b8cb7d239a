//! The process that holds a pod's namespaces open, and its image. Both are made from km itself, so that no image need be pulled.

mod image;

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

pub use image::{ensure, reference};

/// Sleeps until SIGINT or SIGTERM, and reaps orphaned processes (in a pod with a shared PID namespace, this process is PID 1). The process
/// must have no other threads.
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
        // Before each wait: one SIGCHLD may stand for several children, and some may have exited before it was blocked.
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        if signals.wait()? != Signal::SIGCHLD {
            return Ok(());
        }
    }
}
