//! How events change what we know: late, repeated, reordered and contradicting ones.

use super::testkit::*;
use super::*;
use crate::config::{Class, Config};
use crate::identity::Maker;
use crate::model::{InstanceStatus, JobStatus, Labels, RunOrigin};
use crate::plan::Reason;

#[test]
fn a_job_goes_to_the_class_with_the_fewest_surplus_labels() {
    let classes: Vec<Class> =
        vec![class("big", &["gpu", "cuda"], 1), class("gpu", &["gpu"], 1), class("plain", &[], 1)];
    #[track_caller]
    fn check(classes: &[Class], labels: &[&str], expected: Result<&str, Refusal>) {
        let found = class_for(classes, &labels.iter().collect::<Labels>(), &"acme/app".parse().unwrap());
        assert_eq!(found.map(|id| classes[id.0].name.as_str()), expected);
    }
    check(&classes, &["self-hosted"], Ok("plain"));
    check(&classes, &["GPU"], Ok("gpu"));
    check(&classes, &["cuda", "linux", "X64"], Ok("big"));
    let nearest =
        |name: &str, lacks: &str| Refusal::NoClass { nearest: Some((name.to_owned(), [lacks].iter().collect())) };
    check(&classes, &["self-hosted", "arm64"], Err(nearest("big", "arm64")));
    check(&classes, &["ubuntu-latest"], Err(nearest("big", "ubuntu-latest")));
    check(&classes, &[], Err(Refusal::GroupOnly { classes: 0 }));
    let grouped = |name: &str| Class { runner_group: "builders".to_owned(), ..class(name, &[name], 1) };
    check(&[class("plain", &[], 1), grouped("a")], &[], Ok("a"));
    check(&[grouped("a"), grouped("b")], &[], Err(Refusal::GroupOnly { classes: 2 }));
    check(&[], &["x"], Err(Refusal::NoClass { nearest: None }));
    let twins = vec![class("first", &["a"], 1), class("second", &["b"], 1)];
    check(&twins, &["linux"], Ok("first"));
}

#[test]
fn a_scope_is_the_nearest_target() {
    let targets: Vec<Scope> =
        ["enterprise:big", "org:acme", "repo:acme/special"].iter().map(|t| t.parse().unwrap()).collect();
    #[track_caller]
    fn check(targets: &[Scope], repo: &str, expected: Option<&str>) {
        let found = scope_for(targets, &repo.parse().unwrap());
        assert_eq!(found.map(|s| s.to_string()).as_deref(), expected, "{repo}");
    }
    check(&targets, "acme/special", Some("repo:acme/special"));
    check(&targets, "ACME/Special", Some("repo:acme/special"));
    check(&targets, "Acme/app", Some("org:acme"));
    check(&targets, "other/app", Some("enterprise:big"));
    check(&targets[1..], "other/app", None);
}

#[test]
fn what_is_refused_has_its_reason() {
    let stage = || Stage::new(config());
    #[track_caller]
    fn check(mut stage: Stage, job: Job, expected: Refusal) {
        let id = job.id.0;
        stage.fold(Event::Hint(Hint::Job(job)));
        assert_eq!(stage.reason(id), Some(Reason::Refused(expected)));
        assert_eq!(stage.launches(), Vec::<String>::new());
    }
    check(stage(), Job { public: Some(true), ..job(1, "acme/app", &["linux"]) }, Refusal::PublicRepo);
    check(stage(), Job { public: None, ..job(1, "acme/app", &["linux"]) }, Refusal::VisibilityUnknown);
    check(stage(), job(1, "other/app", &["linux"]), Refusal::NotATarget);
    check(stage(), job(1, "alice/secret", &["linux"]), Refusal::NotATarget);
    check(stage(), job(1, "acme/app", &[]), Refusal::GroupOnly { classes: 0 });
    let unknown = || Stage::new(Config { targets: vec![], ..config() });
    check(unknown(), job(1, "acme/app", &["linux"]), Refusal::TargetsUnknown);
}

