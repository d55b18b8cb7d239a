//! The static pods in an executor's description: a gzipped PodList, made into pods of this node. Pure.

use std::io::Read as _;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde::Deserialize;
use serde_json::Value;

use super::super::config::Config;
use super::super::shared::Capacity;
use super::super::status::amount;
use crate::codec::fingerprint;
use crate::mesos::v1::ExecutorInfo;

/// More is no list of pods.
const LONGEST: u64 = 64 << 20;

#[derive(Deserialize)]
struct PodList {
    items: Vec<Value>,
}

fn items(data: &[u8]) -> anyhow::Result<Vec<Value>> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(data).take(LONGEST).read_to_end(&mut text).context("not gzip")?;
    Ok(serde_json::from_slice::<PodList>(&text).context("not a PodList")?.items)
}

/// The pods for this node. A pod without the name of its file does not come from the scheduler, and is skipped.
///
/// # Errors
/// If the data is not a gzipped PodList.
pub fn read(data: &[u8], config: &Config, now: Timestamp) -> anyhow::Result<Vec<Pod>> {
    let file = config.product.annotation("staticPodFilename");
    let named = items(data)?.into_iter().filter(|pod| pod["metadata"]["annotations"][&file].is_string());
    named.map(|pod| on_node(&pod, config, now)).collect()
}

/// The resources of all static pods together, which the scheduler has counted as the executor's own.
pub fn limits(executor: &ExecutorInfo) -> Capacity {
    let pods = items(executor.data()).unwrap_or_default();
    let pods = pods.iter().filter_map(|pod| Pod::deserialize(pod).ok()).collect::<Vec<_>>();
    let containers = || pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| &spec.containers);
    let sum = |resource| containers().filter_map(|container| amount(container, resource, true)).sum();
    Capacity { cpu: sum("cpu"), memory: sum("memory") }
}

/// Specializes a pod for this node: a name with the node's, and a uid that is stable as long as the pod is unchanged.
fn on_node(item: &Value, config: &Config, now: Timestamp) -> anyhow::Result<Pod> {
    let mut pod = Pod::deserialize(item)?;
    let (meta, node) = (&mut pod.metadata, config.node_name.as_str());
    let uid = fingerprint(format!("{node}\n{item}").as_bytes()).to_lowercase();
    meta.name = Some(format!("{}-{}", meta.name.as_deref().unwrap_or_default(), node.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.annotations.get_or_insert_default().extend([
        ("kubernetes.io/config.source".to_owned(), "file".to_owned()),
        ("kubernetes.io/config.hash".to_owned(), uid.clone()),
        ("kubernetes.io/config.seen".to_owned(), now.to_string()),
        (config.product.annotation("bindingHost"), node.to_owned()),
    ]);
    meta.uid = Some(uid);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    // Nothing drives it away from its node.
    let endures = Toleration { operator: Some("Exists".to_owned()), effect: Some("NoExecute".to_owned()), ..Toleration::default() };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&endures) {
        tolerations.push(endures);
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    fn data(items: Value) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(json!({"kind": "PodList", "items": items}).to_string().as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    fn pod(name: &str) -> Value {
        let container = json!({"name": "c", "image": "i", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}});
        json!({"metadata": {"name": name, "annotations": {"k8s.mesosphere.io/staticPodFilename": "f"}}, "spec": {"containers": [container, container]}})
    }

    fn read(node: &str, items: Value) -> Vec<Pod> {
        let config = Config::new(node, [127, 0, 0, 1].into(), "/tmp".into());
        super::read(&data(items), &config, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn pods_become_those_of_the_node() {
        let pods = read("N1", json!([pod("a"), {"metadata": {"name": "stray"}}, pod("b")]));
        let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["a-n1", "b-n1"]);
        let (meta, spec) = (&pods[0].metadata, pods[0].spec.as_ref().unwrap());
        assert_eq!((meta.namespace.as_deref(), spec.node_name.as_deref()), (Some("default"), Some("N1")));
        let annotations = meta.annotations.as_ref().unwrap();
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(annotations.get("kubernetes.io/config.hash"), meta.uid.as_ref());
        assert_eq!(annotations["k8s.mesosphere.io/bindingHost"], "N1");
        assert_eq!(spec.tolerations.as_ref().unwrap()[0].effect.as_deref(), Some("NoExecute"));
    }

    #[test]
    fn a_uid_tells_pods_files_and_nodes_apart_and_lasts() {
        let uid = |node: &str, item: &Value| read(node, json!([item]))[0].metadata.uid.clone().unwrap();
        let (one, mut changed) = (pod("a"), pod("a"));
        changed["spec"]["containers"][0]["image"] = "j".into();
        assert_eq!(uid("n", &one), uid("n", &one));
        assert_ne!(uid("n", &one), uid("n", &changed));
        assert_ne!(uid("n", &one), uid("m", &one));
    }

    #[test]
    fn limits_are_summed() {
        let executor = ExecutorInfo { data: Some(data(json!([pod("a"), pod("b")])).into()), ..ExecutorInfo::default() };
        assert_eq!(limits(&executor), Capacity { cpu: 1000, memory: 256 << 20 });
        assert_eq!(limits(&ExecutorInfo::default()), Capacity::default());
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        let config = Config::new("n", [127, 0, 0, 1].into(), "/tmp".into());
        assert!(super::read(b"", &config, Timestamp::UNIX_EPOCH).unwrap().is_empty());
        assert!(super::read(b"[]", &config, Timestamp::UNIX_EPOCH).is_err());
    }
}
