//! Watches over a WebSocket (RFC 6455): every event is a message of its own, and the client's close ends the watch.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::response::{Body, Response, set};
use crate::supervise::Supervisor;
use crate::util::websocket::{BINARY, CLOSE, Control, Decoder, NORMAL, PONG, TEXT, frame};

/// A client's request for a WebSocket.
pub(crate) struct Asked {
    accept: String,
    protocol: Option<String>,
    upgrade: OnUpgrade,
}

/// Whether a request asks for a WebSocket; one that does not do so properly gets a plain answer.
pub(crate) fn asked<B>(request: &mut Request<B>) -> Option<Asked> {
    let headers = request.headers();
    let has = |name: HeaderName, word: &str| values(headers, &name).any(|it| it.eq_ignore_ascii_case(word));
    let proper = request.method() == Method::GET && request.version() == Version::HTTP_11;
    if !proper || !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") || !has(SEC_WEBSOCKET_VERSION, "13") {
        return None;
    }
    let accept = accept(headers.get(SEC_WEBSOCKET_KEY)?.to_str().ok()?);
    // Browsers put a token there, which is no protocol.
    let protocol = values(headers, &SEC_WEBSOCKET_PROTOCOL).find(|it| !it.starts_with("base64url.bearer.authorization.k8s.io."));
    let protocol = protocol.map(str::to_owned);
    Some(Asked { accept, protocol, upgrade: hyper::upgrade::on(request) })
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(',')).map(str::trim)
}

/// Proves that the server supports the protocol (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    const PROTOCOL_ID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{PROTOCOL_ID}").as_bytes());
    STANDARD.encode(digest)
}

impl Asked {
    /// Sends a watch over the WebSocket; other responses stay as they are.
    pub(crate) fn answer(self, response: Response, tasks: &Supervisor) -> Response {
        let binary = response.headers().get(CONTENT_TYPE).is_none_or(|it| it != "application/json");
        let (head, body) = response.into_parts();
        let events = match body {
            Body::Events(events) => events,
            body => return Response::from_parts(head, body),
        };
        let upgrade = self.upgrade;
        tasks.spawn_quiet(async move {
            let ended = match upgrade.await {
                Ok(upgraded) => serve(upgraded, events, binary).await,
                Err(error) => Err(io::Error::other(error)),
            };
            if let Err(error) = ended {
                tracing::debug!("a watch over a WebSocket ended: {error}");
            }
        });
        let mut response = Response::new(Body::Full(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        set(&mut response, CONNECTION, "Upgrade");
        set(&mut response, UPGRADE, "websocket");
        set(&mut response, SEC_WEBSOCKET_ACCEPT, &self.accept);
        if let Some(protocol) = &self.protocol {
            set(&mut response, SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

async fn serve(upgraded: Upgraded, mut events: BoxStream<'static, io::Result<Bytes>>, binary: bool) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let mut said = Decoder::default();
    loop {
        tokio::select! {
            chunk = events.next() => {
                let Some(chunk) = chunk else { break };
                writer.write_all(&messages(&chunk?, binary)).await?;
            }
            read = reader.read_buf(&mut said.bytes) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(control) = said.next_control().map_err(io::Error::other)? {
                    match control {
                        Control::Ping(payload) => writer.write_all(&frame(PONG, &payload)).await?,
                        Control::Close => {
                            writer.write_all(&frame(CLOSE, &NORMAL)).await?;
                            return writer.shutdown().await;
                        }
                    }
                }
            }
        }
    }
    writer.write_all(&frame(CLOSE, &NORMAL)).await?;
    writer.shutdown().await
}

/// A watch's chunk as messages: lines of JSON, or frames of protobuf, of which the length before each is not needed here.
fn messages(chunk: &[u8], binary: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunk.len() + 16);
    if !binary {
        chunk.split_inclusive(|byte| *byte == b'\n').for_each(|line| out.extend(frame(TEXT, line)));
        return out;
    }
    let mut rest = chunk;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = (u32::from_be_bytes(*length) as usize).min(after.len());
        out.extend(frame(BINARY, &after[..length]));
        rest = &after[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_specification() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_are_events() {
        assert_eq!(messages(b"{}\n[]\n", false), b"\x81\x03{}\n\x81\x03[]\n");
        assert_eq!(messages(b"\0\0\0\x02ab\0\0\0\x01c", true), b"\x82\x02ab\x82\x01c");
    }

    #[test]
    fn who_asks_for_a_websocket() {
        let request = |change: &[(&'static str, &str)]| {
            let mut request = Request::get("/api/v1/pods?watch=true").body(()).unwrap();
            let usual = [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "x"),
            ];
            for (name, value) in usual.iter().chain(change) {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            asked(&mut request).map(|it| it.protocol)
        };
        assert_eq!(request(&[]), Some(None));
        let token = "base64url.bearer.authorization.k8s.io.YQ, base64.binary.k8s.io";
        assert_eq!(request(&[("sec-websocket-protocol", token)]), Some(Some("base64.binary.k8s.io".to_owned())));
        for wrong in [("connection", "close"), ("upgrade", "SPDY/3.1"), ("sec-websocket-version", "8")] {
            assert_eq!(request(&[wrong]), None, "{wrong:?}");
        }
    }
}
