//! Events on their way to a scheduler or an executor. One that does not read them loses its connection, and gets them anew in the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes that may wait for a peer: more than any burst makes, as when a framework asks for the state of all its tasks.
const LIMIT: usize = 256 << 20;

/// The cluster's end.
pub(super) struct Events {
    sender: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// The connection's end. It ends when the other end is dropped.
pub(super) struct Waiting {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn channel() -> (Events, Waiting) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::default();
    (Events { sender, waiting: Arc::clone(&waiting) }, Waiting { receiver, waiting })
}

impl Events {
    /// Returns whether the peer still takes events; if not, its connection must be closed.
    #[must_use]
    pub(super) fn send(&self, event: Bytes) -> bool {
        let size = event.len();
        self.waiting.fetch_add(size, Ordering::Relaxed) + size <= LIMIT && self.sender.send(event).is_ok()
    }
}

impl Waiting {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let event = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(event)) = &event {
            self.waiting.fetch_sub(event.len(), Ordering::Relaxed);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_much_waits_for_a_peer() {
        let (events, mut waiting) = channel();
        let event = Bytes::from(vec![0; LIMIT / 4]);
        assert!((0..4).all(|_| events.send(event.clone())));
        assert!(std::future::poll_fn(|cx| waiting.poll_next(cx)).await.is_some());
        assert!(events.send(event.clone()), "there is room again");
        assert!(!events.send(event.clone()));
        drop(events);
        for _ in 0..4 {
            assert!(std::future::poll_fn(|cx| waiting.poll_next(cx)).await.is_some());
        }
        assert!(std::future::poll_fn(|cx| waiting.poll_next(cx)).await.is_none());
    }
}
