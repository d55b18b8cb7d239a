//! Runs a controller: watches its sources, queues the keys they lead to, asks for plans and carries them out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::metrics::Workqueue;
use super::plan::{Controller, Failure, Note, Plan, Source, Tell, Write};
use super::queue::Queue;
use crate::cache::{Cache, Event};
use crate::client::events::{EventRecorder, EventType};
use crate::client::{Client, ClientError};
use crate::object::{Object, ObjectKey, ResourceRef, Revision, Status};
use crate::supervise::{Shutdown, contain};

/// Writes of one plan under way at a time.
const WRITES: usize = 32;
/// A key rests this many times as long as its plan computed, so that one object with parts that change all the time (a ReplicaSet of
/// thousands of pods) does not keep a core busy. Shorter rests are skipped.
const REST: u32 = 10;
const SHORTEST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long to wait for a plan's own writes before the worker turns to other keys.
const ECHO: Duration = Duration::from_secs(5);
/// How long to wait for them before planning for the same key without them. Planning too early would repeat the writes.
const OWED: Duration = Duration::from_secs(300);
/// Pause between such waits.
const OWED_PAUSE: Duration = Duration::from_secs(1);

/// The shared dependencies of controllers.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub client: Client,
    pub cache: Arc<Cache>,
    pub events: EventRecorder,
    pub metrics: Workqueue,
}

