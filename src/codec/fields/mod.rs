//! Sets of paths into an object: the fields that a manager owns. A set is kept in the form used in objects (`FieldsV1` of
//! `metav1.ManagedFieldsEntry`), so that reading and writing cost nothing: an object with a key per path element, in which `{}` ends a
//! path, as does `"."` where longer paths continue.

pub(super) mod element;
mod touch;

use serde_json::{Map, Value};

pub(super) use touch::touches;

/// A set's content at and below one element: empty for none, otherwise as described above.
pub(super) type Node = Map<String, Value>;

const HERE: &str = ".";

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Set(Node);

impl Set {
    /// A set as this server wrote it.
    pub(super) fn trusted(fields: Node) -> Self {
        Self(fields)
    }

    /// Parses and canonicalizes a client's set. As in Kubernetes, elements of unknown kinds are dropped.
    ///
    /// # Errors
    /// Why it is not a set.
    pub(super) fn parse(fields: Node) -> Result<Self, String> {
        canonical(fields, true).map(|it| Self(it.unwrap_or_default()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content of the set, by first element.
    pub(super) fn nodes(&self) -> &Node {
        &self.0
    }

    pub(super) fn into_nodes(self) -> Node {
        self.0
    }

    /// The form for an object, with sorted keys.
    pub(super) fn into_value(self) -> Value {
        let mut value = Value::Object(self.0);
        value.sort_all_objects();
        value
    }

    pub(super) fn union(&mut self, other: &Self) {
        union_below(&mut self.0, &other.0);
    }

    /// Removes the paths of `other`.
    pub(super) fn subtract(&mut self, other: &Self) {
        subtract_below(&mut self.0, &other.0);
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(intersection_below(&self.0, &other.0))
    }

    /// Drops these elements, and all below them, at the end of a path.
    pub(super) fn drop_at(&mut self, path: &[&str], elements: &[&str]) {
        at(&mut self.0, path, &|node| {
            for element in elements {
                node.remove(*element);
            }
        });
    }

    /// Every path as the list of its elements, in Kubernetes' order: paths that end at a node precede longer ones.
    pub(super) fn paths(&self) -> Vec<Vec<&str>> {
        fn walk<'a>(node: &'a Node, path: &mut Vec<&'a str>, out: &mut Vec<Vec<&'a str>>) {
            let mut below: Vec<(&str, &Node)> = elements(node).map(|(element, child)| (element.as_str(), child)).collect();
            below.sort_unstable_by_key(|(element, _)| *element);
            out.extend(below.iter().filter(|(_, child)| is_end(child)).map(|(element, _)| [path.as_slice(), &[*element]].concat()));
            for (element, child) in below {
                path.push(element);
                walk(child, path, out);
                path.pop();
            }
        }
        let mut out = Vec::new();
        walk(&self.0, &mut Vec::new(), &mut out);
        out
    }
}

/// Whether a path ends at a node.
pub(super) fn is_end(node: &Node) -> bool {
    node.is_empty() || node.contains_key(HERE)
}

/// A node with this content below it; `None` if it is empty.
pub(super) fn node(mut below: Node, is_end: bool) -> Option<Node> {
    below.remove(HERE);
    if below.is_empty() {
        return is_end.then_some(below);
    }
    if is_end {
        below.insert(HERE.to_owned(), leaf());
    }
    Some(below)
}

/// Whether a node has paths that go on below it.
pub(super) fn goes_on(node: &Node) -> bool {
    elements(node).next().is_some()
}

/// The elements that paths go on with, and the node of each.
pub(super) fn elements(node: &Node) -> impl Iterator<Item = (&String, &Node)> {
    node.iter().filter(|(element, _)| *element != HERE).filter_map(|(element, below)| Some((element, below.as_object()?)))
}

pub(super) fn child<'a>(node: &'a Node, element: &str) -> Option<&'a Node> {
    node.get(element).and_then(Value::as_object)
}

/// Changes the node at a path, and drops it if it becomes empty.
fn at(node: &mut Node, path: &[&str], change: &dyn Fn(&mut Node)) {
    let Some((first, rest)) = path.split_first() else { return change(node) };
    if let Some(below) = node.get_mut(*first).and_then(Value::as_object_mut) {
        at(below, rest, change);
        if below.is_empty() {
            node.remove(*first);
        }
    }
}

fn leaf() -> Value {
    Value::Object(Map::new())
}

