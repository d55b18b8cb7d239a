//! What writes create, keep and refuse beyond the plain case.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map, start};

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
    object
}

#[tokio::test]
async fn what_is_tried_must_be_possible() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let tried = format!("{CONFIG_MAPS}?dryRun=All");
    let taken = (409, "AlreadyExists".to_owned(), "configmaps \"a\" already exists".to_owned());
    assert_eq!(it.create(&tried, config_map("a")).await.failed(), taken);
    assert!(it.create(&tried, config_map("b")).await.ok()["metadata"].get("resourceVersion").is_none());
    it.create(CONFIG_MAPS, with(config_map("held"), "/metadata/finalizers", json!(["example.com/hold"]))).await.ok();
    it.delete(&format!("{CONFIG_MAPS}/held"), Value::Null).await.ok();
    for path in [CONFIG_MAPS, &tried] {
        let refused = it.create(path, config_map("held")).await.failed();
        assert_eq!(refused.2, "object is being deleted: configmaps \"held\" already exists");
    }
    it.stop().await;
}

