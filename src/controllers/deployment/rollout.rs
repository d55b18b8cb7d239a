//! The numbers of a rollout: how far the new version may grow and the old ones must shrink. Pure arithmetic on [`Version::replicas`].

use serde_json::Value;

use super::version::Version;
use crate::controllers::plan::portion_of;
use crate::util::portion::Round;

/// The limits of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub desired: i64,
    pub max_surge: i64,
    pub max_unavailable: i64,
    /// All old pods go before the first new one comes.
    pub recreate: bool,
}

impl Limits {
    pub fn of(spec: &Value) -> Self {
        let desired = spec["replicas"].as_i64().unwrap_or(1);
        let strategy = &spec["strategy"];
        if strategy["type"] == "Recreate" {
            return Self { desired, max_surge: 0, max_unavailable: 0, recreate: true };
        }
        let rolling = &strategy["rollingUpdate"];
        let quarter = Value::from("25%");
        let part = |key: &str, round: Round| {
            let value = Some(&rolling[key]).filter(|it| !it.is_null()).unwrap_or(&quarter);
            portion_of(value, desired, round).unwrap_or_default()
        };
        let (max_surge, max_unavailable) = (part("maxSurge", Round::Up), part("maxUnavailable", Round::Down));
        // If both round to zero, no progress would be possible.
        let max_unavailable = if max_surge == 0 && max_unavailable == 0 { 1 } else { max_unavailable };
        Self { desired, max_surge, max_unavailable: max_unavailable.min(desired), recreate: false }
    }

    /// The most pods that all versions together may have.
    pub fn maximum(self) -> i64 {
        self.desired + self.max_surge
    }

    /// The fewest pods that must be available.
    pub fn minimum(self) -> i64 {
        self.desired - self.max_unavailable
    }

    /// The initial size of a new version, beside the existing ones.
    pub fn first(self, old: &[Version]) -> i64 {
        if self.recreate { self.desired } else { (self.maximum() - total(old)).clamp(0, self.desired) }
    }

    /// Whether the user changed `spec.replicas` since the versions were last scaled.
    pub fn changed<'a>(self, mut versions: impl Iterator<Item = &'a Version>) -> bool {
        versions.any(|it| it.is_behind(self))
    }
}

fn total<'a>(versions: impl IntoIterator<Item = &'a Version>) -> i64 {
    versions.into_iter().map(|it| it.was).sum()
}

/// After a change of `spec.replicas`, or while paused: a single version follows at once; several share the difference in proportion to
/// their sizes. `before` is the earlier total, for versions without an annotation.
pub(super) fn scale(limits: Limits, before: i64, new: &mut Option<Version>, old: &mut [Version]) {
    let active = new.iter().chain(old.iter()).filter(|it| it.was > 0).count();
    if active <= 1 {
        let only = old.iter().rposition(|it| it.was > 0).filter(|_| new.as_ref().is_none_or(|it| it.was == 0));
        let latest = only.or_else(|| old.len().checked_sub(1).filter(|_| new.is_none()));
        if let Some(version) = latest.map(|at| &mut old[at]).or(new.as_mut()) {
            version.replicas = limits.desired;
        }
        return;
    }
    let saturated = |it: &Version| it.was == limits.desired && it.desired() == Some(limits.desired) && it.available == limits.desired;
    if new.as_ref().is_some_and(saturated) {
        old.iter_mut().for_each(|it| it.replicas = 0);
        return;
    }
    if limits.recreate {
        return;
    }
    let mut active: Vec<&mut Version> = new.iter_mut().chain(old.iter_mut()).filter(|it| it.was > 0).collect();
    let allowed = if limits.desired > 0 { limits.maximum() } else { 0 };
    let difference = allowed - total(active.iter().map(|it| &**it));
    // The largest first; of equal sizes, the newest when growing, the oldest when shrinking.
    active.sort_by(|a, b| {
        let age = a.object.meta().created.cmp(&b.object.meta().created);
        b.was.cmp(&a.was).then(if difference > 0 { age.reverse() } else { age })
    });
    let mut left = difference;
    for version in &mut active {
        // A version with another recorded maximum, such as an adopted one, may have to go the other way.
        let share = match share(version, limits, before) {
            _ if left == 0 => 0,
            share if difference > 0 => share.min(left),
            share => share.max(left),
        };
        version.replicas = version.was + share;
        left -= share;
    }
    // The remainder of rounding goes to the largest.
    active[0].replicas = (active[0].replicas + left).max(0);
}

/// How much a version would grow or shrink to keep its part of the whole.
fn share(version: &Version, limits: Limits, before: i64) -> i64 {
    if limits.desired == 0 {
        return -version.was;
    }
    match version.maximum().filter(|it| *it > 0).unwrap_or(before) {
        0 => 0,
        // Rounded to the nearest, halves up.
        before => (2 * version.was * limits.maximum() + before) / (2 * before) - version.was,
    }
}

