//! A runtime without containers: it records what it is asked and plays what it is told to. Time is tokio's, so simulations may pause it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{
    Container, ContainerSpec, Credentials, Event, EventKind, ExecSession, ExecSpec, Exit, Image, LogChunk, LogOptions, LogStream, Network,
    Result, Runtime, RuntimeError, State, Stats, Summary, Version,
};

/// How a container behaves once it is started.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// The image is not in the registry either.
    pub no_image: bool,
    /// What the engine says instead of starting it.
    pub refuse: Option<String>,
    /// Ends by itself after so long, with this code.
    pub exit: Option<(Duration, i64)>,
    /// How long it takes to end when it is asked to; it ends with code 143, or 137 if the grace period is shorter.
    pub stopping: Duration,
    pub output: String,
    /// Exit code and output of every command run inside.
    pub exec: (i64, String),
}

/// Decides how a container behaves, given its description and how many of its name there were before.
type Script = dyn Fn(&ContainerSpec, usize) -> Behaviour + Send + Sync;

/// A runtime that plays a script.
pub struct Fake {
    me: Weak<Self>,
    script: Box<Script>,
    epoch: (Instant, Timestamp),
    state: Mutex<Inner>,
    events: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    down: bool,
    containers: BTreeMap<String, Fakery>,
    made: BTreeMap<String, usize>,
    pulled: Vec<String>,
    execs: BTreeMap<String, i64>,
    calls: Vec<String>,
}

struct Fakery {
    container: Container,
    behaviour: Behaviour,
    /// When it ends by itself or by a stop under way, and with which code.
    ends: Option<(Instant, i64)>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fake runtime with {} containers", self.state.lock().containers.len())
    }
}

impl Fake {
    /// Every container runs until it is stopped.
    pub fn new() -> Arc<Self> {
        Self::scripted(|_, _| Behaviour::default())
    }

    pub fn scripted(script: impl Fn(&ContainerSpec, usize) -> Behaviour + Send + Sync + 'static) -> Arc<Self> {
        let epoch = (Instant::now(), Timestamp::now());
        let events = broadcast::channel(4096).0;
        Arc::new_cyclic(|me| Self { me: me.clone(), script: Box::new(script), epoch, state: Mutex::default(), events })
    }

    /// The time, as the containers see it.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// What was asked so far: the call and the container's name, or the image.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// Lets the engine vanish, or come back.
    pub fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// Names of the containers that run.
    pub fn running(&self) -> Vec<String> {
        let inner = self.settled();
        inner.containers.values().filter(|it| it.container.state.is_running()).map(|it| it.container.name.clone()).collect()
    }

    /// Ends a running container from outside, as a crash would.
    pub fn crash(&self, name: &str, code: i64) {
        let mut inner = self.settled();
        for it in inner.containers.values_mut().filter(|it| it.container.name == name && it.container.state.is_running()) {
            it.ends = Some((Instant::now(), code));
        }
        drop(inner);
        drop(self.settled());
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let since = SignedDuration::try_from(instant.duration_since(self.epoch.0)).expect("a run is shorter than time itself");
        self.epoch.1 + since
    }

