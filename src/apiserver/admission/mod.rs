//! Admission: the plug-ins that may change or refuse a write before it is stored, in the order of `--admission-control`.

mod claim_resize;
mod default_class;
mod default_tolerations;
mod in_use;
mod limit_ranger;
mod mountable;
mod namespace_lifecycle;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;

use anyhow::bail;
use serde_json::Value;

use super::Server;
use super::error::Answer;
use crate::object::ObjectKey;

pub(crate) use resource_quota::{Charge, Quotas};

/// The kind of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// A write under review.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Review<'a> {
    pub(crate) operation: Operation,
    /// The name may be incomplete while it is still to be generated.
    pub(crate) key: &'a ObjectKey,
    pub(crate) subresource: &'a str,
    pub(crate) dry_run: bool,
}

impl Review<'_> {
    /// Whether an object itself (no part of it) of this core kind is created.
    fn creates(&self, plural: &str) -> bool {
        self.operation == Operation::Create && self.writes(plural)
    }

    /// As [`Review::creates`], also for updates.
    fn writes(&self, plural: &str) -> bool {
        self.operation != Operation::Delete
            && self.subresource.is_empty()
            && self.key.resource.group.is_empty()
            && self.key.resource.plural == plural
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    NamespaceLifecycle,
    LimitRanger,
    ServiceAccount,
    Priority,
    DefaultTolerationSeconds,
    DefaultStorageClass,
    StorageObjectInUseProtection,
    PersistentVolumeClaimResize,
    RuntimeClass,
    DefaultIngressClass,
    ResourceQuota,
    AlwaysDeny,
}

/// The plug-ins that run by default.
pub const DEFAULT_PLUGINS: &str = "NamespaceLifecycle,LimitRanger,ServiceAccount,Priority,DefaultTolerationSeconds,DefaultStorageClass,\
                                   StorageObjectInUseProtection,PersistentVolumeClaimResize,RuntimeClass,DefaultIngressClass,ResourceQuota";

/// The plug-ins of a server, in order.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    plugins: Vec<Plugin>,
    quotas: Quotas,
}

/// Plug-ins of Kubernetes whose work is done elsewhere in km, or whose subject km does not have.
const WITHOUT_EFFECT: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysPullImages",
    "DenyEscalatingExec",
    "DenyExecOnPrivileged",
    "InitialResources",
    "MutatingAdmissionWebhook",
    "NodeRestriction",
    "PersistentVolumeLabel",
    "PodSecurity",
    "PodSecurityPolicy",
    "SecurityContextDeny",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

impl Chain {
    /// # Errors
    /// For a plug-in that does not exist.
    pub(crate) fn new(names: &[String]) -> anyhow::Result<Self> {
        let mut plugins = Vec::new();
        for name in names {
            plugins.push(match name.as_str() {
                "NamespaceLifecycle" | "NamespaceExists" | "NamespaceAutoProvision" => Plugin::NamespaceLifecycle,
                "LimitRanger" => Plugin::LimitRanger,
                "ServiceAccount" => Plugin::ServiceAccount,
                "Priority" => Plugin::Priority,
                "DefaultTolerationSeconds" => Plugin::DefaultTolerationSeconds,
                "DefaultStorageClass" => Plugin::DefaultStorageClass,
                "StorageObjectInUseProtection" => Plugin::StorageObjectInUseProtection,
                "PersistentVolumeClaimResize" => Plugin::PersistentVolumeClaimResize,
                "RuntimeClass" => Plugin::RuntimeClass,
                "DefaultIngressClass" => Plugin::DefaultIngressClass,
                "ResourceQuota" => Plugin::ResourceQuota,
                "AlwaysDeny" => Plugin::AlwaysDeny,
                other if WITHOUT_EFFECT.contains(&other) => {
                    if other != "AlwaysAdmit" {
                        tracing::warn!("the admission plug-in {other} has no effect");
                    }
                    continue;
                }
                other => bail!("unknown admission plug-in {other:?}"),
            });
        }
        Ok(Self { plugins, quotas: Quotas::default() })
    }

    /// Lets every plug-in change an object about to be created or updated.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn admit(&self, server: &Server, review: &Review<'_>, object: &mut Value) -> Answer<()> {
        for plugin in &self.plugins {
            match plugin {
                Plugin::LimitRanger => limit_ranger::admit(server, review, object),
                Plugin::ServiceAccount => service_account::admit(server, review, object).await?,
                Plugin::NamespaceLifecycle => namespace_lifecycle::check(server, review).await?,
                Plugin::Priority => priority::admit(server, review, object)?,
                Plugin::DefaultTolerationSeconds => default_tolerations::admit(review, object),
                Plugin::DefaultStorageClass => default_class::admit(server, &default_class::STORAGE, review, object),
                Plugin::StorageObjectInUseProtection => in_use::admit(review, object),
                Plugin::RuntimeClass => runtime_class::admit(server, review, object)?,
                Plugin::DefaultIngressClass => default_class::admit(server, &default_class::INGRESSES, review, object),
                Plugin::PersistentVolumeClaimResize | Plugin::ResourceQuota | Plugin::AlwaysDeny => {}
            }
        }
        Ok(())
    }

    /// Lets every plug-in refuse the final object (`Null` for a delete). The charge is to be refunded if the write does not happen.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn validate(&self, server: &Server, review: &Review<'_>, object: &Value) -> Answer<Charge> {
        let mut charge = Charge::default();
        for plugin in &self.plugins {
            match plugin {
                Plugin::NamespaceLifecycle if review.operation == Operation::Delete => namespace_lifecycle::check(server, review).await?,
                Plugin::LimitRanger => limit_ranger::validate(server, review, object)?,
                Plugin::Priority => priority::validate(server, review, object)?,
                Plugin::PersistentVolumeClaimResize => claim_resize::validate(server, review, object)?,
                Plugin::ResourceQuota => charge = self.quotas.charge(server, review, object).await?,
                Plugin::AlwaysDeny => return Err(refuse(review, "admission control is denying all modifications")),
                Plugin::NamespaceLifecycle
                | Plugin::ServiceAccount
                | Plugin::DefaultTolerationSeconds
                | Plugin::DefaultStorageClass
                | Plugin::StorageObjectInUseProtection
                | Plugin::RuntimeClass
                | Plugin::DefaultIngressClass => {}
            }
        }
        Ok(charge)
    }
}

/// 403, as every refusal of a plug-in.
fn refuse(review: &Review<'_>, why: &str) -> Box<crate::object::Status> {
    Box::new(crate::object::Status::forbidden(review.key.resource, &review.key.name.name, why))
}
