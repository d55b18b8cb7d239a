//! Blocks of encoded history, shared by all watchers of everything in JSON. The first watcher that reaches the beginning of a block encodes
//! it; later ones at the same position get the same bytes. So a thousand watchers cost a thousand writes, however many changes each write
//! carries.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

use super::history::{Entry, History};
use crate::codec::{EventFormat, write_json_event};
use crate::object::Revision;

/// A block ends at this many entries or bytes.
const ENTRIES: usize = 256;
const BYTES: usize = 256 * 1024;
/// How many blocks, and bytes of them, are kept for later watchers. Watchers are spread over the positions at which the history ended while
/// it rested.
const KEPT: usize = 128;
const KEPT_BYTES: usize = 4 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Block {
    from: u64,
    /// The seq of the entry behind the block.
    pub(super) to: u64,
    /// Of the last entry.
    pub(super) revision: Revision,
    pub(super) bytes: Bytes,
}

/// The newest blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    blocks: VecDeque<Block>,
    bytes: usize,
}

impl Blocks {
    /// The block that begins with the entry `from`, which the history must still have; `None` if there is no such entry yet.
    pub(super) fn get(&self, history: &History, from: u64) -> Option<Block> {
        let Kept { blocks, bytes } = &mut *self.kept.lock();
        if let Some(block) = blocks.iter().rev().find(|block| block.from == from) {
            return Some(block.clone());
        }
        let block = make(history, from)?;
        *bytes += block.bytes.len();
        blocks.push_back(block.clone());
        while (blocks.len() > KEPT || *bytes > KEPT_BYTES)
            && let Some(oldest) = blocks.pop_front()
        {
            *bytes -= oldest.bytes.len();
        }
        Some(block)
    }
}

fn make(history: &History, from: u64) -> Option<Block> {
    let mut entries = history.since(from).take(ENTRIES).peekable();
    let mut last = entries.next()?;
    if entries.peek().is_none() {
        let bytes = last.frame(last.kind()?, EventFormat::default());
        return Some(Block { from, to: last.seq + 1, revision: last.revision, bytes });
    }
    let mut bytes = Vec::new();
    let mut add = |entry: &Entry| {
        if let Some(kind) = entry.kind() {
            write_json_event(kind.name(), entry.object(kind).body(), &mut bytes);
        }
        bytes.len() < BYTES
    };
    let mut room = add(last);
    while room && let Some(entry) = entries.next() {
        room = add(entry);
        last = entry;
    }
    Some(Block { from, to: last.seq + 1, revision: last.revision, bytes: bytes.into() })
}
