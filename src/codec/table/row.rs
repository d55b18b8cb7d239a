//! One row of a table, written as it is filled; and formats that cells of several resources share.

use std::fmt::Display;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use crate::object::Object;
use crate::object::selector::LabelSelector;
use crate::util::duration;

/// The text of an empty cell.
pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";
pub(super) const UNSET: &str = "<unset>";

/// A row being written: `{"cells":[…]`, the rest of the row's object being left to the table.
pub(super) struct Row<'a> {
    out: &'a mut Vec<u8>,
    /// When the row's object was created.
    created: Option<Timestamp>,
    now: Timestamp,
    started: bool,
    /// JSON of the row's `conditions`.
    conditions: Option<&'static str>,
}

impl<'a> Row<'a> {
    pub(super) fn start(out: &'a mut Vec<u8>, object: &Object, now: Timestamp) -> Self {
        out.extend_from_slice(br#"{"cells":["#);
        Self { out, created: object.meta().created.parse().ok(), now, started: false, conditions: None }
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.started, true) {
            self.out.push(b',');
        }
    }

    pub(super) fn text(&mut self, text: impl AsRef<str>) {
        self.separate();
        serde_json::to_writer(&mut *self.out, text.as_ref()).expect("a string can be written to a buffer");
    }

    /// The text, or `otherwise` if it is absent or empty.
    pub(super) fn text_or(&mut self, text: Option<&str>, otherwise: &str) {
        self.text(text.filter(|it| !it.is_empty()).unwrap_or(otherwise));
    }

    pub(super) fn integer(&mut self, number: impl Display) {
        self.separate();
        self.out.extend_from_slice(number.to_string().as_bytes());
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(super) fn age(&mut self, since: Option<Timestamp>) {
        let age = self.age_of(since);
        self.text(age);
    }

    /// How long ago the object was created.
    pub(super) fn created(&mut self) {
        self.age(self.created);
    }

    /// When the object was created.
    pub(super) fn moment(&mut self) {
        self.text(self.created.map_or_else(|| UNKNOWN.to_owned(), |it| it.to_string()));
    }

    pub(super) fn age_of(&self, since: Option<Timestamp>) -> String {
        since.map_or_else(|| UNKNOWN.to_owned(), |since| between(since, self.now))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Marks the row as one of an object that has run its course.
    pub(super) fn condition(&mut self, json: &'static str) {
        self.conditions = Some(json);
    }

    /// Fills the row of an object that does not fit its type.
    pub(super) fn unreadable(&mut self, name: &str, columns: usize) {
        self.text(name);
        for _ in 1..columns {
            self.text(UNKNOWN);
        }
    }

    pub(super) fn finish(self) {
        self.out.push(b']');
        if let Some(conditions) = self.conditions {
            self.out.extend_from_slice(br#","conditions":"#);
            self.out.extend_from_slice(conditions.as_bytes());
        }
    }

    /// Names and images of a pod template's containers, and its pods' selector.
    pub(super) fn template(&mut self, spec: Option<&PodSpec>, selector: Option<&v1::LabelSelector>) {
        self.containers(spec);
        self.selector(selector);
    }

    /// Names and images of the containers of a pod template.
    pub(super) fn containers(&mut self, spec: Option<&PodSpec>) {
        let containers = spec.map(|it| &*it.containers).unwrap_or_default();
        self.text(containers.iter().map(|it| &*it.name).collect::<Vec<_>>().join(","));
        self.text(containers.iter().map(|it| it.image.as_deref().unwrap_or_default()).collect::<Vec<_>>().join(","));
    }

    /// `a=b,c=d`.
    pub(super) fn labels<'l>(&mut self, labels: impl IntoIterator<Item = (&'l String, &'l String)>) {
        let pairs: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.text_or(Some(&pairs.join(",")), NONE);
    }

    /// `a=b,c in (d,e),f,!g`.
    pub(super) fn selector(&mut self, selector: Option<&v1::LabelSelector>) {
        let selector = selector.and_then(|it| LabelSelector::from_spec(it).ok());
        self.text_or(selector.map(|it| it.to_string()).as_deref(), NONE);
    }
}

/// Time from one moment to another, for people.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    duration::human(to.as_second() - from.as_second())
}

/// The first few of a list, and how many more there are.
pub(super) fn abridge(items: &[String], count: usize) -> String {
    const SHOWN: usize = 3;
    let shown = items[..items.len().min(SHOWN)].join(",");
    if count > SHOWN { format!("{shown} + {} more...", count - SHOWN) } else { shown }
}
