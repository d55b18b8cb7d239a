//! Warnings for addresses and ranges in legacy notation.

use std::net::IpAddr;

use super::super::at::At;
use crate::util::address;
use crate::util::cidr::Written;

/// An address at a place in an object.
fn ip(path: &str, text: &str, out: &mut Vec<String>) {
    let Some(address) = address::read(text) else { return };
    if !address::is_standard(text) {
        out.push(format!(
            "{path}: non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use \"{address}\""
        ));
    } else if address.is_ipv6() && address.to_string() != text {
        out.push(format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{address}\")"));
    }
}

/// A range at a place in an object.
fn range(path: &str, text: &str, out: &mut Vec<String>) {
    let Some(Written { range, address, is_standard }) = Written::read(text) else { return };
    let before = out.len();
    if range.nth(0) != Some(address) {
        let bits = if text.contains(':') { 128 } else { 32 };
        out.push(format!("{path}: CIDR value {text:?} is ambiguous in this context (should be \"{range}\" or \"{address}/{bits}\"?)"));
    }
    if !is_standard {
        out.push(format!(
            "{path}: non-standard CIDR value {text:?} will be considered invalid in a future Kubernetes release: use \"{range}\""
        ));
    }
    if out.len() == before && matches!(address, IpAddr::V6(_)) && range.to_string() != text {
        out.push(format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{range}\")"));
    }
}

/// Checks each string of a list.
fn each(of: &At<'_>, key: &str, check: fn(&str, &str, &mut Vec<String>), out: &mut Vec<String>) {
    of.items(key).for_each(|it| check(&it.path, it.as_text(), out));
}

/// Host aliases and name servers.
pub(super) fn pod(spec: &At<'_>, out: &mut Vec<String>) {
    each(&spec.at("dnsConfig"), "nameservers", ip, out);
    spec.items("hostAliases").for_each(|it| ip(&it.path("ip"), it.text("ip"), out));
}

pub(super) fn service(spec: &At<'_>, out: &mut Vec<String>) {
    if !matches!(spec.text("clusterIP"), "" | "None") {
        each(spec, "clusterIPs", ip, out);
    }
    each(spec, "externalIPs", ip, out);
    ip(&spec.path("loadBalancerIP"), spec.text("loadBalancerIP"), out);
    each(spec, "loadBalancerSourceRanges", range, out);
}

pub(super) fn node(spec: &At<'_>, out: &mut Vec<String>) {
    each(spec, "podCIDRs", range, out);
}

pub(super) fn network_policy(spec: &At<'_>, out: &mut Vec<String>) {
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for peer in spec.items(rules).flat_map(|it| it.items(peers)) {
            let block = peer.at("ipBlock");
            range(&block.path("cidr"), block.text("cidr"), out);
            each(&block, "except", range, out);
        }
    }
}

/// Endpoints made by controllers are not checked.
pub(super) fn endpoints(object: &At<'_>, out: &mut Vec<String>) {
    if object.at("metadata").at("labels").text("endpoints.kubernetes.io/managed-by") == "endpoint-controller" {
        return;
    }
    for subset in object.items("subsets") {
        for address in ["addresses", "notReadyAddresses"].into_iter().flat_map(|key| subset.items(key)) {
            ip(&address.path("ip"), address.text("ip"), out);
        }
    }
}

/// As [`endpoints`]. Slices of host names have no addresses.
pub(super) fn slice(object: &At<'_>, out: &mut Vec<String>) {
    let maker = object.at("metadata").at("labels").text("endpointslice.kubernetes.io/managed-by");
    if object.text("addressType") == "FQDN" || maker.starts_with("endpointslice") && maker.ends_with("controller.k8s.io") {
        return;
    }
    object.items("endpoints").for_each(|it| each(&it, "addresses", ip, out));
}
