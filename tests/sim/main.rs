//! One cluster in one thread: the cores of the scheduler and of the executors, km's own Mesos and a container engine in memory, on one
//! seeded clock. Messages are lost, doubled and delayed, connections break, processes and machines die and restart from their stored state.
//! After every step: no pod runs twice, no agent gives more than it has, no pod is lost. Once faults have stopped, the cluster reaches the
//! state that the API asks for.
//!
//! A failure prints its seed and the last events. `KM_SIM_SEED=n` reruns that seed step by step; `KM_SIM_RUNS=n` runs the first n seeds.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is how a test fails, a line what a failure leaves")]

mod api;
mod check;
mod executor;
mod faults;
mod life;
mod mesos;
mod scale;
mod scheduler;
mod setup;
mod storage;
mod world;

use std::panic::AssertUnwindSafe;

use world::World;

/// The number of steps with faults, and the bound of the steps until the final state.
const FAULTY: usize = 4000;
const PATIENCE: usize = 20_000;

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        (0..FAULTY).for_each(|_| world.step());
        world.mend();
        for _ in 0..PATIENCE {
            world.step();
            if world.stats.steps.is_multiple_of(8) && world.unfinished().is_none() {
                return;
            }
        }
        panic!("it never comes to rest: {}", world.unfinished().unwrap_or_default());
    }));
    if let Err(cause) = ran {
        let scheduler = world.scheduler.process.as_ref().map(|it| it.core.debug_tasks() + &it.core.debug_queue()).unwrap_or_default();
        let why = cause.downcast_ref::<String>().map_or("", String::as_str);
        println!("{}\n{scheduler}\nseed {seed}: {why}\nKM_SIM_SEED={seed} runs it again", world.story());
        std::panic::resume_unwind(cause);
    }
    world
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|it| it.parse().unwrap_or_else(|_| panic!("{name}={it} is not a number")))
}

#[test]
fn whatever_fails_pods_run_once_and_all_is_well_in_the_end() {
    let seeds = match number("KM_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KM_SIM_RUNS").unwrap_or(12),
    };
    let (mut launches, mut created, mut bound, mut given_up) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let world = run(seed);
        launches += world.stats.launches;
        created += world.stats.created;
        bound += world.stats.bound;
        given_up += world.stats.given_up;
    }
    assert!(created as u64 >= 10 * (seeds.end - seeds.start), "only {created} pods: the simulation tests nothing");
    let runs = (seeds.end - seeds.start) as usize;
    assert!(bound >= runs && given_up >= runs / 12, "only {bound} claims bound, {given_up} given up: the simulation tests nothing");
    assert!(launches >= created / 2, "only {launches} launches of {created} pods: the simulation tests nothing");
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let (first, second) = (run(1), run(1));
    assert_eq!((first.hash, first.now, first.stats.steps), (second.hash, second.now, second.stats.steps));
}
