use super::*;
use crate::cnb::id::ExecEnv;
use crate::cnb::order::{OrderGroup, OrderMember};

#[expect(clippy::unnecessary_wraps, reason = "the shape `load` asks for")]
fn digest(_: &Path) -> io::Result<String> {
    Ok("sha256:test".into())
}

fn reference(name: &str) -> BuildpackRef {
    let (id, version) = name.split_once('@').unwrap_or((name, "1"));
    BuildpackRef { id: id.parse().unwrap(), version: version.parse().unwrap() }
}

/// `"A B?"` is one group with an optional member; `|` separates groups.
fn order(text: &str) -> Order {
    let group = |group: &str| OrderGroup {
        members: group
            .split_whitespace()
            .map(|name| OrderMember {
                buildpack: reference(name.trim_end_matches('?')),
                optional: name.ends_with('?'),
                exec_envs: vec![],
            })
            .collect(),
    };
    Order { groups: text.split('|').map(group).collect() }
}

fn buildpack(name: &str, kind: BuildpackKind) -> Buildpack {
    let reference = reference(name);
    let text = format!(
        "api = \"0.10\"\n[buildpack]\nid = \"{}\"\nversion = \"{}\"\n",
        reference.id, reference.version
    );
    let descriptor = BuildpackDescriptor::parse(&text).unwrap();
    Buildpack { reference, descriptor, directory: PathBuf::from(format!("/{name}")), kind }
}

/// Composites as given, and components for all other names.
fn catalog(composites: &[(&str, &str)], components: &str) -> Catalog {
    let mut catalog = Catalog::default();
    for (name, text) in composites {
        catalog.add(buildpack(name, BuildpackKind::Composite(order(text)))).unwrap();
    }
    for name in components.split_whitespace() {
        let kind = BuildpackKind::Component { path: PathBuf::new(), digest: String::new() };
        catalog.add(buildpack(name, kind)).unwrap();
    }
    catalog
}

fn shown(composites: &[(&str, &str)], text: &str) -> Vec<String> {
    shown_with(&catalog(composites, "A B C D E F A@2"), text, "", None)
}

fn shown_with(catalog: &Catalog, text: &str, extensions: &str, exec_env: Option<&str>) -> Vec<String> {
    let extensions = if extensions.is_empty() { Order::default() } else { order(extensions) };
    let builder = Builder { catalog: catalog.clone(), order: order(text), extensions, build_config: None };
    let exec_env: Option<ExecEnv> = exec_env.map(|name| name.parse().unwrap());
    builder
        .groups(exec_env.as_ref())
        .map(|group| match group {
            Err(error) => error.id().to_owned(),
            Ok(members) => members
                .iter()
                .map(|member| {
                    let optional = if member.optional { "?" } else { "" };
                    let plus = if member.module.is_extension() { "+" } else { "" };
                    format!("{plus}{}{optional}", member.module.reference().id)
                })
                .collect::<Vec<_>>()
                .join(" "),
        })
        .collect()
}

#[test]
fn ord_01_groups_keep_their_order() {
    assert_eq!(shown(&[], "B A|A|C?"), ["B A", "A", "C?"]);
}

#[test]
fn ord_02_a_composite_is_replaced_by_each_of_its_groups() {
    assert_eq!(shown(&[("O", "A B|C D")], "E O F"), ["E A B F", "E C D F"]);
}

#[test]
fn ord_03_depth_first_left_to_right() {
    assert_eq!(shown(&[("O", "A|B"), ("P", "C|D")], "O P"), ["A C", "A D", "B C", "B D"]);
    assert_eq!(shown(&[("O", "P|B"), ("P", "C|D")], "O"), ["C", "D", "B"]);
}

#[test]
fn ord_04_an_optional_composite_is_left_out_last() {
    assert_eq!(shown(&[("O", "A|B")], "C O? D"), ["C A D", "C B D", "C D"]);
}

