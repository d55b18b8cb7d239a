//! The executors' requests to the API server, and its responses.

use km::client::ClientError;
use km::executor::bind::Step;
use km::executor::core::Input;
use km::executor::names::PodId;
use km::executor::statuses::{Backlog, Begin, Write};
use km::local_mesos::agent::Key;
use km::scheduler::executorinfo::encode_resources;
use km::util::product::KUBERNETES;
use serde_json::json;

use crate::api::{text, unreachable};
use crate::world::World;

impl World {
    pub(super) fn executor_lists(&mut self, host: &str, key: &Key) {
        let pods = self.api.list_pods(Some(host));
        let Some(process) = self.process(host, key) else { return };
        process.listed = true;
        process.watch.clear();
        self.executor_input(host, key, Input::Listed(pods));
    }

    /// The watch has fallen behind: the executor lists again.
    pub fn executor_falls_behind(&mut self, host: &str, key: &Key) {
        if let Some(process) = self.process(host, key) {
            process.listed = false;
        }
    }

    pub fn publish(&mut self, host: &str, key: &Key, publish: impl FnOnce(&mut Backlog)) {
        let now = self.now;
        if let Some(process) = self.process(host, key) {
            publish(&mut process.backlog);
            process.writes.extend(process.backlog.begin().into_iter().map(|begin| (now + begin.pause, begin)));
        }
    }

    pub(super) fn executor_writes(&mut self, host: &str, key: &Key, at: usize) {
        let Some(process) = self.process(host, key) else { return };
        let (_, Begin { pod, write, .. }) = process.writes.swap_remove(at);
        let result = self.executor_asks(host, key, |world| match &write {
            Write::Status(status) => world.api.write_status(&pod, status),
            Write::Delete => {
                world.check_executor_deletes(&pod);
                world.api.delete(&pod.name, &pod.uid)
            }
        });
        let Some(process) = self.process(host, key) else { return };
        let news = process.backlog.written(&pod, write, result.as_ref().copied());
        process.news.extend(news);
        self.publish(host, key, |_| ());
    }

    /// Makes a request that may fail, before or after it is carried out.
    fn executor_asks(&mut self, host: &str, key: &Key, ask: impl FnOnce(&mut Self) -> Result<(), ClientError>) -> Result<(), ClientError> {
        let now = self.now;
        let cut = self.process(host, key).is_some_and(|process| now < process.cut_off);
        if cut || self.fails(4) {
            return Err(unreachable());
        }
        let result = ask(self);
        if self.fails(4) { Err(unreachable()) } else { result }
    }

    pub(super) fn executor_binds(&mut self, host: &str, key: &Key, at: usize) {
        let Some(process) = self.process(host, key) else { return };
        let mut bound = process.bindings.swap_remove(at);
        let id = PodId::of(&bound.pod);
        bound.step = match bound.step {
            Step::Try => {
                let annotations = json!(bound.pod.metadata.annotations);
                let result = self.executor_asks(host, key, |world| world.api.bind(&id, &annotations, host));
                bound.binding.tried(result.as_ref().copied())
            }
            Step::Look => {
                let mut there = false;
                let task = bound.task.as_str();
                let looked = self.executor_asks(host, key, |world| {
                    let pod = world.api.of_uid(&id.uid);
                    there = pod.is_some_and(|pod| {
                        text(pod, "/spec/nodeName") == host && text(pod, "/metadata/annotations/k8s.mesosphere.io~1taskId") == task
                    });
                    Ok(())
                });
                bound.binding.looked(looked.ok().map(|()| there))
            }
            Step::Wait(pause) => {
                bound.at = self.now + pause;
                Step::Try
            }
            Step::Bound => {
                let mut pod = *bound.pod;
                pod.spec.get_or_insert_default().node_name = Some(host.to_owned());
                return self.answer(host, key, Input::Bound { task: bound.task, result: Ok(pod.into()) });
            }
            Step::Failed(failure) => {
                return self.answer(host, key, Input::Bound { task: bound.task, result: Err(failure) });
            }
        };
        if let Some(process) = self.process(host, key) {
            process.bindings.push(bound);
        }
    }

    fn answer(&mut self, host: &str, key: &Key, answer: Input) {
        if let Some(process) = self.process(host, key) {
            process.answers.push_back(answer);
        }
    }

    pub(super) fn executor_annotates(&mut self, host: &str, key: &Key) {
        let Some(executor) = self.executor(host, key) else { return };
        let annotations = json!({
            KUBERNETES.annotation("executorId"): executor.launched.info.executor_id.value,
            KUBERNETES.annotation("executorResources"): encode_resources(&executor.launched.info.resources),
        });
        let Some(process) = executor.process.as_mut() else { return };
        process.annotates = false;
        self.api.write_node(host, &json!({}), &annotations);
    }
}