#[test]
fn targets_that_become_known_free_the_jobs_that_waited_for_them() {
    let mut stage = Stage::new(Config { targets: vec![], ..config() });
    stage.queued(1);
    assert_eq!(stage.launches(), Vec::<String>::new());
    let targets = Some(Ok(vec![acme()]));
    stage.github(GitHubSeen { targets, ..GitHubSeen::default() });
    stage.fold(Event::Outcome(
        Action::FetchPackage { arch: RunnerArch::X64, scope: acme() },
        Outcome::PackageReady { version: "2".to_owned(), life: Default::default() },
    ));
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
}

#[test]
fn deliveries_may_come_late_twice_and_in_any_order() {
    use JobStatus::*;
    // What was told, in this order, and whether the job is still to be launched for.
    #[track_caller]
    fn check(story: &[(JobStatus, Option<&str>)], launched: bool) {
        let mut stage = Stage::new(config());
        for (status, runner) in story {
            stage.told(1, *status, *runner);
        }
        assert_eq!(!stage.launches().is_empty(), launched, "{story:?}");
    }
    check(&[(Queued, None)], true);
    check(&[(Queued, None), (Queued, None)], true);
    check(&[(Queued, None), (InProgress, Some("r"))], false);
    check(&[(InProgress, Some("r")), (Queued, None)], false);
    check(&[(Completed, None), (Queued, None)], false);
    check(&[(Completed, Some("r")), (InProgress, Some("r")), (Queued, None)], false);
    check(&[(Queued, None), (Completed, None), (Queued, None)], false);
    check(&[(Waiting, None)], false);
    check(&[(Waiting, None), (Queued, None)], true);
}

#[test]
fn a_snapshot_does_not_touch_what_is_newer_than_itself() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let begun = stage.world.seq();
    let names = stage.launch_all();
    assert_eq!(names, ["lxdrunner-1-1"]);
    // A look that was begun before the launch ended does not know the instance.
    stage.snapshot(begun, Some(vec![]), None);
    assert_eq!(stage.world.instances().count(), 1);
    let notes = stage.lxd(vec![]);
    assert_eq!(stage.world.instances().count(), 0);
    assert!(matches!(notes[..], [Note::InstanceGone { took_job: TookJob::Unknown, .. }]), "{notes:?}");
}

#[test]
fn a_failed_listing_takes_nothing_away() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    let notes = stage.snapshot(stage.world.seq(), None, None);
    assert!(matches!(notes[..], [Note::Trouble { .. }]), "{notes:?}");
    assert_eq!(stage.world.instances().count(), 1);
    assert!(stage.world.lxd_health(stage.now).is_err());
    assert_eq!(stage.snapshot(stage.world.seq(), None, None), [], "told once");
    let failed = GitHubSeen { runners: vec![(acme(), Err("502".to_owned()))], ..GitHubSeen::default() };
    stage.told(1, JobStatus::InProgress, Some("lxdrunner-1-1"));
    stage.pass(3600).github(failed);
    assert_eq!(stage.removals(), []);
}

#[test]
fn a_runner_that_took_another_job_is_no_failure() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.queued(2);
    stage.told(2, JobStatus::InProgress, Some("lxdrunner-1-1"));
    // Job 1 still waits, and its own instance is taken: it gets a second.
    assert_eq!(stage.launch_all(), ["lxdrunner-1-2"]);
    stage.told(2, JobStatus::Completed, Some("lxdrunner-1-1"));
    stage.lxd(vec![InstanceSeen { job: Some(JobId(1)), ..seen("lxdrunner-1-2", 1) }]);
    assert_eq!(stage.reason(1), Some(Reason::Covered));
}

