//! Ini files with one section, in git's syntax: `key = value`, and comments behind `;` or `#`.

/// A file that does not have this form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {0}: expected a [section], or key = value")]
    Syntax(usize),
    #[error("unknown section [{found}], expected [{expected}]")]
    Section { found: String, expected: &'static str },
    #[error("keys before any section, expected section [{0}]")]
    NoSection(&'static str),
}

/// The keys and values below `[section]`, in order.
///
/// # Errors
/// For an invalid line, and for keys outside the section.
pub fn entries<'a>(text: &'a str, section: &'static str) -> Result<Vec<(&'a str, &'a str)>, Error> {
    let (mut entries, mut begun) = (Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').ok_or(Error::Syntax(index + 1))?.trim();
            if name != section {
                return Err(Error::Section { found: name.to_owned(), expected: section });
            }
            begun = true;
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(Error::Syntax(index + 1))?;
        if !begun {
            return Err(Error::NoSection(section));
        }
        entries.push((key.trim(), bare(value.trim())));
    }
    Ok(entries)
}

/// A value without its quotes or trailing comment.
fn bare(value: &str) -> &str {
    if let Some((quoted, _)) = value.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        return quoted;
    }
    let comment = [" ;", " #", "\t;", "\t#"].into_iter().filter_map(|mark| value.find(mark)).min();
    comment.map_or(value, |at| value[..at].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_comments_and_quotes() {
        let text = "; note\n[a]\n\tk  = v\n# note\nurl=zk://h:1/x;y ; why\nq = \"x ; y\" # z\nempty =\n\n[a]\nagain=1\n";
        let expected = [("k", "v"), ("url", "zk://h:1/x;y"), ("q", "x ; y"), ("empty", ""), ("again", "1")];
        assert_eq!(entries(text, "a").unwrap(), expected);
        assert_eq!(entries("", "a"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let other = |found: &str| Error::Section { found: found.to_owned(), expected: "a" };
        for (text, error) in [
            ("[a]\nk = 1\nnonsense\n", Error::Syntax(3)),
            ("[a\n", Error::Syntax(1)),
            ("[b]\n", other("b")),
            ("[a]\n[]\n", other("")),
            ("k = 1\n", Error::NoSection("a")),
        ] {
            assert_eq!(entries(text, "a"), Err(error), "{text}");
        }
    }
}
