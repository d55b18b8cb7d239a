//! Texts in URLs: percent escapes and the parameters of a query, as Go's `net/url` reads them.

use std::fmt::Write as _;

/// Appends a text as part of a path or of a query; escapes all but the unreserved characters of RFC 3986.
pub fn escape_into(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
}

/// A text as part of a path or of a query.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(text, &mut out);
    out
}

/// Decodes `%XX`; invalid escapes stay unchanged.
pub fn unescape(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = if first == b'%' { escaped(after) } else { None };
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte of the two digits after a `%`.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// The parameters of a query, in order. As in Go, those with a `;` or an invalid escape are skipped.
pub fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let plain = |text: &str| unescape(&text.replace('+', " "));
    let is_read =
        |part: &&str| !part.is_empty() && !part.contains(';') && part.split('%').skip(1).all(|it| escaped(it.as_bytes()).is_some());
    query.split('&').filter(is_read).map(move |part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (plain(key), plain(value))
    })
}

/// Whether a present parameter is true, as Kubernetes reads it: unless it is `false` or `0`.
pub fn is_set(value: &str) -> bool {
    !value.eq_ignore_ascii_case("false") && value != "0"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(escape("a/b c-._~é"), "a%2Fb%20c-._~%C3%A9");
        for (text, plain) in
            [("a%2fb", "a/b"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%%41", "%A"), ("%+1", "%+1"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(unescape(text), plain, "{text}");
        }
    }

    #[test]
    fn queries() {
        let read: Vec<_> = parameters("a=1&b&&c=x+y%3D=z&d=%zz&e=1;2&%61=2").collect();
        let read: Vec<_> = read.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(read, [("a", "1"), ("b", ""), ("c", "x y==z"), ("a", "2")]);
        for (value, set) in [("", true), ("1", true), ("yes", true), ("False", false), ("0", false)] {
            assert_eq!(is_set(value), set, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_unescaped(text: String) {
            let escaped = escape(&text);
            prop_assert!(escaped.bytes().all(|it| it.is_ascii_graphic() && !b"/?&=+#".contains(&it)));
            prop_assert_eq!(unescape(&escaped), text);
        }
    }
}
