//! Kubernetes' syntax of names and label values, with its messages for invalid ones.

const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// The faults of a label or annotation key (`[prefix/]name`); empty if it is valid.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let shape = || {
        wants(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            QUALIFIED,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!("a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')", shape())];
        }
        Some(("", name)) => {
            wrong.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            wrong.extend(dns_subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified(name) {
        wrong.push(format!("name part {}", shape()));
    }
    wrong
}

/// The faults of a label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if !text.is_empty() && !is_qualified(text) {
        wrong.push(wants(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character",
            &format!("({QUALIFIED})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// The faults of an object name of most kinds.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(too_long(253));
    }
    if !text.split('.').all(is_dns_label) {
        wrong.push(wants(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
             alphanumeric character",
            &format!(r"{LABEL}(\.{LABEL})*"),
            &["example.com"],
        ));
    }
    wrong
}

/// The faults of the name of a namespace, a container or a volume.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(too_long(63));
    }
    if text.contains('.') && text.split('.').all(is_dns_label) {
        wrong.push("must not contain dots".to_owned());
    } else if !is_dns_label(text) {
        wrong.push(wants(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character",
            LABEL,
            &["my-name", "123-abc"],
        ));
    }
    wrong
}

/// The message for a text longer than `limit` bytes.
pub fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

/// Whether a text is a label of a DNS name, regardless of its length.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    spans(text, inner, |byte| inner(byte) || byte == b'-')
}

fn is_qualified(text: &str) -> bool {
    spans(text, |byte| byte.is_ascii_alphanumeric(), |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether `text` is not empty, has `end` at both ends and only `inner` in between.
fn spans(text: &str, end: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => end(*only),
        [first, between @ .., last] => end(*first) && end(*last) && between.iter().all(|byte| inner(*byte)),
    }
}

/// The message for a text that violates `rule`.
pub fn wants(rule: &str, pattern: &str, examples: &[&str]) -> String {
    let examples = examples.iter().map(|it| format!("'{it}', ")).collect::<Vec<_>>().join(" or ");
    format!("{rule} (e.g. {examples}regex used for validation is '{pattern}')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (good, bad) in [("a", ""), ("example.com/a.B_c-1", "/a"), ("A", "a/"), ("0", "-a"), ("a", "a/b/c"), ("x.y/z", "X.y/z")] {
            assert_eq!(qualified_name(good), Vec::<String>::new(), "{good}");
            assert_ne!(qualified_name(bad), Vec::<String>::new(), "{bad}");
        }
        assert_eq!(
            qualified_name("$"),
            ["name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
              (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"]
        );
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert!(label_value("").is_empty());
        assert!(dns_subdomain("a.b-c.1").is_empty());
        assert_eq!(dns_subdomain("a..b").len(), 1);
        assert_eq!(dns_label("a.b").len(), 1);
    }
}
