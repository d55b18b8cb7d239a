//! The scheduler's view of nodes: created from offers, read back from the API server.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::executorinfo;
use crate::mesos::v1::{Attribute, Resource, value};
use crate::object::Object;
use crate::object::constraints::NodeFacts;
use crate::util::product::Product;

pub(super) const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// A node, with the annotations of its executor.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub facts: NodeFacts,
    /// The id of the executor that last ran there.
    pub executor_id: Option<Box<str>>,
    /// The resources of that executor.
    pub executor_resources: Option<Vec<Resource>>,
    /// Created from an offer, and not yet seen in the API server.
    pub provisional: bool,
}

/// The nodes by host name.
#[derive(Debug, Default)]
pub struct Nodes(HashMap<Arc<str>, Node>);

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
}

#[derive(Deserialize)]
struct WireMeta<'a> {
    #[serde(borrow, default)]
    annotations: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Node {
    /// Reads a node.
    ///
    /// # Errors
    /// If the object does not have the structure of a node.
    pub fn read(node: &Object, product: &Product) -> Result<Self, serde_json::Error> {
        let wire: Wire<'_> = serde_json::from_slice(node.body())?;
        let notes = wire.metadata.annotations.unwrap_or_default();
        let note = |name: &str| notes.get(product.annotation(name).as_str()).map(|it| &**it);
        Ok(Self {
            facts: serde_json::from_slice(node.body())?,
            executor_id: note("executorId").map(Into::into),
            executor_resources: note("executorResources").and_then(executorinfo::decode_resources),
            provisional: false,
        })
    }
}

impl Nodes {
    pub fn get(&self, host: &str) -> Option<&Node> {
        self.0.get(host)
    }

    /// Updates a node; returns whether a property changed that placement depends on.
    pub fn put(&mut self, node: Node) -> bool {
        let changed = self.get(&node.facts.name).is_none_or(|old| old.facts != node.facts);
        self.0.insert(Arc::from(&*node.facts.name), node);
        changed
    }

    pub fn remove(&mut self, host: &str) {
        self.0.remove(host);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.values()
    }

    /// The attribute labels to write to an agent's node; `None` if it already has them. Until the write comes back, a provisional node
    /// stands for it.
    pub fn register(&mut self, host: &str, attributes: &[Attribute], product: &Product) -> Option<BTreeMap<String, String>> {
        let wanted = attribute_labels(attributes, product);
        let prefix = product.annotation(ATTRIBUTE);
        let is_attribute = |label: &&(Box<str>, Box<str>)| label.0.starts_with(&prefix);
        let known = self.0.get(host);
        if let Some(node) = known
            && node
                .facts
                .labels
                .iter()
                .filter(is_attribute)
                .map(|(key, value)| (&**key, &**value))
                .eq(wanted.iter().map(|(key, value)| (&**key, &**value)))
        {
            return None;
        }
        let mut node = known.cloned().unwrap_or_else(|| Node {
            facts: NodeFacts { name: host.into(), labels: vec![(HOSTNAME_LABEL.into(), host.into())], ..NodeFacts::default() },
            ..Node::default()
        });
        node.facts.labels.retain(|label| !is_attribute(&label));
        node.facts.labels.extend(wanted.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())));
        node.facts.labels.sort_unstable();
        node.provisional = true;
        self.0.insert(host.into(), node);
        Some(wanted)
    }
}

const ATTRIBUTE: &str = "attribute-";

/// The labels for an agent's attributes. Ranges and sets become empty values; attributes that cannot be labels are left out.
pub fn attribute_labels(attributes: &[Attribute], product: &Product) -> BTreeMap<String, String> {
    let label = |attribute: &Attribute| {
        let name = format!("{ATTRIBUTE}{}", attribute.name);
        let value = match attribute.r#type() {
            value::Type::Text => attribute.text.as_ref().map(|it| it.value.clone()).unwrap_or_default(),
            value::Type::Scalar => attribute.scalar.as_ref().map(|it| shortest(it.value)).unwrap_or_default(),
            value::Type::Ranges | value::Type::Set => String::new(),
        };
        (is_label_part(&name) && (value.is_empty() || is_label_part(&value))).then(|| (product.annotation(&name), value))
    };
    attributes.iter().filter_map(label).collect()
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at either end.
fn is_label_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].iter().all(|it| it.is_some_and(u8::is_ascii_alphanumeric));
    bytes.len() <= 63 && ends && bytes.iter().all(|it| inner(*it))
}

