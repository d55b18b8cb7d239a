//! A container's environment: services, references, values; later ones override earlier ones. Pure, given the referenced objects.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, PersistentVolume, Pod, Secret, Service};

use super::expand::expand;
use super::fields::{self, Facts};

/// The ConfigMaps and Secrets of the pod's namespace that its containers or volumes refer to; `None` for one that is not there.
#[derive(Clone, Debug, Default)]
pub struct References {
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// The volumes that claims are bound to.
    pub claims: BTreeMap<String, Option<PersistentVolume>>,
}

/// The objects that [`References`] must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub claims: BTreeSet<String>,
}

/// Why the environment cannot be made: with the sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvError(pub String);

/// The objects that a container's environment refers to.
pub fn needs(container: &Container) -> Needs {
    let mut needs = Needs::default();
    for from in container.env_from.iter().flatten() {
        needs.config_maps.extend(from.config_map_ref.iter().map(|it| it.name.clone()));
        needs.secrets.extend(from.secret_ref.iter().map(|it| it.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        needs.config_maps.extend(source.config_map_key_ref.iter().map(|it| it.name.clone()));
        needs.secrets.extend(source.secret_key_ref.iter().map(|it| it.name.clone()));
    }
    needs
}

/// The variables of a container. A variable named twice has its last value, at its first place.
///
/// # Errors
/// For a reference that is not optional and leads nowhere.
pub fn environment(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    references: &References,
    services: &[&Service],
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Env::default();
    for (name, value) in service_variables(services) {
        env.set(&name, value);
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let optional = from.config_map_ref.as_ref().and_then(|it| it.optional).or(from.secret_ref.as_ref().and_then(|it| it.optional));
        let entries = if let Some(reference) = &from.config_map_ref {
            references.config_maps.get(&reference.name).cloned().flatten().map(|map| map.data.unwrap_or_default())
        } else if let Some(reference) = &from.secret_ref {
            references.secrets.get(&reference.name).and_then(Option::as_ref).map(secret_text)
        } else {
            continue;
        };
        match entries {
            Some(entries) => entries.into_iter().for_each(|(key, value)| env.set(&format!("{prefix}{key}"), value)),
            None if optional == Some(true) => {}
            None => return Err(missing(from.config_map_ref.as_ref().map(|it| &it.name), from.secret_ref.as_ref().map(|it| &it.name))),
        }
    }
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            Some(source) => from_source(pod, container, facts, references, source)?,
            None => Some(expand(var.value.as_deref().unwrap_or_default(), |name| env.get(name))),
        };
        if let Some(value) = value {
            env.set(&var.name, value);
        }
    }
    Ok(env.list)
}

#[derive(Default)]
struct Env {
    list: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|at| self.list[*at].1.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.places.get(name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }
}

fn missing(config_map: Option<&String>, secret: Option<&String>) -> EnvError {
    EnvError(match (config_map, secret) {
        (Some(name), _) => format!("configmap {name:?} not found"),
        (None, Some(name)) => format!("secret {name:?} not found"),
        (None, None) => "a reference names nothing".to_owned(),
    })
}

/// A variable's value; `None` leaves it out.
fn from_source(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    references: &References,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    if let Some(selector) = &source.field_ref {
        let path = &selector.field_path;
        return fields::field(pod, facts, path).map(Some).ok_or_else(|| EnvError(format!("unsupported fieldPath: {path}")));
    }
    if let Some(selector) = &source.resource_field_ref {
        let value = fields::resource(pod, Some(container), facts, selector);
        return value.map(Some).ok_or_else(|| EnvError(format!("unsupported container resource: {}", selector.resource)));
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (found, value, name, key, optional, kind) = if let Some(selector) = &source.config_map_key_ref {
        let map = references.config_maps.get(&selector.name).and_then(Option::as_ref);
        let value = map.and_then(|map| map.data.as_ref()?.get(&selector.key).cloned());
        (map.is_some(), value, &selector.name, &selector.key, selector.optional, "ConfigMap")
    } else if let Some(selector) = &source.secret_key_ref {
        let secret = references.secrets.get(&selector.name).and_then(Option::as_ref);
        let value =
            secret.and_then(|secret| secret.data.as_ref()?.get(&selector.key)).map(|it| String::from_utf8_lossy(&it.0).into_owned());
        (secret.is_some(), value, &selector.name, &selector.key, selector.optional, "Secret")
    } else {
        return Ok(Some(String::new()));
    };
    match value {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None if found => Err(EnvError(format!("couldn't find key {key} in {kind} {namespace}/{name}"))),
        None => Err(EnvError(format!("{} {name:?} not found", kind.to_lowercase()))),
    }
}

fn secret_text(secret: &Secret) -> BTreeMap<String, String> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect()
}