    /// The state, with everything ended whose time has come.
    fn settled(&self) -> parking_lot::MutexGuard<'_, Inner> {
        let now = Instant::now();
        let mut inner = self.state.lock();
        for it in inner.containers.values_mut() {
            let (State::Running { started }, Some((at, code))) = (&it.container.state, it.ends) else { continue };
            if at <= now {
                let exit = Exit { code, started: *started, finished: self.at(at), oom_killed: false, error: String::new() };
                it.container.state = State::Exited(exit);
                it.ends = None;
                self.tell(&it.container, EventKind::Died);
            }
        }
        inner
    }

    fn tell(&self, container: &Container, kind: EventKind) {
        // Nobody may be listening.
        let _ = self.events.send(Event { id: container.id.clone(), labels: container.labels.clone(), kind });
    }

    fn call(&self, call: &str, of: &str) -> Result<parking_lot::MutexGuard<'_, Inner>> {
        let mut inner = self.settled();
        if inner.down {
            return Err(RuntimeError::Unavailable(anyhow::anyhow!("switched off")));
        }
        let name = inner.containers.get(of).map_or(of, |it| &it.container.name);
        let line = format!("{call} {name}");
        inner.calls.push(line);
        Ok(inner)
    }

    fn found<'a>(inner: &'a mut Inner, id: &str) -> Result<&'a mut Fakery> {
        inner.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(format!("No such container: {id}")))
    }

    fn behaviour(&self, spec: &ContainerSpec, inner: &Inner) -> Behaviour {
        (self.script)(spec, inner.made.get(&spec.name).copied().unwrap_or_default())
    }

    fn image_of(reference: &str) -> Image {
        Image { id: format!("sha256:{reference}"), digest: Some(format!("{reference}@sha256:0")), user: String::new() }
    }

    fn do_create(&self, spec: &ContainerSpec) -> Result<String> {
        let mut inner = self.call("create", &spec.name)?;
        if inner.containers.values().any(|it| it.container.name == spec.name) {
            return Err(RuntimeError::Conflict(format!("Conflict. The container name {:?} is already in use", spec.name)));
        }
        let behaviour = self.behaviour(spec, &inner);
        *inner.made.entry(spec.name.clone()).or_default() += 1;
        inner.next += 1;
        let id = format!("{:064x}", inner.next);
        let ips = matches!(spec.network, Network::Own(_)).then(|| format!("10.1.{}.{}", inner.next / 250 % 250, inner.next % 250 + 1));
        let container = Container {
            id: id.clone(),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            image: spec.image.clone(),
            image_id: Self::image_of(&spec.image).id,
            created: self.now(),
            state: State::Created,
            ips: ips.into_iter().collect(),
            pid: None,
        };
        inner.containers.insert(id.clone(), Fakery { container, behaviour, ends: None });
        Ok(id)
    }

    fn do_start(&self, id: &str) -> Result<()> {
        let mut inner = self.call("start", id)?;
        let now = self.now();
        let it = Self::found(&mut inner, id)?;
        if let Some(why) = it.behaviour.refuse.clone() {
            let exit = Exit { code: 127, started: now, finished: now, oom_killed: false, error: why.clone() };
            it.container.state = State::Exited(exit);
            return Err(RuntimeError::Refused(why));
        }
        it.container.state = State::Running { started: now };
        it.ends = it.behaviour.exit.map(|(after, code)| (Instant::now() + after, code));
        self.tell(&it.container, EventKind::Started);
        Ok(())
    }

    /// Begins to stop a container; answers when it will have ended.
    fn begin_stop(&self, id: &str, grace: Duration) -> Result<Option<Instant>> {
        let mut inner = self.call("stop", id)?;
        let it = Self::found(&mut inner, id)?;
        if !it.container.state.is_running() {
            return Ok(None);
        }
        let end = if it.behaviour.stopping <= grace { (it.behaviour.stopping, 143) } else { (grace, 137) };
        let end = (Instant::now() + end.0, end.1);
        if it.ends.is_none_or(|(at, _)| at > end.0) {
            it.ends = Some(end);
        }
        Ok(it.ends.map(|(at, _)| at))
    }
}

impl Runtime for Fake {
    fn version(&self) -> BoxFuture<'_, Result<Version>> {
        async move {
            drop(self.call("version", "")?);
            Ok(Version { name: "fake".to_owned(), version: "1.0".to_owned(), os: "linux".to_owned(), ..Default::default() })
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        async move {
            let inner = self.call("image", reference)?;
            Ok(inner.pulled.iter().any(|it| it == reference).then(|| Self::image_of(reference)))
        }
        .boxed()
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        _auth: Option<&'a Credentials>,
        _progress: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Image>> {
        async move {
            let mut inner = self.call("pull", reference)?;
            let spec = ContainerSpec { image: reference.to_owned(), ..Default::default() };
            if self.behaviour(&spec, &inner).no_image {
                return Err(RuntimeError::NotFound(format!("manifest for {reference} not found: manifest unknown")));
            }
            inner.pulled.push(reference.to_owned());
            Ok(Self::image_of(reference))
        }
        .boxed()
    }

    fn import<'a>(&'a self, reference: &'a str, _entrypoint: &'a [String], root: BoxStream<'static, Bytes>) -> BoxFuture<'a, Result<()>> {
        async move {
            root.for_each(async |_| ()).await;
            self.call("import", reference)?.pulled.push(reference.to_owned());
            Ok(())
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> BoxFuture<'a, Result<String>> {
        async move { self.do_create(spec) }.boxed()
    }

    fn start<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.do_start(id) }.boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        async move {
            if let Some(end) = self.begin_stop(id, grace)? {
                tokio::time::sleep_until(end).await;
                drop(self.settled());
            }
            Ok(())
        }
        .boxed()
    }

