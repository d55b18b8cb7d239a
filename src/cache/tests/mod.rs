//! The cache against a naive model, and under concurrent writers and watchers.

mod concurrent;
mod model;

use super::*;
use crate::codec::{EventFormat, MetaVersion};
use crate::object::resource;

/// A pod with a few selectable properties.
fn pod(namespace: &str, name: &str, app: &str, node: &str, owner: &str, revision: Revision) -> Arc<Object> {
    let json = serde_json::json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("{namespace}/{name}"), "labels": {"app": app},
            "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": owner}],
        },
        "spec": {"nodeName": node},
    });
    Object::from_stored(&resource::POD, json.to_string().as_bytes(), revision).unwrap()
}

fn put(object: Arc<Object>) -> Change {
    Change { key: object.key(), revision: object.revision(), object: Some(object) }
}

fn delete(namespace: &str, name: &str, revision: Revision) -> Change {
    Change { key: ObjectKey::new(&resource::POD, namespace, name), revision, object: None }
}

fn names(objects: &[Arc<Object>]) -> Vec<String> {
    objects.iter().map(|object| object.meta().name.to_string()).collect()
}

fn drain(watch: &mut Watch) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(event) = watch.try_next().unwrap() {
        seen.push(match event {
            Event::Added(object) => format!("+{}@{}", object.name(), object.revision()),
            Event::Modified(object) => format!("~{}@{}", object.name(), object.revision()),
            Event::Deleted(object) => format!("-{}@{}", object.name(), object.revision()),
            Event::Bookmark(revision) => format!("#{revision}"),
        });
    }
    seen
}

#[test]
fn a_selector_is_entered_and_left() {
    let cache = Cache::new(10);
    cache.apply(vec![put(pod("a", "x", "web", "n1", "o", 1))], 1);
    let mut node = cache.watch(&resource::POD, Query::field("spec.nodeName", "n1"), 0).unwrap();
    let mut app = cache.watch(&resource::POD, Query { labels: LabelSelector::parse("app=db").unwrap(), ..Query::default() }, 1).unwrap();
    assert_eq!(drain(&mut node), ["+x@1", "#1"]);
    cache.apply(vec![put(pod("a", "x", "db", "n2", "o", 2))], 2);
    cache.apply(vec![put(pod("a", "x", "db", "n1", "o", 3))], 3);
    cache.apply(vec![put(pod("a", "x", "db", "n1", "p", 4))], 4);
    cache.apply(vec![delete("a", "x", 5)], 5);
    cache.apply(vec![], 9);
    assert_eq!(drain(&mut node), ["-x@2", "+x@3", "~x@4", "-x@5"]);
    assert_eq!(drain(&mut app), ["+x@2", "~x@3", "~x@4", "-x@5"]);
    assert_eq!((node.revision(), cache.revision(&resource::POD)), (9, 9));
    let Frame::Events(frame, 2) = &cache.watch(&resource::POD, Query::field("spec.nodeName", "n1"), 1).unwrap().try_frames().unwrap()[0]
    else {
        panic!("not the first change");
    };
    let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
    assert_eq!((&frame["type"], &frame["object"]["spec"]["nodeName"]), (&"DELETED".into(), &"n1".into()));
    assert_eq!(frame["object"]["metadata"]["resourceVersion"], "2");
}

#[test]
fn a_narrow_watch_does_not_fall_behind_because_of_others() {
    let cache = Cache::new(2);
    cache.apply(vec![], 1);
    let mut narrow = cache.watch(&resource::POD, Query::field("spec.nodeName", "n1"), 1).unwrap();
    let mut wide = cache.watch(&resource::POD, Query::default(), 1).unwrap();
    for revision in 2..20 {
        cache.apply(vec![put(pod("a", &format!("x{revision}"), "web", "n2", "o", revision))], revision);
    }
    assert_eq!(narrow.revision(), 19);
    cache.apply(vec![put(pod("a", "mine", "web", "n1", "o", 20))], 20);
    assert_eq!(narrow.revision(), 1);
    assert_eq!(drain(&mut narrow), ["+mine@20"]);
    assert_eq!(wide.try_next().unwrap_err(), Expired { asked: 1, oldest: 18 });
    assert_eq!(cache.watch(&resource::POD, Query::default(), 17).unwrap_err(), Expired { asked: 17, oldest: 18 });
    assert_eq!(drain(&mut cache.watch(&resource::POD, Query::default(), 18).unwrap()), ["+x19@19", "+mine@20"]);
    for revision in 21..30 {
        cache.apply(vec![put(pod("a", "mine", "web", "n1", "o", revision))], revision);
    }
    assert_eq!(narrow.try_next().unwrap_err(), Expired { asked: 20, oldest: 27 });
}

