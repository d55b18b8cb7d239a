//! Services and endpoints.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::Value;

use super::at::At;
use super::container::port_reference;
use super::names;
use super::selector;
use crate::object::service_range;
use crate::object::status::Cause;
use crate::util::address;
use crate::util::go;

pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const NONE: &str = "None";

pub(super) fn service(service: &At<'_>, out: &mut Vec<Cause>) {
    let spec = service.at("spec");
    let kind = spec.text("type");
    let headless = spec.text("clusterIP") == NONE;
    let external_name = kind == "ExternalName";
    if spec.list("ports").is_empty() && !headless && !external_name {
        spec.required("ports", "", out);
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let why = format!("may not be set to 'None' for {kind} services");
        out.push(Cause::invalid("spec.clusterIPs[0]", &NONE.into(), &why));
    }
    if external_name {
        let has_address = !spec.text("clusterIP").is_empty() || !spec.list("clusterIPs").is_empty();
        let has_families = !spec.list("ipFamilies").is_empty();
        for (key, has) in [("clusterIPs", has_address), ("ipFamilies", has_families), ("ipFamilyPolicy", spec.has("ipFamilyPolicy"))] {
            if has {
                spec.forbidden(key, "may not be set for ExternalName services", out);
            }
        }
        match spec.text("externalName") {
            "" => spec.required("externalName", "", out),
            name => spec.faults("externalName", names::subdomain(name.strip_suffix('.').unwrap_or(name)), out),
        }
    }
    ports(&spec, out);
    selector::labels(&spec, "selector", out);
    affinity(&spec, out);
    if !external_name {
        addresses(&spec, out);
    }
    for (at, ip) in spec.list("externalIPs").iter().enumerate() {
        let path = format!("spec.externalIPs[{at}]");
        match address::read(ip.as_str().unwrap_or_default()) {
            None => out.extend(names::ip(ip.as_str().unwrap_or_default()).iter().map(|fault| Cause::invalid(&path, ip, fault))),
            Some(address) => out.extend(special(address).map(|why| Cause::invalid(path, ip, why))),
        }
    }
    spec.one_of("type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], out);
    double_ports(&spec, out);
    load_balancer(&spec, out);
    let outside = matches!(kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && !spec.list("externalIPs").is_empty();
    if spec.has("externalTrafficPolicy") && !outside {
        spec.invalid("externalTrafficPolicy", "may only be set for externally-accessible services", out);
    } else {
        spec.one_of("externalTrafficPolicy", &["Cluster", "Local"], out);
    }
    health_check(&spec, out);
    spec.one_of("internalTrafficPolicy", &["Cluster", "Local"], out);
    spec.one_of("trafficDistribution", &["PreferClose"], out);
}

/// Why an address is not reachable for others.
fn special(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(it) => it.is_link_local(),
        IpAddr::V6(it) => it.is_unicast_link_local(),
    };
    let link_multicast = match address {
        IpAddr::V4(it) => it.octets()[..3] == [224, 0, 0],
        IpAddr::V6(it) => it.segments()[0] == 0xff02,
    };
    match address {
        it if it.is_unspecified() => Some("may not be unspecified (0.0.0.0)"),
        it if it.is_loopback() => Some("may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        _ if link_local => Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        _ if link_multicast => Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        _ => None,
    }
}

fn load_balancer(spec: &At<'_>, out: &mut Vec<Cause>) {
    let balanced = spec.text("type") == "LoadBalancer";
    for key in ["loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts"] {
        if !balanced && spec.has(key) && spec.get(key).as_array().is_none_or(|it| !it.is_empty()) {
            // Kubernetes spells one of them so here.
            let field = if key == "loadBalancerSourceRanges" { "LoadBalancerSourceRanges" } else { key };
            spec.forbidden(field, "may only be used when `type` is 'LoadBalancer'", out);
        }
    }
    for (at, range) in spec.list("loadBalancerSourceRanges").iter().enumerate() {
        let text = range.as_str().unwrap_or_default().trim();
        out.extend(
            names::range(text).iter().map(|fault| Cause::invalid(format!("spec.LoadBalancerSourceRanges[{at}]"), &text.into(), fault)),
        );
    }
    spec.may("loadBalancerClass", names::qualified, out);
}

fn health_check(spec: &At<'_>, out: &mut Vec<Cause>) {
    let is_checked = spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    if spec.number("healthCheckNodePort").is_some_and(|it| it != 0) && !is_checked {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        spec.invalid("healthCheckNodePort", why, out);
    }
}

/// Checks the addresses of a service in the cluster, and their families.
fn addresses(spec: &At<'_>, out: &mut Vec<Cause>) {
    let (primary, all) = (spec.text("clusterIP"), spec.list("clusterIPs"));
    if let Some(first) = all.first()
        && !primary.is_empty()
        && first != primary
    {
        spec.invalid_texts("clusterIPs", "first value must match `clusterIP`", out);
    }
    let mut families = HashSet::new();
    for (at, family) in spec.list("ipFamilies").iter().enumerate() {
        let (path, text) = (format!("spec.ipFamilies[{at}]"), family.as_str().unwrap_or_default());
        if !matches!(text, "IPv4" | "IPv6") {
            out.push(Cause::not_supported(path.as_str(), text, &["IPv4", "IPv6"]));
        }
        if !families.insert(text) {
            out.push(Cause::duplicate(path, family));
        }
    }
    spec.one_of("ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], out);
    let stated: Vec<&str> = if all.is_empty() { vec![primary] } else { all.iter().filter_map(Value::as_str).collect() };
    for (at, ip) in stated.into_iter().enumerate().filter(|(_, ip)| !matches!(*ip, "" | NONE)) {
        out.extend(names::ip(ip).iter().map(|fault| Cause::invalid(format!("spec.clusterIPs[{at}]"), &ip.into(), fault)));
    }
}

fn ports(spec: &At<'_>, out: &mut Vec<Cause>) {
    let several = spec.list("ports").len() > 1;
    let mut seen = HashSet::new();
    for port in spec.items("ports") {
        match port.text("name") {
            "" if several => port.required("name", "", out),
            "" => {}
            name => {
                port.faults("name", names::label(name), out);
                if !seen.insert(name) {
                    port.duplicate("name", out);
                }
            }
        }
        let number = port.number("port").unwrap_or_default();
        out.extend(names::port_number(number).iter().map(|fault| Cause::invalid(port.path("port"), &number.into(), fault)));
        let protocol = port.text("protocol");
        match protocol {
            "" => port.required("protocol", "", out),
            _ => port.one_of("protocol", &PROTOCOLS, out),
        }
        if port.has("targetPort") {
            port_reference(&port, "targetPort", out);
        }
        port.may("appProtocol", names::qualified, out);
    }
}

/// Checks the ports of nodes, and that no two ports are the same.
fn double_ports(spec: &At<'_>, out: &mut Vec<Cause>) {
    let number = |port: &At<'_>, key: &str| port.number(key).unwrap_or_default();
    for port in spec.items("ports").filter(|it| spec.text("type") == "ClusterIP" && number(it, "nodePort") != 0) {
        port.forbidden("nodePort", "may not be used when `type` is 'ClusterIP'", out);
    }
    let (mut numbers, mut node_ports) = (HashSet::new(), HashSet::new());
    for port in spec.items("ports").filter(|it| number(it, "nodePort") != 0) {
        if !node_ports.insert((port.text("protocol"), number(&port, "nodePort"))) {
            port.duplicate("nodePort", out);
        }
    }
    for port in spec.items("ports") {
        let (protocol, number) = (port.text("protocol"), number(&port, "port"));
        if !numbers.insert((protocol, number)) {
            let shown = format!(
                "core.ServicePort{{Name:\"\", Protocol:{}, AppProtocol:(*string)(nil), Port:{number}, \
                 TargetPort:intstr.IntOrString{{Type:0, IntVal:0, StrVal:\"\"}}, NodePort:0}}",
                go::quote(protocol)
            );
            let cause = Cause::duplicate(port.path.as_str(), &Value::Null);
            out.push(Cause { message: format!("Duplicate value: {shown}"), ..cause });
        }
    }
}

fn affinity(spec: &At<'_>, out: &mut Vec<Cause>) {
    spec.one_of("sessionAffinity", &["ClientIP", NONE], out);
    let client = spec.at("sessionAffinityConfig").at("clientIP");
    match spec.text("sessionAffinity") {
        "ClientIP" if client.number("timeoutSeconds").is_some_and(|it| !(1..=86400).contains(&it)) => {
            client.invalid("timeoutSeconds", "must be greater than 0 and less than 86400", out);
        }
        NONE if spec.has("sessionAffinityConfig") => {
            spec.forbidden("sessionAffinityConfig", "must not be set when session affinity is None", out);
        }
        _ => {}
    }
}

/// An address once given is kept, unless the service changes its type.
pub(super) fn update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.get("status") != old.get("status") {
        balancer(&new.at("status").at("loadBalancer"), new.at("spec").text("type"), out);
    }
    let (new, old) = (new.at("spec"), old.at("spec"));
    let (before, after) = (old.text("clusterIP"), new.text("clusterIP"));
    let balanced = |it: &At<'_>| it.text("type") == "LoadBalancer";
    let port = |it: &At<'_>| it.number("healthCheckNodePort").filter(|_| balanced(it) && it.text("externalTrafficPolicy") == "Local");
    if port(&old).is_some_and(|it| port(&new).is_some_and(|new| new != it)) {
        new.forbidden("healthCheckNodePort", "field is immutable", out);
    }
    if balanced(&new) && balanced(&old) && new.get("loadBalancerClass") != old.get("loadBalancerClass") {
        new.invalid("loadBalancerClass", "may not change once set", out);
    }
    let without_address = |it: &At<'_>| it.text("type") == "ExternalName";
    if !before.is_empty() && !after.is_empty() && before != after && !without_address(&new) && !without_address(&old) {
        let shown = format!("[]string{{{}}}", go::quote(after));
        out.push(Cause::invalid_shown("spec.clusterIPs[0]", &shown, "may not change once set"));
    }
}

/// The load balancer status of a service of this type.
fn balancer(status: &At<'_>, kind: &str, out: &mut Vec<Cause>) {
    if kind != "LoadBalancer" && !status.list("ingress").is_empty() {
        return status.forbidden("ingress", "may only be used when `spec.type` is 'LoadBalancer'", out);
    }
    for ingress in status.items("ingress") {
        ingress.may("ip", names::ip, out);
        if ingress.text("ip").is_empty() && ingress.has("ipMode") {
            ingress.forbidden("ipMode", "may not be specified when `ip` is not set", out);
        } else {
            ingress.one_of("ipMode", &["Proxy", "VIP"], out);
        }
        ingress.may("hostname", names::subdomain, out);
        if address::read(ingress.text("hostname")).is_some() {
            ingress.invalid("hostname", "must be a DNS name, not an IP address", out);
        }
    }
}

pub(super) fn endpoints(endpoints: &At<'_>, out: &mut Vec<Cause>) {
    for subset in endpoints.items("subsets") {
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            out.push(Cause::required(subset.path.as_str(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for key in ["addresses", "notReadyAddresses"] {
            for address in subset.items(key) {
                let ip = address.text("ip");
                match address::read(ip) {
                    None => {
                        address.faults("ip", names::ip(ip), out);
                        address.invalid("ip", "must be a valid IP address", out);
                    }
                    Some(it) => address.faults("ip", special(it).map(str::to_owned).into_iter().collect(), out),
                }
                address.may("hostname", names::label, out);
                address.may("nodeName", names::subdomain, out);
            }
        }
        endpoint_ports(&subset, true, out);
    }
}

fn endpoint_ports(of: &At<'_>, number_required: bool, out: &mut Vec<Cause>) {
    let several = of.list("ports").len() > 1;
    let mut seen = HashSet::new();
    for port in of.items("ports") {
        let name = port.text("name");
        if name.is_empty() && several && number_required {
            port.required("name", "", out);
        }
        port.may_say("name", names::label, out);
        if !seen.insert(name) && !number_required {
            out.push(Cause::duplicate(port.path("name"), &name.into()));
        }
        if number_required {
            let number = port.number("port").unwrap_or_default();
            out.extend(names::port_number(number).iter().map(|fault| Cause::invalid(port.path("port"), &number.into(), fault)));
        }
        if !port.has("protocol") {
            port.required("protocol", "", out);
        }
        port.one_of("protocol", &PROTOCOLS, out);
        port.may("appProtocol", names::qualified, out);
    }
}

/// The most endpoints of a slice, and the most zones that one of them is meant for.
const ENDPOINTS: usize = 1000;
const ZONES: usize = 8;

pub(super) fn endpoint_slice(slice: &At<'_>, out: &mut Vec<Cause>) {
    match slice.text("addressType") {
        "" => slice.required("addressType", "", out),
        _ => slice.one_of("addressType", &["FQDN", "IPv4", "IPv6"], out),
    }
    if slice.list("ports").len() > 20000 {
        out.push(Cause::too_many("ports", slice.list("ports").len(), 20000));
    }
    endpoint_ports(slice, false, out);
    let count = slice.list("endpoints").len();
    if count > ENDPOINTS {
        return out.push(Cause::too_many("endpoints", count, ENDPOINTS));
    }
    for endpoint in slice.items("endpoints") {
        let addresses = endpoint.list("addresses");
        if addresses.is_empty() {
            endpoint.required("addresses", "must contain at least 1 address", out);
        } else if addresses.len() > 100 {
            out.push(Cause::too_many(endpoint.path("addresses"), addresses.len(), 100));
        }
        for (at, address) in addresses.iter().enumerate() {
            let text = address.as_str().unwrap_or_default();
            let path = || format!("{}[{at}]", endpoint.path("addresses"));
            let rule = match slice.text("addressType") {
                "IPv4" => names::ip,
                // Not older than the rules of today.
                "IPv6" => names::strict_ip,
                "FQDN" => names::subdomain,
                _ => continue,
            };
            let faults = rule(text);
            if let (true, Some(ip)) = (faults.is_empty(), address::read(text).filter(|_| slice.text("addressType") != "FQDN")) {
                if service_range::family(ip) != slice.text("addressType") {
                    let family = if ip.is_ipv4() { "IPv6" } else { "IPv4" };
                    out.push(Cause::invalid(endpoint.path("addresses"), address, &format!("must be an {family} address")));
                }
                out.extend(special(ip).map(|why| Cause::invalid(path(), address, why)));
            }
            out.extend(faults.iter().map(|fault| Cause::invalid(path(), address, fault)));
        }
        endpoint.may("nodeName", names::subdomain, out);
        endpoint.may("hostname", names::label, out);
        zones(&endpoint.at("hints"), out);
    }
}

/// Checks the zones that an endpoint is meant for.
fn zones(hints: &At<'_>, out: &mut Vec<Cause>) {
    let zones = hints.list("forZones");
    if zones.len() > ZONES {
        return out.push(Cause::too_many(hints.path("forZones"), zones.len(), ZONES));
    }
    for (at, zone) in hints.items("forZones").enumerate() {
        let name = zone.text("name");
        if zones[..at].iter().any(|it| it["name"] == name) {
            zone.duplicate("name", out);
        }
        zone.faults("name", names::label_value(name), out);
    }
}

pub(super) fn endpoint_slice_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.get("addressType") != old.get("addressType") {
        new.invalid("addressType", names::IMMUTABLE, out);
    }
}
