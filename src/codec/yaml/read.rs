//! Reads a document: first into nodes as written, then into JSON, with aliases and merge keys resolved.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Number, Value};

use super::lenient;
use super::resolve::{self, MERGE_TAG, Scalar};
use crate::util::go;

/// A document.
#[derive(Debug, PartialEq)]
pub struct Document {
    pub value: Value,
    /// The strict parser's message for duplicate keys, the last of which counts: [`DUPLICATES`], and a line each.
    pub duplicates: Option<String>,
}

/// How a strict reader begins.
pub const DUPLICATES: &str = "yaml: unmarshal errors:";

/// Reads the first document of a stream, ignoring the rest. An empty document is read as null.
///
/// # Errors
/// The fault, with the message of Go's parser.
pub fn read(body: &[u8]) -> Result<Document, String> {
    let text = decoded(body).map_err(|why| format!("yaml: {why}"))?;
    let root = nodes(text).0.map_err(|why| format!("yaml: {why}"))?;
    let mut maker = Maker::default();
    let value = match &root {
        Some(root) => maker.value(root, 0)?,
        None => Value::Null,
    };
    let lines = maker.duplicates.iter().map(|it| format!("\n  {it}")).collect::<String>();
    let duplicates = (!lines.is_empty()).then(|| format!("{DUPLICATES}{lines}"));
    Ok(Document { value, duplicates })
}

/// Bound of the bytes that are read again after repairs.
const PATIENCE: usize = 4 * 1024 * 1024;

/// The nodes of the first document, and how many faults were repaired to read them.
fn nodes(mut text: Cow<'_, str>) -> (Result<Option<Rc<Node>>, String>, usize) {
    // A fault that its repair does not cure would be repaired again and again.
    let (most, mut repairs, mut patience) = (lenient::most_faults(&text), 0, PATIENCE);
    loop {
        let mut reader = Reader { text: &text, parser: Parser::new_from_str(&text), anchors: HashMap::new(), fault: None };
        let (root, fault) = (reader.document(), reader.fault);
        let fault = fault.filter(|_| root.is_err() && repairs < most && patience >= text.len());
        match fault.and_then(|it| lenient::mended(&text, &it)) {
            Some(mended) => {
                repairs += 1;
                patience -= text.len();
                text = Cow::Owned(mended);
            }
            None => return (root, repairs),
        }
    }
}

/// Maximum nesting of lists and maps, as in JSON.
const DEPTH: usize = 128;

struct Node {
    /// Counts from one.
    line: usize,
    kind: Kind,
}

