//! Looking into images that exist: what they are made of, who made which layer, what
//! their bills of materials say, and what is attached to them.
//!
//! Makes values and documents from an image's configuration, its labels and, where
//! asked, its layers. It must not know where images come from, and it neither prints
//! nor decides how a value is shown. Everything it reads is somebody else's text.

mod error;
pub mod files;
mod labels;
mod layer;
mod owner;
mod page;
mod sboms;
#[cfg(test)]
mod testing;
mod view;

pub use self::error::InspectionError;
pub use self::labels::LabelProblem;
pub use self::layer::OpenLayer;
pub use self::owner::LayerOwner;
pub use self::page::html;
pub use self::sboms::{SbomDocument, read_sboms, write_sboms};
pub use self::view::{
    AttachmentView, BaseView, BuildpackView, ImageView, LauncherView, LayerView, ProcessView, RunImageView,
    SbomView,
};
