//! Dockerfiles of image extensions, as far as they have to be understood: which
//! instructions there are, and what they begin with. Nothing is expanded or run.

use std::fmt;

/// Instructions that the specification foresees; others deserve a warning.
const FORESEEN: [&str; 10] =
    ["FROM", "ADD", "ARG", "COPY", "ENV", "LABEL", "RUN", "SHELL", "USER", "WORKDIR"];

/// What stands for the image that is extended.
const BASE_IMAGE: &str = "${base_image}";

/// Which image a Dockerfile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DockerfileKind {
    Build,
    Run,
}

impl DockerfileKind {
    /// The name of the file.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Build => "build.Dockerfile",
            Self::Run => "run.Dockerfile",
        }
    }
}

/// A Dockerfile with one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The image it names instead of the one that is extended.
    pub new_base: Option<String>,
    /// What it does to the image, behind `FROM`.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// In upper case.
    pub name: String,
    /// The rest, in one line.
    pub arguments: String,
}

impl Instruction {
    /// Whether the specification foresees it.
    #[must_use]
    pub fn is_foreseen(&self) -> bool {
        FORESEEN.contains(&self.name.as_str())
    }
}

impl fmt::Display for Instruction {
    /// `RUN apt-get update …`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.arguments.chars().take(60).collect();
        let more = if shown.len() < self.arguments.len() { " …" } else { "" };
        write!(formatter, "{} {}{more}", self.name, crate::text::harmless(&shown))
    }
}

/// What is wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    #[error("line {line}: `{word}` is not an instruction")]
    NotAnInstruction { line: usize, word: String },
    #[error("line {line}: a heredoc has no end")]
    OpenHeredoc { line: usize },
    #[error("it has no `FROM`")]
    NoStage,
    #[error("line {line}: a second `FROM`; builds with several stages are not permitted")]
    SecondStage { line: usize },
    #[error("line {line}: `FROM` names no image")]
    NoImage { line: usize },
    #[error("it does not begin with `ARG base_image` and no other `ARG`")]
    NoBaseArgument,
    #[error("line {line}: it is not `FROM ${{base_image}}`")]
    OtherBase { line: usize },
    #[error("line {line}: `{name}` stands before `FROM`")]
    BeforeStage { line: usize, name: String },
}

impl Dockerfile {
    /// Parses a Dockerfile of an extension and checks it.
    ///
    /// # Errors
    /// [`DockerfileError`].
    ///
    /// # Spec
    /// `image_extension.md` "Dockerfiles"; EXT-04, and EXT-06 for [`Self::new_base`].
    pub fn parse(text: &str, kind: DockerfileKind) -> Result<Self, DockerfileError> {
        let mut before = Vec::new();
        let mut stage: Option<(usize, String)> = None;
        let mut instructions = Vec::new();
        for instruction in instructions_of(text)? {
            let line = instruction.line;
            match (instruction.name.as_str(), &stage) {
                ("FROM", None) => {
                    let image = image_of(&instruction.arguments).ok_or(DockerfileError::NoImage { line })?;
                    stage = Some((line, image));
                }
                ("FROM", Some(_)) => return Err(DockerfileError::SecondStage { line }),
                ("ARG", None) => before.push(instruction),
                (_, None) => return Err(DockerfileError::BeforeStage { line, name: instruction.name }),
                (_, Some(_)) => instructions.push(instruction),
            }
        }
        let Some((line, image)) = stage else { return Err(DockerfileError::NoStage) };
        if kind == DockerfileKind::Build {
            match before.as_slice() {
                [only] if argument_name(&only.arguments) == "base_image" => {}
                _ => return Err(DockerfileError::NoBaseArgument),
            }
            if image != BASE_IMAGE {
                return Err(DockerfileError::OtherBase { line });
            }
        }
        let new_base = (image != BASE_IMAGE).then_some(image);
        Ok(Self { new_base, instructions })
    }

