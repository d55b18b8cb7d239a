//! Selectors on fields.

use std::fmt;

use crate::object::{Object, ResourceRef, Status};

/// A conjunction of equalities on selectable fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    pub path: String,
    pub value: String,
    /// `=` or `!=`.
    pub equal: bool,
}

impl FieldSelector {
    /// Parses the query parameter `fieldSelector` of a request about `resource`.
    ///
    /// # Errors
    /// 400 for a text that is not a selector, or names a field that is not selectable in this resource.
    pub fn parse(resource: ResourceRef, text: &str) -> Result<Self, Box<Status>> {
        let selector = terms(text).and_then(|terms| {
            terms.iter().try_for_each(|term| selectable(resource, &term.path))?;
            Ok(Self { terms })
        });
        selector.map_err(|why| Box::new(Status::bad_request(why)))
    }

    /// The same selector, with the paths of the stored version.
    #[must_use]
    pub fn stored(mut self, resource: ResourceRef) -> Self {
        for term in &mut self.terms {
            if let Some(field) = resource.selectable.iter().find(|field| field.path == term.path) {
                field.stored.clone_into(&mut term.path);
            }
        }
        self
    }

    /// The selector `path=value`.
    pub fn equal(path: &str, value: &str) -> Self {
        Self { terms: vec![FieldTerm { path: path.to_owned(), value: value.to_owned(), equal: true }] }
    }

    /// Whether the selector matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.terms.iter().all(|term| (object.field(&term.path).unwrap_or_default() == term.value) == term.equal)
    }

    /// The value that the selector requires of the field `path`, if any.
    pub fn value_of(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.path == path).map(|term| &*term.value)
    }
}

fn selectable(resource: ResourceRef, path: &str) -> Result<(), String> {
    if ["metadata.name", "metadata.namespace"].contains(&path) || resource.selectable.iter().any(|field| field.path == path) {
        Ok(())
    } else if resource.selectable.is_empty() {
        Err(format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""))
    } else {
        Err(format!("field label not supported: {path}"))
    }
}

fn terms(text: &str) -> Result<Vec<FieldTerm>, String> {
    let mut parts = parts(text);
    parts.sort_unstable();
    let mut terms = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let starts = |at: &usize| part[*at..].starts_with('=') || part[*at..].starts_with("!=");
        let Some(at) = part.char_indices().map(|(at, _)| at).find(starts) else {
            return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
        };
        let rest = &part[at..];
        let (equal, value) = match rest.strip_prefix("!=") {
            Some(value) => (false, value),
            None => (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or(rest)),
        };
        terms.push(FieldTerm { path: part[..at].to_owned(), value: unescape(value)?, equal });
    }
    Ok(terms)
}

/// Splits at commas that are not escaped by a backslash.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The text that parses to this selector.
impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}{}", term.path, if term.equal { "=" } else { "!=" })?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::resource;

    #[test]
    fn texts_and_what_they_mean() {
        for (text, canonical) in [
            ("", ""),
            (",", ""),
            ("metadata.name=a", "metadata.name=a"),
            ("spec.nodeName==n,metadata.name!=a", "metadata.name!=a,spec.nodeName=n"),
            (r"metadata.name=a\,b\=c\\d", r"metadata.name=a\,b\=c\\d"),
            ("spec.nodeName=", "spec.nodeName="),
            ("metadata.name=a!b", "metadata.name=a!b"),
        ] {
            assert_eq!(FieldSelector::parse(&resource::POD, text).map(|it| it.to_string()), Ok(canonical.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn wrong_texts() {
        for (resource, text, why) in [
            (&resource::POD, "abc", "invalid selector: 'abc'; can't understand 'abc'"),
            (&resource::POD, "metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
            (&resource::POD, r"metadata.name=a\b", r"invalid field selector: invalid escape sequence: \b"),
            (&resource::POD, r"metadata.name=a\", r"invalid field selector: invalid escape sequence: \"),
            (&resource::POD, "spec.foo=a", "field label not supported: spec.foo"),
            (&resource::CONFIG_MAP, "data.a=1", r#""data.a" is not a known field selector: only "metadata.name", "metadata.namespace""#),
        ] {
            let status = FieldSelector::parse(resource, text).unwrap_err();
            assert_eq!((&*status.message, status.code, &*status.reason), (why, 400, "BadRequest"), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_is_inverse(value in ".{0,12}", equal: bool) {
            let selector = FieldSelector { terms: vec![FieldTerm { path: "status.phase".to_owned(), value, equal }] };
            prop_assert_eq!(FieldSelector::parse(&resource::POD, &selector.to_string()), Ok(selector));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in r"[a!=,\\.]{0,12}") {
            let _ = FieldSelector::parse(&resource::POD, &text);
        }

        #[test]
        fn matching_is_what_it_says(phase in "[ab]?", wanted in "[ab]?", equal: bool) {
            let json = serde_json::json!({"metadata": {"name": "x"}, "status": {"phase": phase}}).to_string();
            let object = Object::from_stored(&resource::POD, json.as_bytes(), 1).unwrap();
            let selector = FieldSelector { terms: vec![FieldTerm { path: "status.phase".to_owned(), value: wanted.clone(), equal }] };
            prop_assert_eq!(selector.matches(&object), (phase == wanted) == equal);
        }
    }
}
