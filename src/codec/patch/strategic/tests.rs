//! Strategic merge, by example and for arbitrary objects.

use proptest::prelude::*;
use serde_json::json;

use super::super::testing::json_value;
use super::*;
use crate::object::schema::{Lookup, Merge};

/// A small schema with one field of each kind of merge.
fn lookup(name: &str) -> Option<&'static Type> {
    static TYPES: std::sync::OnceLock<Vec<Type>> = std::sync::OnceLock::new();
    let field = |name, shape| Field {
        name,
        tag: &[],
        doc: "",
        shape,
        required: false,
        nullable: false,
        omitempty: false,
        declared_default: None,
        default: None,
        allowed: &[],
        merge: Merge::Default,
        patch_key: None,
        patch_merge: false,
        retain_keys: false,
        off: false,
    };
    let list = |of| Shape::List(Box::new(of));
    TYPES
        .get_or_init(|| {
            vec![
                Type {
                    name: "Pod",
                    api_version: None,
                    doc: "",
                    atomic: false,
                    fields: vec![
                        Field { patch_key: Some("name"), patch_merge: true, ..field("containers", list(Shape::Object("Container"))) },
                        Field { patch_merge: true, ..field("finalizers", list(Shape::String)) },
                        field("labels", Shape::Map(Box::new(Shape::String))),
                        field("meta", Shape::Object("Pod")),
                        field("raw", Shape::Any),
                        field("tolerations", list(Shape::Object("Container"))),
                    ],
                    lookup: Lookup::default(),
                },
                Type {
                    name: "Container",
                    api_version: None,
                    doc: "",
                    atomic: false,
                    fields: vec![
                        field("args", list(Shape::String)),
                        field("image", Shape::String),
                        field("name", Shape::String),
                        Field { patch_key: Some("port"), patch_merge: true, ..field("ports", list(Shape::Object("Port"))) },
                    ],
                    lookup: Lookup::default(),
                },
                Type {
                    name: "Port",
                    api_version: None,
                    doc: "",
                    atomic: false,
                    fields: vec![field("name", Shape::String), field("port", Shape::Int32)],
                    lookup: Lookup::default(),
                },
            ]
        })
        .iter()
        .find(|of| of.name == name)
}

fn patched(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    apply(&lookup, "Pod", current, patch)
}

