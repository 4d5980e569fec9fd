//! One binary with all acceptance tests; each module is a subject.

mod image;
mod kit;
mod lifecycle;
mod registry;
mod sandbox;
mod support;