#[tokio::test]
async fn watches_begin_when_a_resource_is_filled() {
    let cache = Cache::new(10);
    let mut early = cache.watch(&resource::POD, Query::default(), 0).unwrap();
    assert!(cache.watch(&resource::POD, Query::default(), 3).is_err());
    assert_eq!(drain(&mut early), Vec::<String>::new());
    let fill = async {
        tokio::task::yield_now().await;
        cache.replace(&resource::POD, vec![pod("a", "x", "", "", "", 3)], 7);
    };
    let (event, ()) = tokio::join!(early.next(), fill);
    assert!(matches!(event, Ok(Event::Added(_))));
    assert_eq!(drain(&mut early), ["#7"]);
    cache.replace(&resource::POD, vec![pod("a", "x", "", "", "", 3), pod("a", "z", "", "", "", 9), pod("a", "y", "", "", "", 8)], 10);
    cache.replace(&resource::POD, vec![pod("a", "x", "", "", "", 11)], 12);
    assert_eq!(drain(&mut early), ["+y@8", "+z@9", "~x@11", "-y@12", "-z@12"]);
    assert_eq!(cache.watch(&resource::POD, Query::default(), 11).unwrap_err(), Expired { asked: 11, oldest: 12 });
    cache.wait_synced(&[&resource::POD]).await;
    cache.wait_for(&resource::POD, 12).await;
}

#[tokio::test]
async fn every_resource_is_complete_in_a_cache_fed_by_a_store() {
    let cache = Cache::new(10);
    let mut watch = cache.watch(&resource::NODE, Query::default(), 0).unwrap();
    let wanted = [&resource::NODE, &resource::POD];
    let (filled, ()) = tokio::join!(cache.wait_synced(&wanted), async {
        tokio::task::yield_now().await;
        cache.replace_all(vec![pod("a", "x", "", "", "o", 3)], 5);
    });
    assert_eq!((filled, drain(&mut watch)), ((), vec!["#5".to_owned()]));
    cache.wait_synced(&[&resource::SECRET]).await;
    assert_eq!(cache.watch(&resource::SECRET, Query::default(), 4).unwrap_err(), Expired { asked: 4, oldest: 5 });
    let (waited, ()) = tokio::join!(cache.wait_for(&resource::SECRET, 6), async { cache.apply(vec![], 6) });
    assert_eq!((waited, watch.revision(), cache.list(&resource::SECRET, &Query::default()).revision), ((), 6, 6));
    assert_eq!(names(&cache.owned_by("o")), ["a/x"]);
    assert_eq!(names(&cache.owned_by("p")), Vec::<String>::new());
}

#[test]
fn chunks_show_one_revision() {
    let cache = Cache::new(100);
    for at in 1..=10 {
        cache.apply(vec![put(pod(if at < 6 { "a" } else { "b" }, &format!("x{at:02}"), "", "", "", at))], at);
    }
    let first = cache.page(&resource::POD, &Query::default(), None, 4, None).unwrap();
    assert_eq!((names(&first.objects).len(), first.revision, first.more, first.remaining), (4, 10, true, Some(6)));
    let of_one = cache.page(&resource::POD, &Query::namespace("b"), None, 2, None).unwrap();
    assert_eq!((of_one.more, of_one.remaining), (true, Some(3)));
    cache.apply(vec![delete("b", "x06", 11)], 11);
    let past = cache.page(&resource::POD, &Query::default(), None, 4, Some(10)).unwrap();
    assert_eq!((past.more, past.remaining), (true, Some(6)));
    cache.apply(vec![put(pod("a", "x045", "", "", "", 12))], 12);
    let start = Name::new("a", "x04\0");
    let rest = cache.page(&resource::POD, &Query::default(), Some(&start), 5, Some(10)).unwrap();
    assert_eq!(names(&rest.objects), ["a/x05", "b/x06", "b/x07", "b/x08", "b/x09"]);
    assert_eq!((rest.revision, rest.more, rest.remaining), (10, true, None));
    let last = cache.page(&resource::POD, &Query::namespace("b"), Some(&start), 5, None).unwrap();
    assert_eq!((names(&last.objects).len(), last.revision, last.more, last.remaining), (4, 12, false, Some(0)));
}

