//! Hashes of JSON that do not depend on the order of its keys, and their short form that may stand in names and labels.

use serde_json::Value;

/// FNV-1a, 64 bits, over the JSON with sorted keys.
pub(super) fn fingerprint(value: &Value) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    feed(value, &mut hash);
    hash
}

/// The short name of a template, another one for every number of collisions with names that are taken.
pub(super) fn short_name(fingerprint: u64, collisions: i64) -> String {
    // No vowels or similar characters, so that no words can appear.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = fingerprint;
    if collisions > 0 {
        add(collisions.to_string().as_bytes(), &mut hash);
    }
    let mut name = String::new();
    for _ in 0..10 {
        name.push(char::from(LETTERS[(hash % LETTERS.len() as u64) as usize]));
        hash /= LETTERS.len() as u64;
    }
    name
}

fn add(bytes: &[u8], hash: &mut u64) {
    for byte in bytes {
        *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
}

fn feed(value: &Value, hash: &mut u64) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|it| it.0);
            add(b"{", hash);
            for (name, value) in fields {
                add(Value::from(name.as_str()).to_string().as_bytes(), hash);
                add(b":", hash);
                feed(value, hash);
                add(b",", hash);
            }
            add(b"}", hash);
        }
        Value::Array(items) => {
            add(b"[", hash);
            for item in items {
                feed(item, hash);
                add(b",", hash);
            }
            add(b"]", hash);
        }
        scalar => add(scalar.to_string().as_bytes(), hash),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_content_counts() {
        let one = fingerprint(&json!({"a": [1, {"b": "x"}], "c": null}));
        assert_eq!(one, fingerprint(&serde_json::from_str(r#"{"c": null, "a": [1, {"b": "x"}]}"#).unwrap()));
        for other in [json!({"a": [1, {"b": "y"}], "c": null}), json!({"a": [{"b": "x"}, 1], "c": null}), json!({"a": [1, {"b": "x"}]})] {
            assert_ne!(one, fingerprint(&other), "{other}");
        }
        let names: std::collections::BTreeSet<_> = (0..100).map(|collisions| short_name(one, collisions)).collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|it| it.len() == 10));
    }
}
