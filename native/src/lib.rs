//! The Node-API boundary: converts in, calls, converts out.
//!
//! Options come in as JSON and are read into the crates' own types; results go out as JSON and typed arrays. Long work
//! runs on a thread of its own behind [`job::NativeJob`]. Every export is wrapped against panics, because an uncaught
//! one would end the process.

// Node-API hands strings and arrays over by value.
#![allow(clippy::needless_pass_by_value)]

mod atlas;
mod bench;
mod concepts;
mod config;
mod device;
mod encode;
mod error;
mod evaluate;
mod examine;
mod extract;
mod import;
mod interpret;
mod job;
mod kernels;
mod merge;
mod model;
mod probe;
mod store;
mod train;