/// Watchers that read the history from different positions at different times all get the same lines.
#[test]
fn everybody_is_sent_the_same_lines() {
    let cache = Cache::new(1_000);
    cache.apply(vec![], 1);
    let lines = |watch: &mut Watch| {
        let frames = std::iter::from_fn(|| Some(watch.try_frames().unwrap()).filter(|frames| !frames.is_empty())).flatten();
        let bytes = frames.filter_map(|frame| if let Frame::Events(bytes, _) = frame { Some(bytes) } else { None });
        let bytes: Vec<u8> = bytes.flat_map(|bytes| bytes.to_vec()).collect();
        bytes.split_inclusive(|byte| *byte == b'\n').map(|line| String::from_utf8(line.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let mut watches: Vec<(Revision, Watch, Vec<String>)> = Vec::new();
    let (mut revision, mut events) = (1u64, cache.watch(&resource::POD, Query::default(), 1).unwrap());
    for round in 0..40u64 {
        let after = revision.saturating_sub(round % 3).max(1);
        watches.push((after, cache.watch(&resource::POD, Query::default(), after).unwrap(), Vec::new()));
        for n in 0..round % 7 {
            revision += 1;
            let name = format!("p{}", (round + n) % 5);
            let gone = n == 4 && cache.get(&resource::POD, "a", &name).is_some();
            let change = if gone { delete("a", &name, revision) } else { put(pod("a", &name, "web", "n1", "o", revision)) };
            cache.apply(vec![change], revision);
        }
        for (at, (_, watch, seen)) in watches.iter_mut().enumerate() {
            if (at as u64 + round).is_multiple_of(3) {
                seen.extend(lines(watch));
            }
        }
    }
    let mut expected = Vec::new();
    while let Some(event) = events.try_next().unwrap() {
        let (kind, object) = match event {
            Event::Added(object) => ("ADDED", object),
            Event::Modified(object) => ("MODIFIED", object),
            Event::Deleted(object) => ("DELETED", object),
            Event::Bookmark(_) => continue,
        };
        expected.push(format!("{{\"type\":\"{kind}\",\"object\":{}}}\n", std::str::from_utf8(object.body()).unwrap()));
    }
    assert!(expected.len() > 80);
    for (after, mut watch, mut seen) in watches {
        seen.extend(lines(&mut watch));
        assert_eq!(seen, expected[after as usize - 1..]);
        assert_eq!(watch.revision(), revision);
    }
}

/// Converted frames are made once, too.
#[test]
fn those_who_want_the_same_form_share_its_frames() {
    let cache = Cache::new(1_000);
    cache.apply(vec![], 1);
    let formats = [
        EventFormat { metadata: Some(MetaVersion::V1), ..EventFormat::default() },
        EventFormat { metadata: Some(MetaVersion::V1), protobuf: true, ..EventFormat::default() },
    ];
    let watch = |format: &EventFormat| cache.watch(&resource::POD, Query::default(), 1).unwrap().in_format(*format);
    let (mut first, mut second) = (formats.each_ref().map(watch), formats.each_ref().map(watch));
    cache.apply(vec![put(pod("a", "x", "web", "n1", "o", 2)), put(pod("a", "y", "web", "n1", "o", 3))], 3);
    let frames = |watch: &mut Watch| -> Vec<(*const u8, Bytes)> {
        let frames = watch.try_frames().unwrap();
        frames.into_iter().filter_map(|it| if let Frame::Events(it, _) = it { Some((it.as_ptr(), it)) } else { None }).collect()
    };
    for ((first, second), format) in first.iter_mut().zip(&mut second).zip(formats) {
        let made = frames(first);
        assert_eq!(made.len(), 2, "{format:?}");
        assert_eq!(made, frames(second), "{format:?}");
        let object = cache.get(&resource::POD, "a", "y").unwrap();
        assert_eq!(made[1].1, format.event("ADDED", &object));
    }
}

/// A watcher that was delayed once catches up, although its blocks were made for others.
#[test]
fn who_comes_late_is_sent_all_there_is() {
    let cache = Cache::new(1_000);
    cache.apply(vec![], 1);
    let mut watches: Vec<Watch> = (0..8).map(|_| cache.watch(&resource::POD, Query::default(), 1).unwrap()).collect();
    for revision in 2..100u64 {
        cache.apply(vec![put(pod("a", "x", "web", "n1", "o", revision))], revision);
        let watch = &mut watches[revision as usize % 8];
        let frames = watch.try_frames().unwrap();
        assert!(matches!(frames.last(), Some(Frame::Events(_, last)) if *last == revision), "{revision}: {frames:?}");
        assert!(watch.try_frames().unwrap().is_empty());
    }
}

#[test]
fn orphans_are_found_among_few_and_many() {
    let cache = Cache::new(10);
    let web = LabelSelector::parse("app=web").unwrap();
    assert!(cache.orphans(&resource::POD, "a", &web).is_empty());
    let managed = {
        let json = serde_json::json!({"metadata": {"name": "managed", "namespace": "a", "labels": {"app": "web"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": "rc", "controller": true}]}});
        Object::from_stored(&resource::POD, json.to_string().as_bytes(), 1).unwrap()
    };
    cache.apply(vec![put(managed), put(pod("b", "elsewhere", "web", "", "o", 1)), put(pod("a", "x", "web", "", "o", 1))], 1);
    for revision in 2..200 {
        // The indexes are built as the number of objects grows.
        assert_eq!(names(&cache.orphans(&resource::POD, "a", &web)), ["a/x"], "{revision}");
        let app = if revision % 2 == 0 { "db" } else { "cache" };
        cache.apply(vec![put(pod("a", &format!("y{revision}"), app, "", "o", revision))], revision);
    }
    assert!(cache.orphans(&resource::POD, "a", &LabelSelector::parse("app=none").unwrap()).is_empty());
    assert_eq!(cache.orphans(&resource::POD, "a", &LabelSelector::parse("app in (db,cache)").unwrap()).len(), 198);
}
