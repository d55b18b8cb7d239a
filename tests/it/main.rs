//! Black-box tests, one binary: a module an area.

mod client;
mod mesos;
mod store;
mod support;
mod tutorial;
