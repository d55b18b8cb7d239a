//! Which nodes a pod may run on: by name, labels, node affinity and taints.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// The node constraints of a pod, from its `spec`; resource requests are not part of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "PodSpec")]
pub struct Constraints {
    pub node_name: Option<Box<str>>,
    /// Labels the node must have, ascending.
    pub selector: Vec<(Box<str>, Box<str>)>,
    /// Required node affinity: one of the terms must hold.
    pub affinity: Option<Vec<Term>>,
    pub tolerations: Vec<Toleration>,
    /// Where the pod's volumes can be used: one term of each list must hold. The `spec` does not say this; the caller adds it from the
    /// volumes.
    pub volumes: Vec<Arc<[Term]>>,
}

/// The parts of a node that constraints are checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "Node")]
pub struct NodeFacts {
    pub name: Box<str>,
    /// Ascending by key.
    pub labels: Vec<(Box<str>, Box<str>)>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
}

/// Why a pod cannot be placed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mismatch {
    Name,
    Selector,
    Affinity,
    Volume,
    Unschedulable,
    Taint,
}

/// Requirements that hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Term {
    #[serde(default)]
    pub match_expressions: Vec<Expression>,
    /// On fields of the node; Kubernetes knows only `metadata.name`.
    #[serde(default)]
    pub match_fields: Vec<Expression>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Expression {
    pub key: Box<str>,
    pub operator: Operator,
    #[serde(default)]
    pub values: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Taint {
    pub key: Box<str>,
    #[serde(default)]
    pub value: Box<str>,
    pub effect: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct Toleration {
    #[serde(default)]
    pub key: Box<str>,
    /// `Equal` (the default) or `Exists`.
    #[serde(default)]
    pub operator: Box<str>,
    #[serde(default)]
    pub value: Box<str>,
    /// Empty: every effect.
    #[serde(default)]
    pub effect: Box<str>,
}

/// The required node affinity in a pod's `spec.affinity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    #[serde(default)]
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAffinity {
    #[serde(default, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<Required>,
}

#[derive(Clone, Debug, Deserialize)]
struct Required {
    #[serde(default, rename = "nodeSelectorTerms")]
    terms: Vec<Term>,
}

impl Affinity {
    /// One of these terms must hold; `None` if there is no required affinity.
    pub fn terms(self) -> Option<Vec<Term>> {
        Some(self.node_affinity?.required?.terms)
    }
}

/// The parts of a pod's `spec` that are about nodes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: Option<Box<str>>,
    #[serde(default)]
    node_selector: Option<BTreeMap<Box<str>, Box<str>>>,
    #[serde(default)]
    affinity: Option<Affinity>,
    #[serde(default)]
    tolerations: Option<Vec<Toleration>>,
}

impl From<PodSpec> for Constraints {
    fn from(spec: PodSpec) -> Self {
        Self {
            node_name: spec.node_name.filter(|it| !it.is_empty()),
            selector: spec.node_selector.unwrap_or_default().into_iter().collect(),
            affinity: spec.affinity.and_then(Affinity::terms),
            tolerations: spec.tolerations.unwrap_or_default(),
            volumes: Vec::new(),
        }
    }
}

/// The parts of a node that are about pods.
#[derive(Deserialize)]
struct Node {
    metadata: NodeMetadata,
    #[serde(default)]
    spec: NodeSpec,
}

#[derive(Deserialize)]
struct NodeMetadata {
    name: Box<str>,
    #[serde(default)]
    labels: Option<BTreeMap<Box<str>, Box<str>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    taints: Option<Vec<Taint>>,
    unschedulable: Option<bool>,
}

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        Self {
            name: node.metadata.name,
            labels: node.metadata.labels.unwrap_or_default().into_iter().collect(),
            taints: node.spec.taints.unwrap_or_default(),
            unschedulable: node.spec.unschedulable.unwrap_or_default(),
        }
    }
}

/// Taints that the node life cycle controller puts on a node whose kubelet is silent. An agent without an executor has no kubelet yet: a
/// launch brings one.
const NO_KUBELET: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

