//! The operations on one pod's volumes and containers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use tokio_util::sync::CancellationToken;

use super::super::calls::{self, Target};
use super::super::env::{self, Needs, References};
use super::super::images;
use super::super::names::PodId;
use super::super::observe;
use super::super::pod::{Action, Failure, Happening, Input, units};
use super::super::probes;
use super::super::shared::{Shared, typed_services};
use super::super::spec;
use super::super::volumes::{self, disk};
use crate::runtime::{ContainerSpec, Image, Mount, Propagation, RuntimeError};

/// Grace period of a container whose preStop hook has used up all of its time.
const LAST_GRACE: Duration = Duration::from_secs(2);
const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";

/// The context of one operation.
pub(super) struct Operations {
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub spec: Arc<PodSpec>,
    pub ips: Vec<String>,
    pub ending: CancellationToken,
}

impl Operations {
    /// Carries out an operation or a probe; returns the machine's next input.
    pub async fn carry_out(self, action: Action) -> Input {
        if let Action::Probe { container, id, kind } = action {
            let outcome = match self.container(&container).and_then(|spec| Some((spec, probes::spec(spec, kind)?))) {
                Some((spec, probe)) => calls::probe(&self.target(&id, spec), probe).await,
                None => probes::Outcome::Unknown("there is no such probe".to_owned()),
            };
            return Input::Probed { container, id, kind, outcome };
        }
        let op = action.op().expect("everything else is an operation");
        let result = match action {
            Action::SetUpVolumes => self.set_up_volumes().await,
            Action::TearDownVolumes => self.tear_down_volumes().await,
            Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await,
            Action::Start { container, attempt, sandbox } => self.start(&container, attempt, &sandbox).await,
            Action::Stop { container, id, grace } => self.stop(&container, &id, grace).await,
            Action::Kill { id, .. } => {
                self.shared.runtime.kill(&id).await.map_err(|error| Failure::new("FailedKillPod", error.to_string()))
            }
            Action::Remove { id } => self.shared.runtime.remove(&id).await.map_err(|error| Failure::new("FailedRemove", error.to_string())),
            Action::Probe { .. } | Action::Look(_) | Action::Event(_) | Action::Finish | Action::End => Ok(()),
        };
        Input::Done(op, result)
    }

    fn container(&self, name: &str) -> Option<&Container> {
        units(&self.spec).map(|unit| unit.spec).find(|spec| spec.name == name)
    }

    fn id(&self) -> PodId {
        PodId::of(&self.pod)
    }

    fn target(&self, id: &str, container: &Container) -> Target {
        Target {
            runtime: self.shared.runtime.clone(),
            id: id.to_owned(),
            ip: self.ips.first().cloned().unwrap_or_default(),
            container: container.clone(),
        }
    }

    fn tell(&self, warning: bool, reason: &'static str, message: String, container: &str) {
        self.shared.tell(&self.pod, Happening { warning, reason, message, container: Some(container.to_owned()) });
    }

    async fn references(&self, needs: &Needs) -> Result<References, Failure> {
        self.shared.references(self.pod.metadata.namespace.as_deref().unwrap_or_default(), needs).await
    }

    async fn planned_volumes(&self) -> Result<Vec<(String, volumes::Volume)>, Failure> {
        let references = self.references(&volumes::needs(&self.pod)).await?;
        let facts = self.shared.facts(self.ips.clone());
        volumes::plan(&self.pod, &facts, &references).map_err(|error| Failure::new("FailedMount", error.to_string()))
    }

    async fn set_up_volumes(&self) -> Result<(), Failure> {
        let volumes = self.planned_volumes().await?;
        let (root, uid) = (self.shared.config.root_dir.clone(), self.id().uid);
        let group = self.spec.security_context.as_ref().and_then(|context| context.fs_group);
        blocking(move || {
            for (name, volume) in &volumes {
                disk::set_up(&root, &uid, name, volume, group)
                    .map_err(|error| format!("MountVolume.SetUp failed for volume {name:?} : {error:#}"))?;
            }
            Ok(())
        })
        .await
        .map_err(|why| Failure::new("FailedMount", why))
    }

