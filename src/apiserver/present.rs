//! The last step of an answer. Everything is made in JSON; people see it indented, and clients that want it otherwise get it as YAML or protobuf.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, StatusCode};

use super::negotiate::{Encoding, PROTOBUF, accept, insists_on_protobuf, not_acceptable};
use super::query::Query;
use super::respond::{self, Body, Response, set};
use crate::codec;
use crate::object::Status;
use crate::util::go;

/// In which dress JSON goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presentation {
    AsItIs,
    Indented,
    Protobuf,
    Yaml,
}

impl Presentation {
    /// What a client wants: `pretty` says it, or else the programs that people look at answers with are known by name.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Self {
        if insists_on_protobuf(headers) {
            return Self::Protobuf;
        }
        if accept(headers).is_ok_and(|it| it.encoding == Encoding::Yaml) {
            return Self::Yaml;
        }
        let indented = match query.get("pretty") {
            Some(value) => go::is_true(value),
            None => {
                let agent = headers.get(USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
                [&b"curl"[..], b"Wget", b"Mozilla/5.0"].iter().any(|it| agent.starts_with(it))
            }
        };
        if indented { Self::Indented } else { Self::AsItIs }
    }

    /// The answer in this dress, if it is JSON. A watch's answer is whole lines a chunk.
    pub(crate) async fn apply(self, response: Response, watch: bool) -> Response {
        if self == Self::AsItIs || response.headers().get(CONTENT_TYPE).is_none_or(|it| it != "application/json") {
            return response;
        }
        let streams = watch && matches!(response.body(), Body::Stream(_));
        match self {
            Self::Protobuf if streams => frames(response),
            _ if streams || response.headers().contains_key(CONTENT_ENCODING) => response,
            Self::Protobuf => protobuf(response).await,
            Self::Yaml => yaml(response),
            _ => indented(response),
        }
    }
}

/// A list goes on being made while it is indented.
fn indented(response: Response) -> Response {
    let mut indent = Indent::default();
    response.map(|body| match body {
        Body::Full(json) if json.is_empty() => Body::Full(json),
        Body::Full(json) => Body::Full([&indent.lines(&json), END].concat().into()),
        Body::Stream(chunks) => {
            let end = futures_util::stream::iter([Ok(Bytes::from_static(END))]);
            Body::Stream(chunks.map_ok(move |chunk| indent.lines(&chunk).into()).chain(end).boxed())
        }
    })
}

/// Longer ones are converted beside the threads that serve everybody.
const LONG: usize = 1 << 20;

async fn protobuf(response: Response) -> Response {
    let (head, body) = response.into_parts();
    let json = match body {
        Body::Full(bytes) => bytes,
        Body::Stream(chunks) => {
            let append = |mut all: Vec<u8>, chunk: Bytes| async move {
                all.extend_from_slice(&chunk);
                Ok(all)
            };
            match chunks.try_fold(Vec::new(), append).await {
                Ok(all) => all.into(),
                Err(error) => return respond::status(&Status::internal(error)),
            }
        }
    };
    let mut response = http::Response::from_parts(head, Body::Full(Bytes::new()));
    if json.is_empty() {
        return response;
    }
    let converted = if json.len() < LONG {
        codec::protobuf(&json)
    } else {
        let json = json.clone();
        match tokio::task::spawn_blocking(move || codec::protobuf(&json)).await {
            Ok(converted) => converted,
            Err(error) => return respond::status(&Status::internal(error)),
        }
    };
    *response.body_mut() = Body::Full(match converted {
        Some(bytes) => {
            set(&mut response, CONTENT_TYPE, PROTOBUF);
            bytes
        }
        None if response.status() == StatusCode::OK => return respond::status(&not_acceptable(&["application/json"])),
        None => json,
    });
    response
}