#[test]
fn failures_pause_their_own_door_only_and_are_told_once() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.fold(Event::Hint(Hint::Job(job(2, "acme/app", &["gpu"]))));
    let actions = stage.dispatch();
    let of = |n: u64| {
        actions
            .iter()
            .find(|a| matches!(a, Action::Launch(Launch { job: Some(job), .. }) if job.0 == n))
            .unwrap()
            .clone()
    };
    let failed = |reason: &str| Outcome::LaunchFailed {
        blame: Subject::Class("gpu".to_owned()),
        reason: reason.to_owned(),
        made: false,
        runner: None,
    };
    let notes = stage.outcome(of(2), failed("no such image"));
    assert!(matches!(notes[..], [Note::LaunchFailed { news: true, .. }]));
    stage.outcome(of(1), Outcome::Launched { runner: Some(RunnerId(1)) });
    assert!(matches!(stage.reason(2), Some(Reason::Paused { .. })));
    stage.queued(3);
    assert_eq!(stage.launches(), ["lxdrunner-3-1"], "the other class goes on");
    stage.pass(2);
    let again = stage
        .dispatch()
        .into_iter()
        .find(|a| matches!(a, Action::Launch(Launch { job: Some(job), .. }) if job.0 == 2))
        .unwrap();
    let notes = stage.outcome(again, failed("no such image"));
    assert!(matches!(notes[..], [Note::LaunchFailed { news: false, .. }]), "{notes:?}");
    let Some(Reason::Paused { until, .. }) = stage.reason(2) else { panic!() };
    assert_eq!(until.since(stage.now).as_secs(), 4);
    // What a script printed differs in its times each time, and is told again where it differs otherwise.
    for (reason, is_news) in [
        ("code 1:\n12:00:01 no route", true),
        ("code 1:\n12:00:31 no route", false),
        ("code 1:\n12:01:31 no disk", true),
        ("code 2:\n12:02:31 no disk", true),
    ] {
        stage.pass(61);
        stage.queued(2);
        let notes = stage.outcome(of(2), failed(reason));
        assert!(matches!(notes[..], [Note::LaunchFailed { news, .. }] if news == is_news), "{reason}: {notes:?}");
    }
}

#[test]
fn a_clash_stands_back_and_the_name_is_not_tried_again() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    stage.outcome(launch, Outcome::Clash { reason: "409".to_owned() });
    assert!(matches!(stage.reason(1), Some(Reason::HeldBack { hold: Hold::NameTaken, .. })));
    assert!(stage.pass(6).plan().look_at_github, "whoever has it is looked for");
    stage.pass(60);
    assert_eq!(stage.launches(), ["lxdrunner-1-2"]);
}

#[test]
fn a_check_run_is_looked_up_once_and_then_a_job_like_any_other() {
    let mut stage = Stage::new(config());
    let repo: RepoName = "acme/app".parse().unwrap();
    let check_run =
        || Event::Hint(Hint::CheckRun { repo: repo.clone(), public: Some(false), job: JobId(1), completed: false });
    stage.fold(check_run());
    stage.fold(check_run());
    let actions = stage.dispatch();
    assert_eq!(actions, [Action::LookUpJob { repo: repo.clone(), public: Some(false), job: JobId(1) }]);
    assert_eq!(stage.dispatch(), []);
    let found = Outcome::JobFound(Some(Box::new(job(1, "acme/app", &["gpu"]))));
    stage.outcome(actions[0].clone(), found);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
    stage.fold(check_run());
    assert!(stage.launches() == ["lxdrunner-1-1"] && stage.plan().actions.len() == 1);
    stage.fold(Event::Hint(Hint::CheckRun {
        repo: "other/app".parse().unwrap(),
        public: None,
        job: JobId(9),
        completed: false,
    }));
    assert_eq!(stage.plan().actions.len(), 1, "what is not a target is not asked about");
}

