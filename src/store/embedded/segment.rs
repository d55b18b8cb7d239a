//! One file of the log: a header, then groups of records. The index says where in the file values are.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::record::{self, Record};
use crate::object::Revision;

const MAGIC: &[u8; 8] = b"km store";
const FORMAT: u32 = 2;
pub(super) const HEADER: usize = 48;

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The first revision that the file may contain, which also names the file.
    pub(super) first: Revision,
    /// Up to this revision, the records are the live ones of older files that this file replaces; after it, every change is present.
    pub(super) covers: Revision,
    /// The oldest readable state when the file was begun.
    pub(super) forgotten: Revision,
    /// The size that was preallocated, in bytes.
    pub(super) room: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        for (at, number) in [(16, self.first), (24, self.covers), (32, self.forgotten), (40, self.room)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes.get(..HEADER).ok_or("it is cut off")?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if &bytes[..8] != MAGIC {
            return Err("it is not a file of this store");
        }
        if short(8) != FORMAT {
            return Err("it was written by another version of km");
        }
        if short(12) != crc32fast::hash(&bytes[16..]) {
            return Err("its header is not as it was written");
        }
        Ok(Self { first: number(16), covers: number(24), forgotten: number(32), room: number(40) })
    }
}

/// An open file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    header: Header,
}

impl Segment {
    /// Creates a file and makes all but its name durable.
    pub(super) fn create(path: PathBuf, header: Header) -> io::Result<Self> {
        let mut segment = Self::allocate(path, header.room)?;
        segment.header = Header { room: segment.header.room, ..header };
        segment.write(&segment.header.encode(), 0)?;
        segment.file.sync_all()?;
        Ok(segment)
    }

    /// Creates a file with room for this many bytes, without a header.
    pub(super) fn allocate(path: PathBuf, room: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        // An fsync is faster in preallocated space. If that fails, the file grows with each write.
        let allocated = nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, room.cast_signed());
        let room = if room > 0 && allocated.is_ok() { room } else { 0 };
        file.set_len(room)?;
        Ok(Self { path, file, header: Header { first: 0, covers: 0, forgotten: 0, room } })
    }

    /// Opens a file. `None`: it is the last one, and the process ended while creating it, before anything was written to it.
    pub(super) fn open(path: &Path, last: bool) -> Result<Option<Self>, Unreadable> {
        let io = |error: io::Error| Unreadable::Io(path.to_owned(), error);
        let file = File::options().read(true).write(true).open(path).map_err(io)?;
        let mut head = [0; HEADER];
        let length = file.read_at(&mut head, 0).map_err(io)?;
        if last && is_zero(&head) {
            let mut bytes = Vec::new();
            (&file).read_to_end(&mut bytes).map_err(io)?;
            if is_zero(&bytes) {
                return Ok(None);
            }
        }
        let header = Header::decode(&head[..length]).and_then(|header| {
            let cut_off = last && file.metadata().is_ok_and(|it| it.len() < header.room);
            if cut_off { Err("it is cut off") } else { Ok(header) }
        });
        match header {
            Ok(header) => Ok(Some(Self { path: path.to_owned(), file, header })),
            Err(what) => Err(Unreadable::Damaged(format!("{} is damaged: {what}", path.display()))),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// The size of the file in bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// # Errors
    /// If the file is too short, which only damage can cause.
    pub(super) fn read(&self, offset: u64, length: u32) -> io::Result<Bytes> {
        let mut value = vec![0; length as usize];
        self.file.read_exact_at(&mut value, offset)?;
        Ok(value.into())
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Zeroes everything behind `offset`, where a write failed or the process ended within one.
    pub(super) fn erase(&self, mut offset: u64) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = self.file.read_at(&mut buffer, offset)?;
            if length == 0 {
                return self.file.sync_all();
            }
            let read = &mut buffer[..length];
            if !is_zero(read) {
                read.fill(0);
                self.write(read, offset)?;
            }
            offset += length as u64;
        }
    }

    /// Truncates the file behind the last group.
    pub(super) fn cut(&self, end: u64) -> io::Result<()> {
        self.file.set_len(end)
    }

    /// Completes a file with its header and gives it its name, over another one if there is one. All but the name is durable then.
    pub(super) fn place(mut self, header: Header, path: PathBuf) -> io::Result<Self> {
        self.header = header;
        self.write(&self.header.encode(), 0)?;
        self.file.sync_all()?;
        std::fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(self)
    }

    /// Passes every record, with the offset of its value, to `take`; returns the end of the last group.
    ///
    /// # Errors
    /// If acknowledged records are missing or damaged. In the `last` file of a log, the end may be incomplete: it was never acknowledged.
    pub(super) fn scan(&self, last: bool, mut take: impl FnMut(&Record<'_>, u64) -> Result<(), String>) -> Result<u64, Unreadable> {
        let io = |error: io::Error| Unreadable::Io(self.path.clone(), error);
        let damaged = |what: &str, at: u64| Unreadable::Damaged(format!("{} is damaged: at byte {at} {what}", self.path.display()));
        let mut groups = Groups::new(&self.file).map_err(io)?;
        loop {
            let at = groups.at;
            match groups.next().map_err(io)? {
                Next::End => return Ok(at),
                Next::Group => {}
                Next::Broken if last && !matches!(groups.next().map_err(io)?, Next::Group) => return Ok(at),
                Next::Broken => return Err(damaged("the records are not as they were written", at)),
            }
            let base = at + record::GROUP_HEAD as u64;
            for record in record::records(&groups.body) {
                let (record, value) = record.map_err(|_| damaged("there is no record", base))?;
                take(&record, base + value as u64).map_err(|what| damaged(&what, base))?;
            }
        }
    }
}

/// Fast even in a debug build: a comparison instead of a loop.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 1 << 12] = [0; 1 << 12];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Reads the groups of a file in order.
struct Groups<'a> {
    file: BufReader<&'a File>,
    length: u64,
    /// The offset of the next group.
    at: u64,
    /// The records of the group last read.
    body: Vec<u8>,
}

enum Next {
    Group,
    /// An incomplete group: the last write of a killed process, or damage.
    Broken,
    End,
}

impl<'a> Groups<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 20, file);
        reader.seek(SeekFrom::Start(HEADER as u64))?;
        Ok(Self { file: reader, length: file.metadata()?.len(), at: HEADER as u64, body: Vec::new() })
    }

    fn next(&mut self) -> io::Result<Next> {
        let left = self.length.saturating_sub(self.at);
        let mut head = [0; record::GROUP_HEAD];
        let readable = head.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.read_exact(&mut head[..readable])?;
        let Some(length) = record::length(head) else { return Ok(Next::End) };
        let offset = self.at;
        self.at += record::GROUP_HEAD as u64 + u64::from(length);
        if self.at > self.length {
            return Ok(Next::Broken);
        }
        self.body.resize(length as usize, 0);
        self.file.read_exact(&mut self.body)?;
        Ok(if record::is_whole(head, &self.body, offset) { Next::Group } else { Next::Broken })
    }
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(PathBuf, io::Error),
    /// Names the file and the damage.
    Damaged(String),
}

/// Whether an error means that there is no space. A file that may not grow counts as a full disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
