//! Selectors on labels: the value, its matching, its canonical text.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use serde::Deserialize;

use super::parse;
use crate::object::{Object, Status};
use crate::util::names;

/// A conjunction of requirements on labels. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

/// One term of a [`LabelSelector`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted; empty for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    /// Also matches objects without the label.
    NotIn,
    Exists,
    DoesNotExist,
    /// The label's value is an integer; likewise for `LessThan`.
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Parses the query parameter `labelSelector`.
    ///
    /// # Errors
    /// 400, with Kubernetes' message.
    pub fn parse(text: &str) -> Result<Self, Box<Status>> {
        parse::labels(text).map_err(|why| Box::new(Status::bad_request(why)))
    }

    /// The selector of a spec. In most specs an absent selector matches nothing; the caller handles that case.
    ///
    /// # Errors
    /// Why the selector is invalid.
    pub fn from_spec(spec: &v1::LabelSelector) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for (key, value) in spec.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::In, vec![value.clone()])?);
        }
        for expression in spec.match_expressions.iter().flatten() {
            let operator = match &*expression.operator {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            requirements.push(Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default())?);
        }
        Ok(Self::of(requirements))
    }

    /// The selector of a service or replication controller: all of these labels, each with its value.
    pub fn from_pairs(pairs: &BTreeMap<String, String>) -> Self {
        let requirement =
            |(key, value): (&String, &String)| Requirement { key: key.clone(), operator: Operator::In, values: vec![value.clone()] };
        Self { requirements: pairs.iter().map(requirement).collect() }
    }

    /// The object's own `spec.selector`; `None` if it is absent or selects nothing.
    pub fn in_spec(object: &Object) -> Option<Self> {
        let Wire { spec } = serde_json::from_slice(object.body()).ok()?;
        match spec?.selector? {
            // Empty pairs select nothing in these kinds, whereas an empty `LabelSelector` selects everything.
            Form::Pairs(pairs) if pairs.is_empty() && matches!(object.resource().kind, "Service" | "ReplicationController") => None,
            Form::Pairs(pairs) => Some(Self::from_pairs(&pairs)),
            Form::Structured(spec) => Self::from_spec(&spec).ok(),
        }
    }

    /// Sorts the requirements into canonical order.
    pub(super) fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements }
    }

    /// Whether the selector matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.matches_labels(|key| object.meta().label(key))
    }

    /// Whether a set of labels that are not an object's own, such as a pod template's, matches. `label` returns the value of a key.
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

