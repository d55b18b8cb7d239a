//! Request bodies to values: strict about shapes, tolerant of (but not silent about) fields that the schema does not know.

use bytes::Bytes;
use serde_json::Value;

use super::conform::{self, Conforming, Failure};
use super::patch::PatchKind;
use super::scalar::Spelling;
use super::{protobuf, yaml};
use crate::object::schema::{self, Type};
use crate::object::{ResourceRef, Status};
use crate::util::{go_json, json};

/// A request body, decoded.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Unknown and duplicate fields, in Kubernetes' words (`unknown field "spec.foo"`): warnings with `fieldValidation=Warn`, errors with
    /// `Strict`. Unknown fields are already removed from `value`.
    pub strict_errors: Vec<String>,
}

impl Decoded {
    /// The warnings for the client, one per field.
    pub fn warnings(self) -> (Value, Vec<String>) {
        let apart = |it: &String| match it.strip_prefix(yaml::DUPLICATES) {
            Some(keys) => keys.split("\n  ").skip(1).map(str::to_owned).collect(),
            None => vec![it.clone()],
        };
        let warnings = self.strict_errors.iter().flat_map(apart).collect();
        (self.value, warnings)
    }
}

/// Decodes an object of this resource from JSON, YAML or protobuf, by `Content-Type`. `apiVersion` and `kind` are filled in if absent.
///
/// # Errors
/// 415 for another media type, 400 for bytes that are not of it, or that do not have the shape the schema asks for.
pub fn decode(resource: ResourceRef, content_type: &str, body: &Bytes) -> Result<Decoded, Box<Status>> {
    decode_kind((resource.group, resource.version, resource.kind), content_type, body)
}

/// Decodes an object of this group, version and kind: the body of a subresource, or `("", "v1", "DeleteOptions")`.
///
/// # Errors
/// As [`decode`].
pub fn decode_kind(kind: (&str, &str, &str), content_type: &str, body: &Bytes) -> Result<Decoded, Box<Status>> {
    let kind = Expected::new(kind)?;
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    match media_type.to_ascii_lowercase().as_str() {
        "" | "application/json" => kind.json(body),
        "application/yaml" => kind.yaml(body),
        "application/vnd.kubernetes.protobuf" => kind.protobuf(body),
        _ => Err(unsupported()),
    }
}

/// Decodes an applied configuration (`application/apply-patch+yaml`) without a schema; the apply checks it later.
///
/// # Errors
/// 400 if it is not a YAML mapping.
pub fn decode_applied(body: &Bytes) -> Result<Decoded, Box<Status>> {
    // JSON, which kubectl sends, is YAML except for some escapes.
    let mut json = serde_json::Deserializer::from_slice(body);
    if let Ok(Conforming { mut value, strict_errors }) = conform::free(&mut json)
        && json.end().is_ok()
        && strict_errors.is_empty()
        && value.is_object()
    {
        yaml::make_whole(&mut value);
        return Ok(Decoded { value, strict_errors });
    }
    let failed = |why: String| Box::new(Status::bad_request(format!("error decoding YAML: {why}")));
    let document = yaml::read(body).map_err(|why| failed(format!("error converting YAML to JSON: {why}")))?;
    match document.value {
        Value::Null => Err(Box::new(Status::bad_request("invalid object type: /, Kind="))),
        Value::Object(_) => Ok(Decoded { value: document.value, strict_errors: document.duplicates.into_iter().collect() }),
        other => {
            let why = go_json::unmarshal(&other, "map[string]interface {}");
            Err(failed(format!("error unmarshaling JSON: while decoding JSON: {why}")))
        }
    }
}

/// Decodes a patch of one of the JSON kinds.
///
/// # Errors
/// 400 if it is not JSON.
pub fn decode_patch(kind: PatchKind, body: &Bytes) -> Result<Decoded, Box<Status>> {
    let read = |body: &[u8]| {
        let mut json = serde_json::Deserializer::from_slice(body);
        conform::free(&mut json).and_then(|conforming| json.end().map(|()| conforming).map_err(Failure::Syntax))
    };
    match read(body).or_else(|failed| go_json::pair_surrogates(body).map_or(Err(failed), |paired| read(&paired))) {
        Ok(Conforming { value, strict_errors }) => Ok(Decoded { value, strict_errors }),
        Err(Failure::Shape(why)) => Err(Box::new(Status::bad_request(why))),
        Err(Failure::Syntax(error)) => {
            let why = go_json::syntax_error(body).unwrap_or_else(|| error.to_string());
            let what = if kind == PatchKind::Strategic { "" } else { "error decoding patch: " };
            Err(Box::new(Status::bad_request(format!("{what}{why}"))))
        }
    }
}

