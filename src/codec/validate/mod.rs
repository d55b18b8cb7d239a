//! Validation: one function per kind, by family. Fields and messages are those of Kubernetes, because scripts parse them.
//!
//! Objects have been decoded and defaulted, so shapes are right and defaults are filled in.

mod annotated;
mod at;
mod autoscaler;
mod batch;
mod cluster;
mod config;
mod container;
mod counts;
mod event;
mod indexes;
mod ingress;
mod job_status;
mod meta;
mod names;
mod network;
mod node;
mod placement;
mod pod;
mod pod_change;
mod policy;
mod provision;
mod rbac;
mod resize;
mod resources;
mod security;
mod selector;
mod service;
mod status;
mod storage;
mod system;
mod volume;
mod warn;
mod workload;

pub use cluster::SYSTEM_PRIORITIES;
use serde_json::Value;
pub use warn::warnings;

use self::at::At;
use crate::object::ResourceRef;
use crate::object::resource::{EVENT_V1, POD};
use crate::object::status::Cause;

/// The faults of an object about to be created (`old` is `None`) or to replace `old`; empty if it is valid.
pub fn validate(resource: ResourceRef, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    // Nearly every object is valid, and then paths are not needed.
    match check(resource, &At::unplaced(new), old.map(At::unplaced)).is_empty() {
        true => Vec::new(),
        false => check(resource, &At::root(new), old.map(At::root)),
    }
}

fn check(resource: ResourceRef, new: &At<'_>, old: Option<At<'_>>) -> Vec<Cause> {
    let mut out = Vec::new();
    if let Some(old) = &old {
        // Kubernetes does this for all kinds, and then for each.
        meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
    }
    meta::metadata(resource, &new.at("metadata"), &mut out);
    object(resource.kind, new, &mut out);
    match old {
        None => creation(resource.kind, new, &mut out),
        Some(old) => {
            meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
            meta::named_finalizers(resource, &new.at("metadata"), &mut out);
            update(resource.kind, new, &old, &mut out);
            if new.get("status") != old.get("status") {
                status::update(resource.kind, &new.at("status"), &old.at("status"), &mut out);
            }
        }
    }
    out
}

/// The faults of a pod about to get ephemeral containers.
pub fn validate_ephemeral(new: &Value, old: &Value) -> Vec<Cause> {
    let (new, old) = (At::root(new), At::root(old));
    let mut out = Vec::new();
    meta::metadata(&POD, &new.at("metadata"), &mut out);
    meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
    pod::spec(&new.at("spec"), &mut out);
    pod_change::ephemeral(&new, &old, &mut out);
    out
}

/// The faults of a pod whose containers are to be resized, which would give it this class (`status.qosClass`).
pub fn validate_resize(new: &Value, old: &Value, class: &str) -> Vec<Cause> {
    let (new, old) = (At::root(new), At::root(old));
    let mut out = Vec::new();
    meta::metadata(&POD, &new.at("metadata"), &mut out);
    meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
    pod::pod(&new, &mut out);
    resize::resize(&new, &old, class, &mut out);
    out
}

/// The additional requirements of this version for a new object, which is in the stored version.
pub fn validate_version(version: ResourceRef, new: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if version == &EVENT_V1 {
        event::strict(&At::root(new), &mut out);
    }
    out
}

/// As [`validate_version`], for an object that replaces another.
pub fn validate_version_update(version: ResourceRef, new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if version == &EVENT_V1 {
        event::strict_update(&At::root(new), &At::root(old), &mut out);
    }
    out
}

