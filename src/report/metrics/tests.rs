use super::*;
use crate::github::Counts;
use crate::model::{ClassId, JobId};
use crate::report::status::status;
use crate::world::testkit::*;
use crate::world::{Launch, Subject, TemplateKind};

fn standing(left: Option<(u64, u64)>) -> Standing {
    Standing { left, listings: None, waits: vec![], counts: Counts { sent: 7, unchanged: 3, held_back: 1 } }
}

fn launch(job: u64, class: ClassId) -> Action {
    let name = format!("lxdrunner-{job}-1");
    Action::Launch(Launch { job: Some(JobId(job)), class, scope: acme(), name, from: LaunchSource::Image })
}

#[test]
fn what_is_and_what_was_is_told_in_numbers() {
    let mut stage = Stage::new(config());
    stage.config().classes[0].name = "a \"small\"\\one\n".to_owned();
    let mut counters = Counters::default();
    stage.queued(1);
    stage.queued(2);
    stage.pass(3);
    let failed = || Outcome::LaunchFailed { blame: Subject::Host, reason: "x".to_owned(), made: false, runner: None };
    for outcome in [Outcome::Launched { runner: None }, failed(), failed()] {
        counters.count(&Event::Outcome(launch(1, ClassId(0)), outcome), &stage.world, stage.now);
    }
    // In a cluster a template is an image.
    let recipe = crate::world::recipe_of(&stage.world.config().classes[0], "", "f", "v", TemplateKind::Image);
    let (name, fingerprint) = ("t".to_owned(), "f".to_owned());
    let bake = Action::Bake { class: ClassId(1), name, fingerprint, recipe, form: TemplateKind::Image };
    let published = Outcome::Published { image: "f".to_owned(), left: false };
    counters.count(&Event::Outcome(bake, published), &stage.world, stage.now);
    let remove = || launch(9, ClassId(1));
    counters.count(&Event::Outcome(remove(), Outcome::Removed), &stage.world, stage.now);
    counters.count_notes(&[Note::JobTaken { job: JobId(1), runner: "r".to_owned(), ours: true }]);
    counters.count_notes(&[Note::JobTaken { job: JobId(1), runner: "r".to_owned(), ours: false }]);
    let standings = [("main".to_owned(), standing(Some((4, 5)))), ("other".to_owned(), standing(None))];
    let page = text(&status(&stage.world, stage.now), stage.world.config(), &counters, &standings);
    let class = r#"class="a \"small\"\\one\\n""#;
    for line in [
        format!("lxdrunner_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        "lxdrunner_lxd_up 1".to_owned(),
        "lxdrunner_lxd_look_age_seconds 3".to_owned(),
        "lxdrunner_places 4".to_owned(),
        format!("lxdrunner_jobs{{{class},state=\"queued\"}} 2"),
        "lxdrunner_jobs{class=\"gpu\",state=\"queued\"} 0".to_owned(),
        format!("lxdrunner_oldest_queued_job_seconds{{{class}}} 3"),
        "lxdrunner_class_places{class=\"gpu\"} 2".to_owned(),
        "lxdrunner_instances{class=\"gpu\",state=\"standby\"} 0".to_owned(),
        "lxdrunner_jobs_taken_total 1".to_owned(),
        format!("lxdrunner_made_total{{{class},what=\"runner\",from=\"image\",result=\"failed\"}} 2"),
        format!("lxdrunner_made_total{{{class},what=\"runner\",from=\"image\",result=\"well\"}} 1"),
        "lxdrunner_made_total{class=\"gpu\",what=\"template\",from=\"image\",result=\"well\"} 1".to_owned(),
        "lxdrunner_removals_total{result=\"well\"} 1".to_owned(),
        format!("lxdrunner_start_seconds_bucket{{{class},le=\"2\"}} 0"),
        format!("lxdrunner_start_seconds_bucket{{{class},le=\"5\"}} 1"),
        format!("lxdrunner_start_seconds_bucket{{{class},le=\"+Inf\"}} 1"),
        format!("lxdrunner_start_seconds_sum{{{class}}} 3"),
        "lxdrunner_github_requests_left{credential=\"main\"} 4".to_owned(),
        "lxdrunner_github_requests_unchanged_total{credential=\"other\"} 3".to_owned(),
    ] {
        assert!(page.lines().any(|told| told == line), "no line {line}\n{page}");
    }
    assert!(!page.contains("requests_left{credential=\"other\"}"), "GitHub has not told");
    // Each metric once, with its kind before its values.
    let mut known = std::collections::BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(known.insert(name.to_owned()), "{name} twice");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(known.contains(base) || known.contains(name), "{line}");
        }
    }
}