#[test]
fn ord_06_optional_does_not_spread_into_a_composite() {
    assert_eq!(shown(&[("O", "A B?")], "O?"), ["A B?", ""]);
}

#[test]
fn ord_07_the_first_of_one_id_counts_whatever_the_version() {
    assert_eq!(shown(&[("O", "A@2 B")], "A? O"), ["A? B"]);
    assert_eq!(shown(&[], "B A A B"), ["B A"]);
}

#[test]
fn ord_07_a_composite_of_an_id_that_is_there_is_left_out() {
    let mut catalog = catalog(&[("A@3", "B")], "A B");
    let expected = ["A"];
    assert_eq!(shown_with(&catalog, "A@1 A@3", "", None), expected);
    add_extension(&mut catalog, "A", "");
    // An extension may have the id of a buildpack.
    assert_eq!(shown_with(&catalog, "A B", "A?", None), ["+A? A B", "A B"]);
}

fn add_extension(catalog: &mut Catalog, name: &str, more: &str) {
    let reference = reference(name);
    let (id, version) = (&reference.id, &reference.version);
    let text = format!("api = \"0.12\"\n[extension]\nid = \"{id}\"\nversion = \"{version}\"\n{more}");
    let descriptor = ExtensionDescriptor::parse(&text).unwrap();
    catalog.add_extension(Extension { reference, descriptor, directory: PathBuf::new() });
}

#[test]
fn ord_09_each_group_of_extensions_stands_in_front_of_every_group_then_none() {
    let mut catalog = catalog(&[("O", "A|B")], "A B C");
    for name in ["X", "Y", "Z"] {
        add_extension(&mut catalog, name, "");
    }
    assert_eq!(
        shown_with(&catalog, "O C?|C", "X? Y?|Z?", None),
        ["+X? +Y? A C?", "+X? +Y? B C?", "+Z? A C?", "+Z? B C?", "A C?", "B C?", "+X? +Y? C", "+Z? C", "C"]
    );
}

#[test]
fn det_15_members_for_other_execution_environments_are_as_if_not_named() {
    let mut catalog = catalog(&[], "C");
    let mut add = |name: &str, api: &str, list: &str| {
        let reference = reference(name);
        let text = format!(
            "api = \"{api}\"\n[buildpack]\nid = \"{}\"\nversion = \"{}\"\nexec-env = [{list}]\n",
            reference.id, reference.version
        );
        let descriptor = BuildpackDescriptor::parse(&text).unwrap();
        let kind = BuildpackKind::Classic;
        catalog.add(Buildpack { reference, descriptor, directory: PathBuf::new(), kind }).unwrap();
    };
    add("A", "0.12", "\"test\"");
    add("A@2", "0.12", "\"production\"");
    add("B", "0.12", "\"*\"");
    // API-21: it does not know of them.
    add("D", "0.11", "\"test\"");
    add_extension(&mut catalog, "X", "exec-env = [\"test\"]\n");
    let shown = |exec_env| shown_with(&catalog, "A A@2 B C D|A", "X?", exec_env);
    assert_eq!(shown(Some("test")), ["+X? A B C D", "A B C D", "+X? A", "A"]);
    // The second `A` counts where the first is for others.
    assert_eq!(shown(Some("production")), ["A B C D", "A B C D", "", ""]);
    assert_eq!(shown(None), ["+X? A B C D", "A B C D", "+X? A", "A"]);
}

#[test]
fn bpt_05_an_order_restricts_members_to_execution_environments() {
    let catalog = catalog(&[("O", "A")], "A B");
    let mut order = order("O B");
    order.groups[0].members[0].exec_envs = vec!["test".parse().unwrap()];
    let builder = Builder { catalog, order, extensions: Order::default(), build_config: None };
    let members = |exec_env: &str| {
        let exec_env: ExecEnv = exec_env.parse().unwrap();
        builder.groups(Some(&exec_env)).next().unwrap().unwrap().len()
    };
    assert_eq!((members("test"), members("production")), (2, 1));
}