impl Constraints {
    /// Whether a pod may be placed on the node. `has_kubelet`: a km executor runs there.
    ///
    /// # Errors
    /// The first constraint that fails.
    pub fn admit(&self, node: &NodeFacts, has_kubelet: bool) -> Result<(), Mismatch> {
        self.suits(node)?;
        let cordon = Taint { key: UNSCHEDULABLE.into(), value: "".into(), effect: "NoSchedule".into() };
        if node.unschedulable && !self.tolerates(&cordon) {
            return Err(Mismatch::Unschedulable);
        }
        let mut taints = node.taints.iter().filter(|it| has_kubelet || !NO_KUBELET.contains(&&*it.key));
        let bars = |it: &Taint| matches!(&*it.effect, "NoSchedule" | "NoExecute") && !self.tolerates(it);
        if taints.any(bars) { Err(Mismatch::Taint) } else { Ok(()) }
    }

    /// Whether the node satisfies the pod's own requirements (name, labels, affinity, volumes), regardless of taints and cordons.
    ///
    /// # Errors
    /// The first requirement that fails.
    pub fn suits(&self, node: &NodeFacts) -> Result<(), Mismatch> {
        if self.node_name.as_ref().is_some_and(|it| *it != node.name) {
            return Err(Mismatch::Name);
        }
        if !self.selector.iter().all(|(key, value)| node.label(key) == Some(value)) {
            return Err(Mismatch::Selector);
        }
        if self.affinity.as_ref().is_some_and(|terms| !terms.iter().any(|term| term.holds(node))) {
            return Err(Mismatch::Affinity);
        }
        if !self.volumes.iter().all(|terms| terms.iter().any(|term| term.holds(node))) {
            return Err(Mismatch::Volume);
        }
        Ok(())
    }

    /// The only node that the pod can run on, if it names one: in `spec.nodeName`, or by an affinity of the kind that DaemonSet pods have.
    pub fn pinned(&self) -> Option<&str> {
        self.node_name.as_deref().or_else(|| match self.affinity.as_deref()? {
            [term] => term.node(),
            _ => None,
        })
    }

    /// The only value of a node label that the pod's volumes allow. Local volumes pin a node in this way.
    pub fn volume_label(&self, label: &str) -> Option<&str> {
        let terms = self.volumes.iter().filter_map(|it| if let [term] = &**it { Some(term) } else { None });
        terms.flat_map(|it| &it.match_expressions).filter(|it| &*it.key == label).find_map(Expression::sole_value)
    }

    /// Whether the pod tolerates all the node's taints with this effect.
    pub fn tolerates_all(&self, node: &NodeFacts, effect: &str) -> bool {
        node.taints.iter().filter(|it| *it.effect == *effect).all(|it| self.tolerates(it))
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|it| {
            (it.effect.is_empty() || it.effect == taint.effect)
                && (it.key == taint.key || it.key.is_empty() && &*it.operator == "Exists")
                && (&*it.operator == "Exists" || it.value == taint.value)
        })
    }
}

impl NodeFacts {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(it, _)| (**it).cmp(key)).ok().map(|at| &*self.labels[at].1)
    }
}

impl Term {
    /// The only node that the term allows.
    fn node(&self) -> Option<&str> {
        self.match_fields.iter().filter(|it| &*it.key == "metadata.name").find_map(Expression::sole_value)
    }

    /// Whether a node meets the term. A term without requirements matches nothing.
    pub fn holds(&self, node: &NodeFacts) -> bool {
        let asks = !self.match_expressions.is_empty() || !self.match_fields.is_empty();
        asks && self.match_expressions.iter().all(|it| it.holds(node.label(&it.key)))
            && self.match_fields.iter().all(|it| it.holds((&*it.key == "metadata.name").then_some(&*node.name)))
    }
}

