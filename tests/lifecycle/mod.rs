//! The programs of the lifecycle, run as a platform runs them: the real `wapack` under
//! the names in a builder image, classic buildpacks, files in between.

mod chain;
mod components;
mod containers;
mod daemon;
mod differential;
mod extend;
mod fixture;
mod foreign;
mod random;
mod reference;
mod registry;
mod start;
mod untouched;
