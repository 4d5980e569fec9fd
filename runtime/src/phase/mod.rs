//! The phases of a build, one file each; a phase never calls a phase.
//!
//! Each takes what the one before made as a value and gives one to the next.
//! They apply the rules of the specification; what runs a buildpack and where
//! things are kept is behind seams.

pub mod build;
pub mod built;
pub mod detect;
pub mod export;
pub mod keep;
pub mod restore;