#[derive(Deserialize)]
struct Wire {
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Spec {
    selector: Option<Form>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Pairs(BTreeMap<String, String>),
    Structured(v1::LabelSelector),
}

impl Requirement {
    /// Checks that key and values are valid for labels.
    ///
    /// # Errors
    /// Why the requirement is invalid, with Kubernetes' message.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        let mut wrong = Vec::new();
        let why = names::qualified_name(key);
        if !why.is_empty() {
            wrong.push(format!("key: Invalid value: {key:?}: {}", why.join("; ")));
        }
        values.sort();
        values.dedup();
        let shape = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => "values set must be empty for exists and does not exist",
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => "for 'Gt', 'Lt' operators, exactly one value is required",
            _ => "",
        };
        if !shape.is_empty() {
            let listed = values.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(",");
            wrong.push(format!("values: Invalid value: [{listed}]: {shape}"));
        }
        for (at, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                wrong.push(format!("values[{at}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"));
            }
            let why = names::label_value(value);
            if !why.is_empty() {
                wrong.push(format!("values[{at}][{key}]: Invalid value: {value:?}: {}", why.join("; ")));
            }
        }
        match wrong.len() {
            0 => Ok(Self { key: key.to_owned(), operator, values }),
            1 => Err(wrong.concat()),
            _ => Err(format!("[{}]", wrong.join(", "))),
        }
    }

    /// Whether a label value, or its absence, meets the requirement.
    pub fn matches(&self, label: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|it| it == value);
        let compared = |value: &str| match (value.parse::<i64>(), self.values.first().and_then(|it| it.parse::<i64>().ok())) {
            (Ok(value), Some(bound)) => Some(value.cmp(&bound)),
            _ => None,
        };
        match self.operator {
            Operator::In => label.is_some_and(listed),
            Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => label.and_then(compared).is_some_and(std::cmp::Ordering::is_gt),
            Operator::LessThan => label.and_then(compared).is_some_and(std::cmp::Ordering::is_lt),
        }
    }

    /// The value, if only one is allowed.
    pub fn sole_value(&self) -> Option<&str> {
        match (self.operator, &*self.values) {
            (Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

/// The text that parses to this selector.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(f, "{key}={values}"),
            (Operator::In, _) => write!(f, "{key} in ({values})"),
            (Operator::NotIn, 1) => write!(f, "{key}!={values}"),
            (Operator::NotIn, _) => write!(f, "{key} notin ({values})"),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, _) => write!(f, "{key}>{values}"),
            (Operator::LessThan, _) => write!(f, "{key}<{values}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn spec(json: serde_json::Value) -> v1::LabelSelector {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn specs() {
        let selector = LabelSelector::from_spec(&spec(json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["y", "x"]}, {"key": "c", "operator": "Exists"}],
        })));
        assert_eq!(selector.unwrap().to_string(), "a notin (x,y),b=1,c");
        for (bad, why) in [
            (json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]}), r#""Gt" is not a valid label selector operator"#),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
                r#"values: Invalid value: ["b"]: values set must be empty for exists and does not exist"#,
            ),
        ] {
            assert_eq!(LabelSelector::from_spec(&spec(bad)), Err(why.to_owned()));
        }
        assert!(LabelSelector::from_spec(&spec(json!({}))).unwrap().is_empty());
    }

    #[test]
    fn selectors_of_objects() {
        use crate::object::resource::{POD_DISRUPTION_BUDGET, SERVICE};
        for (resource, spec, expected) in [
            (&SERVICE, json!({"selector": {"b": "1", "a": "2"}}), Some("a=2,b=1")),
            (&SERVICE, json!({"selector": {}}), None),
            (&SERVICE, json!({"ports": []}), None),
            (&POD_DISRUPTION_BUDGET, json!({"selector": {}}), Some("")),
            (&POD_DISRUPTION_BUDGET, json!({"selector": {"matchLabels": {"a": "b"}}}), Some("a=b")),
            (&POD_DISRUPTION_BUDGET, json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}), Some("a")),
            (&POD_DISRUPTION_BUDGET, json!({}), None),
        ] {
            let object = Object::from_stored(resource, json!({"metadata": {"name": "x"}, "spec": spec}).to_string().as_bytes(), 1).unwrap();
            assert_eq!(LabelSelector::in_spec(&object).map(|it| it.to_string()).as_deref(), expected, "{spec}");
        }
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![Just("a"), Just("b"), Just("in"), Just("notin"), Just("5"), Just("-3"), Just("x.y/z")].prop_map(str::to_owned)
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        use Operator::{DoesNotExist, Exists, GreaterThan, In, LessThan, NotIn};
        let operator = prop_oneof![Just(In), Just(NotIn), Just(Exists), Just(DoesNotExist), Just(GreaterThan), Just(LessThan)];
        let value = prop_oneof![Just(""), Just("a"), Just("in"), Just("5"), Just("7"), Just("1_x.y-z")].prop_map(str::to_owned);
        (word(), operator, prop::collection::vec(value, 0..3))
            .prop_filter_map("not a requirement", |(key, operator, values)| Requirement::new(&key, operator, values).ok())
    }

    /// A second, naive implementation of matching.
    fn naive(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
        selector.requirements.iter().all(|it| {
            let value = labels.get(&it.key);
            let number = |text: &String| text.parse::<i64>().ok();
            match it.operator {
                Operator::In => labels.iter().any(|(key, value)| *key == it.key && it.values.contains(value)),
                Operator::NotIn => value.is_none_or(|value| it.values.iter().all(|other| other != value)),
                Operator::Exists => labels.contains_key(&it.key),
                Operator::DoesNotExist => !labels.contains_key(&it.key),
                Operator::GreaterThan => value.and_then(number).is_some_and(|value| value > number(&it.values[0]).unwrap()),
                Operator::LessThan => value.and_then(number).is_some_and(|value| value < number(&it.values[0]).unwrap()),
            }
        })
    }

    proptest! {
        #[test]
        fn text_is_inverse_and_matching_is_what_it_says(
            requirements in prop::collection::vec(requirement(), 0..4),
            labels in prop::collection::btree_map(word(), prop_oneof![Just(""), Just("a"), Just("5"), Just("6"), Just("7")].prop_map(str::to_owned), 0..4),
        ) {
            let selector = LabelSelector::of(requirements);
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector.clone());
            prop_assert_eq!(selector.matches_labels(|key| labels.get(key).map(String::as_str)), naive(&selector, &labels));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-c!=<>(), in/\\pL]{0,24}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
