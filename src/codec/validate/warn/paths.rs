//! Files of a volume that are in each other's way.

use super::super::at::At;

/// A file's path, and the source of a projected volume that it is from.
struct File<'a> {
    path: &'a str,
    source: String,
}

impl File<'_> {
    fn shown(&self) -> String {
        let File { path, source } = self;
        if source.is_empty() { format!("{path:?}") } else { format!("{path:?} ({source})") }
    }

    /// Whether one would be written over the other, or into it.
    fn overlaps(&self, other: &File<'_>) -> bool {
        let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !self.path.is_empty() && !other.path.is_empty() && (within(self.path, other.path) || within(other.path, self.path))
    }
}

/// Warns of the files of these volumes that overlap, and of projected volumes with sources that bring none.
pub(super) fn volumes<'a>(volumes: impl Iterator<Item = At<'a>>, out: &mut Vec<String>) {
    for volume in volumes {
        let name = volume.text("name");
        for kind in ["configMap", "secret", "downwardAPI"] {
            let source = volume.at(kind);
            if source.has("items") {
                overlaps(name, &called(kind, &source), files(&source, ""), out);
            }
        }
        let mut projected = Vec::new();
        for source in volume.at("projected").items("sources") {
            if source.value.as_object().is_none_or(serde_json::Map::is_empty) {
                out.push(format!("volume {name:?} (Projected) has no sources provided"));
            }
            for kind in ["configMap", "secret", "downwardAPI"].into_iter().filter(|it| source.at(it).has("items")) {
                let from = source.at(kind);
                projected.extend(files(&from, &called(kind, &from)));
            }
            for kind in ["serviceAccountToken", "clusterTrustBundle"].into_iter().filter(|it| source.has(it)) {
                let from = source.at(kind);
                projected.push(File { path: from.text("path").trim_end_matches('/'), source: called(kind, &from) });
            }
        }
        overlaps(name, "Projected", projected, out);
    }
}

/// What a warning calls a source.
fn called(kind: &str, source: &At<'_>) -> String {
    match kind {
        "configMap" => format!("ConfigMap {:?}", source.text("name")),
        // The source of a volume has another field for the name than one of a projected volume.
        "secret" if source.has("secretName") => format!("Secret {:?}", source.text("secretName")),
        "secret" => format!("Secret {:?}", source.text("name")),
        "serviceAccountToken" => "ServiceAccountToken".to_owned(),
        "clusterTrustBundle" => {
            let key = if source.has("name") { "name" } else { "signerName" };
            format!("ClusterTrustBundle {:?}", source.text(key))
        }
        _ => "DownwardAPI".to_owned(),
    }
}

fn files<'a>(source: &At<'a>, shown: &str) -> Vec<File<'a>> {
    source.items("items").map(|it| File { path: it.text("path").trim_end_matches('/'), source: shown.to_owned() }).collect()
}

fn overlaps(volume: &str, what: &str, files: Vec<File<'_>>, out: &mut Vec<String>) {
    for (at, file) in files.iter().enumerate() {
        for other in files[..at].iter().filter(|it| it.overlaps(file)) {
            out.push(format!("volume {volume:?} ({what}): overlapping paths: {} with {}", file.shown(), other.shown()));
        }
    }
}
