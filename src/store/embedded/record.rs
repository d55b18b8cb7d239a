//! The format of the log: records of changes in groups, each of which is present as a whole or not at all. Encoding and decoding, no I/O.
//!
//! A group is a CRC-32, a length, and that many bytes of records. A record is its kind, its revision, its expiry, the lengths of key and
//! value, and these. All numbers are little-endian.

use crate::object::Revision;

/// Checksum and length of a group.
pub(super) const GROUP_HEAD: usize = 8;
const RECORD_HEAD: usize = 1 + 8 + 8 + 4 + 4;

/// One step of the store's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) revision: Revision,
    pub(super) what: What<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// `expires`: milliseconds of Unix time, 0 for never.
    Put {
        key: &'a str,
        value: &'a [u8],
        expires: u64,
    },
    Delete {
        key: &'a str,
    },
    /// The history before the revision is forgotten.
    Forget,
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const FORGET: u8 = 3;

/// The size in bytes of a put.
pub(super) fn put_size(key: &str, value: usize) -> u64 {
    (RECORD_HEAD + key.len() + value) as u64
}

/// A group under construction.
#[derive(Debug)]
pub(super) struct Group {
    bytes: Vec<u8>,
}

impl Group {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; GROUP_HEAD] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == GROUP_HEAD
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record; returns the offset of its value within the group.
    ///
    /// # Panics
    /// If a key or value has 4 GiB: the API server limits bodies to a few MiB.
    pub(super) fn push(&mut self, record: &Record<'_>) -> usize {
        let (kind, key, value, expires) = match record.what {
            What::Put { key, value, expires } => (PUT, key, value, expires),
            What::Delete { key } => (DELETE, key, &[][..], 0),
            What::Forget => (FORGET, "", &[][..], 0),
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are far smaller").to_le_bytes();
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&record.revision.to_le_bytes());
        self.bytes.extend_from_slice(&expires.to_le_bytes());
        self.bytes.extend_from_slice(&length(key.as_bytes()));
        self.bytes.extend_from_slice(&length(value));
        self.bytes.extend_from_slice(key.as_bytes());
        let at = self.bytes.len();
        self.bytes.extend_from_slice(value);
        at
    }

    /// The bytes of the group when placed at `offset` of its file.
    pub(super) fn seal(&mut self, offset: u64) -> &[u8] {
        let length = u32::try_from(self.bytes.len() - GROUP_HEAD).expect("a group is far smaller").to_le_bytes();
        self.bytes[4..GROUP_HEAD].copy_from_slice(&length);
        let mut hasher = hasher(offset);
        hasher.update(&self.bytes[4..]);
        let checksum = hasher.finalize();
        self.bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        &self.bytes
    }
}

/// The checksum includes the offset, so that stray bytes from elsewhere are not mistaken for a group.
fn hasher(offset: u64) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher
}

/// The number of bytes of records in the group with this head; `None` if nothing was written here.
pub(super) fn length(head: [u8; GROUP_HEAD]) -> Option<u32> {
    (head != [0; GROUP_HEAD]).then(|| u32::from_le_bytes([head[4], head[5], head[6], head[7]]))
}

/// Whether the group with this head and body, at this offset, is intact.
pub(super) fn is_whole(head: [u8; GROUP_HEAD], body: &[u8], offset: u64) -> bool {
    let mut hasher = hasher(offset);
    hasher.update(&head[4..]);
    hasher.update(body);
    hasher.finalize().to_le_bytes() == head[..4]
}

/// The records of a group, each with the offset of its value in `body`. An error means that the group has another format, despite its
/// checksum.
pub(super) fn records(body: &[u8]) -> impl Iterator<Item = Result<(Record<'_>, usize), Malformed>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < body.len()).then(|| {
            let read = record(body, at);
            at = read.as_ref().map_or(body.len(), |(record, value)| match record.what {
                What::Put { value: bytes, .. } => value + bytes.len(),
                _ => *value,
            });
            read
        })
    })
}

/// Bytes that are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn record(body: &[u8], at: usize) -> Result<(Record<'_>, usize), Malformed> {
    let head = body.get(at..at + RECORD_HEAD).ok_or(Malformed)?;
    let wide = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
    let (revision, expires, key_length, value_length) = (wide(1), wide(9), length(17), length(21));
    let key_at = at + RECORD_HEAD;
    let value_at = key_at + key_length;
    let key = body.get(key_at..value_at).and_then(|key| std::str::from_utf8(key).ok()).ok_or(Malformed)?;
    let value = body.get(value_at..value_at + value_length).ok_or(Malformed)?;
    let what = match head[0] {
        PUT => What::Put { key, value, expires },
        DELETE if value.is_empty() => What::Delete { key },
        FORGET if value.is_empty() && key.is_empty() => What::Forget,
        _ => return Err(Malformed),
    };
    Ok((Record { revision, what }, value_at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(record: &Record<'_>) -> usize {
        match record.what {
            What::Put { key, value, .. } => put_size(key, value.len()) as usize,
            What::Delete { key } => RECORD_HEAD + key.len(),
            What::Forget => RECORD_HEAD,
        }
    }

    fn group(records: &[Record<'_>], offset: u64) -> Vec<u8> {
        let mut group = Group::new();
        for record in records {
            group.push(record);
        }
        group.seal(offset).to_vec()
    }

    /// The body of the group at the beginning of these bytes, if it is whole.
    fn find(bytes: &[u8], offset: u64) -> Option<&[u8]> {
        let head = bytes.first_chunk::<GROUP_HEAD>()?;
        let body = bytes.get(GROUP_HEAD..GROUP_HEAD + length(*head)? as usize)?;
        is_whole(*head, body, offset).then_some(body)
    }

    #[test]
    fn a_group_reads_back() {
        let records = [
            Record { revision: 7, what: What::Put { key: "/a", value: b"{}", expires: 99 } },
            Record { revision: 8, what: What::Delete { key: "/a" } },
            Record { revision: 5, what: What::Forget },
            Record { revision: 9, what: What::Put { key: "", value: b"", expires: 0 } },
        ];
        let file = [group(&records, 16), vec![0; 100]].concat();
        let body = find(&file, 16).unwrap();
        let read: Vec<_> = super::records(body).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|(record, _)| *record).collect::<Vec<_>>(), records);
        assert_eq!(&body[read[0].1..][..2], b"{}");
        assert_eq!(records.iter().map(size).sum::<usize>(), body.len());
        // At another offset the bytes are not a group.
        assert_eq!(find(&file, 8), None);
    }

    proptest! {
        /// However much of a group reaches the disk, it is present as a whole or not at all; a flipped bit is detected.
        #[test]
        fn no_part_of_a_group_counts(key in "[/a-z]{0,20}", value in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..300, bit in 0usize..2400) {
            let whole = group(&[Record { revision: 3, what: What::Put { key: &key, value: &value, expires: 0 } }], 0);
            let cut = cut % whole.len();
            let torn = [&whole[..cut], &vec![0; whole.len() - cut]].concat();
            prop_assert!(torn == whole || find(&torn, 0).is_none());
            prop_assert!(find(&whole[..cut], 0).is_none());
            let mut flipped = whole.clone();
            let bit = bit % (8 * whole.len());
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(find(&flipped, 0).is_none());
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let taken: usize = super::records(&body).map_while(Result::ok).map(|(record, _)| size(&record)).sum();
            prop_assert!(taken <= body.len());
        }
    }
}
