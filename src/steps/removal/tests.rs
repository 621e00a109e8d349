//! Why it goes, what LXD and GitHub answer, and which steps and which end follow.

use super::Answer::{Changed, Deregistered, Done, Failed, Found as There, Gone, Inside as In};
use super::RemoveReason::*;
use super::*;
use crate::model::{InstanceStatus, Timestamp};

const NOW: Timestamp = Timestamp(1_000_000);

/// What is judged: one with a runner that a process made which is no more, unless said otherwise.
fn judged(reason: RemoveReason) -> Judged {
    let scope = Some(Scope::Org("acme".to_owned()));
    Judged {
        reason,
        scope,
        runner: Some(RunnerId(7)),
        made_at: Some(NOW),
        maker: Maker::Dead,
        standby: false,
        over: reason == Finished,
    }
}

/// A template, a standby, or what was to become one.
fn runnerless(reason: RemoveReason) -> Judged {
    Judged { scope: None, runner: None, ..judged(reason) }
}

fn nameless(reason: RemoveReason) -> Judged {
    Judged { runner: None, ..judged(reason) }
}

fn found(phase: Phase, status: InstanceStatus) -> InstanceView {
    let owner = Some("ci".to_owned());
    let (etag, scoped, made_at) = ("e1".to_owned(), phase.has_runner(), Some(NOW));
    InstanceView { etag, owner, phase, maker: Maker::Dead, scoped, runner: None, status, made_at }
}

fn running() -> Answer {
    There(found(Phase::Started, InstanceStatus::Running))
}

fn half_made() -> Answer {
    There(found(Phase::Provisioning, InstanceStatus::Running))
}

fn stopped() -> Answer {
    There(found(Phase::Started, InstanceStatus::Stopped))
}

fn standby() -> Answer {
    There(found(Phase::Standby, InstanceStatus::Frozen))
}

fn no() -> Answer {
    Failed("no".to_owned())
}

fn named(online: bool) -> Answer {
    Answer::Runner(Some((RunnerId(9), online)))
}

fn word(step: &Step) -> String {
    match step {
        Step::Look => "look".to_owned(),
        Step::Claim { etag, phase } => format!("claim-{etag}-{}", phase.as_str()),
        Step::LookInside => "inside".to_owned(),
        Step::FindRunner(_) => "find".to_owned(),
        Step::Deregister(_, runner) => format!("deregister-{runner}"),
        Step::KeepLogs => "logs".to_owned(),
        Step::Stop => "stop".to_owned(),
        Step::LookAgain => "again".to_owned(),
        Step::Delete => "delete".to_owned(),
    }
}

/// Gives the answers one after the other; `expected` is the steps that were asked for, and the end.
#[track_caller]
fn check_by(registration: Registration, judged: Judged, answers: &[Answer], expected: &str) {
    run(Removal::new(judged, "ci", registration), answers, expected);
}

#[track_caller]
fn check(judged: Judged, answers: &[Answer], expected: &str) {
    check_by(Registration::Jit, judged, answers, expected);
}

#[track_caller]
fn run(mut removal: Removal, answers: &[Answer], expected: &str) {
    let mut way = Vec::new();
    for answer in answers {
        way.push(word(removal.step()));
        if let Next::End(outcome) = removal.next(answer.clone()) {
            way.push(match outcome {
                Outcome::Removed => "removed".to_owned(),
                Outcome::Kept { .. } => "kept".to_owned(),
                Outcome::Changed { .. } => "changed".to_owned(),
                Outcome::RemoveFailed { reason } => format!("failed: {reason}"),
                other => format!("{other:?}"),
            });
            break;
        }
    }
    assert_eq!(way.join(" "), expected);
    assert_eq!(way.len(), answers.len() + 1, "not every answer was asked for, or more was");
}

