//! The image: its digest, its layers, and what tools of the field make of it.

mod crash;
mod digest;
mod layers;
mod layout;
mod needs;
mod reuse;
mod run;
mod source;
mod tools;
