//! Volumes and the claims to them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::row::{Row, UNSET};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

const CAPACITY: Column = Column::text("Capacity", "How much the volume holds.");
const ACCESS_MODES: Column = Column::text("Access Modes", "How the volume may be mounted.");
const CLASS: Column = Column::text("StorageClass", "Where the volume comes from.");
const ATTRIBUTES: Column = Column::text("VolumeAttributesClass", "Class of the volume's changeable attributes.");
const MODE: Column = Column::text("VolumeMode", "Whether the volume is a file system or a block device.").wide();

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::PERSISTENT_VOLUME,
        columns: &[
            NAME,
            CAPACITY,
            ACCESS_MODES,
            Column::text("Reclaim Policy", "What becomes of the volume once its claim is gone."),
            Column::text("Status", "Whether the volume is in use."),
            Column::text("Claim", "The claim that has the volume."),
            CLASS,
            ATTRIBUTES,
            Column::text("Reason", "Why the volume is in this state."),
            AGE,
            MODE,
        ],
        cells: |object, row| named(object, row, volume),
    },
    Printer {
        resource: &resource::PERSISTENT_VOLUME_CLAIM,
        columns: &[
            NAME,
            Column::text("Status", "Whether the claim has a volume."),
            Column::text("Volume", "The volume."),
            CAPACITY,
            ACCESS_MODES,
            CLASS,
            ATTRIBUTES,
            AGE,
            MODE,
        ],
        cells: |object, row| named(object, row, claim),
    },
];

/// The older way to name a class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn class<'a>(metadata: &'a ObjectMeta, field: Option<&'a String>) -> &'a str {
    let annotation = metadata.annotations.as_ref().and_then(|it| it.get(CLASS_ANNOTATION));
    annotation.or(field).map(String::as_str).unwrap_or_default()
}

fn access_modes(modes: Option<&Vec<String>>) -> String {
    let modes = modes.into_iter().flatten();
    let short = modes.map(|mode| match mode.as_str() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    short.collect::<Vec<_>>().join(",")
}

fn capacity(of: Option<&BTreeMap<String, Quantity>>) -> &str {
    of.and_then(|it| it.get("storage")).map(|it| it.0.as_str()).unwrap_or_default()
}

fn phase<'a>(metadata: &ObjectMeta, phase: Option<&'a String>) -> &'a str {
    if metadata.deletion_timestamp.is_some() { "Terminating" } else { phase.map(String::as_str).unwrap_or_default() }
}

fn volume(it: &PersistentVolume, row: &mut Row<'_>) {
    let (spec, status) = (it.spec.as_ref(), it.status.as_ref());
    row.text(capacity(spec.and_then(|it| it.capacity.as_ref())));
    row.text(access_modes(spec.and_then(|it| it.access_modes.as_ref())));
    row.text(spec.and_then(|it| it.persistent_volume_reclaim_policy.as_deref()).unwrap_or_default());
    row.text(phase(&it.metadata, status.and_then(|it| it.phase.as_ref())));
    row.text(match spec.and_then(|it| it.claim_ref.as_ref()) {
        Some(claim) => format!("{}/{}", claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default()),
        None => String::new(),
    });
    row.text(class(&it.metadata, spec.and_then(|it| it.storage_class_name.as_ref())));
    row.text_or(spec.and_then(|it| it.volume_attributes_class_name.as_deref()), UNSET);
    row.text(status.and_then(|it| it.reason.as_deref()).unwrap_or_default());
    row.created();
    row.text_or(spec.and_then(|it| it.volume_mode.as_deref()), UNSET);
}

fn claim(it: &PersistentVolumeClaim, row: &mut Row<'_>) {
    let (spec, status) = (it.spec.as_ref(), it.status.as_ref());
    let volume = spec.and_then(|it| it.volume_name.as_deref()).unwrap_or_default();
    let bound = status.filter(|_| !volume.is_empty());
    row.text(phase(&it.metadata, status.and_then(|it| it.phase.as_ref())));
    row.text(volume);
    // A claim with a volume but without a reported capacity shows 0.
    row.text(if bound.is_some() {
        Some(capacity(bound.and_then(|it| it.capacity.as_ref()))).filter(|it| !it.is_empty()).unwrap_or("0")
    } else {
        ""
    });
    row.text(access_modes(bound.and_then(|it| it.access_modes.as_ref())));
    row.text(class(&it.metadata, spec.and_then(|it| it.storage_class_name.as_ref())));
    row.text_or(spec.and_then(|it| it.volume_attributes_class_name.as_deref()), UNSET);
    row.created();
    row.text_or(spec.and_then(|it| it.volume_mode.as_deref()), UNSET);
}
