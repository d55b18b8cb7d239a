//! Runs a controller: watches its sources, queues the keys they lead to, asks for plans and carries them out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::plan::{Controller, Failure, Note, Plan, Source, Tell, Write};
use super::queue::Queue;
use crate::cache::{Cache, Event};
use crate::client::events::{EventRecorder, EventType};
use crate::client::{Client, ClientError};
use crate::object::{Object, ObjectKey, ResourceRef, Revision};
use crate::supervise::Shutdown;

/// Writes of one plan under way at a time.
const WRITES: usize = 32;
/// A key rests for so many times what its plan computed, so that one object of which a part changes all the time (a ReplicaSet of thousands of pods)
/// does not keep a core busy. Shorter rests are none.
const REST: u32 = 10;
const SHORTEST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long a plan's own writes may take to come back through the cache before the next plan is made without them.
const ECHO: Duration = Duration::from_secs(5);

/// What a controller works with.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub client: Client,
    pub cache: Arc<Cache>,
    pub events: EventRecorder,
}

/// Runs `controller` until `shutdown`, on so many keys at a time.
pub(super) async fn run(controller: Arc<dyn Controller>, workers: usize, context: Context, shutdown: Shutdown) -> anyhow::Result<()> {
    let sources = controller.sources();
    let needed: Vec<ResourceRef> = sources.iter().map(|it| it.resource).chain(controller.reads()).collect();
    tokio::select! {
        () = context.cache.wait_synced(&needed) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let inbox = Arc::new(Inbox::default());
    let mut tasks = JoinSet::new();
    for source in sources {
        tasks.spawn(follow(source, context.cache.clone(), inbox.clone(), shutdown.clone()));
    }
    work(controller, workers, context, inbox, &shutdown).await;
    // Watches end at once; keys at work have been waited for.
    tasks.shutdown().await;
    Ok(())
}

/// Keys that wait for work, and a bell for the worker loop.
#[derive(Debug, Default)]
struct Inbox {
    queue: Mutex<Queue<ObjectKey>>,
    bell: Notify,
}

impl Inbox {
    fn add(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        let mut queue = self.queue.lock();
        for key in keys {
            queue.add(key);
        }
        drop(queue);
        self.bell.notify_one();
    }
}

/// Turns the changes of one source into keys, until the shutdown.
async fn follow(source: Source, cache: Arc<Cache>, inbox: Arc<Inbox>, shutdown: Shutdown) {
    let mut before: HashMap<ObjectKey, Vec<ObjectKey>> = HashMap::new();
    let mut mattered: HashMap<ObjectKey, u64> = HashMap::new();
    let mut after: Revision = 0;
    while !shutdown.is_cancelled() {
        let Ok(mut watch) = cache.watch(source.resource, source.query.clone(), after) else {
            after = 0;
            continue;
        };
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = shutdown.cancelled() => return,
            };
            let (object, gone) = match event {
                Ok(Event::Added(object) | Event::Modified(object)) => (object, false),
                Ok(Event::Deleted(object)) => (object, true),
                Ok(Event::Bookmark(_)) => continue,
                // Fell behind: begin again with everything there is. What was deleted meanwhile is found by the keys of what it led to.
                Err(_) => {
                    after = 0;
                    break;
                }
            };
            if matters(&source, &object, gone, &mut mattered) {
                inbox.add(lead(&source, &cache, &object, gone, &mut before));
            }
        }
        inbox.add(before.values().flatten().cloned());
    }
}

/// Whether a change touches what the source looks at.
fn matters(source: &Source, object: &Object, gone: bool, before: &mut HashMap<ObjectKey, u64>) -> bool {
    let Some(matters) = source.matters else { return true };
    if gone {
        before.remove(&object.key());
        return true;
    }
    let now = matters(object);
    before.insert(object.key(), now) != Some(now)
}

fn lead(source: &Source, cache: &Cache, object: &Object, gone: bool, before: &mut HashMap<ObjectKey, Vec<ObjectKey>>) -> Vec<ObjectKey> {
    let keys = (source.keys)(cache, object);
    if !source.remember {
        return keys;
    }
    let last = if gone || keys.is_empty() { before.remove(&object.key()) } else { before.insert(object.key(), keys.clone()) };
    let mut all = last.unwrap_or_default();
    all.extend(keys);
    all
}

