//! Black-box tests, one binary: a module an area.

mod store;
mod support;
mod tutorial;
