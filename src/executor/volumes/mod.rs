//! A pod's volumes: their content (pure), and in `disk` their files on the node.

pub mod disk;
mod mounts;
mod sub_path;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume as VolumeSpec, VolumeMount,
};

use super::env::{Needs, References};
use super::expand::expand;
use super::fields::{self, Facts};
use crate::util::quantity::Quantity;

const DEFAULT_MODE: i32 = 0o644;

/// The kind and content of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    EmptyDir {
        /// On a tmpfs rather than on disk.
        memory: bool,
        /// Bytes; a tmpfs is made no larger.
        size: Option<i64>,
    },
    HostPath {
        path: String,
        /// `Directory`, `FileOrCreate` and so on; empty for no check.
        kind: String,
    },
    /// A directory of files that the executor writes.
    Files {
        /// By path below the directory.
        files: BTreeMap<String, File>,
        /// Whether there are secrets among them, which lie on a tmpfs rather than on disk where that can be.
        secret: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Why a pod's volumes cannot be made: with the sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
pub struct VolumeError {
    pub volume: String,
    pub why: String,
}

impl Volume {
    /// The directory's name below the pod's volumes, as a kubelet has it.
    pub fn plugin(&self) -> &'static str {
        match self {
            Self::EmptyDir { .. } => "kubernetes.io~empty-dir",
            Self::HostPath { .. } => "kubernetes.io~host-path",
            Self::Files { .. } => "kubernetes.io~projected",
        }
    }
}

/// The ConfigMaps, Secrets and claims that the pod's volumes are made of.
pub fn needs(pod: &Pod) -> Needs {
    let mut needs = Needs::default();
    let mut projected = |source: &ProjectedVolumeSource| {
        for source in source.sources.iter().flatten() {
            needs.config_maps.extend(source.config_map.iter().map(|it| it.name.clone()));
            needs.secrets.extend(source.secret.iter().map(|it| it.name.clone()));
        }
    };
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes().filter_map(|volume| volume.projected.as_ref()).for_each(&mut projected);
    for volume in volumes() {
        needs.config_maps.extend(volume.config_map.iter().map(|it| it.name.clone()));
        needs.secrets.extend(volume.secret.iter().filter_map(|it| it.secret_name.clone()));
        needs.claims.extend(claim_of(pod, volume));
    }
    needs
}

/// The pod's volumes by name.
///
/// # Errors
/// For a kind of volume this node cannot make, or a reference that is not optional and leads nowhere.
pub fn plan(pod: &Pod, facts: &Facts, references: &References) -> Result<Vec<(String, Volume)>, VolumeError> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .map(|volume| {
            let made = one(pod, facts, references, volume).map_err(|why| VolumeError { volume: volume.name.clone(), why })?;
            Ok((volume.name.clone(), made))
        })
        .collect()
}

fn one(pod: &Pod, facts: &Facts, references: &References, volume: &VolumeSpec) -> Result<Volume, String> {
    if let Some(source) = &volume.empty_dir {
        let size = source.size_limit.as_ref().and_then(|size| size.0.parse::<Quantity>().ok()).map(Quantity::value);
        return Ok(Volume::EmptyDir { memory: source.medium.as_deref() == Some("Memory"), size });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Volume::HostPath { path: source.path.clone(), kind: source.type_.clone().unwrap_or_default() });
    }
    if let Some(claim) = claim_of(pod, volume) {
        return claimed(&claim, references);
    }
    let mut files = BTreeMap::new();
    if let Some(source) = &volume.config_map {
        let map = references.config_maps.get(&source.name).and_then(Option::as_ref);
        let content = map.map(config_map_content);
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        select(&mut files, content, source.items.as_deref(), mode, source.optional, &format!("configmap {:?}", source.name))?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let content = references.secrets.get(&name).and_then(Option::as_ref).map(secret_content);
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        select(&mut files, content, source.items.as_deref(), mode, source.optional, &format!("secret {name:?}"))?;
    } else if let Some(source) = &volume.downward_api {
        downward(&mut files, pod, facts, source.items.as_deref(), source.default_mode.unwrap_or(DEFAULT_MODE))?;
    } else if let Some(source) = &volume.projected {
        projected(&mut files, pod, facts, references, source)?;
    } else {
        return Err(
            "this node has emptyDir, hostPath, configMap, secret, downwardAPI, projected, persistentVolumeClaim and ephemeral volumes only"
                .to_owned(),
        );
    }
    let of_secrets = |source: &ProjectedVolumeSource| source.sources.iter().flatten().any(|source| source.secret.is_some());
    Ok(Volume::Files { files, secret: volume.secret.is_some() || volume.projected.as_ref().is_some_and(of_secrets) })
}

