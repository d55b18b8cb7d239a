//! Encoding of watch events.

use std::sync::Arc;

use bytes::Bytes;

use super::metadata::{MetaVersion, partial_metadata};
use super::protobuf::protobuf_event;
use super::version::in_version;
use crate::object::{Object, ResourceRef, Status};

/// An encoding of events that all clients with the same request share. The default: whole objects in the stored version, in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFormat {
    /// The version of the objects, if it is not the stored one.
    pub version: Option<ResourceRef>,
    /// Only the metadata of the objects.
    pub metadata: Option<MetaVersion>,
    pub protobuf: bool,
}

impl EventFormat {
    /// An event of this type (`ADDED`, say) about an object.
    pub fn event(self, kind: &str, object: &Arc<Object>) -> Bytes {
        let converted = self.version.map(|it| in_version(object, it));
        let object = converted.as_ref().unwrap_or(object);
        match self.metadata {
            None => self.event_of(kind, object.body()),
            Some(version) => self.event_of(kind, &partial_metadata(object, version)),
        }
    }

    /// An event with this JSON as its object.
    pub fn event_of(self, kind: &str, json: &[u8]) -> Bytes {
        if self.protobuf {
            return protobuf_event(kind, json).unwrap_or_else(unsendable);
        }
        let mut out = Vec::with_capacity(json.len() + 40);
        write_json_event(kind, json, &mut out);
        out.into()
    }
}

pub fn write_json_event(kind: &str, json: &[u8], out: &mut Vec<u8>) {
    for part in [br#"{"type":""#, kind.as_bytes(), br#"","object":"#, json, b"}\n"] {
        out.extend_from_slice(part);
    }
}

/// Replaces an event without protobuf form: the watch must not continue as if it were complete.
fn unsendable() -> Bytes {
    let status = Status::internal("the object has no form in protobuf");
    protobuf_event("ERROR", &serde_json::to_vec(&status).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::{EVENT, POD};

    #[test]
    fn objects_in_each_form() {
        let json = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7"},"spec":{}}"#;
        let pod = Object::from_wire(&POD, json.into()).unwrap();
        let text = |format: EventFormat| String::from_utf8(format.event("ADDED", &pod).to_vec()).unwrap();
        assert_eq!(text(EventFormat::default()), format!("{{\"type\":\"ADDED\",\"object\":{json}}}\n"));
        let metadata = text(EventFormat { metadata: Some(MetaVersion::V1Beta1), ..EventFormat::default() });
        let expected =
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1beta1","metadata":{"name":"a","resourceVersion":"7"}}"#;
        assert_eq!(metadata, format!("{{\"type\":\"ADDED\",\"object\":{expected}}}\n"));
        let event = Object::from_wire(&EVENT, json.replace("Pod", "Event").into()).unwrap();
        let newer = crate::object::resource::served("events.k8s.io", "v1", "events");
        let newer = EventFormat { version: newer, ..EventFormat::default() }.event("ADDED", &event);
        assert!(String::from_utf8_lossy(&newer).contains(r#""apiVersion":"events.k8s.io/v1""#));
    }

    #[test]
    fn what_has_no_message_is_an_error() {
        let format = EventFormat { protobuf: true, ..EventFormat::default() };
        let error = format.event_of("ADDED", br#"{"kind": "Nothing", "apiVersion": "v1"}"#);
        assert!(error[4..].starts_with(b"\x0a\x05ERROR\x12"), "{error:?}");
    }
}
