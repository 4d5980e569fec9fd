//! One binary with all acceptance tests; each module is a subject.

mod image;
mod sandbox;
mod support;