#[test]
fn ord_11_cycles_are_errors_and_repetition_is_none() {
    assert_eq!(shown(&[("O", "P"), ("P", "A|O")], "O"), ["A", "order.cycle"]);
    assert_eq!(shown(&[("O", "O")], "O"), ["order.cycle"]);
    assert_eq!(shown(&[("O", "A")], "O O"), ["A"]);
}

#[test]
fn composites_that_multiply_end_in_an_error() {
    let names: Vec<String> = (0..30).map(|n| format!("X{n}")).collect();
    let composites: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "A|B")).collect();
    let groups = shown(&composites, &names.join(" "));
    assert_eq!(groups.last().unwrap(), "order.too_large");
    let doubling: Vec<(String, String)> =
        (0..40).map(|n| (format!("X{n}"), format!("X{} X{}", n + 1, n + 1))).collect();
    let mut doubling: Vec<(&str, &str)> =
        doubling.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    doubling.push(("X40", "A"));
    // 2^40 members that are all the same: found out, not tried.
    let catalog = catalog(&doubling, "A");
    assert_eq!(shown_with(&catalog, "X0", "", None), ["order.too_large"]);
}

#[test]
fn a_group_of_very_many_members_does_not_overflow_the_stack() {
    let text = "A ".repeat(300_000);
    assert_eq!(shown(&[], &text), ["A"]);
    // Dropped as a whole, without having been looked at.
    let builder = Builder {
        catalog: Catalog::default(),
        order: order(&text),
        extensions: Order::default(),
        build_config: None,
    };
    assert!(builder.groups(None).next().unwrap().is_err());
}

