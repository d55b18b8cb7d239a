//! Black-box tests, one binary: a module an area.

#![allow(clippy::unwrap_used, reason = "a test may stop at any failure")]

mod api;
mod bad_input;
mod client;
mod command_line;
mod controllers;
mod corpus;
mod executor;
mod kubectl;
mod mesos;
mod python;
mod replicas;
mod scheduler;
mod static_pods;
mod store;
mod support;
mod tidy;
mod tutorial;
mod up;
