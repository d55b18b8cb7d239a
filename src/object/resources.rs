//! The rows of the resource registry: one per resource, in the order in which discovery lists them.

use super::resource::{Resource, ResourceRef, Selectable, Subresource};

/// The verbs of a resource whose objects are stored.
const STORED: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const READ_WRITE: &[&str] = &["get", "patch", "update"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

const SCALABLE: Subresource = Subresource { name: "scale", kind: ("autoscaling", "v1", "Scale"), verbs: READ_WRITE };

const fn status(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    Subresource { name: "status", kind: (group, version, kind), verbs: READ_WRITE }
}

const fn field(path: &'static str) -> Selectable {
    Selectable { path, absent: "", stored: path }
}

const fn field_or(path: &'static str, absent: &'static str) -> Selectable {
    Selectable { path, absent, stored: path }
}

/// A field with another path in the stored version.
const fn renamed(path: &'static str, stored: &'static str) -> Selectable {
    Selectable { path, absent: "", stored }
}

/// Makes a row that differs from the usual one (stored, namespaced, without subresources) in the fields given.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident = $group:literal $version:literal $kind:literal $plural:literal $singular:literal { $($field:ident: $value:expr),* $(,)? }) => {
        $(#[$doc])*
        pub static $name: Resource = Resource {
            $($field: $value,)*
            ..usual($group, $version, $kind, $plural, $singular)
        };
    };
}

const fn usual(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str, singular: &'static str) -> Resource {
    Resource {
        group,
        version,
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: STORED,
        subresources: &[],
        selectable: &[],
        schema: "",
        stored_as: None,
        deprecated: "",
        counts_generations: false,
        updates_need_a_revision: false,
        created_by_put: false,
        shown_when_deleted: false,
        protection: None,
    }
}