/// Checks a value that did not come through [`decode`], such as the result of a patch, against the schema; drops unknown fields.
///
/// # Errors
/// For an object of another kind or version, or with a wrong shape; with the messages of [`decode`].
pub fn conform(resource: ResourceRef, value: Value) -> Result<Decoded, String> {
    conform_as(resource, value, Spelling::Json)
}

/// As [`conform`], for the result of a strategic merge patch, which Kubernetes converts rather than decodes: the kind stays.
///
/// # Errors
/// As [`conform`], with the converter's messages.
pub fn conform_converted(resource: ResourceRef, value: Value) -> Result<Decoded, String> {
    conform_as(resource, value, Spelling::Converted)
}

fn conform_as(resource: ResourceRef, value: Value, spelling: Spelling) -> Result<Decoded, String> {
    let expected = Expected::new((resource.group, resource.version, resource.kind)).map_err(|status| status.message)?;
    let Conforming { mut value, strict_errors } = conform::conform(expected.schema, value, spelling).map_err(|failure| match failure {
        Failure::Shape(message) => message,
        Failure::Syntax(error) => error.to_string(),
    })?;
    match value.as_object_mut() {
        Some(object) if spelling == Spelling::Converted => ["apiVersion", "kind"].iter().for_each(|it| drop(object.remove(*it))),
        _ => expected.mistaken(&value).map_err(|it| it.why)?,
    }
    expected.sign(&mut value);
    Ok(Decoded { value, strict_errors })
}

fn unsupported() -> Box<Status> {
    Box::new(Status::failure(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf",
    ))
}

/// The kind that a body has to be of.
struct Expected<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    schema: &'static Type,
}

/// Why something is of another kind or version than expected.
struct Mistaken {
    /// The kind and version in the object, if they are unknown.
    unhandled: Option<(String, String)>,
    why: String,
}

impl Mistaken {
    fn status(&self, expected: &Expected<'_>) -> Box<Status> {
        Box::new(match &self.unhandled {
            Some((kind, version)) => expected.cannot_be_handled(kind, version, &self.why),
            None => Status::bad_request(&*self.why),
        })
    }
}