/// One step of a rolling update: the new version grows as far as the surge allows; otherwise the old ones shrink as far as availability
/// allows.
pub(super) fn roll(limits: Limits, new: &mut Version, old: &mut [Version]) {
    let total = new.was + total(&*old);
    if new.was > limits.desired {
        new.replicas = limits.desired;
        return;
    }
    let grow = (limits.maximum() - total).min(limits.desired - new.was);
    if grow > 0 {
        new.replicas = new.was + grow;
        return;
    }
    let mut spare = total - limits.minimum() - (new.was - new.available);
    if spare <= 0 {
        return;
    }
    // First the pods that are not available.
    for version in old.iter_mut() {
        let sick = (version.was - version.available).clamp(0, spare.max(0));
        version.replicas = version.was - sick;
        spare -= sick;
    }
    let mut surplus = new.available + old.iter().map(|it| it.available.min(it.replicas)).sum::<i64>() - limits.minimum();
    for version in old.iter_mut() {
        let down = version.replicas.min(surplus.max(0));
        version.replicas -= down;
        surplus -= down;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::{Object, resource};

    /// A version with this many pods, all available, created at this second.
    fn version(second: u32, replicas: i64, maximum: Option<i64>) -> Version {
        let annotations = maximum.map(|it| json!({"deployment.kubernetes.io/max-replicas": it.to_string()}));
        let object = json!({
            "metadata": {"name": format!("v{second}"), "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"), "annotations": annotations.unwrap_or(json!({}))},
            "spec": {"replicas": replicas},
            "status": {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas},
        });
        Version::of(Object::from_stored(&resource::REPLICA_SET, object.to_string().as_bytes(), 1).unwrap())
    }

    fn limits(desired: i64, max_surge: i64, max_unavailable: i64) -> Limits {
        Limits { desired, max_surge, max_unavailable, recreate: false }
    }

    #[test]
    fn limits_are_read_as_rounded() {
        let of = |replicas: i64, surge: &str, unavailable: &str| {
            let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
            let it = Limits::of(&json!({"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}));
            (it.max_surge, it.max_unavailable)
        };
        assert_eq!(of(10, "25%", "25%"), (3, 2));
        assert_eq!(of(1, "25%", "25%"), (1, 0));
        assert_eq!(of(3, "0%", "10%"), (0, 1));
        assert_eq!(of(0, "25%", "100%"), (0, 0));
        assert_eq!(Limits::of(&json!({"replicas": 4, "strategy": {"type": "Recreate"}})).minimum(), 4);
    }

    #[test]
    fn an_adopted_version_may_grow_while_the_whole_shrinks() {
        // Recorded maxima: three for the version of two pods, four for the version of three.
        let (mut new, mut old) = (Some(version(2, 2, Some(3))), [version(1, 3, Some(4))]);
        scale(limits(3, 1, 0), 5, &mut new, &mut old);
        assert_eq!((new.unwrap().replicas, old[0].replicas), (3, 1));
    }

    #[test]
    fn versions_share_a_change_of_scale_by_their_sizes() {
        // (desired, surge), the most there were, sizes (new, old...), sizes after.
        for ((desired, surge), before, sizes, after) in [
            ((10, 0), 5, &[5][..], &[10][..]),
            ((20, 0), 10, &[5, 5], &[10, 10]),
            ((10, 5), 15, &[5, 8, 2], &[5, 8, 2]),
            ((15, 5), 15, &[5, 8, 2], &[7, 11, 2]),
            ((5, 0), 10, &[5, 5], &[3, 2]),
            ((3, 2), 14, &[7, 7], &[3, 2]),
            ((0, 3), 13, &[5, 8], &[0, 0]),
            ((6, 0), 5, &[1, 2, 2], &[1, 3, 2]),
        ] {
            let mut versions: Vec<Version> =
                sizes.iter().enumerate().map(|(at, size)| version(30 - at as u32, *size, Some(before))).collect();
            let mut new = Some(versions.remove(0));
            versions.reverse();
            scale(limits(desired, surge, 0), before, &mut new, &mut versions);
            versions.reverse();
            let now: Vec<i64> = new.iter().chain(&versions).map(|it| it.replicas).collect();
            let limit = if desired == 0 { 0 } else { desired + surge };
            if sizes.len() > 1 {
                assert_eq!(now.iter().sum::<i64>(), limit, "{sizes:?} for {desired}+{surge}: {now:?}");
            }
            assert_eq!(now, after, "{sizes:?} for {desired}+{surge}");
        }
    }

    #[test]
    fn a_step_grows_or_shrinks() {
        // (desired, surge, unavailable), new (scale, available), old (scale, available), scales after.
        for ((desired, surge, unavailable), new, old, after) in [
            ((10, 2, 2), (0, 0), (10, 10), (2, 10)),
            ((10, 2, 2), (2, 0), (10, 10), (2, 8)),
            ((10, 2, 2), (2, 2), (10, 10), (2, 6)),
            ((10, 0, 3), (0, 0), (10, 10), (0, 7)),
            ((10, 0, 3), (0, 0), (10, 8), (0, 7)),
            ((10, 0, 3), (3, 0), (7, 7), (3, 7)),
            ((10, 2, 0), (2, 1), (10, 10), (2, 9)),
            ((3, 1, 0), (5, 5), (2, 2), (3, 2)),
        ] {
            let mut it = version(2, new.0, None);
            it.available = new.1;
            let mut olds = [version(1, old.0, None)];
            olds[0].available = old.1;
            roll(limits(desired, surge, unavailable), &mut it, &mut olds);
            assert_eq!((it.replicas, olds[0].replicas), after, "{new:?} beside {old:?} for {desired}+{surge}-{unavailable}");
        }
    }
}
