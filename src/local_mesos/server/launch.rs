//! Starts executors as an agent does, and reports their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Core, Shared};
use crate::local_mesos::agent::{Executor, SHUTDOWN_GRACE};

impl Shared {
    pub(super) fn launch(self: &Arc<Self>, core: &mut Core, agent: String, Executor { info, framework, container }: Executor) {
        let key = (framework.id.clone().unwrap_or_default().value, info.executor_id.value.clone());
        let directory = core.store.as_ref().map(|store| store.sandbox(&agent, &key, &container));
        let sandbox = directory.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let number = core.agents.iter().position(|id| *id == agent).unwrap_or_default() + 1;
        let grace =
            info.shutdown_grace_period.as_ref().map_or(SHUTDOWN_GRACE, |grace| Duration::from_nanos(grace.nanoseconds.max(0) as u64));
        let mut environment: BTreeMap<String, String> = [
            ("MESOS_FRAMEWORK_ID", key.0.clone()),
            ("MESOS_EXECUTOR_ID", key.1.clone()),
            ("MESOS_SLAVE_ID", agent.clone()),
            ("MESOS_SLAVE_PID", format!("slave({number})@{}", self.address)),
            ("MESOS_AGENT_ENDPOINT", self.address.to_string()),
            ("MESOS_DIRECTORY", sandbox.clone()),
            ("MESOS_SANDBOX", sandbox),
            ("MESOS_CHECKPOINT", u8::from(framework.checkpoint()).to_string()),
            ("MESOS_RECOVERY_TIMEOUT", "15mins".to_owned()),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", format!("{}ms", grace.as_millis())),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let command = info.command.as_ref().and_then(|command| command.environment.as_ref());
        let own = command.into_iter().flat_map(|environment| &environment.variables);
        environment.extend(own.map(|variable| (variable.name.clone(), variable.value().to_owned())));

        let killed = CancellationToken::new();
        core.running.insert((agent.clone(), key.clone()), killed.clone());
        let shared = self.clone();
        self.supervisor.spawn_quiet(async move {
            if let Some(directory) = directory
                && let Err(error) = tokio::fs::create_dir_all(&directory).await
            {
                tracing::error!("no sandbox for executor {}: {error}", key.1);
            }
            let executor = shared.launcher.launch(&info, environment);
            let shutdown = shared.supervisor.shutdown();
            let status = tokio::select! {
                status = executor => status,
                () = killed.cancelled() => 128 + 9,
                () = shutdown.cancelled() => return,
            };
            if shutdown.is_cancelled() {
                return;
            }
            let core = &mut *shared.core.lock();
            core.running.remove(&(agent.clone(), key.clone()));
            let actions = core.master.executor_exited(shared.clock.now(), &agent, &key, status);
            shared.act(core, actions);
        });
    }
}
