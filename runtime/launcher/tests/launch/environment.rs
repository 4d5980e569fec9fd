//! What the layers change in the environment.

use std::os::unix::fs::symlink;

use crate::image::{Image, failure, output};

/// LAU-10, LAU-11
#[test]
fn the_process_does_not_see_the_launchers_settings() {
    let image = Image::with_process(r#"command = ["env"]"#);
    assert_eq!(
        output(image.web().env("CNB_EXEC_ENV", "test").env("CNB_DEPRECATION_MODE", "quiet").env("MINE", "1")),
        "CNB_EXEC_ENV=test\nMINE=1\nPATH=/usr/bin:/bin\n"
    );
}

/// LAU-08, LAU-12, LAU-13, ENV-13, ENV-14, ENV-16, ENV-17, ENV-25
#[test]
fn layers_change_the_environment_in_order() {
    let image = Image::with_process(r#"command = ["env"]"#);
    image.layer("a/bin/x", "");
    image.layer("b/bin/x", "");
    image.layer("b/lib/x", "");
    image.layer("a/env/OVER", "env");
    image.layer("a/env.launch/OVER", "launch");
    image.layer("a/env.launch/web/OVER", "web");
    image.layer("a/env.launch/worker/OVER", "worker");
    image.layer("a/env.build/OVER", "build");
    image.layer("a/env/LIST.append", "a");
    image.layer("a/env/LIST.delim", ":");
    image.layer("b/env/LIST.append", "b");
    image.layer("b/env/LIST.delim", ":");
    image.layer("b/env/GIVEN.default", "lost");
    image.layer("b/env/WANTED.default", "kept");
    image.layer("a.toml", "[types]");
    let layers = image.path("layers/a_b");
    let layers = layers.to_str().unwrap();
    let web = output(image.web().env("GIVEN", "user").env("OVER", "user"));
    assert_eq!(
        web,
        format!(
            "GIVEN=user\nLD_LIBRARY_PATH={layers}/b/lib\nLIST=a:b\nOVER=web\n\
             PATH={layers}/b/bin:{layers}/a/bin:/usr/bin:/bin\nWANTED=kept\n"
        )
    );
    // Without a process type nothing that belongs to a type applies (LAU-08).
    let user = output(image.launcher("launcher").args(["--", "printenv", "OVER"]));
    assert_eq!(user, "launch\n");
}

/// LAU-12, ENV-17
#[test]
fn later_buildpacks_come_first_and_missing_ones_are_skipped() {
    let image = Image::new(
        "[[buildpacks]]\nid = \"z\"\napi = \"0.9\"\n[[buildpacks]]\nid = \"gone\"\napi = \"0.9\"\n\
         [[buildpacks]]\nid = \"a\"\napi = \"0.9\"\n",
    );
    image.file("layers/z/l/bin/x", "");
    image.file("layers/a/l/bin/x", "");
    let layers = image.path("layers");
    let layers = layers.to_str().unwrap();
    assert_eq!(
        output(image.launcher("launcher").args(["--", "printenv", "PATH"])),
        format!("{layers}/a/l/bin:{layers}/z/l/bin:/usr/bin:/bin\n")
    );
}

/// The value of each variable that one layer's files of a buildpack of `api` leave.
fn values(api: &str, files: &[(&str, &str)], given: &[(&str, &str)]) -> Vec<String> {
    let image = Image::new(&format!(
        "[[buildpacks]]\nid = \"a/b\"\napi = \"{api}\"\n[[processes]]\ntype = \"web\"\n\
         command = [\"env\"]\ndirect = true\nbuildpack-id = \"a/b\"\n"
    ));
    for (name, contents) in files {
        image.layer(name, contents);
    }
    let mut web = image.web();
    web.envs(given.iter().copied());
    let text = output(&mut web);
    text.lines().filter(|line| !line.starts_with("PATH=")).map(str::to_owned).collect()
}

/// ENV-18, ENV-19
#[test]
fn env_18_and_19_the_action_is_what_follows_the_first_dot() {
    let given = [("A", "old"), ("E", "")];
    for (file, expected) in [
        ("A", "A=new"),
        ("A.override", "A=new"),
        ("A.append", "A=oldnew"),
        ("A.prepend", "A=newold"),
        ("A.default", "A=old"),
        ("A.override.bak", "A=old"),
        ("A.unknown", "A=old"),
        ("A.delim", "A=old"),
        ("A.", "A=old"),
    ] {
        let found = values("0.12", &[(&format!("l/env/{file}"), "new")], &given);
        assert_eq!(found, [expected, "E="], "{file}");
    }
    assert_eq!(values("0.12", &[("l/env/E.default", "new")], &given), ["A=old", "E=new"]);
}

/// ENV-20, CON-11
#[test]
fn env_20_a_delimiter_is_of_its_own_directory_and_between_two_values() {
    let files = [("l/env/A.delim", "!"), ("l/env/A.append", "1"), ("l/env.launch/A.append", "2")];
    assert_eq!(values("0.12", &files, &[("A", "0")]), ["A=0!12"]);
    assert_eq!(values("0.12", &files, &[("A", "")]), ["A=12"]);
    assert_eq!(values("0.12", &files, &[]), ["A=12"]);
}

#[test]
fn env_21_contents_are_neither_trimmed_nor_expanded() {
    let files = [("l/env/A", " $HOME \n"), ("l/env/B", "b")];
    assert_eq!(values("0.12", &files, &[]), ["A= $HOME ", "", "B=b"]);
}

/// ENV-22, ENV-23
#[test]
fn env_22_and_23_files_count_by_name_and_directories_in_order() {
    let files = [
        ("l/env/A.append", "lost"),
        ("l/env/A.override", "kept"),
        ("l/env/Q.append", "1"),
        ("l/env.launch/Q.append", "2"),
        ("l/env.launch/web/Q.append", "3"),
        ("m/env/Q.append", "4"),
        ("l/env/R.prepend", "1"),
        ("l/env.launch/R.prepend", "2"),
        ("l/env.launch/web/R.prepend", "3"),
        ("m/env/R.prepend", "4"),
        ("l/env/S.default", "first"),
        ("m/env/S.default", "lost"),
        ("l/env/T", "lost"),
        ("m/env/T", "last"),
    ];
    assert_eq!(values("0.12", &files, &[("A", "x")]), ["A=kept", "Q=1234", "R=4321", "S=first", "T=last"]);
}

/// LAU-14, ENV-24
#[test]
fn lau_14_and_env_24_files_without_suffix_follow_the_api_of_their_buildpack() {
    for (api, expected) in [
        ("0.2", ["A=new:old", "B=new-old", "C=new"]),
        ("0.4", ["A=new:old", "B=new-old", "C=new"]),
        ("0.5", ["A=new", "B=new", "C=new"]),
        ("0.12", ["A=new", "B=new", "C=new"]),
    ] {
        let files = [("l/env/A", "new"), ("l/env/B", "new"), ("l/env/B.delim", "-"), ("l/env/C", "new")];
        assert_eq!(values(api, &files, &[("A", "old"), ("B", "old")]), expected, "{api}");
    }
}

#[test]
fn env_25_a_directory_of_env_launch_is_a_type_and_others_are_skipped() {
    let files = [
        ("l/env/A/nested", "no"),
        ("l/env.launch/other/B", "no"),
        ("l/env.launch/web/C", "yes"),
        ("l/env.launch/web/deeper/D", "no"),
        ("l/env.build/E", "no"),
    ];
    assert_eq!(values("0.12", &files, &[]), ["C=yes"]);
}

/// ENV-12
#[test]
fn a_link_to_a_file_is_one_and_a_dangling_one_stops_the_launch() {
    let image = Image::with_process(r#"command = ["printenv", "A"]"#);
    let target = image.layer("real", "linked");
    std::fs::create_dir_all(image.path("layers/a_b/l/env")).unwrap();
    symlink(target, image.path("layers/a_b/l/env/A")).unwrap();
    assert_eq!(output(&mut image.web()), "linked\n");
    symlink("/no/such/file", image.path("layers/a_b/l/env/B")).unwrap();
    assert!(failure(&mut image.web(), 82).contains("/env/B`"));
}

#[test]
fn lau_12_a_link_to_a_directory_is_no_layer() {
    let image = Image::with_process(r#"command = ["env"]"#);
    image.file("elsewhere/env/A", "no");
    std::fs::create_dir_all(image.path("layers/a_b")).unwrap();
    symlink(image.path("elsewhere"), image.path("layers/a_b/l")).unwrap();
    assert_eq!(output(&mut image.web()), "PATH=/usr/bin:/bin\n");
}