/// A number as C's `%G` prints it, with as many digits as needed: exponents below -4 and from 6 on use scientific notation.
fn shortest(value: f64) -> String {
    let scientific = format!("{value:E}");
    let Some((digits, exponent)) = scientific.split_once('E').and_then(|(digits, it)| Some((digits, it.parse::<i32>().ok()?))) else {
        return scientific;
    };
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}E{sign}{:02}", exponent.abs())
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource;
    use crate::util::product::KUBERNETES;

    fn text(name: &str, value: &str) -> Attribute {
        let text = Some(value::Text { value: value.to_owned() });
        Attribute { name: name.to_owned(), r#type: value::Type::Text.into(), text, ..Attribute::default() }
    }

    fn scalar(name: &str, value: f64) -> Attribute {
        let scalar = Some(value::Scalar { value });
        Attribute { name: name.to_owned(), r#type: value::Type::Scalar.into(), scalar, ..Attribute::default() }
    }

    #[test]
    fn attributes_become_labels() {
        let set = Attribute { name: "zones".to_owned(), r#type: value::Type::Set.into(), ..Attribute::default() };
        let attributes = [
            text("rack", "7"),
            scalar("gen", 42.0),
            scalar("half", 0.5),
            scalar("big", 1e6),
            text("bad value", "x"),
            text("bad", "a b"),
            set,
            text("empty", ""),
        ];
        let labels = attribute_labels(&attributes, KUBERNETES);
        let listed: Vec<_> = labels.iter().map(|(key, value)| format!("{}={value}", key.rsplit('-').next().unwrap())).collect();
        assert_eq!(listed, ["empty=", "gen=42", "half=0.5", "rack=7", "zones="]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, printed) in
            [(42.0, "42"), (0.0, "0"), (0.5, "0.5"), (1e6, "1E+06"), (1e-5, "1E-05"), (123_456.0, "123456"), (-2.5, "-2.5")]
        {
            assert_eq!(shortest(value), printed);
        }
    }

    #[test]
    fn a_node_is_registered_once() {
        let mut nodes = Nodes::default();
        let attributes = [text("rack", "7")];
        assert_eq!(nodes.register("h", &attributes, KUBERNETES).unwrap().len(), 1);
        assert_eq!(nodes.register("h", &attributes, KUBERNETES), None);
        assert_eq!(nodes.get("h").unwrap().facts.label("k8s.mesosphere.io/attribute-rack"), Some("7"));
        let stored = json!({"metadata": {"name": "h", "labels": {"a": "b", "k8s.mesosphere.io/attribute-rack": "8"},
            "annotations": {"k8s.mesosphere.io/executorId": "e", "k8s.mesosphere.io/executorResources": "CgRjcHVzEAAaCQmamZmZmZm5PzIBKg=="}},
            "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let object = Object::from_stored(&resource::NODE, stored.to_string().as_bytes(), 1).unwrap();
        let node = Node::read(&object, KUBERNETES).unwrap();
        assert_eq!((node.executor_id.as_deref(), node.executor_resources.as_ref().unwrap().len()), (Some("e"), 1));
        assert!(node.facts.unschedulable && &*node.facts.taints[0].key == "k");
        assert!(nodes.put(node.clone()) && !nodes.put(node));
        assert_eq!(nodes.register("h", &attributes, KUBERNETES).unwrap().len(), 1);
        let facts = &nodes.get("h").unwrap().facts;
        assert_eq!((facts.label("a"), facts.label("k8s.mesosphere.io/attribute-rack")), (Some("b"), Some("7")));
    }
}