/// Checks an object for itself.
fn object(kind: &str, new: &At<'_>, out: &mut Vec<Cause>) {
    match kind {
        "Pod" => pod::pod(new, out),
        "PodTemplate" => pod::template(&new.at("template"), out),
        "ReplicationController" | "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet" => workload::workload(kind, new, out),
        "ControllerRevision" => workload::controller_revision(new, out),
        "Job" => batch::job(new, out),
        "CronJob" => batch::cron_job(new, out),
        "Service" => service::service(new, out),
        "Endpoints" => service::endpoints(new, out),
        "EndpointSlice" => service::endpoint_slice(new, out),
        "ConfigMap" => config::config_map(new, out),
        "Secret" => config::secret(new, out),
        "LimitRange" => config::limit_range(new, out),
        "ResourceQuota" => config::resource_quota(new, out),
        "Node" => node::node(new, out),
        "Lease" => node::lease(new, out),
        "Namespace" => cluster::namespace(new, out),
        "Binding" => node::binding(new, out),
        "PersistentVolume" => storage::persistent_volume(new, out),
        "PersistentVolumeClaim" => storage::claim(new, out),
        "PodDisruptionBudget" => policy::budget(new, out),
        "Event" => event::event(new, out),
        "HorizontalPodAutoscaler" => autoscaler::autoscaler(new, out),
        "Ingress" => ingress::ingress(new, out),
        "IngressClass" => ingress::class(new, out),
        "NetworkPolicy" => network::policy(new, out),
        "IPAddress" => network::address(new, out),
        "ServiceCIDR" => network::range(new, out),
        "Role" => rbac::role(new, true, out),
        "ClusterRole" => rbac::role(new, false, out),
        "RoleBinding" => rbac::binding(new, true, out),
        "ClusterRoleBinding" => rbac::binding(new, false, out),
        "StorageClass" => provision::class(new, out),
        "VolumeAttachment" => provision::attachment(new, out),
        "CSIDriver" => provision::driver(new, out),
        "CSINode" => provision::node(new, out),
        "CSIStorageCapacity" => provision::capacity(new, out),
        "PriorityClass" => cluster::priority(new, out),
        "RuntimeClass" => cluster::runtime(new, out),
        "CertificateSigningRequest" => cluster::certificate(new, out),
        _ => {}
    }
}

/// Checks that apply only to new objects.
fn creation(kind: &str, new: &At<'_>, out: &mut Vec<Cause>) {
    match kind {
        "Pod" => pod::creation(new, out),
        "Job" => batch::job_creation(new, out),
        "CronJob" => batch::cron_job_name(&new.at("metadata"), out),
        "Ingress" => ingress::creation(new, out),
        _ => {}
    }
}

/// Checks immutable fields.
fn update(kind: &str, new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    match kind {
        "Pod" => pod_change::update(new, old, out),
        "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet" => {
            workload::update(kind, new, old, out);
            counts::update(kind, new, old, out);
        }
        "ReplicationController" | "PodDisruptionBudget" => counts::update(kind, new, old, out),
        "ControllerRevision" => workload::controller_revision_update(new, old, out),
        "Job" => {
            batch::job_update(new, old, out);
            job_status::update(new, old, out);
        }
        "Service" => service::update(new, old, out),
        "EndpointSlice" => service::endpoint_slice_update(new, old, out),
        "ConfigMap" => config::immutable(new, old, &["data", "binaryData"], out),
        "Secret" => config::secret_update(new, old, out),
        "ResourceQuota" => config::resource_quota_update(new, old, out),
        "Node" => node::update(new, old, out),
        "Namespace" => cluster::namespace_update(new, old, out),
        "PersistentVolume" => storage::persistent_volume_update(new, old, out),
        "PersistentVolumeClaim" => storage::claim_update(new, old, out),
        "RoleBinding" | "ClusterRoleBinding" => rbac::binding_update(new, old, out),
        "IngressClass" => ingress::class_update(new, old, out),
        "IPAddress" => network::address_update(new, old, out),
        "ServiceCIDR" => network::range_update(new, old, out),
        "StorageClass" => provision::class_update(new, old, out),
        "VolumeAttachment" => provision::attachment_update(new, old, out),
        "CSIDriver" => provision::driver_update(new, old, out),
        "CSINode" => provision::node_update(new, old, out),
        "CSIStorageCapacity" => provision::capacity_update(new, old, out),
        "PriorityClass" => cluster::priority_update(new, old, out),
        "RuntimeClass" => cluster::runtime_update(new, old, out),
        "CertificateSigningRequest" => cluster::certificate_update(new, old, out),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
