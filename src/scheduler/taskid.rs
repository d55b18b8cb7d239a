//! Task ids: `pod.<uuid>`. The uuid consists of a hash of the pod's uid and a launch number, so that a task can be traced to its pod even
//! if the scheduler died before the executor had written the binding.

/// The part of the uuid that all launches of a pod share.
pub type Stem = [u8; 12];

const PREFIX: &str = "pod.";

/// The stem of a pod's tasks.
pub fn stem(pod_uid: &str) -> Stem {
    let digest = ring::digest::digest(&ring::digest::SHA256, pod_uid.as_bytes());
    let mut stem: Stem = digest.as_ref()[..12].try_into().expect("a digest has 32 bytes");
    // A uuid of version 8: application-defined.
    stem[6] = 0x80 | stem[6] & 0x0f;
    stem[8] = 0x80 | stem[8] & 0x3f;
    stem
}

/// The id of one launch of a pod.
pub fn task_id(pod_uid: &str, launch: u32) -> String {
    let mut bytes = [0; 16];
    bytes[..12].copy_from_slice(&stem(pod_uid));
    bytes[12..].copy_from_slice(&launch.to_be_bytes());
    format!("{PREFIX}{}", uuid::Uuid::from_bytes(bytes).hyphenated())
}

/// The stem in a task id; `None` for an id of another form.
pub fn stem_of(task_id: &str) -> Option<Stem> {
    let uuid = uuid::Uuid::try_parse(task_id.strip_prefix(PREFIX)?).ok()?;
    uuid.as_bytes()[..12].try_into().ok()
}

/// Whether this is the id of a launch of the pod with this uid. A pod's annotations may be copies of another pod's.
pub fn is_of(task_id: &str, pod_uid: &str) -> bool {
    stem_of(task_id) == Some(stem(pod_uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_pod_and_launch() {
        let (one, two) = (task_id("u", 1), task_id("u", 2));
        assert_ne!(one, two);
        assert_eq!(stem_of(&one), Some(stem("u")));
        assert!(is_of(&two, "u") && !is_of(&two, "v") && !is_of("u", "u"));
        assert_ne!(stem("u"), stem("v"));
        assert_eq!(one.len(), 40);
        assert!(stem_of("pod.x").is_none() && stem_of(&one[4..]).is_none());
    }
}