#[test]
fn what_is_done_is_deregistered_stopped_and_deleted() {
    let quiet = In(Inside::Quiet);
    let gone = Deregistered(Deletion::Gone);
    let deleted = || Deregistered(Deletion::Deleted);
    check(
        judged(Idle),
        &[running(), quiet.clone(), deleted(), running(), Done, running(), Done],
        "look inside deregister-7 again stop again delete removed",
    );
    check(
        judged(Finished),
        &[running(), quiet.clone(), gone.clone(), running(), Done, Gone],
        "look inside deregister-7 again stop again removed",
    );
    check(judged(Finished), &[stopped(), gone, stopped(), Done], "look deregister-7 again delete removed");
    // What failed is heard before it goes, and after nothing keeps it any more.
    check(
        judged(NeverOnline),
        &[running(), quiet, deleted(), Done, running(), Done, running(), Done],
        "look inside deregister-7 logs again stop again delete removed",
    );
    check(
        runnerless(Superseded),
        &[
            There(found(Phase::Template, InstanceStatus::Stopped)),
            There(found(Phase::Template, InstanceStatus::Stopped)),
            Done,
        ],
        "look again delete removed",
    );
}

#[test]
fn what_may_run_a_job_stays() {
    let (quiet, unknown) = (In(Inside::Quiet), In(Inside::Unknown));
    let busy = Deregistered(Deletion::Busy);
    for reason in [Finished, Idle, NeverOnline, Stale, Unassigned, MakesRoom] {
        check(judged(reason), &[running(), In(Inside::Working)], "look inside kept");
        check(judged(reason), &[running(), quiet.clone(), busy.clone()], "look inside deregister-7 kept");
    }
    // GitHub alone says that they have no job, and GitHub has been wrong.
    let uncertain = "look inside failed: it is not certain that its runner is idle: the look inside did not work";
    for reason in [Idle, Stale, Unassigned, MakesRoom] {
        check(judged(reason), &[running(), unknown.clone()], uncertain);
    }
    for reason in [Finished, NeverOnline] {
        check(judged(reason), &[running(), unknown.clone(), busy.clone()], "look inside deregister-7 kept");
    }
    // A frozen one holds its job.
    let frozen = There(found(Phase::Started, InstanceStatus::Frozen));
    check(judged(Idle), &[frozen, busy.clone()], "look deregister-7 kept");
    // What is too old goes whatever it does; what is stopped does nothing.
    check(
        judged(TooOld),
        &[running(), busy.clone(), Done, running(), Done, running(), Done],
        "look deregister-7 logs again stop again delete removed",
    );
    check(judged(Finished), &[stopped(), busy, stopped(), Done], "look deregister-7 again delete removed");
}

#[test]
fn where_github_does_not_answer_it_stays_unless_nothing_runs_for_certain() {
    let (quiet, unknown) = (In(Inside::Quiet), In(Inside::Unknown));
    let way = "look inside deregister-7 failed: no";
    for reason in [Idle, NeverOnline, Stale, Unassigned, MakesRoom] {
        check(judged(reason), &[running(), quiet.clone(), no()], way);
    }
    check(judged(Finished), &[running(), unknown.clone(), no()], way);
    // Nor is it enough that a listing did not have it.
    let uncertain = "look inside failed: it is not certain that its runner is idle: the look inside did not work";
    check(Judged { over: false, ..judged(Finished) }, &[running(), unknown], uncertain);
    check(
        judged(Finished),
        &[running(), quiet, no(), running(), Done, running(), Done],
        "look inside deregister-7 again stop again delete removed",
    );
    check(judged(Finished), &[stopped(), no(), Gone], "look deregister-7 again removed");
    check(
        judged(TooOld),
        &[running(), no(), Done, running(), no(), Gone],
        "look deregister-7 logs again stop again removed",
    );
}

