//! Writes JSON as YAML, with quotes around each text that some reader would take for something else.

use std::fmt::Write;

use serde_json::Value;

use super::resolve::is_ambiguous;

/// A document, its keys sorted.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    node(value, 0, &mut out);
    out.push('\n');
    out
}

const STEP: usize = 2;

/// Writes a node that begins in the current line; `indent` is that of its later lines.
fn node(value: &Value, indent: usize, out: &mut String) {
    let mut begun = false;
    let mut line = |out: &mut String| {
        if std::mem::replace(&mut begun, true) {
            new_line(indent, out);
        }
    };
    match value {
        Value::String(it) => text(it, indent, out),
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                line(out);
                out.push_str("- ");
                node(item, indent + STEP, out);
            }
        }
        Value::Object(map) if !map.is_empty() => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            for (name, value) in entries {
                line(out);
                key(name, out);
                match value {
                    // Lists are not indented in maps.
                    Value::Array(items) if !items.is_empty() => {
                        new_line(indent, out);
                        node(value, indent, out);
                    }
                    Value::Object(map) if !map.is_empty() => {
                        new_line(indent + STEP, out);
                        node(value, indent + STEP, out);
                    }
                    value => {
                        out.push(' ');
                        node(value, indent + STEP, out);
                    }
                }
            }
        }
        // The same as in JSON: null, booleans, numbers, and empty containers.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn new_line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

/// The longest text that parsers accept as a key without an explicit marker.
const LONGEST_KEY: usize = 128;

fn key(name: &str, out: &mut String) {
    let long = name.len() > LONGEST_KEY;
    if long {
        out.push_str("? ");
    }
    scalar(name, out);
    if long {
        out.push('\n');
    }
    out.push(':');
}

fn text(text: &str, indent: usize, out: &mut String) {
    if !is_literal(text) {
        return scalar(text, out);
    }
    out.push('|');
    if text.starts_with([' ', '\n']) {
        let _ = write!(out, "{STEP}");
    }
    let body = text.trim_end_matches('\n');
    match text.len() - body.len() {
        0 => out.push('-'),
        1 if !body.is_empty() => {}
        _ => out.push('+'),
    }
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        new_line(if line.is_empty() { 0 } else { indent }, out);
        out.push_str(line);
    }
}

/// Whether a text can stand as it is, line by line.
fn is_literal(text: &str) -> bool {
    text.contains('\n') && !text.contains(" \n") && !text.ends_with(' ') && text.chars().all(|it| it == '\n' || is_printable(it))
}

/// Whether a character can stand as it is in a line.
fn is_printable(it: char) -> bool {
    match it {
        ' '..='~' => true,
        // Breaks of lines, and marks.
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        it => it >= '\u{a0}',
    }
}

/// Writes a text into a line.
fn scalar(text: &str, out: &mut String) {
    if is_ambiguous(text) || !text.chars().all(is_printable) {
        double_quoted(text, out);
    } else if needs_quotes(text) {
        let _ = write!(out, "'{}'", text.replace('\'', "''"));
    } else {
        out.push_str(text);
    }
}

/// Whether a text without quotes would end early, or begin something else.
fn needs_quotes(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_end = |at: usize| bytes.get(at).is_none_or(|it| *it == b' ');
    let begins = match bytes.first() {
        Some(b'#' | b',' | b'[' | b']' | b'{' | b'}' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%' | b'@' | b'`') => true,
        Some(b'?' | b':' | b'-') => is_end(1),
        _ => false,
    };
    begins
        || text.starts_with("---")
        || text.starts_with("...")
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.contains(" #")
        || bytes.iter().enumerate().any(|(at, it)| *it == b':' && is_end(at + 1))
}

fn double_quoted(text: &str, out: &mut String) {
    out.push('"');
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            it if is_printable(it) => out.push(it),
            it => {
                let number = it as u32;
                let _ = if number < 0x100 { write!(out, "\\x{number:02X}") } else { write!(out, "\\u{number:04X}") };
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::read;
    use super::*;

    #[test]
    fn documents_look_like_those_of_kubernetes() {
        let value = json!({"kind": "X", "apiVersion": "v1", "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {}},
            "data": {"a": "yes", "b": "=", "c": "a\nb\n", "d": "1:30", "e": "", "f": "a: b", "g": "- a", "h": "it's", "i": "a\n\n b", "j": " a\nb\n\n",
                "k": "\n", "l": "a\tb", "y": "z"},
            "list": [1, 1.5, true, null, [], ["a"], {"b": "c", "d": "e"}, "x\ny"]});
        let expected = r#"apiVersion: v1
data:
  a: "yes"
  b: "="
  c: |
    a
    b
  d: "1:30"
  e: ""
  f: 'a: b'
  g: '- a'
  h: it's
  i: |-
    a

     b
  j: |2+
     a
    b

  k: |2+

  l: "a\tb"
  "y": z
kind: X
list:
- 1
- 1.5
- true
- null
- []
- - a
- b: c
  d: e
- |-
  x
  y
metadata:
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels: {}
"#;
        assert_eq!(write(&value), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn what_is_written_is_read_again(
            texts in prop::collection::vec(any::<String>(), 0..4),
            lines in "[a #:'-]{0,3}(\n[a #:'-]{0,3}){0,4}",
            plain in "[a-zA-Z0-9.:=~<_+-]{0,6}",
            long in "[a-z\u{e9} :]{100,200}",
        ) {
            let value = json!({"texts": texts, "plain": plain.clone(), "lines": [lines.clone(), {"lines": lines.clone()}], plain: 1, lines: [1], long: {"a": 1}});
            prop_assert_eq!(read(write(&value).as_bytes()).map(|it| it.value), Ok(value));
        }
    }
}