#[test]
fn ord_10_a_missing_buildpack_is_an_error_that_names_the_nearest() {
    let catalog = catalog(&[], "acme/node@1.2.0 acme/node@1.9.0 acme/node@2.0.0");
    let nearest = |name: &str| match catalog.get(&reference(name)) {
        Err(CatalogError::Missing { nearest, .. }) => nearest.map(|nearest| nearest.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(nearest("acme/node@1.8.7").as_deref(), Some("acme/node@1.9.0"));
    assert_eq!(nearest("acme/node@3.0.0").as_deref(), Some("acme/node@2.0.0"));
    assert_eq!(nearest("other/node@1.2.0").as_deref(), Some("acme/node@2.0.0"));
    assert_eq!(nearest("acme/go@1.2.0"), None);
    assert_eq!(catalog.get(&reference("acme/node@1.2.0")).unwrap().reference.version.as_str(), "1.2.0");
}

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

const TOML: &str = "api = \"0.10\"\n[buildpack]\nid = \"acme/node\"\nversion = \"1.2.0\"\n";
const ORDER: &str = "[[order]]\n[[order.group]]\nid = \"acme/node\"\nversion = \"1.2.0\"\n";

#[test]
fn what_the_directory_holds_settles_the_kind() {
    for (files, expected) in [
        (vec![("buildpack.wasm", "")], "component"),
        // BPT-03
        (vec![("buildpack.toml", "+order"), ("buildpack.wasm", ""), ("bin/detect", "")], "composite"),
        (vec![("bin/detect", ""), ("bin/build", "")], "buildpack.classic_unsupported"),
        (vec![("bin/detect", "")], "buildpack.not_a_buildpack"),
        (vec![("buildpack.toml", "api = ")], "buildpack.invalid_toml"),
        (vec![("buildpack.toml", "+api"), ("buildpack.wasm", "")], "buildpack.api_unsupported"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), &[("buildpack.toml", TOML)]);
        let old = TOML.replace("0.10", "0.1");
        let composite = format!("{TOML}{ORDER}");
        let files: Vec<(&str, &str)> = files
            .into_iter()
            .map(|(name, text)| match text {
                "+order" => (name, composite.as_str()),
                "+api" => (name, old.as_str()),
                text => (name, text),
            })
            .collect();
        write(temp.path(), &files);
        let found = match Buildpack::load(temp.path(), &digest) {
            Ok(buildpack) => match buildpack.kind {
                BuildpackKind::Component { digest, .. } => {
                    assert_eq!(digest, "sha256:test");
                    "component"
                }
                BuildpackKind::Composite(_) => "composite",
                BuildpackKind::Classic => "classic",
            },
            Err(error) => error.id(),
        };
        assert_eq!(found, expected, "{files:?}");
    }
}

#[test]
fn a_builder_is_loaded_from_its_directory() {
    let temp = tempfile::tempdir().unwrap();
    write(
        temp.path(),
        &[
            ("order.toml", ORDER),
            ("buildpacks/acme_node/1.2.0/buildpack.toml", TOML),
            ("buildpacks/acme_node/1.2.0/buildpack.wasm", ""),
        ],
    );
    let builder = Builder::load(temp.path(), &digest).unwrap();
    let group = builder.groups(None).next().unwrap().unwrap();
    assert_eq!(group[0].module.reference().to_string(), "acme/node@1.2.0");

    std::fs::rename(
        temp.path().join("buildpacks/acme_node/1.2.0"),
        temp.path().join("buildpacks/acme_node/1.3.0"),
    )
    .unwrap();
    let error = Builder::load(temp.path(), &digest).unwrap_err();
    assert_eq!(error.id(), "builder.misplaced");
    assert!(error.to_string().ends_with("holds buildpack `acme/node@1.2.0`, not `acme_node@1.3.0`"));
}

#[test]
fn ids_that_differ_in_case_only_and_second_directories_are_refused() {
    let mut catalog = catalog(&[], "acme/node");
    let component = || BuildpackKind::Component { path: PathBuf::new(), digest: String::new() };
    assert!(matches!(catalog.add(buildpack("Acme/node", component())), Err(CatalogError::SameId { .. })));
    let mut second = buildpack("acme/node", component());
    second.directory = PathBuf::from("/elsewhere");
    assert!(matches!(catalog.add(second), Err(CatalogError::Duplicate { .. })));
}

#[test]
fn a_builder_with_image_extensions_is_refused_with_its_name() {
    let temp = tempfile::tempdir().unwrap();
    let extensions = ORDER.replace("order", "order-extensions");
    write(temp.path(), &[("order.toml", &format!("{ORDER}{extensions}"))]);
    let error = Builder::load(temp.path(), &digest).unwrap_err();
    assert_eq!(error.id(), "builder.extensions");
    assert!(error.to_string().contains("image extensions"), "{error}");
    write(temp.path(), &[("order.toml", "")]);
    assert_eq!(Builder::load(temp.path(), &digest).unwrap_err().id(), "buildpack.invalid_toml");
}

#[test]
fn bpt_03_a_directory_with_an_order_and_executables_is_a_composite() {
    let temp = tempfile::tempdir().unwrap();
    let text = format!("{TOML}{}", ORDER.replace("acme/node", "acme/other"));
    write(temp.path(), &[("buildpack.toml", &text), ("bin/detect", ""), ("bin/build", "")]);
    let buildpack = Buildpack::load_any(temp.path(), &digest).unwrap();
    assert!(matches!(buildpack.kind, BuildpackKind::Composite(_)));
}

#[test]
fn tgt_06_executables_say_which_system_a_buildpack_is_for() {
    let systems = |files: &[&str]| {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), &[("buildpack.toml", TOML)]);
        for name in files {
            write(temp.path(), &[(name, "")]);
        }
        let targets = Buildpack::load_any(temp.path(), &digest).unwrap().descriptor.targets;
        targets.into_iter().map(|target| target.os).collect::<Vec<_>>()
    };
    assert_eq!(systems(&["bin/build", "bin/detect"]), ["linux"]);
    assert_eq!(systems(&["bin/build.bat"]), ["windows"]);
    assert_eq!(systems(&["bin/build", "bin/build.exe"]), ["linux", "windows"]);
}
