//! The syntax of names, label keys and the like, with Kubernetes' messages.

use std::net::IpAddr;

use crate::util::address;
use crate::util::cidr::Written;
pub(super) use crate::util::names::{dns_label as label, dns_subdomain as subdomain, label_value, qualified_name as qualified};
use crate::util::names::{is_dns_label, too_long, wants};

/// Why a text is not one of its kind; empty if it is.
pub(super) type Faults = Vec<String>;

const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";

pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const POSITIVE: &str = "must be greater than 0";
/// Messages that are used in several places.
pub(super) const NOT_ZERO: &str = "must be greater than zero";
pub(super) const NOT_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
pub(super) const IMMUTABLE: &str = "field is immutable";

pub(super) fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A label of a DNS name that does not begin with a digit.
pub(super) fn label_1035(text: &str) -> Faults {
    let mut faults = Faults::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !is_dns_label(text) || text.starts_with(|it: char| it.is_ascii_digit()) {
        let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        faults.push(wants(rule, LABEL_1035, &["my-name", "abc-123"]));
    }
    faults
}

/// A key of a config map or secret.
pub(super) fn config_key(text: &str) -> Faults {
    let mut faults = Faults::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it)) {
        let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        faults.push(wants(rule, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => faults.push("must not be '.'".to_owned()),
        ".." => faults.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// A path segment.
pub(super) fn path_segment(text: &str) -> Faults {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].into_iter().filter(|it| text.contains(it)).map(|it| format!("may not contain '{it}'")).collect()
}

/// `*.` and a DNS name.
pub(super) fn wildcard_subdomain(text: &str) -> Faults {
    if text.strip_prefix("*.").is_some_and(|it| subdomain(it).is_empty()) {
        return Faults::new();
    }
    let rule = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case \
                alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    let label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
    vec![wants(rule, &format!(r"\*\.{label}(\.{label})*"), &["*.example.com"])]
}

/// A DNS search domain. Unlike others it may contain underscores, although Kubernetes' message does not say so.
pub(super) fn search_domain(text: &str) -> Faults {
    if text == "." {
        return Faults::new();
    }
    let domain = text.strip_suffix('.').unwrap_or(text);
    let plain = subdomain(&domain.replace('_', "a"));
    plain.into_iter().map(|fault| fault.replacen("characters, '-'", "characters, '_', '-'", 1)).collect()
}

pub(super) fn env_name(text: &str) -> Faults {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if text.bytes().all(|it| (b' '..=b'~').contains(&it) && it != b'=') {
        return Faults::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

pub(super) fn header_name(text: &str) -> Faults {
    if !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') {
        return Faults::new();
    }
    vec![wants("a valid HTTP header must consist of alphanumeric characters or '-'", "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

pub(super) fn percent(text: &str) -> Faults {
    if text.strip_suffix('%').is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit())) {
        return Faults::new();
    }
    vec![wants("a valid percent string must be a numeric string followed by an ending '%'", "[0-9]+%", &["1%", "93%"])]
}

pub(super) fn port_number(port: i64) -> Faults {
    if (1..=65535).contains(&port) { Faults::new() } else { vec![between(1, 65535)] }
}

pub(super) fn port_name(text: &str) -> Faults {
    let mut faults = Faults::new();
    if text.len() > 15 {
        faults.push(too_long(15));
    }
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|it| it.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

/// An address, however it is written.
pub(super) fn ip(text: &str) -> Faults {
    match address::read(text) {
        Some(_) => Faults::new(),
        None => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// An address in its one canonical form, which fields ask for that are not older than this rule.
pub(super) fn strict_ip(text: &str) -> Faults {
    let Some(address) = address::read(text) else { return ip(text) };
    let fault = match text.parse::<IpAddr>() {
        Err(_) => "must not have leading 0s".to_owned(),
        Ok(IpAddr::V6(it)) if it.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address".to_owned(),
        Ok(_) if address.to_string() != text => format!("must be in canonical form (\"{address}\")"),
        Ok(_) => return Faults::new(),
    };
    vec![fault]
}

/// A range of addresses, however it is written.
pub(super) fn range(text: &str) -> Faults {
    if Written::read(text).is_some() { Faults::new() } else { vec![NOT_CIDR.to_owned()] }
}

/// Where in a volume a file may be put.
pub(super) fn local_path(text: &str) -> Faults {
    if text.starts_with('/') {
        return vec!["must be a relative path".to_owned()];
    }
    if has_parent(text) { vec!["must not contain '..'".to_owned()] } else { Faults::new() }
}

pub(super) fn has_parent(path: &str) -> bool {
    path.split('/').any(|it| it == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        let long = "a".repeat(63);
        for text in ["a", "a-1", "0", &long] {
            assert_eq!(label(text), Faults::new());
            assert_eq!(subdomain(&format!("{text}.{text}")), Faults::new());
            assert_eq!(qualified(&format!("{text}/{text}")), Faults::new());
            assert_eq!(label_value(text), Faults::new());
        }
        for text in ["A_b.c", "example.com/My-Name"] {
            assert_eq!(qualified(text), Faults::new());
        }
        assert_eq!(label_1035("a1"), Faults::new());
        assert_eq!(label_value(""), Faults::new());
        assert_eq!(config_key(".a_B-1"), Faults::new());
        assert_eq!(env_name("a b.c"), Faults::new());
        assert_eq!(port_name("http-1"), Faults::new());
        assert_eq!(percent("25%"), Faults::new());
        assert_eq!(ip("::1"), Faults::new());
        for text in ["01.1.001.0", "10.0.00.1", "::1"] {
            assert_eq!(ip(text), Faults::new(), "{text}");
        }
        for text in ["01.1.1", "256.1.1.1", "1..1.1", "1.1.1.+1", "x"] {
            assert_eq!(strict_ip(text), ip(text), "{text}");
        }
    }

    #[test]
    fn bad_names_are_told_apart() {
        for (faults, expected) in [
            (
                label("A"),
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
                 alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            (
                label_1035("1"),
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end \
                 with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ),
            (
                subdomain("a..b"),
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
                 with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (label(&"a".repeat(64)), "must be no more than 63 characters"),
            (label("a.b"), "must not contain dots"),
            (
                qualified("-a"),
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                 character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            (qualified("/a"), "prefix part must be non-empty"),
            (
                qualified("a/b/c"),
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                 character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ),
            (
                label_value("a b"),
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                 with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (config_key(".."), "must not be '..'"),
            (env_name("a=b"), "a valid environment variable name must consist only of printable ASCII characters other than '='"),
            (port_name("1"), "must contain at least one letter (a-z)"),
            (port_number(0), "must be between 1 and 65535, inclusive"),
            (local_path("/a"), "must be a relative path"),
            (local_path("a/../b"), "must not contain '..'"),
        ] {
            assert_eq!(faults, [expected]);
        }
    }
}
