//! The task registry: every pod that was handed to Mesos, from launch to end of its task.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::queue::Waiting;
use super::taskid::{self, Stem};
use crate::object::{Name, Object};
use crate::util::duration;

/// The progress of a task. A waiting pod is in the queue and has no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Sent to Mesos; no status yet.
    Launched,
    /// The executor has bound the pod, or is about to.
    Starting,
    Running,
    /// Ended by itself. Kept for a while, for later status queries.
    Finished,
}

/// A pod's task.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: Arc<str>,
    pub pod: Name,
    pub uid: Box<str>,
    /// The pod's newest state; `None` if deleted from the API server.
    pub object: Option<Arc<Object>>,
    pub owner: Option<Box<str>>,
    pub agent: Arc<str>,
    pub host: Arc<str>,
    /// The first of the offers with which it was launched.
    pub offer: Box<str>,
    pub state: State,
    /// The pod is bound: the API server has its task and place.
    pub bound: bool,
    /// The number of earlier failed launches of this pod.
    pub attempts: u32,
    pub launched_at: Duration,
    /// Since when the master does not know the task's agent.
    pub unknown_since: Option<Unknown>,
    /// Set if the task is being killed because its pod is deleted.
    pub kill: Option<Kill>,
}

impl Task {
    /// The task of a pod that was just launched with an offer.
    pub fn launched(id: &str, waiting: Waiting, agent: Arc<str>, host: Arc<str>, offer: &str, now: Duration) -> Self {
        Self {
            id: id.into(),
            pod: waiting.name,
            uid: waiting.uid,
            object: Some(waiting.pod),
            owner: waiting.owner,
            agent,
            host,
            offer: offer.into(),
            state: State::Launched,
            bound: false,
            attempts: waiting.attempts,
            launched_at: now,
            unknown_since: None,
            kill: None,
        }
    }
}

/// The master's first answer that it does not know an agent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unknown {
    /// When it was received.
    pub read: Duration,
    /// When it was sent, by the master's clock: `TaskStatus.timestamp`, in seconds.
    pub given: Option<f64>,
}

impl Unknown {
    /// How long the agent has certainly been unknown. An answer may be received long after it was sent, and clocks of masters differ.
    pub fn age(&self, read: Duration, given: Option<f64>) -> Duration {
        let by_reading = read.saturating_sub(self.read);
        let by_giving = self.given.zip(given).map(|(first, last)| Duration::try_from_secs_f64(last - first).unwrap_or_default());
        by_giving.map_or(by_reading, |it| it.min(by_reading))
    }
}

/// A requested kill.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    /// Grace period of the containers, in seconds.
    pub grace: i64,
    /// When the next KILL is sent. Mesos may lose one, so it is repeated until the task ends.
    pub next: Duration,
    pause: Duration,
}

/// Bound of the finished tasks that are kept.
const REMEMBERED: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub struct Tasks {
    by_id: HashMap<Arc<str>, Task>,
    by_pod: HashMap<Name, Arc<str>>,
    by_stem: HashMap<Stem, Arc<str>>,
    /// The number of unfinished tasks per agent.
    live: HashMap<Arc<str>, usize>,
    finished: VecDeque<Arc<str>>,
    kills: BTreeSet<(Duration, Arc<str>)>,
}

impl Tasks {
    /// Adds a task that was launched, or found again. It replaces a task of the same id.
    pub fn insert(&mut self, task: Task) {
        self.remove(&task.id);
        self.by_pod.insert(task.pod.clone(), task.id.clone());
        if let Some(stem) = taskid::stem_of(&task.id) {
            self.by_stem.insert(stem, task.id.clone());
        }
        *self.live.entry(task.agent.clone()).or_default() += 1;
        self.by_id.insert(task.id.clone(), task);
    }

