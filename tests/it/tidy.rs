//! Rules for the source tree as a whole: layers, sizes and heads of files, and forbidden words.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::source;

/// No file is longer than this.
const LINES: usize = 800;
/// Left open, or switched off. (Split, so that this file does not find itself.)
const UNFINISHED: [&str; 4] = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[", "ignore]"), concat!("FIX", "ME")];
/// Directories that belong to one machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Every file below a directory of the source tree, with its path from the top.
fn files(dir: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries.map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { walk(&entry, found) } else { found.push(entry) }
        }
    }
    let mut found = Vec::new();
    walk(&source(dir), &mut found);
    found.sort();
    let top = source("");
    found
        .into_iter()
        .filter_map(|path| {
            // Skip files that are not text.
            let text = String::from_utf8(std::fs::read(&path).unwrap()).ok()?;
            Some((path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned(), text))
        })
        .collect()
}

fn rust(dir: &str) -> impl Iterator<Item = (String, String)> {
    files(dir).into_iter().filter(|(path, _)| path.ends_with(".rs"))
}

fn check(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The names that code uses directly below `crate::`, each with the number of its line.
fn used(text: &str) -> Vec<(usize, String)> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let word = |at: usize| code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let begin = at + path.len();
        if !code[begin..].starts_with('{') {
            found.push(begin);
            continue;
        }
        // The first name after the brace and after each comma that is not in a brace of its own.
        let (mut depth, mut begins) = (0, true);
        for (at, c) in code[begin + 1..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' => begins = depth == 0,
                c if begins && c.is_alphabetic() => {
                    found.push(begin + 1 + at);
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found.into_iter().map(|at| (code[..at].matches('\n').count() + 1, word(at))).collect()
}

#[test]
fn names_below_the_crate_are_found() {
    for (text, expected) in [
        ("use crate::object::Revision;", &[(1, "object")][..]),
        ("    let a: crate::util::A = crate::store::b(); // crate::cli", &[(1, "util"), (1, "store")]),
        ("use crate::{object, store::{Store, etcd}, util};", &[(1, "object"), (1, "store"), (1, "util")]),
        (
            "use crate::{\n    object, // not cli\n    store::{\n        etcd,\n    },\n    util,\n};",
            &[(2, "object"), (3, "store"), (6, "util")],
        ),
        ("pub(crate) fn a() {}", &[]),
    ] {
        let used = used(text);
        let used: Vec<_> = used.iter().map(|(line, name)| (*line, name.as_str())).collect();
        assert_eq!(used, expected, "{text}");
    }
}

#[test]
fn a_module_uses_only_those_below_it() {
    let lib = std::fs::read_to_string(source("src/lib.rs")).unwrap();
    let layers: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(layers.len() > 10, "{layers:?}");
    let layer = |name: &str| layers.iter().position(|layer| *layer == name);
    let mut problems = Vec::new();
    for (path, text) in rust("src") {
        let own = path.split('/').nth(1).unwrap_or_default();
        if matches!(own, "lib.rs" | "main.rs" | "cli") {
            continue;
        }
        let Some(own) = layer(own) else {
            problems.push(format!("{path}: is in no module that src/lib.rs lists"));
            continue;
        };
        for (line, name) in used(&text) {
            if layer(&name).is_some_and(|used| used > own) {
                problems.push(format!("{path}:{line}: {} may not use {name}, which is above it", layers[own]));
            }
        }
    }
    check(&problems);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut problems = Vec::new();
    for (path, text) in rust("src").chain(rust("tests")).chain(rust("benches")) {
        let lines = text.lines().count();
        if lines > LINES {
            problems.push(format!("{path}: {lines} lines; split it"));
        }
        if !text.trim().is_empty() && !text.starts_with("//! ") {
            problems.push(format!("{path}: does not begin with what it is for (//!)"));
        }
    }
    check(&problems);
}

#[test]
fn nothing_is_left_open_and_nothing_belongs_to_one_machine() {
    let mut problems = Vec::new();
    let top = ["Cargo.toml", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|path| (path.to_owned(), path));
    let top = top.into_iter().filter_map(|(path, file)| Some((path, std::fs::read_to_string(source(file)).ok()?)));
    let dirs = ["src", "tests", "benches", "scripts", "templates"].into_iter().filter(|dir| source(dir).is_dir());
    for (path, text) in dirs.flat_map(files).chain(top) {
        for (number, line) in text.lines().enumerate() {
            for word in UNFINISHED.iter().chain(&MACHINE_PATHS).filter(|word| line.contains(**word)) {
                problems.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
    check(&problems);
}

#[test]
fn scripts_explain_themselves() {
    let mut problems = Vec::new();
    for (path, text) in files("scripts") {
        // Helpers in a directory of their own are not called by people, nor is the compiler's stand-in.
        if path.matches('/').count() > 1 || path.ends_with("protoc-shim") || !text.starts_with("#!") {
            continue;
        }
        // A script that does not know --help must not be run with it: it might start to work.
        if !text.contains("--help") {
            problems.push(format!("{path}: does not know --help"));
            continue;
        }
        let output = Command::new(source(&path)).arg("--help").output().unwrap_or_else(|error| panic!("{path}: {error}"));
        if !output.status.success() || output.stdout.is_empty() {
            problems.push(format!("{path} --help: {}, {} bytes", output.status, output.stdout.len()));
        }
    }
    check(&problems);
}
