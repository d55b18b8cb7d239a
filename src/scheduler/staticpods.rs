//! Static pods, which run on every agent: read from a directory once, and sent to each executor in its description.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use super::limits::{self, Defaults, Limits};
use crate::codec;
use crate::object::resource;
use crate::util::product::Product;

/// The content of a directory of manifests.
#[derive(Debug, Default)]
pub(super) struct StaticPods {
    /// The sum of the pods' resources on one agent.
    pub(super) limits: Limits,
    /// A gzipped PodList; `None` if there are no pods.
    pub(super) data: Option<Bytes>,
}

/// Reads every regular, non-empty file of a directory; a file that is not a pod is logged and skipped.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn read(directory: &Path, product: &Product, defaults: Defaults) -> anyhow::Result<StaticPods> {
    let context = || format!("--static-pods-config {}", directory.display());
    let mut files: Vec<_> = std::fs::read_dir(directory).and_then(Iterator::collect).with_context(context)?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let (mut pods, mut total) = (Vec::new(), Limits::default());
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        if !file.metadata().is_ok_and(|it| it.is_file() && it.len() > 0) {
            continue;
        }
        match std::fs::read(file.path()).map_err(Into::into).and_then(|text| pod(text.into(), &name, product, defaults)) {
            Ok((pod, limits)) => {
                total = total.plus(limits);
                pods.push(pod);
            }
            Err(error) => tracing::error!("static pod {}: {error:#}", file.path().display()),
        }
    }
    if pods.is_empty() {
        return Ok(StaticPods::default());
    }
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}).to_string();
    // The header has no time and no name: equal pods give equal bytes, which are part of the executor's identity.
    let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    gzip.write_all(list.as_bytes())?;
    Ok(StaticPods { limits: total, data: Some(gzip.finish()?.into()) })
}

fn pod(text: Bytes, file: &str, product: &Product, defaults: Defaults) -> anyhow::Result<(Value, Limits)> {
    let mut pod = codec::decode(&resource::POD, "application/yaml", &text)?.value;
    if pod["kind"] != "Pod" {
        bail!("it is not a Pod but a {}", pod["kind"]);
    }
    if pod["metadata"]["namespace"].is_null() {
        pod["metadata"]["namespace"] = "default".into();
    }
    codec::default(&resource::POD, &mut pod);
    if let Some(cause) = codec::validate(&resource::POD, &pod, None).first() {
        bail!("{}: {}", cause.field, cause.message);
    }
    let mut total = Limits::default();
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        limits::fill_in(container, defaults);
        total = total.plus(Limits::of(&container["resources"], defaults));
    }
    pod["metadata"]["annotations"][product.annotation("staticPodFilename")] = file.into();
    Ok((pod, total))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::util::product::KUBERNETES;

    #[test]
    fn manifests_become_one_list() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("b.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {containers: [{name: c, image: i}]}\n");
        write(
            "a.json",
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1"}}}]}}"#,
        );
        write("empty", "");
        write("bad.yaml", "kind: [");
        write("other.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n");
        let read = || read(directory.path(), KUBERNETES, Defaults::default()).unwrap();
        let pods = read();
        assert_eq!((pods.limits.cpu, pods.limits.mem), (1250, 128_000));
        assert_eq!(pods.data, read().data);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*pods.data.unwrap()).read_to_string(&mut text).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let named = |at: usize| list["items"][at]["metadata"]["annotations"]["k8s.mesosphere.io/staticPodFilename"].as_str();
        assert_eq!((named(0), named(1), list["items"].as_array().unwrap().len()), (Some("a.json"), Some("b.yaml"), 2));
    }

    #[test]
    fn no_pods_are_no_data() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path(), KUBERNETES, Defaults::default()).unwrap().data.is_none());
        assert!(read(Path::new("/nowhere/at/all"), KUBERNETES, Defaults::default()).is_err());
    }
}