    async fn tear_down_volumes(&self) -> Result<(), Failure> {
        let (root, uid) = (self.shared.config.root_dir.clone(), self.id().uid);
        blocking(move || disk::tear_down(&root, &uid).map_err(|error| format!("{error:#}")))
            .await
            .map_err(|why| Failure::new("FailedUnmount", why))
    }

    async fn create_sandbox(&self, attempt: u32) -> Result<(), Failure> {
        let failed = |error: RuntimeError| Failure::new("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"));
        let image = self.shared.pause_image().await?;
        let sandbox = spec::sandbox(&self.pod, attempt, &image, &self.shared.node());
        let id = self.create(&sandbox).await.map_err(failed)?;
        self.shared.runtime.start(&id).await.map_err(failed)
    }

    /// Creates a container. One that has the name was made by an executor that ended before it could start it.
    async fn create(&self, spec: &ContainerSpec) -> crate::runtime::Result<String> {
        let conflict = match self.shared.runtime.create(spec).await {
            Err(RuntimeError::Conflict(why)) => RuntimeError::Conflict(why),
            other => return other,
        };
        let others = observe::containers(&self.shared, &self.id().uid).await?;
        let Some(old) = others.into_iter().find(|it| it.name == spec.name && !it.state.is_running()) else { return Err(conflict) };
        self.shared.runtime.remove(&old.id).await?;
        self.shared.runtime.create(spec).await
    }

    async fn start(&self, name: &str, attempt: u32, sandbox: &str) -> Result<(), Failure> {
        let Some(container) = self.container(name) else { return Ok(()) };
        let image = self.image(container).await?;
        let launched = self.launch(container, attempt, sandbox, &image).await;
        // The started container has its own mounts.
        self.release_sub_paths(name).await;
        let id = launched?;
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else { return Ok(()) };
        match calls::hook(&self.target(&id, container), hook).await {
            Ok(()) => Ok(()),
            Err(why) => {
                self.tell(true, "FailedPostStartHook", format!("PostStartHook failed: {why}"), name);
                self.tell(false, "Killing", "FailedPostStartHook".to_owned(), name);
                let _ = self.shared.runtime.stop(&id, LAST_GRACE).await;
                Err(Failure::new("PostStartHookError", why))
            }
        }
    }

    /// Creates and starts a container; answers its id.
    async fn launch(&self, container: &Container, attempt: u32, sandbox: &str, image: &Image) -> Result<String, Failure> {
        let name = &container.name;
        let spec = match self.describe(container, attempt, sandbox, image).await {
            Ok(spec) => spec,
            Err(failure) => {
                self.tell(true, "Failed", format!("Error: {}", failure.message), name);
                return Err(failure);
            }
        };
        let id = match self.create(&spec).await {
            Ok(id) => id,
            Err(error) => {
                self.tell(true, "Failed", format!("Error: {error}"), name);
                return Err(Failure::new("CreateContainerError", error.to_string()));
            }
        };
        self.tell(false, "Created", format!("Created container: {name}"), name);
        if let Err(error) = self.shared.runtime.start(&id).await {
            self.tell(true, "Failed", format!("Error: failed to start container {name:?}: {error}"), name);
            return Err(Failure::new("RunContainerError", error.to_string()));
        }
        self.tell(false, "Started", format!("Started container {name}"), name);
        Ok(id)
    }

    async fn release_sub_paths(&self, container: &str) {
        let (root, uid, container) = (self.shared.config.root_dir.clone(), self.id().uid, container.to_owned());
        let released = blocking(move || disk::release_sub_paths(&root, &uid, &container).map_err(|error| format!("{error:#}")));
        if let Err(why) = released.await {
            tracing::warn!(pod = %self.id(), "what its subPaths needed stays until it ends: {why}");
        }
    }

    async fn image(&self, container: &Container) -> Result<Image, Failure> {
        let registries = self.shared.registries(&self.pod).await;
        let tell = |happening| self.shared.tell(&self.pod, happening);
        tokio::select! {
            image = images::ensure(&*self.shared.runtime, container, &registries, &tell) => {
                image.inspect_err(|failure| self.tell(true, "Failed", format!("Error: {}", failure.reason), &container.name))
            }
            () = self.ending.cancelled() => Err(Failure::new("ErrImagePull", "the pod is being deleted")),
        }
    }

    async fn describe(&self, container: &Container, attempt: u32, sandbox: &str, image: &Image) -> Result<ContainerSpec, Failure> {
        let references = self.references(&env::needs(container)).await?;
        let services = if self.spec.enable_service_links == Some(false) {
            Vec::new()
        } else {
            self.shared.services(self.pod.metadata.namespace.as_deref().unwrap_or_default())
        };
        let facts = self.shared.facts(self.ips.clone());
        let config_error = |why: String| Failure::new("CreateContainerConfigError", why);
        let env = env::environment(&self.pod, container, &facts, &references, &typed_services(&services))
            .map_err(|error| config_error(error.to_string()))?;
        let mounts = self.mounts(container, attempt, &env).await?;
        spec::container(&self.pod, container, spec::Made { attempt, sandbox, image, env, mounts }, &self.shared.node())
    }

    async fn mounts(&self, container: &Container, attempt: u32, env: &[(String, String)]) -> Result<Vec<Mount>, Failure> {
        let config_error = |why: String| Failure::new("CreateContainerConfigError", why);
        let volumes = self.planned_volumes().await?;
        let (root, uid) = (self.shared.config.root_dir.clone(), self.id().uid);
        let mut wanted = Vec::new();
        let unprepared = |volume: &str| format!("failed to prepare subPath for volumeMount {volume:?} of container {:?}", container.name);
        for mount in volumes::mounts(container) {
            let found = volumes.iter().find(|(name, _)| *name == mount.name);
            let (name, volume) = found.ok_or_else(|| config_error(format!("volume {:?} is not of the pod", mount.name)))?;
            let path = disk::volume_path(&root, &uid, name, volume);
            let below = volumes::sub_path(mount, env).map_err(|why| config_error(format!("{}: {why}", unprepared(name))))?;
            let below = below.map(|below| (below, unprepared(name)));
            let written_by_us = matches!(volume, volumes::Volume::Files { .. });
            let propagation = match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            };
            let read_only = mount.read_only == Some(true) || written_by_us;
            wanted.push((path, below, Mount { source: String::new(), target: mount.mount_path.clone(), read_only, propagation }));
        }
        let message = observe::message_path(&disk::pod_dir(&root, &uid), &container.name, attempt);
        let name = container.name.clone();
        let target =
            container.termination_message_path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_MESSAGE_PATH.to_owned());
        blocking(move || {
            let mut mounts = Vec::with_capacity(wanted.len() + 1);
            for (index, (path, below, mut mount)) in wanted.into_iter().enumerate() {
                let path = match below {
                    Some((below, unprepared)) => {
                        disk::bind_sub_path(&root, &uid, &name, index, &path, &below).map_err(|error| format!("{unprepared}: {error:#}"))?
                    }
                    None => path,
                };
                mount.source = path.to_string_lossy().into_owned();
                mounts.push(mount);
            }
            make_message_file(&message).map_err(|error| format!("{}: {error}", message.display()))?;
            mounts.push(Mount { source: message.to_string_lossy().into_owned(), target, ..Mount::default() });
            Ok(mounts)
        })
        .await
        .map_err(config_error)
    }

    async fn stop(&self, name: &str, id: &str, grace: SignedDuration) -> Result<(), Failure> {
        let grace = Duration::try_from(grace).unwrap_or_default();
        let began = Instant::now();
        let container = self.container(name);
        let hook = container.and_then(|it| Some((it, it.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if let Some((container, hook)) = hook.filter(|_| !grace.is_zero()) {
            let target = self.target(id, container);
            match tokio::time::timeout(grace, calls::hook(&target, hook)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => self.tell(true, "FailedPreStopHook", format!("PreStopHook failed: {why}"), name),
                Err(_) => self.tell(true, "FailedPreStopHook", "PreStopHook did not end in time".to_owned(), name),
            }
        }
        let left = grace.saturating_sub(began.elapsed());
        let left = if hook.is_some() { left.max(LAST_GRACE.min(grace)) } else { left };
        self.shared.runtime.stop(id, left).await.map_err(|error| Failure::new("FailedKillPod", error.to_string()))
    }
}

/// Any user of any container may have to write it.
fn make_message_file(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::File::create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

/// Runs work that may wait for the disk on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
