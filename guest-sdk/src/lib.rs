//! Write Cloud Native Buildpacks as sandboxed WebAssembly components.
//!
//! A buildpack is a type with two functions, [`Buildpack::detect`] and
//! [`Buildpack::build`]. It reads and writes files with ordinary [`std::fs`] and
//! describes everything else in values; the host writes the files of the CNB
//! specification from them. The whole of a small one:
//!
//! ```
//! use wapack_sdk::{BuildContext, Buildpack, Built, DetectContext, Detected, Error};
//! use wapack_sdk::{LayerTypes, Operation, Process, Scope, files};
//!
//! struct Greeting;
//!
//! impl Buildpack for Greeting {
//!     fn detect(context: &DetectContext) -> Result<Detected, Error> {
//!         Ok(match context.app.join("greeting.txt").exists() {
//!             true => Detected::pass(),
//!             false => Detected::fail("no `greeting.txt`"),
//!         })
//!     }
//!
//!     fn build(context: &BuildContext) -> Result<Built, Error> {
//!         let source = context.app.join("greeting.txt");
//!         let layer = context
//!             .layer("greeting", LayerTypes::LAUNCH | LayerTypes::CACHE)
//!             .key(&[("source", files::hash_tree(&source)?)])
//!             .fill(|directory| {
//!                 files::copy_tree(&source, directory.join("greeting.txt"))?;
//!                 Ok(())
//!             })?;
//!         let file = layer.path().join("greeting.txt");
//!         let layer = layer.env(Scope::Launch, "GREETING_FILE", Operation::Override, &file);
//!         let web = Process::new("web", ["cat".to_owned(), file.display().to_string()]).default();
//!         Ok(Built::new().layer(layer).process(web))
//!     }
//! }
//!
//! wapack_sdk::export!(Greeting);
//! # fn main() {}
//! ```
//!
//! It is a library with two crate types, one to be a component and one to be
//! tested, in a profile that keeps function names for backtraces:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib", "rlib"]
//!
//! [dependencies]
//! wapack-sdk = "0.1"
//!
//! [profile.guest]          # cargo build --target wasm32-wasip2 --profile guest
//! inherits = "release"
//! opt-level = "s"
//! lto = true
//! strip = "debuginfo"      # not "symbols": a panic's backtrace needs the names
//! ```
//!
//! # Tests
//! Outside WebAssembly the crate brings a small host of its own, so that plain
//! `cargo test` runs a buildpack's logic: see `wapack_sdk::testing::Project`.

#![warn(missing_docs)]

pub mod downloads;
pub mod files;
pub mod sbom;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

mod built;
mod context;
mod detected;
mod error;
mod host;
mod layer;
mod table;

/// [`std::fs`], with errors that name the path.
pub use fs_err as fs;

pub use built::{AppLink, Built, Process, Sbom, SbomFormat};
pub use context::{BuildContext, DetectContext, Distro, PlanEntry, Target};
pub use detected::{Detected, PlanContribution, Requirement};
pub use error::{Error, Fault};
pub use layer::{
    Contents, EnvironmentChange, KeyedLayer, Layer, LayerDefinition, LayerState, LayerTypes, Operation,
    RestoredLayer, Scope,
};

/// What a buildpack is. [`export!`] makes a component of it.
pub trait Buildpack {
    /// Decides whether the buildpack takes part in building this app. It must
    /// not depend on anything but its context, the app and the platform
    /// directory.
    ///
    /// # Errors
    /// When it cannot tell. "Does not apply" is [`Detected::fail`].
    fn detect(context: &DetectContext) -> Result<Detected, Error>;

    /// Contributes to the image.
    ///
    /// # Errors
    /// When it cannot.
    fn build(context: &BuildContext) -> Result<Built, Error>;
}

/// Makes a [`Buildpack`] the one of this component. Once per crate.
#[macro_export]
macro_rules! export {
    ($buildpack:ty) => {
        const _: () = {
            #[cfg(target_family = "wasm")]
            type Exported = $crate::__private::Adapter<$buildpack>;
            #[cfg(target_family = "wasm")]
    $crate::__private::bindings::export_world!(Exported with_types_in $crate::__private::bindings);

            // Natively there is nothing to export, but the type is checked.
            const fn check<B: $crate::Buildpack>() {}
            check::<$buildpack>();
        };
    };
}

/// For [`export!`] only.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod __private {
    pub use crate::host::{Adapter, bindings};
}

/// The examples of the guide compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/writing-a-buildpack.md")]
mod guide {}