/// The claim of a volume: the named one, or the one created for the pod.
fn claim_of(pod: &Pod, volume: &VolumeSpec) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|it| it.claim_name.clone());
    let own = || format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
    named.or_else(|| volume.ephemeral.as_ref().map(|_| own()))
}

/// The volume that a claim is bound to, if it is on this node's disk.
fn claimed(claim: &str, references: &References) -> Result<Volume, String> {
    let volume = references.claims.get(claim).and_then(Option::as_ref);
    let spec = volume.and_then(|it| it.spec.as_ref()).ok_or_else(|| format!("persistentvolumeclaim {claim:?} is not bound to a volume"))?;
    match (&spec.host_path, &spec.local) {
        (Some(source), _) => Ok(Volume::HostPath { path: source.path.clone(), kind: source.type_.clone().unwrap_or_default() }),
        (None, Some(source)) => Ok(Volume::HostPath { path: source.path.clone(), kind: "Directory".to_owned() }),
        (None, None) => Err(format!("persistentvolumeclaim {claim:?} is bound to a volume that is neither hostPath nor local")),
    }
}

fn projected(
    files: &mut BTreeMap<String, File>,
    pod: &Pod,
    facts: &Facts,
    references: &References,
    source: &ProjectedVolumeSource,
) -> Result<(), String> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    for source in source.sources.iter().flatten() {
        if let Some(source) = &source.config_map {
            let content = references.config_maps.get(&source.name).and_then(Option::as_ref).map(config_map_content);
            select(files, content, source.items.as_deref(), mode, source.optional, &format!("configmap {:?}", source.name))?;
        } else if let Some(source) = &source.secret {
            let content = references.secrets.get(&source.name).and_then(Option::as_ref).map(secret_content);
            select(files, content, source.items.as_deref(), mode, source.optional, &format!("secret {:?}", source.name))?;
        } else if let Some(source) = &source.downward_api {
            downward(files, pod, facts, source.items.as_deref(), mode)?;
        } else {
            return Err("a projected volume on this node is made of configMap, secret and downwardAPI sources only".to_owned());
        }
    }
    Ok(())
}

fn config_map_content(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))).collect()
}

fn secret_content(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

/// Adds the entries of a ConfigMap or Secret: all, or those listed in `items`.
fn select(
    files: &mut BTreeMap<String, File>,
    content: Option<BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
    what: &str,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let Some(mut content) = content else {
        return if optional { Ok(()) } else { Err(format!("{what} not found")) };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        files.extend(content.into_iter().map(|(key, data)| (key, file(data, mode))));
        return Ok(());
    };
    for item in items {
        match content.remove(&item.key) {
            Some(data) => _ = files.insert(below(&item.path)?, file(data, item.mode.unwrap_or(mode))),
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    files: &mut BTreeMap<String, File>,
    pod: &Pod,
    facts: &Facts,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => {
                fields::field(pod, facts, &selector.field_path).ok_or_else(|| format!("unsupported fieldPath: {}", selector.field_path))?
            }
            (None, Some(selector)) => fields::resource(pod, None, facts, selector)
                .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))?,
            (None, None) => continue,
        };
        files.insert(below(&item.path)?, file(value.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(())
}

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: u32::try_from(mode).unwrap_or(0o644) & 0o7777 }
}

/// A path that stays below its directory.
fn below(path: &str) -> Result<String, String> {
    let safe = !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| !matches!(part, ".." | "" | "."));
    if safe { Ok(path.to_owned()) } else { Err(leads_out(path)) }
}

fn leads_out(path: &str) -> String {
    format!("the path {path:?} leads out of the volume")
}

/// The path inside the volume that a mount shows, if not all of it.
///
/// # Errors
/// If it leads out of the volume.
pub fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    let path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(text), _) if !text.is_empty() => expand(text, |name| env.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())),
        (_, Some(text)) if !text.is_empty() => text.clone(),
        _ => return Ok(None),
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') || parts.contains(&"..") {
        return Err(leads_out(&path));
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

