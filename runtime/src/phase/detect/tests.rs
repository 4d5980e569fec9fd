//! Detection with answers that are given.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;
use crate::catalog::{BuildpackKind, Catalog};
use crate::cnb::buildpack_toml::BuildpackDescriptor;
use crate::cnb::extension_toml::ExtensionDescriptor;
use crate::cnb::order::OrderToml;
use crate::executor::{BuildHost, BuildInputs, BuildOutputs};
use crate::tree::Tree;

/// Answers by id: `pass +a -b|…`, `fail`, anything else is an error. Counts the questions.
struct Answering {
    answers: BTreeMap<String, String>,
    asked: Vec<String>,
    at_once: Vec<usize>,
}

impl Executor for Answering {
    fn detect(
        &mut self,
        calls: &[DetectInputs],
        log: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>> {
        self.at_once.push(calls.len());
        let answer = |call: &DetectInputs| {
            let buildpack = call.call.buildpack.clone();
            log.line(&buildpack, "was asked");
            self.asked.push(buildpack.to_string());
            let answer = self.answers.get(buildpack.id.as_str()).map_or("pass", String::as_str);
            match answer.split_once(' ').unwrap_or((answer, "")) {
                ("pass", plan) => Ok(DetectOutputs::Pass(plan.split('|').map(contribution).collect())),
                ("fail", reason) => Ok(DetectOutputs::Fail { reason: reason.to_owned() }),
                (message, _) => Err(GuestFailure::WorkerCrashed { buildpack, how: message.to_owned() }),
            }
        };
        calls.iter().map(answer).collect()
    }

    fn build(&mut self, _: &BuildInputs, _: &mut dyn BuildHost) -> Result<BuildOutputs, GuestFailure> {
        unreachable!("detection does not build")
    }
}

fn contribution(text: &str) -> PlanContribution {
    let names = |sign: char| {
        text.split_whitespace().filter_map(move |word| word.strip_prefix(sign)).map(str::to_owned)
    };
    let requires = names('-')
        .map(|name| crate::cnb::build_plan::Requirement { name, metadata: String::new() })
        .collect();
    PlanContribution { provides: names('+').collect(), requires }
}

/// An order, what its members say, and the rest of a request.
struct Site {
    catalog: Catalog,
    order: String,
    answers: BTreeMap<String, String>,
    api: PlatformApi,
    target: Target,
    stack: Option<String>,
    asked: Vec<String>,
    at_once: Vec<usize>,
    events: Vec<Event>,
}

/// Groups separated by `|`; `?` behind optional members, `.` before extensions' groups.
fn site(groups: &str, answers: &[(&str, &str)]) -> Site {
    let mut site = Site {
        catalog: Catalog::default(),
        order: String::new(),
        answers: answers.iter().map(|(id, answer)| ((*id).to_owned(), (*answer).to_owned())).collect(),
        api: PlatformApi::NEWEST,
        target: Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None },
        stack: None,
        asked: Vec::new(),
        at_once: Vec::new(),
        events: Vec::new(),
    };
    for group in groups.split('|') {
        let (table, group) = match group.trim().strip_prefix('.') {
            Some(group) => ("order-extensions", group),
            None => ("order", group),
        };
        writeln!(site.order, "[[{table}]]").unwrap();
        for name in group.split_whitespace() {
            let id = name.trim_end_matches('?');
            let optional = name.ends_with('?');
            writeln!(site.order, "[[{table}.group]]\nid = \"{id}\"\nversion = \"1\"\noptional = {optional}")
                .unwrap();
            if table == "order" {
                site.add(id, "");
            } else {
                site.add_extension(id, "");
            }
        }
    }
    site
}

impl Site {
    /// Adds a buildpack, or replaces one.
    fn add(&mut self, id: &str, more: &str) {
        let text = format!("api = \"0.12\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n{more}");
        let descriptor = BuildpackDescriptor::parse(&text).unwrap();
        let kind = BuildpackKind::Component { path: PathBuf::new(), digest: String::new() };
        let reference = descriptor.reference.clone();
        self.catalog.add(Buildpack { reference, descriptor, directory: PathBuf::new(), kind }).unwrap();
    }

