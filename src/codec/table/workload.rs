//! Controllers of pods: replication controllers and the kinds of `apps`.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;

use super::row::{NONE, Row};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

pub(super) const CONTAINERS: Column = Column::text("Containers", "Names of the pods' containers.").wide();
pub(super) const IMAGES: Column = Column::text("Images", "Images of the pods' containers.").wide();
pub(super) const SELECTOR: Column = Column::text("Selector", "Labels of the pods that count.").wide();

const REPLICAS: &[Column] = &[
    NAME,
    Column::integer("Desired", "Pods that there should be."),
    Column::integer("Current", "Pods that there are."),
    Column::integer("Ready", "Pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::REPLICATION_CONTROLLER,
        columns: REPLICAS,
        cells: |object, row| named(object, row, replication_controller),
    },
    Printer { resource: &resource::REPLICA_SET, columns: REPLICAS, cells: |object, row| named(object, row, replica_set) },
    Printer {
        resource: &resource::DEPLOYMENT,
        columns: &[
            NAME,
            Column::text("Ready", "Pods that are ready, of those that there should be."),
            Column::text("Up-to-date", "Pods made from the present template."),
            Column::text("Available", "Pods that have been ready for long enough."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: |object, row| named(object, row, deployment),
    },
    Printer {
        resource: &resource::STATEFUL_SET,
        columns: &[NAME, Column::text("Ready", "Pods that are ready, of those that there should be."), AGE, CONTAINERS, IMAGES],
        cells: |object, row| named(object, row, stateful_set),
    },
    Printer {
        resource: &resource::DAEMON_SET,
        columns: &[
            NAME,
            Column::integer("Desired", "Nodes that should run the pod."),
            Column::integer("Current", "Nodes that should run the pod, and do."),
            Column::integer("Ready", "Nodes on which the pod is ready."),
            Column::integer("Up-to-date", "Nodes on which the pod is made from the present template."),
            Column::integer("Available", "Nodes on which the pod has been ready for long enough."),
            Column::text("Node Selector", "Labels of the nodes that should run the pod."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: |object, row| named(object, row, daemon_set),
    },
    Printer {
        resource: &resource::CONTROLLER_REVISION,
        columns: &[
            NAME,
            Column::text("Controller", "The workload that the revision is of."),
            Column::text("Revision", "Number of the revision."),
            AGE,
        ],
        cells: |object, row| named(object, row, controller_revision),
    },
];

/// Pods that are wanted, that there are, and that are ready.
fn counts(pods: [Option<i32>; 3], row: &mut Row<'_>) {
    for count in pods {
        row.integer(count.unwrap_or_default());
    }
}

fn replication_controller(it: &ReplicationController, row: &mut Row<'_>) {
    let (spec, status) = (it.spec.as_ref(), it.status.as_ref());
    counts([spec.and_then(|it| it.replicas), status.map(|it| it.replicas), status.and_then(|it| it.ready_replicas)], row);
    row.created();
    row.containers(spec.and_then(|it| it.template.as_ref()).and_then(|it| it.spec.as_ref()));
    row.labels(spec.and_then(|it| it.selector.as_ref()).into_iter().flatten());
}

fn replica_set(it: &ReplicaSet, row: &mut Row<'_>) {
    let (spec, status) = (it.spec.as_ref(), it.status.as_ref());
    counts([spec.and_then(|it| it.replicas), status.map(|it| it.replicas), status.and_then(|it| it.ready_replicas)], row);
    row.created();
    row.template(spec.and_then(|it| it.template.as_ref()).and_then(|it| it.spec.as_ref()), spec.map(|it| &it.selector));
}

fn deployment(it: &Deployment, row: &mut Row<'_>) {
    let (spec, status) = (it.spec.as_ref(), it.status.as_ref());
    let ready = status.and_then(|it| it.ready_replicas).unwrap_or_default();
    row.text(format!("{ready}/{}", spec.and_then(|it| it.replicas).unwrap_or_default()));
    row.integer(status.and_then(|it| it.updated_replicas).unwrap_or_default());
    row.integer(status.and_then(|it| it.available_replicas).unwrap_or_default());
    row.created();
    row.template(spec.and_then(|it| it.template.spec.as_ref()), spec.map(|it| &it.selector));
}

fn stateful_set(it: &StatefulSet, row: &mut Row<'_>) {
    let spec = it.spec.as_ref();
    let ready = it.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or_default();
    row.text(format!("{ready}/{}", spec.and_then(|it| it.replicas).unwrap_or_default()));
    row.created();
    row.containers(spec.and_then(|it| it.template.spec.as_ref()));
}

fn daemon_set(it: &DaemonSet, row: &mut Row<'_>) {
    let (spec, status) = (it.spec.as_ref(), it.status.clone().unwrap_or_default());
    let pod = spec.and_then(|it| it.template.spec.as_ref());
    row.integer(status.desired_number_scheduled);
    row.integer(status.current_number_scheduled);
    row.integer(status.number_ready);
    row.integer(status.updated_number_scheduled.unwrap_or_default());
    row.integer(status.number_available.unwrap_or_default());
    row.labels(pod.and_then(|it| it.node_selector.as_ref()).into_iter().flatten());
    row.created();
    row.template(pod, spec.map(|it| &it.selector));
}

fn controller_revision(it: &ControllerRevision, row: &mut Row<'_>) {
    match it.metadata.owner_references.iter().flatten().find(|it| it.controller == Some(true)) {
        Some(owner) => {
            let kind = owner.kind.to_lowercase();
            row.text(match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                None => format!("{kind}/{}", owner.name),
            });
        }
        None => row.text(NONE),
    }
    row.integer(it.revision);
    row.created();
}
