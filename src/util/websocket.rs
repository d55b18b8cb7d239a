//! WebSocket frames (RFC 6455) for a server that mostly sends: complete messages out, control frames in.

use bytes::{Buf, BytesMut};

/// Opcodes (section 5.2).
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// Status code of a normal close (section 7.4).
pub const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// A complete message; frames of a server are not masked (section 5.2).
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const FINAL: u8 = 0x80;
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(FINAL | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// The bytes are not a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of a client")]
pub struct NotAFrame;

/// The client frames that matter to a server that only sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Control {
    Ping(Vec<u8>),
    Close,
}

/// Decodes a client's frames, which arrive in arbitrary pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Received bytes that are not decoded yet; append new ones here.
    pub bytes: BytesMut,
    /// Remaining bytes of a message to be skipped.
    unwanted: u64,
}

impl Decoder {
    /// # Errors
    /// If the bytes are not a client's frame.
    pub fn next_control(&mut self) -> Result<Option<Control>, NotAFrame> {
        loop {
            let skipped = self.unwanted.min(self.bytes.len() as u64);
            self.bytes.advance(usize::try_from(skipped).unwrap_or_default());
            self.unwanted -= skipped;
            let [first, second, ..] = *self.bytes else { return Ok(None) };
            let (opcode, masked, short) = (first & 0x0f, second & 0x80 != 0, second & 0x7f);
            let control = opcode & 8 != 0;
            if !masked || control && (short > 125 || first & 0x80 == 0) {
                return Err(NotAFrame);
            }
            let extended = match short {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let head = 2 + extended + 4;
            let Some(start) = self.bytes.get(..head) else { return Ok(None) };
            let length = match extended {
                0 => u64::from(short),
                _ => start[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            };
            let mask: [u8; 4] = start[head - 4..].try_into().unwrap_or_default();
            if !control {
                self.bytes.advance(head);
                self.unwanted = length;
                continue;
            }
            let whole = head + usize::from(short);
            if self.bytes.len() < whole {
                return Ok(None);
            }
            let payload = self.bytes.split_to(whole)[head..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            match opcode {
                CLOSE => return Ok(Some(Control::Close)),
                PING => return Ok(Some(Control::Ping(payload))),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 250];
        let mut out = frame(first & 0x0f, payload);
        out[0] = first;
        out[1] |= 0x80;
        let body = out.split_off(out.len() - payload.len());
        out.extend(mask);
        out.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    #[test]
    fn lengths() {
        assert_eq!(&frame(TEXT, b"{}")[..3], b"\x81\x02{");
        assert_eq!(&frame(TEXT, &[7; 126])[..4], [0x81, 126, 0, 126]);
        assert_eq!(&frame(TEXT, &[7; 70_000])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn frames_that_no_client_sends() {
        for wrong in [&b"\x89\x00"[..], b"\x09\x80", b"\x89\xfe\x00\x7e"] {
            assert!(Decoder { bytes: wrong.into(), unwanted: 0 }.next_control().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn frames_come_through_in_any_pieces(
            sent in prop::collection::vec((prop::sample::select(vec![TEXT, BINARY, PING, PONG]), prop::collection::vec(any::<u8>(), 0..125)), 0..8),
            long in 0_usize..70_000,
            piece in 1_usize..40,
        ) {
            let mut bytes: Vec<u8> = sent.iter().flat_map(|(opcode, payload)| masked(0x80 | opcode, payload)).collect();
            bytes.extend(masked(BINARY, &vec![3; long]));
            bytes.extend(masked(0x80 | CLOSE, &NORMAL));
            let (mut said, mut heard) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                said.bytes.extend_from_slice(piece);
                while let Some(control) = said.next_control().unwrap() {
                    heard.push(control);
                }
            }
            let pings = sent.into_iter().filter(|(opcode, _)| *opcode == PING).map(|(_, payload)| Control::Ping(payload));
            prop_assert_eq!(heard, pings.chain([Control::Close]).collect::<Vec<_>>());
        }
    }
}
