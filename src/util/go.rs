//! Values as Go prints them: Kubernetes' error messages quote values in this form, and people's scripts read those.

use serde_json::Value;

/// `%v` of a decoded JSON value: `map[image:nginx name:web ports:[80 443]]`, keys sorted.
pub fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            format!("map[{}]", pairs.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect::<Vec<_>>().join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// `%#v` of a map of strings: `map[string]string{"app":"web"}`, keys sorted.
pub fn string_map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_unstable();
    format!(
        "map[string]string{{{}}}",
        pairs.iter().map(|(key, value)| format!("{}:{}", quote(key), quote(value))).collect::<Vec<_>>().join(", ")
    )
}

/// `%q`: a string with quotes around it, what does not print escaped.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            it if it.is_control() && (it as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", it as u32)),
            it if it.is_control() => out.push_str(&format!("\\u{:04x}", it as u32)),
            it => out.push(it),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms() {
        assert_eq!(print(&json!({"b": [1, "x", null], "a": {"c": true}})), "map[a:map[c:true] b:[1 x <nil>]]");
        assert_eq!(string_map([("b", "2"), ("a", "1\"")]), r#"map[string]string{"a":"1\"", "b":"2"}"#);
        assert_eq!(string_map([]), "map[string]string{}");
        assert_eq!(quote("a\nb\u{1}é"), r#""a\nb\x01é""#);
    }
}