enum Kind {
    Scalar {
        text: String,
        tag: Option<String>,
        /// Without quotes.
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
    Alias(Rc<Node>),
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    /// Named nodes, by the parser's number.
    anchors: HashMap<usize, Rc<Node>>,
    /// The error that stopped the parser.
    fault: Option<ScanError>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let why = self.described(&error);
                self.fault = Some(error);
                Err(why)
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Go's message, which omits the first line's number, and differs when an expected token is missing.
    fn described(&self, error: &ScanError) -> String {
        const MISSED: [&str; 6] = ["',' or", "expected key", "'-' indicator", "node content", "<document", "'<document"];
        let problem = error.info().split_once(", ").filter(|(doing, _)| doing.starts_with("while ")).map_or(error.info(), |it| it.1);
        let line = match error.marker().line() {
            line if MISSED.iter().any(|it| problem.contains(it)) => line.saturating_sub(1),
            1 => 0,
            line => line,
        };
        match (problem, line) {
            ("expected ',' or ']'", line) => format!("line {line}: did not find expected ',' or ']'"),
            ("found unknown anchor", _) => format!("unknown anchor '{}' referenced", self.name(*error.marker())),
            (problem, 0) => problem.to_owned(),
            (problem, line) => format!("line {line}: {problem}"),
        }
    }

    /// The name of the alias at this place.
    fn name(&self, at: Marker) -> String {
        self.text.chars().skip(at.index() + 1).take_while(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_')).collect()
    }

    fn document(&mut self) -> Result<Option<Rc<Node>>, String> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::Nothing | Event::StreamStart | Event::DocumentStart(_), _) => {}
                // Content after it is ignored.
                first => return self.node(first, 0).map(Some),
            }
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Rc<Node>, String> {
        if depth > DEPTH {
            return Err(format!("exceeded max depth of {DEPTH}"));
        }
        let (anchor, kind) = match event {
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => (0, Kind::Alias(node.clone())),
                None => return Err(format!("anchor '{}' value contains itself", self.name(span.start))),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|it| format!("{}{}", it.handle, it.suffix));
                let plain = style == ScalarStyle::Plain && tag.is_none();
                // The tag `!` only marks a string.
                (anchor, Kind::Scalar { text: text.into_owned(), tag: tag.filter(|it| it != "!"), plain })
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break (anchor, Kind::List(items)),
                        item => items.push(self.node(item, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, _) => {
                let mut entries = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break (anchor, Kind::Map(entries)),
                        key => {
                            let key = self.node(key, depth + 1)?;
                            let value = self.next()?;
                            entries.push((key, self.node(value, depth + 1)?));
                        }
                    }
                }
            }
            other => return Err(format!("unexpected event {other:?}")),
        };
        let node = Rc::new(Node { line: span.start.line(), kind });
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }
}

/// The text of a body: in UTF-8, or in UTF-16 with a mark.
fn decoded(body: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    let utf16 = |body: &[u8], of: fn([u8; 2]) -> u16| {
        let (units, rest) = body.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("incomplete UTF-16 character");
        }
        char::decode_utf16(units.iter().map(|it| of(*it))).collect::<Result<String, _>>().map_err(|_| "unexpected low surrogate area")
    };
    let text = match body {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(utf16(rest, u16::from_le_bytes)?),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(utf16(rest, u16::from_be_bytes)?),
        _ => std::str::from_utf8(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).map(Cow::Borrowed).map_err(|error| {
            match (error.error_len(), body.get(error.valid_up_to())) {
                (None, _) => "incomplete UTF-8 octet sequence",
                (_, Some(0xc2..=0xf4)) => "invalid trailing UTF-8 octet",
                _ => "invalid leading UTF-8 octet",
            }
        })?,
    };
    let is_control = |it: char| match it {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        it => it.is_control() || matches!(it, '\u{fffe}' | '\u{ffff}'),
    };
    if text.contains(is_control) { Err("control characters are not allowed") } else { Ok(text) }
}

/// Makes JSON of nodes.
#[derive(Default)]
struct Maker {
    duplicates: Vec<String>,
    made: usize,
    /// How many nodes, and how many bytes of text, are copies by aliases.
    copied: usize,
    copied_bytes: usize,
    within_aliases: usize,
}

/// How many bytes of texts aliases may stand for.
const MOST_COPIED: usize = 16 * 1024 * 1024;

