//! The fuzz targets: each decoder must decode or reject its bytes, and the decoded values must be consistent.

pub mod requests;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use km::client::kubeconfig::Access;
use km::client::{Client, ResponseBody, Transport};
use km::codec::{self, IncludeObject, MetaVersion, PatchKind, TableWriter};
use km::mesos::recordio;
use km::object::resource::{self, POD};
use km::object::selector::{FieldSelector, LabelSelector};
use km::object::{Object, ResourceRef};
use km::util::{cidr::Cidr, duration, quantity::Quantity, websocket};
use serde_json::Value;

/// A resource selected by the first byte, and the rest.
fn choose(data: &[u8]) -> Option<(ResourceRef, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((resource::ALL[usize::from(*first) % resource::ALL.len()], rest))
}

/// Takes a request body into the store and out again.
pub fn body(media_type: &str, data: &[u8]) {
    let Some((resource, body)) = choose(data) else { return };
    let body = Bytes::copy_from_slice(body);
    if media_type == "application/yaml" {
        let _ = codec::decode_applied(&body);
    }
    let Ok(decoded) = codec::decode(resource, media_type, &body) else { return };
    accepted(resource, decoded.value);
}

pub fn protobuf(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    body("application/vnd.kubernetes.protobuf", &[std::slice::from_ref(first), b"k8s\0", rest].concat());
}

/// A decoded value can be defaulted, validated, stored, decoded again and rendered.
fn accepted(resource: ResourceRef, mut value: Value) {
    codec::default(resource, &mut value);
    let once = value.clone();
    codec::default(resource, &mut value);
    assert_eq!(value, once, "defaults change what has them");
    codec::validate(resource, &value, None);
    codec::validate(resource, &value, Some(&value));
    let json = value.to_string();
    let mut again = codec::decode(resource, "application/json", &Bytes::from(json.clone())).expect("what was decoded is decoded again");
    assert!(again.strict_errors.is_empty(), "{:?}", again.strict_errors);
    // Decoding drops zero values that defaulting writes.
    codec::default(resource, &mut again.value);
    assert_eq!(again.value, value);
    if let Ok(object) = Object::from_stored(resource, json.as_bytes(), 7) {
        let writer = TableWriter::new(resource, MetaVersion::V1, IncludeObject::Object, jiff::Timestamp::UNIX_EPOCH);
        let table = writer.table(&[object], "{}", true);
        assert!(serde_json::from_slice::<Value>(&table).is_ok());
    }
}

/// Input: a resource, the kind of patch, then an object and a patch separated by a newline.
pub fn patch(data: &[u8]) {
    let Some((resource, [kind, rest @ ..])) = choose(data) else { return };
    let kind = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic][usize::from(*kind) % 3];
    let Some(end) = rest.iter().position(|it| *it == b'\n') else { return };
    let Ok(current) = codec::decode(resource, "application/json", &Bytes::copy_from_slice(&rest[..end])) else { return };
    let Ok(patch) = serde_json::from_slice::<Value>(&rest[end..]) else { return };
    let Ok(patched) = codec::patch(resource, &current.value, kind, &patch) else { return };
    // A patch may leave no object at all.
    if let Some(decoded) = codec::conform(resource, patched).ok().filter(|it| it.value.is_object()) {
        accepted(resource, decoded.value);
    }
}

pub fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).expect("what a selector prints is one");
        assert_eq!(again, selector);
        selector.matches_labels(|_| Some("a"));
        selector.matches_labels(|_| None);
    }
    if let Ok(selector) = FieldSelector::parse(&POD, text) {
        let again = FieldSelector::parse(&POD, &selector.to_string()).expect("what a selector prints is one");
        // Terms are sorted by their text, in which `==` has not become `=` yet.
        let terms = |it: &FieldSelector| it.terms.iter().map(|it| format!("{it:?}")).collect::<BTreeSet<_>>();
        assert_eq!(terms(&again), terms(&selector));
    }
}

pub fn quantities(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(quantity) = text.parse::<Quantity>() {
        let again: Quantity = quantity.to_string().parse().expect("what a quantity prints is one");
        assert_eq!(again.to_string(), quantity.to_string());
        assert_eq!(again.partial_cmp(&quantity), Some(std::cmp::Ordering::Equal));
        let _ = (quantity.value(), quantity.millis(), quantity.to_f64());
    }
    if let Ok(duration) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::format(duration)), Ok(duration));
    }
    let _ = text.parse::<Cidr>();
}

/// The first byte is the size of the pieces in which the rest arrives.
pub fn recordio(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let read = |size: usize| {
        let (mut decoder, mut records) = (recordio::Decoder::default(), Vec::new());
        for piece in bytes.chunks(size) {
            decoder.push(piece);
            loop {
                match decoder.next_record() {
                    Ok(Some(record)) => records.push(record),
                    Ok(None) => break,
                    Err(error) => return (records, Some(error.to_string())),
                }
            }
        }
        (records, None)
    };
    assert_eq!(read(usize::from(*size).max(1)), read(bytes.len().max(1)));
}

/// The first byte is the size of the pieces in which the rest arrives.
pub fn websocket(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let read = |size: usize| {
        let (mut decoder, mut controls) = (websocket::Decoder::default(), Vec::new());
        for piece in bytes.chunks(size) {
            decoder.bytes.extend_from_slice(piece);
            loop {
                match decoder.next_control() {
                    Ok(Some(control)) => controls.push(control),
                    Ok(None) => break,
                    Err(error) => return (controls, Some(error)),
                }
            }
        }
        (controls, None)
    };
    assert_eq!(read(usize::from(*size).max(1)), read(bytes.len().max(1)));
}

pub fn kubeconfig(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Access::parse(text, Path::new("/nowhere"));
    }
}

/// A server that responds with these bytes.
#[derive(Debug)]
struct Canned(Vec<Bytes>);

impl Transport for Canned {
    fn send(&self, _: http::Request<Bytes>) -> BoxFuture<'_, km::client::Result<http::Response<ResponseBody>>> {
        let body: ResponseBody = futures_util::stream::iter(self.0.clone().into_iter().map(Ok)).boxed();
        Box::pin(async move { Ok(http::Response::new(body)) })
    }
}

/// The first byte is the size of the pieces in which the rest arrives.
pub fn watch(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let pieces = bytes.chunks(usize::from(*size).max(1)).map(Bytes::copy_from_slice).collect();
    let client = Client::new(std::sync::Arc::new(Canned(pieces)));
    requests::run(async {
        let Ok(mut stream) = client.watch(&POD, &Default::default(), 1, 60).await else { return };
        while let Ok(Some(_)) = stream.next().await {}
    });
}
