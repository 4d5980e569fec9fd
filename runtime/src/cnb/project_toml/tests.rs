use super::*;
use serde_json::json;

fn parse(text: &str) -> ProjectDescriptor {
    ProjectDescriptor::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refused(text: &str) -> String {
    match ProjectDescriptor::parse(text) {
        Ok(descriptor) => panic!("{descriptor:?}"),
        Err(error) => error.to_string(),
    }
}

const HEADER: &str = "[_]\nschema-version = '0.2'\n";

#[test]
fn prj_01_the_schema_version_decides_how_the_file_is_read() {
    let old = parse("[project]\nid = 'a'\n");
    assert_eq!(old.project.id, "a");
    assert_eq!(old.warnings, ["it does not say `schema-version` under `[_]` and is read as schema 0.1"]);
    let said = parse("[_]\nschema-version = '0.1'\n[project]\nid = 'a'\n");
    assert_eq!((said.project.id.as_str(), said.warnings.len()), ("a", 0));
    let new = parse(&format!("{HEADER}id = 'b'\n"));
    assert_eq!((new.project.id.as_str(), new.warnings.len()), ("b", 0));
    for version in ["0.4", "1.0", "0", ""] {
        let error = refused(&format!("[_]\n  schema-version = '{version}'\n"));
        let expected =
            format!("line 2, column 20: schema version `{version}` is not known; known are 0.1, 0.2 and 0.3");
        assert_eq!(error, expected);
    }
    // No text, so no version at all.
    assert!(refused("[_]\nschema-version = 0.2\n").starts_with("line 2, column 18: "));
}

#[test]
fn prj_02_every_key_of_schema_0_2() {
    let descriptor = parse(
        r#"
        [_]
        schema-version = "0.2"
        id = "io.acme.shop"
        name = "Shop"
        version = "1.2.3"
        authors = ["Ada", "Bo"]
        documentation-url = "https://docs.example"
        source-url = "https://git.example/shop"
        [[_.licenses]]
        type = "MIT"
        [[_.licenses]]
        uri = "https://example/license"
        [_.metadata]
        anything = { goes = 1 }
        [io.buildpacks]
        builder = "builders/small"
        include = ["src/", "!src/tmp"]
        [[io.buildpacks.group]]
        id = "acme/node"
        version = "1.2.0"
        [[io.buildpacks.group]]
        uri = "buildpacks/local"
        [[io.buildpacks.group]]
        id = "acme/script"
        [io.buildpacks.group.script]
        api = "0.10"
        inline = "echo hello"
        [[io.buildpacks.pre.group]]
        id = "acme/first"
        [[io.buildpacks.post.group]]
        id = "acme/last"
        [[io.buildpacks.build.env]]
        name = "BP_A"
        value = "1"
        [[io.buildpacks.env.build]]
        name = "BP_B"
        value = "2"
        "#,
    );
    let project = &descriptor.project;
    assert_eq!((project.id.as_str(), project.name.as_str()), ("io.acme.shop", "Shop"));
    assert_eq!((project.version.as_str(), project.authors.len()), ("1.2.3", 2));
    assert_eq!(project.documentation_url, "https://docs.example");
    assert_eq!(project.source_url, "https://git.example/shop");
    assert_eq!(project.licenses[0].license_type, "MIT");
    assert_eq!(project.licenses[1].uri, "https://example/license");
    assert_eq!(descriptor.builder, "builders/small");
    assert_eq!(descriptor.files, FileChoice::Include(vec!["src/".into(), "!src/tmp".into()]));
    let id = |text: &str| text.parse::<BuildpackId>().unwrap();
    assert_eq!(
        descriptor.group[0].buildpack,
        GroupBuildpack::Id { id: id("acme/node"), version: Some("1.2.0".parse().unwrap()) }
    );
    assert_eq!(descriptor.group[0].line, 19);
    assert_eq!(
        descriptor.group[1].buildpack,
        GroupBuildpack::Uri { uri: "buildpacks/local".into(), id: None }
    );
    let GroupBuildpack::Script { script, .. } = &descriptor.group[2].buildpack else { panic!() };
    assert_eq!(
        (script.api.as_str(), script.inline.as_str(), script.shell.as_str()),
        ("0.10", "echo hello", "/bin/sh")
    );
    assert_eq!(descriptor.pre[0].buildpack, GroupBuildpack::Id { id: id("acme/first"), version: None });
    assert_eq!(descriptor.post[0].buildpack, GroupBuildpack::Id { id: id("acme/last"), version: None });
    assert_eq!(descriptor.env, [("BP_B".into(), "2".into()), ("BP_A".into(), "1".into())]);
    assert_eq!(descriptor.warnings, [""; 0]);
}

/// PRJ-01, PRJ-02: what pack reads of its own schema.
#[test]
fn prj_01_schema_0_3_has_parts_for_some_execution_environments() {
    let text = |version: &str| {
        format!(
            "[_]\nschema-version = '{version}'\n\
             [[io.buildpacks.group]]\nid = 'all'\n\
             [[io.buildpacks.group]]\nid = 'live'\nexec-env = ['production']\n\
             [[io.buildpacks.group]]\nid = 'test'\nexec-env = ['test', 'x']\n\
             [[io.buildpacks.pre.group]]\nid = 'any'\nexec-env = ['*']\n\
             [[io.buildpacks.build.env]]\nname = 'A'\nvalue = '1'\nexec-env = ['test']\n\
             [[io.buildpacks.build.env]]\nname = 'B'\nvalue = '2'\nexec-env = ['production']\n"
        )
    };
    let ids = |group: &[GroupEntry]| -> Vec<String> {
        let id = |entry: &GroupEntry| match &entry.buildpack {
            GroupBuildpack::Id { id, .. } => id.to_string(),
            other => panic!("{other:?}"),
        };
        group.iter().map(id).collect()
    };
    let descriptor = parse(&text("0.3"));
    assert_eq!(
        (ids(&descriptor.group), ids(&descriptor.pre)),
        (vec!["all".into(), "live".into()], vec!["any".into()])
    );
    assert_eq!(descriptor.env, [("B".into(), "2".into())]);
    assert_eq!(descriptor.warnings, [""; 0]);
    // Schema 0.2 has no such lists.
    let descriptor = parse(&text("0.2"));
    assert_eq!((descriptor.group.len(), descriptor.env.len()), (3, 2));
}

#[test]
fn prj_03_every_key_of_schema_0_1() {
    let descriptor = parse(
        r#"
        [project]
        id = "io.acme.shop"
        name = "Shop"
        version = "1.2.3"
        authors = ["Ada"]
        documentation-url = "https://docs.example"
        source-url = "https://git.example/shop"
        licenses = [{ type = "MIT" }]
        [build]
        builder = "builders/small"
        exclude = ["*.md"]
        [[build.buildpacks]]
        id = "acme/node"
        version = "1.2.0"
        [[build.buildpacks]]
        uri = "./local"
        [[build.env]]
        name = "BP_A"
        value = "1"
        [metadata]
        anything = 1
        "#,
    );
    let project = &descriptor.project;
    assert_eq!((project.id.as_str(), project.version.as_str()), ("io.acme.shop", "1.2.3"));
    assert_eq!((project.licenses[0].license_type.as_str(), project.name.as_str()), ("MIT", "Shop"));
    assert_eq!(descriptor.builder, "builders/small");
    assert_eq!(descriptor.files, FileChoice::Exclude(vec!["*.md".into()]));
    assert_eq!(descriptor.group.len(), 2);
    assert_eq!(descriptor.env, [("BP_A".into(), "1".into())]);
    assert_eq!(descriptor.warnings.len(), 1, "{:?}", descriptor.warnings);
}

#[test]
fn prj_04_include_and_exclude_together_are_an_error() {
    let error = refused(&format!("{HEADER}[io.buildpacks]\ninclude = ['a']\nexclude = ['b']\n"));
    assert_eq!(error, "line 5, column 11: `include` and `exclude` cannot both be given");
    assert!(refused("[build]\nexclude = []\ninclude = []\n").contains("cannot both"));
    // An empty list of what to keep keeps nothing; a missing one keeps everything.
    let empty = parse(&format!("{HEADER}[io.buildpacks]\ninclude = []\n"));
    assert_eq!(empty.files, FileChoice::Include(vec![]));
}

#[test]
fn prj_05_a_licence_and_a_group_entry_that_say_too_little_or_too_much() {
    let error = refused(&format!("{HEADER}[[_.licenses]]\nname = 'x'\n"));
    assert_eq!(error, "line 3, column 1: a license needs `type` or `uri`");
    let script = "[io.buildpacks.group.script]\napi = '0.10'\ninline = 'x'\n";
    for (entry, expected) in [
        ("", "a buildpack needs an `id` or a `uri`"),
        ("version = '1.0.0'\n", "a buildpack needs an `id` or a `uri`"),
        ("uri = 'x'\nversion = '1.0.0'\n", "a buildpack has `uri` or `version`, not both"),
        (&format!("id = 'a'\nuri = 'x'\n{script}"), "a buildpack has `uri` or `script`, not both"),
    ] {
        let error = refused(&format!("{HEADER}\n[[io.buildpacks.group]]\n{entry}"));
        assert_eq!(error, format!("line 4, column 1: {expected}"), "{entry}");
    }
    let error = refused(&format!("{HEADER}[[io.buildpacks.pre.group]]\nid = '../a'\n"));
    assert!(error.starts_with("line 4, column 6: buildpack id `../a` is not valid"), "{error}");
}

#[test]
fn prj_06_an_inline_script_has_an_id_an_api_and_a_text() {
    let group = |body: &str| format!("{HEADER}[[io.buildpacks.group]]\n{body}");
    let script = parse(&group("id = 'a'\nscript = { api = '0.10', inline = 'make', shell = '/bin/bash' }\n"));
    let GroupBuildpack::Script { version, script, .. } = &script.group[0].buildpack else { panic!() };
    assert_eq!((version.as_str(), script.shell.as_str()), ("0.0.0", "/bin/bash"));
    let given = parse(&group("id = 'a'\nversion = '1.2.3'\nscript = { api = '0.10', inline = 'make' }\n"));
    let GroupBuildpack::Script { version, .. } = &given.group[0].buildpack else { panic!() };
    assert_eq!(version.as_str(), "1.2.3");
    for (body, missing) in [
        ("id = 'a'\nscript = { api = '0.10' }\n", "missing field `inline`"),
        ("id = 'a'\nscript = { inline = 'x' }\n", "missing field `api`"),
        ("script = { api = '0.10', inline = 'x' }\n", "a buildpack with a `script` needs an `id`"),
    ] {
        let error = refused(&group(body));
        assert!(error.starts_with("line ") && error.contains(missing), "{error}");
    }
}

#[test]
fn prj_09_what_the_label_says_of_the_source() {
    let label = |header: &str| serde_json::to_value(parse(&format!("{HEADER}{header}")).metadata()).unwrap();
    assert_eq!(label("id = 'a'"), json!({}));
    assert_eq!(
        label("version = '1.2'\nsource-url = 'https://git.example'"),
        json!({"source": {
            "type": "project",
            "version": {"declared": "1.2"},
            "metadata": {"url": "https://git.example"},
        }})
    );
    assert_eq!(
        label("version = '1.2'"),
        json!({"source": { "type": "project", "version": {"declared": "1.2"} }})
    );
}

#[test]
fn keys_that_say_nothing_are_warned_of() {
    let warnings = |text: &str| parse(text).warnings.join("; ");
    let new = warnings(&format!(
        "{HEADER}[io.buildpacks]\nexcludes = []\n[project]\nid = 'x'\n[com.acme]\na = 1\n"
    ));
    assert_eq!(
        new,
        "its key `io.buildpacks.excludes` is not known and says nothing; \
         its table `[project]` is of schema 0.1 and says nothing since 0.2"
    );
    let old =
        warnings("[_]\nschema-version = '0.1'\n[io.buildpacks]\nexclude = []\n[build]\nbuildpack = []\n");
    assert_eq!(
        old,
        "its key `io` is not known and says nothing; its key `build.buildpack` is not known and says nothing"
    );
}

#[test]
fn what_is_no_toml_has_its_place() {
    assert!(refused("[_]\nid = = 1\n").starts_with("line 2, column "), "{}", refused("[_]\nid = = 1\n"));
    let error = refused(&format!("{HEADER}[[io.buildpacks.build.env]]\nname = 'A'\n"));
    assert!(error.starts_with("line 3, column 1: ") && error.contains("`value`"), "{error}");
}