/// Works on queued keys, several at a time, until the shutdown; then waits for those at work.
async fn work(controller: Arc<dyn Controller>, workers: usize, context: Context, inbox: Arc<Inbox>, shutdown: &Shutdown) {
    let mut at_work = JoinSet::new();
    loop {
        while at_work.len() < workers {
            let Some(key) = inbox.queue.lock().take(Instant::now()) else { break };
            let (controller, context) = (controller.clone(), context.clone());
            at_work.spawn(async move {
                let outcome = reconcile(&*controller, &context, &key).await;
                (key, outcome)
            });
        }
        let due = inbox.queue.lock().next_due();
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = inbox.bell.notified(), if at_work.len() < workers => {}
            () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() && at_work.len() < workers => {}
            Some(ended) = at_work.join_next() => settle(&*controller, &inbox, ended),
        }
    }
    while at_work.join_next().await.is_some() {}
}

fn settle(controller: &dyn Controller, inbox: &Inbox, ended: Result<(ObjectKey, Result<Next, ClientError>), tokio::task::JoinError>) {
    let (key, outcome) = match ended {
        Ok(ended) => ended,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let (mut queue, now) = (inbox.queue.lock(), Instant::now());
    match outcome {
        Ok(Next { again, rest }) => {
            if rest < SHORTEST_REST {
                queue.done(&key);
            } else {
                queue.done_resting(&key, now + rest);
            }
            if let Some(pause) = again {
                queue.add_at(key, now + pause);
            }
        }
        Err(error) => {
            let pause = queue.failed(&key, now);
            // A conflict only means that the object changed meanwhile.
            if error.is("Conflict") {
                tracing::debug!("{}: {key}: {error}", controller.name());
            } else {
                tracing::warn!("{}: {key}: {error}; trying again in {pause:?}", controller.name());
            }
        }
    }
}

/// When to work on a key again.
struct Next {
    /// Even if nothing changes.
    again: Option<Duration>,
    /// Not earlier, whatever changes.
    rest: Duration,
}

async fn reconcile(controller: &dyn Controller, context: &Context, key: &ObjectKey) -> Result<Next, ClientError> {
    let begun = worked();
    let Plan { writes, again, notes } = controller.plan(&context.cache, key, Timestamp::now());
    let rest = (worked().saturating_sub(begun) * REST).min(LONGEST_REST);
    for Note { about, kind, reason, message } in notes {
        context.events.event(&about, kind, reason, message);
    }
    let mut progress = Progress::default();
    let (creations, others) = writes.into_iter().partition(|it| matches!(it, Write::Create { tell: Some(_), .. }));
    progress.carry_out(context, others).await;
    slow_start(context, creations, &mut progress).await;
    if let Some(failure) = progress.refused.take() {
        progress.carry_out(context, controller.refused(&context.cache, key, &failure, Timestamp::now()).writes).await;
    }
    // The next plan for this key must see what this one did.
    for (resource, revision) in progress.seen {
        if tokio::time::timeout(ECHO, context.cache.wait_for(resource, revision)).await.is_err() {
            tracing::warn!("{}: {} did not reach revision {revision} within {ECHO:?}", controller.name(), resource.plural);
        }
    }
    progress.error.map_or(Ok(Next { again, rest }), Err)
}

/// How long this thread has been computing: unlike the time that passes, that of a plan does not grow by what else the machine does.
fn worked() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// What a plan's writes have come to so far.
#[derive(Default)]
struct Progress {
    /// The newest revision written, by resource.
    seen: HashMap<ResourceRef, Revision>,
    error: Option<ClientError>,
    refused: Option<Failure>,
}

impl Progress {
    /// Does these writes, several at a time, and remembers the first that failed.
    async fn carry_out(&mut self, context: &Context, writes: Vec<Write>) {
        let mut outcomes = futures_util::stream::iter(writes).map(|write| carry_out(context, write)).buffer_unordered(WRITES);
        while let Some(Outcome { written, refused }) = outcomes.next().await {
            self.refused = self.refused.take().or(refused);
            match written {
                Ok(Some(object)) => {
                    let newest = self.seen.entry(object.resource()).or_default();
                    *newest = object.revision().max(*newest);
                }
                Ok(None) => {}
                Err(error) => drop(self.error.get_or_insert(error)),
            }
        }
    }
}

/// Creates one, then two, then four and so on, and stops when one fails: a full quota is found out by one request and not by hundreds.
async fn slow_start(context: &Context, mut creations: Vec<Write>, progress: &mut Progress) {
    let mut batch = 1;
    while !creations.is_empty() && progress.error.is_none() {
        progress.carry_out(context, creations.drain(..batch.min(creations.len())).collect()).await;
        batch *= 2;
    }
}

/// What became of a write.
struct Outcome {
    /// The object as it then is, if there is one.
    written: Result<Option<Arc<Object>>, ClientError>,
    /// If it was to be told of and failed.
    refused: Option<Failure>,
}

impl From<Result<Option<Arc<Object>>, ClientError>> for Outcome {
    fn from(written: Result<Option<Arc<Object>>, ClientError>) -> Self {
        Self { written, refused: None }
    }
}

/// Does one write.
async fn carry_out(context: &Context, write: Write) -> Outcome {
    let client = &context.client;
    match write {
        Write::Create { resource, namespace, object, tell } => {
            let written = match client.create(resource, &namespace, &object).await {
                // Somebody (perhaps this controller, before a restart) was faster: that is what was wanted.
                Err(error) if error.is("AlreadyExists") && object["metadata"]["name"].is_string() => return Ok(None).into(),
                // What it is for is going away itself.
                Err(error) if error.is("Forbidden") && error.has_cause("NamespaceTerminating") => return Ok(None).into(),
                created => created,
            };
            let refused = context.tell(tell, &written, |created| created.name().to_owned());
            Outcome { written: written.map(Some), refused }
        }
        Write::Patch { key, subresource, patch } => {
            gone_is_fine(client.patch(key.resource, &key.name.namespace, &key.name.name, subresource, &patch).await.map(Some)).into()
        }
        Write::Replace { key, subresource, object } => {
            let name = &key.name;
            gone_is_fine(client.replace(key.resource, &name.namespace, &name.name, subresource, &object).await.map(Some)).into()
        }
        Write::Delete { key, options, tell } => {
            let written = gone_is_fine(client.delete(key.resource, &key.name.namespace, &key.name.name, &options).await);
            let refused = context.tell(tell, &written, |_| key.name.name.to_string());
            Outcome { written, refused }
        }
        Write::DeleteAll { resource, namespace } => client.delete_all(resource, &namespace).await.map(|()| None).into(),
        Write::DeleteUnlessFound { key, options, owners } => {
            for (owner, uid) in owners {
                match client.get(owner.resource, &owner.name.namespace, &owner.name.name).await {
                    Ok(found) if *found.meta().uid == *uid => return Ok(None).into(),
                    Err(error) if !error.is("NotFound") => return Err(error).into(),
                    _ => {}
                }
            }
            gone_is_fine(client.delete(key.resource, &key.name.namespace, &key.name.name, &options).await).into()
        }
    }
}

impl Context {
    /// Records the event of a write, by its outcome; what went wrong, if it did.
    fn tell<T>(&self, tell: Option<Tell>, written: &Result<T, ClientError>, name: impl Fn(&T) -> String) -> Option<Failure> {
        let Tell { about, success, failure: (reason, words) } = tell?;
        match written {
            Ok(written) => {
                if let Some((reason, words)) = success {
                    self.events.event(&about, EventType::Normal, reason, words.replace("{}", &name(written)));
                }
                None
            }
            Err(error) => {
                let message = error.to_string();
                self.events.event(&about, EventType::Warning, reason, words.replace("{}", &message));
                Some(Failure { reason, message })
            }
        }
    }
}

fn gone_is_fine(outcome: Result<Option<Arc<Object>>, ClientError>) -> Result<Option<Arc<Object>>, ClientError> {
    outcome.or_else(|error| if error.is("NotFound") { Ok(None) } else { Err(error) })
}