impl<'a> Expected<'a> {
    fn new((group, version, kind): (&'a str, &'a str, &'a str)) -> Result<Self, Box<Status>> {
        let schema = schema::of_kind(&api_version(group, version), kind)
            .ok_or_else(|| Status::internal(format!("the kind {kind} of {group}/{version} is not described")))?;
        Ok(Self { group, version, kind, schema })
    }

    fn json(&self, body: &[u8]) -> Result<Decoded, Box<Status>> {
        // As in Go, invalid UTF-8 in JSON becomes U+FFFD.
        let body = &*String::from_utf8_lossy(body);
        let body = body.as_bytes();
        let read = |body: &[u8]| {
            let mut input = serde_json::Deserializer::from_slice(body);
            conform::conform(self.schema, &mut input, Spelling::Json)
                .and_then(|conforming| input.end().map(|()| conforming).map_err(Failure::Syntax))
        };
        let paired = |failed| match go_json::pair_surrogates(body) {
            Some(paired) if matches!(failed, Failure::Syntax(_)) => read(&paired),
            _ => Err(failed),
        };
        let outcome = read(body).or_else(paired).map_err(|failure| match failure {
            Failure::Syntax(error) => Failure::Syntax(go_json::syntax_error(body).unwrap_or_else(|| error.to_string())),
            Failure::Shape(why) => Failure::Shape(why),
        });
        self.finish(outcome, body, || serde_json::from_slice(body).unwrap_or_default())
    }

    fn yaml(&self, body: &[u8]) -> Result<Decoded, Box<Status>> {
        let document = yaml::read(body).map_err(|why| self.unrecognized(&why, body))?;
        let value = document.value;
        let outcome = conform::conform(self.schema, value.clone(), Spelling::Json);
        let mut decoded = self.finish(outcome, body, || value)?;
        decoded.strict_errors.splice(0..0, document.duplicates);
        Ok(decoded)
    }

    fn protobuf(&self, body: &[u8]) -> Result<Decoded, Box<Status>> {
        let envelope = protobuf::open(body).map_err(|why| self.unrecognized(why, body))?;
        self.check(envelope.api_version, envelope.kind)?;
        let outcome = envelope.decode(self.schema).map_err(|why| Failure::Shape(why.to_owned()));
        let outcome = outcome.and_then(|value| conform::conform(self.schema, value, Spelling::Json));
        self.finish(outcome, body, || Value::Null)
    }

    /// `unchecked` reads the body without a schema, to distinguish an object of another kind from an invalid one of this kind.
    fn finish<E: std::fmt::Display>(
        &self,
        outcome: Result<Conforming, Failure<E>>,
        body: &[u8],
        unchecked: impl FnOnce() -> Value,
    ) -> Result<Decoded, Box<Status>> {
        match outcome {
            Ok(Conforming { mut value, strict_errors }) => {
                self.check_kind(&value)?;
                // Go leaves an object unchanged on null.
                if value.is_null() {
                    value = Value::Object(serde_json::Map::new());
                }
                if !self.sign(&mut value) {
                    return Err(self.unrecognized("there is no object in it", body));
                }
                Ok(Decoded { value, strict_errors })
            }
            Err(Failure::Shape(message)) => {
                let value = unchecked();
                if !value.is_object() && !value.is_null() {
                    let found = go_json::unmarshal(&value, GO_TYPE);
                    return Err(self.unrecognized(&format!("couldn't get version/kind; json parse error: {found}"), body));
                }
                self.check_kind(&value)?;
                Err(Box::new(self.cannot_be_handled(self.kind, self.version, &message)))
            }
            Err(Failure::Syntax(error)) => Err(self.unrecognized(&format!("couldn't get version/kind; json parse error: {error}"), body)),
        }
    }

    /// Sets kind and version of an object if missing; false if it is not an object.
    fn sign(&self, value: &mut Value) -> bool {
        let Value::Object(map) = value else { return false };
        if !map.contains_key("apiVersion") {
            map.insert("apiVersion".to_owned(), api_version(self.group, self.version).into());
        }
        if !map.contains_key("kind") {
            map.insert("kind".to_owned(), self.kind.into());
        }
        true
    }

    fn check_kind(&self, value: &Value) -> Result<(), Box<Status>> {
        self.mistaken(value).map_err(|it| it.status(self))
    }

    fn check(&self, found: &str, kind: &str) -> Result<(), Box<Status>> {
        self.mistaken_for(found, kind).map_err(|it| it.status(self))
    }

    fn mistaken(&self, value: &Value) -> Result<(), Mistaken> {
        let text = |path| json::text(value, path);
        self.mistaken_for(text("/apiVersion"), text("/kind"))
    }

    /// An empty value counts as the expected one.
    fn mistaken_for(&self, found: &str, kind: &str) -> Result<(), Mistaken> {
        let expected = api_version(self.group, self.version);
        let found = if found.is_empty() { &expected } else { found };
        let kind = if kind.is_empty() { self.kind } else { kind };
        let version = found.rsplit('/').next().unwrap_or(found);
        let unhandled = |why| Err(Mistaken { unhandled: Some((kind.to_owned(), version.to_owned())), why });
        if kind != self.kind {
            let group = if self.group.is_empty() { "core" } else { self.group.split('.').next().unwrap_or_default() };
            return unhandled(match schema::of_kind(found, kind) {
                Some(_) => format!("converting ({version}.{kind}) to ({group}.{}): unknown conversion", self.kind),
                None => unregistered(found, kind),
            });
        }
        let is_same = found == expected || (found, kind) == OLD_EVICTION && self.group == "policy";
        // Options belong to no group: clients send them in the group of the object concerned.
        if !is_same && self.schema.field("metadata").is_some() {
            if schema::of_kind(found, kind).is_none() {
                return unhandled(unregistered(found, kind));
            }
            let why = format!("the API version in the data ({found}) does not match the expected API version ({expected})");
            return Err(Mistaken { unhandled: None, why });
        }
        Ok(())
    }

    fn cannot_be_handled(&self, kind: &str, version: &str, why: &str) -> Status {
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", self.kind))
    }

    fn unrecognized(&self, why: &str, body: &[u8]) -> Box<Status> {
        const SHOWN: usize = 30;
        let more = if body.len() > SHOWN { " ..." } else { "" };
        let start = &body[..body.len().min(SHOWN)];
        let summary = match body.first() {
            None => "<empty>".to_owned(),
            Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
            Some(_) => format!("{}{more}", start.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        };
        Box::new(Status::bad_request(format!("the object provided is unrecognized (must be of type {}): {why} ({summary})", self.kind)))
    }
}

/// The Go type by which an object's kind is determined first.
const GO_TYPE: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// The only kind that is still accepted in an older, identical version.
const OLD_EVICTION: (&str, &str) = ("policy/v1beta1", "Eviction");

fn unregistered(version: &str, kind: &str) -> String {
    format!("no kind {kind:?} is registered for version {version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"")
}

pub(super) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::fitting;
    use super::*;
    use crate::object::resource;

    fn decoded(resource: ResourceRef, body: &str) -> Result<Decoded, String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let media_type = if body.starts_with(b"{") { "application/json; charset=utf-8" } else { "application/yaml" };
        decode(resource, media_type, &body).map_err(|status| {
            assert_eq!((status.code, &*status.reason), (400, "BadRequest"));
            status.message
        })
    }

    #[test]
    fn wrong_shapes_are_told_as_the_api_server_tells_them() {
        let start = r#"Deployment in version "v1" cannot be handled as a Deployment: "#;
        for (body, message) in [
            (
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 3_000_000_000u64}}),
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 0.0}}),
                "json: cannot unmarshal number 0.0 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": {}}}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": ["a"]}}}}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
            ),
            (json!({"spec": []}), "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
            (json!({"metadata": {"creationTimestamp": 5}}), "json: cannot unmarshal number into Go value of type string"),
            (
                json!({"spec": {"paused": "yes"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
            ),
        ] {
            assert_eq!(decoded(&resource::DEPLOYMENT, &body.to_string()).unwrap_err(), format!("{start}{message}"));
        }
        let quantity = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "a lot"}}}]}}).to_string();
        assert_eq!(
            decoded(&resource::POD, &quantity).unwrap_err(),
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        );
    }

    #[test]
    fn another_kind_or_version_is_refused() {
        for (body, message) in [
            (
                r#"{"apiVersion": "v1", "kind": "Service", "spec": {"ports": {}}}"#,
                r#"Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion"#,
            ),
            (
                r#"{"apiVersion": "v1", "kind": "Pood"}"#,
                r#"Pood in version "v1" cannot be handled as a Pod: no kind "Pood" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
            (
                r#"{"apiVersion": "v1beta3", "kind": "Pod"}"#,
                r#"Pod in version "v1beta3" cannot be handled as a Pod: no kind "Pod" is registered for version "v1beta3" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
        ] {
            assert_eq!(decoded(&resource::POD, body).unwrap_err(), message);
        }
        let head = "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: ";
        for (body, why) in [
            (r#"{"spec": {"containers": [{"name": "a"}"#, r#"unexpected end of JSON input ({"spec": {"containers": [{"nam ...)"#),
            (r#"{"kind": "Pod"} x"#, r#"invalid character 'x' after top-level value ({"kind": "Pod"} x)"#),
            ("", "unexpected end of JSON input (<empty>)"),
            ("hello", "invalid character 'h' looking for beginning of value (68656c6c6f)"),
            ("[]", &format!("json: cannot unmarshal array into Go value of type {GO_TYPE} (5b5d)")),
        ] {
            let status = decode(&resource::POD, "application/json", &Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
            assert_eq!((status.code, status.message), (400, format!("{head}{why}")));
        }
        let status = decode(&resource::POD, "text/plain", &Bytes::from_static(b"{}")).unwrap_err();
        assert_eq!((status.code, &*status.reason), (415, "UnsupportedMediaType"));
        let options = br#"{"kind": "DeleteOptions", "apiVersion": "policy/v1", "gracePeriodSeconds": 0, "x": 1}"#;
        let options = decode_kind(("", "v1", "DeleteOptions"), "application/json", &Bytes::from_static(options)).unwrap();
        assert_eq!(options.value["gracePeriodSeconds"], 0);
        assert_eq!(options.strict_errors, [r#"unknown field "x""#]);
    }

    #[test]
    fn a_patched_object_is_still_of_its_kind() {
        let conform = |value: Value| super::conform(&resource::CONFIG_MAP, value).map(|it| it.value);
        for (value, why) in [
            (json!({"kind": "Pod"}), r#"converting (v1.Pod) to (core.ConfigMap): unknown conversion"#),
            (
                json!({"apiVersion": "v9"}),
                r#"no kind "ConfigMap" is registered for version "v9" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
        ] {
            assert_eq!(conform(value).unwrap_err(), why);
        }
        let right = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}});
        assert_eq!(conform(json!({"kind": "", "data": {"a": "b"}})).unwrap(), right);
        let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "data": {"a": "b"}});
        assert_eq!(conform_converted(&resource::CONFIG_MAP, other).unwrap().value, right);
    }

    #[test]
    fn unknown_and_duplicate_fields_are_dropped_and_told() {
        let body = r#"{"spec": {"foo": {"bar": [1]}, "containers": [{"name": "a", "imagee": "b", "name": "c"}, {"env": [{"valu": "x"}]}]},
            "metadata": {"labels": {"a": "1", "a": "2"}}, "status": null, "status": {}, "x": 1, "x": 2}"#;
        let decoded = decoded(&resource::POD, body).unwrap();
        assert_eq!(
            decoded.strict_errors,
            [
                r#"unknown field "spec.foo""#,
                r#"unknown field "spec.containers[0].imagee""#,
                r#"duplicate field "spec.containers[0].name""#,
                r#"unknown field "spec.containers[1].env[0].valu""#,
                r#"duplicate field "metadata.labels.a""#,
                r#"duplicate field "status""#,
                r#"unknown field "x""#,
            ]
        );
        assert_eq!(
            decoded.value,
            json!({
                "kind": "Pod", "apiVersion": "v1",
                "spec": {"containers": [{"name": "c"}, {"env": [{}]}]},
                "metadata": {"labels": {"a": "2"}},
                "status": {},
            })
        );
        for (body, data) in [
            (r#"{"data": {"a": "b"}, "data": {"c": "d"}}"#, json!({"a": "b", "c": "d"})),
            (r#"{"data": {"a": "b"}, "data": null}"#, Value::Null),
            (r#"{"data": null, "data": {"a": "b"}}"#, json!({"a": "b"})),
        ] {
            let decoded = super::decode(&resource::CONFIG_MAP, "", &Bytes::from_static(body.as_bytes())).unwrap();
            assert_eq!(decoded.value["data"], data, "{body}");
            assert_eq!(decoded.strict_errors, ["duplicate field \"data\""], "{body}");
        }
    }

    #[test]
    fn nulls_are_no_values_and_numbers_may_be_quantities() {
        let body = json!({"metadata": {"name": "a", "creationTimestamp": null, "annotations": {"k": null}}, "status": null,
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 1, "memory": "0.50Gi", "x": 0.5}}, "args": ["a", null]}],
                     "volumes": null}});
        let decoded = decoded(&resource::POD, &body.to_string()).unwrap();
        assert_eq!(
            decoded.value,
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "annotations": {"k": ""}},
                "spec": {"containers": [
                    {"name": "c", "resources": {"limits": {"cpu": "1", "memory": "512Mi", "x": "500m"}}, "args": ["a", ""]}]}})
        );
        assert!(decoded.strict_errors.is_empty());
    }

    /// A number that changed a little each time it is read would change with every write of its object.
    #[test]
    fn numbers_come_back_as_they_are_written() {
        for number in ["5.5555555555549995e+35", "1.7976931348623157e308", "5e-324", "0.1", "123456789.12345679"] {
            let body = format!(r#"{{"apiVersion":"apps/v1","kind":"ControllerRevision","data":{number}}}"#);
            let once = decoded(&resource::CONTROLLER_REVISION, &body).unwrap().value;
            let again = decoded(&resource::CONTROLLER_REVISION, &once.to_string()).unwrap().value;
            assert_eq!(again, once);
            assert_eq!(once["data"].as_f64(), Some(number.parse().unwrap()));
        }
    }

    #[test]
    fn amounts_of_resources_are_no_finer_than_thousandths() {
        let body = json!({"metadata": {"name": "a"}, "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"a": "1u", "b": "1500u", "c": "1e-5", "d": "2m"}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1500u"}}]}});
        let value = decoded(&resource::POD, &body.to_string()).unwrap().value;
        let spec = &value["spec"];
        assert_eq!(spec["containers"][0]["resources"]["limits"], json!({"a": "1m", "b": "2m", "c": "1e-3", "d": "2m"}));
        assert_eq!(spec["volumes"][0]["emptyDir"]["sizeLimit"], "1500u");
    }

    #[test]
    fn yaml_is_json_otherwise_written() {
        let body = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {1: b}}\nspec:\n  hostNetwork: yes\n  foo: 1\n  foo: 2\n  volumes:\n  - name: v\n    \
                    secret: {secretName: s, defaultMode: 0644}\n  containers:\n  - name: c\n    tty: off\n    image: \"yes\"\n    image: \"no\"\n    \
                    ports: [{containerPort: 080}, {containerPort: 8e1}]\n---\nkind: Service\n";
        let found = decoded(&resource::POD, body).unwrap();
        assert_eq!(
            found.value,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"1": "b"}}, "spec": {
                "hostNetwork": true,
                "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}],
                "containers": [{"name": "c", "image": "no", "ports": [{"containerPort": 80}, {"containerPort": 80}]}],
            }})
        );
        let keys = ["line 7: key \"foo\" already set in map", "line 15: key \"image\" already set in map"];
        assert_eq!(
            found.strict_errors,
            [format!("yaml: unmarshal errors:\n  {}", keys.join("\n  ")), "unknown field \"spec.foo\"".to_owned()]
        );
        assert_eq!(found.warnings().1, [keys[0], keys[1], "unknown field \"spec.foo\""]);
        let merged = decoded(&resource::CONFIG_MAP, "metadata: {annotations: &a {x: w}, labels: {<<: *a, z: w}}\n").unwrap();
        assert_eq!(merged.value["metadata"]["labels"], json!({"z": "w", "x": "w"}));
        let head = "the object provided is unrecognized (must be of type ConfigMap): ";
        for (body, why) in [
            ("a: [b\n", format!("{head}yaml: line 1: did not find expected ',' or ']' (613a205b620a)")),
            (
                "[]",
                format!(
                    "{head}couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type {GO_TYPE} (5b5d)"
                ),
            ),
        ] {
            let status = decode(&resource::CONFIG_MAP, "application/yaml", &Bytes::from_static(body.as_bytes())).unwrap_err();
            assert_eq!((status.code, status.message), (400, why));
        }
        let start = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal";
        for (body, why) in
            [("data: {a: 1}", "number"), ("data: {a: on}", "bool"), ("data: {a: 012}", "number"), ("immutable: \"true\"", "string")]
        {
            assert!(decoded(&resource::CONFIG_MAP, body).unwrap_err().starts_with(&format!("{start} {why} into")), "{body}");
        }
    }

    #[test]
    fn what_is_applied_is_yaml_whatever_it_looks_like() {
        let applied = |body: &'static str| decode_applied(&Bytes::from_static(body.as_bytes())).map_err(|it| it.message);
        for (body, expected) in [
            ("a: yes\nb: 0644\n", json!({"a": true, "b": 420})),
            (r#"{"a": 80.0, "b": [8e1], "c": 1.5}"#, json!({"a": 80, "b": [80], "c": 1.5})),
            ("a: &a {b: c}\nd:\n  <<: *a\n", json!({"a": {"b": "c"}, "d": {"b": "c"}})),
        ] {
            assert_eq!(applied(body).unwrap().value, expected);
        }
        for body in ["{\"a\": 1, \"a\": 2}", "{a: 1, a: 2}"] {
            let found = applied(body).unwrap();
            assert_eq!(found.strict_errors, ["yaml: unmarshal errors:\n  line 1: key \"a\" already set in map"]);
            assert_eq!(found.value, json!({"a": 2}));
        }
        for (body, why) in [
            ("a: {b", "error decoding YAML: error converting YAML to JSON: yaml: line 1: did not find expected ',' or '}'"),
            (
                "[]",
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type \
                 map[string]interface {}",
            ),
            ("", "invalid object type: /, Kind="),
        ] {
            assert_eq!(applied(body).unwrap_err(), why);
        }
    }

    #[test]
    fn depth_is_bounded() {
        for open in ["[", "{a: ", "- "] {
            let body = format!("data:\n  {}", open.repeat(50_000));
            assert!(decoded(&resource::CONFIG_MAP, &body).is_err(), "{open}");
            assert!(decode_applied(&body.into()).is_err(), "{open}");
        }
        let deep = format!("{{\"data\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(decoded(&resource::CONTROLLER_REVISION, &deep).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn decoding_never_panics(body in prop::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]:,\"a-z0-9 \n<&*-]{0,80}") {
            for body in [Bytes::from(body), Bytes::from(text)] {
                for media_type in ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"] {
                    let _ = decode(&resource::POD, media_type, &body);
                }
            }
        }

        #[test]
        fn what_fits_the_schema_is_kept_as_it_is(
            (resource, mut value) in prop::sample::select(resource::ALL)
                .prop_flat_map(|resource| (Just(resource), fitting::object(schema::get(resource.schema).unwrap(), 4)))
        ) {
            value["kind"] = resource.kind.into();
            value["apiVersion"] = resource.api_version().into();
            let body = value.to_string();
            let decoded = decode(resource, "", &Bytes::from(body.clone())).unwrap();
            prop_assert!(decoded.strict_errors.is_empty());
            prop_assert_eq!(decoded.value.to_string(), body);
            prop_assert_eq!(conform(resource, value.clone()).unwrap().value, value);
        }
    }

    /// The typed form loses nothing: each of our fields is a field of the type, with the same shape.
    #[test]
    fn the_typed_forms_know_every_field() {
        use k8s_openapi::api::{apps, autoscaling, batch, coordination, core, discovery, networking, policy, rbac, storage};
        fn check<T: serde::de::DeserializeOwned + serde::Serialize>(name: &str) {
            let full = fitting::full(schema::get(name).unwrap(), 12);
            let typed: T = serde_json::from_value(full.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(serde_json::to_value(typed).unwrap(), full, "{name}");
        }
        check::<core::v1::PodSpec>("io.k8s.api.core.v1.PodSpec");
        check::<core::v1::PodStatus>("io.k8s.api.core.v1.PodStatus");
        check::<core::v1::NodeSpec>("io.k8s.api.core.v1.NodeSpec");
        check::<core::v1::NodeStatus>("io.k8s.api.core.v1.NodeStatus");
        check::<core::v1::ServiceSpec>("io.k8s.api.core.v1.ServiceSpec");
        check::<core::v1::PersistentVolumeSpec>("io.k8s.api.core.v1.PersistentVolumeSpec");
        check::<core::v1::ReplicationControllerSpec>("io.k8s.api.core.v1.ReplicationControllerSpec");
        check::<core::v1::LimitRangeSpec>("io.k8s.api.core.v1.LimitRangeSpec");
        check::<core::v1::ResourceQuotaSpec>("io.k8s.api.core.v1.ResourceQuotaSpec");
        check::<core::v1::EndpointSubset>("io.k8s.api.core.v1.EndpointSubset");
        check::<apps::v1::DeploymentSpec>("io.k8s.api.apps.v1.DeploymentSpec");
        check::<apps::v1::StatefulSetSpec>("io.k8s.api.apps.v1.StatefulSetSpec");
        check::<apps::v1::DaemonSetStatus>("io.k8s.api.apps.v1.DaemonSetStatus");
        check::<batch::v1::CronJobSpec>("io.k8s.api.batch.v1.CronJobSpec");
        check::<batch::v1::JobStatus>("io.k8s.api.batch.v1.JobStatus");
        check::<autoscaling::v2::HorizontalPodAutoscalerSpec>("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec");
        check::<coordination::v1::LeaseSpec>("io.k8s.api.coordination.v1.LeaseSpec");
        check::<discovery::v1::Endpoint>("io.k8s.api.discovery.v1.Endpoint");
        check::<networking::v1::IngressSpec>("io.k8s.api.networking.v1.IngressSpec");
        check::<policy::v1::PodDisruptionBudgetSpec>("io.k8s.api.policy.v1.PodDisruptionBudgetSpec");
        check::<rbac::v1::PolicyRule>("io.k8s.api.rbac.v1.PolicyRule");
        check::<storage::v1::CSIDriverSpec>("io.k8s.api.storage.v1.CSIDriverSpec");
        check::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        check::<core::v1::Pod>("io.k8s.api.core.v1.Pod");
        check::<core::v1::Secret>("io.k8s.api.core.v1.Secret");
        check::<core::v1::Event>("io.k8s.api.core.v1.Event");
    }
}
