//! The defaults of each type, computed once: many types have none at or below them.

use std::sync::LazyLock;

use serde_json::Value;

use super::{Change, computed, off};
use crate::object::schema::{self, ByName, Field, Shape, Type};

/// The work on an object of a type.
pub(super) struct Plan {
    /// The defaults that depend on no other field.
    pub(super) plain: Vec<(&'static Field, Value)>,
    /// The values written for absent fields without a default.
    pub(super) zeroes: Vec<(&'static str, &'static Value)>,
    /// The defaults that depend on other fields.
    pub(super) computed: Option<Change>,
    /// The fields of disabled features.
    pub(super) off: Vec<&'static str>,
    /// Removes what is useless without those fields.
    pub(super) useless: Option<Change>,
    /// The lists and maps that are stored as null if they are empty.
    pub(super) nulls: Vec<&'static str>,
    /// The fields below which there is something to do, ordered by name.
    below: Vec<(&'static str, Below)>,
}

/// The plans for a value's content.
pub(super) enum Below {
    Object(&'static str),
    List(Box<Below>),
    Map(Box<Below>),
}

static PLANS: LazyLock<ByName<Plan>> = LazyLock::new(|| {
    let own = |kind: &'static Type| {
        let plain = kind.fields.iter().filter_map(|field| Some((field, serde_json::from_str(field.default?).unwrap_or_default())));
        let zeroes = kind.fields.iter().filter(|it| it.default.is_none()).filter_map(|field| Some((field, field.zero()?)));
        let zeroes: Vec<_> = zeroes.collect();
        let nulls = zeroes.iter().filter(|(field, _)| matches!(field.shape, Shape::List(_) | Shape::Map(_)));
        let plan = Plan {
            plain: plain.collect(),
            nulls: nulls.map(|(field, _)| field.name).collect(),
            zeroes: zeroes.iter().map(|(field, zero)| (field.name, *zero)).collect(),
            computed: computed::of(kind.name),
            off: kind.fields.iter().filter(|it| it.off).map(|it| it.name).collect(),
            useless: off::useless(kind.name),
            below: Vec::new(),
        };
        (kind.name, plan)
    };
    let mut plans: ByName<_> = schema::all().map(own).filter(|(_, plan)| plan.is_something()).collect();
    // A type that contains one with a plan needs a plan, too.
    loop {
        let holders = schema::all().filter(|kind| !plans.contains_key(kind.name));
        let more: Vec<_> = holders.filter(|kind| kind.fields.iter().any(|it| below(&it.shape, &plans).is_some())).map(own).collect();
        if more.is_empty() {
            break;
        }
        plans.extend(more);
    }
    let below_of = |name: &str| -> Vec<_> {
        let fields = schema::get(name).into_iter().flat_map(|it| &it.fields);
        fields.filter_map(|field| Some((field.name, below(&field.shape, &plans)?))).collect()
    };
    let all_below: Vec<_> = plans.keys().map(|name| (*name, below_of(name))).collect();
    for (name, below) in all_below {
        plans.entry(name).and_modify(|plan| plan.below = below);
    }
    plans
});

fn below(shape: &Shape, plans: &ByName<Plan>) -> Option<Below> {
    match shape {
        Shape::Object(name) => plans.contains_key(name).then_some(Below::Object(name)),
        Shape::List(inner) => below(inner, plans).map(|it| Below::List(Box::new(it))),
        Shape::Map(inner) => below(inner, plans).map(|it| Below::Map(Box::new(it))),
        _ => None,
    }
}

/// The plan of a type; `None` if there is no work.
pub(super) fn of(name: &str) -> Option<&'static Plan> {
    PLANS.get(name)
}

impl Plan {
    fn is_something(&self) -> bool {
        !self.plain.is_empty() || !self.zeroes.is_empty() || self.computed.is_some() || !self.off.is_empty() || self.useless.is_some()
    }

    pub(super) fn below(&self, field: &str) -> Option<&Below> {
        self.below.binary_search_by(|(name, _)| (*name).cmp(field)).ok().map(|at| &self.below[at].1)
    }
}
