//! The command lines of `docs/coming-from-pack.md`, each once.

use crate::site::Site;

const PAGE: &str = include_str!("../../docs/coming-from-pack.md");

fn is_on_the_page(command: &str) {
    assert!(PAGE.contains(&format!("`{command}`")), "`{command}` is not on the page");
}

#[test]
fn every_command_line_of_the_page_runs() {
    let site = Site::new();
    site.file("index.html", "<h1>hello</h1>");
    site.file("DIR/index.html", "<h1>hello</h1>");
    for command in ["wapack build my/app", "wapack build my/app --path DIR"] {
        is_on_the_page(command);
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        site.run(&words).with(0);
    }
    for command in [
        "wapack inspect oci:my-app.oci",
        "wapack inspect oci:my-app.oci --json",
        "wapack sbom download oci:my-app.oci",
        "wapack config show",
        "wapack config path",
    ] {
        is_on_the_page(command);
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        site.run(&words).with(0);
    }
    let directory = site.guest("well-behaved").expect("the guests are built");
    site.run(&["inspect", directory.to_str().unwrap()]).with(0);
    site.run(&["build", "my/app", "--builder", "DIR"]).with(3).complains(&["`DIR` is not a builder"]);
}

/// Each flag that the page says is the same, in one build.
#[test]
fn every_flag_of_the_page_is_taken() {
    let site = Site::new();
    site.file("index.html", "<h1>hello</h1>");
    site.file("FILE", "A=1\n");
    site.file("ci.toml", "[_]\nschema-version = '0.2'\n");
    let flags: &[&[&str]] = &[
        &["--buildpack", "from=builder"],
        &["--env", "NAME=VALUE"],
        &["--env-file", "FILE"],
        &["--tag", "name:1"],
        &["--descriptor", "ci.toml"],
        &["--default-process", "web"],
        &["--process-type", "web"],
        &["--creation-time", "now"],
        &["--clear-cache"],
        &["--previous-image", "oci:my-app.oci:my/app:latest"],
        &["--sbom-output-dir", "sboms"],
        &["--run-image", "scratch"],
        &["--target", "linux/amd64"],
        &["--user", "1000:1000"],
        &["--cache-dir", "cache"],
        &["--offline"],
        &["--verbose"],
        &["--quiet"],
        &["--no-color"],
        &["--explain"],
        &["--verify"],
        &["--include-git"],
        &["--output-format", "json"],
    ];
    site.run(&["build", "my/app"]).with(0);
    for flag in flags {
        assert!(PAGE.contains(flag[0]), "{} is not on the page", flag[0]);
        site.run(&[&["build", "my/app"], *flag].concat()).with(0);
    }
}
