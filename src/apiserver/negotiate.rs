//! Which media type and which form of an object a client wants (`Accept`), and what its body is (`Content-Type`).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

use super::query::Answer;
use crate::codec::PatchKind;
use crate::object::Status;

/// The media type of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
}

/// The form of an answer's objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Whole,
    /// `as=Table`: what `kubectl get` prints.
    Table,
    /// `as=PartialObjectMetadata`: only the metadata.
    Partial,
    /// `as=PartialObjectMetadataList`: only the metadata, of a list.
    Partials,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
    /// The form is to be of `meta.k8s.io/v1beta1`, which differs in nothing but its name.
    pub(crate) older: bool,
}

impl Accepted {
    pub(crate) fn content_type(self) -> &'static str {
        match self.encoding {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
        }
    }
}

/// The first clause of `Accept` that can be served (a client lists them by preference, or says it by `q`). Protobuf is what a client gets that takes nothing
/// else: the answer is made in JSON, and turned into it at the end.
///
/// # Errors
/// 406 if there is none.
pub(crate) fn accept(headers: &HeaderMap) -> Answer<Accepted> {
    let mut all: Vec<&str> = clauses(headers).collect();
    if all.is_empty() {
        return Ok(Accepted::default());
    }
    if all.iter().any(|it| it.contains("q=")) {
        all.sort_by(|a, b| quality(b).total_cmp(&quality(a)));
    }
    if let Some(accepted) = all.into_iter().find_map(parse) {
        return Ok(accepted);
    }
    clauses(headers).find_map(protobuf).ok_or_else(|| not_acceptable(MEDIA_TYPES))
}

/// How much a client likes a media type, from 0 to 1.
fn quality(clause: &str) -> f64 {
    let stated = clause.split(';').find_map(|it| it.trim().strip_prefix("q="));
    stated.and_then(|it| it.trim().parse().ok()).unwrap_or(1.0)
}

/// Whether the client takes nothing but protobuf.
pub(crate) fn insists_on_protobuf(headers: &HeaderMap) -> bool {
    clauses(headers).any(|it| it.starts_with(PROTOBUF)) && clauses(headers).all(|it| parse(it).is_none())
}

fn clauses(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(ACCEPT).iter().map(|it| it.to_str().unwrap_or_default());
    values.flat_map(|it| it.split(',')).map(str::trim).filter(|it| !it.is_empty())
}

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", PROTOBUF];
/// What watches are served in.
pub(crate) const STREAM_TYPES: &[&str] = &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

pub(crate) fn not_acceptable(accepted: &[&str]) -> Box<Status> {
    let message = format!("only the following media types are accepted: {}", accepted.join(", "));
    Box::new(Status::failure(406, "NotAcceptable", message))
}

/// Before the form is looked at: of the media types that a client takes, one has to be served at all.
///
/// # Errors
/// 406, which names the types; those of watches too where there are any.
pub(crate) fn check_served(headers: &HeaderMap, watchable: bool) -> Answer<()> {
    let is_served = |clause: &str| {
        let media_type = clause.split(';').next().unwrap_or_default().trim();
        media_type == "*/*" || MEDIA_TYPES.contains(&media_type)
    };
    if clauses(headers).next().is_none() || clauses(headers).any(is_served) {
        return Ok(());
    }
    let served = MEDIA_TYPES.iter().chain(STREAM_TYPES.iter().filter(|_| watchable)).copied().collect::<Vec<_>>().join(", ");
    let message = format!("406: Not Acceptable\n\nAvailable representations: {served}");
    Err(Box::new(Status::undirected(406, "NotAcceptable", message)))
}

/// There are no tables in protobuf.
fn protobuf(clause: &str) -> Option<Accepted> {
    let parameters = clause.strip_prefix(PROTOBUF)?;
    parse(&format!("application/json{parameters}")).filter(|it| it.form != Form::Table)
}

fn parse(clause: &str) -> Option<Accepted> {
    let mut parts = clause.split(';').map(str::trim);
    let encoding = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut form, mut group, mut version) = (None, None, None);
    for part in parts {
        match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("as", value)) => form = Some(value),
            Some(("g", value)) => group = Some(value),
            Some(("v", value)) => version = Some(value),
            _ => {}
        }
    }
    let known = group == Some("meta.k8s.io") && matches!(version, Some("v1" | "v1beta1"));
    let form = match form {
        None => Form::Whole,
        Some("Table") if known => Form::Table,
        Some("PartialObjectMetadata") if known => Form::Partial,
        Some("PartialObjectMetadataList") if known => Form::Partials,
        Some(_) => return None,
    };
    Some(Accepted { encoding, form, older: form != Form::Whole && version == Some("v1beta1") })
}

/// Whether the client asks for discovery in its aggregated form.
pub(crate) fn wants_aggregated_discovery(headers: &HeaderMap) -> bool {
    clauses(headers).map(|clause| clause.split(';').map(str::trim).collect::<Vec<_>>()).any(|parts| {
        parts.first() == Some(&"application/json")
            && ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|it| parts.contains(it))
    })
}

/// Whom a client that names no field manager is taken for: what its `User-Agent` says before the version.
pub(crate) fn user_agent(headers: &HeaderMap) -> &str {
    let text = headers.get(USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    text.split('/').next().unwrap_or_default()
}

/// `Content-Type` without its parameters, `application/json` if there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// The kind of patch a body is.
///
/// # Errors
/// 415 if it is none, or one that is not served.
pub(crate) fn patch_kind(headers: &HeaderMap) -> Answer<PatchKind> {
    match content_type(headers) {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(Box::new(Status::undirected(415, "UnsupportedMediaType", "415: Unsupported Media Type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: &str) -> Option<(Encoding, Form)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        accept(&headers).ok().map(|it| (it.encoding, it.form))
    }

    #[test]
    fn accept_clauses() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (text, expected) in [
            ("application/json", Some((Encoding::Json, Form::Whole))),
            ("*/*", Some((Encoding::Json, Form::Whole))),
            ("", Some((Encoding::Json, Form::Whole))),
            ("application/yaml", Some((Encoding::Yaml, Form::Whole))),
            ("application/vnd.kubernetes.protobuf, application/json", Some((Encoding::Json, Form::Whole))),
            (table, Some((Encoding::Json, Form::Table))),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some((Encoding::Json, Form::Partials))),
            ("application/json;as=Nothing;g=meta.k8s.io;v=v1, application/json", Some((Encoding::Json, Form::Whole))),
            ("application/json;stream=watch", Some((Encoding::Json, Form::Whole))),
            ("application/vnd.kubernetes.protobuf", Some((Encoding::Json, Form::Whole))),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            ("application/vnd.kubernetes.protobuffer", None),
            ("text/html", None),
            ("application/*", None),
            ("application/json;q=0.5,application/yaml", Some((Encoding::Yaml, Form::Whole))),
        ] {
            assert_eq!(accepted(text), expected, "{text}");
        }
        assert!(accept(&HeaderMap::new()).is_ok());
        for (text, insists) in [
            ("application/vnd.kubernetes.protobuf", true),
            ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", true),
            ("application/vnd.kubernetes.protobuf, application/json", false),
            ("*/*", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            assert_eq!(insists_on_protobuf(&headers), insists, "{text}");
        }
    }

    #[test]
    fn aggregated_discovery_is_asked_for_by_version() {
        let wants = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            wants_aggregated_discovery(&headers)
        };
        assert!(wants("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"));
        assert!(!wants("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"));
        assert!(!wants("application/json"));
    }
}
