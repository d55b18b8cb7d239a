//! A pod tolerates a lost or unready node for a while, unless it has its own tolerations for that.

use serde_json::{Value, json};

use super::Review;
use crate::util::json;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn admit(review: &Review<'_>, pod: &mut Value) {
    if !review.writes("pods") {
        return;
    }
    let tolerations = json::items(pod, "/spec/tolerations");
    let minds = |taint: &str| {
        let about = |it: &Value| ["", taint].contains(&json::text(it, "/key")) && ["", "NoExecute"].contains(&json::text(it, "/effect"));
        !tolerations.iter().any(about)
    };
    let added = TAINTS.into_iter().filter(|taint| minds(taint));
    let added = added.map(|taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
    let all: Vec<Value> = tolerations.iter().cloned().chain(added).collect();
    json::map(pod, "spec").insert("tolerations".to_owned(), all.into());
}

#[cfg(test)]
mod tests {
    use super::super::Operation;
    use super::*;
    use crate::object::ObjectKey;
    use crate::object::resource::POD;

    #[test]
    fn what_a_pod_says_itself_counts() {
        let key = ObjectKey::new(&POD, "default", "p");
        // Also for an update: its author need not repeat the added tolerations.
        let review = Review { operation: Operation::Update, key: &key, subresource: "", dry_run: false };
        for (own, count) in [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}]), 2),
            (json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}]), 3),
        ] {
            let mut pod = json!({"spec": {"tolerations": own}});
            admit(&review, &mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(count), "{pod}");
        }
    }
}
