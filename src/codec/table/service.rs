//! Services, and the endpoints behind them.

use k8s_openapi::api::core::v1::{Endpoints, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::row::{NONE, Row, UNKNOWN, UNSET, abridge};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::SERVICE,
        columns: &[
            NAME,
            Column::text("Type", "How the service can be reached."),
            Column::text("Cluster-IP", "Address of the service within the cluster."),
            Column::text("External-IP", "Where the service is reached from outside."),
            Column::text("Port(s)", "Ports of the service, with the nodes' ports if it has some."),
            AGE,
            Column::text("Selector", "Labels of the pods that the service stands for.").wide(),
        ],
        cells: |object, row| named(object, row, service),
    },
    Printer {
        resource: &resource::ENDPOINTS,
        columns: &[NAME, Column::text("Endpoints", "Addresses and ports that are ready."), AGE],
        cells: |object, row| named(object, row, endpoints),
    },
    Printer {
        resource: &resource::ENDPOINT_SLICE,
        columns: &[
            NAME,
            Column::text("AddressType", "What the addresses are."),
            Column::text("Ports", "Ports of every endpoint."),
            Column::text("Endpoints", "Addresses of the endpoints."),
            AGE,
        ],
        cells: |object, row| named(object, row, endpoint_slice),
    },
];

fn service(service: &Service, row: &mut Row<'_>) {
    let no_spec = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&no_spec);
    row.text_or(spec.type_.as_deref(), "ClusterIP");
    row.text_or(spec.cluster_ips.iter().flatten().map(String::as_str).next().or(spec.cluster_ip.as_deref()), NONE);
    row.text(external(service, spec));
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            match port.node_port {
                Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port.port),
                _ => format!("{}/{protocol}", port.port),
            }
        })
        .collect();
    row.text_or(Some(&ports.join(",")), NONE);
    row.created();
    row.labels(spec.selector.iter().flatten());
}

fn external(service: &Service, spec: &ServiceSpec) -> String {
    let own = spec.external_ips.as_deref().unwrap_or_default();
    let text = match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "ClusterIP" | "NodePort" => own.join(","),
        "ExternalName" => return spec.external_name.clone().unwrap_or_default(),
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
            let given = balancer.and_then(|it| it.ingress.as_ref()).into_iter().flatten();
            let given = given.filter_map(|it| it.ip.clone().filter(|ip| !ip.is_empty()).or_else(|| it.hostname.clone()));
            let all: Vec<String> = given.chain(own.iter().cloned()).collect();
            if all.is_empty() {
                return "<pending>".to_owned();
            }
            all.join(",")
        }
        _ => return UNKNOWN.to_owned(),
    };
    if text.is_empty() { NONE.to_owned() } else { text }
}

fn endpoints(endpoints: &Endpoints, row: &mut Row<'_>) {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    let mut shown = Vec::new();
    let mut count = 0;
    for subset in subsets {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let ports = subset.ports.as_deref().unwrap_or_default();
        count += addresses.len() * ports.len().max(1);
        let few = addresses.iter().take(3).map(|it| it.ip.as_str());
        match ports {
            [] => shown.extend(few.map(str::to_owned)),
            ports => {
                for port in ports.iter().take(3) {
                    shown.extend(
                        few.clone()
                            .map(|ip| if ip.contains(':') { format!("[{ip}]:{}", port.port) } else { format!("{ip}:{}", port.port) }),
                    );
                }
            }
        }
        shown.truncate(3);
    }
    row.text(if subsets.is_empty() { NONE.to_owned() } else { abridge(&shown, count) });
    row.created();
}

fn endpoint_slice(slice: &EndpointSlice, row: &mut Row<'_>) {
    row.text(&slice.address_type);
    let ports = slice.ports.as_deref().unwrap_or_default();
    let shown: Vec<String> = ports.iter().take(3).map(|it| it.port.map_or_else(|| "*".to_owned(), |port| port.to_string())).collect();
    row.text_or(Some(&abridge(&shown, ports.len())), UNSET);
    let addresses = || slice.endpoints.iter().flat_map(|it| &it.addresses);
    let shown: Vec<String> = addresses().take(3).cloned().collect();
    row.text_or(Some(&abridge(&shown, addresses().count())), UNSET);
    row.created();
}
