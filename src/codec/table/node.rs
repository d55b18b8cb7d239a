//! Nodes, and leases.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeStatus};

use super::row::{NONE, Row, UNKNOWN};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::NODE,
        columns: &[
            NAME,
            Column::text("Status", "Whether the node can run pods, and takes new ones."),
            Column::text("Roles", "What the node is for."),
            AGE,
            Column::text("Version", "Version of the software that runs pods on the node."),
            Column::text("Internal-IP", "Address of the node within the cluster.").wide(),
            Column::text("External-IP", "Address of the node from outside.").wide(),
            Column::text("OS-Image", "The node's operating system.").wide(),
            Column::text("Kernel-Version", "Version of the node's kernel.").wide(),
            Column::text("Container-Runtime", "What runs the containers.").wide(),
        ],
        cells: |object, row| named(object, row, node),
    },
    Printer {
        resource: &resource::LEASE,
        columns: &[NAME, Column::text("Holder", "Who holds the lease."), AGE],
        cells: |object, row| named(object, row, lease),
    },
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn node(node: &Node, row: &mut Row<'_>) {
    let no_status = NodeStatus::default();
    let status = node.status.as_ref().unwrap_or(&no_status);
    let ready = match status.conditions.iter().flatten().find(|it| it.type_ == "Ready") {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = node.spec.as_ref().and_then(|it| it.unschedulable) == Some(true);
    row.text(if cordoned { format!("{ready},SchedulingDisabled") } else { ready.to_owned() });
    row.text_or(Some(&roles(node).join(",")), NONE);
    row.created();
    let info = status.node_info.as_ref();
    row.text(info.map(|it| it.kubelet_version.as_str()).unwrap_or_default());
    let address = |kind: &str| status.addresses.iter().flatten().find(|it| it.type_ == kind).map(|it| it.address.as_str());
    row.text_or(address("InternalIP"), NONE);
    row.text_or(address("ExternalIP"), NONE);
    row.text_or(info.map(|it| it.os_image.as_str()), UNKNOWN);
    row.text_or(info.map(|it| it.kernel_version.as_str()), UNKNOWN);
    row.text_or(info.map(|it| it.container_runtime_version.as_str()), UNKNOWN);
}

fn roles(node: &Node) -> Vec<&str> {
    let labels = node.metadata.labels.iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| key.strip_prefix(ROLE_PREFIX).or((key == ROLE_LABEL).then_some(value.as_str())))
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn lease(lease: &Lease, row: &mut Row<'_>) {
    row.text(lease.spec.as_ref().and_then(|it| it.holder_identity.as_deref()).unwrap_or_default());
    row.created();
}
