//! The phases of a build, one file each; a phase never calls a phase.
//!
//! Each takes what the one before made as a value and gives one to the next;
//! those values are in [`values`], the only thing of each other that phases know.
//! They apply the rules of the specification; what runs a buildpack and where
//! things are kept is behind seams.

pub mod build;
pub mod detect;
pub mod export;
pub mod generate;
pub mod keep;
pub mod publish;
pub mod rebase;
pub mod restore;
pub mod sboms;
pub mod values;