/// The volume mounts of a container.
pub fn mounts(container: &Container) -> impl Iterator<Item = &VolumeMount> {
    container.volume_mounts.iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_come_from_references() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": {"a": "b"}},
            "spec": {"containers": [], "volumes": [
                {"name": "all", "configMap": {"name": "m"}},
                {"name": "one", "projected": {"defaultMode": 256, "sources": [
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "sub/k"}]}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 292}]}},
                ]}},
                {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ]},
        }))
        .unwrap();
        let references = References {
            config_maps: [("m".to_owned(), serde_json::from_value(json!({"data": {"x": "1"}, "binaryData": {"y": "AAE="}})).ok())].into(),
            secrets: [("s".to_owned(), serde_json::from_value(json!({"data": {"k": "aGk=", "l": ""}})).ok())].into(),
            ..References::default()
        };
        assert_eq!(needs(&pod).secrets.into_iter().collect::<Vec<_>>(), ["s"]);
        let volumes = plan(&pod, &Facts::default(), &references).unwrap();
        let file = |data: &[u8], mode| File { data: data.to_vec(), mode };
        let all = [("x".to_owned(), file(b"1", 0o644)), ("y".to_owned(), file(&[0, 1], 0o644))].into();
        let all = Volume::Files { files: all, secret: false };
        let one = [("sub/k".to_owned(), file(b"hi", 0o400)), ("labels".to_owned(), file(b"a=\"b\"", 0o444))].into();
        let one = Volume::Files { files: one, secret: true };
        let expected = [("all", all), ("one", one), ("ram", Volume::EmptyDir { memory: true, size: Some(1 << 20) })];
        assert_eq!(volumes, expected.map(|(name, volume)| (name.to_owned(), volume)));
        let error = plan(&pod, &Facts::default(), &References::default()).unwrap_err();
        assert_eq!(error.to_string(), "MountVolume.SetUp failed for volume \"all\" : configmap \"m\" not found");
    }

    #[test]
    fn claims_lead_to_the_nodes_disk() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]},
        }))
        .unwrap();
        assert_eq!(needs(&pod).claims.into_iter().collect::<Vec<_>>(), ["c"]);
        let brought: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web"}, "spec": {"containers": [], "volumes": [{"name": "own", "ephemeral": {}}]},
        }))
        .unwrap();
        assert_eq!(needs(&brought).claims.into_iter().collect::<Vec<_>>(), ["web-own"]);
        let error = plan(&brought, &Facts::default(), &References::default()).unwrap_err();
        assert_eq!(error.why, "persistentvolumeclaim \"web-own\" is not bound to a volume");
        let planned = |volume: serde_json::Value| {
            let claims = [("c".to_owned(), serde_json::from_value(volume).unwrap())].into();
            plan(&pod, &Facts::default(), &References { claims, ..References::default() }).map_err(|it| it.why)
        };
        let on_disk =
            |path: &str, kind: &str| Ok(vec![("data".to_owned(), Volume::HostPath { path: path.to_owned(), kind: kind.to_owned() })]);
        assert_eq!(planned(json!({"spec": {"hostPath": {"path": "/a", "type": "DirectoryOrCreate"}}})), on_disk("/a", "DirectoryOrCreate"));
        assert_eq!(planned(json!({"spec": {"local": {"path": "/b"}}})), on_disk("/b", "Directory"));
        assert_eq!(planned(json!(null)).unwrap_err(), "persistentvolumeclaim \"c\" is not bound to a volume");
        let elsewhere = planned(json!({"spec": {"nfs": {"server": "s", "path": "/"}}})).unwrap_err();
        assert_eq!(elsewhere, "persistentvolumeclaim \"c\" is bound to a volume that is neither hostPath nor local");
    }

    #[test]
    fn paths_stay_inside() {
        for (path, fine) in [("a", true), ("a/b", true), ("../a", false), ("a/../b", false), ("/a", false), ("a//b", false), ("", false)] {
            assert_eq!(below(path).is_ok(), fine, "{path}");
        }
    }

    #[test]
    fn sub_paths_are_read() {
        let read = |path: &str| sub_path(&VolumeMount { sub_path: Some(path.to_owned()), ..VolumeMount::default() }, &[]).ok();
        for (path, expected) in [("a", Some("a")), ("./a//b/", Some("a/b")), ("..a/b..", Some("..a/b..")), (".", None), ("", None)] {
            assert_eq!(read(path), Some(expected.map(str::to_owned)), "{path}");
        }
        for path in ["..", "a/../b", "/a", "a/.."] {
            assert_eq!(read(path), None, "{path}");
        }
        let mount = VolumeMount { sub_path_expr: Some("$(A)/x".to_owned()), ..VolumeMount::default() };
        assert_eq!(sub_path(&mount, &[("A".to_owned(), "1".to_owned())]), Ok(Some("1/x".to_owned())));
        assert!(sub_path(&mount, &[("A".to_owned(), "..".to_owned())]).is_err());
    }
}
