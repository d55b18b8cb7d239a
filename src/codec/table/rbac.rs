//! Roles and their bindings.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject};

use super::row::Row;
use super::{AGE, CREATED_AT, Column, NAME, Printer, named};
use crate::object::resource;

const ROLE: &[Column] = &[NAME, CREATED_AT];
const BINDING: &[Column] = &[
    NAME,
    Column::text("Role", "The role that is given."),
    AGE,
    Column::text("Users", "Users that have it.").wide(),
    Column::text("Groups", "Groups that have it.").wide(),
    Column::text("ServiceAccounts", "Service accounts that have it.").wide(),
];

pub(super) static PRINTERS: &[Printer] = &[
    Printer { resource: &resource::ROLE, columns: ROLE, cells: |object, row| named(object, row, |_: &Role, row| row.moment()) },
    Printer {
        resource: &resource::CLUSTER_ROLE,
        columns: ROLE,
        cells: |object, row| named(object, row, |_: &ClusterRole, row| row.moment()),
    },
    Printer {
        resource: &resource::ROLE_BINDING,
        columns: BINDING,
        cells: |object, row| named(object, row, |it: &RoleBinding, row| binding(&it.role_ref, &it.subjects, row)),
    },
    Printer {
        resource: &resource::CLUSTER_ROLE_BINDING,
        columns: BINDING,
        cells: |object, row| named(object, row, |it: &ClusterRoleBinding, row| binding(&it.role_ref, &it.subjects, row)),
    },
];

fn binding(role: &RoleRef, subjects: &Option<Vec<Subject>>, row: &mut Row<'_>) {
    row.text(format!("{}/{}", role.kind, role.name));
    row.created();
    for kind in ["User", "Group", "ServiceAccount"] {
        let of_kind = subjects.iter().flatten().filter(|it| it.kind == kind);
        let names = of_kind.map(|it| match &it.namespace {
            Some(namespace) if kind == "ServiceAccount" && !namespace.is_empty() => format!("{namespace}/{}", it.name),
            _ => it.name.clone(),
        });
        row.text(names.collect::<Vec<_>>().join(", "));
    }
}
