//! Black-box tests, one binary: a module an area.

mod api;
mod client;
mod executor;
mod mesos;
mod scheduler;
mod store;
mod support;
mod tidy;
mod tutorial;
