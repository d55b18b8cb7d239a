//! Pod disruption budgets.

use super::at::At;
use super::{selector, workload};
use crate::object::status::Cause;

pub(super) fn budget(budget: &At<'_>, out: &mut Vec<Cause>) {
    let spec = budget.at("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        out.push(Cause::invalid("spec", spec.value, "minAvailable and maxUnavailable cannot be both set"));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        workload::count_or_percent(&spec, key, out);
        let above = spec.text(key).strip_suffix('%').and_then(|it| it.parse::<u64>().ok()).is_some_and(|it| it > 100);
        if above {
            spec.invalid_count(key, "must not be greater than 100%", out);
        }
    }
    selector::label_selector(&spec.at("selector"), out);
    spec.one_of("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], out);
}
