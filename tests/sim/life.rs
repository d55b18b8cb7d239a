//! Pods on a machine: their lives and their requests to the container engine, step by step, so that an executor may die between any two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use km::executor::life::Life;
use km::executor::names::{self, PodId};
use km::executor::pod::{Action, Failure, Input, Op, units};
use km::executor::status::Host;
use km::local_mesos::agent::Key;
use km::runtime::{ContainerSpec, Network, RuntimeError};

use crate::world::{World, timestamp};

/// A pod's life, with its operations in progress.
pub struct Body {
    pub life: Life,
    begun: Vec<Begun>,
}

/// An operation in progress, which continues no earlier than this time.
struct Begun {
    at: Duration,
    stage: Stage,
}

enum Stage {
    Asked(Action),
    /// The container is created, but not started.
    Made(Op, String),
    Answered(Input),
}

impl Stage {
    /// The operation in progress, if this is one.
    fn op(&self) -> Option<Op> {
        match self {
            Self::Asked(action) => action.op(),
            Self::Made(op, _) | Self::Answered(Input::Done(op, _)) => Some(op.clone()),
            Self::Answered(_) => None,
        }
    }
}

impl Body {
    pub fn ready(&self, now: Duration) -> Vec<usize> {
        (0..self.begun.len()).filter(|at| self.begun[*at].at <= now).collect()
    }

    pub fn due(&self) -> impl Iterator<Item = Duration> {
        self.begun.iter().map(|it| it.at)
    }
}

impl World {
    pub fn pod_starts(&mut self, host: &str, key: &Key, pod: Arc<Pod>) {
        let uid = PodId::of(&pod).uid;
        let Some(process) = self.process(host, key) else { return };
        let twin = process.bodies.insert(uid.clone(), Body { life: Life::new(pod), begun: Vec::new() });
        assert!(twin.is_none(), "pod {uid} has two lives in one executor");
        self.pod_input(host, key, &uid, Input::Tick);
    }

    pub fn pod_input(&mut self, host: &str, key: &Key, uid: &str, input: Input) {
        let now = self.now;
        let Some(process) = self.process(host, key) else { return };
        let Some(body) = process.bodies.get_mut(uid) else { return };
        let node = Host { ip: "10.0.0.1".to_owned(), engine: "fake".to_owned() };
        let step = body.life.handle(input, &node, timestamp(now));
        let id = body.life.machine().id().clone();
        let mut ended = false;
        self.note(|| format!("{uid} {:?} {:?}", step.actions, step.report.as_ref().map(|it| (&it.status.phase, it.ending))));
        let Some(body) = self.process(host, key).and_then(|process| process.bodies.get_mut(uid)) else { return };
        for action in step.actions {
            match action {
                Action::Event(_) => {}
                Action::End => ended = true,
                action => {
                    let twice = action.op().is_some_and(|op| body.begun.iter().any(|it| it.stage.op().as_ref() == Some(&op)));
                    assert!(!twice, "{action:?} of pod {uid} begins while another operation on the same is under way");
                    body.begun.push(Begun { at: now, stage: Stage::Asked(action) });
                }
            }
        }
        if let (Some(report), Some(process)) = (step.report, self.process(host, key)) {
            process.reports.push_back(report.clone());
            self.publish(host, key, |backlog| backlog.publish(&id, report.status));
        }
        if step.finish {
            self.publish(host, key, |backlog| backlog.finish(&id));
        }
        if let Some(process) = self.process(host, key).filter(|_| ended) {
            process.bodies.remove(uid);
            process.ended.push_back(id);
        }
    }

    pub fn pod_operates(&mut self, host: &str, key: &Key, uid: &str, at: usize) {
        let Some(body) = self.process(host, key).and_then(|process| process.bodies.get_mut(uid)) else { return };
        let begun = body.begun.swap_remove(at);
        let pod = body.life.machine().pod().clone();
        let next = match begun.stage {
            Stage::Answered(input) => return self.pod_input(host, key, uid, input),
            Stage::Asked(action) => self.ask_engine(host, key, &pod, action),
            Stage::Made(op, id) => {
                let now = timestamp(self.now);
                let started = self.machine(host).engine.start(&id, now);
                let done = started.map_err(|error| Failure::new("RunContainerError", error.to_string()));
                Begun { at: self.now, stage: Stage::Answered(Input::Done(op, done)) }
            }
        };
        self.engine_tells(host);
        // The pod's life may have ended meanwhile; its answer is dropped.
        if let Some(body) = self.process(host, key).and_then(|process| process.bodies.get_mut(uid)) {
            body.begun.push(next);
        }
    }

