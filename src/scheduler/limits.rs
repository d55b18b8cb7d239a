//! The limits of containers: defaults, and their amounts in Mesos' units.

use serde_json::{Map, Value, json};

use crate::util::quantity::Quantity;

/// Thousandths of a Mesos scalar: of a core, of a megabyte. Mesos itself keeps no finer amounts.
pub type Milli = u64;

const MINIMUM_CPU: Milli = 10;
const MINIMUM_MEM: Milli = 32_000;
const BYTES_PER_MB: u128 = 1 << 20;

/// The limits of containers that set none (`--default-container-cpu-limit`, `--default-container-mem-limit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Thousandths of a core.
    pub cpu: Milli,
    /// Thousandths of a megabyte.
    pub mem: Milli,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { cpu: 250, mem: 64_000 }
    }
}

/// The resources of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu: Milli,
    pub mem: Milli,
    pub gpus: Milli,
}

/// The extended resource for whole GPUs; Mesos calls it `gpus`.
const GPU: &str = "nvidia.com/gpu";

impl Limits {
    /// The limits of a container with these `resources` (`Null` if absent), after defaulting.
    pub fn of(resources: &Value, defaults: Defaults) -> Self {
        let gpus = read(resources, "limits", GPU).or_else(|| read(resources, "requests", GPU));
        Self {
            cpu: Settled::of(resources, "cpu", cpu, defaults.cpu, MINIMUM_CPU).limit,
            mem: Settled::of(resources, "memory", mem, defaults.mem, MINIMUM_MEM).limit,
            gpus: gpus.map_or(0, cpu),
        }
    }

    /// The overhead of a pod beyond its containers (`spec.overhead`; absent is `Null`).
    pub fn overhead(amounts: &Value) -> Self {
        let amount = |name: &str| Quantity::from_json(amounts.get(name)?).ok();
        Self { cpu: amount("cpu").map_or(0, cpu), mem: amount("memory").map_or(0, mem), gpus: 0 }
    }

    pub fn plus(self, other: Self) -> Self {
        let add = Milli::saturating_add;
        Self { cpu: add(self.cpu, other.cpu), mem: add(self.mem, other.mem), gpus: add(self.gpus, other.gpus) }
    }

    pub fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), mem: self.mem.max(other.mem), gpus: self.gpus.max(other.gpus) }
    }
}

/// Writes the limits and requests that [`Limits::of`] computes into a container; sufficient values of the user stay.
pub fn fill_in(container: &mut Map<String, Value>, defaults: Defaults) {
    let resources = container.entry("resources").or_insert_with(|| json!({}));
    if !resources.is_object() {
        *resources = json!({});
    }
    type Print = fn(Milli) -> String;
    let rows: [(&str, fn(Quantity) -> Milli, Print, Milli, Milli); 2] = [
        ("cpu", cpu, |it| Quantity::from_millis(clamp(it.into())).to_string(), defaults.cpu, MINIMUM_CPU),
        ("memory", mem, |it| Quantity::from_bytes(clamp(u128::from(it) * BYTES_PER_MB / 1000)).to_string(), defaults.mem, MINIMUM_MEM),
    ];
    for (name, read_as, print, default, minimum) in rows {
        let settled = Settled::of(resources, name, read_as, default, minimum);
        for (section, amount) in [("limits", settled.limit), ("requests", settled.request)] {
            if read(resources, section, name).map(read_as) != Some(amount) {
                let section = resources.as_object_mut().expect("made an object above").entry(section).or_insert_with(|| json!({}));
                if !section.is_object() {
                    *section = json!({});
                }
                section[name] = Value::String(print(amount));
            }
        }
    }
}

fn clamp(amount: u128) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

struct Settled {
    limit: Milli,
    request: Milli,
}

impl Settled {
    /// If neither is given, both are the default; if one is given, the other follows it. Both are at least the minimum.
    fn of(resources: &Value, name: &str, read_as: fn(Quantity) -> Milli, default: Milli, minimum: Milli) -> Self {
        let (limit, request) = (read(resources, "limits", name).map(read_as), read(resources, "requests", name).map(read_as));
        let settled = |it: Option<Milli>, other: Option<Milli>| it.or(other).unwrap_or(default).max(minimum);
        Self { limit: settled(limit, request), request: settled(request, limit) }
    }
}

fn read(resources: &Value, section: &str, name: &str) -> Option<Quantity> {
    Quantity::from_json(resources.get(section)?.get(name)?).ok()
}

fn cpu(quantity: Quantity) -> Milli {
    quantity.millis().max(0) as Milli
}

/// Rounded up, so that the requested amount always fits.
fn mem(quantity: Quantity) -> Milli {
    (quantity.value().max(0) as u128 * 1000).div_ceil(BYTES_PER_MB) as Milli
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_requests_follow_each_other() {
        let mb = |it: u64| it * 1000;
        for (resources, cpu, mem) in [
            (json!(null), 250, mb(64)),
            (json!({"limits": {"cpu": "1"}}), 1000, mb(64)),
            (json!({"requests": {"cpu": "500m", "memory": "128Mi"}}), 500, mb(128)),
            (json!({"limits": {"cpu": 2, "memory": "1Gi"}, "requests": {"cpu": 1}}), 2000, mb(1024)),
            (json!({"limits": {"cpu": "1m", "memory": "1Mi"}}), 10, mb(32)),
            (json!({"limits": {"memory": "100M"}}), 250, 95_368),
        ] {
            let limits = Limits::of(&resources, Defaults::default());
            assert_eq!((limits.cpu, limits.mem), (cpu, mem), "{resources}");
        }
    }

    #[test]
    fn sums_do_not_overflow() {
        let of = |cpu: &str, mem: &str| Limits::of(&json!({"limits": {"cpu": cpu, "memory": mem}}), Defaults::default());
        let most = of("9223372036854775807m", "7Ei");
        let sum = most.plus(most).plus(of("12m", "32Mi"));
        assert!(sum.cpu >= 2 * most.cpu && sum.mem >= 2 * most.mem, "{sum:?}");
        let mut container = json!({"resources": {"requests": {"cpu": "9223372036854775807", "memory": "9223372036854775807"}}});
        fill_in(container.as_object_mut().unwrap(), Defaults::default());
        for name in ["cpu", "memory"] {
            let filled = Quantity::from_json(&container["resources"]["limits"][name]).unwrap();
            assert!(filled >= "9223372036854775".parse().unwrap(), "{container}");
        }
    }

    #[test]
    fn filling_in_keeps_what_was_enough() {
        let mut container = json!({"name": "c", "resources": {"limits": {"cpu": "0.5", "memory": "1Mi"}, "requests": {"cpu": "0.2"}}});
        fill_in(container.as_object_mut().unwrap(), Defaults::default());
        let expected = json!({"limits": {"cpu": "0.5", "memory": "32Mi"}, "requests": {"cpu": "0.2", "memory": "32Mi"}});
        assert_eq!(container["resources"], expected);
        let mut bare = json!({"name": "c"});
        fill_in(bare.as_object_mut().unwrap(), Defaults::default());
        let expected = json!({"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "64Mi"}});
        assert_eq!(bare["resources"], expected);
    }
}
