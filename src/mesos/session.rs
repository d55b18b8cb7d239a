//! The common part of scheduler and executor sessions: a subscription whose response is a stream of events, and a second connection for
//! calls, which are sent without waiting for earlier responses.

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::http::{self, Connection, Head, Parser, Piece, RequestHead};
use super::recordio::{self, Decoder};

/// How long a master or an agent may take to answer SUBSCRIBE.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(30);
/// No more calls are written while the outgoing buffer holds this many bytes.
const MAX_UNSENT: usize = 256 << 10;
/// Calls taken from the queue at once.
const BATCH: usize = 128;
/// Calls that may wait to be sent.
const WAITING: usize = 1 << 17;
/// How long a peer may neither take calls nor answer any, as long as there are some.
const STALLED: Duration = Duration::from_secs(60);

/// Why there is no subscription, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Http(#[from] http::Error),
    #[error("broken event stream: {0}")]
    Frame(#[from] recordio::Error),
    #[error("undecodable event: {0}")]
    Event(#[from] prost::DecodeError),
    /// Another master leads, at this address if it was reported.
    #[error("not the leading master{}", .0.as_ref().map(|leader| format!(", which is {leader}")).unwrap_or_default())]
    NotLeading(Option<String>),
    /// The call was understood and turned down; the same call will be turned down again.
    #[error("refused with status {status}: {text}")]
    Refused { status: u16, text: String },
    /// A passing condition, such as a master that recovers its registry or an agent its executors.
    #[error("unavailable, status {status}: {text}")]
    Unavailable { status: u16, text: String },
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("{WAITING} calls wait for it")]
    Overrun,
    #[error("the event stream ended")]
    Ended,
}

/// Why a call was not accepted.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// There is no subscription, or it ended before the answer came: the call may or may not have been received.
    #[error("not connected")]
    Disconnected,
    #[error("call refused with status {status}: {text}")]
    Refused { status: u16, text: String },
}

/// The future response to a call. If it is dropped, a rejection is logged.
#[derive(Debug)]
pub struct Reply(Option<oneshot::Receiver<Result<(), CallError>>>);

impl Reply {
    /// The reply to a call that could not be sent.
    pub fn disconnected() -> Self {
        Self(None)
    }
}

impl Future for Reply {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Err(CallError::Disconnected)),
            Some(answer) => Pin::new(answer).poll(cx).map(|answer| answer.unwrap_or(Err(CallError::Disconnected))),
        }
    }
}

/// A call on its way out.
#[derive(Debug)]
pub(super) struct Outgoing<C> {
    call: C,
    answer: oneshot::Sender<Result<(), CallError>>,
}

/// Puts calls into the queue of the present session.
#[derive(Debug)]
pub(super) struct Queue<C> {
    calls: mpsc::Sender<Outgoing<C>>,
    overrun: Arc<Notify>,
}

/// The end of a [`Queue`] from which calls are delivered.
#[derive(Debug)]
pub(super) struct Calls<C> {
    calls: mpsc::Receiver<Outgoing<C>>,
    overrun: Arc<Notify>,
}

impl<C> Queue<C> {
    /// A queue, and its end for [`deliver`]. The calls in it fail when that end is dropped.
    pub(super) fn new() -> (Self, Calls<C>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let overrun = Arc::new(Notify::new());
        (Self { calls: sender, overrun: overrun.clone() }, Calls { calls: receiver, overrun })
    }

    /// A call for which there is no room ends the session: its peer takes none.
    pub(super) fn send(&self, call: C) -> Reply {
        let (answer, reply) = oneshot::channel();
        // a failed send drops `answer`, which the reply takes for a disconnection
        if let Err(mpsc::error::TrySendError::Full(_)) = self.calls.try_send(Outgoing { call, answer }) {
            self.overrun.notify_one();
        }
        Reply(Some(reply))
    }
}

