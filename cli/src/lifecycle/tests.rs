//! Command lines and what they come to. Expected values are those of the specification's
//! tables and of the reference lifecycle, run beside this one.

use std::collections::BTreeMap;
use std::path::Path;

use wapack_runtime::programs::extender::ExtendKind;

use super::descriptor::VERSION;
use super::inputs::{ImagePlace, Inputs, Task};
use super::program::{Call, Program};
use super::settings::Surroundings;
use super::speech::Speech;
use super::table::FLAGS;
use super::{Prepared, prepare};

/// What a platform might set.
fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let environment: BTreeMap<_, _> =
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Surroundings { environment, working_directory: "/here".into(), user: (1001, 1002) }
}

fn call(line: &str, variables: &[(&str, &str)]) -> Result<Prepared, u8> {
    let call = Call::of(line.split_whitespace().map(Into::into)).expect("a program of the lifecycle");
    let mut speech = Speech::default();
    prepare(&call, &surroundings(variables), &mut speech).map_err(|error| error.code())
}

/// The task of a command line, with a Platform API and further variables.
fn task_with(api: &str, line: &str, variables: &[(&str, &str)]) -> Result<Task, u8> {
    let mut all = vec![("CNB_PLATFORM_API", api)];
    all.extend(variables);
    match call(line, &all)? {
        Prepared::Run { task, .. } => Ok(*task),
        Prepared::Say(text) => panic!("`{line}` says {text}"),
    }
}

fn task(line: &str) -> Task {
    task_with("0.15", line, &[]).unwrap_or_else(|code| panic!("`{line}` ends with {code}"))
}

fn code(api: &str, line: &str) -> Option<u8> {
    task_with(api, line, &[]).err()
}

#[test]
fn help_on_all_programs_needs_no_platform_api() {
    for line in ["lifecycle -h", "wapack lifecycle --help"] {
        let Ok(Prepared::Say(text)) = call(line, &[]) else { panic!("`{line}` says nothing") };
        for program in
            ["analyzer", "detector", "restorer", "extender", "builder", "exporter", "creator", "rebaser"]
        {
            assert!(text.contains(&format!("\n  {program} ")), "{text}");
        }
    }
}

/// The table of flags in the specification: name, and the letters of the programs that
/// have it in the newest Platform API; with `<0.N` or `>=0.N` where it is not in all.
const SPECIFIED: &str = "
    analyzed            A R X E  D>=10 B>=12
    app                 D X B E C
    build-config        D>=11 X>=11 B>=11 C>=11
    build-image         R>=10
    buildpacks          D X B C
    cache-dir           R E C
    cache-image         A R E C
    daemon              A E C S  R>=12
    extended            X>=12 E>=12
    extensions          D>=10
    force               S>=12
    generated           X D>=10 R>=12
    gid                 A R X E C S
    group               D R X B E
    image               E S
    insecure-registry   A>=13 R>=13 E>=13 C>=13 S>=13
    kaniko-cache-ttl    X
    kind                X>=12
    launch-cache        E C A>=9
    launcher            E C
    launcher-sbom       E>=11 C>=11
    layers              A D R X B E C
    layout              A>=12 R>=12 E>=12 C>=12
    layout-dir          A>=12 R>=12 E>=12 C>=12
    log-level           A D R X B E C S
    no-color            A D R X B E C S
    order               D C
    parallel            E C
    plan                D X B
    platform            D X B C
    previous-image      A C S>=11
    process-type        E C
    project-metadata    E C
    report              E C S
    run                 A>=12 D>=12 R>=14 E>=12 C>=12
    run-image           A C S E
    skip-layers         R A>=9
    skip-restore        C
    stack               A<12 E<12 C
    system              D>=15 C>=15
    tag                 A C
    uid                 A R X E C S
    version             A D R X B E C S
";

fn letter(program: Program) -> char {
    match program {
        Program::Analyzer => 'A',
        Program::Detector => 'D',
        Program::Restorer => 'R',
        Program::Extender => 'X',
        Program::Builder => 'B',
        Program::Exporter => 'E',
        Program::Creator => 'C',
        Program::Rebaser => 'S',
    }
}

