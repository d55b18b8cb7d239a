//! Kinds of storage, and the drivers behind them.

use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass, VolumeAttachment};

use super::row::{Row, UNSET};
use super::{AGE, Column, NAME, Printer, named, typed};
use crate::object::{default_class, resource};

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::STORAGE_CLASS,
        columns: &[
            NAME,
            Column::text("Provisioner", "Who makes the volumes."),
            Column::text("ReclaimPolicy", "What becomes of volumes after their claims."),
            Column::text("VolumeBindingMode", "When claims get their volumes."),
            Column::text("AllowVolumeExpansion", "Whether claims may grow."),
            AGE,
        ],
        cells: |object, row| typed(object, row, class),
    },
    Printer {
        resource: &resource::VOLUME_ATTACHMENT,
        columns: &[
            NAME,
            Column::name("Attacher", "The driver that attaches the volume."),
            Column::text("PV", "The volume."),
            Column::text("Node", "The node it is attached to."),
            Column::boolean("Attached", "Whether it is."),
            AGE,
        ],
        cells: |object, row| named(object, row, attachment),
    },
    Printer {
        resource: &resource::CSI_DRIVER,
        columns: &[
            NAME,
            Column::boolean("AttachRequired", "Whether volumes are attached before they are mounted."),
            Column::boolean("PodInfoOnMount", "Whether the driver is told which pod mounts a volume."),
            Column::boolean("StorageCapacity", "Whether the scheduler looks at how much room there is."),
            Column::text("TokenRequests", "Whom the tokens are for that the driver gets."),
            Column::boolean("RequiresRepublish", "Whether the driver is asked again and again to mount a volume."),
            Column::text("Modes", "Whether its volumes outlive pods."),
            AGE,
        ],
        cells: |object, row| named(object, row, driver),
    },
    Printer {
        resource: &resource::CSI_NODE,
        columns: &[NAME, Column::integer("Drivers", "How many drivers the node has."), AGE],
        cells: |object, row| named(object, row, node),
    },
];

fn class(it: &StorageClass, row: &mut Row<'_>) {
    let name = it.metadata.name.as_deref().unwrap_or_default();
    let annotations = it.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations.and_then(|it| it.get(key)).map(String::as_str);
    let default = default_class::is_marked(annotation, default_class::STORAGE_MARKS);
    row.text(if default { format!("{name} (default)") } else { name.to_owned() });
    row.text(&it.provisioner);
    row.text(it.reclaim_policy.as_deref().unwrap_or("Delete"));
    row.text(it.volume_binding_mode.as_deref().unwrap_or("Immediate"));
    row.boolean(it.allow_volume_expansion.unwrap_or_default());
    row.created();
}

fn attachment(it: &VolumeAttachment, row: &mut Row<'_>) {
    row.text(&it.spec.attacher);
    row.text(it.spec.source.persistent_volume_name.as_deref().unwrap_or_default());
    row.text(&it.spec.node_name);
    row.boolean(it.status.as_ref().is_some_and(|it| it.attached));
    row.created();
}

fn driver(it: &CSIDriver, row: &mut Row<'_>) {
    let spec = &it.spec;
    row.boolean(spec.attach_required.unwrap_or(true));
    row.boolean(spec.pod_info_on_mount.unwrap_or_default());
    row.boolean(spec.storage_capacity.unwrap_or_default());
    let audiences: Vec<&str> = spec.token_requests.iter().flatten().map(|it| it.audience.as_str()).collect();
    row.text_or(Some(&audiences.join(",")), UNSET);
    row.boolean(spec.requires_republish.unwrap_or_default());
    let modes = spec.volume_lifecycle_modes.as_deref().unwrap_or_default();
    row.text_or(Some(&modes.join(",")), super::row::NONE);
    row.created();
}

fn node(it: &CSINode, row: &mut Row<'_>) {
    row.integer(it.spec.drivers.len());
    row.created();
}