#[test]
fn a_listing_that_was_overtaken_brings_nothing_back() {
    let mut stage = Stage::new(config());
    stage.lxd(vec![seen("lxdrunner-1-1", 1)]);
    // A look at GitHub begins; it lists LXD first and then takes long.
    let slow = stage.world.seq();
    stage.pass(1).lxd(vec![seen("lxdrunner-1-1", 1)]);
    stage.pass(1).lxd(vec![]);
    let notes = stage.snapshot(slow, Some(vec![seen("lxdrunner-1-1", 1)]), Some(GitHubSeen::default()));
    assert_eq!((notes, stage.world.instances().count()), (vec![], 0));
    // A removal ends while LXD is listed.
    stage.lxd(vec![InstanceSeen { status: InstanceStatus::Stopped, ..seen("lxdrunner-2-1", 2) }]);
    stage.pass(5);
    let removal = stage.dispatch().into_iter().find(|a| matches!(a, Action::Remove { .. })).unwrap();
    let begun = stage.world.seq();
    stage.outcome(removal, Outcome::Removed);
    stage.snapshot(begun, Some(vec![seen("lxdrunner-2-1", 2)]), None);
    assert_eq!(stage.world.instances().count(), 0);
}

#[test]
fn a_runner_that_took_its_job_is_never_idle_again() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.told(1, JobStatus::InProgress, Some("lxdrunner-1-1"));
    stage.queued(2);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    assert_eq!(stage.launches(), ["lxdrunner-2-1"], "GitHub calls it idle, but a job waits");
    stage.pass(3600).runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    assert_eq!(stage.removals(), []);
    stage.runners(acme(), vec![]);
    stage.pass(61);
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::Finished)]);
}

#[test]
fn an_instance_is_no_older_than_we_can_have_missed_it() {
    #[track_caller]
    fn check(created: u64, removed: bool) {
        let mut stage = Stage::new(config());
        stage.pass(60).lxd(vec![InstanceSeen { created_at: Some(Timestamp(created)), ..seen("lxdrunner-1-1", 1) }]);
        stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, true)]);
        assert_eq!(!stage.removals().is_empty(), removed, "LXD's clock was wrong");
        stage.pass(24 * 3600 + 1);
        assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::TooOld)]);
    }
    check(1, false);
    check(u64::MAX / 2, false);
}

#[test]
fn a_runner_may_have_its_job_before_we_know_of_it() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    stage.told(1, JobStatus::InProgress, Some("lxdrunner-1-1"));
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    stage.queued(2);
    assert_eq!(stage.launches(), ["lxdrunner-2-1"]);
    // The same for one that a listing tells of.
    stage.told(7, JobStatus::InProgress, Some("lxdrunner-7-1"));
    stage.lxd(vec![seen("lxdrunner-7-1", 7)]);
    assert_eq!(stage.launches(), ["lxdrunner-2-1"]);
}

#[test]
fn who_ran_a_job_is_told_where_its_end_is_all_that_is_heard_of_it() {
    #[track_caller]
    fn check(story: &[(JobStatus, Option<&str>)], told: &[&str]) {
        for launch_is_reported in [true, false] {
            check_story(story, told, launch_is_reported);
        }
    }
    #[track_caller]
    fn check_story(story: &[(JobStatus, Option<&str>)], told: &[&str], launch_is_reported: bool) {
        let mut stage = Stage::new(config());
        stage.queued(1);
        match launch_is_reported {
            true => drop(stage.launch_all()),
            false => drop(stage.dispatch()),
        }
        let notes = story.iter().flat_map(|(status, runner)| stage.told(1, *status, *runner));
        let words = notes.filter_map(|note| match note {
            Note::JobTaken { ours, .. } => Some(if ours { "runs" } else { "taken" }),
            Note::JobOver { ours, .. } => Some(if ours { "over" } else { "over, without us" }),
            _ => None,
        });
        assert_eq!(words.collect::<Vec<_>>(), told);
    }
    use JobStatus::{Completed, InProgress};
    let (ours, theirs) = (Some("lxdrunner-1-1"), Some("somebody"));
    check(&[(InProgress, ours), (Completed, ours)], &["runs", "over"]);
    check(&[(Completed, ours), (InProgress, ours)], &["runs", "over"]);
    check(&[(InProgress, theirs), (Completed, theirs)], &["taken", "over, without us"]);
    check(&[(Completed, theirs)], &["over, without us"]);
    check(&[(Completed, None)], &["over, without us"]);
}

