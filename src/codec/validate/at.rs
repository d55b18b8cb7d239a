//! A value within an object, with its path, so that errors can name the field.
//!
//! Nothing here fails: absent values, and those of another type, read as empty. The decoder has already checked types.

use serde_json::Value;

use super::names::{Faults, IMMUTABLE, NOT_NEGATIVE};
use crate::object::status::Cause;
use crate::util::go;

static NULL: Value = Value::Null;

/// A value, and its path such as `spec.containers[0]`.
#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    pub value: &'a Value,
    pub path: String,
    /// Whether paths are tracked; otherwise all are empty.
    placed: bool,
}

impl<'a> At<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, path: String::new(), placed: true }
    }

    /// As [`At::root`], but without paths, which is far cheaper: only whether there are errors matters.
    pub(super) fn unplaced(value: &'a Value) -> Self {
        Self { value, path: String::new(), placed: false }
    }

    /// The path of a field.
    pub(super) fn path(&self, key: &str) -> String {
        match (self.placed, self.path.is_empty()) {
            (false, _) => String::new(),
            (true, true) => key.to_owned(),
            (true, false) => format!("{}.{key}", self.path),
        }
    }

    /// The path of an entry of a map.
    pub(super) fn entry_path(&self, key: &str) -> String {
        if self.placed { format!("{}[{key}]", self.path) } else { String::new() }
    }

    pub(super) fn at(&self, key: &str) -> Self {
        Self { value: self.get(key), path: self.path(key), placed: self.placed }
    }

    /// The value of a field; null if absent.
    pub(super) fn get(&self, key: &str) -> &'a Value {
        self.value.get(key).unwrap_or(&NULL)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        !self.get(key).is_null()
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// The value itself as a text.
    pub(super) fn as_text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub(super) fn text(&self, key: &str) -> &'a str {
        self.get(key).as_str().unwrap_or_default()
    }

    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.get(key).as_i64()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key) == &Value::Bool(true)
    }

    /// The items of a list field.
    pub(super) fn list(&self, key: &str) -> &'a [Value] {
        self.get(key).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The items of a list field, each with its path.
    pub(super) fn items(&self, key: &str) -> impl Iterator<Item = Self> + use<'a> {
        let (path, placed) = (self.path(key), self.placed);
        let place = move |at| if placed { format!("{path}[{at}]") } else { String::new() };
        self.list(key).iter().enumerate().map(move |(at, value)| Self { value, path: place(at), placed })
    }

    /// The entries of a map field, sorted by key.
    pub(super) fn entries(&self, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.get(key).as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    /// The fields of the value itself, sorted by name.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    /// The entries of a map of strings, sorted by key.
    pub(super) fn strings(&self, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.entries(key).map(|(key, value)| (key, value.as_str().unwrap_or_default()))
    }

    /// How many entries a map field has.
    pub(super) fn count(&self, key: &str) -> usize {
        self.get(key).as_object().map_or(0, serde_json::Map::len)
    }

    pub(super) fn required(&self, key: &str, detail: &str, out: &mut Vec<Cause>) {
        out.push(Cause::required(self.path(key), detail));
    }

    pub(super) fn forbidden(&self, key: &str, detail: &str, out: &mut Vec<Cause>) {
        out.push(Cause::forbidden(self.path(key), detail));
    }

    pub(super) fn invalid(&self, key: &str, detail: &str, out: &mut Vec<Cause>) {
        out.push(Cause::invalid(self.path(key), self.get(key), detail));
    }

    /// This place with another value.
    pub(super) fn holding(self, value: &'a Value) -> Self {
        Self { value, ..self }
    }

    /// As [`At::invalid`], for a field with a number or a percentage.
    pub(super) fn invalid_count(&self, key: &str, detail: &str, out: &mut Vec<Cause>) {
        out.push(Cause::invalid_shown(self.path(key), &go::int_or_string(self.get(key)), detail));
    }

    /// As [`At::invalid`], for a list of strings.
    pub(super) fn invalid_texts(&self, key: &str, detail: &str, out: &mut Vec<Cause>) {
        out.push(Cause::invalid_shown(self.path(key), &go::string_list(self.list(key)), detail));
    }

    pub(super) fn duplicate(&self, key: &str, out: &mut Vec<Cause>) {
        out.push(Cause::duplicate(self.path(key), self.get(key)));
    }

    /// Reports each of `faults` of a field.
    pub(super) fn faults(&self, key: &str, faults: Faults, out: &mut Vec<Cause>) {
        for fault in faults {
            self.invalid(key, &fault, out);
        }
    }

    /// Checks a required string.
    pub(super) fn must(&self, key: &str, check: fn(&str) -> Faults, out: &mut Vec<Cause>) {
        match self.text(key) {
            "" => self.required(key, "", out),
            text => self.faults(key, check(text), out),
        }
    }

    /// Checks an optional string. The decoder has removed empty strings where they count as absent.
    pub(super) fn may(&self, key: &str, check: fn(&str) -> Faults, out: &mut Vec<Cause>) {
        if let Some(text) = self.get(key).as_str() {
            self.faults(key, check(text), out);
        }
    }

    /// As [`At::may`], but accepts an empty string.
    pub(super) fn may_say(&self, key: &str, check: fn(&str) -> Faults, out: &mut Vec<Cause>) {
        if !self.text(key).is_empty() {
            self.may(key, check, out);
        }
    }

    /// Checks an optional field with a fixed set of values; an empty string counts as present.
    pub(super) fn one_of(&self, key: &str, supported: &[&str], out: &mut Vec<Cause>) {
        match self.get(key).as_str() {
            None => {}
            Some(text) if supported.contains(&text) => {}
            Some(text) => out.push(Cause::not_supported(self.path(key), text, supported)),
        }
    }

    /// Checks that fields are unchanged.
    pub(super) fn unchanged(&self, old: &At<'_>, keys: &[&str], out: &mut Vec<Cause>) {
        for key in keys {
            if self.get(key) != old.get(key) {
                self.invalid(key, IMMUTABLE, out);
            }
        }
    }

    pub(super) fn not_negative(&self, keys: &[&str], out: &mut Vec<Cause>) {
        for key in keys {
            if self.number(key).is_some_and(|it| it < 0) {
                self.invalid(key, NOT_NEGATIVE, out);
            }
        }
    }
}
