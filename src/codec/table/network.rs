//! Ingresses, network policies, and the addresses of services as objects.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, IngressSpec, NetworkPolicy, ServiceCIDR};

use super::row::{NONE, Row, abridge};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::INGRESS,
        columns: &[
            NAME,
            Column::text("Class", "The ingress class that serves it."),
            Column::text("Hosts", "Names that the rules are for."),
            Column::text("Address", "Where it is reached."),
            Column::text("Ports", "Ports that it listens on."),
            AGE,
        ],
        cells: |object, row| named(object, row, ingress),
    },
    Printer {
        resource: &resource::INGRESS_CLASS,
        columns: &[
            NAME,
            Column::text("Controller", "What serves ingresses of the class."),
            Column::text("Parameters", "Where the controller's settings are."),
            AGE,
        ],
        cells: |object, row| named(object, row, class),
    },
    Printer {
        resource: &resource::NETWORK_POLICY,
        columns: &[NAME, Column::text("Pod-Selector", "Labels of the pods it is about."), AGE],
        cells: |object, row| named(object, row, policy),
    },
    Printer {
        resource: &resource::IP_ADDRESS,
        // As in Kubernetes, without an age.
        columns: &[NAME, Column::text("ParentRef", "What the address is given to.")],
        cells: |object, row| named(object, row, address),
    },
    Printer {
        resource: &resource::SERVICE_CIDR,
        columns: &[NAME, Column::text("CIDRs", "Ranges that services get their addresses from."), AGE],
        cells: |object, row| named(object, row, range),
    },
];

fn ingress(it: &Ingress, row: &mut Row<'_>) {
    let no_spec = IngressSpec::default();
    let spec = it.spec.as_ref().unwrap_or(&no_spec);
    row.text_or(spec.ingress_class_name.as_deref(), NONE);
    let hosts: Vec<String> = spec.rules.iter().flatten().filter_map(|it| it.host.clone()).filter(|it| !it.is_empty()).collect();
    row.text(if hosts.is_empty() { "*".to_owned() } else { abridge(&hosts, hosts.len()) });
    let balancer = it.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let addresses = balancer.and_then(|it| it.ingress.as_ref()).into_iter().flatten();
    let addresses = addresses.filter_map(|it| it.ip.as_deref().filter(|ip| !ip.is_empty()).or(it.hostname.as_deref()));
    row.text(addresses.filter(|it| !it.is_empty()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(","));
    row.text(if spec.tls.iter().flatten().next().is_some() { "80, 443" } else { "80" });
    row.created();
}

fn class(it: &IngressClass, row: &mut Row<'_>) {
    let spec = it.spec.as_ref();
    row.text(spec.and_then(|it| it.controller.as_deref()).unwrap_or_default());
    row.text(match spec.and_then(|it| it.parameters.as_ref()) {
        Some(it) => match it.api_group.as_deref().filter(|group| !group.is_empty()) {
            Some(group) => format!("{}.{group}/{}", it.kind, it.name),
            None => format!("{}/{}", it.kind, it.name),
        },
        None => NONE.to_owned(),
    });
    row.created();
}

fn policy(it: &NetworkPolicy, row: &mut Row<'_>) {
    row.selector(it.spec.as_ref().and_then(|it| it.pod_selector.as_ref()));
    row.created();
}

fn address(it: &IPAddress, row: &mut Row<'_>) {
    let parent = it.spec.as_ref().map(|it| &it.parent_ref);
    row.text(match parent {
        Some(parent) => {
            let group = parent.group.as_deref().filter(|it| !it.is_empty()).map(|it| format!(".{it}")).unwrap_or_default();
            let namespace = parent.namespace.as_deref().filter(|it| !it.is_empty()).map(|it| format!("{it}/")).unwrap_or_default();
            format!("{}{group}/{namespace}{}", parent.resource, parent.name)
        }
        None => NONE.to_owned(),
    });
}

fn range(it: &ServiceCIDR, row: &mut Row<'_>) {
    row.text(it.spec.as_ref().and_then(|it| it.cidrs.as_ref()).map(|it| it.join(",")).unwrap_or_default());
    row.created();
}
