//! `extend-config.toml`: arguments for the Dockerfiles of an image extension.

use serde::Deserialize;

use crate::toml_text::{self, TomlError};

/// Arguments that the lifecycle gives itself.
const RESERVED: [&str; 3] = ["build_id", "user_id", "group_id"];

/// What an extension wants passed to its Dockerfiles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtendConfig {
    pub build: Vec<Argument>,
    pub run: Vec<Argument>,
}

/// `ARG` and its value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Argument {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    build: Arguments,
    run: Arguments,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Arguments {
    args: Vec<Argument>,
}

impl ExtendConfig {
    /// Parses the text of the file.
    ///
    /// # Errors
    /// With line and column; a name that the lifecycle uses itself is one.
    ///
    /// # Spec
    /// `image_extension.md` "extend-config.toml"; EXT-05.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let ConfigFile { build, run } = toml_text::parse(text)?;
        for argument in build.args.iter().chain(&run.args) {
            if RESERVED.contains(&argument.name.as_str()) {
                let message = format!("the argument `{}` is given by the lifecycle itself", argument.name);
                return Err(TomlError::at(text, text.find(&argument.name).unwrap_or(0), message));
            }
        }
        Ok(Self { build: build.args, run: run.args })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ext_05_arguments_have_other_names_than_those_of_the_lifecycle() {
        let text = "[[build.args]]\nname = \"a\"\nvalue = \"1\"\n[[run.args]]\nname = \"b\"\n";
        let config = ExtendConfig::parse(text).unwrap();
        assert_eq!((config.build[0].value.as_str(), config.run[0].name.as_str()), ("1", "b"));
        for (kind, name) in [("build", "build_id"), ("run", "user_id"), ("build", "group_id")] {
            let error = ExtendConfig::parse(&format!("[[{kind}.args]]\nname = \"{name}\"\n")).unwrap_err();
            assert_eq!(error.line, 2, "{error}");
        }
        assert_eq!(ExtendConfig::parse("").unwrap(), ExtendConfig::default());
    }
}
