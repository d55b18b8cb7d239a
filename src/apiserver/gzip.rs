//! Compression of large answers for clients that ask for it. Never for watches and logs: their data is to be seen at once.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};

use super::heavy::heavy;
use super::response::{Body, Response, set};

/// Smaller answers are sent as they are.
const FROM: usize = 128 * 1024;

pub(crate) fn compress(headers: &HeaderMap, response: Response) -> Response {
    let asked = headers.get(ACCEPT_ENCODING).and_then(|it| it.to_str().ok()).is_some_and(|it| it.split(',').any(is_asked));
    if !asked {
        return response;
    }
    let (head, body) = response.into_parts();
    let chunks = match body {
        Body::Full(bytes) if bytes.len() >= FROM => futures_util::stream::iter([Ok(bytes)]).boxed(),
        Body::Stream(chunks) => chunks,
        body => return Response::from_parts(head, body),
    };
    let mut response = Response::from_parts(head, Body::Stream(encode(chunks)));
    set(&mut response, CONTENT_ENCODING, "gzip");
    set(&mut response, VARY, "Accept-Encoding");
    response
}

/// Whether a coding is ours, and one that the client takes at all.
fn is_asked(coding: &str) -> bool {
    let mut parts = coding.split(';').map(str::trim);
    let is_refusal = |it: &str| it.strip_prefix("q=").and_then(|it| it.parse::<f32>().ok()) == Some(0.0);
    parts.next() == Some("gzip") && !parts.any(is_refusal)
}

type Chunks = futures_util::stream::BoxStream<'static, io::Result<Bytes>>;

fn encode(chunks: Chunks) -> Chunks {
    let state = (chunks, Some(GzEncoder::new(Vec::new(), Compression::fast())));
    futures_util::stream::unfold(state, |(mut chunks, mut encoder)| async move {
        let out = step(&mut chunks, &mut encoder).await?;
        Some((out, (chunks, encoder)))
    })
    .boxed()
}

/// The next compressed bytes; `None` once all are out.
async fn step(chunks: &mut Chunks, encoder: &mut Option<GzEncoder<Vec<u8>>>) -> Option<io::Result<Bytes>> {
    loop {
        let mut open = encoder.take()?;
        match chunks.next().await {
            Some(Ok(chunk)) => {
                let packed = heavy(chunk.len(), move || open.write_all(&chunk).map(|()| open)).await;
                let out = match packed {
                    Ok(packed) => std::mem::take(encoder.insert(packed).get_mut()),
                    Err(error) => return Some(Err(error)),
                };
                if !out.is_empty() {
                    return Some(Ok(out.into()));
                }
            }
            Some(Err(error)) => return Some(Err(error)),
            None => return Some(open.finish().map(Bytes::from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::apiserver::response;

    #[tokio::test]
    async fn large_answers_survive_compression() {
        let text = Bytes::from("all work and no play ".repeat(20_000));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, "br, gzip;q=0.5".parse().unwrap());
        let response = compress(&headers, response::json(200, text.clone()));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let Body::Stream(chunks) = response.into_body() else { panic!("a stream") };
        let packed: Vec<u8> = chunks.map(|it| it.unwrap().to_vec()).concat().await;
        assert!(packed.len() < text.len() / 10);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
        assert!(matches!(compress(&headers, response::json(200, Bytes::from("x"))).body(), Body::Full(_)));
        headers.insert(ACCEPT_ENCODING, "br, gzip;q=0".parse().unwrap());
        assert!(matches!(compress(&headers, response::json(200, text)).body(), Body::Full(_)));
    }
}
