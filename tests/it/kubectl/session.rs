//! The format of transcripts: commands, their output, and their exit codes.
//!
//! ```text
//! # A remark, only before the first case.
//! == the title of a case [since 1.27]
//! -- web.yaml
//! the lines of a file
//! --
//! $ kubectl create -f web.yaml
//! pod/web created
//! $ kubectl create -f web.yaml
//! ! Error from server (AlreadyExists): error when creating "web.yaml": pods "web" already exists
//! => 1
//! ~ kubectl get pods
//! what it prints sooner or later
//! ```
//!
//! Each case has a namespace (`$NS`) and a directory. `$` marks a line for bash, `>` its continuation; then follow standard output,
//! standard error after `!`, and the exit code after `=>` unless it is 0. A line after `~` is repeated until its output is as recorded. A
//! case marked `since` is skipped with an older kubectl. [`pattern`](super::pattern) describes the placeholders in output.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::pattern;

/// How long a `~` may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Case {
    pub title: String,
    /// The oldest minor version of kubectl that it is for.
    pub since: u32,
    files: Vec<(String, String)>,
    steps: Vec<Step>,
}

#[derive(Debug, Default)]
struct Step {
    line: String,
    again: bool,
    stdout: String,
    stderr: String,
    code: i32,
}

/// Reads a transcript.
///
/// # Errors
/// Names the line that is not understood.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut file = None;
    for (number, line) in text.lines().enumerate() {
        let bad = |what: &str| format!("line {}: {what}: {line}", number + 1);
        if let Some(title) = line.strip_prefix("== ") {
            let (title, since) = match title.trim_end_matches(']').split_once(" [since 1.") {
                Some((title, since)) => (title, since.parse().map_err(|_| bad("not a version"))?),
                None => (title, 0),
            };
            cases.push(Case { title: title.to_owned(), since, ..Case::default() });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            return Err(bad("not in a case"));
        };
        if file.is_some() && line == "--" {
            file = None;
        } else if let Some(content) = file.and_then(|at: usize| case.files.get_mut(at)) {
            content.1.push_str(line);
            content.1.push('\n');
        } else if let Some(name) = line.strip_prefix("-- ") {
            file = Some(case.files.len());
            case.files.push((name.to_owned(), String::new()));
        } else if let Some((again, line)) = line.strip_prefix("$ ").map(|it| (false, it)).or_else(|| Some((true, line.strip_prefix("~ ")?)))
        {
            case.steps.push(Step { line: line.to_owned(), again, ..Step::default() });
        } else if let Some(step) = case.steps.last_mut() {
            if let Some(more) = line.strip_prefix("> ") {
                step.line.push('\n');
                step.line.push_str(more);
            } else if let Some(error) = line.strip_prefix("! ") {
                step.stderr.push_str(error);
                step.stderr.push('\n');
            } else if let Some(code) = line.strip_prefix("=> ") {
                step.code = code.parse().map_err(|_| bad("not an exit code"))?;
            } else {
                step.stdout.push_str(line);
                step.stdout.push('\n');
            }
        } else if !line.is_empty() {
            return Err(bad("before the first command"));
        }
    }
    if file.is_some() { Err("the last file has no end".to_owned()) } else { Ok(cases) }
}

impl Case {
    /// The title, as a name.
    pub fn namespace(&self) -> String {
        let words: String = self.title.to_lowercase().chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
        words.split('-').filter(|it| !it.is_empty()).collect::<Vec<_>>().join("-").chars().take(60).collect()
    }

    /// Runs the lines of the case.
    ///
    /// # Errors
    /// The first line with a different result, and that result.
    pub fn play(&self, cluster: &Cluster) -> Result<(), String> {
        let namespace = self.namespace();
        for (name, content) in &self.files {
            std::fs::write(cluster.home(&namespace).join(name), content).map_err(|error| format!("{name}: {error}"))?;
        }
        for step in &self.steps {
            let began = Instant::now();
            loop {
                match step.run(cluster, &namespace) {
                    Ok(()) => break,
                    Err(_) if step.again && began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(100)),
                    Err(seen) => return Err(seen),
                }
            }
        }
        Ok(())
    }
}

impl Step {
    fn run(&self, cluster: &Cluster, namespace: &str) -> Result<(), String> {
        let output = cluster.shell(namespace, &self.line);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let code = output.status.code().unwrap_or(-1);
        let is = |expected: &str, seen: &str| pattern::matches(&expected.replace("<ns>", namespace), seen);
        if code == self.code && is(&self.stdout, &stdout) && is(&self.stderr, &stderr) {
            return Ok(());
        }
        let show = |stdout: &str, stderr: &str, code: i32| {
            let stderr: String = stderr.lines().map(|it| format!("! {it}\n")).collect();
            format!(
                "{}{stderr}=> {code}",
                if stdout.is_empty() || stdout.ends_with('\n') { stdout.to_owned() } else { format!("{stdout}\n") }
            )
        };
        let (expected, seen) = (show(&self.stdout, &self.stderr, self.code), show(&stdout, &stderr, code));
        Err(format!("$ {}\n-- expected\n{expected}\n-- seen\n{seen}", self.line))
    }
}
