//! Reports until they are objects of a server.

use super::*;
use crate::client::fake::{Line, Server};

fn web() -> Arc<Object> {
    pod("web")
}

fn pod(name: &str) -> Arc<Object> {
    let json = format!(r#"{{"metadata":{{"name":"{name}","namespace":"a","uid":"u","resourceVersion":"4"}}}}"#);
    Object::from_wire(&resource::POD, json.into()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn many_at_once_are_all_written() {
    let line = Arc::new(Line { server: Arc::new(Server::default()), ..Line::default() });
    let (recorder, writer) = recorder(Client::new(line.clone()), "scheduler", "host-1");
    let shutdown = Shutdown::new();
    // More than Kubernetes' recorder would queue, each of them twice.
    for at in 0..6_000 {
        recorder.event(&pod(&format!("web-{}", at % 3_000)), EventType::Normal, "Scheduled", "there");
    }
    shutdown.cancel();
    writer.run(shutdown).await.unwrap();
    let objects = line.server.objects.lock();
    assert_eq!(objects.len(), 3_000);
    assert!(objects.values().all(|it| it["count"] == 2));
}

#[tokio::test(start_paused = true)]
async fn reports_become_events() {
    let line = Arc::new(Line { server: Arc::new(Server::default()), ..Line::default() });
    let (recorder, writer) = recorder(Client::new(line.clone()), "scheduler", "host-1");
    for message in ["no offers", "no offers", "no memory"] {
        recorder.event(&web(), EventType::Warning, "FailedScheduling", message);
    }
    let shutdown = Shutdown::new();
    shutdown.cancel();
    // Queued events are still written.
    writer.run(shutdown).await.unwrap();
    recorder.event(&web(), EventType::Normal, "Late", "nobody listens any more");
    let objects = line.server.objects.lock();
    let events: Vec<_> = objects.values().collect();
    assert_eq!(events.len(), 2);
    let event = events[0];
    assert_eq!((&event["count"], &event["message"], &event["type"]), (&2.into(), &"no offers".into(), &"Warning".into()));
    assert_eq!(event["source"], serde_json::json!({"component": "scheduler", "host": "host-1"}));
    let about = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "namespace": "a", "name": "web", "uid": "u", "resourceVersion": "4",
    });
    assert_eq!(event["involvedObject"], about);
    assert_eq!(event["metadata"]["namespace"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_server_out_of_reach_does_not_hold_anybody_up() {
    let line = Arc::new(Line::default());
    *line.cut.lock() = true;
    let (recorder, writer) = recorder(Client::new(line.clone()), "scheduler", "");
    let shutdown = Shutdown::new();
    let writing = writer.run(shutdown.clone());
    let reporting = async {
        for at in 0..2 * WAITING {
            recorder.event(&pod(&format!("web-{at}")), EventType::Normal, "Pulled", "image");
        }
        tokio::task::yield_now().await;
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(writing, reporting);
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_went_begins_anew() {
    let line = Arc::new(Line::default());
    let (recorder, writer) = recorder(Client::new(line.clone()), "scheduler", "");
    let shutdown = Shutdown::new();
    let reporting = async {
        for _ in 0..2 {
            recorder.event(&web(), EventType::Normal, "Pulled", "image");
            while line.server.objects.lock().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            line.server.objects.lock().clear();
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(writer.run(shutdown.clone()), reporting);
    ended.unwrap();
}
