//! The queue of notices to the worker of a pod. It holds only the newest notice of each kind, so a slow worker does not make it grow.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::life::Notice;

/// The sending end. The worker notices when it is dropped.
#[derive(Debug)]
pub struct Mailbox(Arc<Inner>);

/// The receiving end.
#[derive(Debug)]
pub struct Notices(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    notices: VecDeque<Notice>,
    closed: bool,
}

pub fn mailbox() -> (Mailbox, Notices) {
    let inner = Arc::<Inner>::default();
    (Mailbox(inner.clone()), Notices(inner))
}

impl Mailbox {
    pub fn put(&self, notice: Notice) {
        self.0.waiting.lock().put(notice);
        self.0.changed.notify_one();
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.0.waiting.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Notices {
    /// The next notice; `None` once the sending end is dropped. Cancel safe.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            {
                let mut waiting = self.0.waiting.lock();
                if waiting.closed || !waiting.notices.is_empty() {
                    return waiting.notices.pop_front();
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Waiting {
    fn put(&mut self, notice: Notice) {
        for waiting in &mut self.notices {
            match (waiting, &notice) {
                // The shortest grace counts. That of the pod itself is not known here.
                (Notice::Terminate { grace: Some(old) }, Notice::Terminate { grace: Some(new) }) => return *old = (*old).min(*new),
                (Notice::Terminate { grace: old }, Notice::Terminate { grace: new }) if old != new => {}
                (waiting, _) if discriminant(waiting) == discriminant(&notice) => return *waiting = notice,
                _ => {}
            }
        }
        self.notices.push_back(notice);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[tokio::test]
    async fn the_newest_of_each_kind_waits() {
        let (mailbox, mut notices) = mailbox();
        let pod = |name: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.to_owned());
            Notice::Pod(Arc::new(pod))
        };
        for round in 0..100 {
            mailbox.put(pod(&round.to_string()));
            mailbox.put(Notice::Changed);
            mailbox.put(Notice::Terminate { grace: Some(5 + (round + 50) % 100) });
            mailbox.put(Notice::Terminate { grace: None });
        }
        mailbox.put(Notice::Gone);
        drop(mailbox);
        let mut read = Vec::new();
        while let Some(notice) = notices.next().await {
            read.push(match notice {
                Notice::Pod(pod) => pod.metadata.name.clone().unwrap_or_default(),
                other => format!("{other:?}"),
            });
        }
        assert_eq!(read, ["99", "Changed", "Terminate { grace: Some(5) }", "Terminate { grace: None }", "Gone"]);
    }
}
