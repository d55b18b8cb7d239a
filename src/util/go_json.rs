//! Go's error messages for invalid JSON. Other code parses the JSON; this only finds the message for a text that was rejected.

use serde_json::Value;

/// Go's message for a text that a JSON parser rejected; `None` if Go accepts it.
pub fn syntax_error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { rest: text, nested: Vec::new() };
    scanner.document().err().map(|fault| match fault {
        Fault::Character(c, context) => format!("invalid character {} {context}", quote(c)),
        Fault::End => "unexpected end of JSON input".to_owned(),
    })
}

/// Go's message for a value of a type that does not fit.
pub fn unmarshal(value: &Value, into: &str) -> String {
    let kind = match value {
        Value::Object(_) => "object",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Array(_) => "array",
        Value::Null => "null",
    };
    format!("json: cannot unmarshal {kind} into Go value of type {into}")
}

/// Replaces unpaired surrogates in `\u` escapes by U+FFFD, as Go reads them; `None` if there are none.
pub fn pair_surrogates(json: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| match json.get(at..at + 6)? {
        [b'\\', b'u', digits @ ..] => u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok(),
        _ => None,
    };
    let (mut out, mut at, mut found) = (Vec::with_capacity(json.len()), 0, false);
    while at < json.len() {
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                found = true;
                out.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) if json[at] == b'\\' => 2,
            (None, _) => 1,
        };
        let end = json.len().min(at + length);
        out.extend_from_slice(&json[at..end]);
        at = end;
    }
    found.then_some(out)
}

enum Fault {
    Character(u8, String),
    End,
}

/// The kind of container around a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Object,
    Array,
}

struct Scanner<'a> {
    rest: &'a [u8],
    nested: Vec<Within>,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        loop {
            self.value()?;
            // A value has ended, and so may the containers around it.
            loop {
                let Some(within) = self.nested.last().copied() else { return self.end() };
                match (within, self.token()?) {
                    (_, b',') => {
                        if within == Within::Object {
                            let c = self.token()?;
                            self.key(c)?;
                        }
                        break;
                    }
                    (Within::Object, b'}') | (Within::Array, b']') => {
                        self.nested.pop();
                    }
                    (Within::Object, c) => return fail(c, "after object key:value pair"),
                    (Within::Array, c) => return fail(c, "after array element"),
                }
            }
        }
    }

    /// Reads to the end of a value, or to the first value within it.
    fn value(&mut self) -> Result<(), Fault> {
        loop {
            match self.token()? {
                b'{' => match self.token()? {
                    b'}' => return Ok(()),
                    c => {
                        self.nested.push(Within::Object);
                        self.key(c)?;
                    }
                },
                b'[' => {
                    if self.peek() == Some(b']') {
                        self.token()?;
                        return Ok(());
                    }
                    self.nested.push(Within::Array);
                }
                b'"' => return self.string(),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                c @ (b'-' | b'0'..=b'9') => return self.number(c),
                c => return fail(c, "looking for beginning of value"),
            }
        }
    }

    /// Reads a key that begins with `first`, and its colon.
    fn key(&mut self, first: u8) -> Result<(), Fault> {
        if first != b'"' {
            return fail(first, "looking for beginning of object key string");
        }
        self.string()?;
        match self.token()? {
            b':' => Ok(()),
            c => fail(c, "after object key"),
        }
    }

    fn string(&mut self) -> Result<(), Fault> {
        loop {
            match self.take()? {
                b'"' => return Ok(()),
                b'\\' => match self.take()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let c = self.take()?;
                            if !c.is_ascii_hexdigit() {
                                return fail(c, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    c => return fail(c, "in string escape code"),
                },
                c if c < b' ' => return fail(c, "in string literal"),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        for expected in word.bytes().skip(1) {
            // To Go, the end of the text is a blank.
            match self.take().unwrap_or(b' ') {
                c if c == expected => {}
                c => return fail(c, &format!("in literal {word} (expecting '{}')", char::from(expected))),
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Result<(), Fault> {
        let first = if first == b'-' { self.take().unwrap_or(b' ') } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            c => return fail(c, "in numeric literal"),
        }
        if self.rest.first() == Some(&b'.') {
            self.take()?;
            self.digit("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.rest.first() {
            self.take()?;
            if let Some(b'+' | b'-') = self.rest.first() {
                self.take()?;
            }
            self.digit("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Result<(), Fault> {
        match self.take().unwrap_or(b' ') {
            b'0'..=b'9' => {
                self.digits();
                Ok(())
            }
            c => fail(c, context),
        }
    }

    fn digits(&mut self) {
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self) -> Result<u8, Fault> {
        let [first, rest @ ..] = self.rest else { return Err(Fault::End) };
        self.rest = rest;
        Ok(*first)
    }

    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    /// The next character that is not a blank.
    fn token(&mut self) -> Result<u8, Fault> {
        self.peek();
        self.take()
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(c) => fail(c, "after top-level value"),
        }
    }
}

fn fail(c: u8, context: &str) -> Result<(), Fault> {
    Err(Fault::Character(c, context.to_owned()))
}

fn quote(c: u8) -> String {
    if c == b'"' { "'\"'".to_owned() } else { format!("'{}'", c.escape_ascii()) }
}

#[test]
fn what_is_wrong_is_told_in_gos_words() {
    for (text, fault) in [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("[1,", "unexpected end of JSON input"),
        ("\"a", "unexpected end of JSON input"),
        ("{\"a\":tru", "invalid character ' ' in literal true (expecting 'e')"),
        ("{\"a\"}", "invalid character '}' after object key"),
        ("{]", "invalid character ']' looking for beginning of object key string"),
        ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ("{\"a\":1}}", "invalid character '}' after top-level value"),
        ("{\"a\":1 \"b\"", "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[[],{\"a\":[{}]},x]", "invalid character 'x' looking for beginning of value"),
        ("-", "invalid character ' ' in numeric literal"),
        ("1.e", "invalid character 'e' after decimal point in numeric literal"),
        ("1e+", "invalid character ' ' in exponent of numeric literal"),
        ("\"\\x\"", "invalid character 'x' in string escape code"),
        ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
        ("\"\n\"", "invalid character '\\n' in string literal"),
        ("'", "invalid character '\\'' looking for beginning of value"),
    ] {
        assert_eq!(syntax_error(text.as_bytes()).as_deref(), Some(fault), "{text}");
    }
    assert_eq!(syntax_error(b"\x9e").as_deref(), Some(r"invalid character '\x9e' looking for beginning of value"));
    for text in ["{}", " [1, -0.5e+3, {\"a\": [true, null, \"\\u00e4\"]}, [] ] \n", "0"] {
        assert_eq!(syntax_error(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn halves_of_characters_are_replaced() {
    let paired = |json: &str| pair_surrogates(json.as_bytes()).map(|it| String::from_utf8(it).unwrap());
    for (json, expected) in [
        (r#""\ud800""#, Some(r#""\ufffd""#)),
        (r#""\udc00\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#)),
        (r#""\ud800\n""#, Some(r#""\ufffd\n""#)),
        (r#""\ud83d\ude00""#, None),
        (r#""\\ud800""#, None),
        (r#""\u00e9 \ud8""#, None),
    ] {
        assert_eq!(paired(json).as_deref(), expected, "{json}");
    }
}