/// A stream of events of type `E`.
#[derive(Debug)]
pub(super) struct Subscription<E> {
    connection: Connection,
    decoder: Decoder,
    stream_id: Option<String>,
    events: PhantomData<fn() -> E>,
}

impl<E: prost::Message + Default> Subscription<E> {
    /// Sends a SUBSCRIBE call and waits for the head of its answer.
    pub(super) async fn open(address: &str, head: &RequestHead, call: &impl prost::Message) -> Result<Self, SessionError> {
        let mut connection = Connection::open(address).await?;
        let answer = async {
            connection.send(head, call).await?;
            connection.head().await
        };
        let answer = tokio::time::timeout(SUBSCRIBE_TIMEOUT, answer).await.unwrap_or(Err(http::Error::Timeout(SUBSCRIBE_TIMEOUT)))?;
        match answer.status {
            200 => {
                let stream_id = answer.header("mesos-stream-id").map(str::to_owned);
                Ok(Self { connection, decoder: Decoder::default(), stream_id, events: PhantomData })
            }
            307 => Err(SessionError::NotLeading(answer.header("location").and_then(http::authority).map(str::to_owned))),
            status @ (400..=499) if !matches!(status, 404 | 408 | 429) => {
                Err(SessionError::Refused { status, text: connection.error_text().await })
            }
            status => Err(SessionError::Unavailable { status, text: connection.error_text().await }),
        }
    }

    /// The value that the master requires in a header of every further call.
    pub(super) fn stream_id(&self) -> Option<&str> {
        self.stream_id.as_deref()
    }

    /// The next event. Nothing is lost if the call is cancelled.
    pub(super) async fn next(&mut self) -> Result<E, SessionError> {
        loop {
            if let Some(record) = self.decoder.next_record()? {
                return Ok(E::decode(record)?);
            }
            let bytes = self.connection.body().await?.ok_or(SessionError::Ended)?;
            self.decoder.push(&bytes);
        }
    }
}

/// Sends calls as they come and hands out their answers, until the connection ends, the peer no longer leads, or the queue is closed and
/// all calls are answered. A peer that takes no calls, or does not answer, ends it, too.
pub(super) async fn deliver<C: prost::Message>(
    address: &str,
    head: &RequestHead,
    Calls { calls, overrun }: &mut Calls<C>,
) -> Result<(), SessionError> {
    let (mut stream, parser) = Connection::open(address).await?.into_parts();
    let (mut from, mut to) = stream.split();
    let (mut unsent, mut batch, mut answers) = (BytesMut::new(), Vec::with_capacity(BATCH), Answers::new(parser));
    let mut open = true;
    let mut stalled = pin!(tokio::time::sleep(STALLED));
    while open || !answers.waiting.is_empty() {
        let busy = !answers.waiting.is_empty();
        tokio::select! {
            () = &mut stalled, if busy => return Err(SessionError::Silent(STALLED)),
            () = overrun.notified() => return Err(SessionError::Overrun),
            taken = calls.recv_many(&mut batch, BATCH), if open && unsent.len() < MAX_UNSENT => {
                open = taken > 0;
                if !busy {
                    stalled.as_mut().reset(Instant::now() + STALLED);
                }
                for Outgoing { call, answer } in batch.drain(..) {
                    head.write(&call, &mut unsent);
                    answers.waiting.push_back(answer);
                }
            }
            written = to.write_buf(&mut unsent), if unsent.has_remaining() => {
                written.map_err(http::Error::Io)?;
                stalled.as_mut().reset(Instant::now() + STALLED);
            }
            read = from.read_buf(answers.parser.buffer()) => {
                if read.map_err(http::Error::Io)? == 0 {
                    return Err(http::Error::Closed.into());
                }
                answers.hand_out()?;
                stalled.as_mut().reset(Instant::now() + STALLED);
            }
        }
    }
    Ok(())
}

/// Matches the answers on a connection to the calls, which are answered in their order.
struct Answers {
    parser: Parser,
    waiting: VecDeque<oneshot::Sender<Result<(), CallError>>>,
    head: Head,
    text: BytesMut,
}

