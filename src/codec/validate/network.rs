//! Network policies, and the addresses of services as objects.

use std::net::IpAddr;

use serde_json::Value;

use super::at::At;
use super::{names, selector};
use crate::object::status::Cause;
use crate::util::cidr::{Cidr, Written};

pub(super) fn policy(policy: &At<'_>, out: &mut Vec<Cause>) {
    let spec = policy.at("spec");
    selector::label_selector(&spec.at("podSelector"), out);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.items(rules) {
            rule.items("ports").for_each(|it| port(&it, out));
            rule.items(peers).for_each(|it| peer(&it, out));
        }
    }
    let types = spec.list("policyTypes");
    if types.len() > 2 {
        return spec.invalid("policyTypes", "may not specify more than two policyTypes", out);
    }
    for (at, kind) in types.iter().enumerate().filter(|(_, it)| !matches!(it.as_str(), Some("Egress" | "Ingress"))) {
        let path = format!("{}[{at}]", spec.path("policyTypes"));
        out.push(Cause::not_supported(path, kind.as_str().unwrap_or_default(), &["Ingress", "Egress"]));
    }
}

fn port(port: &At<'_>, out: &mut Vec<Cause>) {
    port.one_of("protocol", &["TCP", "UDP", "SCTP"], out);
    let last = port.number("endPort");
    match port.get("port") {
        Value::Number(first) => {
            port.faults("port", names::port_number(first.as_i64().unwrap_or_default()), out);
            if let Some(last) = last {
                if Some(last) < first.as_i64() {
                    port.invalid("endPort", "must be greater than or equal to `port`", out);
                }
                port.faults("endPort", names::port_number(last), out);
            }
        }
        Value::String(name) => {
            if last.is_some() {
                port.invalid("endPort", "may not be specified when `port` is non-numeric", out);
            }
            port.faults("port", names::port_name(name), out);
        }
        _ if last.is_some() => port.invalid("endPort", "may not be specified when `port` is not specified", out),
        _ => {}
    }
}

fn peer(peer: &At<'_>, out: &mut Vec<Cause>) {
    let kinds = ["podSelector", "namespaceSelector", "ipBlock"].into_iter().filter(|it| peer.has(it)).count();
    for key in ["podSelector", "namespaceSelector"] {
        selector::label_selector(&peer.at(key), out);
    }
    let block = peer.at("ipBlock");
    if !block.is_absent() {
        self::block(&block, out);
    }
    if kinds == 0 {
        out.push(Cause::required(peer.path.as_str(), "must specify a peer"));
    } else if kinds > 1 && peer.has("ipBlock") {
        out.push(Cause::forbidden(peer.path.as_str(), "may not specify both ipBlock and another peer"));
    }
}

fn block(block: &At<'_>, out: &mut Vec<Cause>) {
    let whole = Written::read(block.text("cidr")).map(|it| it.range);
    match block.text("cidr") {
        "" => block.required("cidr", "", out),
        _ if whole.is_none() => block.invalid("cidr", names::NOT_CIDR, out),
        _ => {}
    }
    for (at, except) in block.list("except").iter().enumerate() {
        let mut refuse = |why: &str| out.push(Cause::invalid(format!("{}[{at}]", block.path("except")), except, why));
        match Written::read(except.as_str().unwrap_or_default()).map(|it| it.range) {
            _ if whole.is_none() => {}
            None => refuse(names::NOT_CIDR),
            Some(part) if whole.as_ref().is_some_and(|whole| !is_part(&part, whole)) => refuse("must be a strict subset of `cidr`"),
            Some(_) => {}
        }
    }
}

fn is_part(part: &Cidr, whole: &Cidr) -> bool {
    part.size() < whole.size() && part.nth(0).is_some_and(|first| whole.contains(first))
}

/// An address is named after itself.
pub(super) fn address(object: &At<'_>, out: &mut Vec<Cause>) {
    let metadata = object.at("metadata");
    metadata.faults("name", names::strict_ip(metadata.text("name")), out);
    let parent = object.at("spec").at("parentRef");
    if parent.is_absent() {
        return object.at("spec").required("parentRef", "", out);
    }
    parent.may("group", names::subdomain, out);
    for key in ["resource", "name"] {
        parent.must(key, names::path_segment, out);
    }
    parent.may("namespace", names::path_segment, out);
}

pub(super) fn address_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (new, old) = (new.at("spec").at("parentRef"), old.at("spec").at("parentRef"));
    let fields = ["group", "resource", "namespace", "name"];
    if fields.iter().any(|it| new.text(it) != old.text(it)) {
        let [group, resource, namespace, name] = fields.map(|it| new.text(it));
        let shown = format!("networking.ParentReference{{Group:{group:?}, Resource:{resource:?}, Namespace:{namespace:?}, Name:{name:?}}}");
        out.push(Cause::invalid_shown("spec.parentRef", &shown, names::IMMUTABLE));
    }
}

pub(super) fn range(object: &At<'_>, out: &mut Vec<Cause>) {
    let spec = object.at("spec");
    let ranges = spec.list("cidrs");
    match ranges.len() {
        0 => return spec.required("cidrs", "at least one CIDR required", out),
        1 | 2 => {}
        _ => {
            let shown = format!("networking.ServiceCIDRSpec{{CIDRs:{}}}", shown(ranges));
            return out.push(Cause::invalid_shown(spec.path("cidrs"), &shown, "may only hold up to 2 values"));
        }
    }
    for (at, range) in ranges.iter().enumerate() {
        if let Some(why) = not_a_range(range.as_str().unwrap_or_default()) {
            out.push(Cause::invalid(format!("{}[{at}]", spec.path("cidrs")), range, &why));
        }
    }
    if let [first, second] = ranges
        && first.as_str().is_some_and(|it| it.contains(':')) == second.as_str().is_some_and(|it| it.contains(':'))
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        out.push(Cause::invalid_shown(spec.path("cidrs"), &shown(ranges), why));
    }
}

/// A range is immutable; one of the other family may be added.
pub(super) fn range_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (new, old) = (new.at("spec"), old.at("spec"));
    let (path, ranges, before) = (new.path("cidrs"), new.list("cidrs"), old.list("cidrs"));
    if ranges.len() != before.len() && (before.len(), ranges.len()) != (1, 2) {
        return out.push(Cause::invalid_shown(path, &shown(ranges), names::IMMUTABLE));
    }
    for (at, (range, _)) in ranges.iter().zip(before).enumerate().filter(|(_, (range, before))| range != before) {
        out.push(Cause::invalid(format!("{path}[{at}]"), range, names::IMMUTABLE));
    }
}

/// A list of texts in Go's form.
fn shown(list: &[Value]) -> String {
    format!("[]string{{{}}}", list.iter().map(Value::to_string).collect::<Vec<_>>().join(", "))
}

/// The fault of a range that is not in canonical form.
fn not_a_range(text: &str) -> Option<String> {
    let Ok(range) = text.parse::<Cidr>() else {
        let zeros = Written::read(text).is_some();
        return Some(if zeros { "must not have leading 0s in IP or prefix length" } else { names::NOT_CIDR }.to_owned());
    };
    let address: Option<IpAddr> = text.split_once('/').and_then(|(address, _)| address.parse().ok());
    if matches!(address, Some(IpAddr::V6(it)) if it.to_ipv4_mapped().is_some()) {
        return Some("must not have an IPv4-mapped IPv6 address".to_owned());
    }
    if address != range.nth(0) {
        return Some("must not have bits set beyond the prefix length".to_owned());
    }
    (range.to_string() != text).then(|| format!("must be in canonical form (\"{range}\")"))
}
