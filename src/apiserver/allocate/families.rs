//! The address families of a service, in a cluster that allocates addresses of one family.

use serde_json::{Map, Value};

use crate::object::status::Cause;
use crate::object::{service, service_range};
use crate::util::{address, go, json};

const POLICY: &str = "spec.ipFamilyPolicy";

/// Completes a service's families and family policy. `family` is the cluster's.
///
/// # Errors
/// Why the request cannot be met.
pub(super) fn settle(service: &mut Value, old: Option<&Value>, family: &str) -> Result<(), Vec<Cause>> {
    if service::kind(service) == "ExternalName" {
        return Ok(());
    }
    let selects = json::at(service, "/spec/selector").and_then(Value::as_object).is_some_and(|it| !it.is_empty());
    // Whatever answers for a service without address and selector may have both families.
    let free = json::text(service, "/spec/clusterIP") == "None" && !selects;
    let mut wish = Wish::of(service, if free { "RequireDualStack" } else { "SingleStack" });
    let single = wish.policy == "SingleStack";
    wish.fits_addresses()?;
    let mut causes = Vec::new();
    if let Some(old) = old {
        wish.reduce(&Wish::of(old, ""), single, &mut causes);
    }
    if single && wish.addresses.len() > 1 {
        causes.push(wish.policy_must("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"));
    }
    if single && wish.families.len() > 1 {
        causes.push(wish.policy_must("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"));
    }
    wish.infer(family, &mut causes);
    if free {
        if wish.families.is_empty() {
            wish.families.push(family.to_owned());
        }
        if let ([one], false) = (&*wish.families, single) {
            wish.families.push(if one == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
    } else if causes.is_empty() {
        if wish.policy == "RequireDualStack" {
            causes.push(wish.policy_must("this cluster is not configured for dual-stack services"));
        }
        for (at, asked) in wish.families.iter().enumerate().filter(|(_, it)| *it != family) {
            causes.push(Cause::invalid(format!("spec.ipFamilies[{at}]"), &asked.as_str().into(), "not configured on this cluster"));
        }
        if wish.families.is_empty() {
            wish.families.push(family.to_owned());
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    wish.write(json::map(service, "spec"));
    Ok(())
}

/// The families that a service requests.
struct Wish {
    policy: String,
    families: Vec<String>,
    addresses: Vec<String>,
}

impl Wish {
    fn of(service: &Value, usual_policy: &str) -> Self {
        let texts = |path| json::items(service, path).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let policy = json::text(service, "/spec/ipFamilyPolicy");
        Self {
            policy: if policy.is_empty() { usual_policy } else { policy }.to_owned(),
            families: texts("/spec/ipFamilies"),
            addresses: texts("/spec/clusterIPs"),
        }
    }

    fn policy_must(&self, why: &str) -> Cause {
        Cause::invalid(POLICY, &self.policy.as_str().into(), why)
    }

    fn addresses_must(&self, field: String, why: &str) -> Cause {
        let list: Vec<Value> = self.addresses.iter().map(|it| it.as_str().into()).collect();
        Cause::invalid_shown(field, &go::string_list(&list), why)
    }

    /// Each address belongs to the family at its position, and there is at most one per family.
    fn fits_addresses(&self) -> Result<(), Vec<Cause>> {
        if self.addresses.len() > 1 && self.addresses.iter().any(|it| it == "None") {
            return Err(vec![self.addresses_must("spec.clusterIPs".to_owned(), "'None' must be the first and only value")]);
        }
        let families: Vec<Option<&str>> = self.addresses.iter().map(|it| family_of(it)).collect();
        let mut causes = Vec::new();
        for (at, (is, asked)) in families.iter().zip(&self.families).enumerate() {
            if is.is_some_and(|it| it != asked) {
                let why = format!("expected an {asked} value as indicated by `ipFamilies[{at}]`");
                causes.push(Cause::invalid(format!("spec.clusterIPs[{at}]"), &self.addresses[at].as_str().into(), &why));
            }
        }
        if causes.is_empty() && families.len() == 2 && families[0] == families[1] {
            causes.push(self.addresses_must("spec.clusterIPs".to_owned(), "may specify no more than one IP for each IP family"));
        }
        if causes.is_empty() { Ok(()) } else { Err(causes) }
    }

    /// A client that changes the policy to a single family need not remove the second one; without such a change, it stays.
    fn reduce(&mut self, old: &Self, single: bool, causes: &mut Vec<Cause>) {
        let given_up = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
        if single {
            if self.addresses == old.addresses {
                self.addresses.truncate(1);
            }
            if self.families == old.families {
                self.families.truncate(1);
            }
            return;
        }
        if given_up(&self.addresses, &old.addresses) {
            causes.push(self.policy_must("must be 'SingleStack' to release the secondary cluster IP"));
        }
        if given_up(&self.families, &old.families) {
            causes.push(self.policy_must("must be 'SingleStack' to release the secondary IP family"));
        }
    }

    /// Missing families are inferred from the addresses.
    fn infer(&mut self, family: &str, causes: &mut Vec<Cause>) {
        for at in self.families.len()..self.addresses.len() {
            let Some(is) = family_of(&self.addresses[at]) else { return };
            if is == family {
                self.families.push(is.to_owned());
            } else {
                causes.push(self.addresses_must(format!("spec.clusterIPs[{at}]"), &format!("{is} is not configured on this cluster")));
            }
        }
    }

    fn write(self, spec: &mut Map<String, Value>) {
        spec.insert("ipFamilies".to_owned(), self.families.into());
        spec.insert("ipFamilyPolicy".to_owned(), self.policy.into());
    }
}

fn family_of(address: &str) -> Option<&'static str> {
    address::read(address).map(service_range::family)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settled(spec: Value, old: Option<Value>) -> Result<(Value, Value), Vec<String>> {
        let mut service = json!({ "spec": spec });
        let old = old.map(|it| json!({ "spec": it }));
        settle(&mut service, old.as_ref(), "IPv4")
            .map(|()| (service["spec"]["ipFamilies"].clone(), service["spec"]["ipFamilyPolicy"].clone()))
            .map_err(|causes| causes.into_iter().map(|it| format!("{}: {}", it.field, it.message)).collect())
    }

    #[test]
    fn families_of_new_services() {
        for (spec, families, policy) in [
            (json!({}), json!(["IPv4"]), "SingleStack"),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), json!(["IPv4"]), "PreferDualStack"),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!(["IPv4", "IPv6"]), "RequireDualStack"),
            (json!({"clusterIP": "None", "ipFamilies": ["IPv6"]}), json!(["IPv6", "IPv4"]), "RequireDualStack"),
            (json!({"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack"}), json!(["IPv4", "IPv6"]), "PreferDualStack"),
            (json!({"clusterIP": "None", "ipFamilyPolicy": "SingleStack"}), json!(["IPv4"]), "SingleStack"),
            (json!({"clusterIP": "None", "selector": {"a": "b"}}), json!(["IPv4"]), "SingleStack"),
        ] {
            assert_eq!(settled(spec.clone(), None), Ok((families, policy.into())), "{spec}");
        }
        let several = |what: &str| {
            format!(
                "{POLICY}: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' \
                 when multiple {what} are specified"
            )
        };
        let dual = || format!("{POLICY}: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services");
        let foreign = |at: usize| format!("spec.ipFamilies[{at}]: Invalid value: \"IPv6\": not configured on this cluster");
        for (spec, causes) in [
            (json!({"ipFamilies": ["IPv6"]}), vec![foreign(0)]),
            (json!({"ipFamilies": ["IPv6"], "clusterIP": "None", "selector": {"a": "b"}}), vec![foreign(0)]),
            (json!({"ipFamilies": ["IPv4", "IPv6"]}), vec![several("IP families")]),
            (json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}), vec![foreign(1)]),
            (json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack"}), vec![dual(), foreign(0)]),
            (
                json!({"clusterIPs": ["10.0.0.1", "fd00::1"]}),
                vec![
                    several("cluster IPs"),
                    "spec.clusterIPs[1]: Invalid value: []string{\"10.0.0.1\", \"fd00::1\"}: IPv6 is not configured on this cluster".to_owned(),
                ],
            ),
            (
                json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
                vec!["spec.clusterIPs: Invalid value: []string{\"10.0.0.1\", \"10.0.0.2\"}: may specify no more than one IP for each IP family".to_owned()],
            ),
            (
                json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
                vec!["spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`".to_owned()],
            ),
        ] {
            assert_eq!(settled(spec.clone(), None), Err(causes), "{spec}");
        }
    }

    #[test]
    fn families_are_given_up_only_with_their_policy() {
        let both =
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
        let change = |key: &str, value: Value| {
            let mut spec = both.clone();
            spec[key] = value;
            settled(spec, Some(both.clone()))
        };
        assert_eq!(change("ipFamilyPolicy", "SingleStack".into()), Ok((json!(["IPv4"]), "SingleStack".into())));
        let refused = change("ipFamilies", json!(["IPv4"])).unwrap_err();
        assert_eq!(
            refused,
            [format!("{POLICY}: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary IP family")]
        );
        assert_eq!(change("selector", json!({"a": "b"})).unwrap_err().len(), 2);
    }
}