#[test]
fn a_runner_that_nobody_told_us_of_is_looked_for_by_its_name() {
    let (jit, token) = (Registration::Jit, Registration::Token);
    let quiet = || In(Inside::Quiet);
    let rest = || [Done, running(), Done, Gone];
    let with = |answers: &[Answer]| [answers, &rest()].concat();
    let came_up = "look inside find failed: its runner came up meanwhile, it is looked at again";
    for registration in [jit, token] {
        let judged = || nameless(NeverOnline);
        let none = Answer::Runner(None);
        check_by(registration, judged(), &[running(), quiet(), named(true)], came_up);
        check_by(registration, judged(), &[running(), quiet(), no()], "look inside find failed: no");
        let way = "look inside find logs again stop again removed";
        check_by(registration, judged(), &with(&[running(), quiet(), none]), way);
        check_by(
            registration,
            nameless(TooOld),
            &with(&[running(), named(true)]),
            "look find logs again stop again removed",
        );
    }
    // With JIT the name may be that of another host's, which is just being made.
    let way = "look inside find logs again stop again removed";
    check_by(jit, nameless(NeverOnline), &with(&[running(), quiet(), named(false)]), way);
    let way = "look inside find deregister-9 logs again stop again removed";
    let deleted = Deregistered(Deletion::Deleted);
    check_by(token, nameless(NeverOnline), &with(&[running(), quiet(), named(false), deleted.clone()]), way);
    // That of a standby is nobody else's.
    let standby = || Judged { standby: true, ..nameless(Abandoned) };
    let claimed = || There(found(Phase::Provisioning, InstanceStatus::Running));
    let seen = [claimed(), Done, quiet(), named(false)];
    let way = "look claim-e1-provisioning inside find deregister-9";
    check_by(jit, standby(), &[&seen[..], &[Deregistered(Deletion::Busy)]].concat(), &format!("{way} kept"));
    let way = format!("{way} logs again stop again removed");
    check_by(jit, standby(), &with(&[&seen[..], std::slice::from_ref(&deleted)].concat()), &way);
    // What a process that is no more may have started, and lost its network since, is not GitHub's alone to judge.
    let blind = [claimed(), Done, In(Inside::Unknown)];
    let kept = "look claim-e1-provisioning inside failed: it is not certain that its runner never started: the look inside did \
                not work";
    check_by(jit, standby(), &blind, kept);
    check_by(token, nameless(Abandoned), &blind, kept);
    let noted =
        There(InstanceView { runner: Some(RunnerId(9)), ..found(Phase::Provisioning, InstanceStatus::Running) });
    check_by(jit, nameless(Abandoned), &[noted, Done, In(Inside::Unknown)], kept);
    // What a dead process left before it noted a runner has none, though a namesake on another host is taken for it.
    check_by(jit, judged(MakesRoom), &[claimed(), quiet(), named(true)], came_up);
    let way = "look inside deregister-7 again removed";
    check_by(token, judged(MakesRoom), &[claimed(), quiet(), deleted.clone(), Gone], way);
    let of_ours = Judged { maker: Maker::Us, ..judged(MakesRoom) };
    check_by(jit, of_ours, &[claimed(), quiet(), deleted.clone(), Gone], way);
    // It is noted on the instance.
    let noted = There(InstanceView { runner: Some(RunnerId(8)), ..found(Phase::Started, InstanceStatus::Running) });
    let way = "look inside deregister-8 logs again stop again removed";
    check(nameless(NeverOnline), &with(&[noted.clone(), quiet(), deleted.clone()]), way);
    // Not that of a namesake on another host.
    check(judged(NeverOnline), &with(&[noted, quiet(), deleted]), way);
}

#[test]
fn what_is_not_what_was_judged_stays() {
    let later = || found(Phase::Provisioning, InstanceStatus::Running);
    let other = InstanceView { made_at: Some(Timestamp(NOW.0 + 1)), ..later() };
    let theirs = InstanceView { owner: None, ..later() };
    let copied = InstanceView { owner: Some("ci2".to_owned()), ..later() };
    let deleted = || Deregistered(Deletion::Deleted);
    for reason in [Finished, Abandoned, NeverOnline, Idle, TooOld, Superseded, Stale, MakesRoom, Broken] {
        check(judged(reason), &[There(other.clone())], "look changed");
        check(judged(reason), &[There(theirs.clone())], "look removed");
        check(judged(reason), &[There(copied.clone())], "look removed");
        check(judged(reason), &[Gone], "look removed");
        check(judged(reason), &[no()], "look failed: no");
    }
    // When it was made is not known: then nothing speaks against it.
    let unlisted = Judged { made_at: None, ..judged(Finished) };
    check(unlisted, &[There(other.clone()), In(Inside::Working)], "look inside kept");
    // LXD deleted it by itself, and the name was free.
    let way = "look deregister-7 again changed";
    check(judged(Finished), &[stopped(), deleted(), There(other)], way);
    check(judged(Finished), &[stopped(), deleted(), There(theirs)], "look deregister-7 again removed");
    // Somebody started it after we had taken it for sure to run nothing.
    check(judged(Finished), &[stopped(), deleted(), running()], "look deregister-7 again changed");
    // When what was found was made is what counts from then on, where it had not been listed.
    let unlisted = Judged { made_at: None, ..judged(Finished) };
    let quick = There(InstanceView {
        made_at: Some(Timestamp(NOW.0 + 2)),
        ..found(Phase::Provisioning, InstanceStatus::Stopped)
    });
    let way = "look inside deregister-7 again changed";
    check(unlisted, &[running(), In(Inside::Quiet), deleted(), quick], way);
    // It was finished, taken over by another process, or claimed for a runner.
    check(judged(Abandoned), &[running()], "look changed");
    let living = || There(InstanceView { maker: Maker::Unknown, ..later() });
    check(judged(Abandoned), &[living()], "look changed");
    check(Judged { maker: Maker::Us, ..judged(Abandoned) }, &[living()], "look changed");
    check(runnerless(Superseded), &[half_made()], "look changed");
    check(runnerless(Abandoned), &[There(found(Phase::Template, InstanceStatus::Stopped))], "look changed");
}

