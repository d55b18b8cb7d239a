//! Whether two sets have a path in common, of which one is still text. It is read without being kept.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{HERE, Node, Set, child, is_end};

/// Whether the set in `text` shares a path with `set`. Invalid text shares none.
pub(in crate::codec) fn touches(text: &str, set: &Set) -> bool {
    let mut input = serde_json::Deserializer::from_str(text);
    !set.is_empty() && Below { node: &set.0, is_root: true }.deserialize(&mut input).unwrap_or_default()
}

struct Below<'a> {
    node: &'a Node,
    is_root: bool,
}

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<bool, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let (mut shared, mut goes_on, mut ends) = (false, false, false);
        while let Some(Key(element)) = map.next_key()? {
            if element == HERE {
                ends = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            goes_on = true;
            match child(self.node, &element) {
                Some(node) if !shared => shared = map.next_value_seed(Below { node, is_root: false })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(shared || !self.is_root && (ends || !goes_on) && is_end(self.node))
    }
}

/// A key, copied only if it has escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
