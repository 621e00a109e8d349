//! What is made, what LXD and GitHub answer, and which steps and which end follow.

use super::Answer::{
    Cause, Changed, Deregistered, Done, Failed, Found as There, Gone, NameTaken, NoNetwork, NoPackage, NoSpace,
    NotRegistered, Published, Refused, Registered, Unsure,
};
use super::*;
use crate::world::{Template, testkit::class};

fn acme() -> Scope {
    Scope::Org("acme".to_owned())
}

fn runner(from: LaunchSource) -> MakeKind {
    MakeKind::Runner { scope: acme(), from }
}

fn image() -> MakeKind {
    runner(LaunchSource::Image)
}

fn copy() -> MakeKind {
    runner(LaunchSource::Template(Template::Instance("t".to_owned())))
}

/// A claim, with what is known of the standby's ETag.
fn claim(etag: Option<&str>) -> MakeKind {
    runner(LaunchSource::Standby { etag: etag.map(str::to_owned) })
}

fn there(phase: Phase, maker: Maker) -> InstanceView {
    let (etag, owner) = ("e2".to_owned(), Some("ci".to_owned()));
    InstanceView {
        etag,
        owner,
        phase,
        maker,
        scoped: false,
        runner: None,
        status: InstanceStatus::Frozen,
        made_at: None,
    }
}

fn no() -> Answer {
    Failed { unreachable: false, reason: "no".to_owned() }
}

fn silence() -> Answer {
    Failed { unreachable: true, reason: "silence".to_owned() }
}

fn registered() -> Answer {
    Registered(Some(RunnerId(7)))
}

fn refused() -> Answer {
    Refused("rate limit".to_owned())
}

