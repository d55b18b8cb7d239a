//! Settings of the cluster: priorities, ways to run containers, requests for certificates, resources that users define.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ComponentStatus;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::row::{NONE, Row};
use super::{AGE, CREATED_AT, Column, NAME, Printer, named};
use crate::object::resource;
use crate::util::duration;

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::COMPONENT_STATUS,
        columns: &[
            NAME,
            Column::text("Status", "Whether the component does what it is for."),
            Column::text("Message", "What it says of itself."),
            Column::text("Error", "Why it could not be asked."),
        ],
        cells: |object, row| named(object, row, component),
    },
    Printer {
        resource: &resource::CUSTOM_RESOURCE_DEFINITION,
        columns: &[NAME, CREATED_AT],
        cells: |object, row| {
            row.text(object.name());
            row.moment();
            Ok(())
        },
    },
    Printer {
        resource: &resource::PRIORITY_CLASS,
        columns: &[
            NAME,
            Column::integer("Value", "How important the pods are."),
            Column::boolean("Global-Default", "Whether pods have it that name none."),
            AGE,
            Column::text("PreemptionPolicy", "Whether other pods may have to go for them."),
        ],
        cells: |object, row| named(object, row, priority),
    },
    Printer {
        resource: &resource::RUNTIME_CLASS,
        columns: &[NAME, Column::text("Handler", "What the node's runtime calls it."), AGE],
        cells: |object, row| named(object, row, runtime),
    },
    Printer {
        resource: &resource::CERTIFICATE_SIGNING_REQUEST,
        columns: &[
            NAME,
            AGE,
            Column::text("SignerName", "Who is to sign."),
            Column::text("Requestor", "Who asks."),
            Column::text("RequestedDuration", "How long the certificate is to be valid."),
            Column::text("Condition", "What has been decided, and whether there is a certificate."),
        ],
        cells: |object, row| named(object, row, certificate),
    },
];

fn component(it: &ComponentStatus, row: &mut Row<'_>) {
    let health = it.conditions.iter().flatten().find(|it| it.type_ == "Healthy");
    row.text(health.map_or("Unknown", |it| if it.status == "True" { "Healthy" } else { "Unhealthy" }));
    row.text(health.and_then(|it| it.message.as_deref()).unwrap_or_default());
    row.text(health.and_then(|it| it.error.as_deref()).unwrap_or_default());
}

fn priority(it: &PriorityClass, row: &mut Row<'_>) {
    row.integer(it.value);
    row.boolean(it.global_default.unwrap_or_default());
    row.created();
    row.text(it.preemption_policy.as_deref().unwrap_or_default());
}

fn runtime(it: &RuntimeClass, row: &mut Row<'_>) {
    row.text(&it.handler);
    row.created();
}

fn certificate(it: &CertificateSigningRequest, row: &mut Row<'_>) {
    row.created();
    row.text_or(Some(&it.spec.signer_name), NONE);
    row.text(it.spec.username.as_deref().unwrap_or_default());
    row.text(it.spec.expiration_seconds.map_or_else(|| NONE.to_owned(), |it| duration::human(it.into())));
    let (status, mut decided) = (it.status.as_ref(), Vec::new());
    let conditions = status.and_then(|it| it.conditions.as_ref());
    let has = |kind: &str| conditions.into_iter().flatten().any(|it| it.type_ == kind);
    decided.push(match (has("Approved"), has("Denied")) {
        (_, true) => "Denied",
        (true, false) => "Approved",
        (false, false) => "Pending",
    });
    decided.extend(has("Failed").then_some("Failed"));
    decided.extend(status.and_then(|it| it.certificate.as_ref()).filter(|it| !it.0.is_empty()).map(|_| "Issued"));
    row.text(decided.join(","));
}