    fn ask_engine(&mut self, host: &str, key: &Key, pod: &Pod, action: Action) -> Begun {
        let (now, instant, owner) = (self.now, timestamp(self.now), Self::owner(host, key));
        let id = PodId::of(pod);
        let answer = |input| Begun { at: now, stage: Stage::Answered(input) };
        if let Action::Look(epoch) = action {
            let engine = &mut self.machine(host).engine;
            let seen = engine.list(names::POD_UID, Some(&id.uid)).and_then(|listed| {
                let mine = listed.iter().filter(|it| names::is_owned(it, &owner));
                mine.map(|it| engine.inspect(&it.id)).collect::<Result<Vec<_>, _>>()
            });
            return answer(match seen {
                Ok(containers) => Input::Seen { epoch, containers },
                Err(error) => Input::Blind(error.to_string()),
            });
        }
        let op = action.op().expect("no pod here has probes");
        if self.fails(4) {
            return answer(Input::Done(op, Err(Failure::new("Unlucky", "the engine is not in the mood"))));
        }
        let engine = &mut self.machine(host).engine;
        let failed = |error: RuntimeError| Failure::new("Failed", error.to_string());
        let result = match action {
            // The disk is not simulated.
            Action::SetUpVolumes | Action::TearDownVolumes => Ok(()),
            Action::CreateSandbox { attempt } => {
                let spec = ContainerSpec {
                    name: names::sandbox_name(&id, attempt),
                    labels: names::sandbox_labels(&id, &owner, attempt),
                    image: "pause".to_owned(),
                    network: Network::Own(Box::default()),
                    ..ContainerSpec::default()
                };
                match create(engine, &spec, instant) {
                    Ok(made) => return Begun { at: now, stage: Stage::Made(op, made) },
                    Err(error) => Err(failed(error)),
                }
            }
            Action::Start { container, attempt, sandbox } => {
                let image = pod.spec.as_ref().and_then(|spec| units(spec).find(|it| it.spec.name == container)?.spec.image.clone());
                let spec = ContainerSpec {
                    name: names::container_name(&id, &container, attempt),
                    labels: names::container_labels(&id, &owner, attempt, &container, &sandbox),
                    image: image.unwrap_or_default(),
                    ..ContainerSpec::default()
                };
                match create(engine, &spec, instant) {
                    Ok(made) => return Begun { at: now, stage: Stage::Made(op, made) },
                    Err(error) => Err(failed(error)),
                }
            }
            Action::Stop { id, grace, .. } => match engine.begin_stop(&id, Duration::try_from(grace).unwrap_or_default(), instant) {
                Ok(Some(end)) => {
                    let end = Duration::try_from(end.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap_or_default();
                    return Begun { at: end, stage: Stage::Answered(Input::Done(op, Ok(()))) };
                }
                Ok(None) => Ok(()),
                Err(error) => Err(failed(error)),
            },
            Action::Kill { id, .. } => engine.kill(&id, instant).map_err(failed),
            Action::Remove { id } => engine.remove(&id).map_err(failed),
            Action::Look(_) | Action::Probe { .. } | Action::Event(_) | Action::Finish | Action::End => unreachable!("is no operation"),
        };
        answer(Input::Done(op, result))
    }
}

/// As in the executor: an existing container of this name was created by an executor that died before it could start it.
fn create(engine: &mut km::runtime::fake::Engine, spec: &ContainerSpec, now: jiff::Timestamp) -> Result<String, RuntimeError> {
    let conflict = match engine.create(spec, now) {
        Err(RuntimeError::Conflict(why)) => RuntimeError::Conflict(why),
        other => return other,
    };
    let stale = engine.containers().find(|it| it.name == spec.name && !it.state.is_running()).map(|it| it.id.clone());
    engine.remove(&stale.ok_or(conflict)?)?;
    engine.create(spec, now)
}

/// Running containers by the uid of their pod.
pub fn running(engine: &km::runtime::fake::Engine) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in engine.containers().filter(|it| it.state.is_running()) {
        found.entry(&container.labels[names::POD_UID]).or_default().push(&container.labels[names::CONTAINER_NAME]);
    }
    found
}
