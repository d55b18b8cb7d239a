//! Sums of resources: of an agent, an offer, a task.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::mesos::v1::resource::{AllocationInfo, ReservationInfo, reservation_info};
use crate::mesos::v1::value::{Range, Ranges, Scalar, Set, Type};
use crate::mesos::v1::{Attribute, Resource, Value};

/// The role of unreserved resources.
pub const UNRESERVED: &str = "*";

/// Amounts by role and name. Scalars are kept in thousandths, as Mesos rounds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<(String, String), Amount>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Amount {
    Scalar(i64),
    /// Disjoint, not adjacent, in order; both ends belong to a range.
    Ranges(Vec<(u64, u64)>),
    Set(BTreeSet<String>),
}

impl Resources {
    /// Reads resources as agents are given them: `cpus:4;mem(role):1024;ports:[1-2,4-5];disks:{a,b}`.
    ///
    /// # Errors
    /// With the part that cannot be understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut sum = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once(':').ok_or_else(|| part.to_owned())?;
            let (name, role) = match name.trim().split_once('(') {
                Some((name, role)) => (name, role.trim_end_matches(')')),
                None => (name.trim(), UNRESERVED),
            };
            let amount = Amount::of_value(&parse_value(value)).ok_or_else(|| part.to_owned())?;
            sum.put((role.to_owned(), name.to_owned()), amount, Amount::plus);
        }
        Ok(sum)
    }

    /// The sum of a message's resources.
    ///
    /// # Errors
    /// Why one of them is invalid.
    pub fn of(resources: &[Resource]) -> Result<Self, String> {
        let mut sum = Self::default();
        for resource in resources {
            let value = Value {
                r#type: resource.r#type,
                scalar: resource.scalar,
                ranges: resource.ranges.clone(),
                set: resource.set.clone(),
                text: None,
            };
            let amount = Amount::of_value(&value).ok_or_else(|| format!("Resource '{}' has no valid value", resource.name))?;
            if resource.disk.is_some() || resource.provider_id.is_some() || resource.revocable.is_some() || resource.shared.is_some() {
                return Err(format!("Resource '{}' is of a kind that this cluster does not have", resource.name));
            }
            let role = resource.reservations.last().and_then(|reservation| reservation.role.as_deref()).unwrap_or(resource.role());
            sum.put((role.to_owned(), resource.name.clone()), amount, Amount::plus);
        }
        Ok(sum)
    }

    /// As messages. `refined` selects the format for frameworks with the capability RESERVATION_REFINEMENT; `allocated` is the role of the
    /// allocation, for frameworks with MULTI_ROLE.
    pub fn to_messages(&self, refined: bool, allocated: Option<&str>) -> Vec<Resource> {
        let message = |((role, name), amount): (&(String, String), &Amount)| {
            let mut resource = amount.to_message();
            resource.name = name.clone();
            resource.allocation_info = allocated.map(|role| AllocationInfo { role: Some(role.to_owned()) });
            if !refined {
                resource.role = Some(role.clone());
            } else if role != UNRESERVED {
                let r#type = Some(reservation_info::Type::Static.into());
                resource.reservations = vec![ReservationInfo { r#type, role: Some(role.clone()), ..ReservationInfo::default() }];
            }
            resource
        };
        self.0.iter().map(message).collect()
    }

    /// Only the resources with this role.
    pub fn for_role(&self, role: &str) -> Self {
        Self(self.0.iter().filter(|((reserved, _), _)| reserved == role).map(|(key, amount)| (key.clone(), amount.clone())).collect())
    }

    /// Whether this contains all of `other`.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(key, wanted)| self.0.get(key).is_some_and(|amount| amount.contains(wanted)))
    }

    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(key, amount)| self.put(key.clone(), amount.clone(), Amount::plus));
    }

    /// Subtracts the part of `other` that is contained here.
    pub fn subtract(&mut self, other: &Self) {
        other
            .0
            .iter()
            .filter(|(key, _)| self.0.contains_key(*key))
            .map(|(key, amount)| (key.clone(), amount.clone()))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|(key, amount)| self.put(key, amount, Amount::minus));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Enough to be worth an offer: a hundredth of a CPU, or 32 MB.
    pub fn is_allocatable(&self) -> bool {
        self.scalar("cpus") >= 0.01 || self.scalar("mem") >= 32.0
    }

    /// A scalar over all roles.
    pub fn scalar(&self, name: &str) -> f64 {
        let of = |((_, found), amount): (&(String, String), &Amount)| match amount {
            Amount::Scalar(thousandths) if found == name => *thousandths,
            _ => 0,
        };
        self.0.iter().map(of).sum::<i64>() as f64 / 1000.0
    }

    /// Totals over all roles as `/state` shows them; the usual four are always there.
    pub fn to_json(&self) -> serde_json::Value {
        let mut all = serde_json::Map::new();
        for name in ["cpus", "mem", "disk", "gpus"] {
            all.insert(name.into(), self.scalar(name).into());
        }
        for ((_, name), amount) in &self.0 {
            match amount {
                Amount::Scalar(_) => all.insert(name.clone(), self.scalar(name).into()),
                other => all.insert(name.clone(), other.to_string().into()),
            };
        }
        all.into()
    }

    fn put(&mut self, key: (String, String), amount: Amount, combine: fn(Amount, &Amount) -> Amount) {
        let combined = match self.0.remove(&key) {
            Some(before) => combine(before, &amount),
            None => amount,
        };
        if !combined.is_nothing() {
            self.0.insert(key, combined);
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((role, name), amount)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            let role = if role == UNRESERVED { String::new() } else { format!("({role})") };
            write!(to, "{separator}{name}{role}:{amount}")?;
        }
        Ok(())
    }
}

