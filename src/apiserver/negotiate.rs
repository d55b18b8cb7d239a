//! Content negotiation: the media type and form that a client accepts (`Accept`), and the type of its body (`Content-Type`).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

use super::error::Answer;
use super::query::Query;
use super::verb::Verb;
use crate::codec::{MetaVersion, PatchKind};
use crate::object::Status;
use crate::util::go;

/// The negotiated form and encoding of a response, decided once per request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) form: Form,
    pub(crate) encoding: Encoding,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    /// Indented JSON, for people. Events of watches stay on one line each.
    Pretty,
    Yaml,
    Protobuf,
}

/// The form of a response's objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Whole,
    /// `as=Table`, used by `kubectl get`.
    Table(MetaVersion),
    /// `as=PartialObjectMetadata`: only the metadata.
    Partial(MetaVersion),
    /// `as=PartialObjectMetadataList`: only the metadata, of a list.
    Partials(MetaVersion),
}

impl Output {
    pub(crate) fn content_type(self) -> &'static str {
        match self.encoding {
            Encoding::Json | Encoding::Pretty => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => PROTOBUF,
        }
    }
}

/// Result of the negotiation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiated {
    /// Also used for errors; JSON if no media type was acceptable.
    pub(crate) output: Output,
    agreed: bool,
    /// Whether any of the media types that the client accepts is served, in any form.
    served: bool,
}

/// Selects the first clause of `Accept` that can be served (ordered by `q`, if present; `*/*` is the last of its `q`), and whether to
/// indent. Protobuf is only used for clients that accept nothing else: JSON costs less.
pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Negotiated {
    let found = if clauses(headers).any(|it| it.contains("q=") || it.starts_with('*')) {
        let mut all: Vec<&str> = clauses(headers).collect();
        all.sort_by(|a, b| quality(b).total_cmp(&quality(a)).then(a.starts_with('*').cmp(&b.starts_with('*'))));
        all.into_iter().find_map(parse)
    } else {
        clauses(headers).find_map(parse)
    };
    let takes_all = clauses(headers).next().is_none();
    let found = found.or_else(|| clauses(headers).find_map(parse_protobuf)).or(takes_all.then(Output::default));
    let mut output = found.unwrap_or_default();
    if output.encoding == Encoding::Json && is_for_people(headers, query) {
        output.encoding = Encoding::Pretty;
    }
    Negotiated { output, agreed: found.is_some(), served: takes_all || clauses(headers).any(is_served) }
}

impl Negotiated {
    /// The output for objects.
    ///
    /// # Errors
    /// 406 if no media type is acceptable; it names the served types, including those of watches where a watch is possible.
    pub(crate) fn for_objects(self, verb: Verb) -> Answer<Output> {
        if !self.served {
            let streams = STREAM_TYPES.iter().filter(|_| matches!(verb, Verb::List | Verb::Watch));
            return Err(unavailable(&MEDIA_TYPES.iter().chain(streams).copied().collect::<Vec<_>>().join(", ")));
        }
        match self.for_documents()? {
            Output { encoding: Encoding::Yaml, .. } if verb == Verb::Watch => Err(not_acceptable(STREAM_TYPES)),
            output => Ok(output),
        }
    }

    /// The output for documents about the API.
    ///
    /// # Errors
    /// 406 if no media type is acceptable.
    pub(crate) fn for_documents(self) -> Answer<Output> {
        if self.agreed { Ok(self.output) } else { Err(not_acceptable(MEDIA_TYPES)) }
    }
}

/// The output of a page that there is only in JSON.
///
/// # Errors
/// 406 if the client does not accept that.
pub(crate) fn only_json(headers: &HeaderMap) -> Answer<Output> {
    let takes = |clause: &str| matches!(media_type(clause), "application/json" | "*/*");
    if clauses(headers).next().is_none() || clauses(headers).any(takes) {
        return Ok(Output::default());
    }
    Err(unavailable("application/json"))
}

/// 406 that names the media types there are.
fn unavailable(served: &str) -> Box<Status> {
    Box::new(Status::undirected(406, "NotAcceptable", format!("406: Not Acceptable\n\nAvailable representations: {served}")))
}

