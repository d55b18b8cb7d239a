//! CPU time of each step of a create, in one thread, for a typical pod of a controller.
//!
//! `cargo bench --bench codec`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and stops where something is wrong")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use km::codec;
use km::codec::apply::{self, Writer};
use km::object::{Object, resource::POD};
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;

fn body() -> Bytes {
    let env: Vec<_> = (0..16).map(|it| json!({"name": format!("VARIABLE_{it}"), "value": format!("some value {it}")})).collect();
    let resources = json!({"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}});
    let pod = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "web-1", "namespace": "default", "uid": "6f9c1a52-0000-4000-8000-000000000000",
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1, "labels": {"app": "web", "tier": "front"}},
        "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1.2.3", "env": env, "resources": resources,
            "ports": [{"containerPort": 80}]}]},
    });
    pod.to_string().into()
}

/// Prints the time of a call, without the preparation of its input.
fn step<I: Clone, O>(name: &str, input: &I, work: impl Fn(I) -> O) {
    let mut spent = Duration::ZERO;
    for _ in 0..ROUNDS / 100 {
        let inputs = vec![input.clone(); 100];
        let mut outputs = Vec::with_capacity(100);
        let begun = Instant::now();
        outputs.extend(inputs.into_iter().map(&work));
        spent += begun.elapsed();
        drop(black_box(outputs));
    }
    println!("{name:<28} {:>8.2} us", spent.as_secs_f64() * 1e6 / f64::from(ROUNDS));
}

fn main() {
    let body = body();
    let decode = |body: Bytes| codec::decode(&POD, "application/json", &body).unwrap().value;
    let value = decode(body.clone());
    let defaulted = |mut value: Value| {
        codec::default::fill(&POD, &mut value);
        value
    };
    let complete = defaulted(value.clone());
    let writer = Writer { version: &POD, manager: "bench", subresource: "", now: "2026-01-01T00:00:00Z" };
    let track = |value: &Value| apply::track((None, None), None, value, &writer);
    let stored = Bytes::from(complete.to_string());
    step("decode", &body, decode);
    step("default", &value, defaulted);
    step("default once more", &complete, defaulted);
    step("track", &&complete, track);
    step("validate", &&complete, |value| codec::validate(&POD, value, None));
    step("warnings", &&complete, |value| codec::warnings(&POD, value, None));
    step("encode", &&complete, |value| value.to_string());
    step("managed fields", &track(&complete).unwrap(), |managers| managers.json().len());
    step("object", &stored, |bytes| Object::from_wire(&POD, bytes).unwrap());
    step("clone", &&complete, |value| value.clone());
    step("drop", &complete, drop);
}