/// CLI-01, CLI-02
#[test]
fn cli_02_every_program_has_the_flags_of_its_platform_api() {
    let rows: Vec<(&str, Vec<&str>)> = SPECIFIED
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.collect()))
        })
        .collect();
    assert_eq!(rows.len(), FLAGS.len());
    for (name, places) in rows {
        for minor in 7..=15_u64 {
            for program in Program::ALL {
                let has = places.iter().any(|place| {
                    let (who, rule) = place.split_at(1);
                    let bound = |sign| rule.strip_prefix(sign).map(|text| text.parse::<u64>().unwrap());
                    who == letter(program).to_string()
                        && bound(">=").is_none_or(|from| minor >= from)
                        && bound("<").is_none_or(|before| minor < before)
                });
                // Unknown flags are code 2, whatever else is wrong with the line.
                let line = format!("{} -{name}=1h", program.name());
                let switch = format!("{} -{name}=true", program.name());
                let variables = [("CNB_PLATFORM_API", &*format!("0.{minor}"))];
                let refused = [line, switch].iter().all(|line| call(line, &variables).err() == Some(2));
                let number = format!("{} -{name}=1", program.name());
                let refused = refused && call(&number, &variables).err() == Some(2);
                assert_eq!(!refused, has, "-{name} of {} in 0.{minor}", program.name());
            }
        }
    }
}

#[test]
fn cli_05_defaults_are_those_of_the_specification() {
    let Inputs::Detector(detector) = task("detector").inputs else { panic!() };
    let path = Path::new;
    assert_eq!(detector.app, path("/workspace"));
    assert_eq!(detector.analyzed, path("/layers/analyzed.toml"));
    assert_eq!(detector.build_config, path("/cnb/build-config"));
    assert_eq!(detector.buildpacks, path("/cnb/buildpacks"));
    assert_eq!(detector.extensions, path("/cnb/extensions"));
    assert_eq!(detector.generated, path("/layers/generated"));
    assert_eq!(detector.group, path("/layers/group.toml"));
    assert_eq!(detector.layers, path("/layers"));
    assert_eq!(detector.plan, path("/layers/plan.toml"));
    assert_eq!(detector.platform, path("/platform"));
    assert_eq!(detector.run, path("/cnb/run.toml"));
    assert_eq!(detector.system, path("/cnb/system.toml"));
    assert_eq!(detector.exec_env.as_str(), "production");

    let Inputs::Exporter(exporter) = task("exporter image").inputs else { panic!() };
    assert_eq!(exporter.extended, path("/layers/extended"));
    assert_eq!(exporter.launcher, path("/cnb/lifecycle/launcher"));
    assert_eq!(exporter.launcher_sbom, path("/cnb/lifecycle"));
    assert_eq!(exporter.project_metadata, path("/layers/project-metadata.toml"));
    assert_eq!(exporter.report, path("/layers/report.toml"));
    assert_eq!((exporter.cache_dir, exporter.cache_image, exporter.process_type), (None, None, None));
    assert!(!exporter.parallel);

    let Inputs::Extender(extender) = task("extender").inputs else { panic!() };
    assert_eq!(extender.kind, ExtendKind::Build);
    let Inputs::Rebaser(rebaser) = task("rebaser image").inputs else { panic!() };
    assert_eq!(rebaser.report, path("/layers/report.toml"));
    let Inputs::Analyzer(analyzer) = task_with("0.11", "analyzer image", &[]).unwrap().inputs else {
        panic!()
    };
    assert_eq!(analyzer.run, path("/cnb/stack.toml"));
    assert!(!analyzer.skip_layers);
}

#[test]
fn cli_05_defaults_follow_the_layers_directory_that_is_given() {
    let variables = [("CNB_LAYERS_DIR", "/from/environment"), ("CNB_PLAN_PATH", "plan")];
    let line = "detector -layers given/../layers -group group.toml";
    let Inputs::Detector(inputs) = task_with("0.15", line, &variables).unwrap().inputs else { panic!() };
    assert_eq!(inputs.layers, Path::new("/here/layers"));
    assert_eq!(inputs.analyzed, Path::new("/here/layers/analyzed.toml"));
    assert_eq!(inputs.generated, Path::new("/here/layers/generated"));
    assert_eq!(inputs.group, Path::new("/here/group.toml"));
    assert_eq!(inputs.plan, Path::new("/here/plan"));
    let Inputs::Detector(inputs) = task_with("0.15", "detector", &variables).unwrap().inputs else {
        panic!()
    };
    assert_eq!(inputs.group, Path::new("/from/environment/group.toml"));
}

