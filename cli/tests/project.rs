//! `project.toml`, as the program reads it.

use crate::site::{Ended, Site};

const SCHEMA: &str = "[_]\nschema-version = '0.2'\n";

/// A site with an app, and in it buildpacks `own/<name>` with the id `own/<name>`.
fn site(own: &[&str]) -> Site {
    let site = Site::new();
    site.file("app/index.html", "<h1>hello</h1>");
    for name in own {
        buildpack(&site, &format!("app/own/{name}"), &format!("own/{name}"), "0.1.0");
    }
    site
}

/// A buildpack in `directory` that prints its environment.
fn buildpack(site: &Site, directory: &str, id: &str, version: &str) {
    let component = site.guest("env-reader").expect("the guests are built").join("buildpack.wasm");
    let toml = format!("api = \"0.12\"\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"\n");
    let path = site.file(&format!("{directory}/buildpack.toml"), &toml);
    std::fs::copy(component, path.with_file_name("buildpack.wasm")).unwrap();
}

/// A builder whose order is `acme/one`, else `acme/two`; it has `acme/two` in three versions.
fn builder(site: &Site) {
    for (name, version) in [("one", "1.0.0"), ("two", "2.0.0"), ("two", "10.0.0"), ("two", "9.1.0")] {
        buildpack(
            site,
            &format!("builder/buildpacks/acme_{name}/{version}"),
            &format!("acme/{name}"),
            version,
        );
    }
    let group = |name: &str, version: &str| {
        format!("[[order]]\n[[order.group]]\nid = \"acme/{name}\"\nversion = \"{version}\"\n")
    };
    site.file("builder/order.toml", &(group("one", "1.0.0") + &group("two", "2.0.0")));
}

fn project(site: &Site, text: &str) {
    site.file("app/project.toml", &format!("{SCHEMA}{text}"));
}

/// The ids and versions of who took part, as `detect` prints them.
fn participants(ended: &Ended) -> Vec<String> {
    let lines = ended.out.lines().skip_while(|line| !line.ends_with("buildpacks participating")).skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join("@"))
        .collect()
}

fn detect(site: &Site, more: &[&str]) -> Ended {
    site.run(&[&["detect", "--path", "app"], more].concat())
}

#[test]
fn prj_07_a_group_takes_the_place_of_the_order() {
    let site = site(&["a"]);
    builder(&site);
    let group = "[[io.buildpacks.group]]\nid = 'acme/two'\n[[io.buildpacks.group]]\nuri = 'own/a'\n\
                 [[io.buildpacks.group]]\nid = 'acme/two'\nversion = '2.0.0'\n";
    project(&site, &format!("[io.buildpacks]\nbuilder = 'x'\n{group}"));
    // Of several versions the highest; the same id counts once.
    let ended = detect(&site, &["--builder", "builder"]).with(0);
    assert_eq!(participants(&ended), ["acme/two@10.0.0", "own/a@0.1.0"]);
    // What the command line names wins over it.
    let ended = detect(&site, &["--builder", "builder", "--buildpack", "acme/one"]).with(0);
    assert_eq!(participants(&ended), ["acme/one@1.0.0"]);
}

#[test]
fn prj_07_pre_and_post_go_around_every_group_as_written() {
    let site = site(&["a", "b", "c", "d"]);
    builder(&site);
    let entry = |place: &str, name: &str| format!("[[io.buildpacks.{place}.group]]\nuri = 'own/{name}'\n");
    let around = entry("pre", "a") + &entry("pre", "b") + &entry("post", "c") + &entry("post", "d");
    project(&site, &around);
    let ended = detect(&site, &["--builder", "builder"]).with(0);
    assert_eq!(
        participants(&ended),
        ["own/a@0.1.0", "own/b@0.1.0", "acme/one@1.0.0", "own/c@0.1.0", "own/d@0.1.0"]
    );
    // The second group of the order has them too: the first one does not build.
    let order = site.path().join("builder/order.toml");
    let text = std::fs::read_to_string(&order).unwrap();
    let first = site.path().join("builder/buildpacks/acme_one/1.0.0/buildpack.toml");
    let toml = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, toml + "[[targets]]\nos = \"windows\"\n").unwrap();
    std::fs::write(&order, text).unwrap();
    let ended = detect(&site, &["--builder", "builder"]).with(0);
    assert_eq!(
        participants(&ended),
        ["own/a@0.1.0", "own/b@0.1.0", "acme/two@2.0.0", "own/c@0.1.0", "own/d@0.1.0"]
    );
    detect(&site, &["--builder", "builder", "--buildpack", "acme/two@2.0.0"])
        .with(0)
        .complains(&["`pre` and `post` of the project file go around the builder's order"]);
}