    /// Whether the image has to be changed, beyond taking another base.
    #[must_use]
    pub fn extends(&self) -> bool {
        !self.instructions.is_empty()
    }
}

/// The image of `FROM [--platform=…] <image> [AS <name>]`.
fn image_of(arguments: &str) -> Option<String> {
    let image = arguments.split_whitespace().find(|word| !word.starts_with("--"))?;
    Some(image.trim_matches(['"', '\'']).to_owned())
}

/// The name of `ARG <name>[=<value>]`.
fn argument_name(arguments: &str) -> &str {
    arguments.split(['=', ' ', '\t']).next().unwrap_or_default()
}

/// Lines put together to instructions: comments and empty lines are dropped,
/// continued lines joined, the text of heredocs skipped.
fn instructions_of(text: &str) -> Result<Vec<Instruction>, DockerfileError> {
    let escape = escape_character(text);
    let mut lines = (1..).zip(text.lines());
    let mut instructions = Vec::new();
    while let Some((line, first)) = lines.next() {
        if is_ignored(first) {
            continue;
        }
        let mut joined = String::new();
        let mut rest = first;
        loop {
            let trimmed = rest.trim_end();
            let Some(continued) = trimmed.strip_suffix(escape) else {
                joined.push_str(trimmed);
                break;
            };
            joined.push_str(continued);
            // Comments and empty lines within an instruction do not end it.
            match lines.by_ref().map(|(_, next)| next).find(|next| !is_ignored(next)) {
                Some(next) => rest = next,
                None => break,
            }
        }
        let joined = joined.trim();
        let (name, arguments) = joined.split_once(char::is_whitespace).unwrap_or((joined, ""));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphabetic()) {
            let word: String = name.chars().take(40).flat_map(char::escape_debug).collect();
            return Err(DockerfileError::NotAnInstruction { line, word });
        }
        let name = name.to_ascii_uppercase();
        if matches!(name.as_str(), "RUN" | "COPY" | "ADD") {
            for end in heredocs(arguments) {
                let found = lines.by_ref().any(|(_, inside)| {
                    inside == end.word || end.indented && inside.trim_start_matches('\t') == end.word
                });
                if !found {
                    return Err(DockerfileError::OpenHeredoc { line });
                }
            }
        }
        instructions.push(Instruction { line, name, arguments: arguments.trim().to_owned() });
    }
    Ok(instructions)
}

fn is_ignored(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// What continues a line: the backslash, unless `# escape=` at the top says otherwise.
fn escape_character(text: &str) -> char {
    for line in text.lines() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|line| line.split_once('=')) else {
            break;
        };
        if name.trim().eq_ignore_ascii_case("escape") {
            return if value.trim() == "`" { '`' } else { '\\' };
        }
    }
    '\\'
}

/// The end of a heredoc.
struct HeredocEnd {
    word: String,
    /// Whether tabs may stand before it.
    indented: bool,
}

