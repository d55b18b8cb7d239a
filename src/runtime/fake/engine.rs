//! A container engine in memory, without I/O: time is passed in, and containers behave as scripted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::runtime::{Container, ContainerSpec, Event, EventKind, Exit, Image, Network, Result, RuntimeError, State, Summary};

/// How a container behaves once it is started.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// The image is not in the registry either.
    pub no_image: bool,
    /// The error with which starting it fails.
    pub refuse: Option<String>,
    /// Exits by itself after this time, with this code.
    pub exit: Option<(Duration, i64)>,
    /// How long it takes to end when it is asked to; it ends with code 143, or 137 if the grace period is shorter.
    pub stopping: Duration,
    pub output: String,
    /// Exit code and output of every command run inside.
    pub exec: (i64, String),
}

/// Decides how a container behaves, given its description and how many of its name there were before.
type Script = dyn Fn(&ContainerSpec, usize) -> Behaviour + Send + Sync;

/// The engine.
pub struct Engine {
    script: Box<Script>,
    next: u64,
    down: bool,
    containers: BTreeMap<String, Fakery>,
    made: BTreeMap<String, usize>,
    pulled: Vec<String>,
    calls: Vec<String>,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Fakery {
    container: Container,
    behaviour: Behaviour,
    /// When it exits, by itself or by a stop in progress, and with which code.
    ends: Option<(Timestamp, i64)>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fake engine with {} containers", self.containers.len())
    }
}

impl Engine {
    pub fn new(script: impl Fn(&ContainerSpec, usize) -> Behaviour + Send + Sync + 'static) -> Self {
        Self {
            script: Box::new(script),
            next: 0,
            down: false,
            containers: BTreeMap::new(),
            made: BTreeMap::new(),
            pulled: Vec::new(),
            calls: Vec::new(),
            events: Vec::new(),
        }
    }

    /// All requests so far: the call, and the container's name or the image.
    pub fn calls(&self) -> &[String] {
        &self.calls
    }

    /// Makes the engine unreachable, or reachable again. Containers keep running.
    pub fn set_down(&mut self, down: bool) {
        self.down = down;
    }