#[test]
fn prj_08_variables_and_builder_of_the_file_yield_to_the_command_line() {
    let site = site(&[]);
    builder(&site);
    std::fs::rename(site.path().join("builder"), site.path().join("app/builder")).unwrap();
    let variable = |name: &str| format!("[[io.buildpacks.build.env]]\nname = '{name}'\nvalue = 'project'\n");
    let variables: String = ["A", "B", "C"].map(variable).concat();
    project(&site, &format!("[io.buildpacks]\nbuilder = 'builder'\n{variables}"));
    site.file("variables", "B=file\nC=file\n");
    let build = |more: &[&str]| site.run(&[&["build", "x", "--path", "app"], more].concat());
    build(&["--env-file", "variables", "--env", "C=argument"]).with(0).says(&[
        "acme/one 1.0.0",
        "user-env A=project",
        "user-env B=file",
        "user-env C=argument",
    ]);
    let ended = detect(&site, &["--builder", "builtin"]).with(0);
    assert_eq!(participants(&ended), ["wapack/static-site@0.1.0"]);
    project(&site, "[[io.buildpacks.build.env]]\nname = 'CNB_A'\nvalue = 'x'\n");
    detect(&site, &[]).with(3).complains(&["error[input.project]", "`CNB_A`, which cannot name a variable"]);
}

#[test]
fn prj_10_another_file_is_read_when_it_is_named() {
    let site = site(&[]);
    site.file("app/secret.txt", "x");
    // A missing default is fine, a missing named file is not.
    detect(&site, &[]).with(0);
    detect(&site, &["--descriptor", "nowhere.toml"])
        .with(3)
        .complains(&["error[input.project]", "nowhere.toml"]);
    project(&site, "[io.buildpacks]\nexclude = ['index.html']\n");
    detect(&site, &[]).with(20);
    let named = site.file("elsewhere/other.toml", &format!("{SCHEMA}[io.buildpacks]\nexclude = ['*.txt']\n"));
    detect(&site, &["--descriptor", named.to_str().unwrap()]).with(0);
}

/// PRJ-04: what is left out is so before anybody is asked, and is not in the image.
#[test]
fn prj_04_what_is_left_out_nobody_sees() {
    let site = site(&[]);
    site.file("app/notes/private.txt", "x");
    site.file("app/.env", "TOKEN=x");
    let files = |arguments: &[&str]| {
        site.run(&[&["build", "-q", "--path", "app", "--output", "oci:out", "x"], arguments].concat())
            .with(0);
        let image = site.layer_names("out");
        std::fs::remove_dir_all(site.path().join("out")).unwrap();
        image
    };
    let all = files(&[]);
    assert!(all.contains(&"/workspace/notes/private.txt".to_owned()), "{all:?}");
    project(&site, "[io.buildpacks]\nexclude = ['notes', '.env']\n");
    let left: Vec<String> = files(&[]).into_iter().filter(|name| name.starts_with("/workspace/")).collect();
    assert_eq!(left, ["/workspace/index.html", "/workspace/project.toml"]);
    project(&site, "[io.buildpacks]\ninclude = ['*.html']\n");
    let left: Vec<String> = files(&[]).into_iter().filter(|name| name.starts_with("/workspace/")).collect();
    assert_eq!(left, ["/workspace/index.html"]);
}

