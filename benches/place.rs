//! Pods on many agents, placed by the scheduler's core and km's own master in one thread.
//!
//! `scripts/bench place`, or `cargo bench --bench place`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and stops where something is wrong")]

#[path = "../tests/sim/scale.rs"]
mod scale;
#[path = "../tests/sim/setup.rs"]
mod setup;

use scale::{place, storage};

const AGENTS: usize = 10_000;

fn main() {
    for (pods, what, storage) in [(100_000, "pods", Vec::new()), (20_000, "pods with a volume each", storage(AGENTS, 20_000))] {
        let placed = place(AGENTS, pods, storage);
        println!(
            "{AGENTS} agents, {pods} {what}: all run after {:.1} s of the cluster's time; {:.2} s of a core, of which {:.2} s the scheduler's decisions",
            placed.simulated.as_secs_f64(),
            placed.took.as_secs_f64(),
            placed.deciding.as_secs_f64(),
        );
    }
}
