//! RecordIO, the framing of Mesos event streams: each record is its length in decimal, a line feed, and that many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why a stream cannot be read further.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("a record's length is not a decimal number")]
    BadLength,
    #[error("a record of {0} bytes is over the limit")]
    TooLong(u64),
}

/// Longest record accepted. A master's largest event holds the offers of all agents at once, some hundred bytes each.
const MAX_RECORD: u64 = 1 << 30;
/// Digits of `MAX_RECORD` and then some: a longer length is refused before its line feed arrives.
const MAX_DIGITS: usize = 20;

/// Takes a stream apart: bytes in, in pieces of any size, records out.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Length of the record that comes next, once its header is read.
    length: Option<usize>,
}

impl Decoder {
    /// Adds bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// If the bytes are no RecordIO; the decoder is of no use afterwards.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, Error> {
        let length = match self.length {
            Some(length) => length,
            None => match self.read_length()? {
                Some(length) => *self.length.insert(length),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            return Ok(None);
        }
        self.length = None;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn read_length(&mut self) -> Result<Option<usize>, Error> {
        let header = &self.buffer[..self.buffer.len().min(MAX_DIGITS + 1)];
        let end = header.iter().position(|&byte| byte == b'\n');
        let digits = &header[..end.unwrap_or(header.len())];
        if !digits.iter().all(u8::is_ascii_digit) || digits.len() > MAX_DIGITS || end == Some(0) {
            return Err(Error::BadLength);
        }
        let Some(end) = end else { return Ok(None) };
        let length =
            digits.iter().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))).ok_or(Error::BadLength)?;
        if length > MAX_RECORD {
            return Err(Error::TooLong(length));
        }
        self.buffer.advance(end + 1);
        Ok(Some(length as usize))
    }
}

/// Appends a message as one record.
pub fn encode(message: &impl prost::Message, to: &mut BytesMut) {
    let length = message.encoded_len();
    to.put_slice(length.to_string().as_bytes());
    to.put_u8(b'\n');
    // BytesMut grows, so encoding cannot run out of room
    let _ = message.encode(to);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(records: &[Vec<u8>]) -> Vec<u8> {
        records.iter().flat_map(|record| [format!("{}\n", record.len()).into_bytes(), record.clone()].concat()).collect()
    }

    proptest! {
        #[test]
        fn records_survive_any_split(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8), size in 1usize..30) {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in frame(&records).chunks(size) {
                decoder.push(piece);
                while let Some(record) = decoder.next_record().unwrap() {
                    seen.push(record.to_vec());
                }
            }
            prop_assert_eq!(seen, records);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_record() {}
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for (bytes, error) in [
            ("x", Error::BadLength),
            ("\n", Error::BadLength),
            ("-1\n", Error::BadLength),
            ("12 \n", Error::BadLength),
            ("99999999999999999999\n", Error::BadLength),
            ("999999999999999999999", Error::BadLength),
            ("2000000000\n", Error::TooLong(2_000_000_000)),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes.as_bytes());
            assert_eq!(decoder.next_record(), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_message_is_one_record() {
        let id = crate::mesos::v1::TaskId { value: "a task".into() };
        let mut bytes = BytesMut::new();
        encode(&id, &mut bytes);
        assert_eq!(&bytes[..], b"8\n\x0a\x06a task");
    }
}
