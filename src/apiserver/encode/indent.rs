//! JSON as people read it.

use bytes::Bytes;

/// Indents JSON by two spaces per level; empty lists and objects stay on one line. The text may come in pieces.
#[derive(Debug, Default)]
pub(super) struct Indent {
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// The last character was an opening bracket.
    opened: bool,
}

impl Indent {
    /// Text after the last piece.
    pub(super) const END: &[u8] = b"\n";

    pub(super) fn all(mut self, json: &[u8]) -> Bytes {
        let mut out = self.lines(json);
        out.extend_from_slice(Self::END);
        out.into()
    }

    pub(super) fn lines(&mut self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() * 2);
        for byte in json {
            if self.quoted {
                self.quoted = self.escaped || *byte != b'"';
                self.escaped = !self.escaped && *byte == b'\\';
                out.push(*byte);
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            let closes = matches!(byte, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            if self.opened != closes {
                self.line(&mut out);
            }
            self.opened = matches!(byte, b'{' | b'[');
            self.depth += usize::from(self.opened);
            self.quoted = *byte == b'"';
            out.push(*byte);
            match byte {
                b',' => self.line(&mut out),
                b':' => out.push(b' '),
                _ => {}
            }
        }
        out
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b"  ", self.depth).flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_lines() {
        let text = |json: &str| {
            let whole = [Indent::default().lines(json.as_bytes()), b"\n".to_vec()].concat();
            for size in [1, 3, 7] {
                let mut indent = Indent::default();
                let pieces: Vec<u8> = json.as_bytes().chunks(size).flat_map(|it| indent.lines(it)).chain(*b"\n").collect();
                assert_eq!(pieces, whole, "in pieces of {size}");
            }
            String::from_utf8(whole).unwrap()
        };
        assert_eq!(
            text(r#"{"a":[],"b":{}, "c":[1,{"d":"x,\\\"}{"}]}"#),
            "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": \"x,\\\\\\\"}{\"\n    }\n  ]\n}\n"
        );
        let value: serde_json::Value = serde_json::json!({"a": [[], [[]], {}, {"b": [null, -1.5e3]}], "c\n\"": "\\"});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text(&value.to_string())).unwrap(), value);
        assert_eq!(text(&value.to_string()).trim_end(), serde_json::to_string_pretty(&value).unwrap());
    }
}