/// ORD-15: the detector looks for it; a flag or a variable is taken as it is.
#[test]
fn ord_15_an_order_that_is_named_is_the_one() {
    let order = |line: &str, variables: &[(&str, &str)]| match task_with("0.15", line, variables) {
        Ok(Task { inputs: Inputs::Detector(inputs), .. }) => inputs.order,
        _ => panic!(),
    };
    assert_eq!(order("detector", &[]), None);
    assert_eq!(order("detector -order o.toml", &[]).unwrap(), Path::new("/here/o.toml"));
    let variables = [("CNB_ORDER_PATH", "/env.toml")];
    assert_eq!(order("detector", &variables).unwrap(), Path::new("/env.toml"));
    assert_eq!(order("detector -order /flag.toml", &variables).unwrap(), Path::new("/flag.toml"));
    assert_eq!(order("detector -order=", &variables), None);
}

#[test]
fn cli_03_a_flag_beats_the_environment_and_that_the_default() {
    let app =
        |line: &str, value: &str| match task_with("0.12", line, &[("CNB_APP_DIR", value)]).unwrap().inputs {
            Inputs::Builder(inputs) => inputs.app,
            _ => panic!(),
        };
    assert_eq!(app("builder -app /flag", "/env"), Path::new("/flag"));
    assert_eq!(app("builder", "/env"), Path::new("/env"));
    assert_eq!(app("builder", ""), Path::new("/workspace"));
    let daemon = |line: &str, value: &str| {
        task_with("0.12", line, &[("CNB_USE_DAEMON", value)]).unwrap().images == ImagePlace::Daemon
    };
    for yes in ["1", "t", "T", "TRUE", "true", "True"] {
        assert!(daemon("analyzer image", yes), "{yes}");
        assert!(!daemon("analyzer -daemon=false image", yes), "{yes}");
    }
    for no in ["0", "f", "F", "FALSE", "false", "False", "yes", "on", ""] {
        assert!(!daemon("analyzer image", no), "{no}");
        assert!(daemon("analyzer -daemon image", no), "{no}");
    }
}

#[test]
fn cli_04_tags_and_insecure_registries_are_lists() {
    let Inputs::Analyzer(inputs) = task("analyzer -tag a -tag=b -tag a image").inputs else { panic!() };
    assert_eq!((inputs.image.as_str(), inputs.tags), ("image", vec!["a".to_owned(), "b".to_owned()]));
    let insecure = |line: &str| {
        let variables = [("CNB_INSECURE_REGISTRIES", "one:5000,two")];
        task_with("0.13", line, &variables).unwrap().insecure
    };
    assert_eq!(insecure("exporter image"), ["one:5000", "two"]);
    assert_eq!(insecure("exporter -insecure-registry=x -insecure-registry y image"), ["x", "y"]);
    // Cache images are in registries, wherever the others are.
    assert_eq!(insecure("exporter -daemon -cache-image c image"), ["one:5000", "two"]);
}

/// CLI-14, API-03
#[test]
fn cli_14_command_lines_that_make_no_sense_have_the_codes_of_the_reference() {
    for (line, expected) in [
        ("analyzer", Some(3)),
        ("analyzer image", None),
        ("analyzer image other", Some(3)),
        ("analyzer -x image", Some(2)),
        ("analyzer -daemon=maybe image", Some(2)),
        ("analyzer -uid x image", Some(2)),
        ("analyzer -uid 0x3e8 image", None),
        ("analyzer -uid -1 image", Some(3)),
        ("analyzer -layers", Some(2)),
        ("analyzer ---layers x image", Some(2)),
        ("analyzer Image", Some(3)),
        ("analyzer -tag registry.example/a image", Some(3)),
        ("analyzer -daemon -tag registry.example/a image", None),
        ("analyzer -previous-image .. image", Some(3)),
        ("analyzer -log-level loud image", Some(1)),
        ("analyzer -layout -layout-dir x image", Some(1)),
        ("detector extra", Some(3)),
        ("detector -uid 1", Some(2)),
        ("restorer extra", Some(3)),
        ("restorer -build-image ..", Some(3)),
        ("extender extra", Some(3)),
        ("extender -kind neither", Some(3)),
        ("extender -kaniko-cache-ttl soon", Some(2)),
        ("builder extra", Some(3)),
        ("exporter", Some(3)),
        ("exporter image other", None),
        ("exporter -run-image x image", Some(3)),
        ("exporter -image x image", Some(3)),
        ("creator", Some(3)),
        ("creator image other", Some(3)),
        ("rebaser", Some(3)),
        ("rebaser -run-image x -image y image", Some(3)),
        ("rebaser -layers x image", Some(2)),
        ("lifecycle", Some(3)),
        ("lifecycle launch", Some(3)),
        ("lifecycle detect extra", Some(3)),
        ("lifecycle detect", None),
        ("wapack lifecycle analyze image", None),
    ] {
        assert_eq!(code("0.15", line), expected, "{line}");
    }
}

