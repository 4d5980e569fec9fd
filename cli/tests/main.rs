//! The program as its users meet it: exit code, standard output, standard error.

#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]
#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]

mod architectures;
mod attach;
mod browser;
mod build;
mod cache;
mod cache_image;
mod collecting;
mod coming_from_pack;
mod config;
mod each_debian;
mod earlier;
mod elf;
mod engines;
mod errors;
mod field;
mod flags;
mod help;
mod inspect;
mod layouts;
mod odd_names;
mod page;
mod places;
mod project;
mod published;
mod rebase;
mod rebase_index;
mod registries;
mod room;
mod sbom;
mod signals;
mod site;
mod starts;
