//! One file of the log: a header, then groups of records. Values are read out of it where the index says they stand.

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

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The first revision that it may contain, which also names the file.
    pub(super) first: Revision,
    /// Up to this revision its records were picked out of older files, which it replaces; behind it every change is there.
    pub(super) covers: Revision,
    /// The oldest state that could still be read when the file was begun.
    pub(super) forgotten: Revision,
    /// How long the file was made, before anything was written to it.
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
    /// Makes a file, durably but for its name.
    pub(super) fn create(path: PathBuf, header: Header) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        // Writing into room that is there already is made durable sooner. Where there is none, the file grows as it is written.
        let room = nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, header.room.cast_signed());
        let room = if header.room > 0 && room.is_ok() { header.room } else { 0 };
        file.set_len(room)?;
        let segment = Self { path, file, header: Header { room, ..header } };
        segment.write(&segment.header.encode(), 0)?;
        segment.file.sync_all()?;
        Ok(segment)
    }

    /// Opens a file. `None`: it is the last one, and was being made when the process ended; nothing was ever written to it.
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

    /// How long the file is, in bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// # Errors
    /// If the file does not have them (any more), which only damage brings about.
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

    /// Makes it certain that nothing stands behind `offset`: a write failed there, or the process ended in one.
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

    /// Gives the room behind the last group back.
    pub(super) fn cut(&self, end: u64) -> io::Result<()> {
        self.file.set_len(end)
    }

    /// Puts the file, complete, in the place of another one.
    pub(super) fn replace(mut self, header: Header, path: PathBuf) -> io::Result<Self> {
        self.header = header;
        self.write(&self.header.encode(), 0)?;
        self.file.sync_all()?;
        std::fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(self)
    }

    /// Gives every record, with the offset at which its value stands, to `take`; says where the last group ends.
    ///
    /// # Errors
    /// If something that was acknowledged is missing or not as it was written. In the `last` file of a log what comes last may be half
    /// there: nobody was told that it was written.
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

/// As fast in a debug build: compared, not looped over.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 1 << 12] = [0; 1 << 12];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Reads the groups of a file one after the other.
struct Groups<'a> {
    file: BufReader<&'a File>,
    length: u64,
    /// Where the next group begins.
    at: u64,
    /// The records of the group read last.
    body: Vec<u8>,
}

enum Next {
    Group,
    /// A group that is not whole: what a process that was killed wrote last, or damage.
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
    /// Says which file, and what is wrong with it.
    Damaged(String),
}

/// Whether an error says that there is no room left. A file that may not grow further is as good as a full disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