#[test]
fn api_03_and_04_the_platform_api_comes_before_flags() {
    for line in ["analyzer -x", "detector -version", "lifecycle detect -x", "lifecycle launch"] {
        assert_eq!(call(line, &[]).err(), Some(11), "{line}");
        assert_eq!(call(line, &[("CNB_PLATFORM_API", "0.99")]).err(), Some(11), "{line}");
    }
    // What is asked of `lifecycle` alone needs none.
    assert_eq!(call("lifecycle", &[]).err(), Some(3));
    for line in ["lifecycle -version", "wapack lifecycle --version"] {
        assert!(matches!(call(line, &[]), Ok(Prepared::Say(text)) if text == VERSION));
    }
}

#[test]
fn cli_07_the_version_is_said_before_arguments_are_looked_at() {
    let api = [("CNB_PLATFORM_API", "0.7")];
    for line in
        ["analyzer -version", "detector --version extra", "lifecycle build -version", "creator -version=true"]
    {
        assert!(matches!(call(line, &api), Ok(Prepared::Say(text)) if text == VERSION), "{line}");
    }
    assert_eq!(call("analyzer -version=false", &api).err(), Some(3));
    assert!(matches!(call("detector -h", &api), Ok(Prepared::Say(text)) if text.contains("-order")));
}

#[test]
fn rbs_18_only_one_name_of_the_run_image() {
    let run_image =
        |line: &str| match task_with("0.15", line, &[("CNB_RUN_IMAGE", "env")]).map(|task| task.inputs) {
            Ok(Inputs::Rebaser(inputs)) => Ok(inputs.run_image.unwrap()),
            Ok(_) => panic!(),
            Err(code) => Err(code),
        };
    assert_eq!(run_image("rebaser image"), Ok("env".to_owned()));
    assert_eq!(run_image("rebaser -image old image"), Ok("old".to_owned()));
    assert_eq!(run_image("rebaser -run-image new image"), Ok("new".to_owned()));
    assert_eq!(run_image("rebaser -run-image new -image old image"), Err(3));
    assert_eq!(run_image("rebaser"), Err(3));
}

/// The variable may be set for the analyzer; only the flags are refused, whatever they say.
#[test]
fn qrk_29_the_exporter_takes_its_run_image_from_analyzed_toml() {
    let run = |line| task_with("0.12", line, &[("CNB_RUN_IMAGE", "env")]).err();
    assert_eq!(run("exporter image"), None);
    assert_eq!(run("exporter -run-image env image"), Some(3));
    assert_eq!(run("exporter -run-image other image"), Some(3));
}

#[test]
fn ana_01_images_are_names_in_one_registry() {
    assert_eq!(code("0.12", "analyzer -tag reg.example/a:1 reg.example/b"), None);
    assert_eq!(code("0.12", "analyzer -tag other.example/a:1 reg.example/b"), Some(3));
    assert_eq!(code("0.12", "creator -tag other.example/a:1 reg.example/b"), Some(3));
    assert_eq!(code("0.12", "exporter other.example/a:1 reg.example/b"), Some(3));
    assert_eq!(code("0.12", "rebaser docker.io/a index.docker.io/b c"), None);
    assert_eq!(code("0.12", "creator -daemon -tag other.example/a:1 reg.example/b"), None);
    assert_eq!(code("0.12", "analyzer -daemon -tag Bad reg.example/b"), Some(3));
}

/// RPT-05, CLI-10
#[test]
fn rpt_05_layouts_are_experimental() {
    for program in ["analyzer", "exporter", "creator"] {
        let line = format!("{program} -layout -layout-dir images image");
        let run = |mode: &str| task_with("0.12", &line, &[("CNB_EXPERIMENTAL_MODE", mode)]);
        assert_eq!(run("").err(), Some(1));
        assert_eq!(run("error").err(), Some(1));
        assert_eq!(run("quiet").unwrap().images, ImagePlace::Layout("/here/images".into()));
        let is_warning = |text: &String| text.contains("experimental feature");
        assert!(!run("silent").unwrap().warnings.iter().any(is_warning));
        assert!(run("warn").unwrap().warnings.iter().any(is_warning));
    }
    let variables = [("CNB_EXPERIMENTAL_MODE", "warn")];
    assert_eq!(task_with("0.12", "exporter -layout image", &variables).err(), Some(3));
    assert_eq!(task_with("0.11", "exporter -layout image", &variables).err(), Some(2));
}

