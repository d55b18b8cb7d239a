//! Values from the metrics APIs: requested by plans, fetched in the background, and read by later plans.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::replicas::{Sample, Samples};
use crate::client::{Client, ClientError};
use crate::supervise::Shutdown;
use crate::util::duration;
use crate::util::quantity::Quantity;

/// The answers of the metrics APIs, by path. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Answer {
    content: Option<Result<Arc<Value>, String>>,
    /// Rounds since the last request.
    idle: u32,
}

/// A value that was not requested for this many rounds is no longer fetched.
const FORGET: u32 = 4;
/// Concurrent fetches.
const FETCHES: usize = 16;

impl Metrics {
    /// The newest response for a path, or its error; `None` until it has been fetched.
    pub(super) fn ask(&self, path: &str) -> Option<Result<Arc<Value>, String>> {
        let mut answers = self.0.answers.lock();
        let answer = answers.entry(path.to_owned()).or_default();
        answer.idle = 0;
        if answer.content.is_none() {
            self.0.bell.notify_one();
        }
        answer.content.clone()
    }

    /// Puts an answer in.
    pub(super) fn set(&self, path: &str, content: Result<Value, String>) {
        if let Some(answer) = self.0.answers.lock().get_mut(path) {
            answer.content = Some(content.map(Arc::new));
        }
    }

    /// Fetches the requested values, every `period` and on new requests, until the shutdown.
    ///
    /// # Errors
    /// None; the signature is that of a component's task.
    pub async fn follow(self, client: Client, period: Duration, shutdown: Shutdown) -> anyhow::Result<()> {
        let fetch = async {
            loop {
                let idle = self.0.answers.lock().is_empty();
                let round = tokio::select! {
                    () = self.0.bell.notified() => false,
                    () = tokio::time::sleep(period), if !idle => true,
                };
                let paths = futures_util::stream::iter(self.due(round));
                paths.for_each_concurrent(FETCHES, |path| self.fetch(&client, path)).await;
            }
        };
        shutdown.run_until_cancelled(fetch).await;
        Ok(())
    }

    async fn fetch(&self, client: &Client, path: String) {
        let answer = match client.get_path(&path).await {
            Ok(body) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
            Err(ClientError::Api(status)) if status.code == 404 => Err(NOT_SERVED.to_owned()),
            Err(error) => Err(error.to_string()),
        };
        self.set(&path, answer);
    }

    /// The paths to fetch now: all in a round, otherwise those without a response.
    fn due(&self, round: bool) -> Vec<String> {
        let mut answers = self.0.answers.lock();
        if round {
            answers.values_mut().for_each(|it| it.idle += 1);
            answers.retain(|_, it| it.idle < FORGET);
        }
        answers.iter().filter(|(_, it)| round || it.content.is_none()).map(|(path, _)| path.clone()).collect()
    }
}

/// The message of Kubernetes' client about what its server does not have.
pub(super) const NOT_SERVED: &str = "the server could not find the requested resource";

/// The usage of a resource by the pods in a list of `metrics.k8s.io`, in all containers or in one.
pub(super) fn of_resource(list: &Value, resource: &str, container: Option<&str>) -> Samples {
    let sample = |pod: &Value| {
        let containers = pod["containers"].as_array()?;
        let wanted = containers.iter().filter(|it| container.is_none_or(|name| it["name"] == name));
        let amounts: Vec<i64> = wanted.map(|it| Some(Quantity::from_json(&it["usage"][resource]).ok()?.millis())).collect::<Option<_>>()?;
        let window = pod["window"].as_str().and_then(|it| duration::parse(it).ok()).unwrap_or_default();
        let value = (!amounts.is_empty()).then(|| amounts.iter().sum())?;
        Some((pod["metadata"]["name"].as_str()?.to_owned(), Sample { value, at: time(&pod["timestamp"])?, window }))
    };
    list["items"].as_array().into_iter().flatten().filter_map(sample).collect()
}

/// The values of a list of `custom.metrics.k8s.io`, by the name of the object each is of.
pub(super) fn of_objects(list: &Value) -> Samples {
    let sample = |item: &Value| {
        let window = Duration::from_secs(item["windowSeconds"].as_u64().unwrap_or(60));
        let sample = Sample { value: Quantity::from_json(&item["value"]).ok()?.millis(), at: time(&item["timestamp"])?, window };
        Some((item["describedObject"]["name"].as_str()?.to_owned(), sample))
    };
    list["items"].as_array().into_iter().flatten().filter_map(sample).collect()
}

/// The sum of the values in a list of `external.metrics.k8s.io`; `None` if there are none.
pub(super) fn external(list: &Value) -> Option<i64> {
    let values: Vec<i64> =
        list["items"].as_array()?.iter().filter_map(|it| Some(Quantity::from_json(&it["value"]).ok()?.millis())).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_read() {
        let container = |name: &str, cpu: &str| json!({"name": name, "usage": {"cpu": cpu, "memory": "1Mi"}});
        let pod = |name: &str, containers: Value| json!({"metadata": {"name": name}, "timestamp": "2026-01-01T00:00:00Z", "window": "30s", "containers": containers});
        let list = json!({"items": [
            pod("both", json!([container("a", "100m"), container("b", "1")])),
            pod("half", json!([container("a", "100m"), {"name": "b", "usage": {}}])),
        ]});
        let all = of_resource(&list, "cpu", None);
        assert_eq!(all.iter().map(|(name, it)| (name.as_str(), it.value, it.window.as_secs())).collect::<Vec<_>>(), [("both", 1100, 30)]);
        let one = of_resource(&list, "cpu", Some("a"));
        assert_eq!(one.values().map(|it| it.value).collect::<Vec<_>>(), [100, 100]);
        let value =
            |name: &str, value: &str| json!({"describedObject": {"name": name}, "timestamp": "2026-01-01T00:00:00Z", "value": value});
        assert_eq!(of_objects(&json!({"items": [value("x", "10k")]}))["x"].value, 10_000_000);
        assert_eq!(external(&json!({"items": [value("", "1"), value("", "500m")]})), Some(1500));
        assert_eq!(external(&json!({"items": []})), None);
    }

    #[test]
    fn what_nobody_wants_is_forgotten() {
        let metrics = Metrics::default();
        assert!(metrics.ask("/a").is_none());
        assert_eq!(metrics.due(false), ["/a"]);
        metrics.set("/a", Ok(json!(1)));
        assert_eq!(metrics.ask("/a"), Some(Ok(Arc::new(json!(1)))));
        assert!(metrics.due(false).is_empty());
        assert_eq!(metrics.due(true), ["/a"]);
        for _ in 0..FORGET {
            metrics.due(true);
        }
        assert!(metrics.due(true).is_empty());
    }
}