#[test]
fn merges_and_directives() {
    let pod = json!({
        "containers": [{"name": "a", "image": "1", "args": ["x"], "ports": [{"port": 1}]}, {"name": "b", "image": "2"}],
        "finalizers": ["f", "g"],
        "labels": {"k": "v"},
        "tolerations": [{"name": "t"}],
    });
    for (what, patch, pointer, expected) in [
        ("an element is merged", json!({"containers": [{"name": "b", "image": "3"}]}), "/containers/1", json!({"name": "b", "image": "3"})),
        (
            "the others stay",
            json!({"containers": [{"name": "b", "image": "3"}]}),
            "/containers/0",
            json!({"name": "a", "image": "1", "args": ["x"], "ports": [{"port": 1}]}),
        ),
        (
            "a list that was not there is taken as it is",
            json!({"meta": {"containers": [{"name": "a"}, {"name": "a", "image": null}]}}),
            "/meta/containers",
            json!([{"name": "a"}, {"name": "a"}]),
        ),
        (
            "so are those of a new element",
            json!({"containers": [{"name": "c", "ports": [{"port": 1, "name": "p"}, {"port": 1, "name": "q"}]}]}),
            "/containers/0/ports",
            json!([{"port": 1, "name": "p"}, {"port": 1, "name": "q"}]),
        ),
        (
            "there is nothing to direct",
            json!({"meta": {"labels": {"$patch": "replace", "a": "b"}, "finalizers": ["x"]}}),
            "/meta",
            json!({"finalizers": ["x"]}),
        ),
        ("a new one goes first", json!({"containers": [{"name": "c", "image": null}]}), "/containers/0", json!({"name": "c"})),
        (
            "lists within merge",
            json!({"containers": [{"name": "a", "ports": [{"port": 1, "name": "p"}, {"port": 2}]}]}),
            "/containers/0/ports",
            json!([{"port": 1, "name": "p"}, {"port": 2}]),
        ),
        ("lists without strategy are replaced", json!({"containers": [{"name": "a", "args": ["y"]}]}), "/containers/0/args", json!(["y"])),
        ("also those of objects", json!({"tolerations": [{"name": "u"}]}), "/tolerations", json!([{"name": "u"}])),
        (
            "nobody looks into those",
            json!({"tolerations": [{"name": "u", "$patch": "delete"}, {"$patch": "replace"}]}),
            "/tolerations",
            json!([{"name": "u", "$patch": "delete"}, {"$patch": "replace"}]),
        ),
        ("scalars merge as a set", json!({"finalizers": ["h", "f"]}), "/finalizers", json!(["h", "f", "g"])),
        ("scalars are deleted", json!({"$deleteFromPrimitiveList/finalizers": ["f", "none"]}), "/finalizers", json!(["g"])),
        (
            "scalars are deleted and added",
            json!({"$deleteFromPrimitiveList/finalizers": ["f"], "$setElementOrder/finalizers": ["h", "g"], "finalizers": ["h"]}),
            "/finalizers",
            json!(["h", "g"]),
        ),
        (
            "an element is deleted",
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            "/containers",
            json!([{"name": "b", "image": "2"}]),
        ),
        (
            "one that is not there as well",
            json!({"containers": [{"name": "z", "$patch": "delete"}, {"name": "a", "$patch": "delete"}]}),
            "/containers",
            json!([{"name": "b", "image": "2"}]),
        ),
        ("a list is replaced", json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}), "/containers", json!([{"name": "z"}])),
        ("a list is emptied", json!({"containers": [{"$patch": "replace"}]}), "/containers", json!([])),
        (
            "also by elements of the same key",
            json!({"containers": [{"name": "z"}, {"$patch": "replace"}, {"name": "z", "image": "2"}]}),
            "/containers",
            json!([{"name": "z"}, {"name": "z", "image": "2"}]),
        ),
        ("a map is replaced", json!({"labels": {"$patch": "replace", "x": "y"}}), "/labels", json!({"x": "y"})),
        (
            "and nobody looks into that",
            json!({"labels": {"$patch": "replace", "x": {"$patch": "delete"}}}),
            "/labels",
            json!({"x": {"$patch": "delete"}}),
        ),
        ("a map is emptied", json!({"labels": {"$patch": "delete"}}), "/labels", json!({})),
        ("a key is deleted", json!({"labels": {"k": null, "none": null, "x": "y"}}), "/labels", json!({"x": "y"})),
        ("keys are retained", json!({"labels": {"$retainKeys": ["x"], "x": "y"}}), "/labels", json!({"x": "y"})),
        (
            "order is set",
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            "/containers/0",
            json!({"name": "b", "image": "2"}),
        ),
        (
            "directives in what is new do their work",
            json!({"meta": {"labels": {"$retainKeys": ["a"], "a": "b"}}}),
            "/meta",
            json!({"labels": {"a": "b"}}),
        ),
        (
            "deletions in what is new delete nothing",
            json!({"meta": {"containers": [{"name": "x", "$patch": "delete"}, {"name": "y"}]}}),
            "/meta/containers",
            json!([{"name": "y"}]),
        ),
        ("what is new holds no nulls, not even in lists", json!({"raw": {"l": [{"name": null}, null]}}), "/raw", json!({"l": [{}, null]})),
        ("a scalar becomes an object", json!({"labels": "x"}), "/labels", json!("x")),
        ("null removes", json!({"containers": null}), "/finalizers", json!(["f", "g"])),
    ] {
        let result = patched(&pod, &patch).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(result.pointer(pointer), Some(&expected), "{what}: {result}");
    }
    assert_eq!(patched(&pod, &json!({"containers": null})).unwrap().get("containers"), None);
}

