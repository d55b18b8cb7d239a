//! Parses a stored object, leaving its managed fields as text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Managers;

pub(super) fn parse(body: &[u8]) -> serde_json::Result<(Value, Option<Managers>)> {
    let mut managers = None;
    let mut input = serde_json::Deserializer::from_slice(body);
    let value = Level { is_metadata: false, managers: &mut managers }.deserialize(&mut input)?;
    input.end()?;
    Ok((value, managers))
}

/// The object itself, or its metadata.
struct Level<'a> {
    is_metadata: bool,
    managers: &'a mut Option<Managers>,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if self.is_metadata && key == "managedFields" {
                *self.managers = Some(Managers::new(entries.next_value::<&RawValue>()?.get()));
                continue;
            }
            let value = if !self.is_metadata && key == "metadata" {
                entries.next_value_seed(Level { is_metadata: true, managers: &mut *self.managers })?
            } else {
                entries.next_value()?
            };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
