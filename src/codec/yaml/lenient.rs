//! YAML that is invalid by now but accepted by Kubernetes' parser: lines within brackets or quotes that begin left of their parent, and
//! tabs after a colon. Indentation has no meaning there, so that the text can be repaired.

use saphyr_parser::ScanError;

/// The text with the first such fault repaired, if the error is one of these.
pub(super) fn mended(text: &str, error: &ScanError) -> Option<String> {
    let at = error.marker();
    match error.info() {
        "invalid indentation" | "invalid indentation in flow construct" => indented(text, at.line()),
        // The error names the beginning of the scalar, which includes all lines before the faulty one.
        "invalid indentation in quoted scalar" => {
            let lines = text.split('\n').enumerate().skip(at.line());
            let line = lines.filter(|(_, it)| !it.trim().is_empty()).find(|(_, it)| indentation(it) < at.col())?.0 + 1;
            indented(text, line)
        }
        "':' must be followed by a valid YAML whitespace" => {
            let start = line_start(text, at.line())?;
            let end = start + text[start..].char_indices().nth(at.col())?.0;
            let blanks = text[..end].trim_end_matches([' ', '\t']).len().max(start);
            let spaces = " ".repeat(end - blanks);
            (text[blanks..end] != spaces).then(|| [&text[..blanks], &spaces, &text[end..]].concat())
        }
        _ => None,
    }
}

/// Bound of the faults of a text: each line is indented at most once, and each tab replaced.
pub(super) fn most_faults(text: &str) -> usize {
    1 + text.bytes().filter(|byte| matches!(byte, b'\n' | b'\t')).count()
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn deepest(text: &str) -> usize {
    text.split('\n').map(indentation).max().unwrap_or_default()
}

/// Where a line begins; they count from one.
fn line_start(text: &str, line: usize) -> Option<usize> {
    match line.checked_sub(2) {
        None => Some(0),
        Some(before) => text.match_indices('\n').nth(before).map(|(at, _)| at + 1),
    }
}

/// With this line indented deeper than any other.
fn indented(text: &str, line: usize) -> Option<String> {
    let start = line_start(text, line)?;
    let spaces = " ".repeat(deepest(text) + 1 - indentation(text[start..].split('\n').next()?));
    Some([&text[..start], &spaces, &text[start..]].concat())
}
