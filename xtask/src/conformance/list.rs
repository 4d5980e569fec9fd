//! The requirements, as `docs/conformance/requirements/*.toml` lists them.
//!
//! # Shape
//! ```toml
//! [[area]]
//! id = "ENV"
//! title = "Environment"
//! # Perhaps `supported = false` and a `reason`, for all of it.
//!
//! [area.requirements]
//! ENV-01 = { level = "must", text = "…" }
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::Result;
use crate::workspace::read_toml;

/// How much a requirement asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Must,
    Should,
    May,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::May => "may",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Must, Self::Should, Self::May].into_iter().find(|level| level.name() == name)
    }
}

/// One requirement.
#[derive(Debug, Clone)]
pub(super) struct Requirement {
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) text: String,
    /// Whether it is part of what wapack does now.
    pub(super) supported: bool,
    /// Why no test shows it, if none is to.
    pub(super) reason: Option<String>,
}

impl Requirement {
    pub(super) fn must(&self) -> bool {
        self.level == Level::Must
    }
}

/// Requirements whose ids begin alike.
#[derive(Debug, Clone)]
pub(super) struct Area {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) requirements: Vec<Requirement>,
}

/// All requirements, by area.
#[derive(Debug, Clone, Default)]
pub(super) struct List {
    pub(super) areas: Vec<Area>,
}

impl List {
    /// Reads every file of the directory, sorted by name.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let entries = fs::read_dir(directory)
            .map_err(|error| format!("cannot read `{}`: {error}", directory.display()))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let mut list = Self::default();
        for file in files {
            list.add(&read_toml(&file)?).map_err(|error| format!("`{}`: {error}", file.display()))?;
        }
        Ok(list)
    }

    /// Adds the areas of one file.
    pub(super) fn add(&mut self, file: &Table) -> Result<()> {
        let areas = file.get("area").and_then(Value::as_array).ok_or("it has no areas")?;
        for area in areas {
            let area = parse_area(area)?;
            if self.areas.iter().any(|known| known.id == area.id) {
                return Err(format!("there is another area {}", area.id));
            }
            self.areas.push(area);
        }
        Ok(())
    }

    pub(super) fn get(&self, id: &str) -> Option<&Requirement> {
        self.requirements().find(|requirement| requirement.id == id)
    }

    /// The area with this id, in small letters or large ones.
    pub(super) fn area(&self, id: &str) -> Option<&Area> {
        self.areas.iter().find(|area| area.id.eq_ignore_ascii_case(id))
    }

    pub(super) fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.areas.iter().flat_map(|area| &area.requirements)
    }
}

fn parse_area(area: &Value) -> Result<Area> {
    let text = |key| area.get(key).and_then(Value::as_str).map(str::to_owned);
    let id = text("id").ok_or("an area has no id")?;
    let title = text("title").ok_or_else(|| format!("area {id} has no title"))?;
    let supported = area.get("supported").and_then(Value::as_bool).unwrap_or(true);
    let reason = text("reason");
    let mut requirements = Vec::new();
    for (name, value) in area.get("requirements").and_then(Value::as_table).into_iter().flatten() {
        if name.split_once('-').is_none_or(|(prefix, _)| prefix != id) {
            return Err(format!("{name} is in area {id}"));
        }
        let text = |key| value.get(key).and_then(Value::as_str);
        let requirement = Requirement {
            id: name.clone(),
            level: text("level")
                .and_then(Level::parse)
                .ok_or_else(|| format!("{name} has no level that is known"))?,
            text: text("text").ok_or_else(|| format!("{name} has no text"))?.to_owned(),
            supported: value.get("supported").and_then(Value::as_bool).unwrap_or(supported),
            reason: text("reason").map(str::to_owned).or_else(|| reason.clone()),
        };
        if !requirement.supported && requirement.reason.is_none() {
            return Err(format!("{name} is not supported, and nothing says why"));
        }
        requirements.push(requirement);
    }
    requirements.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(Area { id, title, requirements })
}
