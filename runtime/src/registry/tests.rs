//! The client against registries: a real one, and one that lies.

mod accidents;
pub(crate) mod fake;
pub(crate) mod kit;
mod lies;
mod real;
mod referrers;
pub(crate) mod served;
mod sign_in;