/// The variables by which containers find services, in the form of Kubernetes and the older one of Docker links.
fn service_variables(services: &[&Service]) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let ports = spec.ports.as_deref().unwrap_or_default();
        let (false, Some(first)) = (ip.is_empty() || ip == "None", ports.first()) else { continue };
        let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
        variables.push((format!("{name}_SERVICE_HOST"), ip.to_owned()));
        variables.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
        for port in ports {
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                variables.push((format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string()));
            }
        }
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                variables.push((format!("{name}_PORT"), url.clone()));
            }
            let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
            variables.push((prefix.clone(), url));
            variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
            variables.push((format!("{prefix}_PORT"), port.port.to_string()));
            variables.push((format!("{prefix}_ADDR"), ip.to_owned()));
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn later_values_win_and_refer_to_earlier_ones() {
        let container: Container = of(json!({"name": "c", "envFrom": [
            {"prefix": "P_", "configMapRef": {"name": "m"}},
            {"secretRef": {"name": "none", "optional": true}},
        ], "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(P_k)-$(C)"},
            {"name": "A", "value": "$(A)2"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "none", "optional": true}}},
        ]}));
        let pod: Pod = of(json!({"metadata": {"name": "web", "namespace": "a"}}));
        let references = References {
            config_maps: [("m".to_owned(), Some(of(json!({"data": {"k": "v"}}))))].into(),
            secrets: [("s".to_owned(), Some(of(json!({"data": {"k": "aGk="}})))), ("none".to_owned(), None)].into(),
            ..References::default()
        };
        let env = environment(&pod, &container, &Facts::default(), &references, &[]).unwrap();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(env, [("P_k", "v"), ("A", "12"), ("B", "1-v-$(C)"), ("NAME", "web"), ("S", "hi")]);
        assert_eq!(needs(&container).config_maps.into_iter().collect::<Vec<_>>(), ["m"]);
    }

    #[test]
    fn missing_references_are_told() {
        let pod: Pod = of(json!({"metadata": {"name": "web", "namespace": "a"}}));
        for (container, message) in [
            (json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}), "secret \"s\" not found"),
            (
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}),
                "configmap \"m\" not found",
            ),
            (
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "there", "key": "k"}}}]}),
                "couldn't find key k in ConfigMap a/there",
            ),
        ] {
            let references = References { config_maps: [("there".to_owned(), Some(ConfigMap::default()))].into(), ..References::default() };
            let error = environment(&pod, &of(container), &Facts::default(), &references, &[]).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn services_are_announced() {
        let service: Service = of(json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "10.0.0.5", "ports": [
            {"name": "sql", "port": 5432}, {"port": 53, "protocol": "UDP"},
        ]}}));
        let headless: Service = of(json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}));
        let variables: BTreeMap<String, String> = service_variables(&[&service, &headless]).into_iter().collect();
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "10.0.0.5"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT", "tcp://10.0.0.5:5432"),
            ("MY_DB_PORT_53_UDP", "udp://10.0.0.5:53"),
            ("MY_DB_PORT_53_UDP_PROTO", "udp"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.0.0.5"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.keys().any(|name| name.starts_with("H_")));
    }
}