#[test]
fn late_deliveries_about_a_runner_do_not_meet_another_of_its_name() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.told(2, JobStatus::Completed, Some("lxdrunner-1-1"));
    stage.lxd(vec![]);
    assert_eq!(stage.launch_all(), ["lxdrunner-1-2"]);
    stage.told(2, JobStatus::Completed, Some("lxdrunner-1-1"));
    assert_eq!(stage.reason(1), Some(Reason::Covered));
}

#[test]
fn what_was_listed_before_a_launch_took_its_name_is_not_what_was_launched() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    // Another daemon's, which ended while the launch was under way.
    let before = InstanceSeen { created_at: Some(Timestamp(1)), maker: Maker::Unknown, ..seen("lxdrunner-1-1", 7) };
    stage.lxd(vec![before]);
    let (status, name) = (JobStatus::InProgress, Some("lxdrunner-1-1".to_owned()));
    let theirs = job(7, "acme/app", &["linux"]);
    stage.fold(Event::Hint(Hint::Job(Job { status, runner_name: name, runner_id: Some(RunnerId(7)), ..theirs })));
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    let ours = InstanceSeen { created_at: Some(Timestamp(2)), maker: Maker::Us, ..seen("lxdrunner-1-1", 1) };
    let told = stage.lxd(vec![ours]);
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(stage.world.instances["lxdrunner-1-1"].runner, RunnerState::Awaited);
}

#[test]
fn a_launch_that_failed_has_no_job_of_an_older_runner_of_its_name() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    let (blame, reason) = (Subject::Class("small".to_owned()), "set-up failed".to_owned());
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: true, runner: None });
    let (status, name) = (JobStatus::InProgress, Some("lxdrunner-1-1".to_owned()));
    let older = job(7, "acme/app", &["linux"]);
    stage.fold(Event::Hint(Hint::Job(Job { status, runner_name: name, runner_id: Some(RunnerId(7)), ..older })));
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::Abandoned)]);
}

#[test]
fn what_is_heard_of_a_repository_while_it_is_looked_at_asks_for_another_look() {
    let mut stage = Stage::new(config());
    let hint = || Event::Hint(Hint::LookAt("acme/app".parse().unwrap()));
    stage.fold(hint());
    let look = stage.dispatch().remove(0);
    stage.fold(hint());
    assert_eq!(stage.dispatch(), [], "one at a time");
    stage.outcome(look, Outcome::JobsFound(vec![]));
    assert_eq!(stage.dispatch().len(), 1);
    stage.outcome(Action::LookAtRepo { repo: "acme/app".parse().unwrap() }, Outcome::JobsFound(vec![]));
    assert_eq!(stage.dispatch(), []);
}

#[test]
fn a_job_of_another_hosts_runner_of_the_same_name_does_not_make_ours_busy_for_ever() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.told(7, JobStatus::InProgress, Some("lxdrunner-1-1"));
    let idle = || vec![runner(1, "lxdrunner-1-1", true, false)];
    stage.runners(acme(), idle());
    assert_eq!(stage.launches(), ["lxdrunner-1-2"], "the job runs, wherever");
    stage.pass(60).jobs(vec![job(1, "acme/app", &["self-hosted"])]);
    stage.answer(Some(Job { status: JobStatus::Completed, ..job(7, "acme/app", &["self-hosted"]) }));
    stage.runners(acme(), idle());
    assert_eq!(stage.reason(1), Some(Reason::Covered));
}

#[test]
fn trouble_is_told_again_every_hour_and_its_end_frees_what_waits() {
    let mut stage = Stage::new(config());
    let failed = |reason: &str| GitHubSeen { runners: vec![(acme(), Err(reason.to_owned()))], ..GitHubSeen::default() };
    let told = |notes: &[Note]| notes.iter().filter(|n| matches!(n, Note::Trouble { .. })).count();
    assert_eq!(told(&stage.github(failed("502"))), 1);
    assert_eq!(told(&stage.pass(1800).github(failed("503"))), 0);
    assert_eq!(stage.troubles(), ["github runners of org:acme"]);
    assert_eq!(told(&stage.pass(1800).github(failed("503"))), 1);

    stage.queued(1);
    let launch = stage.dispatch().into_iter().find(|a| matches!(a, Action::Launch(_))).unwrap();
    let (blame, reason) = (Subject::Scope(acme()), "502".to_owned());
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: false, runner: None });
    assert!(matches!(stage.reason(1), Some(Reason::Paused { .. })));
    stage.runners(acme(), vec![]);
    assert_eq!(stage.world.troubles().count(), 0);
    assert_eq!(stage.launches().len(), 1, "no need to wait out the pause");
}

