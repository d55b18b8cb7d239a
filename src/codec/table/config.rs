//! Namespaces, their configuration, and their limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Namespace, ResourceQuota, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::row::Row;
use super::{AGE, CREATED_AT, Column, NAME, Printer, named};
use crate::object::resource;

const DATA: Column = Column::text("Data", "How many entries there are.");

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::NAMESPACE,
        columns: &[NAME, Column::text("Status", "Whether the namespace is in use or being emptied."), AGE],
        cells: |object, row| named(object, row, namespace),
    },
    Printer { resource: &resource::CONFIG_MAP, columns: &[NAME, DATA, AGE], cells: |object, row| named(object, row, config_map) },
    Printer {
        resource: &resource::SECRET,
        columns: &[NAME, Column::text("Type", "What the secret is for."), DATA, AGE],
        cells: |object, row| named(object, row, secret),
    },
    Printer {
        resource: &resource::SERVICE_ACCOUNT,
        columns: &[NAME, Column::text("Secrets", "How many secrets pods of the account may use."), AGE],
        cells: |object, row| named(object, row, service_account),
    },
    Printer {
        resource: &resource::LIMIT_RANGE,
        columns: &[NAME, CREATED_AT],
        cells: |object, row| named(object, row, |_: &LimitRange, row| row.moment()),
    },
    Printer {
        resource: &resource::RESOURCE_QUOTA,
        columns: &[
            NAME,
            Column::text("Request", "What is used, of what may be."),
            Column::text("Limit", "What containers are limited to together, of what they may be."),
            AGE,
        ],
        cells: |object, row| named(object, row, resource_quota),
    },
];

fn namespace(it: &Namespace, row: &mut Row<'_>) {
    row.text(it.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default());
    row.created();
}

fn config_map(it: &ConfigMap, row: &mut Row<'_>) {
    row.integer(it.data.as_ref().map_or(0, BTreeMap::len) + it.binary_data.as_ref().map_or(0, BTreeMap::len));
    row.created();
}

fn secret(it: &Secret, row: &mut Row<'_>) {
    row.text(it.type_.as_deref().unwrap_or_default());
    row.integer(it.data.as_ref().map_or(0, BTreeMap::len));
    row.created();
}

fn service_account(it: &ServiceAccount, row: &mut Row<'_>) {
    row.integer(it.secrets.as_ref().map_or(0, Vec::len));
    row.created();
}

fn resource_quota(it: &ResourceQuota, row: &mut Row<'_>) {
    let none = BTreeMap::new();
    let status = it.status.as_ref();
    let hard = status.and_then(|it| it.hard.as_ref()).unwrap_or(&none);
    let used = status.and_then(|it| it.used.as_ref()).unwrap_or(&none);
    let of = |limits: bool| {
        let entries = hard.iter().filter(|(name, _)| name.starts_with("limits.") == limits);
        let zero = Quantity("0".to_owned());
        entries.map(|(name, hard)| format!("{name}: {}/{}", used.get(name).unwrap_or(&zero).0, hard.0)).collect::<Vec<_>>().join(", ")
    };
    row.text(of(false));
    row.text(of(true));
    row.created();
}