    pub fn get(&self, id: &str) -> Option<&Task> {
        self.by_id.get(id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.by_id.get_mut(id)
    }

    /// The unfinished or finished task of a pod.
    pub fn of_pod(&self, pod: &Name) -> Option<&Task> {
        self.by_id.get(self.by_pod.get(pod)?)
    }

    /// The newest task with the stem of this id, which is another launch of the same pod or the task itself.
    pub fn twin(&self, id: &str) -> Option<&Task> {
        self.by_id.get(self.by_stem.get(&taskid::stem_of(id)?)?)
    }

    /// Removes a task that ended abnormally, or whose pod is gone.
    pub fn remove(&mut self, id: &str) -> Option<Task> {
        let task = self.by_id.remove(id)?;
        if self.by_pod.get(&task.pod) == Some(&task.id) {
            self.by_pod.remove(&task.pod);
        }
        if let Some(stem) = taskid::stem_of(id)
            && self.by_stem.get(&stem) == Some(&task.id)
        {
            self.by_stem.remove(&stem);
        }
        self.end(&task);
        Some(task)
    }

    /// Marks a task as ended by itself.
    pub fn finish(&mut self, id: &str) {
        let Some(mut task) = self.by_id.get(id).cloned() else { return };
        if task.state == State::Finished {
            return;
        }
        self.end(&task);
        (task.state, task.kill) = (State::Finished, None);
        self.finished.push_back(task.id.clone());
        self.by_id.insert(task.id.clone(), task);
        if self.finished.len() > REMEMBERED
            && let Some(oldest) = self.finished.pop_front()
        {
            self.remove(&oldest);
        }
    }

    fn end(&mut self, task: &Task) {
        if let Some(kill) = &task.kill {
            self.kills.remove(&(kill.next, task.id.clone()));
        }
        if task.state == State::Finished {
            self.finished.retain(|it| *it != task.id);
        } else if let Some(count) = self.live.get_mut(&task.agent) {
            *count -= 1;
            if *count == 0 {
                self.live.remove(&task.agent);
            }
        }
    }

    /// Schedules the kill of a task, unless it ends by itself before `at`. Returns whether that is new: not if a kill with the same or a
    /// shorter grace (in seconds) is already requested.
    pub fn kill(&mut self, at: Duration, id: &str, grace: i64) -> bool {
        let Some(task) = self.by_id.get_mut(id).filter(|it| it.state != State::Finished) else { return false };
        let sooner = task.kill.as_ref().is_none_or(|kill| grace < kill.grace);
        if !sooner {
            return false;
        }
        if let Some(kill) = &task.kill {
            self.kills.remove(&(kill.next, task.id.clone()));
        }
        let pause = FIRST_PAUSE + duration::of_user(grace).unsigned_abs();
        let kill = Kill { grace, next: at, pause };
        self.kills.insert((kill.next, task.id.clone()));
        task.kill = Some(kill);
        true
    }

    /// Tasks that need a KILL now, the first or a repeated one.
    pub fn due_kills(&mut self, now: Duration) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.kills.first()
            && *at <= now
        {
            let Some((_, id)) = self.kills.pop_first() else { break };
            let Some(kill) = self.by_id.get_mut(&id).and_then(|it| it.kill.as_mut()) else { continue };
            kill.next = now + kill.pause;
            kill.pause = kill.pause.saturating_mul(2).min(LONGEST_PAUSE);
            self.kills.insert((kill.next, id.clone()));
            due.push(id);
        }
        due
    }

    /// Makes every KILL due again: earlier ones may be lost.
    pub fn repeat_kills(&mut self, now: Duration) {
        for (_, id) in std::mem::take(&mut self.kills) {
            if let Some(kill) = self.by_id.get_mut(&id).and_then(|it| it.kill.as_mut()) {
                kill.next = kill.next.min(now);
                self.kills.insert((kill.next, id));
            }
        }
    }

    pub fn next_kill(&self) -> Option<Duration> {
        self.kills.first().map(|(at, _)| *at)
    }

    /// Whether the agent has an unfinished task.
    pub fn any_on(&self, agent: &str) -> bool {
        self.live.contains_key(agent)
    }