#[test]
fn what_only_the_server_has_keeps_its_place() {
    let names = |value: &Value| -> String {
        value["containers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>().concat()
    };
    let list = |names: &str| Value::from(names.chars().map(|it| json!({"name": it.to_string()})).collect::<Vec<_>>());
    for (current, patch, order, expected) in [
        ("abcd", "", "db", "acdb"),
        ("abcd", "bd", "", "abcd"),
        ("abcd", "db", "", "acdb"),
        ("ab", "x", "xab", "xab"),
        ("ab", "x", "axb", "axb"),
        ("sab", "x", "bxa", "sbxa"),
        ("", "yx", "yx", "yx"),
        ("asb", "x", "bxa", "sbxa"),
    ] {
        let mut value = json!({});
        if !patch.is_empty() {
            value["containers"] = list(patch);
        }
        if !order.is_empty() {
            value["$setElementOrder/containers"] = list(order);
        }
        assert_eq!(names(&patched(&json!({"containers": list(current)}), &value).unwrap()), expected, "{current} {patch} {order}");
    }
    // Added elements take the places of deleted ones, as far as possible.
    for (current, added, deleted, expected) in [
        ("sb", "a", "b", "sa"),
        ("bs", "ca", "b", "sca"),
        ("sbt", "ac", "b", "stac"),
        ("bst", "ac", "b", "stac"),
        ("ast", "ab", "s", "atb"),
    ] {
        let mut patch = json!({"containers": list(added), "$setElementOrder/containers": list(added)});
        let deletions = deleted.chars().map(|it| json!({"name": it.to_string(), "$patch": "delete"}));
        patch["containers"].as_array_mut().unwrap().extend(deletions);
        assert_eq!(names(&patched(&json!({"containers": list(current)}), &patch).unwrap()), expected, "{current} {added} {deleted}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let pod = json!({"containers": [{"name": "a"}], "finalizers": ["f"], "labels": {"k": "v"}});
    for (patch, error) in [
        (json!([]), PatchError::Malformed("json: cannot unmarshal array into Go value of type map[string]interface {}".into())),
        (
            json!({"containers": [{"image": "x"}]}),
            PatchError::Senseless("map: map[image:x] does not contain declared merge key: name".into()),
        ),
        (
            json!({"containers": [{"image": "x", "$patch": "delete"}]}),
            PatchError::Senseless("map: map[$patch:delete image:x] does not contain declared merge key: name".into()),
        ),
        (json!({"containers": ["x"]}), PatchError::Senseless("list element types are not identical: [[map[name:a]] [x]]".into())),
        (json!({"labels": {"$patch": "drop"}}), PatchError::Senseless("unknown patch type: drop in map: map[$patch:drop]".into())),
        (json!({"labels": {"$retainKeys": "x"}}), PatchError::Malformed("invalid patch format of retainKeys".into())),
        (json!({"labels": {"$retainKeys": ["x"], "y": "z"}}), PatchError::Malformed("invalid patch format of retainKeys".into())),
        (json!({"$deleteFromPrimitiveList": ["x"]}), PatchError::Malformed("invalid patch format of primitive list".into())),
        (json!({"$deleteFromPrimitiveList/finalizers": "x"}), PatchError::Malformed("invalid patch format of primitive list".into())),
        (json!({"$setElementOrder/finalizers": "x"}), PatchError::Malformed("invalid patch format of setElementOrder list".into())),
        (
            json!({"finalizers": ["y"], "$setElementOrder/finalizers": ["f"]}),
            PatchError::Senseless("The order in patch list:\n[y]\n doesn't match $setElementOrder list:\n[f]\n".into()),
        ),
    ] {
        assert_eq!(patched(&pod, &patch), Err(error), "{patch}");
    }
}

fn container() -> impl Strategy<Value = Value> {
    ("[a-f]", prop::option::of("[1-3]"), prop::collection::vec("[x-z]", 0..2)).prop_map(|(name, image, args)| {
        let mut value = json!({"name": name, "args": args});
        if let Some(image) = image {
            value["image"] = image.into();
        }
        value
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let unique = |list: Vec<Value>| {
        let mut seen = HashSet::new();
        list.into_iter().filter(|it| seen.insert(it.get("name").unwrap_or(it).to_string())).collect::<Vec<_>>()
    };
    (
        prop::collection::vec(container(), 0..6),
        prop::collection::vec("[a-f]".prop_map(Value::from), 0..5),
        prop::collection::btree_map("[a-d]", "[a-d]", 0..4),
    )
        .prop_map(move |(containers, finalizers, labels)| {
            json!({"containers": unique(containers), "finalizers": unique(finalizers), "labels": labels})
        })
}

/// A client's patch from one pod to another.
fn difference(from: &Value, to: &Value) -> Value {
    let fields = |from: &Value, to: &Value| -> Map<String, Value> {
        let (from, to) = (from.as_object().unwrap(), to.as_object().unwrap());
        let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
        gone.chain(to.iter().filter(|(key, value)| from.get(*key) != Some(value)).map(|(key, value)| (key.clone(), value.clone())))
            .collect()
    };
    let list = |value: &Value, key: &str| value[key].as_array().unwrap().clone();
    let (old, new) = (list(from, "containers"), list(to, "containers"));
    let find = |list: &[Value], name: &Value| list.iter().find(|it| it["name"] == *name).cloned();
    let mut containers = Vec::new();
    for element in &new {
        let mut change = match find(&old, &element["name"]) {
            Some(before) => fields(&before, element),
            None => element.as_object().unwrap().clone(),
        };
        change.insert("name".to_owned(), element["name"].clone());
        containers.push(Value::Object(change));
    }
    for gone in old.iter().filter(|it| find(&new, &it["name"]).is_none()) {
        containers.push(json!({"name": gone["name"], "$patch": "delete"}));
    }
    let (old, wanted) = (list(from, "finalizers"), list(to, "finalizers"));
    json!({
        "$setElementOrder/containers": new.iter().map(|it| json!({"name": it["name"]})).collect::<Vec<_>>(),
        "containers": containers,
        "$setElementOrder/finalizers": wanted,
        "$deleteFromPrimitiveList/finalizers": old.iter().filter(|it| !wanted.contains(it)).collect::<Vec<_>>(),
        "finalizers": wanted.iter().filter(|it| !old.contains(it)).collect::<Vec<_>>(),
        "labels": fields(&from["labels"], &to["labels"]),
    })
}

proptest! {
    #[test]
    fn a_difference_applied_gives_the_other_pod(from in pod(), to in pod()) {
        let patch = difference(&from, &to);
        let once = patched(&from, &patch).unwrap();
        prop_assert_eq!(&once, &to, "{}", patch);
        prop_assert_eq!(patched(&once, &patch).unwrap(), to);
    }

    #[test]
    fn an_empty_patch_changes_nothing(pod in pod()) {
        prop_assert_eq!(patched(&pod, &json!({})).unwrap(), pod);
    }

    /// Without a schema, only lists differ from a merge patch: they are replaced.
    #[test]
    fn free_form_values_merge_as_in_rfc_7396(current in json_value(), patch in json_value()) {
        let (current, patch) = (json!({"raw": current}), json!({"raw": patch}));
        prop_assert_eq!(patched(&current, &patch).unwrap(), super::super::merge::apply(&current, &patch).unwrap());
    }

    #[test]
    fn nothing_panics(current in json_value(), patch in json_value()) {
        let current = json!({"containers": current, "finalizers": current, "meta": current});
        let _ = patched(&current, &json!({"containers": patch, "finalizers": patch, "$setElementOrder/containers": patch, "meta": {"$patch": patch}}));
    }
}

#[test]
fn lists_may_fill_a_request() {
    let names = |count: usize| (0..count).map(|it| format!("a{it}")).collect::<Vec<_>>();
    let current = json!({"finalizers": names(150_000)});
    let patch = json!({"$deleteFromPrimitiveList/finalizers": names(100_000)});
    let left = apply(&lookup, "Pod", &current, &patch).unwrap();
    assert_eq!(left["finalizers"].as_array().unwrap().len(), 50_000);

    let containers = |from: usize, to: usize| (from..to).map(|it| json!({"name": format!("c{it}")})).collect::<Vec<_>>();
    let (current, added) = (containers(0, 20_000), containers(20_000, 40_000));
    let order: Vec<Value> = [&current[1..], &added].concat();
    let mut patch = added;
    patch.push(json!({"name": "c0", "$patch": "delete"}));
    let patch = json!({"containers": patch, "$setElementOrder/containers": order});
    let merged = apply(&lookup, "Pod", &json!({"containers": current}), &patch).unwrap();
    assert_eq!(merged["containers"], json!(order));
}
