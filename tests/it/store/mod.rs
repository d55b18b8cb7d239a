//! The store: one contract suite for every implementation, then tests of each.

/// Runs the contract against stores that `$open` creates; it returns the store and a guard.
macro_rules! contract_tests {
    ($open:path) => {
        contract_tests!($open: an_empty_store, compare_and_swap, revisions_increase, ranges, paging_is_consistent, the_past_can_be_read,
            large_values, compaction, watching, watch_resumes_anywhere, watch_under_concurrent_writers, watch_of_one_prefix, progress, progress_never_overtakes,
            time_to_live, cancelled_calls);
    };
    ($open:path: $($name:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let (store, _keep) = $open().await;
            super::contract::$name(store).await;
        })*
    };
}
mod contract;
mod crash;
mod embedded;
mod etcd;
mod model;