    /// Agents with tasks, each once.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<str>> {
        self.live.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.by_id.values()
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn task(id: &str) -> Task {
        Task {
            id: id.into(),
            pod: Name::new("n", id),
            uid: id.into(),
            object: None,
            owner: None,
            agent: "a".into(),
            host: "h".into(),
            offer: "o".into(),
            state: State::Launched,
            bound: false,
            attempts: 0,
            launched_at: S,
            unknown_since: None,
            kill: None,
        }
    }

    #[test]
    fn agents_are_free_when_their_tasks_ended() {
        let mut tasks = Tasks::default();
        tasks.insert(task("1"));
        tasks.insert(task("2"));
        tasks.finish("1");
        tasks.finish("1");
        assert!(tasks.any_on("a"));
        tasks.remove("2");
        assert!(!tasks.any_on("a"));
        assert_eq!(tasks.of_pod(&Name::new("n", "1")).unwrap().state, State::Finished);
        tasks.remove("1");
        assert!(tasks.is_empty() && tasks.finished.is_empty() && tasks.live.is_empty());
    }

    #[test]
    fn finished_tasks_are_forgotten_in_the_end() {
        let mut tasks = Tasks::default();
        for number in 0..REMEMBERED + 10 {
            let id = number.to_string();
            tasks.insert(task(&id));
            tasks.finish(&id);
        }
        assert_eq!(tasks.len(), REMEMBERED);
        assert!(tasks.get("9").is_none() && tasks.get("10").is_some());
    }

    #[test]
    fn kills_are_repeated_until_the_end() {
        let mut tasks = Tasks::default();
        tasks.insert(task("1"));
        assert!(tasks.kill(S, "1", 30) && !tasks.kill(S, "1", 30));
        assert_eq!((tasks.due_kills(S), tasks.next_kill()), (vec!["1".into()], Some(S * 36)));
        assert!(tasks.kill(S * 2, "1", 0), "a shorter grace is news");
        assert_eq!((tasks.due_kills(S * 2), tasks.next_kill()), (vec!["1".into()], Some(S * 7)));
        assert_eq!((tasks.due_kills(S * 7), tasks.next_kill()), (vec!["1".into()], Some(S * 17)));
        tasks.finish("1");
        assert_eq!((tasks.next_kill(), tasks.kill(S, "1", 0)), (None, false));
    }

    #[test]
    fn a_kill_with_any_grace_is_repeated() {
        for grace in [i64::MIN, -1, 0, i64::MAX] {
            let mut tasks = Tasks::default();
            tasks.insert(task("1"));
            assert!(tasks.kill(S, "1", grace));
            for _ in 0..3 {
                let at = tasks.next_kill().unwrap();
                assert_eq!(tasks.due_kills(at), ["1".into()], "{grace}");
            }
        }
    }

    #[test]
    fn a_task_that_is_found_twice_counts_once() {
        let mut tasks = Tasks::default();
        tasks.insert(task("1"));
        tasks.kill(S, "1", 0);
        tasks.insert(Task { pod: Name::new("n", "other"), ..task("1") });
        assert_eq!((tasks.due_kills(S * 9), tasks.next_kill(), tasks.len()), (Vec::new(), None, 1));
        assert!(tasks.of_pod(&Name::new("n", "1")).is_none() && tasks.of_pod(&Name::new("n", "other")).is_some());
        tasks.finish("1");
        tasks.insert(task("1"));
        assert!(tasks.finished.is_empty() && tasks.any_on("a"));
        tasks.remove("1");
        assert!(!tasks.any_on("a"));
    }

    #[test]
    fn launches_of_a_pod_are_found_by_their_stem() {
        let mut tasks = Tasks::default();
        let (one, two) = (taskid::task_id("u", 1), taskid::task_id("u", 2));
        tasks.insert(task(&one));
        assert_eq!(tasks.twin(&two).map(|it| &*it.id), Some(&*one));
        assert!(tasks.twin(&taskid::task_id("v", 1)).is_none() && tasks.twin("x").is_none());
        tasks.remove(&one);
        assert!(tasks.twin(&two).is_none() && tasks.by_stem.is_empty());
    }
}