    fn add_extension(&mut self, id: &str, more: &str) {
        let text = format!("api = \"0.12\"\n[extension]\nid = \"{id}\"\nversion = \"1\"\n{more}");
        let descriptor = ExtensionDescriptor::parse(&text).unwrap();
        let reference = descriptor.reference.clone();
        self.catalog.add_extension(Extension { reference, descriptor, directory: PathBuf::new() });
    }

    fn detect<T>(&mut self, look: impl FnOnce(Result<Detected<'_>, DetectError>) -> T) -> T {
        let OrderToml { order, extensions } = OrderToml::parse(&self.order).unwrap();
        let builder = Builder { catalog: self.catalog.clone(), order, extensions, build_config: None };
        let temp = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::new(temp.path(), Tree::default(), &BTreeMap::new()).unwrap();
        let answers = self.answers.clone();
        let mut executor = Answering { answers, asked: Vec::new(), at_once: Vec::new() };
        let request = DetectRequest {
            api: self.api,
            builder: &builder,
            policy: &Policy::default(),
            limits: &Limits::default(),
            target: &self.target,
            stack: self.stack.as_deref(),
            exec_env: &ExecEnv::default(),
            user_env: &BTreeMap::new(),
        };
        let events = &mut self.events;
        let mut sink = |event| events.push(event);
        let result = detect(&request, &mut workspace, &mut executor, &mut sink);
        (self.asked, self.at_once) = (executor.asked, executor.at_once);
        look(result)
    }

    /// Who builds, or why nobody does: `20` without and `21` with errors.
    fn group(&mut self) -> String {
        self.detect(|result| match result {
            Ok(detected) => {
                let extensions = detected.extensions.iter().map(|one| format!(".{}", one.reference.id));
                let group = detected.group.iter().map(|buildpack| buildpack.reference.id.to_string());
                extensions.chain(group).collect::<Vec<_>>().join(" ")
            }
            Err(DetectError::NobodyTakesPart { with_errors, .. }) => {
                if with_errors { "21" } else { "20" }.to_owned()
            }
            Err(error) => error.to_string(),
        })
    }
}

fn group(groups: &str, answers: &[(&str, &str)]) -> String {
    site(groups, answers).group()
}

#[test]
fn ord_01_the_first_group_that_passes_builds_and_later_ones_are_not_asked() {
    let mut site = site("A B|C D|E", &[("B", "fail no")]);
    assert_eq!(site.group(), "C D");
    assert_eq!(site.asked, ["A@1", "B@1", "C@1", "D@1"]);
}

#[test]
fn ord_05_and_det_09_an_optional_member_may_fail_or_go_wrong() {
    assert_eq!(group("A? B", &[("A", "fail")]), "B");
    assert_eq!(group("A? B", &[("A", "crash")]), "B");
    assert_eq!(group("A B", &[("A", "fail")]), "20");
}

#[test]
fn det_05_members_of_a_group_are_asked_at_once() {
    let mut site = site("A B C|A D E", &[("C", "fail")]);
    assert_eq!(site.group(), "A D E");
    assert_eq!(site.at_once, [3, 2]);
}

#[test]
fn det_06_everybody_is_asked_once_whatever_the_groups() {
    let mut site = site("A B X|A B? Y|B A", &[("X", "fail"), ("Y", "crash")]);
    assert_eq!(site.group(), "B A");
    assert_eq!(site.asked, ["A@1", "B@1", "X@1", "Y@1"]);
}

#[test]
fn det_08_one_buildpack_has_to_pass() {
    assert_eq!(group("A? B?", &[("A", "fail"), ("B", "fail")]), "20");
    assert_eq!(group("A? B?", &[("A", "fail")]), "B");
}

#[test]
fn det_10_somebody_that_went_wrong_anywhere_makes_21_of_20() {
    assert_eq!(group("A|B", &[("A", "fail"), ("B", "fail")]), "20");
    assert_eq!(group("A|B", &[("A", "crash"), ("B", "fail")]), "21");
    assert_eq!(group("A? B", &[("A", "crash"), ("B", "fail")]), "21");
    assert_eq!(group("A? B|C", &[("A", "crash"), ("B", "fail")]), "C");
    // The reference says 20 here, because it was not for A that these groups failed.
    assert_eq!(group("A?", &[("A", "crash")]), "21");
    assert_eq!(group("A? B", &[("A", "crash"), ("B", "pass -x")]), "21");
    assert_eq!(group("A|.X", &[("A", "crash")]), "21");
}

#[test]
fn det_13_the_group_has_those_that_survive_the_plan_in_order() {
    let mut site = site("A? B? C D?", &[("A", "pass +x"), ("B", "fail"), ("D", "pass -y|-z")]);
    site.detect(|result| {
        let detected = result.unwrap();
        let names: Vec<&str> = detected.group.iter().map(|one| one.reference.id.as_str()).collect();
        assert_eq!(names, ["C"]);
        let parts: Vec<(bool, Option<String>)> = detected
            .members
            .iter()
            .map(|member| (member.takes_part(), member.dropped.as_ref().map(ToString::to_string)))
            .collect();
        let requires = "which neither it nor a buildpack after it requires";
        let provides = "which neither it nor a buildpack before it provides";
        assert_eq!(
            parts,
            [
                (false, Some(format!("buildpack `A@1` provides `x`, {requires}"))),
                (false, None),
                (true, None),
                (false, Some(format!("buildpack `D@1` requires `z`, {provides}"))),
            ]
        );
    });
}

#[test]
fn det_14_a_required_member_for_another_target_fails_its_group_and_an_optional_one_is_dropped() {
    let arm = "[[targets]]\nos = \"linux\"\narch = \"arm64\"\n";
    let mut required = site("A B", &[]);
    let mut optional = site("A? B", &[]);
    for site in [&mut required, &mut optional] {
        site.catalog = Catalog::default();
        site.add("A", arm);
        site.add("B", "");
    }
    assert_eq!(required.group(), "21");
    // It is not run, and the others may be.
    assert_eq!(required.asked, ["B@1"]);
    assert_eq!(optional.group(), "B");
    // Before Platform API 0.12 there are no targets.
    required.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(11)).unwrap();
    assert_eq!(required.group(), "A B");
    required.api = PlatformApi::NEWEST;
    required.target.arch = "arm64".into();
    assert_eq!(required.group(), "A B");
}

