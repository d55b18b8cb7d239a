//! Authentication and authorization. Every request passes here; in the only supported mode (`AlwaysAllow` on a plain port) all requests are
//! allowed, also with impersonation.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::error::Answer;
use super::path::Target;
use super::verb::Verb;
use crate::object::Status;
use crate::util::url::unescape;

const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// The client behind a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The user's fields in the form of objects, without empty ones.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let Self { name, uid, groups, extra } = self;
        let fields = [("username", json!(name)), ("uid", json!(uid)), ("groups", json!(groups)), ("extra", json!(extra))];
        let empty = [json!(""), json!([]), json!({})];
        fields.into_iter().filter(|(_, it)| !empty.contains(it)).map(|(key, it)| (key.to_owned(), it)).collect()
    }
}

/// The action of a request, for authorization.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attributes<'a> {
    Resource { verb: Verb, target: &'a Target },
    Path(&'a str),
}

/// The user of a request, or the impersonated one: every client of the plain port is trusted. (Bearer tokens are not read yet;
/// [`Tokens::verify`](super::tokens::Tokens::verify) can verify them.)
///
/// # Errors
/// 500 for impersonated groups and the like without a user.
pub(crate) fn authenticate(headers: &HeaderMap) -> Answer<User> {
    Ok(impersonated(headers)?.unwrap_or_else(|| User {
        name: "system:unsecured".to_owned(),
        groups: vec!["system:masters".to_owned(), AUTHENTICATED.to_owned()],
        ..User::default()
    }))
}

/// The user in the `Impersonate-` headers.
fn impersonated(headers: &HeaderMap) -> Answer<Option<User>> {
    let all = |name: &str| -> Vec<String> { headers.get_all(name).iter().filter_map(|it| it.to_str().ok()).map(str::to_owned).collect() };
    let one = |name: &str| all(name).into_iter().next().unwrap_or_default();
    let (name, uid, mut groups) = (one("impersonate-user"), one("impersonate-uid"), all("impersonate-group"));
    let keys = headers.keys().filter_map(|it| Some((it.as_str(), unescape(it.as_str().strip_prefix("impersonate-extra-")?))));
    let extra: BTreeMap<String, Vec<String>> = keys.map(|(header, key)| (key, all(header))).collect();
    if name.is_empty() {
        return if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            Ok(None)
        } else {
            Err(Box::new(Status::failure(500, "", "requested a uid, groups or extra without impersonating a user")))
        };
    }
    if let (true, Some((namespace, _))) = (groups.is_empty(), name.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':')))
    {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    if !groups.iter().any(|it| it == AUTHENTICATED || it == UNAUTHENTICATED) {
        groups.push(if name == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
    }
    Ok(Some(User { name, uid, groups, extra }))
}

/// # Errors
/// 403 if the user may not.
pub(crate) fn authorize(user: &User, attributes: Attributes<'_>) -> Answer<()> {
    match attributes {
        Attributes::Resource { verb, target } => {
            let Target { resource, namespace, name, subresource, .. } = target;
            tracing::trace!(user = user.name, groups = ?user.groups, verb = verb.name(), ?resource, namespace, name, subresource, "allowed");
        }
        Attributes::Path(path) => tracing::trace!(user = user.name, groups = ?user.groups, path, "allowed"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> Answer<Map<String, Value>> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        authenticate(&map).map(|it| it.fields())
    }

    #[test]
    fn in_the_name_of_somebody_else() {
        for (headers, expected) in [
            (&[][..], json!({"username": "system:unsecured", "groups": ["system:masters", "system:authenticated"]})),
            (&[("impersonate-user", "jane")], json!({"username": "jane", "groups": ["system:authenticated"]})),
            (
                &[("impersonate-user", "jane"), ("impersonate-group", "a"), ("impersonate-group", "b"), ("impersonate-uid", "u1")],
                json!({"username": "jane", "uid": "u1", "groups": ["a", "b", "system:authenticated"]}),
            ),
            (
                &[("impersonate-user", "jane"), ("impersonate-extra-a%2fb", "x"), ("impersonate-extra-a%2fb", "y")],
                json!({"username": "jane", "groups": ["system:authenticated"], "extra": {"a/b": ["x", "y"]}}),
            ),
            (
                &[("impersonate-user", "system:serviceaccount:n:robot")],
                json!({"username": "system:serviceaccount:n:robot",
                    "groups": ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"]}),
            ),
            (&[("impersonate-user", "system:anonymous")], json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]})),
        ] {
            assert_eq!(Value::from(asked(headers).unwrap()), expected);
        }
        assert_eq!(asked(&[("impersonate-group", "a")]).unwrap_err().code, 500);
    }
}
