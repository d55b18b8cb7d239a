//! The format of cases.
//!
//! ```text
//! # A remark, before a case.
//! == the title of a case
//! POST /api/v1/namespaces/{ns}/configmaps
//! + accept: application/json
//! > {"metadata":{"name":"a"}}
//! = 201
//! - warning: 299 - "what else it says"
//! < {"apiVersion":"v1","kind":"ConfigMap"}
//! ~ .metadata.labels: why km has others
//! ```
//!
//! A request is a line with method and path, its headers after `+`, and its body after `>`; a word after the path stands for the media type
//! of a patch. The response of Kubernetes follows: its code, its significant headers after `-`, and its body after `<`, in the form of
//! [`shown`](super::shown). After `~` is the path at which km's response differs (empty for all of it), and the reason: km must differ
//! there, and nowhere else.

use std::fmt::Write;

/// The media types of bodies that have a short name.
const TYPES: [(&str, &str); 5] = [
    ("merge", "application/merge-patch+json"),
    ("strategic", "application/strategic-merge-patch+json"),
    ("list", "application/json-patch+json"),
    ("apply", "application/apply-patch+yaml"),
    ("yaml", "application/yaml"),
];

/// Requests that build on each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    remarks: Vec<String>,
    pub title: String,
    pub steps: Vec<Step>,
}

/// A request, and its response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    pub method: String,
    pub path: String,
    kind: String,
    heads: Vec<(String, String)>,
    pub body: Option<String>,
    pub answer: Answer,
    pub differences: Vec<Difference>,
}

/// An answer as it is written down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub code: u16,
    pub heads: Vec<(String, String)>,
    pub body: String,
}

/// Where an answer of km is not that of Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Including everything below it.
    pub path: String,
    pub reason: String,
}

impl Step {
    pub fn create(path: &str, body: &str) -> Self {
        Self { method: "POST".to_owned(), path: path.to_owned(), body: Some(body.to_owned()), ..Self::default() }
    }

    /// The headers of the request; those for the body come first, so that the step's own override them.
    pub fn request_heads(&self) -> Vec<(&str, &str)> {
        let known = TYPES.iter().find(|(name, _)| *name == self.kind).map(|it| it.1);
        let media_type = self.body.as_ref().map(|_| known.unwrap_or("application/json"));
        let own = self.heads.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        [("accept", Some("application/json")), ("content-type", media_type)]
            .into_iter()
            .filter(|(name, _)| !self.heads.iter().any(|it| it.0 == *name))
            .filter_map(|(name, value)| Some((name, value?)))
            .chain(own.filter(|(_, value)| !value.is_empty()))
            .collect()
    }
}

/// Reads cases.
///
/// # Errors
/// Names the line that is not understood.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut remarks = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bad = || format!("line {}: {line}", number + 1);
        let pair = |text: &str| text.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())).ok_or_else(bad);
        if line.is_empty() {
            continue;
        } else if let Some(remark) = line.strip_prefix('#') {
            remarks.push(remark.trim().to_owned());
            continue;
        } else if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case { remarks: std::mem::take(&mut remarks), title: title.to_owned(), steps: Vec::new() });
            continue;
        }
        let case = cases.last_mut().ok_or_else(bad)?;
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark.len() > 1 {
            let (path, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            if !(kind.is_empty() || TYPES.iter().any(|it| it.0 == kind)) {
                return Err(bad());
            }
            let (method, path, kind) = (mark.to_owned(), path.to_owned(), kind.to_owned());
            case.steps.push(Step { method, path, kind, ..Step::default() });
            continue;
        }
        let step = case.steps.last_mut().ok_or_else(bad)?;
        let append = |body: &mut String| {
            if !body.is_empty() {
                body.push('\n');
            }
            body.push_str(rest);
        };
        match mark {
            "+" => step.heads.push(pair(rest)?),
            ">" => append(step.body.get_or_insert_default()),
            "=" => step.answer.code = rest.parse().map_err(|_| bad())?,
            "-" => step.answer.heads.push(pair(rest)?),
            "<" => append(&mut step.answer.body),
            "~" => {
                let (path, reason) = rest.split_once(": ").ok_or_else(bad)?;
                step.differences.push(Difference { path: path.to_owned(), reason: reason.to_owned() });
            }
            _ => return Err(bad()),
        }
    }
    Ok(cases)
}

/// Writes cases down.
pub fn print(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        if !out.is_empty() {
            out.push('\n');
        }
        for remark in &case.remarks {
            let _ = writeln!(out, "{}", format!("# {remark}").trim_end());
        }
        let _ = writeln!(out, "== {}", case.title);
        for step in &case.steps {
            let _ = writeln!(out, "{}", format!("{} {} {}", step.method, step.path, step.kind).trim_end());
            let mut lines = |mark: &str, lines: &mut dyn Iterator<Item = String>| {
                for line in lines {
                    let _ = writeln!(out, "{mark} {line}");
                }
            };
            lines("+", &mut step.heads.iter().map(|(name, value)| format!("{name}: {value}")));
            lines(">", &mut step.body.iter().flat_map(|it| it.split('\n')).map(str::to_owned));
            lines("=", &mut std::iter::once(step.answer.code.to_string()));
            lines("-", &mut step.answer.heads.iter().map(|(name, value)| format!("{name}: {value}")));
            lines("<", &mut step.answer.body.split('\n').filter(|_| !step.answer.body.is_empty()).map(str::to_owned));
            lines("~", &mut step.differences.iter().map(|it| format!("{}: {}", it.path, it.reason)));
        }
    }
    out
}

#[test]
fn cases_are_written_as_they_are_read() {
    let text = "# why\n== one\nPOST /a\n+ accept: text/html\n> {\n> }\n= 201\n- warning: 299 - \"x: y\"\n< {\"a\":1}\n~ .a: since\n\n\
                == two\nPATCH /b merge\n> {}\n= 404\nGET /b\n= 200\n";
    let cases = parse(text).unwrap();
    assert_eq!(print(&cases), text);
    assert_eq!(cases[0].steps[0].request_heads(), [("content-type", "application/json"), ("accept", "text/html")]);
    assert_eq!(cases[1].steps[0].request_heads(), [("accept", "application/json"), ("content-type", "application/merge-patch+json")]);
    for wrong in ["GET /a", "== a\n> b", "== a\nGET /a other", "== a\nGET /a\n= x", "== a\nGET /a\n~ x"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
