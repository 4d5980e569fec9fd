//! Processes that start `/workspace/show`, and layers that change their
//! environment in every way there is.

use wapack_sdk::{Built, LayerTypes, Operation, Process, Scope, fs};

wapack_test_guests::in_build!(|context| {
    let fill = |directory: &std::path::Path| {
        fs::create_dir(directory.join("bin"))?;
        Ok(fs::write(directory.join("bin/data"), "data\n")?)
    };
    let first = context
        .layer("a", LayerTypes::LAUNCH)
        .key::<&str>(&[])
        .fill(fill)?
        .env(Scope::Launch, "DEFAULT", Operation::Default, "a")
        .env(Scope::Launch, "OVERRIDE", Operation::Override, "a")
        .env(Scope::All, "APPEND", Operation::Append(","), "a")
        .env(Scope::Build, "BUILD_ONLY", Operation::Override, "a")
        .env(Scope::Process("web".into()), "ONLY_WEB", Operation::Override, "a");
    let second = context
        .layer("b", LayerTypes::LAUNCH)
        .key::<&str>(&[])
        .fill(|_| Ok(()))?
        .env(Scope::Launch, "DEFAULT", Operation::Default, "b")
        .env(Scope::Launch, "OVERRIDE", Operation::Override, "b")
        .env(Scope::All, "APPEND", Operation::Append(","), "b");
    Ok(Built::new()
        .layer(first)
        .layer(second)
        .process(Process::new("web", ["/workspace/show", "always"]).args(["usually"]).default())
        .process(Process::new("job", ["./show", "job"]).working_directory("sub")))
});
