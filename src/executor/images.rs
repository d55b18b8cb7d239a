//! Fetching a container's image: pull policy, registry credentials, and events.

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::{Container, Secret};
use serde::Deserialize;

use super::pod::{Failure, Happening};
use crate::object::pod::means_latest;
use crate::runtime::{Credentials, Image, Runtime, RuntimeError};

/// The registry that a reference without one means, and the name it has in credential files.
const HUB: &str = "docker.io";
const HUB_KEYS: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];

/// Ensures that the container's image is present, pulling it if the policy says so.
///
/// # Errors
/// With the reason for the waiting container's status.
pub async fn ensure(
    runtime: &dyn Runtime,
    container: &Container,
    registries: &Registries,
    tell: &(dyn Fn(Happening) + Send + Sync),
) -> Result<Image, Failure> {
    let reference = container.image.as_deref().unwrap_or_default();
    let happened = |warning, reason, message| tell(Happening { warning, reason, message, container: Some(container.name.clone()) });
    if !is_reference(reference) {
        let message = format!(
            "Failed to apply default image tag {reference:?}: couldn't parse image reference {reference:?}: invalid reference format"
        );
        happened(true, "InspectFailed", message.clone());
        return Err(Failure::new("InvalidImageName", message));
    }
    let policy = policy(container);
    let local = runtime.image(reference).await.map_err(|error| Failure::new("ImageInspectError", error.to_string()))?;
    match (policy, local) {
        ("IfNotPresent" | "Never", Some(image)) => {
            happened(false, "Pulled", format!("Container image {reference:?} already present on machine"));
            return Ok(image);
        }
        ("Never", None) => {
            let message = format!("Container image {reference:?} is not present with pull policy of Never");
            happened(true, "ErrImageNeverPull", message.clone());
            return Err(Failure::new("ErrImageNeverPull", message));
        }
        _ => {}
    }
    happened(false, "Pulling", format!("Pulling image {reference:?}"));
    let began = Instant::now();
    let progress = |step: &str| tracing::trace!(image = reference, "{step}");
    match runtime.pull(reference, registries.of(reference).as_ref(), &progress).await {
        Ok(image) => {
            happened(false, "Pulled", format!("Successfully pulled image {reference:?} in {:.3}s", began.elapsed().as_secs_f64()));
            Ok(image)
        }
        Err(error) => {
            let message = match &error {
                RuntimeError::Unavailable(_) => error.to_string(),
                _ => format!("failed to pull image {reference:?}: {error}"),
            };
            happened(true, "Failed", format!("Failed to pull image {reference:?}: {error}"));
            Err(Failure::new("ErrImagePull", message))
        }
    }
}

/// The policy, or the default for the image's tag.
fn policy(container: &Container) -> &str {
    let default = if means_latest(container.image.as_deref().unwrap_or_default()) { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty()).unwrap_or(default)
}

/// Whether a text can be the name of an image: lower case, except the tag and the registry's host.
fn is_reference(text: &str) -> bool {
    let name = text.split('@').next().unwrap_or_default();
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let (_, path) = split_registry(name);
    let component = |part: &str| {
        let inside = part.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"._-".contains(&it));
        let ends = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
        inside && ends(part.chars().next()) && ends(part.chars().last())
    };
    path.split('/').all(component)
        && tag.is_none_or(|tag| {
            !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it))
        })
}

/// Registry and path. A first component is a registry if it looks like a host.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
        _ => (HUB, name),
    }
}

/// Credentials by registry host.
#[derive(Clone, Debug, Default)]
pub struct Registries(BTreeMap<String, Credentials>);

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

impl Registries {
    /// Adds the credentials in a pull secret. Secrets of other types have none.
    pub fn add_secret(&mut self, secret: &Secret) {
        for data in secret.data.iter().flatten().filter(|(key, _)| matches!(key.as_str(), ".dockerconfigjson" | ".dockercfg")) {
            self.add_file(&data.1.0);
        }
    }

    /// Adds the content of a `config.json` or the older `.dockercfg`; invalid parts are skipped.
    pub fn add_file(&mut self, content: &[u8]) {
        let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(content) else { return };
        let auths = value.get_mut("auths").map(serde_json::Value::take).unwrap_or(value);
        let Ok(entries) = serde_json::from_value::<BTreeMap<String, serde_json::Value>>(auths) else { return };
        for (server, entry) in entries {
            let Ok(entry) = serde_json::from_value::<Entry>(entry) else { continue };
            let decoded = BASE64_STANDARD.decode(&entry.auth).ok().and_then(|it| String::from_utf8(it).ok());
            let (user, password) = match decoded.as_deref().and_then(|it| it.split_once(':')) {
                Some((user, password)) => (user.to_owned(), password.to_owned()),
                None => (entry.username, entry.password),
            };
            let host = server.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or_default();
            let host = if HUB_KEYS.contains(&server.as_str()) || HUB_KEYS.contains(&host) { HUB } else { host };
            self.0.insert(host.to_owned(), Credentials { server, user, password });
        }
    }

    fn of(&self, reference: &str) -> Option<Credentials> {
        self.0.get(split_registry(reference).0).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_policies() {
        for (reference, fine) in [
            ("nginx", true),
            ("r.example:5000/a/b:V1.2", true),
            ("localhost/a@sha256:12", true),
            ("", false),
            ("Nginx", false),
            ("a b", false),
            ("a:", false),
            ("a//b", false),
            ("-a", false),
        ] {
            assert_eq!(is_reference(reference), fine, "{reference}");
        }
        for (image, given, expected) in [
            ("nginx", None, "Always"),
            ("nginx:latest", None, "Always"),
            ("nginx:1", None, "IfNotPresent"),
            ("h:5000/nginx", None, "Always"),
            ("nginx@sha256:1", None, "IfNotPresent"),
            ("nginx:latest@sha256:1", None, "Always"),
            ("nginx", Some("Never"), "Never"),
        ] {
            let container = Container { image: Some(image.to_owned()), image_pull_policy: given.map(str::to_owned), ..Default::default() };
            assert_eq!(policy(&container), expected, "{image}");
        }
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let mut registries = Registries::default();
        registries.add_file(
            br#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.example:5000": {"username": "a", "password": "b"}}}"#,
        );
        registries.add_file(b"nonsense");
        assert_eq!(registries.of("nginx").map(|it| (it.user, it.password)), Some(("u".into(), "p".into())));
        assert_eq!(registries.of("r.example:5000/x:1").map(|it| it.user), Some("a".into()));
        assert_eq!(registries.of("other.example/x"), None);
        assert!(!format!("{registries:?}").contains("\"p\""));
    }
}