fn union_below(to: &mut Node, from: &Node) {
    for (element, added) in elements(from) {
        match to.get_mut(element).and_then(Value::as_object_mut) {
            None => {
                to.insert(element.clone(), Value::Object(added.clone()));
            }
            Some(known) => {
                let end = is_end(known) || is_end(added);
                union_below(known, added);
                if end && !known.is_empty() {
                    known.entry(HERE).or_insert_with(leaf);
                }
            }
        }
    }
}

fn subtract_below(from: &mut Node, other: &Node) {
    for (element, taken) in elements(other) {
        let Some(known) = from.get_mut(element).and_then(Value::as_object_mut) else { continue };
        let end = is_end(known) && !is_end(taken);
        let mut below = std::mem::take(known);
        subtract_below(&mut below, taken);
        match node(below, end) {
            Some(rest) => *known = rest,
            None => drop(from.remove(element)),
        }
    }
}

fn intersection_below(a: &Node, b: &Node) -> Node {
    let both = elements(a).filter_map(|(element, a)| {
        let b = child(b, element)?;
        let both = node(intersection_below(a, b), is_end(a) && is_end(b))?;
        Some((element.clone(), Value::Object(both)))
    });
    both.collect()
}

/// A node with canonical elements; `None` if it is empty.
fn canonical(fields: Node, is_root: bool) -> Result<Option<Node>, String> {
    let end = !is_root && is_end(&fields);
    let mut below = Node::new();
    for (element, child) in fields {
        if element == HERE {
            continue;
        }
        let Value::Object(child) = child else { return Err(format!("{element:?} holds {child}, not an object")) };
        if let Some(element) = element::canonical(element)?
            && let Some(child) = canonical(child, false)?
        {
            union_below(&mut below, &Node::from_iter([(element, Value::Object(child))]));
        }
    }
    Ok(node(below, end))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> Set {
        let Value::Object(fields) = value else { panic!("{value}") };
        Set::parse(fields).unwrap()
    }

    #[test]
    fn sets_are_canonical_once_parsed() {
        let odd = json!({
            "f:spec": {"f:ports": {"k:{ \"protocol\": \"TCP\", \"containerPort\":80}": {}, ".": {}}, "x:later": {}},
            "f:finalizers": {"v:\"a\"": {".": {}}, "f:nothing": {"x:y": {}}},
            ".": {},
        });
        let parsed = set(odd);
        let text = r#"{"f:finalizers":{"v:\"a\"":{}},"f:spec":{"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{}}}}"#;
        assert_eq!(parsed.into_value().to_string(), text);
        for (wrong, why) in [
            (json!({"f:a": []}), r#""f:a" holds [], not an object"#),
            (json!({"fields": {}}), r#"missing colon: "fields""#),
            (json!({"k:[1]": {}}), r#"unable to parse key "[1]" as a map"#),
            (json!({"v:{": {}}), r#"unable to parse value "{""#),
            (json!({"i:x": {}}), r#"unable to parse index "x""#),
        ] {
            let Value::Object(fields) = wrong else { unreachable!() };
            assert_eq!(Set::parse(fields).unwrap_err(), why);
        }
    }

    type Paths = BTreeSet<Vec<String>>;

    fn of(paths: &Paths) -> Set {
        let mut set = Set::default();
        for path in paths {
            let mut below = Value::Object(Node::new());
            for element in path.iter().rev() {
                below = Value::Object(Node::from_iter([(element.clone(), below)]));
            }
            let Value::Object(single) = below else { unreachable!() };
            set.union(&Set(single));
        }
        set
    }

    fn paths(set: &Set) -> Paths {
        set.paths().into_iter().map(|path| path.into_iter().map(str::to_owned).collect()).collect()
    }

    fn some() -> impl Strategy<Value = Paths> {
        prop::collection::btree_set(prop::collection::vec("f:[a-c]", 1..4), 0..8)
    }

    proptest! {
        /// A set behaves as a plain set of lists would.
        #[test]
        fn as_sets_do(a in some(), b in some()) {
            prop_assert_eq!(paths(&of(&a)), a.clone());
            let mut union = of(&a);
            union.union(&of(&b));
            prop_assert_eq!(&union, &of(&a.union(&b).cloned().collect()));
            let mut difference = of(&a);
            difference.subtract(&of(&b));
            prop_assert_eq!(&difference, &of(&a.difference(&b).cloned().collect()));
            let intersection = of(&a).intersection(&of(&b));
            prop_assert_eq!(&intersection, &of(&a.intersection(&b).cloned().collect()));
            let Value::Object(fields) = union.clone().into_value() else { unreachable!() };
            prop_assert_eq!(Set::parse(fields).unwrap(), union);
        }
    }
}