/// As `pretty` states; otherwise, whether the client is curl, Wget or a browser.
fn is_for_people(headers: &HeaderMap, query: &Query) -> bool {
    match query.get("pretty") {
        Some(value) => go::is_true(value),
        None => {
            let agent = headers.get(USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
            [&b"curl"[..], b"Wget", b"Mozilla/5.0"].iter().any(|it| agent.starts_with(it))
        }
    }
}

/// The `q` value of a clause, from 0 to 1.
fn quality(clause: &str) -> f64 {
    let stated = clause.split(';').find_map(|it| it.trim().strip_prefix("q="));
    stated.and_then(|it| it.trim().parse().ok()).unwrap_or(1.0)
}

fn clauses(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(ACCEPT).iter().map(|it| it.to_str().unwrap_or_default());
    values.flat_map(|it| it.split(',')).map(str::trim).filter(|it| !it.is_empty())
}

/// Watches in protobuf.
pub(crate) const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", PROTOBUF];
/// The media types of watches.
const STREAM_TYPES: &[&str] = &["application/json;stream=watch", PROTOBUF_STREAM];

pub(crate) fn not_acceptable(accepted: &[&str]) -> Box<Status> {
    let message = format!("only the following media types are accepted: {}", accepted.join(", "));
    Box::new(Status::failure(406, "NotAcceptable", message))
}

/// The media type of a clause, without its parameters.
fn media_type(clause: &str) -> &str {
    clause.split(';').next().unwrap_or_default().trim()
}

fn is_served(clause: &str) -> bool {
    let media_type = media_type(clause);
    media_type == "*/*" || MEDIA_TYPES.contains(&media_type)
}

/// There are no tables in protobuf.
fn parse_protobuf(clause: &str) -> Option<Output> {
    let parameters = clause.strip_prefix(PROTOBUF)?;
    let Output { form, .. } = parse(&format!("application/json{parameters}"))?;
    (!matches!(form, Form::Table(_))).then_some(Output { form, encoding: Encoding::Protobuf })
}

fn parse(clause: &str) -> Option<Output> {
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
    let version = match version {
        Some("v1") if group == Some("meta.k8s.io") => Some(MetaVersion::V1),
        Some("v1beta1") if group == Some("meta.k8s.io") => Some(MetaVersion::V1Beta1),
        _ => None,
    };
    let form = match form {
        None => Form::Whole,
        Some("Table") => Form::Table(version?),
        Some("PartialObjectMetadata") => Form::Partial(version?),
        Some("PartialObjectMetadataList") => Form::Partials(version?),
        Some(_) => return None,
    };
    Some(Output { form, encoding })
}

/// Whether the client asks for discovery in its aggregated form.
pub(crate) fn wants_aggregated_discovery(headers: &HeaderMap) -> bool {
    clauses(headers).map(|clause| clause.split(';').map(str::trim).collect::<Vec<_>>()).any(|parts| {
        parts.first() == Some(&"application/json")
            && ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|it| parts.contains(it))
    })
}

/// The field manager of a client that names none: the part of its `User-Agent` before the version.
pub(crate) fn user_agent(headers: &HeaderMap) -> &str {
    let text = headers.get(USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    text.split('/').next().unwrap_or_default()
}

/// `Content-Type` without parameters; `application/json` if there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// The kind of a patch.
///
/// # Errors
/// 415 if it is not a patch, or of a kind that is not served.
pub(crate) fn patch_kind(headers: &HeaderMap) -> Answer<PatchKind> {
    PatchKind::of_media_type(content_type(headers))
        .ok_or_else(|| Box::new(Status::undirected(415, "UnsupportedMediaType", "415: Unsupported Media Type")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(agent: &str, accept: &str, query: &str) -> Option<Output> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, agent.parse().unwrap());
        headers.insert(ACCEPT, accept.parse().unwrap());
        negotiate(&headers, &Query::parse(query)).for_documents().ok()
    }

    #[test]
    fn accept_clauses() {
        use Encoding::{Json, Protobuf, Yaml};
        const WHOLE: Form = Form::Whole;
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (text, expected) in [
            ("application/json", Some((Json, WHOLE))),
            ("*/*", Some((Json, WHOLE))),
            ("", Some((Json, WHOLE))),
            ("application/yaml", Some((Yaml, WHOLE))),
            ("application/vnd.kubernetes.protobuf, application/json", Some((Json, WHOLE))),
            (table, Some((Json, Form::Table(MetaVersion::V1)))),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Some((Json, Form::Table(MetaVersion::V1Beta1)))),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some((Json, Form::Partials(MetaVersion::V1)))),
            ("application/json;as=Nothing;g=meta.k8s.io;v=v1, application/json", Some((Json, WHOLE))),
            ("application/json;stream=watch", Some((Json, WHOLE))),
            ("application/vnd.kubernetes.protobuf", Some((Protobuf, WHOLE))),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Some((Protobuf, Form::Partial(MetaVersion::V1))),
            ),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            ("application/vnd.kubernetes.protobuffer", None),
            ("application/cbor", None),
            ("text/html", None),
            ("application/*", None),
            ("application/json;q=0.5,application/yaml", Some((Yaml, WHOLE))),
            ("*/*, application/yaml", Some((Yaml, WHOLE))),
            ("*/*;q=0.8, application/yaml;q=0.5", Some((Json, WHOLE))),
            ("text/html, */*", Some((Json, WHOLE))),
        ] {
            assert_eq!(agreed("", text, "").map(|it| (it.encoding, it.form)), expected, "{text}");
        }
        assert!(negotiate(&HeaderMap::new(), &Query::default()).for_objects(Verb::Get).is_ok());
    }

    #[test]
    fn who_sees_what() {
        let of = |agent: &str, accept: &str, query: &str| agreed(agent, accept, query).unwrap().encoding;
        assert_eq!(of("curl/8", "*/*", ""), Encoding::Pretty);
        assert_eq!(of("curl/8", "*/*", "pretty=false"), Encoding::Json);
        assert_eq!(of("kubectl/v1.33", "*/*", "pretty=1"), Encoding::Pretty);
        assert_eq!(of("kubectl/v1.33", "application/json", ""), Encoding::Json);
        assert_eq!(of("curl/8", "application/vnd.kubernetes.protobuf", ""), Encoding::Protobuf);
        assert_eq!(of("curl/8", "application/yaml", ""), Encoding::Yaml);
        assert_eq!(of("curl/8", "application/json, application/yaml", "pretty=0"), Encoding::Json);
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