/// TGT-15, API-19, TGT-07: stacks say it before Platform API 0.12, where the build image has one.
#[test]
fn tgt_15_and_api_19_before_targets_the_stack_of_the_build_image_decides() {
    let stacks = |id: &str| format!("[[stacks]]\nid = \"{id}\"\n");
    let mut site = site("A B|B? C D", &[]);
    site.add("A", &stacks("acme.stack"));
    site.add("B", &(stacks("other") + &stacks("third")));
    site.add("C", &stacks("*"));
    site.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(11)).unwrap();
    // Nothing is known of the build image.
    assert_eq!(site.group(), "A B");
    site.stack = Some("acme.stack".into());
    assert_eq!(site.group(), "C D");
    assert!(!site.asked.contains(&"B@1".to_owned()), "{:?}", site.asked);
    site.stack = Some("third".into());
    assert_eq!(site.group(), "B C D");
    site.order = site.order.split("[[order]]\n").nth(1).map(|group| format!("[[order]]\n{group}")).unwrap();
    assert_eq!(site.group(), "21");
    site.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(12)).unwrap();
    assert_eq!(site.group(), "A B");
}

#[test]
fn tgt_14_a_buildpack_for_windows_is_for_no_linux() {
    let mut site = site("A B?", &[]);
    site.add("B", "[[targets]]\nos = \"windows\"\narch = \"amd64\"\n");
    assert_eq!(site.group(), "A");
    site.add("A", "[[targets]]\nos = \"windows\"\n");
    assert_eq!(site.group(), "21");
}

/// DET-15, EXE-01
#[test]
fn det_15_a_member_for_another_execution_environment_is_skipped_even_when_required() {
    let mut site = site("A B|A", &[("B", "fail")]);
    site.catalog = Catalog::default();
    site.add("A", "exec-env = [\"test\"]\n");
    site.add("B", "");
    // The second group is empty, and fails.
    assert_eq!(site.group(), "20");
    assert_eq!(site.asked, ["B@1"]);
    site.answers.clear();
    assert_eq!(site.group(), "B");
    // Before Platform API 0.15 there are no execution environments.
    site.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(14)).unwrap();
    assert_eq!(site.group(), "A B");
}

