//! HTTP around the objects: methods, media types, caching, compression, time limits.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use super::{Answered, CONFIG_MAPS, Fixture, config_map, start, start_with};
use crate::apiserver::fairness::Origin;
use crate::codec;

async fn send(it: &Fixture, method: Method, path: &str, headers: &[(&str, &str)]) -> Answered {
    let request = headers.iter().fold(http::Request::builder().method(method).uri(path), |it, (name, value)| it.header(*name, *value));
    it.send(request.body(Bytes::new()).unwrap()).await
}

async fn get(it: &Fixture, path: &str, headers: &[(&str, &str)]) -> Answered {
    send(it, Method::GET, path, headers).await
}

#[tokio::test]
async fn methods_and_media_types_that_are_not_served() {
    let it = start().await;
    let named = &format!("{CONFIG_MAPS}/a");
    for (method, path) in [
        (Method::POST, named.as_str()),
        (Method::PUT, CONFIG_MAPS),
        (Method::PATCH, CONFIG_MAPS),
        (Method::OPTIONS, CONFIG_MAPS),
        (Method::HEAD, CONFIG_MAPS),
        (Method::TRACE, named),
        (Method::POST, "/api/v1/configmaps"),
        (Method::DELETE, "/api/v1/namespaces"),
        (Method::DELETE, "/api/v1/configmaps"),
        (Method::DELETE, "/apis/apps/v1/deployments"),
        (Method::DELETE, "/api/v1/namespaces/default/pods/a/log"),
        (Method::POST, "/apis"),
        (Method::PUT, "/version"),
    ] {
        let answer = send(&it, method.clone(), path, &[]).await;
        assert!(answer.text.contains(r#""details":{}"#), "{}", answer.text);
        let (code, reason, message) = answer.failed();
        assert_eq!((code, reason.as_str()), (405, "MethodNotAllowed"), "{method} {path}");
        assert_eq!(message, "the server does not allow this method on the requested resource");
    }
    for path in ["/api/", "/apis/", "/api/v1/", "/apis/apps/", "/apis/apps/v1/", "/version/", &format!("{CONFIG_MAPS}/")] {
        assert_eq!(get(&it, path, &[]).await.code, 200, "{path}");
    }
    let accepts = |code: u16, path: &str, accept: &str| {
        let (it, path, accept) = (&it, path.to_owned(), accept.to_owned());
        async move { assert_eq!(get(it, &path, &[("accept", &accept)]).await.code, code, "{path} as {accept}") }
    };
    for path in [CONFIG_MAPS, "/api", "/apis", "/api/v1", "/openapi/v3"] {
        accepts(406, path, "text/html").await;
        accepts(200, path, "text/html, */*;q=0.8").await;
    }
    let watch = &format!("{CONFIG_MAPS}?watch=1");
    accepts(406, watch, "application/yaml").await;
    accepts(406, CONFIG_MAPS, "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io").await;
    let patch = http::Request::builder().method(Method::PATCH).uri(named).header("content-type", "application/json");
    let (code, reason, _) = it.send(patch.body("{}".into()).unwrap()).await.failed();
    assert_eq!((code, reason.as_str()), (415, "UnsupportedMediaType"));
    it.stop().await;
}

#[tokio::test]
async fn documents_are_fetched_once() {
    let it = start().await;
    const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, accept) in [
        ("/api", AGGREGATED),
        ("/apis", AGGREGATED),
        ("/openapi/v2", "application/json"),
        ("/openapi/v3", "application/json"),
        ("/openapi/v3/apis/apps/v1", "application/json"),
    ] {
        let first = get(&it, path, &[("accept", accept)]).await;
        let tag = first.headers["etag"].to_str().unwrap().to_owned();
        assert_eq!(
            (first.code, &first.headers["vary"], &first.headers["content-type"]),
            (200, &"Accept".parse().unwrap(), &accept.parse().unwrap())
        );
        let again = get(&it, path, &[("accept", accept), ("if-none-match", &tag)]).await;
        assert_eq!((again.code, again.text.as_str()), (304, ""), "{path}");
        assert_eq!(get(&it, path, &[("accept", accept), ("if-none-match", "\"other\"")]).await.code, 200);
    }
    for path in ["/api", "/apis", "/apis/apps", "/apis/apps/v1"] {
        let plain = get(&it, path, &[]).await;
        assert_eq!((plain.headers.get("etag"), plain.headers["cache-control"].to_str().unwrap()), (None, "no-cache, private"), "{path}");
    }
    let index = get(&it, "/openapi/v3", &[]).await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = get(&it, url, &[]).await;
    assert!(document.code == 200 && document.headers["cache-control"].to_str().unwrap().contains("immutable"));
    let moved = get(&it, "/openapi/v3/apis/apps/v1?hash=OLD", &[]).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, url));
    it.stop().await;
}

