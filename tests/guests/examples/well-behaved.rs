//! Uses all of the contract as it is meant to be used, and counts its runs.

use std::collections::BTreeMap;

use wapack_sdk::{
    BuildContext, Buildpack, Built, Contents, DetectContext, Detected, Error, LayerTypes, Operation, Process,
    Requirement, Sbom, Scope, files, fs,
};
use wapack_test_guests::{say, text};

struct WellBehaved;

impl Buildpack for WellBehaved {
    fn detect(context: &DetectContext) -> Result<Detected, Error> {
        if text(context, "DETECT", "pass") == "fail" {
            return Ok(Detected::fail("`DETECT` says so"));
        }
        let wanted = Requirement::new("manners").metadata(&BTreeMap::from([("level", "high")]))?;
        Ok(Detected::pass().provides("manners").requires(wanted).or(Detected::pass()))
    }

    fn build(context: &BuildContext) -> Result<Built, Error> {
        let runs = context.store::<BTreeMap<String, u64>>()?.and_then(|store| store.get("runs").copied());
        // The count is part of the image; without it two builds in a row are equal.
        let runs = if text(context, "COUNT", "yes") == "yes" { runs.unwrap_or(0) + 1 } else { 1 };
        say(format_args!("run {runs}"));

        let key = text(context, "KEY", "1");
        let both = context
            .layer("program", LayerTypes::LAUNCH | LayerTypes::CACHE)
            .key(&[("key", key)])
            .fill(|directory| {
                fs::create_dir(directory.join("bin"))?;
                fs::write(directory.join("bin/program"), key)?;
                files::set_executable(directory.join("bin/program"), true)
            })?;
        let launch = context
            .layer("assets", LayerTypes::LAUNCH)
            .key(&[("key", key)])
            .fill(|directory| Ok(fs::write(directory.join("asset"), key)?))?;
        let cache =
            context.layer("counter", LayerTypes::CACHE).key::<&str>(&[]).update(|directory, contents| {
                let file = directory.join("runs");
                let before =
                    if contents == Contents::Restored { fs::read_to_string(&file)? } else { String::new() };
                Ok(fs::write(file, before + "x")?)
            })?;
        let tools = context.layer("tools", LayerTypes::BUILD).key(&[("key", key)]).fill(|_| Ok(()))?;
        for layer in [&both, &launch, &cache, &tools] {
            say(format_args!("{}: {:?}", layer.name(), layer.state()));
        }
        let program = both.path().join("bin/program").display().to_string();
        Built::new()
            .app_link("linked", &launch, "asset")
            .layer(
                both.env(Scope::Launch, "PATH", Operation::Prepend(":"), "/program/bin")
                    .sbom(Sbom::cyclonedx("{}")),
            )
            .layer(launch.metadata(&BTreeMap::from([("key", key)]))?)
            .layer(cache)
            .layer(tools.env(Scope::Build, "TOOLS", Operation::Default, "yes"))
            .process(Process::new("web", [program]).args(["--polite"]).default())
            .label("well-behaved", "yes")
            .store(&BTreeMap::from([("runs", runs)]))
    }
}

wapack_sdk::export!(WellBehaved);
