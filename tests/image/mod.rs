//! The image: its digest, its layers, and what tools of the field make of it.

mod crash;
mod digest;
mod downloads;
mod layers;
mod layout;
mod needs;
mod node;
mod reuse;
mod run;
mod source;
pub(crate) mod tools;