#[tokio::test]
async fn clients_that_take_nothing_else_get_protobuf() {
    let it = start().await;
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let created = it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let ask = [("accept", PROTOBUF)];
    let one = get(&it, &format!("{CONFIG_MAPS}/a"), &ask).await;
    assert_eq!(one.headers["content-type"], PROTOBUF);
    let decoded = codec::decode(&crate::object::resource::CONFIG_MAP, PROTOBUF, &one.bytes.into()).unwrap();
    assert_eq!((&decoded.value["data"], &decoded.value["metadata"]["uid"]), (&created["data"], &created["metadata"]["uid"]));
    let list = get(&it, CONFIG_MAPS, &ask).await;
    assert!(list.code == 200 && list.bytes.starts_with(b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dConfigMapList"));
    let missing = get(&it, &format!("{CONFIG_MAPS}/none"), &ask).await;
    assert_eq!((missing.code, &missing.headers["content-type"]), (404, &PROTOBUF.parse().unwrap()));
    let status = codec::decode_kind(("", "v1", "Status"), PROTOBUF, &missing.bytes.into()).unwrap().value;
    assert_eq!((&status["reason"], &status["code"], &status["details"]["name"]), (&json!("NotFound"), &json!(404), &json!("none")));
    let partial = get(&it, CONFIG_MAPS, &[("accept", &format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"))]).await;
    assert!(partial.bytes.windows(25).any(|it| it == b"PartialObjectMetadataList"));
    let watch = get(&it, &format!("{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=1"), &ask).await;
    assert_eq!(watch.headers["content-type"], format!("{PROTOBUF};stream=watch"));
    let frames = frames(&watch.bytes);
    assert!(frames[0].starts_with(b"\x0a\x05ADDED") && frames[1].starts_with(b"\x0a\x08BOOKMARK"), "{frames:?}");
    assert_eq!(get(&it, "/apis", &ask).await.code, 406, "there is no such message");
    let events = get(&it, "/apis/events.k8s.io/v1/events", &ask).await;
    assert!(events.bytes.starts_with(b"k8s\0\x0a\x1d\x0a\x10events.k8s.io/v1\x12\x09EventList"), "{:?}", events.bytes);
    it.stop().await;
}

/// The messages of a watch in protobuf.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((length, tail)) = bytes.split_first_chunk::<4>() {
        let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(frame);
        bytes = tail;
    }
    frames
}

#[tokio::test]
async fn changes_that_come_together_are_all_seen() {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let kinds = [
        PROTOBUF,
        &format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "application/json;as=Table;g=meta.k8s.io;v=v1beta1",
    ];
    let it = start().await;
    let before = it.create(CONFIG_MAPS, config_map("before")).await.ok();
    let path = format!("/api/v1/configmaps?watch=true&resourceVersion={}", before["metadata"]["resourceVersion"].as_str().unwrap());
    let mut watches = Vec::new();
    for accept in kinds {
        let request = http::Request::get(&path).header("accept", accept).body(Bytes::new()).unwrap();
        watches.push((accept, it.server.transport().send(request).await.unwrap().into_body()));
    }
    for name in ["a", "b", "c"] {
        it.create(CONFIG_MAPS, config_map(name)).await.ok();
    }
    for (accept, mut body) in watches {
        let (mut seen, mut bytes) = (0, Vec::new());
        while seen < 3 {
            bytes.extend_from_slice(&body.next().await.unwrap().unwrap());
            seen = if accept.starts_with(PROTOBUF) { frames(&bytes).len() } else { bytes.split_inclusive(|it| *it == b'\n').count() };
            assert!(!bytes.is_empty(), "events got lost: {accept}");
        }
        assert_eq!(seen, 3, "{accept}");
    }
    it.stop().await;
}

#[tokio::test]
async fn people_get_lines_and_large_answers_are_compressed() {
    let it = start().await;
    let mut large = config_map("large");
    large["data"]["a"] = "x".repeat(200_000).into();
    it.create(CONFIG_MAPS, large).await.ok();
    let curl = get(&it, &format!("{CONFIG_MAPS}/large"), &[("user-agent", "curl/8.5.0")]).await;
    assert!(curl.text.starts_with("{\n  \"kind\": \"ConfigMap\",\n"), "{}", &curl.text[..80]);
    assert!(get(&it, &format!("{CONFIG_MAPS}?pretty=true"), &[]).await.text.contains("\n      \"metadata\": {\n"));
    for path in [CONFIG_MAPS, &format!("{CONFIG_MAPS}/large")] {
        let packed = get(&it, path, &[("accept-encoding", "gzip"), ("user-agent", "curl/8.5.0")]).await;
        assert_eq!(packed.headers["content-encoding"], "gzip");
        assert!(packed.bytes.len() < 20_000);
    }
    let watch = get(&it, &format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1"), &[("accept-encoding", "gzip")]).await;
    assert!(!watch.headers.contains_key("content-encoding"), "watches are to be seen at once");
    it.stop().await;
}

#[tokio::test]
async fn requests_have_their_time() {
    let it = start_with(|config| config.timeouts.request = Duration::from_millis(50)).await;
    // A revision that does not come.
    let waits = |query: &str| {
        let path = format!("{CONFIG_MAPS}?resourceVersion=99999{query}");
        let it = &it;
        async move { it.get(&path).await }
    };
    for query in ["", "&timeout=0s", "&timeout=1h", "&timeout=-3s", "&timeout=20ms"] {
        let answer = waits(query).await;
        assert!(!answer.headers.contains_key("retry-after"), "a write would be repeated");
        let message = "Timeout: request did not complete within the allotted timeout".to_owned();
        assert_eq!(answer.failed(), (504, "Timeout".to_owned(), message), "{query}");
    }
    let (code, _, message) = waits("&timeout=soon").await.failed();
    assert_eq!((code, message.as_str()), (400, "invalid timeout specified in the request URL - time: invalid duration \"soon\""));
    assert_eq!(it.get(&format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&timeout=soon")).await.code, 200, "a watch has a time of its own");
    it.stop().await;
}

#[tokio::test]
async fn list_options_are_read_as_kubernetes_reads_them() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    for (query, code, message) in [
        ("limit=x", 400, r#"strconv.ParseInt: parsing "x": invalid syntax"#),
        ("limit=99999999999999999999", 400, r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#),
        (
            "resourceVersion=x",
            400,
            r#"invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#,
        ),
        ("continue=%00", 400, "invalid continue token: continue key is not valid: illegal base64 data at input byte 0"),
        ("watch=1&timeoutSeconds=1.5", 400, r#"strconv.ParseInt: parsing "1.5": invalid syntax"#),
        (
            "resourceVersionMatch=Newest",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
             resourceVersion is provided, resourceVersionMatch: Unsupported value: \"Newest\": supported values: \"Exact\", \
             \"NotOlderThan\", \"\"]",
        ),
        (
            "sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
    ] {
        let failed = it.get(&format!("{CONFIG_MAPS}?{query}")).await.failed();
        assert_eq!((failed.0, failed.2.as_str()), (code, message), "{query}");
    }
    let path = "/api/v1/watch/namespaces/default/configmaps/a?fieldSelector=metadata.name%3Db";
    assert_eq!(it.get(path).await.failed().2, "fieldSelector metadata.name doesn't match requested name");
    for fine in ["limit=-1", "limit=0", "watch=0", "watch=false"] {
        let listed = it.get(&format!("{CONFIG_MAPS}?{fine}")).await.ok();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{fine}");
    }
    // A watch that begins with the existing objects marks their end by a bookmark, if requested.
    let mut watch = it.watch(&format!("{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion=0")).await;
    watch.next().await.unwrap();
    let (kind, bookmark) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &Value::from("true")));
    it.stop().await;
}

/// With nine seats for reads and one client sending 45 slow ones, other clients wait for one seat at most.
#[tokio::test]
async fn one_noisy_client_does_not_hold_up_the_others() {
    let it = start_with(|config| config.max_reads = 10).await;
    let ask = |agent: &str, path: &str| {
        let request = http::Request::get(path).header("user-agent", agent).body(Bytes::new()).unwrap();
        let server = it.server.server.clone();
        async move { server.handle(request, Origin::Remote([127, 0, 0, 1].into())).await.status() }
    };
    // Each waits for a revision that does not come.
    let mut noise = tokio::task::JoinSet::new();
    let asked: Vec<_> = (0..45).map(|_| noise.spawn(ask("noisy", &format!("{CONFIG_MAPS}?resourceVersion=99999")))).collect();
    let answered = || asked.iter().filter(|it| it.is_finished()).count();
    const QUEUED: &str = r#"current_inqueue_requests{request_kind="readOnly",priority_level="workload"} 36"#;
    while !it.server.server.config.metrics.render().contains(QUEUED) {
        tokio::task::yield_now().await;
    }
    for free in ["/apis/coordination.k8s.io/v1/leases", "/healthz"] {
        assert_eq!((ask("quiet", free).await, answered()), (http::StatusCode::OK, 0), "{free}");
    }
    assert_eq!(ask("quiet", CONFIG_MAPS).await, 200);
    assert!(answered() <= 9 + 1, "those that had seats, and the one whose place it took");
    let codes: Vec<_> = noise.join_all().await.into_iter().map(|it| it.as_u16()).collect();
    assert_eq!((codes.iter().filter(|it| **it == 429).count(), codes.iter().filter(|it| **it == 504).count()), (1, 44));
    it.stop().await;
}

/// All seats belong to responses that are not being read.
#[tokio::test]
async fn who_does_not_read_loses_its_seat() {
    let it = start_with(|config| config.max_reads = 10).await;
    for name in ["a", "b"] {
        let mut large = config_map(name);
        large["data"]["a"] = "x".repeat(200_000).into();
        it.create(CONFIG_MAPS, large).await.ok();
    }
    let ask = |agent: &str| {
        let request = http::Request::get(CONFIG_MAPS).header("user-agent", agent).body(Bytes::new()).unwrap();
        let server = it.server.server.clone();
        async move { server.handle(request, Origin::Remote([127, 0, 0, 1].into())).await }
    };
    let mut unread = Vec::new();
    for _ in 0..9 {
        unread.push(ask("lazy").await);
    }
    assert!(unread.iter().all(|it| matches!(it.body(), crate::apiserver::response::Body::Stream(_))));
    assert_eq!(ask("quiet").await.status(), 200);
    it.stop().await;
}

#[tokio::test]
async fn requests_are_counted_as_dashboards_ask_for_them() {
    let it = start().await;
    it.create(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a")).await.ok();
    it.apply(&format!("{CONFIG_MAPS}/a"), "fieldManager=m", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}))
        .await
        .ok();
    get(&it, "/apis/apps/v1/deployments", &[]).await;
    get(&it, "/apis/apps/v1/namespaces/default/deployments/none/status", &[]).await;
    let metrics = get(&it, "/metrics", &[]).await.text;
    for labels in [
        r#"code="201",component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1""#,
        r#"code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="APPLY",version="v1""#,
        r#"code="200",component="apiserver",dry_run="",group="apps",resource="deployments",scope="cluster",subresource="",verb="LIST",version="v1""#,
        r#"code="404",component="apiserver",dry_run="",group="apps",resource="deployments",scope="resource",subresource="status",verb="GET",version="v1""#,
    ] {
        assert!(metrics.contains(&format!("apiserver_request_total{{{labels}}} 1\n")), "{labels} in {metrics}");
    }
    assert!(metrics.contains("apiserver_current_inflight_requests{request_kind=\"mutating\"} 0\n"), "{metrics}");
    it.stop().await;
}