#[test]
fn repos_say_whose_jobs_are_served_and_by_which_class() {
    let rules = |text: &str| crate::config::testkit_rules(text);
    let gpu = Class { repos: rules("acme/gpu-*"), ..class("gpu", &["gpu"], 1) };
    let spare = class("spare", &["gpu", "old"], 1);
    let of = |classes: Vec<Class>| Config { classes, repos: rules("acme/*,alice/*,!acme/secret-*"), ..config() };
    #[track_caller]
    fn check(config: Config, repo: &str, labels: &[&str], expected: Result<usize, Refusal>) {
        let mut stage = Stage::new(config);
        stage.fold(Event::Hint(Hint::Job(job(1, repo, labels))));
        assert_eq!(stage.world.jobs[&JobId(1)].place.clone().map(|(_, class)| class.0), expected, "{repo}");
    }
    check(of(vec![gpu.clone(), spare.clone()]), "acme/gpu-1", &["gpu"], Ok(0));
    check(of(vec![gpu.clone(), spare]), "acme/app", &["gpu"], Ok(1));
    let not_of_class = Refusal::NotOfClass { class: "gpu".to_owned(), deny: None };
    check(of(vec![gpu]), "acme/app", &["gpu"], Err(not_of_class));
    let plain = || of(vec![class("plain", &[], 1)]);
    let deny = Some("acme/secret-*".to_owned());
    check(plain(), "acme/Secret-1", &["linux"], Err(Refusal::NotAllowed { deny }));
    check(plain(), "alice/tool", &["linux"], Ok(0));
}

#[test]
fn where_a_run_comes_from_is_asked_once_and_only_where_it_matters() {
    use crate::config::ForkPolicy;
    let fork = |trust: Result<(), &str>| {
        Some(RunOrigin::Fork { from: "bob/app".to_owned(), trust: trust.map_err(str::to_owned) })
    };
    let looks = |stage: &mut Stage| -> Vec<Action> {
        stage.dispatch().into_iter().filter(|a| matches!(a, Action::LookUpRun { .. })).collect()
    };
    // The policy, whether the repository is public, what GitHub tells of the run; whether it is asked, and launched.
    let check = |policy: Option<ForkPolicy>, public: bool, told: Option<RunOrigin>, asked: bool, launched: bool| {
        let mut stage = Stage::new(Config { fork_policy: policy, allow_public_repos: true, ..config() });
        let two = [1, 2].map(|id| Job { public: Some(public), run_id: 7, ..job(id, "acme/app", &["linux"]) });
        two.into_iter().for_each(|job| drop(stage.fold(Event::Hint(Hint::Job(job)))));
        let what = format!("{policy:?} {public} {told:?}");
        if asked {
            assert_eq!(stage.reason(1), Some(Reason::Refused(Refusal::OriginUnknown)), "{what}");
            assert_eq!(stage.launches(), Vec::<String>::new());
        }
        let question = looks(&mut stage);
        assert_eq!(question.len(), usize::from(asked), "{what}");
        assert_eq!(looks(&mut stage), [], "one question for two jobs");
        for question in question {
            let notes = stage.outcome(question, Outcome::RunFound(told.clone()));
            let joined = notes.iter().filter(|n| matches!(n, Note::JobQueued { .. })).count();
            assert_eq!(joined, if launched { 2 } else { 0 }, "{what}");
        }
        if asked {
            assert_eq!(stage.launches().len(), if launched { 2 } else { 0 }, "{what}");
        }
        assert_eq!(looks(&mut stage), []);
    };
    use ForkPolicy::*;
    check(None, false, None, false, true);
    check(Some(Allow), true, None, false, true);
    for (policy, public) in [(None, true), (Some(Members), true), (Some(Members), false)] {
        check(policy, public, Some(RunOrigin::Own), true, true);
        check(policy, public, fork(Ok(())), true, true);
        check(policy, public, fork(Err("bob is a stranger")), true, false);
        check(policy, public, None, true, false);
    }
    check(Some(Deny), false, Some(RunOrigin::Own), true, true);
    check(Some(Deny), false, fork(Ok(())), true, false);

    // A question that failed is asked again, and what no job needs any more is forgotten.
    let mut stage = Stage::new(Config { fork_policy: Some(Members), ..config() });
    stage.queued(1);
    let question = looks(&mut stage).remove(0);
    stage.outcome(question, Outcome::LookFailed { reason: "502".to_owned() });
    assert_eq!(looks(&mut stage), []);
    let again = looks(stage.pass(2)).remove(0);
    stage.outcome(again, Outcome::RunFound(Some(RunOrigin::Own)));
    assert_eq!((stage.launches().len(), stage.world.runs.len()), (1, 1));
    stage.told(1, JobStatus::Completed, None);
    stage.lxd(vec![]);
    assert_eq!(stage.world.runs.len(), 0);
}