    fn kill<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut inner = self.call("kill", id)?;
            if let Ok(it) = Self::found(&mut inner, id) {
                it.ends = Some((Instant::now(), 137));
            }
            drop(inner);
            drop(self.settled());
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut inner = self.call("remove", id)?;
            if let Some(it) = inner.containers.remove(id) {
                if it.container.state.is_running() {
                    self.tell(&it.container, EventKind::Died);
                }
                self.tell(&it.container, EventKind::Removed);
            }
            Ok(())
        }
        .boxed()
    }

    fn list<'a>(&'a self, label: &'a str, value: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Summary>>> {
        async move {
            let inner = self.call("list", value.unwrap_or(label))?;
            let matches = |it: &&Fakery| it.container.labels.get(label).is_some_and(|it| value.is_none_or(|value| it == value));
            let summary = |it: &Fakery| Summary {
                id: it.container.id.clone(),
                labels: it.container.labels.clone(),
                running: it.container.state.is_running(),
            };
            Ok(inner.containers.values().filter(matches).map(summary).collect())
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Container>> {
        async move { Ok(Self::found(&mut *self.call("inspect", id)?, id)?.container.clone()) }.boxed()
    }

    fn logs(&self, id: &str, _options: &LogOptions) -> BoxStream<'static, Result<LogChunk>> {
        let output = self.call("logs", id).and_then(|mut inner| Ok(Self::found(&mut inner, id)?.behaviour.output.clone()));
        let chunk = output.map(|output| LogChunk { stream: LogStream::Stdout, data: Bytes::from(output) });
        stream::iter([chunk]).boxed()
    }

    fn exec<'a>(&'a self, id: &'a str, _spec: &'a ExecSpec) -> BoxFuture<'a, Result<ExecSession>> {
        async move {
            let mut inner = self.call("exec", id)?;
            let (code, output) = Self::found(&mut inner, id)?.behaviour.exec.clone();
            inner.next += 1;
            let exec = format!("exec-{}", inner.next);
            inner.execs.insert(exec.clone(), code);
            let output = stream::iter([Ok(LogChunk { stream: LogStream::Stdout, data: Bytes::from(output) })]).boxed();
            Ok(ExecSession { id: exec, output, input: Box::pin(tokio::io::sink()) })
        }
        .boxed()
    }

    fn exec_exit_code<'a>(&'a self, exec: &'a str) -> BoxFuture<'a, Result<Option<i64>>> {
        async move { Ok(self.call("exec_exit_code", exec)?.execs.get(exec).copied()) }.boxed()
    }

    fn exec_resize<'a>(&'a self, exec: &'a str, _width: u16, _height: u16) -> BoxFuture<'a, Result<()>> {
        async move { self.call("exec_resize", exec).map(drop) }.boxed()
    }

    fn events(&self, label: &str) -> BoxStream<'static, Result<Event>> {
        let label = label.to_owned();
        let state = (self.events.subscribe(), self.me.clone());
        stream::unfold(state, |(mut receiver, fake)| async move {
            loop {
                // Containers end by themselves only if somebody looks.
                let next = fake.upgrade()?.settled().containers.values().filter_map(|it| it.ends.map(|(at, _)| at)).min();
                let due = async {
                    match next {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                let received = tokio::select! {
                    received = receiver.recv() => received,
                    () = due => continue,
                };
                return match received {
                    Ok(event) => Some((Ok(event), (receiver, fake))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        Some((Err(RuntimeError::Unavailable(anyhow::anyhow!("too slow"))), (receiver, fake)))
                    }
                    Err(broadcast::error::RecvError::Closed) => None,
                };
            }
        })
        .filter(move |event| {
            let wanted = event.as_ref().map_or(true, |event| event.labels.contains_key(&label));
            std::future::ready(wanted)
        })
        .boxed()
    }

    fn stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Stats>> {
        async move { Self::found(&mut *self.call("stats", id)?, id).map(|_| Stats::default()) }.boxed()
    }
}
