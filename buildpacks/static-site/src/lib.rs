//! `wapack/static-site`: a website and a web server to serve it.
//!
//! Knows the web server's program, layer and process; where the website is, is
//! the business of [`site`].

pub mod site;

use serde::Deserialize;
use wapack_sdk::sbom::{Component, ComponentKind, CycloneDx};
use wapack_sdk::{
    BuildContext, Buildpack, Built, DetectContext, Detected, Error, LayerTypes, Process, files, fs,
};

/// The buildpack.
#[derive(Debug)]
pub struct StaticSite;

/// The `[metadata]` of `buildpack.toml`.
#[derive(Debug, Deserialize)]
struct Metadata {
    server: Server,
}

/// What the web server is; the bill of materials says so.
#[derive(Debug, Deserialize)]
struct Server {
    name: String,
    version: String,
    license: String,
}

impl Buildpack for StaticSite {
    fn detect(context: &DetectContext) -> Result<Detected, Error> {
        if site::find_root(context)?.is_none() {
            return Ok(Detected::fail("no `index.html` in the app, `public/` or `dist/`"));
        }
        Ok(match site::server_of_its_own(context) {
            None => Detected::pass(),
            Some(sign) => Detected::fail(format!("an app of Node.js: {sign}")),
        })
    }

    #[expect(clippy::print_stdout, reason = "the build's log")]
    fn build(context: &BuildContext) -> Result<Built, Error> {
        let root = site::find_root(context)?.ok_or_else(|| Error::app("the `index.html` is gone"))?;
        println!("serving {}", root.display());

        let server = context.metadata::<Metadata>()?.server;
        let arch = &context.target.arch;
        let program = context.buildpack.join(format!("server/linux-{arch}/static-web-server"));
        if !program.is_file() {
            return Err(Error::buildpack(format!("there is no web server for `linux/{arch}`")));
        }
        let layer = context
            .layer("server", LayerTypes::LAUNCH | LayerTypes::CACHE)
            .key(&[("program", &files::hash_tree(&program)?), ("architecture", arch)])
            .fill(|directory| {
                fs::create_dir(directory.join("bin"))?;
                let copy = directory.join("bin/static-web-server");
                files::copy_tree(&program, &copy)?;
                files::set_executable(copy, true)
            })?
            .sbom(CycloneDx::from(
                Component::cargo(&server.name, &server.version)
                    .kind(ComponentKind::Application)
                    .license(&server.license),
            ));

        let program = layer.path().join("bin/static-web-server").display().to_string();
        let web = Process::new("web", [program, "--root".into(), root.display().to_string()]).default();
        Ok(Built::new().layer(layer).process(web))
    }
}

wapack_sdk::export!(StaticSite);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wapack_sdk::testing::Project;
    use wapack_sdk::{Fault, LayerState};

    use super::*;

    /// A website in `public`, and servers for both architectures.
    fn project() -> Project {
        let descriptor: toml::Table = toml::from_str(include_str!("../buildpack.toml")).unwrap();
        let project = Project::new().unwrap().metadata(&descriptor["metadata"]).unwrap();
        project.app_file("public/index.html", "<h1>hello</h1>").unwrap();
        for arch in ["amd64", "arm64"] {
            project.buildpack_file(format!("server/linux-{arch}/static-web-server"), arch).unwrap();
        }
        project
    }

    #[test]
    fn takes_part_when_there_is_a_website() {
        let project = Project::new().unwrap();
        project.app_file("package.json", "{}").unwrap();
        project.app_file("server.js", "").unwrap();
        assert!(project.detect::<StaticSite>().unwrap().reason().unwrap().starts_with("no `index.html`"));
        project.app_file("dist/index.html", "").unwrap();
        assert!(project.detect::<StaticSite>().unwrap().is_pass());
    }

    #[test]
    fn an_app_of_node_with_a_page_is_no_website_unless_the_user_says_so() {
        let site = |file: &str, text: &str| {
            let project = Project::new().unwrap();
            project.app_file("public/index.html", "").unwrap();
            project.app_file(file, text).unwrap();
            project
        };
        for (file, text, reason) in [
            (
                "package.json",
                r#"{"scripts":{"start":"node ."}}"#,
                "an app of Node.js: `package.json` has a start script",
            ),
            ("package-lock.json", "{}", "an app of Node.js: `package-lock.json`"),
            ("yarn.lock", "", "an app of Node.js: `yarn.lock`"),
        ] {
            let project = site(file, text);
            assert_eq!(project.detect::<StaticSite>().unwrap().reason(), Some(reason));
            let project = project.user_env(site::ROOT_VARIABLE, "public");
            assert!(project.detect::<StaticSite>().unwrap().is_pass(), "{file}");
        }
        for package in [r#"{"scripts":{"build":"tsc"}}"#, r#"{"scripts":["start"]}"#, "{"] {
            assert!(site("package.json", package).detect::<StaticSite>().unwrap().is_pass(), "{package}");
        }
    }

    #[test]
    fn the_server_is_a_layer_and_serves_the_site() {
        let project = project();
        let built = project.build::<StaticSite>().unwrap();
        let program = built.layers[0].path().join("bin/static-web-server");
        assert_eq!(fs::read_to_string(&program).unwrap(), "amd64");
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        let web = &built.processes[0];
        let root = project.path().join("app/public");
        assert_eq!(web.command, [program.to_str().unwrap(), "--root", root.to_str().unwrap()]);
        assert!(web.default);
        let [sbom] = built.layers[0].sboms() else { panic!("one bill of materials") };
        assert!(sbom.content.contains(r#""purl":"pkg:cargo/static-web-server@2.44.1""#));
        assert!(sbom.content.contains(r#"[{"expression":"MIT OR Apache-2.0"}]"#));
    }

    #[test]
    fn a_site_in_the_app_itself_has_the_app_as_its_root() {
        let project = project();
        project.app_file("index.html", "").unwrap();
        let built = project.build::<StaticSite>().unwrap();
        assert_eq!(built.processes[0].command[2], project.path().join("app").to_str().unwrap());
    }

    #[test]
    fn the_layer_is_reused_until_the_program_changes() {
        let project = project();
        let _ = project.build::<StaticSite>().unwrap();
        let again = project.build::<StaticSite>().unwrap();
        assert_eq!(again.layers[0].state(), LayerState::Restored);
        project.buildpack_file("server/linux-amd64/static-web-server", "newer").unwrap();
        assert_eq!(project.build::<StaticSite>().unwrap().layers[0].state(), LayerState::Filled);
    }

    #[test]
    fn an_architecture_without_a_server_is_named() {
        let error = project().arch("riscv64").build::<StaticSite>().unwrap_err();
        assert_eq!((error.fault, error.message.contains("linux/riscv64")), (Fault::Buildpack, true));
    }

    /// The manifest pins the version that the descriptor states.
    #[test]
    fn the_stated_version_is_the_one_that_is_built() {
        assert!(include_str!("../server/Cargo.toml").contains("static-web-server = { version = \"=2.44.1\""));
        assert!(include_str!("../buildpack.toml").contains("version = \"2.44.1\""));
    }
}
