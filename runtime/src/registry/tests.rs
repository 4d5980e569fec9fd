//! The client against registries: a real one, and one that lies.

pub(crate) mod kit;
mod real;
pub(crate) mod served;