impl Answers {
    fn new(parser: Parser) -> Self {
        Self { parser, waiting: VecDeque::new(), head: Head::default(), text: BytesMut::new() }
    }

    fn hand_out(&mut self) -> Result<(), SessionError> {
        while let Some(piece) = self.parser.next_piece()? {
            match piece {
                Piece::Head(head) => self.head = head,
                Piece::Body(bytes) => self.text.extend_from_slice(&bytes),
                Piece::End if self.head.status < 200 => {}
                Piece::End => self.answer()?,
            }
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<(), SessionError> {
        let text = String::from_utf8_lossy(&self.text.split()).trim().to_owned();
        let waiting = self.waiting.pop_front().ok_or(http::Error::Malformed("an answer to no call"))?;
        let status = self.head.status;
        let result = match status {
            200..=299 => Ok(()),
            // `waiting` is dropped: disconnected
            307 => return Err(SessionError::NotLeading(self.head.header("location").and_then(http::authority).map(str::to_owned))),
            503 => return Err(SessionError::Unavailable { status, text }),
            _ => Err(CallError::Refused { status, text }),
        };
        if let Err(Err(error)) = waiting.send(result) {
            tracing::warn!("{error}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_the_calls_in_order() {
        let mut answers = Answers::new(Parser::default());
        let mut replies: Vec<_> = (0..3)
            .map(|_| {
                let (answer, reply) = oneshot::channel();
                answers.waiting.push_back(answer);
                reply
            })
            .collect();
        let accepted = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
        let bytes = format!("{accepted}HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno!{accepted}");
        answers.parser.buffer().extend_from_slice(bytes.as_bytes());
        answers.hand_out().unwrap();
        let results: Vec<_> = replies.iter_mut().map(|reply| reply.try_recv().unwrap()).collect();
        assert_eq!(results, [Ok(()), Err(CallError::Refused { status: 400, text: "no!".into() }), Ok(())]);
    }

    #[test]
    fn a_master_that_no_longer_leads_ends_the_session() {
        let mut answers = Answers::new(Parser::default());
        let (answer, mut reply) = oneshot::channel();
        answers.waiting.push_back(answer);
        let redirect = "HTTP/1.1 307 Temporary Redirect\r\nLocation: //h:5051/api\r\nContent-Length: 0\r\n\r\n";
        answers.parser.buffer().extend_from_slice(redirect.as_bytes());
        assert!(matches!(answers.hand_out(), Err(SessionError::NotLeading(Some(leader))) if leader == "h:5051"));
        assert!(reply.try_recv().is_err());
    }

    /// An agent that accepts connections and reads nothing.
    async fn peer() -> (String, tokio::net::TcpListener) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap().to_string(), listener)
    }

    fn call(size: usize) -> crate::mesos::v1::executor::Call {
        let message = crate::mesos::v1::executor::call::Message { data: vec![0; size].into() };
        crate::mesos::v1::executor::Call { message: Some(message), ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_ends_the_session() {
        let (address, _listener) = peer().await;
        let (queue, mut calls) = Queue::new();
        let reply = queue.send(call(10));
        let error = deliver(&address, &RequestHead::call(&address, "/"), &mut calls).await.unwrap_err();
        assert!(matches!(error, SessionError::Silent(STALLED)), "{error}");
        drop(calls);
        assert_eq!(reply.await, Err(CallError::Disconnected));
    }

    #[tokio::test]
    async fn calls_beyond_measure_end_the_session() {
        let (address, _listener) = peer().await;
        let (queue, mut calls) = Queue::new();
        (0..=WAITING).for_each(|_| drop(queue.send(call(0))));
        let error = deliver(&address, &RequestHead::call(&address, "/"), &mut calls).await.unwrap_err();
        assert!(matches!(error, SessionError::Overrun), "{error}");
    }
}
