//! Tasks and pods per second from creation to launch, on the real Mesos with executors that run nothing and exist beforehand: the rate of
//! pods in comparison with that of bare tasks. The parts are those of the tests.
//!
//! `scripts/bench launch`, or `cargo bench --bench launch`

#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code, reason = "a measurement prints, and stops where something is wrong")]

mod mesos;
mod scheduler;
#[path = "../../tests/it/support/mod.rs"]
mod support;

const AGENTS: usize = 20;

#[tokio::main]
async fn main() {
    // The parts run this program again, with the name of a function as in the tests.
    match std::env::args().find(|it| it.contains("::runs_as_")).as_deref() {
        Some("mesos::runs_as_executor") => mesos::runs_as_executor().await,
        Some("scheduler::runs_as_executor") => scheduler::runs_as_executor().await,
        Some("scheduler::runs_as_scheduler") => scheduler::runs_as_scheduler().await,
        Some(other) => panic!("{other} is not known"),
        None => {
            mesos::measure(AGENTS).await;
            scheduler::measure(AGENTS).await;
        }
    }
}
