//! A runtime without containers: it records requests and follows a script. It uses tokio's time, which tests may pause; simulations with
//! their own clock use the [`Engine`] inside.

mod engine;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{
    Container, ContainerSpec, Credentials, Event, ExecSession, ExecSpec, Image, LogChunk, LogOptions, LogStream, Result, Runtime,
    RuntimeError, Stats, Summary, Version,
};

pub use engine::{Behaviour, Engine};

/// A runtime that plays a script.
pub struct Fake {
    me: Weak<Self>,
    epoch: (Instant, Timestamp),
    engine: Mutex<Engine>,
    execs: Mutex<BTreeMap<String, i64>>,
    events: broadcast::Sender<Event>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.engine.lock().fmt(f)
    }
}

impl Fake {
    /// Every container runs until it is stopped.
    pub fn new() -> Arc<Self> {
        Self::scripted(|_, _| Behaviour::default())
    }

    pub fn scripted(script: impl Fn(&ContainerSpec, usize) -> Behaviour + Send + Sync + 'static) -> Arc<Self> {
        let epoch = (Instant::now(), Timestamp::now());
        let (engine, events) = (Mutex::new(Engine::new(script)), broadcast::channel(4096).0);
        Arc::new_cyclic(|me| Self { me: me.clone(), epoch, engine, execs: Mutex::default(), events })
    }

    /// The time, as the containers see it.
    pub fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.epoch.0.elapsed()).expect("a run is shorter than time itself");
        self.epoch.1 + since
    }

    /// All requests so far: the call, and the container's name or the image.
    pub fn calls(&self) -> Vec<String> {
        self.engine.lock().calls().to_vec()
    }

    /// Makes the engine unreachable, or reachable again.
    pub fn set_down(&self, down: bool) {
        self.engine.lock().set_down(down);
    }

    /// Names of the containers that run.
    pub fn running(&self) -> Vec<String> {
        self.engine(|engine, _| engine.containers().filter(|it| it.state.is_running()).map(|it| it.name.clone()).collect())
    }

    /// Ends a running container from outside, as a crash would.
    pub fn crash(&self, name: &str, code: i64) {
        self.engine(|engine, now| engine.crash(code, now, |it| it.name == name));
    }

    /// Runs a request on the engine after all due exits, and sends the resulting events.
    fn engine<T>(&self, act: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        let (mut engine, now): (MutexGuard<'_, Engine>, _) = (self.engine.lock(), self.now());
        engine.settle(now);
        let result = act(&mut engine, now);
        for event in engine.take_events() {
            // There may be no listener.
            let _ = self.events.send(event);
        }
        result
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.epoch.0 + Duration::try_from(at.duration_since(self.epoch.1)).unwrap_or_default()
    }
}

impl Runtime for Fake {
    fn version(&self) -> BoxFuture<'_, Result<Version>> {
        async move {
            self.engine(|engine, _| engine.call("version", ""))?;
            Ok(Version { name: "fake".to_owned(), version: "1.0".to_owned(), os: "linux".to_owned(), ..Default::default() })
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        async move { self.engine(|engine, _| engine.image(reference)) }.boxed()
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        _auth: Option<&'a Credentials>,
        _progress: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Image>> {
        async move { self.engine(|engine, _| engine.pull(reference)) }.boxed()
    }

    fn import<'a>(&'a self, reference: &'a str, _entrypoint: &'a [String], root: BoxStream<'static, Bytes>) -> BoxFuture<'a, Result<()>> {
        async move {
            root.for_each(async |_| ()).await;
            self.engine(|engine, _| engine.import(reference))
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> BoxFuture<'a, Result<String>> {
        async move { self.engine(|engine, now| engine.create(spec, now)) }.boxed()
    }

    fn start<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.engine(|engine, now| engine.start(id, now)) }.boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        async move {
            if let Some(end) = self.engine(|engine, now| engine.begin_stop(id, grace, now))? {
                tokio::time::sleep_until(self.instant(end)).await;
                self.engine(|_, _| ());
            }
            Ok(())
        }
        .boxed()
    }

    fn kill<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.engine(|engine, now| engine.kill(id, now)) }.boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.engine(|engine, _| engine.remove(id)) }.boxed()
    }

    fn list<'a>(&'a self, label: &'a str, value: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Summary>>> {
        async move { self.engine(|engine, _| engine.list(label, value)) }.boxed()
    }

    fn inspect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Container>> {
        async move { self.engine(|engine, _| engine.inspect(id)) }.boxed()
    }

    fn logs(&self, id: &str, _options: &LogOptions) -> BoxStream<'static, Result<LogChunk>> {
        let output = self.engine(|engine, _| {
            engine.call("logs", id)?;
            Ok(engine.behaviour(id)?.output.clone())
        });
        let chunk = output.map(|output| LogChunk { stream: LogStream::Stdout, data: Bytes::from(output) });
        stream::iter([chunk]).boxed()
    }

    fn exec<'a>(&'a self, id: &'a str, _spec: &'a ExecSpec) -> BoxFuture<'a, Result<ExecSession>> {
        async move {
            let (number, (code, output)) = self.engine(|engine, _| {
                engine.call("exec", id)?;
                let exec = engine.behaviour(id)?.exec.clone();
                Ok::<_, RuntimeError>((engine.number(), exec))
            })?;
            let exec = format!("exec-{number}");
            self.execs.lock().insert(exec.clone(), code);
            let output = stream::iter([Ok(LogChunk { stream: LogStream::Stdout, data: Bytes::from(output) })]).boxed();
            Ok(ExecSession { id: exec, output, input: Box::pin(tokio::io::sink()) })
        }
        .boxed()
    }

    fn exec_exit_code<'a>(&'a self, exec: &'a str) -> BoxFuture<'a, Result<Option<i64>>> {
        async move {
            self.engine(|engine, _| engine.call("exec_exit_code", exec))?;
            Ok(self.execs.lock().get(exec).copied())
        }
        .boxed()
    }

    fn exec_resize<'a>(&'a self, exec: &'a str, _width: u16, _height: u16) -> BoxFuture<'a, Result<()>> {
        async move { self.engine(|engine, _| engine.call("exec_resize", exec)) }.boxed()
    }

    fn events(&self, label: &str) -> BoxStream<'static, Result<Event>> {
        let label = label.to_owned();
        let state = (self.events.subscribe(), self.me.clone());
        stream::unfold(state, |(mut receiver, fake)| async move {
            loop {
                // Containers exit only when the engine is settled.
                let next = {
                    let fake = fake.upgrade()?;
                    fake.engine(|engine, _| engine.next_end()).map(|at| fake.instant(at))
                };
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
        async move {
            self.engine(|engine, _| {
                engine.call("stats", id)?;
                engine.behaviour(id).map(|_| Stats::default())
            })
        }
        .boxed()
    }
}