/// PRJ-09, LBL-13
#[test]
fn prj_09_and_lbl_13_the_image_says_where_its_source_came_from() {
    let site = site(&[]);
    let label = || {
        site.run(&["build", "-q", "--path", "app", "--output", "oci:out", "x"]).with(0);
        site.configuration("out")["config"]["Labels"]["io.buildpacks.project.metadata"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(label(), "{}");
    site.file(
        "app/project.toml",
        &format!("{SCHEMA}version = '1.2.3'\nsource-url = 'https://git.example/shop'\n"),
    );
    let said: serde_json::Value = serde_json::from_str(&label()).unwrap();
    assert_eq!(
        said,
        serde_json::json!({"source": {
            "type": "project",
            "version": {"declared": "1.2.3"},
            "metadata": {"url": "https://git.example/shop"},
        }})
    );
}

/// BLDR-11: each kind of locator that there is something behind, and a clear word on the others.
#[test]
fn bldr_11_locators_of_buildpacks() {
    let site = site(&["a"]);
    builder(&site);
    let own = site.path().join("app/own/a");
    let address = format!("file://{}", own.display());
    for (locator, expected) in [
        ("from=builder", &["acme/one@1.0.0"][..]),
        ("from=builder:acme/one", &["acme/one@1.0.0"]),
        ("urn:cnb:builder:acme/two@9.1.0", &["acme/two@9.1.0"]),
        (&address, &["own/a@0.1.0"]),
        ("app/own/a", &["own/a@0.1.0"]),
        ("acme/one@1.0.0", &["acme/one@1.0.0"]),
    ] {
        let ended = detect(&site, &["--builder", "builder", "--buildpack", locator]).with(0);
        assert_eq!(participants(&ended), expected, "{locator}");
    }
    let around = ["--builder", "builder", "-b", "app/own/a", "-b", "from=builder"];
    assert_eq!(participants(&detect(&site, &around).with(0)), ["own/a@0.1.0", "acme/one@1.0.0"]);
    for (locator, id, said) in [
        ("docker://acme/one", "input.buildpack", "is not on this machine"),
        ("https://example.com/x.tgz", "input.buildpack", "is not on this machine"),
        ("urn:cnb:registry:acme/one", "input.buildpack", "is not on this machine"),
        ("from=builder:acme/three", "input.buildpack", "there is no buildpack `from=builder:acme/three`"),
        ("acme/two", "input.buildpack", "there are several versions of buildpack `acme/two`"),
        ("example.com/acme/x:1", "input.buildpack", "there is no buildpack"),
    ] {
        let ended = detect(&site, &["--builder", "builder", "--buildpack", locator]).with(3);
        ended.complains(&[&format!("error[{id}]"), said]);
    }
    let twice = ["--builder", "builder", "-b", "from=builder", "-b", "from=builder"];
    detect(&site, &twice).with(3).complains(&["`from=builder` is there twice"]);
}

#[test]
fn what_the_file_asks_for_and_cannot_have_is_said_with_what_would_help() {
    let site = site(&["a"]);
    builder(&site);
    buildpack(&site, "outside", "outside/x", "0.1.0");
    buildpack(&site, "app/impostor", "wapack/static-site", "9.9.9");
    site.file(
        "app/classic/buildpack.toml",
        "api = \"0.10\"\n[buildpack]\nid = \"acme/classic\"\nversion = \"1.0.0\"\n",
    );
    site.file("app/classic/bin/detect", "#!/bin/sh\n");
    site.file("app/classic/bin/build", "#!/bin/sh\n");
    std::os::unix::fs::symlink("../outside", site.path().join("app/link")).unwrap();
    let group = |body: &str| format!("[[io.buildpacks.group]]\n{body}\n");
    for (text, expected) in [
        (
            group("id = 'x'\nscript = { api = '0.10', inline = 'make' }"),
            &["buildpack `x` in line 3", "--buildpack"][..],
        ),
        (group("uri = 'classic'"), &["acme/classic@1.0.0", "`bin/detect`, `bin/build`", "a component"]),
        (group("uri = '../outside'"), &["leads out of the app's directory: `../outside`", "--descriptor"]),
        (group("uri = 'link'"), &["leads out of the app's directory: `link`"]),
        (group("uri = 'impostor'"), &["takes the name of another one: `wapack/static-site`", "--descriptor"]),
        (group("uri = 'nowhere'"), &["`nowhere`, which is not a directory"]),
        (group("uri = 'docker://acme/x'"), &["is not on this machine"]),
        (group("uri = 'own/a'\nid = 'acme/b'"), &["another id than `own/a@0.1.0`"]),
        (
            "[io.buildpacks]\nbuilder = 'acme/builder:latest'\n".to_owned(),
            &["`acme/builder:latest`", "--builder builtin"],
        ),
        (
            "[io.buildpacks]\ninclude = ['a']\nexclude = ['b']\n".to_owned(),
            &["line 5, column 11", "cannot both be given"],
        ),
        ("[io.buildpacks]\nexclude = ['a[']\n".to_owned(), &["error[source.bad_pattern]", "`a[`"]),
    ] {
        project(&site, &text);
        detect(&site, &[]).with(3).complains(expected);
    }
    // Who names the file answers for it.
    project(&site, &group("uri = '../outside'"));
    let named = detect(&site, &["--descriptor", "app/project.toml"]).with(0);
    assert_eq!(participants(&named), ["outside/x@0.1.0"]);
    std::fs::rename(site.path().join("app/project.toml"), site.path().join("real.toml")).unwrap();
    std::os::unix::fs::symlink("../real.toml", site.path().join("app/project.toml")).unwrap();
    detect(&site, &[]).with(3).complains(&["is a symbolic link"]);
}

#[test]
fn prj_01_a_file_without_a_schema_version_is_warned_of() {
    let site = site(&[]);
    site.file("app/project.toml", "[build]\nexclude = ['x']\n");
    detect(&site, &[]).with(0).complains(&["warning: `app/project.toml`: it does not say `schema-version`"]);
    site.file("app/project.toml", "[_]\nschema-version = '7'\n");
    detect(&site, &[]).with(3).complains(&["line 2, column 18: schema version `7` is not known"]);
}

#[test]
fn git_takes_part_when_it_is_asked_for() {
    let site = site(&[]);
    site.file("app/.git/HEAD", "ref: refs/heads/main\n");
    let build = |more: &[&str]| {
        site.run(&[&["build", "-q", "--path", "app", "--output", "oci:out", "x"], more].concat()).with(0);
        site.layer_names("out").contains(&"/workspace/.git/HEAD".to_owned())
    };
    assert!(!build(&[]));
    assert!(build(&["--include-git"]));
}