#[test]
fn cli_11_ids_are_of_the_user_the_program_becomes() {
    let variables = [("CNB_USER_ID", "1234"), ("CNB_GROUP_ID", "5678")];
    let task = task_with("0.12", "exporter -cache-dir c image", &variables).unwrap();
    assert_eq!(task.user, Some((1234, 5678)));
    assert_eq!(task.volumes, [Path::new("/here/c")]);
    let Inputs::Exporter(inputs) = task.inputs else { panic!() };
    assert_eq!(inputs.owner, (1234, 5678));
    let task = task_with("0.12", "creator -uid 7 -layers l -cache-dir c image", &variables).unwrap();
    assert_eq!((task.user, task.volumes.len()), (Some((7, 5678)), 2));
    assert_eq!(task_with("0.12", "exporter image", &[("CNB_USER_ID", "x")]).err(), Some(3));
    // Nobody says who: the image has the ids of this process, and nobody changes.
    let task = task_with("0.12", "exporter image", &[]).unwrap();
    let Inputs::Exporter(inputs) = &task.inputs else { panic!() };
    assert_eq!((task.user, inputs.owner), (None, (1001, 1002)));
}

/// CRE-03, CRE-04
#[test]
fn cre_03_and_04_the_creator_hands_its_flags_to_the_phases() {
    let line = "creator -skip-restore -tag other -cache-dir c -process-type web -run-image run image";
    let Inputs::Creator(inputs) = task_with("0.9", line, &[]).unwrap().inputs else { panic!() };
    assert!(inputs.analyzer.skip_layers && inputs.restorer.skip_layers);
    assert_eq!(inputs.exporter.images, ["image", "other"]);
    assert_eq!(inputs.analyzer.tags, ["other"]);
    assert_eq!(inputs.analyzer.run_image.as_deref(), Some("run"));
    assert_eq!(inputs.restorer.cache_dir.as_deref(), Some(Path::new("/here/c")));
    assert_eq!(inputs.exporter.process_type.as_deref(), Some("web"));
    let group = Path::new("/layers/group.toml");
    assert_eq!([&*inputs.detector.group, &inputs.builder.group, &inputs.exporter.group], [group; 3]);
    let Inputs::Creator(inputs) = task("creator image").inputs else { panic!() };
    assert!(!inputs.analyzer.skip_layers && !inputs.restorer.skip_layers);
}

#[test]
fn env_29_the_execution_environment_is_the_platforms_or_production() {
    let exec_env = |api, value| match task_with(api, "builder", &[("CNB_EXEC_ENV", value)]) {
        Ok(Task { inputs: Inputs::Builder(inputs), .. }) => Ok(inputs.exec_env.as_str().to_owned()),
        Ok(_) => panic!(),
        Err(code) => Err(code),
    };
    assert_eq!(exec_env("0.15", "test"), Ok("test".to_owned()));
    // Buildpacks are told, as by the reference.
    assert_eq!(exec_env("0.14", "test"), Ok("test".to_owned()));
    assert_eq!(exec_env("0.15", ""), Ok("production".to_owned()));
    for bad in ["a b", "a/b", "/"] {
        assert_eq!(exec_env("0.15", bad), Err(3), "{bad}");
    }
    let unset = task_with("0.15", "builder", &[]).unwrap().inputs;
    assert!(matches!(unset, Inputs::Builder(inputs) if inputs.exec_env.as_str() == "production"));
}

/// CAC-10
#[test]
fn what_a_platform_might_not_have_meant_is_warned_of() {
    let warned = |line: &str, part: &str| task(line).warnings.iter().any(|text| text.contains(part));
    for line in ["restorer", "exporter image", "creator image"] {
        assert!(warned(line, "no cache specified"), "{line}");
    }
    assert!(!warned("restorer -cache-dir c", "no cache specified"));
    assert!(warned("exporter image", "no cache specified"));
    assert!(warned("creator image", "no cache specified"));
    assert!(warned("exporter -launch-cache l image", "Ignoring -launch-cache"));
    assert!(!warned("exporter -daemon -launch-cache l image", "Ignoring -launch-cache"));
    assert!(warned("exporter -parallel image", "Parallel export"));
}

/// I8: flags stand before names, and no name looks like one.
#[test]
fn i8_a_flag_behind_a_name_is_refused() {
    assert_eq!(code("0.15", "exporter image -daemon"), Some(3));
    assert_eq!(code("0.15", "exporter -daemon image"), None);
    assert_eq!(code("0.15", "analyzer -- -daemon"), Some(3));
}
