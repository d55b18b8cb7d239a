//! Volumes and claims are protected from the start: they carry the finalizer that keeps them while they are used, before any controller
//! has seen them.

use serde_json::Value;

use super::{Operation, Review};
use crate::util::json;

pub(super) fn admit(review: &Review<'_>, object: &mut Value) {
    if review.operation != Operation::Create || !review.subresource.is_empty() {
        return;
    }
    let Some(finalizer) = review.key.resource.protection else { return };
    let mut finalizers = json::items(object, "/metadata/finalizers").to_vec();
    if !finalizers.iter().any(|it| it == finalizer) {
        finalizers.push(finalizer.into());
        json::metadata(object).insert("finalizers".to_owned(), finalizers.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::{CONFIG_MAP, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM};
    use crate::object::{ObjectKey, ResourceRef};

    #[test]
    fn what_can_be_in_use_is_protected_once() {
        let admitted = |resource: ResourceRef, operation, finalizers: Value| {
            let key = ObjectKey::new(resource, "default", "a");
            let mut object = json!({"metadata": {"name": "a", "finalizers": finalizers}});
            admit(&Review { operation, key: &key, subresource: "", dry_run: false }, &mut object);
            object["metadata"]["finalizers"].clone()
        };
        let (claim, volume) = (json!(["kubernetes.io/pvc-protection"]), json!(["kubernetes.io/pv-protection"]));
        assert_eq!(admitted(&PERSISTENT_VOLUME_CLAIM, Operation::Create, Value::Null), claim);
        assert_eq!(admitted(&PERSISTENT_VOLUME_CLAIM, Operation::Create, claim.clone()), claim);
        assert_eq!(admitted(&PERSISTENT_VOLUME, Operation::Create, json!(["a/b"])), json!(["a/b", "kubernetes.io/pv-protection"]));
        assert_eq!(admitted(&PERSISTENT_VOLUME, Operation::Create, json!([])), volume);
        assert_eq!(admitted(&PERSISTENT_VOLUME, Operation::Update, json!([])), json!([]));
        assert_eq!(admitted(&CONFIG_MAP, Operation::Create, json!([])), json!([]));
    }
}
