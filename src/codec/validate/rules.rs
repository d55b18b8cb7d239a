//! The rules of each kind. Fields and messages are those of Kubernetes, because scripts parse them.

use super::at::At;
use super::{
    autoscaler, batch, cluster, config, counts, event, ingress, job_status, network, node, pod, pod_change, policy, provision, rbac,
    service, status, storage, workload,
};
use crate::object::ResourceRef;
use crate::object::resource;
use crate::object::status::Cause;

/// What is checked of one kind, besides the metadata.
pub(super) struct Rules {
    /// The object for itself.
    pub(super) object: fn(new: &At<'_>, out: &mut Vec<Cause>),
    /// What applies only to new objects.
    pub(super) creation: fn(new: &At<'_>, out: &mut Vec<Cause>),
    /// What may change.
    pub(super) update: fn(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>),
    /// A status that has changed.
    pub(super) status: fn(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>),
}

const NONE: Rules = Rules { object: |_, _| {}, creation: |_, _| {}, update: |_, _, _| {}, status: |_, _, _| {} };

macro_rules! workload {
    ($kind:literal) => {
        Rules {
            object: |new, out| workload::workload($kind, new, out),
            update: |new, old, out| {
                workload::update($kind, new, old, out);
                counts::update($kind, new, old, out);
            },
            ..NONE
        }
    };
}

static RULES: [(ResourceRef, Rules); 43] = [
    (&resource::POD, Rules { object: pod::pod, creation: pod::creation, update: pod_change::update, status: status::addresses }),
    (&resource::POD_TEMPLATE, Rules { object: |new, out| pod::template(&new.at("template"), out), ..NONE }),
    (
        &resource::REPLICATION_CONTROLLER,
        Rules {
            object: |new, out| workload::workload("ReplicationController", new, out),
            update: |new, old, out| counts::update("ReplicationController", new, old, out),
            ..NONE
        },
    ),
    (&resource::REPLICA_SET, workload!("ReplicaSet")),
    (&resource::DEPLOYMENT, workload!("Deployment")),
    (&resource::STATEFUL_SET, workload!("StatefulSet")),
    (&resource::DAEMON_SET, workload!("DaemonSet")),
    (&resource::CONTROLLER_REVISION, Rules { object: workload::controller_revision, update: workload::controller_revision_update, ..NONE }),
    (
        &resource::JOB,
        Rules {
            object: batch::job,
            creation: batch::job_creation,
            update: |new, old, out| {
                batch::job_update(new, old, out);
                job_status::update(new, old, out);
            },
            ..NONE
        },
    ),
    (&resource::CRON_JOB, Rules { object: batch::cron_job, creation: |new, out| batch::cron_job_name(&new.at("metadata"), out), ..NONE }),
    (&resource::SERVICE, Rules { object: service::service, update: service::update, ..NONE }),
    (&resource::ENDPOINTS, Rules { object: service::endpoints, ..NONE }),
    (&resource::ENDPOINT_SLICE, Rules { object: service::endpoint_slice, update: service::endpoint_slice_update, ..NONE }),
    (
        &resource::CONFIG_MAP,
        Rules { object: config::config_map, update: |new, old, out| config::immutable(new, old, &["data", "binaryData"], out), ..NONE },
    ),
    (&resource::SECRET, Rules { object: config::secret, update: config::secret_update, ..NONE }),
    (&resource::LIMIT_RANGE, Rules { object: config::limit_range, ..NONE }),
    (&resource::RESOURCE_QUOTA, Rules { object: config::resource_quota, update: config::resource_quota_update, ..NONE }),
    (&resource::NODE, Rules { object: node::node, update: node::update, ..NONE }),
    (&resource::LEASE, Rules { object: node::lease, ..NONE }),
    (&resource::NAMESPACE, Rules { object: cluster::namespace, update: cluster::namespace_update, ..NONE }),
    (&resource::BINDING, Rules { object: node::binding, ..NONE }),
    (&resource::PERSISTENT_VOLUME, Rules { object: storage::persistent_volume, update: storage::persistent_volume_update, ..NONE }),
    (
        &resource::PERSISTENT_VOLUME_CLAIM,
        Rules { object: storage::claim, update: storage::claim_update, status: |new, _, out| status::resizing(new, out), ..NONE },
    ),
    (
        &resource::POD_DISRUPTION_BUDGET,
        Rules { object: policy::budget, update: |new, old, out| counts::update("PodDisruptionBudget", new, old, out), ..NONE },
    ),
    (&resource::EVENT, Rules { object: event::event, ..NONE }),
    (&resource::HORIZONTAL_POD_AUTOSCALER, Rules { object: autoscaler::autoscaler, ..NONE }),
    (
        &resource::INGRESS,
        Rules {
            object: ingress::ingress,
            creation: ingress::creation,
            status: |new, _, out| status::balancer(&new.at("loadBalancer"), out),
            ..NONE
        },
    ),
    (&resource::INGRESS_CLASS, Rules { object: ingress::class, update: ingress::class_update, ..NONE }),
    (&resource::NETWORK_POLICY, Rules { object: network::policy, ..NONE }),
    (&resource::IP_ADDRESS, Rules { object: network::address, update: network::address_update, ..NONE }),
    (&resource::SERVICE_CIDR, Rules { object: network::range, update: network::range_update, ..NONE }),
    (&resource::ROLE, Rules { object: |new, out| rbac::role(new, true, out), ..NONE }),
    (&resource::CLUSTER_ROLE, Rules { object: |new, out| rbac::role(new, false, out), ..NONE }),
    (&resource::ROLE_BINDING, Rules { object: |new, out| rbac::binding(new, true, out), update: rbac::binding_update, ..NONE }),
    (&resource::CLUSTER_ROLE_BINDING, Rules { object: |new, out| rbac::binding(new, false, out), update: rbac::binding_update, ..NONE }),
    (&resource::STORAGE_CLASS, Rules { object: provision::class, update: provision::class_update, ..NONE }),
    (&resource::VOLUME_ATTACHMENT, Rules { object: provision::attachment, update: provision::attachment_update, ..NONE }),
    (&resource::CSI_DRIVER, Rules { object: provision::driver, update: provision::driver_update, ..NONE }),
    (&resource::CSI_NODE, Rules { object: provision::node, update: provision::node_update, ..NONE }),
    (&resource::CSI_STORAGE_CAPACITY, Rules { object: provision::capacity, update: provision::capacity_update, ..NONE }),
    (&resource::PRIORITY_CLASS, Rules { object: cluster::priority, update: cluster::priority_update, ..NONE }),
    (&resource::RUNTIME_CLASS, Rules { object: cluster::runtime, update: cluster::runtime_update, ..NONE }),
    (&resource::CERTIFICATE_SIGNING_REQUEST, Rules { object: cluster::certificate, update: cluster::certificate_update, ..NONE }),
];

pub(super) fn of(resource: ResourceRef) -> &'static Rules {
    static OTHER: Rules = NONE;
    RULES.iter().find(|it| it.0 == resource.storage()).map_or(&OTHER, |it| &it.1)
}
