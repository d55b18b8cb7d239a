//! Refusals: the error of everything that serves a request is the `Status` that its client gets.

use crate::object::Status;
use crate::store::StoreError;

pub(crate) type Answer<T> = Result<T, Box<Status>>;

pub(crate) fn bad(message: impl Into<String>) -> Box<Status> {
    Box::new(Status::bad_request(message))
}

/// The prefix of etcd's own messages.
const ETCD: &str = "etcdserver: ";

/// The status for a failure of the store.
pub(crate) fn store_status(error: StoreError) -> Box<Status> {
    Box::new(match error {
        StoreError::Compacted { .. } => Status::expired(error.to_string()),
        StoreError::Unavailable(_) => Status::unavailable(describe(error)),
        // As etcd says it, and Kubernetes hands it on; where the store is, is nothing to a client.
        StoreError::Full(cause) if cause.to_string().starts_with(ETCD) => Status::failure(500, "", format!("{cause}")),
        StoreError::Full(_) => Status::failure(507, "InsufficientStorage", describe(error)),
        StoreError::Failed(_) => Status::internal(describe(error)),
    })
}

fn describe(error: StoreError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