impl Maker {
    /// Rejects documents whose aliases expand too much.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        // In a small document nearly all nodes may be copies, in a large one a tenth.
        const SMALL: f64 = 400_000.0;
        const LARGE: f64 = 4_000_000.0;
        self.made += 1;
        if self.within_aliases > 0 {
            self.copied += 1;
            self.copied_bytes += bytes;
        }
        let made = self.made as f64;
        let allowed = 0.99 - 0.89 * ((made - SMALL) / (LARGE - SMALL)).clamp(0.0, 1.0);
        let too_many = self.copied > 100 && self.made > 1000 && self.copied as f64 / made > allowed;
        if too_many || self.copied_bytes > MOST_COPIED { Err("yaml: document contains excessive aliasing".to_owned()) } else { Ok(()) }
    }

    fn value(&mut self, node: &Node, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err(format!("yaml: exceeded max depth of {DEPTH}"));
        }
        self.count(if let Kind::Scalar { text, .. } = &node.kind { text.len() } else { 0 })?;
        match &node.kind {
            Kind::Alias(target) => self.aliased(|maker| maker.value(target, depth)),
            Kind::Scalar { text, tag, plain } => json(scalar(text, tag.as_deref(), *plain)?, text),
            Kind::List(items) => items.iter().map(|it| self.value(it, depth + 1)).collect(),
            Kind::Map(entries) => {
                let mut map = Map::new();
                self.fill(entries, &mut map, depth)?;
                Ok(Value::Object(map))
            }
        }
    }

    fn aliased<T>(&mut self, make: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.within_aliases += 1;
        let made = make(self);
        self.within_aliases -= 1;
        made
    }

    fn fill(&mut self, entries: &[(Rc<Node>, Rc<Node>)], map: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
        for (key, node) in entries {
            if is_merge(key) {
                self.merge(node, map, depth)?;
                continue;
            }
            let (key, shown) = self.key(key)?;
            let value = self.value(node, depth + 1)?;
            if map.insert(key, value).is_some() {
                self.duplicates.push(format!("line {}: key {shown} already set in map", node.line));
            }
        }
        Ok(())
    }

    /// Merges the entries of other maps into one.
    fn merge(&mut self, node: &Node, map: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
        const WANTED: &str = "yaml: map merge requires map or sequence of maps as the value";
        if depth > DEPTH {
            return Err(format!("yaml: exceeded max depth of {DEPTH}"));
        }
        self.count(0)?;
        match &node.kind {
            Kind::Map(entries) => self.fill(entries, map, depth + 1),
            Kind::Alias(target) => match &target.kind {
                Kind::Map(entries) => self.aliased(|maker| maker.fill(entries, map, depth + 1)),
                _ => Err(WANTED.to_owned()),
            },
            // The first ones have the last word.
            Kind::List(items) => items.iter().rev().try_for_each(|it| match &it.kind {
                Kind::List(_) => Err(WANTED.to_owned()),
                _ => self.merge(it, map, depth + 1),
            }),
            Kind::Scalar { .. } => Err(WANTED.to_owned()),
        }
    }

    /// A key, and how Go shows it.
    fn key(&mut self, node: &Node) -> Result<(String, String), String> {
        match &node.kind {
            Kind::Alias(target) => self.aliased(|maker| maker.key(target)),
            Kind::Scalar { text, tag, plain } => {
                self.count(text.len())?;
                let key = match scalar(text, tag.as_deref(), *plain)? {
                    Scalar::Text(text) => return Ok((text.clone(), go::quote(&text))),
                    Scalar::Timestamp => return Ok((text.clone(), go::quote(text))),
                    Scalar::Boolean(it) => it.to_string(),
                    Scalar::Integer(it) if it <= i64::MAX.into() => it.to_string(),
                    Scalar::Integer(it) => return Err(format!("unsupported map key of type: uint64, key: {it:#x}")),
                    Scalar::Float(it) => float_key(it),
                    Scalar::Null => return Err("unsupported map key of type: %!s(<nil>), key: <nil>".to_owned()),
                };
                Ok((key.clone(), key))
            }
            Kind::List(_) | Kind::Map(_) => Err(format!("yaml: invalid map key: {}", go::print(&self.value(node, 0)?))),
        }
    }
}

fn is_merge(key: &Node) -> bool {
    matches!(&key.kind, Kind::Scalar { text, tag, plain } if text == "<<" && (*plain || tag.as_deref() == Some(MERGE_TAG)))
}

fn scalar(text: &str, tag: Option<&str>, plain: bool) -> Result<Scalar, String> {
    match (tag, plain) {
        (Some(tag), _) => resolve::tagged(tag, text).map_err(|why| format!("yaml: {why}")),
        (None, true) => Ok(resolve::plain(text)),
        (None, false) => Ok(Scalar::Text(text.to_owned())),
    }
}