impl Expression {
    /// The value, if only one is allowed.
    pub fn sole_value(&self) -> Option<&str> {
        match (self.operator, &self.values[..]) {
            (Operator::In, [value]) => Some(value),
            _ => None,
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let listed = |it: &str| self.values.iter().any(|candidate| **candidate == *it);
        let compare = || Some((value?.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => compare().is_some_and(|(value, bound)| value > bound),
            Operator::Lt => compare().is_some_and(|(value, bound)| value < bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn node() -> NodeFacts {
        let labels = vec![("gen".into(), "2015".into()), ("rack".into(), "7".into())];
        NodeFacts { name: "h1".into(), labels, ..NodeFacts::default() }
    }

    #[test]
    fn affinity_terms() {
        for (term, holds) in [
            (json!({"matchExpressions": [{"key": "rack", "operator": "In", "values": ["7", "8"]}]}), true),
            (json!({"matchExpressions": [{"key": "rack", "operator": "NotIn", "values": ["7"]}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["7"]}]}), true),
            (json!({"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["2014"]}]}), true),
            (json!({"matchExpressions": [{"key": "gen", "operator": "Lt", "values": ["2014"]}]}), false),
            (json!({"matchExpressions": [{"key": "gen", "operator": "Exists"}, {"key": "none", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["h1"]}]}), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["h2"]}]}), false),
            (json!({}), false),
        ] {
            let constraints = Constraints { affinity: Some(vec![from_value(term.clone()).unwrap()]), ..Constraints::default() };
            assert_eq!(constraints.admit(&node(), true).is_ok(), holds, "{term}");
        }
        let pinned = |affinity: serde_json::Value| {
            let constraints = Constraints { affinity: Some(from_value(affinity).unwrap()), ..Constraints::default() };
            constraints.pinned().map(str::to_owned)
        };
        let here = |values: &[&str]| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]});
        assert_eq!(pinned(json!([here(&["h1"])])).as_deref(), Some("h1"));
        assert_eq!(
            (pinned(json!([here(&["h1", "h2"])])), pinned(json!([here(&["h1"]), here(&["h2"])])), pinned(json!([]))),
            (None, None, None)
        );
        let none = Constraints { affinity: Some(Vec::new()), ..Constraints::default() };
        assert_eq!(none.admit(&node(), true), Err(Mismatch::Affinity));
    }

    #[test]
    fn taints_bar_and_tolerations_lift() {
        let taint = |key: &str, value: &str| Taint { key: key.into(), value: value.into(), effect: "NoSchedule".into() };
        let tainted = |taint| NodeFacts { taints: vec![taint], ..node() };
        let tolerating = |toleration| Constraints { tolerations: vec![from_value(toleration).unwrap()], ..Constraints::default() };
        for (toleration, ok) in [
            (json!({"key": "a", "value": "1"}), true),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "a", "value": "2"}), false),
            (json!({"key": "a", "value": "1", "effect": "NoExecute"}), false),
        ] {
            assert_eq!(tolerating(toleration.clone()).admit(&tainted(taint("a", "1")), true).is_ok(), ok, "{toleration}");
        }
        let cordoned = NodeFacts { unschedulable: true, ..node() };
        assert_eq!(Constraints::default().admit(&cordoned, true), Err(Mismatch::Unschedulable));
        assert_eq!(tolerating(json!({"operator": "Exists"})).admit(&cordoned, true), Ok(()));
        let silent = tainted(taint("node.kubernetes.io/unreachable", ""));
        assert_eq!(Constraints::default().admit(&silent, true), Err(Mismatch::Taint));
        assert_eq!(Constraints::default().admit(&silent, false), Ok(()));
    }

    #[test]
    fn names_and_selectors() {
        let named = Constraints { node_name: Some("h2".into()), ..Constraints::default() };
        assert_eq!(named.admit(&node(), true), Err(Mismatch::Name));
        let selecting = |value: &str| Constraints { selector: vec![("rack".into(), value.into())], ..Constraints::default() };
        assert_eq!(selecting("7").admit(&node(), true), Ok(()));
        assert_eq!(selecting("8").admit(&node(), true), Err(Mismatch::Selector));
    }
}