impl Amount {
    fn of_value(value: &Value) -> Option<Self> {
        match value.r#type() {
            Type::Scalar => {
                let scalar = value.scalar?.value;
                (scalar.is_finite() && (0.0..1e15).contains(&scalar)).then(|| Self::Scalar((scalar * 1000.0).round() as i64))
            }
            Type::Ranges => {
                let ranges = value.ranges.as_ref()?.range.iter().map(|range| (range.begin, range.end)).collect::<Vec<_>>();
                ranges.iter().all(|(begin, end)| begin <= end && *end < u64::MAX).then(|| Self::Ranges(union(ranges)))
            }
            Type::Set => Some(Self::Set(value.set.as_ref()?.item.iter().cloned().collect())),
            Type::Text => None,
        }
    }

    fn to_message(&self) -> Resource {
        match self {
            Self::Scalar(thousandths) => Resource {
                r#type: Type::Scalar.into(),
                scalar: Some(Scalar { value: *thousandths as f64 / 1000.0 }),
                ..Resource::default()
            },
            Self::Ranges(ranges) => {
                let range = ranges.iter().map(|&(begin, end)| Range { begin, end }).collect();
                Resource { r#type: Type::Ranges.into(), ranges: Some(Ranges { range }), ..Resource::default() }
            }
            Self::Set(items) => {
                Resource { r#type: Type::Set.into(), set: Some(Set { item: items.iter().cloned().collect() }), ..Resource::default() }
            }
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Self::Scalar(thousandths) => *thousandths <= 0,
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Set(items) => items.is_empty(),
        }
    }

    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(here), Self::Scalar(wanted)) => here >= wanted,
            (Self::Ranges(here), Self::Ranges(wanted)) => {
                wanted.iter().all(|(begin, end)| here.iter().any(|(from, to)| from <= begin && end <= to))
            }
            (Self::Set(here), Self::Set(wanted)) => wanted.is_subset(here),
            _ => false,
        }
    }

    fn plus(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Scalar(here), Self::Scalar(more)) => Self::Scalar(here + more),
            (Self::Ranges(mut here), Self::Ranges(more)) => {
                here.extend(more);
                Self::Ranges(union(here))
            }
            (Self::Set(here), Self::Set(more)) => Self::Set(&here | more),
            (here, _) => here,
        }
    }

    fn minus(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Scalar(here), Self::Scalar(less)) => Self::Scalar(here - less),
            (Self::Ranges(here), Self::Ranges(less)) => Self::Ranges(less.iter().fold(here, |here, &cut| without(&here, cut))),
            (Self::Set(here), Self::Set(less)) => Self::Set(&here - less),
            (here, _) => here,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(thousandths) => write!(to, "{}", *thousandths as f64 / 1000.0),
            Self::Ranges(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(|(begin, end)| format!("{begin}-{end}")).collect();
                write!(to, "[{}]", ranges.join(", "))
            }
            Self::Set(items) => write!(to, "{{{}}}", items.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

fn union(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (begin, end) in ranges {
        match merged.last_mut() {
            Some(last) if begin <= last.1 + 1 => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    merged
}

fn without(ranges: &[(u64, u64)], (from, to): (u64, u64)) -> Vec<(u64, u64)> {
    let pieces = |&(begin, end): &(u64, u64)| {
        if to < begin || end < from {
            return [Some((begin, end)), None];
        }
        [(begin < from).then(|| (begin, from - 1)), (to < end).then(|| (to + 1, end))]
    };
    ranges.iter().flat_map(pieces).flatten().collect()
}

/// Reads a value as agents are given it: a number, `[1-2,4-5]`, `{a,b}`, else a text.
pub fn parse_value(text: &str) -> Value {
    let text = text.trim();
    let within = |open: char, close: char| text.strip_prefix(open)?.strip_suffix(close);
    let range = |part: &str| {
        let (begin, end) = part.split_once('-').unwrap_or((part, part));
        Some(Range { begin: begin.trim().parse().ok()?, end: end.trim().parse().ok()? })
    };
    if let Ok(value) = text.parse() {
        return Value { r#type: Type::Scalar.into(), scalar: Some(Scalar { value }), ..Value::default() };
    }
    if let Some(range) = within('[', ']').and_then(|list| list.split(',').map(range).collect::<Option<Vec<_>>>()) {
        return Value { r#type: Type::Ranges.into(), ranges: Some(Ranges { range }), ..Value::default() };
    }
    if let Some(list) = within('{', '}') {
        let item = list.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect();
        return Value { r#type: Type::Set.into(), set: Some(Set { item }), ..Value::default() };
    }
    Value { r#type: Type::Text.into(), text: Some(crate::mesos::v1::value::Text { value: text.to_owned() }), ..Value::default() }
}

/// Reads attributes as agents are given them: `rack:7;zone:a`.
///
/// # Errors
/// With the part that cannot be understood.
pub fn parse_attributes(text: &str) -> Result<Vec<Attribute>, String> {
    let attribute = |part: &str| {
        let (name, value) = part.split_once(':').ok_or_else(|| part.to_owned())?;
        let Value { r#type, scalar, ranges, set, text } = parse_value(value);
        Ok(Attribute { name: name.trim().to_owned(), r#type, scalar, ranges, set, text })
    };
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Resources {
        Resources::parse(text).unwrap()
    }

    #[test]
    fn what_is_taken_comes_back() {
        let whole = parse("cpus:4;mem:4096;ports:[31000-31009];cpus(public):2");
        for part in ["cpus:0.1", "ports:[31003-31004, 31009-31009]", "cpus:4;mem:4096;ports:[31000-31009];cpus(public):2"] {
            let (part, mut rest) = (parse(part), whole.clone());
            assert!(whole.contains(&part), "{part}");
            rest.subtract(&part);
            assert!(rest.is_empty() || !rest.contains(&part) || part.scalar("cpus") == 0.1, "{rest}");
            rest.add(&part);
            assert_eq!(rest, whole);
        }
        for part in ["cpus:4.001", "ports:[31009-31010]", "cpus(other):1", "gpus:1"] {
            assert!(!whole.contains(&parse(part)), "{part}");
        }
    }

    #[test]
    fn messages_and_texts_say_the_same() {
        let resources = parse("cpus:4;ports:[1-3,7-9];disks:{a,b};mem(r):5");
        for refined in [true, false] {
            assert_eq!(Resources::of(&resources.to_messages(refined, Some("r"))), Ok(resources.clone()));
        }
        assert_eq!(resources.to_string(), "cpus:4; disks:{a, b}; ports:[1-3, 7-9]; mem(r):5");
        assert_eq!(resources.for_role("r").to_string(), "mem(r):5");
        for text in ["cpus", "cpus:-1", "cpus:x", "ports:[3-1]"] {
            assert!(Resources::parse(text).is_err(), "{text}");
        }
        assert!(!parse("cpus:0.009;mem:31").is_allocatable());
    }

    #[test]
    fn attributes_have_types() {
        let attributes = parse_attributes("rack:7;zone:a-b;ports:[1-2]").unwrap();
        let types: Vec<_> = attributes.iter().map(Attribute::r#type).collect();
        assert_eq!(types, [Type::Scalar, Type::Text, Type::Ranges]);
    }

    proptest! {
        #[test]
        fn ranges_add_and_subtract_like_sets_of_numbers(a in prop::collection::vec((0u64..30, 0u64..5), 0..6), b in prop::collection::vec((0u64..30, 0u64..5), 0..6)) {
            let numbers = |ranges: &[(u64, u64)]| ranges.iter().flat_map(|&(begin, end)| begin..=end).collect::<BTreeSet<_>>();
            let ranges = |list: &[(u64, u64)]| list.iter().map(|&(begin, length)| (begin, begin + length)).collect::<Vec<_>>();
            let (a, b) = (ranges(&a), ranges(&b));
            let (left, right) = (Amount::Ranges(union(a.clone())), Amount::Ranges(union(b.clone())));
            let Amount::Ranges(sum) = left.clone().plus(&right) else { unreachable!() };
            let Amount::Ranges(difference) = left.minus(&right) else { unreachable!() };
            prop_assert_eq!(numbers(&sum), &numbers(&a) | &numbers(&b));
            prop_assert_eq!(numbers(&difference), &numbers(&a) - &numbers(&b));
        }
    }
}