resource!(POD = "" "v1" "Pod" "pods" "pod" {
    short_names: &["po"],
    categories: &["all"],
    schema: "io.k8s.api.core.v1.Pod",
    subresources: &[
        Subresource { name: "attach", kind: ("", "v1", "PodAttachOptions"), verbs: CONNECT },
        Subresource { name: "binding", kind: ("", "v1", "Binding"), verbs: CREATE },
        Subresource { name: "ephemeralcontainers", kind: ("", "v1", "Pod"), verbs: READ_WRITE },
        Subresource { name: "eviction", kind: ("policy", "v1", "Eviction"), verbs: CREATE },
        Subresource { name: "exec", kind: ("", "v1", "PodExecOptions"), verbs: CONNECT },
        Subresource { name: "log", kind: ("", "v1", "Pod"), verbs: GET },
        Subresource { name: "portforward", kind: ("", "v1", "PodPortForwardOptions"), verbs: CONNECT },
        Subresource { name: "proxy", kind: ("", "v1", "PodProxyOptions"), verbs: PROXY },
        Subresource { name: "resize", kind: ("", "v1", "Pod"), verbs: READ_WRITE },
        status("", "v1", "Pod"),
    ],
    selectable: &[
        field("spec.nodeName"),
        field("status.phase"),
        field("spec.restartPolicy"),
        field("spec.schedulerName"),
        field("spec.serviceAccountName"),
        field_or("spec.hostNetwork", "false"),
        field("status.podIP"),
        field("status.podIPs"),
        field("status.nominatedNodeName"),
    ],
    counts_generations: true,
    shown_when_deleted: true,
});
resource!(POD_TEMPLATE = "" "v1" "PodTemplate" "podtemplates" "podtemplate" {
    schema: "io.k8s.api.core.v1.PodTemplate",
    counts_generations: true,
    shown_when_deleted: true,
});
resource!(REPLICATION_CONTROLLER = "" "v1" "ReplicationController" "replicationcontrollers" "replicationcontroller" {
    short_names: &["rc"],
    categories: &["all"],
    schema: "io.k8s.api.core.v1.ReplicationController",
    subresources: &[SCALABLE, status("", "v1", "ReplicationController")],
    selectable: &[field_or("status.replicas", "0")],
    counts_generations: true,
});
resource!(SERVICE = "" "v1" "Service" "services" "service" {
    short_names: &["svc"],
    categories: &["all"],
    schema: "io.k8s.api.core.v1.Service",
    subresources: &[
        Subresource { name: "proxy", kind: ("", "v1", "ServiceProxyOptions"), verbs: PROXY },
        status("", "v1", "Service"),
    ],
    selectable: &[field("spec.clusterIP"), field("spec.type")],
    created_by_put: true,
    shown_when_deleted: true,
});
resource!(ENDPOINTS = "" "v1" "Endpoints" "endpoints" "endpoints" {
    short_names: &["ep"],
    schema: "io.k8s.api.core.v1.Endpoints",
    deprecated: "v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    created_by_put: true,
});
resource!(
    /// Not stored: each request asks the components.
    COMPONENT_STATUS = "" "v1" "ComponentStatus" "componentstatuses" "componentstatus" {
    short_names: &["cs"],
    namespaced: false,
    verbs: &["get", "list"],
    schema: "io.k8s.api.core.v1.ComponentStatus",
    deprecated: "v1.19+",
});
resource!(NODE = "" "v1" "Node" "nodes" "node" {
    short_names: &["no"],
    namespaced: false,
    schema: "io.k8s.api.core.v1.Node",
    subresources: &[
        Subresource { name: "proxy", kind: ("", "v1", "NodeProxyOptions"), verbs: PROXY },
        status("", "v1", "Node"),
    ],
    selectable: &[field_or("spec.unschedulable", "false")],
});
resource!(NAMESPACE = "" "v1" "Namespace" "namespaces" "namespace" {
    short_names: &["ns"],
    namespaced: false,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    schema: "io.k8s.api.core.v1.Namespace",
    subresources: &[
        Subresource { name: "finalize", kind: ("", "v1", "Namespace"), verbs: &["update"] },
        status("", "v1", "Namespace"),
    ],
    selectable: &[field("status.phase")],
    shown_when_deleted: true,
});
resource!(
    /// Kept for a limited time only.
    EVENT = "" "v1" "Event" "events" "event" {
    short_names: &["ev"],
    schema: "io.k8s.api.core.v1.Event",
    selectable: &[
        field("involvedObject.kind"),
        field("involvedObject.namespace"),
        field("involvedObject.name"),
        field("involvedObject.uid"),
        field("involvedObject.apiVersion"),
        field("involvedObject.resourceVersion"),
        field("involvedObject.fieldPath"),
        field("reason"),
        field("reportingComponent"),
        field("source.component"),
        renamed("source", "source.component"),
        field("type"),
    ],
    created_by_put: true,
});
resource!(SECRET = "" "v1" "Secret" "secrets" "secret" {
    schema: "io.k8s.api.core.v1.Secret",
    selectable: &[field("type")],
});
resource!(CONFIG_MAP = "" "v1" "ConfigMap" "configmaps" "configmap" {
    short_names: &["cm"],
    schema: "io.k8s.api.core.v1.ConfigMap",
});
resource!(SERVICE_ACCOUNT = "" "v1" "ServiceAccount" "serviceaccounts" "serviceaccount" {
    short_names: &["sa"],
    schema: "io.k8s.api.core.v1.ServiceAccount",
    subresources: &[Subresource { name: "token", kind: ("authentication.k8s.io", "v1", "TokenRequest"), verbs: CREATE }],
    shown_when_deleted: true,
});
resource!(
    /// Not stored: creating one places a pod (the older form of the pods' subresource).
    BINDING = "" "v1" "Binding" "bindings" "binding" { verbs: CREATE, schema: "io.k8s.api.core.v1.Binding" });
resource!(LIMIT_RANGE = "" "v1" "LimitRange" "limitranges" "limitrange" {
    short_names: &["limits"],
    schema: "io.k8s.api.core.v1.LimitRange",
    created_by_put: true,
});
resource!(RESOURCE_QUOTA = "" "v1" "ResourceQuota" "resourcequotas" "resourcequota" {
    short_names: &["quota"],
    schema: "io.k8s.api.core.v1.ResourceQuota",
    subresources: &[status("", "v1", "ResourceQuota")],
    shown_when_deleted: true,
});
resource!(PERSISTENT_VOLUME = "" "v1" "PersistentVolume" "persistentvolumes" "persistentvolume" {
    short_names: &["pv"],
    namespaced: false,
    schema: "io.k8s.api.core.v1.PersistentVolume",
    subresources: &[status("", "v1", "PersistentVolume")],
    shown_when_deleted: true,
    protection: Some("kubernetes.io/pv-protection"),
});
resource!(PERSISTENT_VOLUME_CLAIM = "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims" "persistentvolumeclaim" {
    short_names: &["pvc"],
    schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
    subresources: &[status("", "v1", "PersistentVolumeClaim")],
    shown_when_deleted: true,
    protection: Some("kubernetes.io/pvc-protection"),
});