fn json(scalar: Scalar, text: &str) -> Result<Value, String> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(it) => it.into(),
        Scalar::Integer(it) => match i64::try_from(it) {
            Ok(it) => it.into(),
            Err(_) => u64::try_from(it).map_or(Value::Null, Value::from),
        },
        Scalar::Float(it) if let Some(whole) = whole(it) => whole.into(),
        Scalar::Float(it) => Number::from_f64(it).map(Value::Number).ok_or_else(|| format!("json: unsupported value: {}", go_float(it)))?,
        Scalar::Text(text) => text.into(),
        Scalar::Timestamp => text.into(),
    })
}

/// A number that Go writes without a point, and so reads as an integer again.
fn whole(value: f64) -> Option<i64> {
    // Rounds to a value beyond i64.
    const END: f64 = i64::MAX as f64;
    (value.fract() == 0.0 && (-END..END).contains(&value)).then_some(value as i64)
}

/// Makes integers of the numbers of a JSON document that are whole, as reading it as YAML does.
pub fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().and_then(whole) {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(map) => map.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// The name of a float that is not a finite number.
fn go_float(value: f64) -> &'static str {
    match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "+Inf",
        (false, false) => "-Inf",
    }
}

/// A number as the key that it is, in as few digits as a float of 32 bits needs.
fn float_key(value: f64) -> String {
    let value = value as f32;
    if !value.is_finite() {
        return match (value.is_nan(), value > 0.0) {
            (true, _) => ".nan".to_owned(),
            (false, true) => ".inf".to_owned(),
            (false, false) => "-.inf".to_owned(),
        };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or_default() {
        -4..6 => value.to_string(),
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        read(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why}")).value
    }

    #[test]
    fn each_fault_is_repaired_once() {
        let (root, repairs) = nodes("ata/:\n  -: [|\n\r-*ibsta08,\n\n|\n\r- z N]\n".into());
        assert!(root.is_err() && repairs <= 7, "{repairs} repairs");
        let tabs = "{a:\t1, b:\t2, c: [\n3,\n4\n]}";
        let (root, repairs) = nodes(format!("x:\n  y: {tabs}\n").into());
        assert!(root.is_ok() && (2..=6).contains(&repairs), "{repairs} repairs");
    }

    #[test]
    fn documents_become_json() {
        for (text, expected) in [
            (
                "a: yes\nb: 'yes'\nc: 0644\nd: 2001-01-01\ne: ~\nf: !!str 1\ng: 80.0",
                json!({"a": true, "b": "yes", "c": 420, "d": "2001-01-01", "e": null, "f": "1", "g": 80}),
            ),
            ("{1: a, true: b, 1.5: c, ? 'x' : d}", json!({"1": "a", "true": "b", "1.5": "c", "x": "d"})),
            ("a: &x {b: c}\nd: *x", json!({"a": {"b": "c"}, "d": {"b": "c"}})),
            ("<<: {a: b, c: d}\nc: e", json!({"a": "b", "c": "e"})),
            ("<<: [{a: 1, b: 1}, {a: 2, c: 2}]", json!({"a": 1, "b": 1, "c": 2})),
            ("x: &x {a: b}\nz:\n  <<: *x\n  c: d", json!({"x": {"a": "b"}, "z": {"a": "b", "c": "d"}})),
            ("'<<': a", json!({"<<": "a"})),
            ("a: b\n---\nc: d", json!({"a": "b"})),
            ("---\n---\na: b", json!(null)),
            ("a: b\n...\n", json!({"a": "b"})),
            ("{a: b} c", json!({"a": "b"})),
            ("", json!(null)),
            ("# nothing", json!(null)),
            ("\u{feff}a: b", json!({"a": "b"})),
            ("%YAML 1.1\n---\na: b\r\n", json!({"a": "b"})),
            ("a: !foo b\nc: !!binary aGk=", json!({"a": "b", "c": "hi"})),
            ("a: \"\\x41\\u00e9\"", json!({"a": "A\u{e9}"})),
            ("a: |\n  b\n  c\nd: >-\n  e\n  f", json!({"a": "b\nc\n", "d": "e f"})),
            ("a: 18446744073709551615\nb: 1e30\nc: 1.5", json!({"a": u64::MAX, "b": 1e30, "c": 1.5})),
            ("- 1\n- - 2", json!([1, [2]])),
            ("a: ! 1", json!({"a": "1"})),
            ("a: {\nb: c,\n  d: [\ne, f\n]\n}\ng: h", json!({"a": {"b": "c", "d": ["e", "f"]}, "g": "h"})),
            ("a:\n  b: \"c\nd\n\n   e\nf\"\n  g: 'h\n\n i'", json!({"a": {"b": "c d\ne f", "g": "h\ni"}})),
            ("a:\tb\nc:\t\td", json!({"a": "b", "c": "d"})),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("a: b".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(read(&utf16).unwrap().value, json!({"a": "b"}));
    }

    #[test]
    fn what_cannot_be_read_is_told_as_go_does() {
        for (text, expected) in [
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
            ("a: b\nc: d: e", "yaml: line 2: mapping values are not allowed in this context"),
            ("a: b\nc: {d\n", "yaml: line 2: did not find expected ',' or '}'"),
            ("a: *x", "yaml: unknown anchor 'x' referenced"),
            ("a: &x [*x]", "yaml: anchor 'x' value contains itself"),
            ("a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
            ("<<: a", "yaml: map merge requires map or sequence of maps as the value"),
            ("{? [a] : b}", "yaml: invalid map key: [a]"),
            ("a: .inf", "json: unsupported value: +Inf"),
            ("a: \u{1}", "yaml: control characters are not allowed"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn duplicate_keys_are_told_and_the_last_holds() {
        let found = read(b"a: 1\nb: {1: 2, 1: 3}\na: 2").unwrap();
        assert_eq!(found.value, json!({"a": 2, "b": {"1": 3}}));
        assert_eq!(
            found.duplicates.unwrap(),
            "yaml: unmarshal errors:\n  line 2: key 1 already set in map\n  line 3: key \"a\" already set in map"
        );
    }

    #[test]
    fn to_put_things_right_takes_no_longer_than_they_are_worth() {
        let lines = format!("a: {{\n{}}}", "b: c,\n".repeat(100_000));
        assert!(read(lines.as_bytes()).is_err());
    }

    #[test]
    fn neither_depth_nor_aliases_take_all_memory() {
        for open in ["[", "{a: ", "- ", "? "] {
            assert!(read(open.repeat(50_000).as_bytes()).is_err(), "{open}");
        }
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![previous; 10].join(", "));
        }
        assert_eq!(read(bomb.as_bytes()).unwrap_err(), "yaml: document contains excessive aliasing");
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), vec!["*a"; 20].join(", "));
        assert_eq!(read(long.as_bytes()).unwrap_err(), "yaml: document contains excessive aliasing");
        let tower = (1..40).fold("a0: &a0 [x]\n".to_owned(), |tower, level| {
            tower + &format!("a{level}: &a{level} {}*a{}{}\n", "[".repeat(100), level - 1, "]".repeat(100))
        });
        assert!(read(tower.as_bytes()).unwrap_err().contains("max depth"));
    }

    #[test]
    fn keys_that_are_numbers_are_written_short() {
        for (value, expected) in [(1.5, "1.5"), (1e30, "1e+30"), (1e-7, "1e-07"), (1e6, "1e+06"), (100.0, "100"), (f64::INFINITY, ".inf")] {
            assert_eq!(float_key(value), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]:,\"a-z0-9 \n<&*!|>'?%#-]{0,80}") {
            let _ = read(&bytes);
            let _ = read(text.as_bytes());
        }
    }
}
