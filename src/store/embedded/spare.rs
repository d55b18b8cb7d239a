//! The next file of the log, prepared by a thread while the present one fills: it is full of zeros, which are on the disk. A sync of bytes
//! that replace others costs about two thirds of one in space that is only allocated, where the file system must also record what is written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::log::{Log, SEGMENT};
use super::segment::Segment;

/// Bytes per write, so that the syncs of the log are not held up for long.
const STEP: usize = 1 << 20;

/// At most one prepared file.
#[derive(Debug, Default)]
pub(super) struct Spare {
    preparing: Option<Preparing>,
}

#[derive(Debug)]
struct Preparing {
    /// Gives `None` if stopped, or after a failure: the log then does without.
    thread: JoinHandle<Option<Segment>>,
    stop: Arc<AtomicBool>,
}

impl Spare {
    /// Starts to prepare a file, if there is none yet.
    pub(super) fn prepare(&mut self, log: &Log) {
        if self.preparing.is_some() {
            return;
        }
        let (path, stop) = (log.spare(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let work = move || match fill(path.clone(), &stopped) {
            Ok(segment) => segment,
            Err(error) => {
                tracing::debug!("{}: {error}", path.display());
                let _ = std::fs::remove_file(&path);
                None
            }
        };
        match std::thread::Builder::new().name("store-spare".into()).spawn(work) {
            Ok(thread) => self.preparing = Some(Preparing { thread, stop }),
            Err(error) => tracing::debug!("starting a thread: {error}"),
        }
    }

    /// The prepared file; waits for one that is not ready.
    pub(super) fn take(&mut self) -> Option<Segment> {
        self.preparing.take()?.thread.join().ok()?
    }

    /// Ends the work, and deletes what there is of the file.
    pub(super) fn stop(&mut self) {
        if let Some(preparing) = &self.preparing {
            preparing.stop.store(true, Ordering::Relaxed);
        }
        if let Some(segment) = self.take() {
            // Otherwise the next start deletes it.
            let _ = std::fs::remove_file(segment.path());
        }
    }
}

/// `None` if stopped.
fn fill(path: PathBuf, stop: &AtomicBool) -> io::Result<Option<Segment>> {
    let _ = std::fs::remove_file(&path);
    let segment = Segment::allocate(path, SEGMENT)?;
    if segment.header().room < SEGMENT {
        // The rest of a full disk is for the log.
        return Err(io::Error::other("no room for it"));
    }
    let zeros = vec![0; STEP];
    for offset in (0..SEGMENT).step_by(STEP) {
        if stop.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(segment.path());
            return Ok(None);
        }
        segment.write(&zeros, offset)?;
        segment.sync()?;
    }
    Ok(Some(segment))
}