resource!(DEPLOYMENT = "apps" "v1" "Deployment" "deployments" "deployment" {
    short_names: &["deploy"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.Deployment",
    subresources: &[SCALABLE, status("apps", "v1", "Deployment")],
    counts_generations: true,
});
resource!(REPLICA_SET = "apps" "v1" "ReplicaSet" "replicasets" "replicaset" {
    short_names: &["rs"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    subresources: &[SCALABLE, status("apps", "v1", "ReplicaSet")],
    counts_generations: true,
});
resource!(STATEFUL_SET = "apps" "v1" "StatefulSet" "statefulsets" "statefulset" {
    short_names: &["sts"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.StatefulSet",
    subresources: &[SCALABLE, status("apps", "v1", "StatefulSet")],
    counts_generations: true,
});
resource!(DAEMON_SET = "apps" "v1" "DaemonSet" "daemonsets" "daemonset" {
    short_names: &["ds"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.DaemonSet",
    subresources: &[status("apps", "v1", "DaemonSet")],
    counts_generations: true,
});
resource!(CONTROLLER_REVISION = "apps" "v1" "ControllerRevision" "controllerrevisions" "controllerrevision" {
    schema: "io.k8s.api.apps.v1.ControllerRevision",
});

resource!(JOB = "batch" "v1" "Job" "jobs" "job" {
    categories: &["all"],
    schema: "io.k8s.api.batch.v1.Job",
    subresources: &[status("batch", "v1", "Job")],
    selectable: &[field_or("status.successful", "0")],
    counts_generations: true,
});
resource!(CRON_JOB = "batch" "v1" "CronJob" "cronjobs" "cronjob" {
    short_names: &["cj"],
    categories: &["all"],
    schema: "io.k8s.api.batch.v1.CronJob",
    subresources: &[status("batch", "v1", "CronJob")],
    counts_generations: true,
});

resource!(LEASE = "coordination.k8s.io" "v1" "Lease" "leases" "lease" {
    schema: "io.k8s.api.coordination.v1.Lease",
    updates_need_a_revision: true,
    created_by_put: true,
});
resource!(ENDPOINT_SLICE = "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices" "endpointslice" {
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    counts_generations: true,
});
resource!(POD_DISRUPTION_BUDGET = "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets" "poddisruptionbudget" {
    short_names: &["pdb"],
    schema: "io.k8s.api.policy.v1.PodDisruptionBudget",
    subresources: &[status("policy", "v1", "PodDisruptionBudget")],
    counts_generations: true,
    updates_need_a_revision: true,
});

resource!(HORIZONTAL_POD_AUTOSCALER = "autoscaling" "v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers" "horizontalpodautoscaler" {
    short_names: &["hpa"],
    categories: &["all"],
    schema: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    subresources: &[status("autoscaling", "v2", "HorizontalPodAutoscaler")],
});
resource!(HORIZONTAL_POD_AUTOSCALER_V1 = "autoscaling" "v1" "HorizontalPodAutoscaler" "horizontalpodautoscalers" "horizontalpodautoscaler" {
    short_names: &["hpa"],
    categories: &["all"],
    schema: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    subresources: &[status("autoscaling", "v1", "HorizontalPodAutoscaler")],
    stored_as: Some(&HORIZONTAL_POD_AUTOSCALER),
});
resource!(
    /// The newer form of the core group's events.
    EVENT_V1 = "events.k8s.io" "v1" "Event" "events" "event" {
    short_names: &["ev"],
    schema: "io.k8s.api.events.v1.Event",
    selectable: &[
        renamed("regarding.kind", "involvedObject.kind"),
        renamed("regarding.namespace", "involvedObject.namespace"),
        renamed("regarding.name", "involvedObject.name"),
        renamed("regarding.uid", "involvedObject.uid"),
        renamed("regarding.apiVersion", "involvedObject.apiVersion"),
        renamed("regarding.resourceVersion", "involvedObject.resourceVersion"),
        renamed("regarding.fieldPath", "involvedObject.fieldPath"),
        field("reason"),
        renamed("reportingController", "reportingComponent"),
        field("type"),
    ],
    stored_as: Some(&EVENT),
});

resource!(INGRESS = "networking.k8s.io" "v1" "Ingress" "ingresses" "ingress" {
    short_names: &["ing"],
    schema: "io.k8s.api.networking.v1.Ingress",
    subresources: &[status("networking.k8s.io", "v1", "Ingress")],
    counts_generations: true,
});
resource!(INGRESS_CLASS = "networking.k8s.io" "v1" "IngressClass" "ingressclasses" "ingressclass" {
    namespaced: false,
    schema: "io.k8s.api.networking.v1.IngressClass",
    counts_generations: true,
});
resource!(NETWORK_POLICY = "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies" "networkpolicy" {
    short_names: &["netpol"],
    schema: "io.k8s.api.networking.v1.NetworkPolicy",
    counts_generations: true,
});
resource!(IP_ADDRESS = "networking.k8s.io" "v1" "IPAddress" "ipaddresses" "ipaddress" {
    short_names: &["ip"],
    namespaced: false,
    schema: "io.k8s.api.networking.v1.IPAddress",
});
resource!(SERVICE_CIDR = "networking.k8s.io" "v1" "ServiceCIDR" "servicecidrs" "servicecidr" {
    namespaced: false,
    schema: "io.k8s.api.networking.v1.ServiceCIDR",
    subresources: &[status("networking.k8s.io", "v1", "ServiceCIDR")],
});

resource!(STORAGE_CLASS = "storage.k8s.io" "v1" "StorageClass" "storageclasses" "storageclass" {
    short_names: &["sc"],
    namespaced: false,
    schema: "io.k8s.api.storage.v1.StorageClass",
    shown_when_deleted: true,
});
resource!(VOLUME_ATTACHMENT = "storage.k8s.io" "v1" "VolumeAttachment" "volumeattachments" "volumeattachment" {
    namespaced: false,
    schema: "io.k8s.api.storage.v1.VolumeAttachment",
    subresources: &[status("storage.k8s.io", "v1", "VolumeAttachment")],
    updates_need_a_revision: true,
    shown_when_deleted: true,
});
resource!(CSI_DRIVER = "storage.k8s.io" "v1" "CSIDriver" "csidrivers" "csidriver" {
    namespaced: false,
    schema: "io.k8s.api.storage.v1.CSIDriver",
    updates_need_a_revision: true,
    shown_when_deleted: true,
});
resource!(CSI_NODE = "storage.k8s.io" "v1" "CSINode" "csinodes" "csinode" {
    namespaced: false,
    schema: "io.k8s.api.storage.v1.CSINode",
    updates_need_a_revision: true,
    shown_when_deleted: true,
});
resource!(CSI_STORAGE_CAPACITY = "storage.k8s.io" "v1" "CSIStorageCapacity" "csistoragecapacities" "csistoragecapacity" {
    schema: "io.k8s.api.storage.v1.CSIStorageCapacity",
    updates_need_a_revision: true,
});

resource!(
    /// A resource that users add to the API. km serves no custom resources yet, so none can be created. Before the write verbs are added,
    /// every lookup of a resource (paths, discovery, OpenAPI, the cache's tables) must include these objects.
    CUSTOM_RESOURCE_DEFINITION = "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions" "customresourcedefinition" {
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: &["get", "list", "watch"],
    schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
});
resource!(PRIORITY_CLASS = "scheduling.k8s.io" "v1" "PriorityClass" "priorityclasses" "priorityclass" {
    short_names: &["pc"],
    namespaced: false,
    schema: "io.k8s.api.scheduling.v1.PriorityClass",
    counts_generations: true,
});
resource!(RUNTIME_CLASS = "node.k8s.io" "v1" "RuntimeClass" "runtimeclasses" "runtimeclass" {
    namespaced: false,
    schema: "io.k8s.api.node.v1.RuntimeClass",
    updates_need_a_revision: true,
    created_by_put: true,
});

resource!(ROLE = "rbac.authorization.k8s.io" "v1" "Role" "roles" "role" {
    schema: "io.k8s.api.rbac.v1.Role",
    created_by_put: true,
});
resource!(ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings" "rolebinding" {
    schema: "io.k8s.api.rbac.v1.RoleBinding",
    created_by_put: true,
});
resource!(CLUSTER_ROLE = "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles" "clusterrole" {
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRole",
    created_by_put: true,
});
resource!(CLUSTER_ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings" "clusterrolebinding" {
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    created_by_put: true,
});

resource!(CERTIFICATE_SIGNING_REQUEST = "certificates.k8s.io" "v1" "CertificateSigningRequest" "certificatesigningrequests" "certificatesigningrequest" {
    short_names: &["csr"],
    namespaced: false,
    schema: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    subresources: &[
        Subresource { name: "approval", kind: ("certificates.k8s.io", "v1", "CertificateSigningRequest"), verbs: READ_WRITE },
        status("certificates.k8s.io", "v1", "CertificateSigningRequest"),
    ],
    selectable: &[field("spec.signerName")],
});

resource!(
    /// The body of every `scale` subresource. It has no collection of its own.
    SCALE = "autoscaling" "v1" "Scale" "scales" "scale" { verbs: &[], schema: "io.k8s.api.autoscaling.v1.Scale" });

/// Makes the row of a review: creating one returns an answer and stores nothing.
macro_rules! review {
    ($name:ident = $group:literal $kind:literal $plural:literal $singular:literal, $schema:literal, namespaced: $namespaced:literal) => {
        resource!($name = $group "v1" $kind $plural $singular { verbs: CREATE, namespaced: $namespaced, schema: $schema });
    };
}

review!(SELF_SUBJECT_REVIEW = "authentication.k8s.io" "SelfSubjectReview" "selfsubjectreviews" "selfsubjectreview",
    "io.k8s.api.authentication.v1.SelfSubjectReview", namespaced: false);
review!(TOKEN_REVIEW = "authentication.k8s.io" "TokenReview" "tokenreviews" "tokenreview",
    "io.k8s.api.authentication.v1.TokenReview", namespaced: false);
review!(LOCAL_SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "LocalSubjectAccessReview" "localsubjectaccessreviews" "localsubjectaccessreview",
    "io.k8s.api.authorization.v1.LocalSubjectAccessReview", namespaced: true);
review!(SELF_SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "SelfSubjectAccessReview" "selfsubjectaccessreviews" "selfsubjectaccessreview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview", namespaced: false);
review!(SELF_SUBJECT_RULES_REVIEW = "authorization.k8s.io" "SelfSubjectRulesReview" "selfsubjectrulesreviews" "selfsubjectrulesreview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview", namespaced: false);
review!(SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "SubjectAccessReview" "subjectaccessreviews" "subjectaccessreview",
    "io.k8s.api.authorization.v1.SubjectAccessReview", namespaced: false);

/// Every resource, in discovery's order: the preferred version first.
pub static ALL: &[ResourceRef] = &[
    &BINDING,
    &COMPONENT_STATUS,
    &CONFIG_MAP,
    &ENDPOINTS,
    &EVENT,
    &LIMIT_RANGE,
    &NAMESPACE,
    &NODE,
    &PERSISTENT_VOLUME_CLAIM,
    &PERSISTENT_VOLUME,
    &POD,
    &POD_TEMPLATE,
    &REPLICATION_CONTROLLER,
    &RESOURCE_QUOTA,
    &SECRET,
    &SERVICE_ACCOUNT,
    &SERVICE,
    &CONTROLLER_REVISION,
    &DAEMON_SET,
    &DEPLOYMENT,
    &REPLICA_SET,
    &STATEFUL_SET,
    &EVENT_V1,
    &SELF_SUBJECT_REVIEW,
    &TOKEN_REVIEW,
    &LOCAL_SUBJECT_ACCESS_REVIEW,
    &SELF_SUBJECT_ACCESS_REVIEW,
    &SELF_SUBJECT_RULES_REVIEW,
    &SUBJECT_ACCESS_REVIEW,
    &HORIZONTAL_POD_AUTOSCALER,
    &HORIZONTAL_POD_AUTOSCALER_V1,
    &CRON_JOB,
    &JOB,
    &CERTIFICATE_SIGNING_REQUEST,
    &INGRESS_CLASS,
    &INGRESS,
    &IP_ADDRESS,
    &NETWORK_POLICY,
    &SERVICE_CIDR,
    &POD_DISRUPTION_BUDGET,
    &CLUSTER_ROLE_BINDING,
    &CLUSTER_ROLE,
    &ROLE_BINDING,
    &ROLE,
    &CSI_DRIVER,
    &CSI_NODE,
    &CSI_STORAGE_CAPACITY,
    &STORAGE_CLASS,
    &VOLUME_ATTACHMENT,
    &CUSTOM_RESOURCE_DEFINITION,
    &PRIORITY_CLASS,
    &LEASE,
    &RUNTIME_CLASS,
    &ENDPOINT_SLICE,
];