    pub fn is_down(&self) -> bool {
        self.down
    }

    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.values().map(|it| &it.container)
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// When the next container exits, without further requests.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.containers.values().filter_map(|it| it.ends.map(|(at, _)| at)).min()
    }

    /// Ends the containers that are due.
    pub fn settle(&mut self, now: Timestamp) {
        for it in self.containers.values_mut() {
            let (State::Running { started }, Some((at, code))) = (&it.container.state, it.ends) else { continue };
            if at <= now {
                let exit = Exit { code, started: *started, finished: at, oom_killed: false, error: String::new() };
                it.container.state = State::Exited(exit);
                it.ends = None;
                self.events.push(event(&it.container, EventKind::Died));
            }
        }
    }

    /// Ends the running containers that `which` picks, as a crash would.
    pub fn crash(&mut self, code: i64, now: Timestamp, which: impl Fn(&Container) -> bool) {
        for it in self.containers.values_mut().filter(|it| it.container.state.is_running() && which(&it.container)) {
            it.ends = Some((now, code));
        }
        self.settle(now);
    }

    /// Notes a call. Fails while the engine is down.
    pub fn call(&mut self, call: &str, of: &str) -> Result<()> {
        if self.down {
            return Err(RuntimeError::Unavailable(anyhow::anyhow!("switched off")));
        }
        let name = self.containers.get(of).map_or(of, |it| &it.container.name);
        let line = format!("{call} {name}");
        self.calls.push(line);
        Ok(())
    }

    /// A number that was not given before.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn found(&mut self, id: &str) -> Result<&mut Fakery> {
        self.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(format!("No such container: {id}")))
    }

    fn scripted(&self, spec: &ContainerSpec) -> Behaviour {
        (self.script)(spec, self.made.get(&spec.name).copied().unwrap_or_default())
    }

    /// How a container behaves.
    pub fn behaviour(&mut self, id: &str) -> Result<&Behaviour> {
        self.found(id).map(|it| &it.behaviour)
    }

    pub fn image(&mut self, reference: &str) -> Result<Option<Image>> {
        self.call("image", reference)?;
        Ok(self.pulled.iter().any(|it| it == reference).then(|| image_of(reference)))
    }

    pub fn pull(&mut self, reference: &str) -> Result<Image> {
        self.call("pull", reference)?;
        if self.scripted(&ContainerSpec { image: reference.to_owned(), ..Default::default() }).no_image {
            return Err(RuntimeError::NotFound(format!("manifest for {reference} not found: manifest unknown")));
        }
        self.pulled.push(reference.to_owned());
        Ok(image_of(reference))
    }

    pub fn import(&mut self, reference: &str) -> Result<()> {
        self.call("import", reference)?;
        self.pulled.push(reference.to_owned());
        Ok(())
    }

    pub fn create(&mut self, spec: &ContainerSpec, now: Timestamp) -> Result<String> {
        self.call("create", &spec.name)?;
        if self.containers.values().any(|it| it.container.name == spec.name) {
            return Err(RuntimeError::Conflict(format!("Conflict. The container name {:?} is already in use", spec.name)));
        }
        let behaviour = self.scripted(spec);
        *self.made.entry(spec.name.clone()).or_default() += 1;
        let number = self.number();
        let id = format!("{number:064x}");
        let ips = matches!(spec.network, Network::Own(_)).then(|| format!("10.1.{}.{}", number / 250 % 250, number % 250 + 1));
        let container = Container {
            id: id.clone(),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            image: spec.image.clone(),
            image_id: image_of(&spec.image).id,
            created: now,
            state: State::Created,
            ips: ips.into_iter().collect(),
            pid: None,
        };
        self.containers.insert(id.clone(), Fakery { container, behaviour, ends: None });
        Ok(id)
    }

    pub fn start(&mut self, id: &str, now: Timestamp) -> Result<()> {
        self.call("start", id)?;
        let it = self.found(id)?;
        if let Some(why) = it.behaviour.refuse.clone() {
            let exit = Exit { code: 127, started: now, finished: now, oom_killed: false, error: why.clone() };
            it.container.state = State::Exited(exit);
            return Err(RuntimeError::Refused(why));
        }
        it.container.state = State::Running { started: now };
        it.ends = it.behaviour.exit.map(|(after, code)| (later(now, after), code));
        let started = event(&it.container, EventKind::Started);
        self.events.push(started);
        Ok(())
    }

    /// Begins to stop a container; answers when it will have ended, unless it has.
    pub fn begin_stop(&mut self, id: &str, grace: Duration, now: Timestamp) -> Result<Option<Timestamp>> {
        self.call("stop", id)?;
        let it = self.found(id)?;
        if !it.container.state.is_running() {
            return Ok(None);
        }
        let (after, code) = if it.behaviour.stopping <= grace { (it.behaviour.stopping, 143) } else { (grace, 137) };
        let end = (later(now, after), code);
        if it.ends.is_none_or(|(at, _)| at > end.0) {
            it.ends = Some(end);
        }
        Ok(it.ends.map(|(at, _)| at))
    }

    pub fn kill(&mut self, id: &str, now: Timestamp) -> Result<()> {
        self.call("kill", id)?;
        if let Ok(it) = self.found(id) {
            it.ends = Some((now, 137));
        }
        self.settle(now);
        Ok(())
    }

    pub fn remove(&mut self, id: &str) -> Result<()> {
        self.call("remove", id)?;
        if let Some(it) = self.containers.remove(id) {
            if it.container.state.is_running() {
                self.events.push(event(&it.container, EventKind::Died));
            }
            self.events.push(event(&it.container, EventKind::Removed));
        }
        Ok(())
    }

    pub fn list(&mut self, label: &str, value: Option<&str>) -> Result<Vec<Summary>> {
        self.call("list", value.unwrap_or(label))?;
        let matches = |it: &&Container| it.labels.get(label).is_some_and(|it| value.is_none_or(|value| it == value));
        let summary = |it: &Container| Summary { id: it.id.clone(), labels: it.labels.clone(), running: it.state.is_running() };
        Ok(self.containers().filter(matches).map(summary).collect())
    }

    pub fn inspect(&mut self, id: &str) -> Result<Container> {
        self.call("inspect", id)?;
        Ok(self.found(id)?.container.clone())
    }
}

fn image_of(reference: &str) -> Image {
    Image { id: format!("sha256:{reference}"), digest: Some(format!("{reference}@sha256:0")), user: String::new() }
}

fn event(container: &Container, kind: EventKind) -> Event {
    Event { id: container.id.clone(), labels: container.labels.clone(), kind }
}

fn later(now: Timestamp, after: Duration) -> Timestamp {
    SignedDuration::try_from(after).ok().and_then(|after| now.checked_add(after).ok()).unwrap_or(Timestamp::MAX)
}