#[test]
fn what_another_may_want_is_claimed_first() {
    check(runnerless(Stale), &[standby(), Changed], "look claim-e1-preparing changed");
    check(runnerless(Stale), &[standby(), no()], "look claim-e1-preparing failed: no");
    let way = "look claim-e1-preparing again stop again delete removed";
    check(runnerless(Stale), &[standby(), Done, standby(), Done, standby(), Done], way);
    let way = "look claim-e1-provisioning changed";
    check(judged(Abandoned), &[half_made(), Changed], way);
    let way = "look claim-e1-provisioning inside kept";
    check(judged(Abandoned), &[half_made(), Done, In(Inside::Working)], way);
    // A process of another machine had its time.
    let unknown = Judged { maker: Maker::Unknown, ..judged(Abandoned) };
    let living = There(InstanceView { maker: Maker::Unknown, ..found(Phase::Provisioning, InstanceStatus::Stopped) });
    check(unknown, &[living, Changed], "look claim-e1-provisioning changed");
    // What we made ourselves nobody else clears away.
    let ours = There(InstanceView { maker: Maker::Us, ..found(Phase::Baking, InstanceStatus::Stopped) });
    let of_ours = Judged { maker: Maker::Us, made_at: None, ..runnerless(Abandoned) };
    check(of_ours, &[ours.clone(), Done, ours, Done], "look logs again delete removed");
}

#[test]
fn what_lxd_does_by_itself_or_does_not_do() {
    let deleted = || Deregistered(Deletion::Deleted);
    let start = || vec![running(), In(Inside::Quiet), deleted(), running()];
    let check = |rest: &[Answer], expected: &str| {
        check(judged(Idle), &[start(), rest.to_vec()].concat(), &format!("look inside deregister-7 again {expected}"));
    };
    check(&[no(), Gone], "stop again removed");
    check(&[no(), running(), no(), running()], "stop again delete again failed: no");
    check(&[Done, running(), no(), Gone], "stop again delete again removed");
    check(&[Done, running(), Failed("it runs".to_owned()), no()], "stop again delete again failed: it runs");
    // What cannot be deleted because it cannot be stopped is told of as that.
    check(&[no(), running(), Failed("it runs".to_owned()), running()], "stop again delete again failed: no");
    check(&[Done, no()], "stop again failed: no");
    // What was just made for nothing.
    run(Removal::of_our_own("ci", RemoveReason::Abandoned), &[Done, Gone], "stop again removed");
    run(Removal::of_our_own("ci", RemoveReason::Abandoned), &[Done, half_made(), Done], "stop again delete removed");
    run(
        Removal::of_our_own("ci", RemoveReason::Abandoned),
        &[no(), half_made(), no(), half_made()],
        "stop again delete again failed: no",
    );
}

#[test]
fn a_step_that_fails_ends_it_and_so_does_an_answer_to_another_question() {
    let quiet = In(Inside::Quiet);
    check(judged(Idle), &[running(), no()], "look inside failed: no");
    check(judged(Idle), &[Changed], "look failed: Look was answered with Changed");
    check(
        judged(Idle),
        &[running(), quiet, Gone],
        "look inside deregister-7 failed: Deregister(Org(\"acme\"), RunnerId(7)) was answered with Gone",
    );
}
