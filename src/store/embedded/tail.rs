//! The end of the log, which only the writer writes: groups are appended to the last file, and a new file is begun when it is full.

use std::io;
use std::sync::Arc;

use super::log::{Log, SEGMENT, failed};
use super::record::Group;
use super::segment::{HEADER, Header, Segment};
use super::spare::Spare;
use crate::object::Revision;
use crate::store::{Result, StoreError};

/// A file that is complete.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) id: u32,
    pub(super) segment: Arc<Segment>,
    /// The newest revision that the file may contain.
    pub(super) last: Revision,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Tail {
    log: Arc<Log>,
    active: Arc<Segment>,
    id: u32,
    /// The offset of the next group.
    end: u64,
    next_id: u32,
    pub(super) sealed: Vec<Sealed>,
    spare: Spare,
    /// The end of the file may contain an unacknowledged group, or part of one.
    soiled: bool,
}

/// Why a group was not appended, and whether it is certain not to be found when the log is opened again.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: StoreError,
    pub(super) certain: bool,
}

impl Tail {
    /// The end of a log with these files, in order. `end` is the offset at which the last one continues; `None` if there are no files.
    pub(super) fn new(log: Arc<Log>, mut files: Vec<(u32, Arc<Segment>)>, end: Option<u64>) -> Result<Self> {
        let mut next_id = files.len() as u32;
        let (id, active, end) = match (end, files.pop()) {
            (Some(end), Some((id, active))) => {
                active.erase(end).map_err(|error| failed(error, active.path()))?;
                (id, active, end)
            }
            (_, last) => {
                files.extend(last);
                next_id += 1;
                let head = log.state.read().index.head();
                let active = begin(&log, None, next_id - 1, head + 1)?;
                (next_id - 1, active, HEADER as u64)
            }
        };
        let nexts = files.iter().skip(1).map(|(_, segment)| segment.header().first).chain([active.header().first]);
        let lasts: Vec<Revision> = nexts.map(|first| first - 1).collect();
        let sealed = files.into_iter().zip(lasts).map(|((id, segment), last)| {
            let bytes = segment.length().map_err(|error| failed(error, segment.path()))?;
            Ok(Sealed { id, segment, last, bytes })
        });
        Ok(Self { sealed: sealed.collect::<Result<_>>()?, log, active, id, end, next_id, spare: Spare::default(), soiled: false })
    }

    /// Appends a group whose first change has the revision `next`, durably. Returns the number of the file, and the offset of the group in
    /// it.
    pub(super) fn append(&mut self, group: &mut Group, next: Revision) -> std::result::Result<(u32, u64), Refused> {
        self.clean().map_err(|error| Refused { error: failed(error, self.active.path()), certain: true })?;
        if self.end > HEADER as u64 && self.end + group.len() as u64 > SEGMENT {
            self.turn(next).map_err(|error| Refused { error, certain: true })?;
        }
        let written = self.active.write(group.seal(self.end), self.end).and_then(|()| self.active.sync());
        if let Err(error) = written {
            self.soiled = true;
            let certain = self.clean().is_ok();
            return Err(Refused { error: failed(error, self.active.path()), certain });
        }
        let at = self.end;
        self.end += group.len() as u64;
        // Not for the few writes of an idle cluster, which would occupy twice the space.
        if self.end > SEGMENT / 2 {
            self.spare.prepare(&self.log);
        }
        Ok((self.id, at))
    }

    /// Erases an unacknowledged group at the end.
    fn clean(&mut self) -> io::Result<()> {
        if self.soiled {
            self.active.erase(self.end)?;
            self.soiled = false;
        }
        Ok(())
    }

    /// Continues in a new file.
    fn turn(&mut self, next: Revision) -> Result<()> {
        let active = begin(&self.log, self.spare.take(), self.next_id, next)?;
        // The unused space does no harm if it stays.
        let _ = self.active.cut(self.end);
        let segment = std::mem::replace(&mut self.active, active);
        self.sealed.push(Sealed { id: self.id, segment, last: next - 1, bytes: self.end });
        (self.id, self.end) = (self.next_id, HEADER as u64);
        self.next_id += 1;
        Ok(())
    }

    /// Ends what is done in the background.
    pub(super) fn stop(&mut self) {
        self.spare.stop();
    }

    /// A number for a file made by others.
    pub(super) fn take_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }
}

/// Begins a file for the changes from `first` on, with the prepared one if there is one.
fn begin(log: &Log, spare: Option<Segment>, id: u32, first: Revision) -> Result<Arc<Segment>> {
    let path = log.path(first);
    let forgotten = log.state.read().index.forgotten();
    let header = Header { first, covers: first - 1, forgotten, room: SEGMENT };
    let begun = match spare {
        Some(spare) => spare.place(header, path.clone()),
        None => Segment::create(path.clone(), header),
    };
    let named = begun.and_then(|segment| log.sync_names().map(|()| segment));
    let segment = named.map(Arc::new).map_err(|error| {
        // A partial file would block the next attempt.
        let _ = std::fs::remove_file(&path);
        failed(error, &path)
    })?;
    log.state.write().segments.insert(id, segment.clone());
    Ok(segment)
}
