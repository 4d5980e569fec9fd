//! `run.toml`, and `stack.toml` before it: the names of run images.

use serde::Deserialize;

use crate::toml_text::{self, TomlError};

/// Run images that a platform offers.
///
/// # Spec
/// `platform.md` 0.15 "run.toml"; before Platform API 0.12 `stack.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct RunToml {
    /// The first is the one that is used when nothing else is said (RUN-03).
    #[serde(default)]
    pub images: Vec<RunImageNames>,
}

/// A run image under all of its names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct RunImageNames {
    pub image: String,
    #[serde(default)]
    pub mirrors: Vec<String>,
}

#[derive(Deserialize)]
struct StackFile {
    #[serde(default, rename = "run-image")]
    run_image: Option<RunImageNames>,
}

impl RunToml {
    /// Parses the text of a `run.toml`.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        toml_text::parse(text)
    }

    /// Parses the text of a `stack.toml`, which has one image at most.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse_stack(text: &str) -> Result<Self, TomlError> {
        let file: StackFile = toml_text::parse(text)?;
        Ok(Self { images: file.run_image.into_iter().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_name_images_and_mirrors() {
        let image = RunImageNames { image: "acme/run".into(), mirrors: vec!["mirror.example/run".into()] };
        let body = "image = \"acme/run\"\nmirrors = [\"mirror.example/run\"]\n";
        assert_eq!(
            RunToml::parse(&format!("[[images]]\n{body}")).unwrap().images,
            std::slice::from_ref(&image)
        );
        assert_eq!(RunToml::parse_stack(&format!("[run-image]\n{body}")).unwrap().images, [image]);
        assert_eq!(RunToml::parse("").unwrap(), RunToml::default());
        assert_eq!(RunToml::parse_stack("").unwrap(), RunToml::default());
    }
}
