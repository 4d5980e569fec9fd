//! The smallest complete buildpack: a file of the app decides, one layer and
//! one process come of it.

use wapack_sdk::{
    BuildContext, Buildpack, Built, DetectContext, Detected, Error, LayerTypes, Process, files, fs,
};

struct Hello;

impl Buildpack for Hello {
    fn detect(context: &DetectContext) -> Result<Detected, Error> {
        if context.app.join("hello.sh").exists() {
            Ok(Detected::pass())
        } else {
            Ok(Detected::fail("no `hello.sh`"))
        }
    }

    fn build(context: &BuildContext) -> Result<Built, Error> {
        let script = fs::read(context.app.join("hello.sh"))?;
        let layer = context
            .layer("hello", LayerTypes::LAUNCH | LayerTypes::CACHE)
            .key(&[("script", &script)])
            .fill(|directory| {
                let program = directory.join("hello");
                fs::write(&program, &script)?;
                files::set_executable(program, true)
            })?;
        let program = layer.path().join("hello").display().to_string();
        Ok(Built::new().layer(layer).process(Process::new("web", [program]).default()))
    }
}

wapack_sdk::export!(Hello);
