//! Reclaims space: copies the live records of the oldest files into one new file that replaces them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::index::Place;
use super::log::{Log, SEGMENT};
use super::record::{Group, Record, What};
use super::segment::{HEADER, Header, Segment, Unreadable};
use super::tail::{Sealed, Tail};
use crate::object::Revision;

/// Bytes of records per write.
const CHUNK: usize = 1 << 20;
/// How many values are relocated per lock, while readers wait.
const MOVES: usize = 256;

/// The reclaiming thread, if one runs.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    running: Option<Running>,
    /// The number of sealed files from which to try again after a failure.
    not_before: usize,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<Option<Sealed>>,
    replaces: usize,
    stop: Arc<AtomicBool>,
}

impl Reclaim {
    /// Starts reclaiming if more than half of the sealed bytes are superfluous, so that about one byte is copied for each byte reclaimed.
    /// Also collects the result of a finished run.
    pub(super) fn check(&mut self, log: &Arc<Log>, tail: &mut Tail) {
        if let Some(running) = self.running.take_if(|running| running.thread.is_finished()) {
            match running.thread.join() {
                Ok(Some(sealed)) => drop(tail.sealed.splice(..running.replaces, [sealed])),
                _ => self.not_before = tail.sealed.len() + 1,
            }
        }
        if self.running.is_some() || tail.sealed.len() < self.not_before {
            return;
        }
        let (forgotten, live) = {
            let state = log.state.read();
            (state.index.forgotten(), state.index.live())
        };
        let old: Vec<Sealed> = tail.sealed.iter().take_while(|sealed| sealed.last <= forgotten).cloned().collect();
        if old.iter().map(|sealed| sealed.bytes).sum::<u64>() <= 2 * live + SEGMENT {
            return;
        }
        let (log, id, stop) = (log.clone(), tail.take_id(), Arc::new(AtomicBool::new(false)));
        let (replaces, stopped) = (old.len(), stop.clone());
        let work = move || match replace(&log, &old, id, &stopped) {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::warn!("{}: reclaiming space: {error}", log.dir().display());
                None
            }
        };
        match std::thread::Builder::new().name("store-reclaim".into()).spawn(work) {
            Ok(thread) => self.running = Some(Running { thread, replaces, stop }),
            Err(error) => tracing::warn!("starting a thread: {error}"),
        }
    }

    /// Stops the work; a partial copy is discarded.
    pub(super) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::Relaxed);
            // The panic has already been printed.
            let _ = running.thread.join();
        }
    }
}

/// `None` if stopped.
fn replace(log: &Log, old: &[Sealed], id: u32, stop: &AtomicBool) -> io::Result<Option<Sealed>> {
    let (Some(oldest), Some(newest)) = (old.first(), old.last()) else { return Ok(None) };
    let unfinished = log.unfinished();
    let _ = std::fs::remove_file(&unfinished);
    let first = oldest.segment.header().first;
    let header = |forgotten| Header { first, covers: newest.last, forgotten, room: 0 };
    let mut copy =
        Copy { segment: Segment::create(unfinished, header(0))?, id, end: HEADER as u64, group: Group::new(), moved: Vec::new(), here: 0 };
    for sealed in old {
        let copied = sealed.segment.scan(false, |record, _| {
            if stop.load(Ordering::Relaxed) {
                return Err("stopped".to_owned());
            }
            copy.take(log, record).map_err(|error| error.to_string())
        });
        match copied {
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(None),
            Err(Unreadable::Io(_, error)) => return Err(error),
            Err(Unreadable::Damaged(what)) => return Err(io::Error::other(what)),
            Ok(_) => {}
        }
    }
    copy.flush()?;
    let Copy { segment, end, moved, .. } = copy;
    // Records that were forgotten during the copy are not in the file.
    let forgotten = log.state.read().index.forgotten();
    let segment = Arc::new(segment.place(header(forgotten), log.path(first))?);
    log.sync_names()?;
    log.state.write().segments.insert(id, segment.clone());
    for moves in moved.chunks(MOVES) {
        let mut state = log.state.write();
        for (key, revision, place) in moves {
            state.index.moved(key, *revision, *place);
        }
    }
    log.state.write().segments.retain(|id, _| old.iter().all(|sealed| sealed.id != *id));
    for sealed in &old[1..] {
        std::fs::remove_file(sealed.segment.path())?;
    }
    log.sync_names()?;
    Ok(Some(Sealed { id, segment, last: newest.last, bytes: end }))
}

/// A replacement file under construction.
struct Copy {
    segment: Segment,
    id: u32,
    end: u64,
    group: Group,
    /// The new locations of the values.
    moved: Vec<(Box<str>, Revision, Place)>,
    /// How many of these are still in `group`, with offsets relative to it.
    here: usize,
}

impl Copy {
    fn take(&mut self, log: &Log, record: &Record<'_>) -> io::Result<()> {
        let What::Put { key, .. } = record.what else { return Ok(()) };
        let needed = log.state.read().index.version(key, record.revision).is_some_and(|version| version.revision == record.revision);
        if needed {
            let offset = self.group.push(record) as u64;
            self.moved.push((key.into(), record.revision, Place::of(record, self.id, offset)));
            self.here += 1;
        }
        if self.group.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        self.segment.write(self.group.seal(self.end), self.end)?;
        let begin = self.moved.len() - self.here;
        for (_, _, place) in &mut self.moved[begin..] {
            place.offset += self.end;
        }
        self.end += self.group.len() as u64;
        (self.group, self.here) = (Group::new(), 0);
        Ok(())
    }
}