/// The ends of the heredocs that an instruction begins: `<<END`, `<<-END`, `<<"END"`.
fn heredocs(arguments: &str) -> Vec<HeredocEnd> {
    let starts = arguments.match_indices("<<").filter(|(at, _)| {
        // `<<<` is a string of the shell.
        !arguments[at + 2..].starts_with('<') && !arguments[..*at].ends_with('<')
    });
    starts
        .filter_map(|(at, _)| {
            let rest = &arguments[at + 2..];
            let (rest, indented) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
            let word = rest.split(char::is_whitespace).next().unwrap_or_default();
            let word: String = word.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
            let is_word = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !word.is_empty();
            is_word.then_some(HeredocEnd { word, indented })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::DockerfileKind::{Build, Run};
    use super::*;

    /// The base, then the instructions with their lines; or what is wrong.
    fn shown(text: &str, kind: DockerfileKind) -> String {
        match Dockerfile::parse(text, kind) {
            Ok(file) => {
                let base = file.new_base.as_deref().unwrap_or("-").to_owned();
                file.instructions.iter().fold(base, |text, one| format!("{text} {}:{}", one.line, one.name))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn ext_04_a_build_dockerfile_has_one_argument_before_one_stage() {
        assert_eq!(shown("ARG base_image\nFROM ${base_image}\nRUN true\n", Build), "- 3:RUN");
        assert_eq!(shown("arg base_image=x\nfrom ${base_image}\n", Build), "-");
        for (text, wrong) in [
            ("FROM ${base_image}\n", "it does not begin with `ARG base_image` and no other `ARG`"),
            (
                "ARG base_image\nARG other\nFROM ${base_image}\n",
                "it does not begin with `ARG base_image` and no other `ARG`",
            ),
            ("ARG other\nFROM ${base_image}\n", "it does not begin with `ARG base_image` and no other `ARG`"),
            ("ARG base_image\nFROM debian\n", "line 2: it is not `FROM ${base_image}`"),
            ("ARG base_image\n", "it has no `FROM`"),
            ("RUN true\nFROM x\n", "line 1: `RUN` stands before `FROM`"),
            ("", "it has no `FROM`"),
        ] {
            assert_eq!(shown(text, Build), wrong, "{text}");
        }
    }

    #[test]
    fn ext_04_a_run_dockerfile_has_one_stage_of_any_image() {
        assert_eq!(shown("FROM acme/run:1\n", Run), "acme/run:1");
        assert_eq!(shown("ARG base_image\nFROM ${base_image}\nUSER root\nRUN x\n", Run), "- 3:USER 4:RUN");
        assert_eq!(
            shown("FROM --platform=linux/amd64 acme/run AS base\nLABEL a=b\n", Run),
            "acme/run 2:LABEL"
        );
        assert_eq!(
            shown("FROM a\nFROM b\n", Run),
            "line 2: a second `FROM`; builds with several stages are not permitted"
        );
        assert_eq!(shown("FROM\n", Run), "line 1: `FROM` names no image");
    }

    #[test]
    fn ext_04_other_instructions_are_known_for_what_they_are() {
        let text = "FROM a\nEXPOSE 80\nRUN x\nHEALTHCHECK NONE\n";
        let file = Dockerfile::parse(text, Run).unwrap();
        let unforeseen: Vec<usize> =
            file.instructions.iter().filter(|one| !one.is_foreseen()).map(|one| one.line).collect();
        assert_eq!(unforeseen, [2, 4]);
    }

    #[test]
    fn instructions_go_over_lines() {
        let text = "# comment\n\nFROM \\\n  a\nRUN one && \\\n# in between\n\n  two\n  env A=b\n";
        let file = Dockerfile::parse(text, Run).unwrap();
        assert_eq!(file.new_base.as_deref(), Some("a"));
        assert_eq!(file.instructions[0].arguments, "one &&   two");
        assert_eq!((file.instructions[1].line, file.instructions[1].name.as_str()), (9, "ENV"));
        assert_eq!(shown("# escape=`\nFROM a\nRUN b `\n c\\\nUSER d\n", Run), "a 3:RUN 5:USER");
        assert_eq!(shown("FROM a\n$%&\n", Run), "line 2: `$%&` is not an instruction");
        // A backslash at the very end.
        assert_eq!(shown("FROM a\nRUN b \\", Run), "a 2:RUN");
    }

    #[test]
    fn the_text_of_heredocs_is_not_taken_for_instructions() {
        let text = "FROM a\nRUN <<EOF cat <<-'TWO'\nFROM b\nEOF\nUSER root\n\tTWO\nENV A=b\nRUN x <<<y\n";
        assert_eq!(shown(text, Run), "a 2:RUN 7:ENV 8:RUN");
        assert_eq!(shown("FROM a\nRUN <<EOF\nx\n", Run), "line 2: a heredoc has no end");
    }
}
