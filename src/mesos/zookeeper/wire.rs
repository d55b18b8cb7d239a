//! ZooKeeper's messages: big-endian numbers, strings and buffers behind their length, each packet behind its own.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest packet accepted; servers limit theirs to 1 MiB by default.
const MAX_PACKET: usize = 64 << 20;

/// Operations, by their number in a request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Op {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    GetChildren = 8,
    Ping = 11,
    Auth = 100,
    Close = -11,
}

/// Transaction numbers of packets that are not an answer to a request.
pub(super) const XID_EVENT: i32 = -1;
pub(super) const XID_PING: i32 = -2;
pub(super) const XID_AUTH: i32 = -4;

/// Errors that a server returns, and faults of a packet.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("no such node")]
    NoNode,
    #[error("the node exists")]
    NodeExists,
    #[error("not authorized")]
    NotAuthorized,
    #[error("the session expired")]
    Expired,
    #[error("ZooKeeper error {0}")]
    Other(i32),
    #[error("the packet is cut short or too long")]
    Malformed,
}

impl Error {
    fn of(code: i32) -> Result<(), Self> {
        match code {
            0 => Ok(()),
            -101 => Err(Self::NoNode),
            -110 => Err(Self::NodeExists),
            -102 | -115 => Err(Self::NotAuthorized),
            -112 => Err(Self::Expired),
            other => Err(Self::Other(other)),
        }
    }
}

/// Builds one packet.
#[derive(Debug)]
pub(super) struct Packet(BytesMut);

impl Packet {
    fn new() -> Self {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_i32(0);
        Self(bytes)
    }

    /// Opens a session that lives for `timeout_ms` without a packet.
    pub(super) fn connect(timeout_ms: i32) -> Self {
        // protocol version, last transaction seen, timeout, session id, password of 16 bytes, read-only
        Self::new().int(0).long(0).int(timeout_ms).long(0).buffer(&[0; 16]).flag(false)
    }

    /// A request; its fields follow.
    pub(super) fn request(xid: i32, op: Op) -> Self {
        Self::new().int(xid).int(op as i32)
    }

    pub(super) fn int(mut self, value: i32) -> Self {
        self.0.put_i32(value);
        self
    }

    pub(super) fn flag(mut self, value: bool) -> Self {
        self.0.put_u8(value.into());
        self
    }

    pub(super) fn buffer(mut self, value: &[u8]) -> Self {
        self.0.put_i32(value.len() as i32);
        self.0.put_slice(value);
        self
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.buffer(value.as_bytes())
    }

    fn long(mut self, value: i64) -> Self {
        self.0.put_i64(value);
        self
    }

    /// The encoded packet.
    pub(super) fn finish(mut self) -> BytesMut {
        let length = self.0.len() as i32 - 4;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// Takes the next complete packet from the received bytes.
pub(super) fn take_packet(buffer: &mut BytesMut) -> Result<Option<Fields>, Error> {
    let Some(header) = buffer.get(..4) else { return Ok(None) };
    let length = header.iter().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
    if length > MAX_PACKET {
        return Err(Error::Malformed);
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(Fields(buffer.split_to(length).freeze())))
}

/// Reads the fields of a packet in their order.
#[derive(Clone, Debug)]
pub(super) struct Fields(Bytes);

impl Fields {
    /// The session's timeout in milliseconds, out of the answer to `connect`.
    pub(super) fn session(mut self) -> Result<i32, Error> {
        let _version = self.int()?;
        match self.int()? {
            timeout if timeout > 0 => Ok(timeout),
            _ => Err(Error::Expired),
        }
    }

    /// The number of the request that this answers, and the server's verdict; its fields follow.
    pub(super) fn reply(&mut self) -> Result<(i32, Result<(), Error>), Error> {
        let xid = self.int()?;
        let _transaction = self.0.try_get_i64().map_err(|_| Error::Malformed)?;
        Ok((xid, Error::of(self.int()?)))
    }

    pub(super) fn int(&mut self) -> Result<i32, Error> {
        self.0.try_get_i32().map_err(|_| Error::Malformed)
    }

    /// A buffer; length -1 (none) is treated as empty.
    pub(super) fn buffer(&mut self) -> Result<Bytes, Error> {
        let length = usize::try_from(self.int()?).unwrap_or(0);
        if self.0.len() < length {
            return Err(Error::Malformed);
        }
        Ok(self.0.split_to(length))
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Error> {
        (0..self.int()?).map(|_| Ok(String::from_utf8_lossy(&self.buffer()?).into_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_laid_out_as_zookeeper_expects() {
        let bytes = Packet::request(7, Op::GetChildren).text("/m").flag(true).finish();
        assert_eq!(&bytes[..], [0, 0, 0, 15, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 2, b'/', b'm', 1]);
    }

    #[test]
    fn a_packet_is_taken_only_when_it_is_whole() {
        let whole = Packet::new().int(7).long(1).int(-101).finish();
        let mut buffer = BytesMut::from(&whole[..10]);
        assert!(take_packet(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&whole[10..]);
        let mut fields = take_packet(&mut buffer).unwrap().unwrap();
        assert_eq!(fields.reply(), Ok((7, Err(Error::NoNode))));
        assert!(buffer.is_empty());
    }

    proptest! {
        #[test]
        fn any_packet_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut fields = Fields(bytes.into());
            let _ = fields.clone().session();
            let _ = fields.reply();
            let _ = fields.texts();
        }
    }
}
