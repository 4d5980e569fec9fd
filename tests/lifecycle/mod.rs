//! The programs of the lifecycle, run as a platform runs them: the real `wapack` under
//! the names in a builder image, classic buildpacks, files in between.

mod chain;
mod daemon;
mod differential;
mod fixture;
mod random;
mod reference;
mod start;
