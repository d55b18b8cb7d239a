//! The life of one pod on its node, without I/O: its machine, the termination messages of its containers, and its published status.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::names::PodId;
use super::pod::{Action, Input, Machine};
use super::status::{Host, Messages, pod_status};

/// A notice from the executor to a life.
#[derive(Debug)]
pub enum Notice {
    Pod(Arc<Pod>),
    Gone,
    Terminate { grace: Option<i64> },
    Changed,
}

impl From<Notice> for Input {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Pod(pod) => Self::Pod(pod),
            Notice::Gone => Self::Gone,
            Notice::Terminate { grace } => Self::Terminate { grace },
            Notice::Changed => Self::Changed,
        }
    }
}

/// A pod's status, whenever it changes.
#[derive(Clone, Debug)]
pub struct Report {
    pub pod: PodId,
    pub status: PodStatus,
    /// Whether the pod is on its way out.
    pub ending: bool,
}

/// The results of an input, to be carried out in this order.
#[derive(Debug, Default)]
pub struct Step {
    pub actions: Vec<Action>,
    /// To be written to the API, and passed to the executor.
    pub report: Option<Report>,
    /// Complete the pod's deletion in the API, after the report.
    pub finish: bool,
}

/// A pod's machine, with its published status.
#[derive(Debug)]
pub struct Life {
    machine: Machine,
    messages: Messages,
    published: Option<PodStatus>,
}

impl Life {
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { published: pod.status.clone(), machine: Machine::new(pod), messages: Messages::new() }
    }

    /// The same, with the files of its volumes brought up to date this often; zero means never.
    #[must_use]
    pub fn refreshed_every(mut self, period: SignedDuration) -> Self {
        self.machine = self.machine.refreshed_every(period);
        self
    }

    /// Begins again with what was asked of it and has been published, after it failed.
    pub fn begin_again(&mut self) {
        self.machine = self.machine.afresh();
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Adds termination messages of containers.
    pub fn learn(&mut self, messages: Messages) {
        self.messages.extend(messages);
    }

    /// Processes one input and returns the resulting actions.
    pub fn handle(&mut self, input: Input, host: &Host, now: Timestamp) -> Step {
        let mut actions = self.machine.handle(input, now);
        let count = actions.len();
        actions.retain(|action| *action != Action::Finish);
        Step { finish: actions.len() < count, actions, report: self.publish(host, now) }
    }

    /// The pod's status, if it is another than the last.
    fn publish(&mut self, host: &Host, now: Timestamp) -> Option<Report> {
        let view = self.machine.view();
        if self.machine.is_gone() || (!view.observed && self.published.is_some()) {
            return None;
        }
        let status = pod_status(&view, host, &self.messages, self.published.as_ref(), now);
        if self.published.as_ref() == Some(&status) {
            return None;
        }
        let id = self.machine.id();
        if self.published.as_ref().and_then(|last| last.phase.as_ref()) != status.phase.as_ref() {
            tracing::info!(pod = %id, "{}", status.phase.as_deref().unwrap_or_default());
        }
        self.published = Some(status.clone());
        Some(Report { pod: id.clone(), status, ending: self.machine.is_ending() })
    }
}