/// Objects are in YAML before they come here; not so documents and refusals.
fn yaml(response: Response) -> Response {
    let Body::Full(json) = response.body() else { return response };
    let Ok(value) = serde_json::from_slice(json) else { return response };
    let text = codec::yaml::write(&value);
    let mut response = response.map(|_| Body::Full(text.into()));
    set(&mut response, CONTENT_TYPE, "application/yaml");
    response
}

fn frames(response: Response) -> Response {
    let mut response = response.map(|body| match body {
        Body::Stream(chunks) => Body::Stream(chunks.map(|chunk| chunk.and_then(|lines| messages(&lines))).boxed()),
        body => body,
    });
    set(&mut response, CONTENT_TYPE, "application/vnd.kubernetes.protobuf;stream=watch");
    response
}

/// The events of a chunk, of which there may be many. If one could not be sent the watch has to end: what is left out is never missed.
fn messages(lines: &[u8]) -> io::Result<Bytes> {
    let all: Option<Vec<Bytes>> = lines.split_inclusive(|it| *it == b'\n').map(codec::protobuf_event).collect();
    let all = all.ok_or_else(|| io::Error::other("an event that has no message in protobuf"))?;
    Ok(if let [one] = all.as_slice() { one.clone() } else { all.concat().into() })
}

const END: &[u8] = b"\n";

/// JSON over several lines, by two spaces a level; what is empty stays on one. The text comes piece by piece.
#[derive(Debug, Default)]
struct Indent {
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// What was last is an opening bracket.
    opened: bool,
}

impl Indent {
    fn lines(&mut self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() * 2);
        for byte in json {
            if self.quoted {
                self.quoted = self.escaped || *byte != b'"';
                self.escaped = !self.escaped && *byte == b'\\';
                out.push(*byte);
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            let closes = matches!(byte, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            if self.opened != closes {
                self.line(&mut out);
            }
            self.opened = matches!(byte, b'{' | b'[');
            self.depth += usize::from(self.opened);
            self.quoted = *byte == b'"';
            out.push(*byte);
            match byte {
                b',' => self.line(&mut out),
                b':' => out.push(b' '),
                _ => {}
            }
        }
        out
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b"  ", self.depth).flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_lines() {
        let text = |json: &str| {
            let whole = [Indent::default().lines(json.as_bytes()), b"\n".to_vec()].concat();
            for size in [1, 3, 7] {
                let mut indent = Indent::default();
                let pieces: Vec<u8> = json.as_bytes().chunks(size).flat_map(|it| indent.lines(it)).chain(*b"\n").collect();
                assert_eq!(pieces, whole, "in pieces of {size}");
            }
            String::from_utf8(whole).unwrap()
        };
        assert_eq!(
            text(r#"{"a":[],"b":{}, "c":[1,{"d":"x,\\\"}{"}]}"#),
            "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": \"x,\\\\\\\"}{\"\n    }\n  ]\n}\n"
        );
        let value: serde_json::Value = serde_json::json!({"a": [[], [[]], {}, {"b": [null, -1.5e3]}], "c\n\"": "\\"});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text(&value.to_string())).unwrap(), value);
        assert_eq!(text(&value.to_string()).trim_end(), serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn who_sees_what() {
        let of = |agent: &str, accept: &str, query: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().unwrap());
            headers.insert(http::header::ACCEPT, accept.parse().unwrap());
            Presentation::of(&headers, &Query::parse(query))
        };
        assert_eq!(of("curl/8", "*/*", ""), Presentation::Indented);
        assert_eq!(of("curl/8", "*/*", "pretty=false"), Presentation::AsItIs);
        assert_eq!(of("kubectl/v1.33", "*/*", "pretty=1"), Presentation::Indented);
        assert_eq!(of("kubectl/v1.33", "application/json", ""), Presentation::AsItIs);
        assert_eq!(of("curl/8", "application/vnd.kubernetes.protobuf", ""), Presentation::Protobuf);
        assert_eq!(of("curl/8", "application/yaml", ""), Presentation::Yaml);
        assert_eq!(of("curl/8", "application/json, application/yaml", "pretty=0"), Presentation::AsItIs);
    }
}
