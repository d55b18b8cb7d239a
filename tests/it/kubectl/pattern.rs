//! Patterns for the output of commands.
//!
//! Text stands for itself. Runs of two or more blanks within a line are equivalent, because columns grow with their content. These
//! placeholders stand for varying parts: `<age>`, `<time>`, `<n>` (a number), `<ip>`, `<uid>`, `<hash>` (lower-case letters and digits),
//! `<word>` (no blank) and `<any>`; `<ns>` is the case's namespace. A line `...` stands for any lines.

/// Whether `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(even).collect::<Vec<String>>();
    all(&lines(pattern), &lines(text))
}

fn all(patterns: &[String], lines: &[String]) -> bool {
    match (patterns, lines) {
        ([], []) => true,
        ([pattern, rest @ ..], _) if pattern == "..." => (0..=lines.len()).any(|skipped| all(rest, &lines[skipped..])),
        ([pattern, rest @ ..], [line, more @ ..]) => one(pattern, line) && all(rest, more),
        _ => false,
    }
}

/// A line without blanks at its end, and with two blanks for every longer run that is not its indentation.
fn even(line: &str) -> String {
    let line = line.trim_end();
    let body = line.trim_start_matches(' ');
    let mut out = " ".repeat(line.len() - body.len());
    for c in body.chars() {
        if !(c == ' ' && out.ends_with("  ") && !out.trim_start().is_empty()) {
            out.push(c);
        }
    }
    out
}

fn one(pattern: &str, line: &str) -> bool {
    let Some((at, name, test)) = next_hole(pattern) else { return pattern == line };
    let Some(rest) = line.strip_prefix(&pattern[..at]) else { return false };
    let after = &pattern[at + name.len()..];
    let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
    std::iter::once(0).chain(ends).any(|end| test(&rest[..end]) && one(after, &rest[end..]))
}

type Test = fn(&str) -> bool;

const HOLES: [(&str, Test); 8] = [
    ("<age>", |it| it == "<unknown>" || it == "<invalid>" || made_of(it, |c| c.is_ascii_digit() || "smhdy".contains(c))),
    ("<time>", |it| it.len() >= 20 && it.contains(':')),
    ("<n>", |it| made_of(it, |c| c.is_ascii_digit())),
    ("<ip>", |it| it.parse::<std::net::IpAddr>().is_ok()),
    ("<uid>", |it| it.len() == 36 && made_of(it, |c| c.is_ascii_hexdigit() || c == '-')),
    ("<hash>", |it| made_of(it, |c| c.is_ascii_lowercase() || c.is_ascii_digit())),
    ("<word>", |it| made_of(it, |c| c != ' ')),
    ("<any>", |_| true),
];

fn next_hole(pattern: &str) -> Option<(usize, &'static str, Test)> {
    HOLES.iter().filter_map(|(name, test)| Some((pattern.find(name)?, *name, *test))).min_by_key(|(at, ..)| *at)
}

fn made_of(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(allowed)
}

#[test]
fn patterns_match_what_they_say() {
    for (pattern, text) in [
        ("a b", "a b\n"),
        ("NAME  AGE\na     <age>", "NAME   AGE\na      2m3s"),
        ("web-<hash>-<hash>  <ip>", "web-5f4d-x9z   10.0.0.1"),
        ("UID: <uid>, <any>.", "UID: 123e4567-e89b-12d3-a456-426614174000, a.b."),
        ("a\n...\nb", "a\nb"),
        ("a\n...\nb", "a\nx\n\ny\nb"),
        ("<none> <n>", "<none> 12"),
        ("...", ""),
        ("a\n\nb", "a \n    \nb"),
    ] {
        assert!(matches(pattern, text), "{pattern:?} {text:?}");
    }
    for (pattern, text) in [
        ("a b", "a  b"),
        ("  a", "   a"),
        ("a <n>", "a x"),
        ("<age>", "5 m"),
        ("<ip>", "10.0.0.256"),
        ("a", "a\nb"),
        ("a\n...\nb", "a\nx"),
        ("", "a"),
        ("<word>", ""),
    ] {
        assert!(!matches(pattern, text), "{pattern:?} {text:?}");
    }
}
