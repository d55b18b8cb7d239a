//! The master's checks of a task before it reaches an agent.

use super::agent::Agent;
use super::resources::Resources;
use crate::mesos::v1::{ExecutorInfo, FrameworkInfo, TaskInfo};

/// Checks a task against the remaining resources of the accepted offers, and returns the resources that it takes.
///
/// # Errors
/// With the message of the framework's TASK_ERROR.
pub(super) fn task(
    info: &TaskInfo,
    executor: &ExecutorInfo,
    framework: &FrameworkInfo,
    agent: &Agent,
    known: bool,
    left: &Resources,
) -> Result<Resources, String> {
    let id = &info.task_id.value;
    identifier("TaskID", id)?;
    if known {
        return Err(format!("Task has duplicate ID: {id}"));
    }
    if agent.info.id.as_ref() != Some(&info.agent_id) {
        let expected = agent.info.id.clone().unwrap_or_default();
        return Err(format!("Task uses invalid agent {} while agent {expected} is expected", info.agent_id));
    }
    identifier("ExecutorID", &executor.executor_id.value)?;
    if executor.framework_id.as_ref().is_some_and(|id| framework.id.as_ref() != Some(id)) {
        return Err(format!("ExecutorInfo has an invalid FrameworkID, it is not that of {}", framework.name));
    }
    let mut wanted = Resources::of(&info.resources)?;
    if wanted.is_empty() {
        return Err("Task uses no resources".to_owned());
    }
    let key = (framework.id.clone().unwrap_or_default().value, executor.executor_id.value.clone());
    match agent.executor(&key) {
        Some(running) if with_id(&running.info, framework) != with_id(executor, framework) => {
            return Err(format!("ExecutorInfo of {} is not compatible with the existing executor of that id", executor.executor_id));
        }
        Some(_) => {}
        None => wanted.add(&Resources::of(&executor.resources)?),
    }
    if !left.contains(&wanted) {
        return Err(format!("Task uses more resources {wanted} than available {left}"));
    }
    Ok(wanted)
}

/// The executor of a task.
///
/// # Errors
/// If there is none: this cluster has no executor for bare commands.
pub(super) fn executor_of(info: &TaskInfo) -> Result<&ExecutorInfo, String> {
    match (&info.executor, &info.command) {
        (Some(executor), None) => Ok(executor),
        (None, Some(_)) => Err("This cluster runs only tasks that have an ExecutorInfo".to_owned()),
        _ => Err("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present".to_owned()),
    }
}

/// A framework's own description.
///
/// # Errors
/// If it cannot subscribe like this.
pub(super) fn framework(info: &FrameworkInfo) -> Result<(), String> {
    if let Some(id) = &info.id {
        identifier("FrameworkID", &id.value)?;
    }
    let bad = |role: &&String| role.is_empty() || role.split('/').any(|part| matches!(part, "" | "." | "..") || part.starts_with('-'));
    match info.roles.iter().chain(&info.role).find(bad) {
        Some(role) => Err(format!("Role '{role}' is not valid")),
        None => Ok(()),
    }
}

/// Executors are compared without their framework's id and with resources by their sum: both may or may not be filled in.
fn with_id(executor: &ExecutorInfo, framework: &FrameworkInfo) -> (ExecutorInfo, Resources) {
    let resources = Resources::of(&executor.resources).unwrap_or_default();
    (ExecutorInfo { framework_id: framework.id.clone(), resources: Vec::new(), ..executor.clone() }, resources)
}

/// Ids become names of directories.
fn identifier(what: &str, id: &str) -> Result<(), String> {
    let bad = |character: char| character.is_control() || matches!(character, '/' | '\\');
    if id.is_empty() || id.len() > 255 || matches!(id, "." | "..") || id.chars().any(bad) {
        return Err(format!("{what} '{id}' is not valid"));
    }
    Ok(())
}