/// Runs `controller` until `shutdown`, with this many concurrent keys.
pub(super) async fn run(controller: Arc<dyn Controller>, workers: usize, context: Context, shutdown: Shutdown) -> anyhow::Result<()> {
    let sources = controller.sources();
    let needed: Vec<ResourceRef> = sources.iter().map(|it| it.resource).chain(controller.reads()).collect();
    tokio::select! {
        () = context.cache.wait_synced(&needed) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let inbox = Arc::new(Inbox { queue: Mutex::default(), bell: Notify::new(), metrics: context.metrics.clone() });
    let mut tasks = JoinSet::new();
    let anew = watch::Sender::new(());
    for source in sources {
        tasks.spawn(follow(source, context.cache.clone(), inbox.clone(), anew.clone(), shutdown.clone()));
    }
    work(controller, workers, context, inbox, &shutdown).await;
    // Watches end at once; keys at work have been waited for.
    tasks.shutdown().await;
    Ok(())
}

/// Keys that wait for work, and a bell for the worker loop.
#[derive(Debug)]
struct Inbox {
    queue: Mutex<Queue<ObjectKey>>,
    bell: Notify,
    metrics: Workqueue,
}

impl Inbox {
    fn add(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        let mut queue = self.queue.lock();
        let added = keys.into_iter().filter(|key| queue.add(key.clone())).count();
        self.metrics.added(added, queue.ready());
        drop(queue);
        self.bell.notify_one();
    }

    fn take(&self) -> Option<ObjectKey> {
        let mut queue = self.queue.lock();
        let key = queue.take(Instant::now());
        self.metrics.ready(queue.ready());
        key
    }
}

/// Turns the changes of one source into keys, until the shutdown. If one source of a controller falls behind, all of them start over with
/// the current objects: this also covers deletions that were missed.
async fn follow(source: Source, cache: Arc<Cache>, inbox: Arc<Inbox>, anew: watch::Sender<()>, shutdown: Shutdown) {
    let mut before: HashMap<ObjectKey, Vec<ObjectKey>> = HashMap::new();
    let mut begin = anew.subscribe();
    while !shutdown.is_cancelled() {
        let mut mattered: HashMap<ObjectKey, u64> = HashMap::new();
        let mut watch = cache.follow(source.resource, source.query.clone());
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                _ = begin.changed() => break,
                () = shutdown.cancelled() => return,
            };
            let (object, gone) = match event {
                Ok(Event::Added(object) | Event::Modified(object)) => (object, false),
                Ok(Event::Deleted(object)) => (object, true),
                Ok(Event::Bookmark(_)) => continue,
                Err(_) => {
                    anew.send_replace(());
                    begin.mark_unchanged();
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

/// Whether a change affects the fields that the source watches.
fn matters(source: &Source, object: &Object, gone: bool, before: &mut HashMap<ObjectKey, u64>) -> bool {
    let Some(matters) = source.matters else { return true };
    if gone {
        before.remove(&object.key());
        return true;
    }
    let now = matters(object);
    before.insert(object.key(), now).map_or(source.heeds_new, |last| last != now)
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

/// Works on queued keys, several at a time, until the shutdown; then waits for those in progress.
async fn work(controller: Arc<dyn Controller>, workers: usize, context: Context, inbox: Arc<Inbox>, shutdown: &Shutdown) {
    let mut at_work = JoinSet::new();
    let mut owed = HashMap::new();
    loop {
        while at_work.len() < workers {
            let Some(key) = inbox.take() else { break };
            let (controller, context, owed) = (controller.clone(), context.clone(), owed.remove(&key));
            at_work.spawn(async move {
                let begun = Instant::now();
                let outcome = turn(&*controller, &context, &key, owed).await;
                context.metrics.worked(begun.elapsed(), outcome.next.is_err());
                (key, outcome)
            });
        }
        let due = inbox.queue.lock().next_due();
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = inbox.bell.notified(), if at_work.len() < workers => {}
            () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() && at_work.len() < workers => {}
            Some(ended) = at_work.join_next() => {
                let (key, outcome) = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                owed.extend(outcome.owed.map(|it| (key.clone(), it)));
                settle(&*controller, &inbox, key, outcome.next);
            }
        }
    }
    while at_work.join_next().await.is_some() {}
}

fn settle(controller: &dyn Controller, inbox: &Inbox, key: ObjectKey, outcome: Result<Next, ClientError>) {
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
    /// Even without a change.
    again: Option<Duration>,
    /// Not earlier, despite changes.
    rest: Duration,
}

/// The result of a key's turn.
struct Turn {
    next: Result<Next, ClientError>,
    /// Writes that the next plan must see.
    owed: Option<Owed>,
}

/// Writes that the cache has not seen.
struct Owed {
    /// The newest revision per resource.
    revisions: HashMap<ResourceRef, Revision>,
    since: Instant,
}

impl Owed {
    /// Waits a short time for them; returns those still missing.
    async fn wait(self, context: &Context) -> Option<Self> {
        let seen =
            futures_util::future::join_all(self.revisions.iter().map(|(resource, revision)| context.cache.wait_for(resource, *revision)));
        tokio::time::timeout(ECHO, seen).await.is_err().then_some(self)
    }
}

/// Plans for a key and carries the plan out, once the cache has seen the writes of the previous plan.
async fn turn(controller: &dyn Controller, context: &Context, key: &ObjectKey, owed: Option<Owed>) -> Turn {
    if let Some(owed) = owed
        && owed.since.elapsed() < OWED
        && let Some(owed) = owed.wait(context).await
    {
        tracing::debug!("{}: {key}: the cache still lacks the last write", controller.name());
        return Turn { next: Ok(Next { again: Some(OWED_PAUSE), rest: Duration::ZERO }), owed: Some(owed) };
    }
    let (next, revisions) = reconcile(controller, context, key).await;
    let owed = Owed { revisions, since: Instant::now() }.wait(context).await;
    if owed.is_some() {
        tracing::warn!("{}: {key}: the cache lacks the last write after {ECHO:?}; waiting for it", controller.name());
    }
    Turn { next, owed }
}

/// Also returns the newest revision of the writes, per resource.
async fn reconcile(
    controller: &dyn Controller,
    context: &Context,
    key: &ObjectKey,
) -> (Result<Next, ClientError>, HashMap<ResourceRef, Revision>) {
    let begun = worked();
    let Plan { writes, slowly, again, notes } = match contain(|| controller.plan(&context.cache, key, Timestamp::now())) {
        Ok(plan) => plan,
        Err(panic) => return (Err(broken(controller, key, &panic)), HashMap::new()),
    };
    let rest = (worked().saturating_sub(begun) * REST).min(LONGEST_REST);
    for Note { about, kind, reason, message } in notes {
        context.events.event(&about, kind, reason, message);
    }
    let mut progress = Progress::default();
    progress.carry_out(context, writes).await;
    progress.carry_out_slowly(context, slowly).await;
    if let Some(failure) = progress.refused.take() {
        match contain(|| controller.refused(&context.cache, key, &failure, Timestamp::now())) {
            Ok(plan) => progress.carry_out(context, plan.writes).await,
            Err(panic) => drop(progress.error.insert(broken(controller, key, &panic))),
        }
    }
    (progress.error.map_or(Ok(Next { again, rest }), Err), progress.seen)
}

/// A plan that panicked concerns its key only: the other keys of the controller go on.
fn broken(controller: &dyn Controller, key: &ObjectKey, panic: &str) -> ClientError {
    tracing::error!("{}: {key}: this is a bug of the controller: {panic}", controller.name());
    ClientError::Api(Box::new(Status::internal(panic)))
}

/// The CPU time of this thread. Unlike elapsed time, it does not depend on other work of the machine.
fn worked() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// The results of a plan's writes so far.
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

    /// Does these writes in growing batches, as long as none has failed.
    async fn carry_out_slowly(&mut self, context: &Context, mut writes: Vec<Write>) {
        let mut batch = 1;
        while !writes.is_empty() && self.error.is_none() {
            self.carry_out(context, writes.drain(..batch.min(writes.len())).collect()).await;
            batch *= 2;
        }
    }
}

/// The result of a write.
struct Outcome {
    /// The object after the write, if there is one.
    written: Result<Option<Arc<Object>>, ClientError>,
    /// Set if the write failed and was to be reported.
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
                // Another writer (perhaps this controller, before a restart) was faster; the object exists as wanted.
                Err(error) if error.is("AlreadyExists") && object["metadata"]["name"].is_string() => return Ok(None).into(),
                // Its namespace is being deleted.
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
        Write::UnlessFound { objects, write } => {
            for (key, uid) in objects {
                match client.get(key.resource, &key.name.namespace, &key.name.name).await {
                    Ok(found) if uid.is_empty() || *found.meta().uid == *uid => return Ok(None).into(),
                    Err(error) if !error.is("NotFound") => return Err(error).into(),
                    _ => {}
                }
            }
            Box::pin(carry_out(context, *write)).await
        }
        Write::UnlessAny { resource, namespace, is, name, write } => match client.list(resource, &namespace).await {
            Ok(found) if found.objects.iter().any(|it| is(it, &name)) => Ok(None).into(),
            Ok(_) => Box::pin(carry_out(context, *write)).await,
            Err(error) => Err(error).into(),
        },
    }
}

impl Context {
    /// Records the event for a write's outcome; returns the failure, if any.
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::cache::{Change, Query};
    use crate::client::events;
    use crate::client::fake::Line;
    use crate::object::resource::{CONFIG_MAP, NAMESPACE};
    use crate::telemetry::metrics::Registry;

    /// Reports every plan; creates a ConfigMap in namespaces without one.
    struct Maker(mpsc::UnboundedSender<ObjectKey>);

    impl Controller for Maker {
        fn name(&self) -> &'static str {
            "maker"
        }

        fn sources(&self) -> Vec<Source> {
            let of_namespace = |_: &Cache, object: &Object| vec![ObjectKey::new(&NAMESPACE, "", object.namespace())];
            vec![Source::own(&NAMESPACE), Source::leading_to(&CONFIG_MAP, of_namespace)]
        }

        fn plan(&self, cache: &Cache, key: &ObjectKey, _: Timestamp) -> Plan {
            self.0.send(key.clone()).unwrap();
            assert_ne!(&*key.name.name, "evil");
            let mut plan = Plan::default();
            if cache.list(&CONFIG_MAP, &Query::namespace(&key.name.name)).objects.is_empty() {
                let name = uuid::Uuid::new_v4().to_string();
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": &*key.name.name}});
                plan.writes.push(Write::Create { resource: &CONFIG_MAP, namespace: key.name.name.to_string(), object, tell: None });
                plan.look_again(Duration::from_secs(1));
            }
            plan
        }
    }

    fn object(resource: ResourceRef, namespace: &str, name: &str, revision: Revision) -> Arc<Object> {
        let json = json!({"apiVersion": "v1", "kind": resource.kind, "metadata": {"name": name, "namespace": namespace, "uid": name}});
        Object::from_stored(resource, json.to_string().as_bytes(), revision).unwrap()
    }

    /// A running driver on a cache that is never fed, its server, and its plans.
    fn start(history: usize) -> (JoinSet<anyhow::Result<()>>, Arc<Cache>, Arc<Line>, mpsc::UnboundedReceiver<ObjectKey>) {
        let (cache, line) = (Cache::new(history), Arc::new(Line::default()));
        let client = Client::new(line.clone());
        let (events, _) = events::recorder(client.clone(), "maker", "");
        let (sender, plans) = mpsc::unbounded_channel();
        let metrics = Workqueue::new(&Registry::default(), "maker");
        let context = Context { client, cache: cache.clone(), events, metrics };
        let mut tasks = JoinSet::new();
        tasks.spawn(run(Arc::new(Maker(sender)), 1, context, Shutdown::new()));
        (tasks, cache, line, plans)
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_panics_is_made_again_later_and_the_others_go_on() {
        let (_tasks, cache, _line, mut plans) = start(100);
        cache.replace(&NAMESPACE, vec![object(&NAMESPACE, "", "evil", 1)], 1);
        cache.replace(&CONFIG_MAP, Vec::new(), 0);
        let mut next = async || plans.recv().await.unwrap().name.name.to_string();
        assert_eq!((next().await, next().await), ("evil".to_owned(), "evil".to_owned()));
        let good = object(&NAMESPACE, "", "good", 2);
        cache.apply(vec![Change { key: good.key(), revision: 2, object: Some(good) }], 2);
        while next().await != "good" {}
        while next().await != "evil" {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_is_not_made_without_what_the_one_before_wrote() {
        let (_tasks, cache, line, mut plans) = start(100);
        cache.replace(&NAMESPACE, vec![object(&NAMESPACE, "", "a", 1)], 1);
        cache.replace(&CONFIG_MAP, Vec::new(), 0);
        plans.recv().await.unwrap();
        // No write comes back for long; the namespace itself changes meanwhile.
        tokio::time::sleep(Duration::from_secs(100)).await;
        cache
            .apply(vec![Change { key: ObjectKey::new(&NAMESPACE, "", "a"), revision: 2, object: Some(object(&NAMESPACE, "", "a", 2)) }], 0);
        assert!(tokio::time::timeout(Duration::from_secs(100), plans.recv()).await.is_err());
        assert_eq!(line.server.objects.lock().len(), 1);
        // Then it does.
        let made = object(&CONFIG_MAP, "a", "made", 3);
        cache.apply(vec![Change { key: made.key(), revision: 3, object: Some(made) }], 3);
        plans.recv().await.unwrap();
        assert_eq!(line.server.objects.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_behind_misses_no_deletion() {
        let (_tasks, cache, _line, mut plans) = start(4);
        cache.replace(&NAMESPACE, vec![object(&NAMESPACE, "", "a", 1), object(&NAMESPACE, "", "b", 1)], 1);
        let there = |name: &str, revision| object(&CONFIG_MAP, name, "x", revision);
        cache.replace(&CONFIG_MAP, vec![there("a", 1), there("b", 1)], 1);
        let mut planned = Vec::new();
        while !["a", "b"].iter().all(|name| planned.iter().any(|key: &ObjectKey| *key.name.name == **name)) {
            planned.push(plans.recv().await.unwrap());
        }
        // Until all is quiet.
        while tokio::time::timeout(Duration::from_secs(10), plans.recv()).await.is_ok() {}
        let gone = Change { key: ObjectKey::new(&CONFIG_MAP, "a", "x"), revision: 2, object: None };
        let others = (3..20).map(|revision| Change { key: there("b", 1).key(), revision, object: Some(there("b", revision)) });
        cache.apply(std::iter::once(gone).chain(others).collect(), 20);
        let planned = async { while *plans.recv().await.unwrap().name.name != *"a" {} };
        tokio::time::timeout(Duration::from_secs(10), planned).await.expect("somebody looks at what lost its ConfigMap");
    }
}