#[test]
fn a_runner_that_ends_without_a_job_has_the_package_looked_up_again_but_not_over_and_over() {
    let mut stage = Stage::new(config());
    let fetches = |stage: &mut Stage| {
        let actions = stage.dispatch();
        let fetch = actions.iter().find(|a| matches!(a, Action::FetchPackage { .. })).cloned();
        for action in actions {
            match &action {
                Action::Launch(_) => {
                    stage.outcome(action, Outcome::Launched { runner: Some(RunnerId(1)) });
                }
                Action::LookUpJob { .. } => {
                    let waits = Some(Box::new(job(1, "acme/app", &["self-hosted"])));
                    stage.outcome(action, Outcome::JobFound(waits));
                }
                _ => {}
            }
        }
        fetch
    };
    stage.queued(1);
    assert_eq!(fetches(&mut stage), None);
    stage.lxd(vec![]);
    assert_eq!(fetches(&mut stage), None, "first GitHub is asked whether the job still waits");
    let fetch = fetches(&mut stage).expect("it may be the version");
    let life = crate::model::RunnerLife { newer: Some("2.331.0".to_owned()), ..Default::default() };
    let notes = stage.outcome(fetch, Outcome::PackageReady { version: "2.330.0".to_owned(), life });
    assert!(matches!(&notes[..], [Note::VersionEnds { refused: false, .. }, Note::PackageReady { news: false, .. }]));
    // The next one ends like that, too.
    stage.pass(10);
    assert_eq!(fetches(&mut stage), None);
    stage.lxd(vec![]);
    assert_eq!(fetches(&mut stage), None);
    assert_eq!(fetches(&mut stage), None, "that was asked just now");
    stage.pass(300);
    assert!(fetches(&mut stage).is_some());
    // One that nobody waits for says nothing.
    let mut stage = Stage::new(config());
    stage.queued(1);
    fetches(&mut stage);
    stage.told(1, JobStatus::Completed, None);
    stage.lxd(vec![]);
    assert_eq!(fetches(&mut stage), None);
}

#[test]
fn a_runner_that_had_its_job_between_two_listings_is_done() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    let listed = InstanceSeen { phase: Phase::Started, runner_id: Some(RunnerId(1)), ..seen("lxdrunner-1-1", 1) };
    stage.lxd(vec![listed.clone()]);
    stage.runners(acme(), vec![]);
    assert_eq!(stage.reason(1), Some(Reason::Covered), "the listing may lag");
    stage.pass(31).lxd(vec![listed]);
    stage.runners(acme(), vec![]);
    assert_eq!(stage.launches(), Vec::<String>::new(), "GitHub is asked about the job first");
    assert_ne!(stage.reason(1), Some(Reason::Covered));
}