#[test]
fn plan_10_a_plan_that_does_not_work_out_fails_the_group_cleanly() {
    assert_eq!(group("A B", &[("B", "pass -x")]), "20");
    assert_eq!(group("A B|A", &[("B", "pass -x")]), "A");
}

#[test]
fn det_11_what_everybody_prints_and_says_is_told() {
    let mut site = site("A B?", &[("B", "fail no Procfile")]);
    site.group();
    let shown: Vec<String> = site
        .events
        .iter()
        .map(|event| match event {
            Event::Output { buildpack, line } => format!("{buildpack} prints {line}"),
            Event::Detected { buildpack, verdict } => format!("{buildpack} {verdict:?}"),
            Event::GroupChosen { buildpacks, considered } => format!("{} of {considered}", buildpacks.len()),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "A@1 prints was asked",
            "B@1 prints was asked",
            "A@1 Pass",
            "B@1 Fail { reason: \"no Procfile\" }",
            "1 of 2"
        ]
    );
}

/// An extension in a directory of its own, with these files.
fn extension(site: &mut Site, id: &str, directory: &std::path::Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut extension = site.catalog.extension(&reference(id)).unwrap().clone();
    extension.directory = directory.to_owned();
    site.catalog.add_extension(extension);
}

fn reference(id: &str) -> BuildpackRef {
    BuildpackRef { id: id.parse().unwrap(), version: "1".parse().unwrap() }
}

const PROVIDES_CURL: (&str, &str) = ("detect/plan.toml", "[[provides]]\nname = \"curl\"\n");

#[test]
fn ext_detect_without_an_executable_is_the_plan_that_lies_there() {
    let temp = tempfile::tempdir().unwrap();
    let mut site = site("A|.X", &[("A", "pass -curl|")]);
    // No plan either: it passes and provides nothing.
    assert_eq!(site.group(), ".X A");
    extension(&mut site, "X", temp.path(), &[PROVIDES_CURL]);
    site.detect(|result| {
        let detected = result.unwrap();
        assert_eq!(detected.extensions.len(), 1);
        let entry = &detected.plan.entries[0];
        assert_eq!((entry.name.as_str(), entry.providers[0].extension), ("curl", true));
    });
    extension(&mut site, "X", temp.path(), &[("detect/plan.toml", "provides = 1\n")]);
    // It went wrong, and is optional.
    assert_eq!(site.group(), "A");
}

#[test]
fn plan_05_an_extension_that_requires_something_went_wrong() {
    let temp = tempfile::tempdir().unwrap();
    let mut site = site("A|.X", &[]);
    let requires = ("detect/plan.toml", "[[or]]\n[[or.requires]]\nname = \"curl\"\n");
    extension(&mut site, "X", temp.path(), &[requires]);
    site.detect(|result| {
        let detected = result.unwrap();
        assert!(detected.extensions.is_empty());
        let Verdict::Error { message } = &detected.members[0].verdict else { panic!("{detected:?}") };
        assert_eq!(message, "its plan requires `curl`, and an image extension can only provide");
    });
}

#[test]
fn ord_09_a_group_without_extensions_is_tried_last() {
    let temp = tempfile::tempdir().unwrap();
    // The plan of `A` works out only with the second group of extensions.
    let mut site = site("A B?|.X|.Y", &[("A", "pass -curl")]);
    extension(&mut site, "Y", temp.path(), &[PROVIDES_CURL]);
    assert_eq!(site.group(), ".Y A B");
    site.answers.insert("A".into(), "pass -nothing".into());
    assert_eq!(site.group(), "20");
    let asked: Vec<&str> = site.asked.iter().map(String::as_str).collect();
    assert_eq!(asked, ["A@1", "B@1"]);
}

#[test]
fn det_08_an_extension_alone_is_no_group() {
    assert_eq!(group("A?|.X", &[("A", "fail")]), "20");
}
