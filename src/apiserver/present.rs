//! The last step of an answer. Everything is made in JSON; people see it indented, and clients that take nothing else get it as protobuf.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, StatusCode};

use super::negotiate::{PROTOBUF, insists_on_protobuf, not_acceptable};
use super::query::Query;
use super::respond::{self, Body, Response, set};
use crate::codec;

/// In which dress JSON goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presentation {
    AsItIs,
    Indented,
    Protobuf,
}

impl Presentation {
    /// What a client wants: `pretty` says it, or else the programs that people look at answers with are known by name.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Self {
        if insists_on_protobuf(headers) {
            return Self::Protobuf;
        }
        let indented = match query.get("pretty") {
            Some(value) => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
            None => {
                let agent = headers.get(USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
                [&b"curl"[..], b"Wget", b"Mozilla/5.0"].iter().any(|it| agent.starts_with(it))
            }
        };
        if indented { Self::Indented } else { Self::AsItIs }
    }

    /// The answer in this dress, if it is JSON. A watch's answer is a frame a chunk.
    pub(crate) async fn apply(self, response: Response, watch: bool) -> Response {
        if self == Self::AsItIs || response.headers().get(CONTENT_TYPE).is_none_or(|it| it != "application/json") {
            return response;
        }
        let encoded = response.headers().contains_key(http::header::CONTENT_ENCODING);
        let streams = watch && matches!(response.body(), Body::Stream(_));
        match self {
            Self::Protobuf if streams => frames(response),
            _ if streams || encoded => response,
            _ => whole(self, response).await,
        }
    }
}

async fn whole(dress: Presentation, response: Response) -> Response {
    let (head, body) = response.into_parts();
    let json = match body {
        Body::Full(bytes) => bytes,
        Body::Stream(chunks) => match chunks.try_fold(Vec::new(), |all, chunk| async move { Ok([&all[..], &chunk].concat()) }).await {
            Ok(all) => all.into(),
            Err(error) => return respond::status(&crate::object::Status::internal(error)),
        },
    };
    let mut response = http::Response::from_parts(head, Body::Full(Bytes::new()));
    if json.is_empty() {
        return response;
    }
    let bytes = match dress {
        Presentation::Protobuf => match codec::protobuf(&json) {
            Some(bytes) => {
                set(&mut response, CONTENT_TYPE, PROTOBUF);
                bytes
            }
            None if response.status() == StatusCode::OK => return respond::status(&not_acceptable(&["application/json"])),
            None => json,
        },
        _ => indent(&json).into(),
    };
    *response.body_mut() = Body::Full(bytes);
    response
}

fn frames(response: Response) -> Response {
    let mut response = response.map(|body| match body {
        // What has no message has been refused before: a frame is always there.
        Body::Stream(chunks) => Body::Stream(chunks.map_ok(|line| codec::protobuf_event(&line).unwrap_or_default()).boxed()),
        body => body,
    });
    set(&mut response, CONTENT_TYPE, "application/vnd.kubernetes.protobuf;stream=watch");
    response
}

/// JSON over several lines, by two spaces a level; what is empty stays on one.
fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped, mut opened) = (0, false, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b"  ", depth).flatten());
    };
    for byte in json {
        if quoted {
            quoted = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            out.push(*byte);
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if closes {
            depth = usize::saturating_sub(depth, 1);
        }
        if opened != closes {
            line(&mut out, depth);
        }
        opened = matches!(byte, b'{' | b'[');
        depth += usize::from(opened);
        quoted = *byte == b'"';
        out.push(*byte);
        match byte {
            b',' => line(&mut out, depth),
            b':' => out.push(b' '),
            _ => {}
        }
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_lines() {
        let text = |json: &str| String::from_utf8(indent(json.as_bytes())).unwrap();
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
    }
}