fn word(step: &Step) -> String {
    match step {
        Step::Look(why) => format!("look-{}", format!("{why:?}").to_lowercase()),
        Step::NoteRunner(runner) => format!("note-{runner}"),
        Step::NoteStarted(runner) => format!("started-{}", runner.map_or(0, |runner| runner.0)),
        Step::BeginRegister(scope) if *scope == acme() => "beginregister".to_owned(),
        Step::RegisterAgain(scope) if *scope == acme() => "registeragain".to_owned(),
        Step::TakeBack(scope, runner) if *scope == acme() => format!("takeback-{runner}"),
        Step::Claim { etag } => format!("claim-{etag}"),
        Step::Finish { etag } => format!("finish-{etag}"),
        Step::KeepLogs { .. } => "logs".to_owned(),
        Step::Drop(_) => "drop".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn end(outcome: Outcome) -> String {
    match outcome {
        Outcome::Launched { runner } => format!("launched {}", runner.map_or(0, |runner| runner.0)),
        Outcome::Baked => "baked".to_owned(),
        Outcome::Published { image, left } => format!("published {image} left={left}"),
        Outcome::Prepared { etag } => format!("prepared {etag:?}"),
        Outcome::Clash { reason } => format!("clash: {reason}"),
        Outcome::StandbyLost { reason } => format!("lost: {reason}"),
        Outcome::LaunchFailed { blame, reason, made, runner } => {
            let left = runner.map(|runner| format!(" left {runner}")).unwrap_or_default();
            format!("{blame:?} made={made}{left}: {reason}")
        }
        Outcome::NotMade { blame, reason, made } => format!("{blame:?} made={made}: {reason}"),
        other => format!("{other:?}"),
    }
}

/// Takes `steps`, each of which is answered with [`Done`] unless it stands in `answers`, and comes to this end.
#[track_caller]
fn check(what: MakeKind, answers: &[(&str, Answer)], steps: &str, expected: &str) {
    check_of(InstanceType::Container, what, answers, steps, expected);
}

#[track_caller]
fn check_of(kind: InstanceType, what: MakeKind, answers: &[(&str, Answer)], steps: &str, expected: &str) {
    let mut making = Making::new(what, &Class { kind, ..class("small", &[], 1) }, "ci");
    let mut answers = answers.iter().peekable();
    let mut way = Vec::new();
    let outcome = loop {
        let step = word(making.step());
        let came = answers.next_if(|(of, _)| *of == step).map_or(Done, |(_, answer)| answer.clone());
        way.push(step);
        assert!(way.len() < 30, "{way:?}");
        if let Next::End(outcome) = making.next(came) {
            break outcome;
        }
    };
    assert_eq!(way.join(" "), steps);
    assert_eq!(end(outcome), expected);
    assert_eq!(answers.next(), None, "was not asked for");
}

#[test]
fn what_works_goes_step_by_step() {
    let hears = [("credentials", registered())];
    let with_token = [("credentials", Registered(None))];
    check(
        image(),
        &hears,
        "create start started setup beginregister arm credentials note-7 openfiles armed handover started-0",
        "launched 7",
    );
    check(
        image(),
        &with_token,
        "create start started setup beginregister arm credentials openfiles armed handover started-0",
        "launched 0",
    );
    check(
        copy(),
        &hears,
        "create start beginregister started arm credentials note-7 openfiles armed handover started-0",
        "launched 7",
    );
    check(
        copy(),
        &with_token,
        "create start beginregister started arm credentials openfiles armed handover started-0",
        "launched 0",
    );
    let way = "beginregister claim-e1 thaw credentials handover started-7";
    check(claim(Some("e1")), &hears, way, "launched 7");
    let standby = There(there(Phase::Standby, Maker::Unknown));
    check(
        claim(None),
        &[("look-toclaim", standby), hears[0].clone()],
        "beginregister look-toclaim claim-e2 thaw credentials handover started-7",
        "launched 7",
    );
    check(
        MakeKind::Template(TemplateKind::Instance),
        &[("look-tofinish", There(there(Phase::Baking, Maker::Us)))],
        "create start started setup seal look-tofinish finish-e2",
        "baked",
    );
    let preparing = There(there(Phase::Preparing, Maker::Us));
    let way = "create start started arm armed settle freeze look-tofinish finish-e2 look-foretag";
    let ready = There(there(Phase::Standby, Maker::Unknown));
    check(
        MakeKind::Standby,
        &[("look-tofinish", preparing.clone()), ("look-foretag", ready)],
        way,
        "prepared Some(\"e2\")",
    );
    // That it could not be looked at once more takes nothing from it.
    check(MakeKind::Standby, &[("look-tofinish", preparing), ("look-foretag", no())], way, "prepared None");
    // Nor does a note that could not be written from a runner.
    let way = "beginregister claim-e1 thaw credentials handover started-7";
    check(claim(Some("e1")), &[("credentials", registered()), ("started-7", no())], way, "launched 7");
}

#[test]
fn a_virtual_machine_is_frozen_as_a_standby_and_thawed_before_it_is_claimed() {
    #[track_caller]
    fn check_vm(what: MakeKind, answers: &[(&str, Answer)], steps: &str, expected: &str) {
        check_of(InstanceType::VirtualMachine, what, answers, steps, expected);
    }
    let preparing = ("look-tofinish", There(there(Phase::Preparing, Maker::Us)));
    let made = "create start started arm armed settle look-tofinish finish-e2 freeze";
    let ready = ("look-foretag", There(there(Phase::Standby, Maker::Us)));
    check_vm(MakeKind::Standby, &[preparing.clone(), ready], &format!("{made} look-foretag"), "prepared Some(\"e2\")");
    let said = "Standby(\"small\") made=true: no";
    check_vm(MakeKind::Standby, &[preparing, ("freeze", no())], &format!("{made} logs"), said);

    let hears = ("credentials", registered());
    let claimed = "setclock credentials handover started-7";
    let way = format!("beginregister thawunclaimed claim-e1 {claimed}");
    check_vm(claim(Some("e1")), std::slice::from_ref(&hears), &way, "launched 7");
    let standby = |status: InstanceStatus| {
        ("look-toclaim", There(InstanceView { status, ..there(Phase::Standby, Maker::Unknown) }))
    };
    let (frozen, running) = (standby(InstanceStatus::Frozen), standby(InstanceStatus::Running));
    let way = format!("beginregister look-toclaim thawunclaimed look-toclaim claim-e2 {claimed}");
    check_vm(claim(None), &[frozen.clone(), running.clone(), hears.clone()], &way, "launched 7");
    let way = format!("beginregister thawunclaimed claim-e1 look-toclaim claim-e2 {claimed}");
    check_vm(claim(Some("e1")), &[("claim-e1", Changed), running.clone(), hears.clone()], &way, "launched 7");
    // Somebody else was faster; or thawed it and died; or it does not thaw.
    let thaw = ("thawunclaimed", no());
    let refused = ("credentials", refused());
    let taken = ("look-toclaim", There(there(Phase::Provisioning, Maker::Unknown)));
    let way = "beginregister thawunclaimed look-toclaim credentials";
    check_vm(claim(Some("e1")), &[thaw.clone(), taken, refused.clone()], way, "lost: somebody else claimed it");
    check_vm(claim(Some("e1")), &[thaw.clone(), ("look-toclaim", Gone), refused.clone()], way, "lost: it is gone");
    let way = format!("beginregister thawunclaimed look-toclaim claim-e2 {claimed}");
    check_vm(claim(Some("e1")), &[thaw.clone(), running.clone(), hears], &way, "launched 7");
    let way = "beginregister look-toclaim credentials";
    check_vm(claim(None), &[running, refused.clone()], way, "lost: it is not frozen any more");
    let way = "beginregister thawunclaimed look-toclaim credentials logs";
    check_vm(claim(Some("e1")), &[thaw, frozen, refused], way, "Standby(\"small\") made=true: no");
}

#[test]
fn whose_name_it_is_is_told_by_the_keys() {
    let look = "create look-whose";
    let whose = |found: InstanceView| [("create", no()), ("look-whose", There(found))];
    let other = || there(Phase::Provisioning, Maker::Unknown);
    check(image(), &whose(other()), look, "clash: another daemon made it");
    let not_ours = "clash: an instance of this name that is not ours exists";
    check(image(), &whose(InstanceView { owner: None, ..other() }), look, not_ours);
    check(copy(), &whose(InstanceView { owner: Some("ci2".to_owned()), ..other() }), look, not_ours);
    let ours = || there(Phase::Provisioning, Maker::Us);
    check(image(), &whose(ours()), look, "Class(\"small\") made=true: no");
    check(copy(), &whose(ours()), look, "Template(\"small\") made=true: no");
    check(MakeKind::Template(TemplateKind::Instance), &whose(ours()), look, "Bake(\"small\") made=true: no");
    check(MakeKind::Standby, &whose(other()), look, "clash: another daemon made it");
    // It was not made; or nobody can tell.
    let why = |cause| [("create", no()), ("look-whose", Gone), ("findcause", Cause(cause))];
    let found_out = "create look-whose findcause";
    check(image(), &why(None), found_out, "Class(\"small\") made=false: no");
    let because = |fault| why(Some(super::Cause { fault, text: "full".to_owned() }));
    for what in [image(), copy(), MakeKind::Standby, MakeKind::Template(TemplateKind::Instance)] {
        check(what, &because(Fault::Storage), found_out, "Storage(\"small\") made=false: no; full");
    }
    check(copy(), &because(Fault::Class), found_out, "Class(\"small\") made=false: no; full");
    check(MakeKind::Standby, &because(Fault::Class), found_out, "Standby(\"small\") made=false: no; full");
    check(image(), &because(Fault::Source), found_out, "Class(\"small\") made=false: no; full");
    let blind = [("create", no()), ("look-whose", silence())];
    check(image(), &blind, look, "Class(\"small\") made=true: no; and then: silence");
    // LXD did not answer: it may be making it still.
    let mute = |then: Answer| [("create", silence()), ("look-whose", then)];
    check(copy(), &mute(silence()), look, "Host made=true: silence");
    check(copy(), &mute(Gone), look, "Template(\"small\") made=true: silence");
    check(copy(), &mute(There(ours())), look, "Template(\"small\") made=true: silence");
    check(copy(), &mute(There(other())), look, "clash: another daemon made it");
}

#[test]
fn a_standby_is_one_claimants_only() {
    let lost = |first: Answer, then: &[(&'static str, Answer)], steps: &str, why: &str| {
        let answers = [&[("claim-e1", first)], then, &[("credentials", refused())]].concat();
        let steps = format!("beginregister claim-e1 {steps}credentials");
        check(claim(Some("e1")), &answers, &steps, &format!("lost: {why}"));
    };
    lost(Gone, &[], "", "it is gone");
    lost(Unsure("cut".to_owned()), &[], "", "it is not certain whose it is: cut");
    let looked = |found: Answer| [("look-toclaim", found)];
    let standby = || there(Phase::Standby, Maker::Unknown);
    let seen = |found: InstanceView| looked(There(found));
    lost(Changed, &looked(Gone), "look-toclaim ", "it is gone");
    let taken = seen(there(Phase::Provisioning, Maker::Unknown));
    lost(Changed, &taken, "look-toclaim ", "somebody else claimed it");
    let theirs = seen(InstanceView { owner: None, ..standby() });
    lost(Changed, &theirs, "look-toclaim ", "somebody else claimed it");
    let thawed = seen(InstanceView { status: InstanceStatus::Running, ..standby() });
    lost(Changed, &thawed, "look-toclaim ", "it is not frozen any more");
    let again = [seen(standby()).as_slice(), &[("claim-e2", Changed)]].concat();
    lost(Changed, &again, "look-toclaim claim-e2 ", "somebody else claimed it");
    // What GitHub gave for it goes back.
    check(
        claim(Some("e1")),
        &[("claim-e1", Gone), ("credentials", registered()), ("takeback-7", Deregistered(Deletion::Deleted))],
        "beginregister claim-e1 credentials takeback-7",
        "lost: it is gone",
    );
    // It cannot be claimed: then nothing is known of it.
    check(
        claim(Some("e1")),
        &[("claim-e1", no()), ("credentials", NameTaken)],
        "beginregister claim-e1 credentials logs",
        "Standby(\"small\") made=true: no",
    );
}

#[test]
fn a_name_that_somebody_else_has_at_github() {
    let taken = "clash: GitHub has a runner of this name already";
    let way = "create start started setup beginregister arm credentials drop";
    check(image(), &[("credentials", NameTaken)], way, taken);
    let left = [("credentials", NameTaken), ("drop", no())];
    let said = "Class(\"small\") made=true: GitHub has a runner of this name already; and the instance could not be removed: no";
    check(image(), &left, way, said);
    // LXD refuses to delete what it is about to start: that was waited for, however it ended.
    let both = [("started", no()), ("credentials", NameTaken)];
    check(copy(), &both, "create start beginregister started credentials drop", taken);
    // Who lost the claim gives it back in a moment, or never.
    let again = |n| vec![("registeragain", NameTaken); n];
    let start = [("credentials", NameTaken)];
    let way = |n| format!("beginregister claim-e1 thaw credentials{}", " registeragain".repeat(n));
    let free = [&start, again(2).as_slice(), &[("registeragain", registered())]].concat();
    check(claim(Some("e1")), &free, &format!("{} handover started-7", way(3)), "launched 7");
    let never = [&start, again(5).as_slice()].concat();
    check(claim(Some("e1")), &never, &format!("{} drop", way(5)), taken);
    let refuses = [&start[..], &[("registeragain", refused())]].concat();
    let said = "Scope(Org(\"acme\")) made=true: rate limit";
    check(claim(Some("e1")), &refuses, &format!("{} logs", way(1)), said);
}

#[test]
fn what_github_refused_to_register_goes_at_once_and_needs_no_word_of_github_for_that() {
    let refused = || NotRegistered("no such organisation".to_owned());
    let said = "Scope(Org(\"acme\")) made=false: no such organisation";
    let set_up = "create start started setup beginregister arm";
    let begin = "create start beginregister started";
    check(image(), &[("credentials", refused())], &format!("{set_up} credentials drop"), said);
    check(copy(), &[("credentials", refused())], &format!("{begin} arm credentials drop"), said);
    check(claim(Some("e1")), &[("credentials", refused())], "beginregister claim-e1 thaw credentials drop", said);
    let left = [("credentials", refused()), ("drop", no())];
    let said = "Scope(Org(\"acme\")) made=true: no such organisation; and the instance could not be removed: no";
    check(image(), &left, &format!("{set_up} credentials drop"), said);
    // What failed before is why, and its logs are kept.
    let both = [("started", no()), ("credentials", refused())];
    let said = "Scope(Org(\"acme\")) made=true: no such organisation";
    check(copy(), &both, &format!("{begin} credentials logs"), said);
    // Somebody else's standby is not ours to drop.
    let lost = [("claim-e1", Gone), ("credentials", refused())];
    check(claim(Some("e1")), &lost, "beginregister claim-e1 credentials", "lost: it is gone");
}

#[test]
fn a_failure_is_blamed_on_what_did_not_work() {
    let begin = "create start beginregister started";
    let set_up = "create start started setup beginregister";
    let scope = "Scope(Org(\"acme\")) made=true: rate limit";
    check(image(), &[("credentials", refused())], &format!("{set_up} arm credentials logs"), scope);
    check(copy(), &[("credentials", refused())], &format!("{begin} arm credentials logs"), scope);
    let both = [("started", silence()), ("credentials", refused())];
    check(copy(), &both, &format!("{begin} credentials logs"), scope);
    check(image(), &[("start", no())], "create start logs", "Class(\"small\") made=true: no");
    let mute = [("start", silence()), ("look-answers", silence())];
    check(image(), &mute, "create start look-answers", "Host made=true: silence");
    // Neither a full pool nor a missing network is a failure of what works.
    let (full, alone) = (NoSpace("full".to_owned()), NoNetwork("no route".to_owned()));
    let (storage, network) = ("Storage(\"small\") made=true: full", "Network(\"small\") made=true: no route");
    for (came, said) in [(&full, storage), (&alone, network)] {
        let armed = [("credentials", Registered(None)), ("armed", came.clone())];
        check(copy(), &armed, &format!("{begin} arm credentials openfiles armed logs"), said);
        check(image(), &armed, &format!("{set_up} arm credentials openfiles armed logs"), said);
        check(MakeKind::Standby, &[("armed", came.clone())], "create start started arm armed logs", said);
    }
    let way = "create start started setup logs";
    check(MakeKind::Template(TemplateKind::Instance), &[("setup", full.clone())], way, storage);
    check(MakeKind::Template(TemplateKind::Instance), &[("setup", alone)], way, "Bake(\"small\") made=true: no route");
    let way = "beginregister claim-e1 thaw credentials logs";
    let claimed = [("thaw", full), ("credentials", Registered(None))];
    check(claim(Some("e1")), &claimed, way, "Standby(\"small\") made=true: full");
    // GitHub is heard first, and what it gave goes back; or may be there all the same.
    for (came, left) in [
        (Deregistered(Deletion::Deleted), ""),
        (Deregistered(Deletion::Gone), ""),
        (Deregistered(Deletion::Busy), " left 7"),
        (refused(), " left 7"),
    ] {
        let gives = |at: &'static str| [(at, no()), ("credentials", registered()), ("takeback-7", came.clone())];
        let said = format!("Class(\"small\") made=true{left}: no");
        check(image(), &gives("arm"), &format!("{set_up} arm credentials takeback-7 logs"), &said);
        let said = format!("Template(\"small\") made=true{left}: no");
        check(copy(), &gives("arm"), &format!("{begin} arm credentials takeback-7 logs"), &said);
        let way = "beginregister claim-e1 thaw credentials takeback-7 logs";
        check(claim(Some("e1")), &gives("thaw"), way, &format!("Standby(\"small\") made=true{left}: no"));
    }
    let back = ("takeback-7", Deregistered(Deletion::Deleted));
    let rest = ["note-7", "openfiles", "armed", "handover"];
    for (at, step) in rest.iter().enumerate().filter(|(_, step)| **step != "openfiles") {
        let way = format!("{set_up} arm credentials {} takeback-7", rest[..=at].join(" "));
        let answers = |came: Answer| [("credentials", registered()), (*step, came), back.clone()];
        check(image(), &answers(no()), &format!("{way} logs"), "Class(\"small\") made=true: no");
        let then = |came: Answer| [answers(silence()).as_slice(), &[("look-answers", came)]].concat();
        check(image(), &then(silence()), &format!("{way} look-answers"), "Host made=true: silence");
        // LXD answers something else: it is this instance that does not work.
        let hung = There(there(Phase::Provisioning, Maker::Us));
        let said = "Class(\"small\") made=true: silence";
        check(image(), &then(hung), &format!("{way} look-answers logs"), said);
        check(image(), &then(Gone), &format!("{way} look-answers"), said);
        check(image(), &then(no()), &format!("{way} look-answers"), said);
    }
    let hung = [
        ("thaw", silence()),
        ("credentials", registered()),
        ("takeback-7", Deregistered(Deletion::Deleted)),
        ("look-answers", There(there(Phase::Provisioning, Maker::Us))),
    ];
    let way = "beginregister claim-e1 thaw credentials takeback-7 look-answers logs";
    check(claim(Some("e1")), &hung, way, "Standby(\"small\") made=true: silence");
    // GitHub is not asked before the set-up has ended.
    let package = [("setup", NoPackage("none".to_owned()))];
    for what in [image(), MakeKind::Template(TemplateKind::Instance)] {
        check(what, &package, "create start started setup logs", "Package(X64) made=true: none");
    }
}

#[test]
fn what_was_changed_while_it_was_made_is_not_called_ready() {
    let bake = "create start started setup seal look-tofinish";
    let said = "Bake(\"small\") made=true: the instance was changed or removed by somebody else while it was made";
    for found in [
        Gone,
        There(there(Phase::Baking, Maker::Dead)),
        There(there(Phase::Baking, Maker::Unknown)),
        There(there(Phase::Template, Maker::Us)),
    ] {
        check(MakeKind::Template(TemplateKind::Instance), &[("look-tofinish", found)], &format!("{bake} logs"), said);
    }
    let ours = ("look-tofinish", There(there(Phase::Baking, Maker::Us)));
    check(
        MakeKind::Template(TemplateKind::Instance),
        &[ours.clone(), ("finish-e2", Changed)],
        &format!("{bake} finish-e2 logs"),
        said,
    );
    let said = "Bake(\"small\") made=true: no";
    check(
        MakeKind::Template(TemplateKind::Instance),
        &[ours, ("finish-e2", no())],
        &format!("{bake} finish-e2 logs"),
        said,
    );
    let way = "create start started arm armed settle freeze look-tofinish logs";
    check(MakeKind::Standby, &[("look-tofinish", no())], way, "Standby(\"small\") made=true: no");
    let way = "create start started arm armed settle freeze look-answers";
    check(MakeKind::Standby, &[("freeze", silence()), ("look-answers", silence())], way, "Host made=true: silence");
}

#[test]
fn a_template_that_is_an_image_is_published_from_what_is_ours_which_then_goes() {
    #[track_caller]
    fn check_image(answers: &[(&str, Answer)], steps: &str, expected: &str) {
        let steps = format!("create start started setup seal look-tofinish{steps}");
        check(MakeKind::Template(TemplateKind::Image), answers, &steps, expected);
    }
    let baking = |maker: Maker| There(there(Phase::Baking, maker));
    let ours = ("look-tofinish", baking(Maker::Us));
    let published = ("publish", Published("f9".to_owned()));
    let to_drop = |came: Answer| [ours.clone(), published.clone(), ("look-todrop", came)];
    check_image(&to_drop(baking(Maker::Us)), " publish look-todrop drop", "published f9 left=false");
    let stolen = "Bake(\"small\") made=true: the instance was changed or removed by somebody else while it was made";
    check_image(&[("look-tofinish", baking(Maker::Dead))], " logs", stolen);
    check_image(&[ours.clone(), ("publish", no())], " publish logs", "Bake(\"small\") made=true: no");
    let mute = [ours.clone(), ("publish", silence()), ("look-answers", silence())];
    check_image(&mute, " publish look-answers", "Host made=true: silence");
    // The image is there: what becomes of the instance does not matter to it.
    check_image(&to_drop(Gone), " publish look-todrop", "published f9 left=false");
    for came in [no(), silence(), baking(Maker::Unknown), There(there(Phase::Started, Maker::Us))] {
        check_image(&to_drop(came), " publish look-todrop", "published f9 left=true");
    }
    let left = [to_drop(baking(Maker::Us)).to_vec(), vec![("drop", no())]].concat();
    check_image(&left, " publish look-todrop drop", "published f9 left=true");
}

#[test]
fn an_answer_to_another_question_is_a_failure() {
    let said = "Class(\"small\") made=true: Start was answered with Gone";
    check(image(), &[("start", Gone)], "create start logs", said);
}
