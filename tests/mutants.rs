//! Proof that the proof works: each mutant takes a rule that keeps jobs or instances safe out of a copy of the tree, where the
//! simulation, or a table beside the modules, must fail. It takes a build for each, so it runs only with
//! `LXDRUNNER_MUTANTS=all cargo test --test mutants -- --nocapture`; CI runs some of them, others each day. Without it, only
//! that every mutant still fits the code is checked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Stories that a mutant has to survive: as many as CI plays.
const SEEDS: &str = "2300";

/// A rule taken out.
struct Mutant {
    rule: &'static str,
    file: &'static str,
    /// Stands in the file exactly once.
    from: &'static str,
    to: &'static str,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        rule: "a busy runner stays",
        file: "src/plan/remove.rs",
        from: "                RunnerState::Busy => None,",
        to: "                RunnerState::Busy => Some(RemoveReason::Finished),",
    },
    Mutant {
        rule: "what took a job is busy, whatever GitHub lists",
        file: "src/world/snapshot.rs",
        from: "                (Some(_), _) if instance.took_job => RunnerState::Busy,\n",
        to: "",
    },
    Mutant {
        rule: "a listing of LXD that failed is not an empty one",
        file: "src/world/snapshot.rs",
        from: "                self.lxd = Some(Err(reason));",
        to: "                self.fold_instances(snapshot.begun, Vec::new(), now);\n                self.lxd = Some(Ok(now));",
    },
    Mutant {
        rule: "a listing of runners that failed is not an empty one",
        file: "src/world/snapshot.rs",
        from: "                    self.scopes.entry(scope).or_default().runners = None;",
        to: "                    self.fold_runners(begun, scope, Vec::new(), now);",
    },
    Mutant {
        rule: "what is under way is not begun again",
        file: "src/world/mod.rs",
        from: "        self.flights.insert(action.flight(), action.clone());\n",
        to: "",
    },
    Mutant {
        rule: "only names that only we give are ours",
        file: "src/plan/remove.rs",
        from: "            let ours = parse_name(&config.prefix, name).is_some_and(|named| named != Named::Template);",
        to: "            let ours = name.starts_with(&config.prefix) || parse_name(\"\", name) == Some(Named::Template);",
    },
    Mutant {
        rule: "a registration goes only after it was offline for long",
        file: "src/plan/remove.rs",
        from: "is_some_and(|at| listed.since(*at) > config.provision_timeout);",
        to: "is_some_and(|at| listed.since(*at) > std::time::Duration::ZERO || listed == *at);",
    },
    Mutant {
        rule: "supply is counted, jobs and instances are not paired",
        file: "src/plan/launch.rs",
        from: "        let covered = supply.min(jobs.len());",
        to: "        let covered = jobs.iter().filter(|j| stock.live_for.contains(&j.job.id)).count().min(supply);",
    },
    Mutant {
        rule: "a runner that is done is no supply",
        file: "src/plan/stock.rs",
        from: "            RunnerState::Done(_) => false,",
        to: "            RunnerState::Done(_) => true,",
    },
    Mutant {
        rule: "a runner that never comes is no supply",
        file: "src/plan/stock.rs",
        from: "                now.since(instance.started_at.unwrap_or(instance.first_seen)) < config.provision_timeout",
        to: "                true",
    },
    Mutant {
        rule: "an older listing does not bring back what is gone",
        file: "src/world/snapshot.rs",
        from: "self.gone.get(&seen.name).is_some_and(|at| *at > begun)",
        to: "self.gone.get(&seen.name).is_some_and(|at| *at > now.0)",
    },
    Mutant {
        rule: "what was touched since a look began is left alone",
        file: "src/world/snapshot.rs",
        from: "                Some(known) if known.touched > begun => {}\n",
        to: "",
    },
    Mutant {
        rule: "a late delivery does not revive a job that is over",
        file: "src/world/fold.rs",
        from: "        if self.over.contains_key(&job.id) {\n            return;\n        }\n        let seq",
        to: "        let seq",
    },
    Mutant {
        rule: "the cap is a cap",
        file: "src/plan/launch.rs",
        from: "            if self.stock.total >= self.config.max_workers {",
        to: "            if self.stock.total > self.config.max_workers {",
    },
    Mutant {
        rule: "what another process makes is left to it",
        file: "src/plan/remove.rs",
        from: "                Maker::Dead if alone && runners_known => Some(RemoveReason::Abandoned),",
        to: "                Maker::Dead | Maker::Other | Maker::Unknown if alone && runners_known => Some(RemoveReason::Abandoned),",
    },
    Mutant {
        rule: "what a dead process left half-made goes",
        file: "src/plan/remove.rs",
        from: "                Maker::Dead if alone && runners_known => Some(RemoveReason::Abandoned),\n",
        to: "",
    },
    Mutant {
        rule: "a surplus idle runner goes",
        file: "src/plan/remove.rs",
        from: "            return Some(RemoveReason::Idle);\n        }\n        let kept",
        to: "            return None;\n        }\n        let kept",
    },
    Mutant {
        rule: "a runner that does not come online goes",
        file: "src/plan/remove.rs",
        from: "                    (runners_known && waited > config.provision_timeout).then_some(RemoveReason::NeverOnline)",
        to: "                    (runners_known && waited > config.max_lifetime).then_some(RemoveReason::NeverOnline)",
    },
    Mutant {
        rule: "what GitHub refuses to deregister (422) stays",
        file: "src/steps/removal.rs",
        from: "Next::End(Outcome::Kept { why: \"GitHub says that it runs a job\".to_owned() })",
        to: "self.end()",
    },
    Mutant {
        rule: "what has not our owner key is left alone",
        file: "src/steps/removal.rs",
        from: "found.owner.as_ref() == Some(&self.prefix)",
        to: "found.owner.as_ref().is_none_or(|owner| *owner == self.prefix)",
    },
    Mutant {
        rule: "what was made at another time is not what was judged",
        file: "src/steps/removal.rs",
        from: ".is_some_and(|(judged, found)| judged != found)",
        to: ".is_some_and(|(judged, found)| judged > found)",
    },
    Mutant {
        rule: "a half-made instance of another process is claimed before it goes",
        file: "src/steps/removal.rs",
        from: "            _ if abandoned && found.maker != Maker::Us => Next::Take(Step::Claim { etag, phase }),\n",
        to: "",
    },
    Mutant {
        rule: "a standby is claimed before it goes",
        file: "src/steps/removal.rs",
        from: "            Phase::Standby => Next::Take(Step::Claim { etag, phase: Phase::Preparing }),\n",
        to: "",
    },
    Mutant {
        rule: "a standby that was claimed for a runner stays",
        file: "src/steps/removal.rs",
        from: "            return changed(\"it was claimed meanwhile\");\n",
        to: "",
    },
    Mutant {
        rule: "a registration that nobody will come for is taken back",
        file: "src/steps/making.rs",
        from: "self.registered.map_or_else(|| self.settle(), |runner| Next::Take(Step::TakeBack(runner)))",
        to: "self.settle()",
    },
    Mutant {
        rule: "what has another's name at GitHub goes at once",
        file: "src/steps/making.rs",
        from: "            Some(Stop::Clash(_)) => Next::Take(Step::Drop(RemoveReason::Abandoned)),\n",
        to: "",
    },
    Mutant {
        rule: "only a standby is claimed for a runner",
        file: "src/steps/making.rs",
        from: "        if found.owner.as_ref() != Some(&self.prefix) || found.phase != Phase::Standby {\n",
        to: "        if found.owner.as_ref() != Some(&self.prefix) {\n",
    },
    Mutant {
        rule: "a virtual machine is thawed before it is claimed",
        file: "src/steps/making.rs",
        from: "                Some(Some(_)) if self.virtual_machine => Step::ThawUnclaimed,\n",
        to: "",
    },
    Mutant {
        rule: "a virtual machine is called a standby before it is frozen",
        file: "src/steps/making.rs",
        from: "            (_, Step::Settle) if !self.virtual_machine => Step::Freeze,\n",
        to: "            (_, Step::Settle) => Step::Freeze,\n            (_, Step::Freeze) => Step::Look(Why::ToFinish),\n",
    },
    Mutant {
        rule: "what runs is looked into first",
        file: "src/steps/removal.rs",
        from: "            Status::Running if self.judged.reason != RemoveReason::TooOld => Next::Take(Step::LookInside),\n",
        to: "",
    },
    Mutant {
        rule: "a process of another boot of this machine is dead",
        file: "src/identity.rs",
        from: "        false => on_hosts || same_machine,",
        to: "        false => same_machine && !on_hosts,",
    },
    Mutant {
        rule: "LXD does not start again what ran before a reboot",
        file: "src/steps/mod.rs",
        from: "    let all = [(\"boot.autostart\", \"false\")].into_iter().chain(evacuate);",
        to: "    let all = evacuate.into_iter();",
    },
    Mutant {
        rule: "nothing is made of a template that goes",
        file: "src/plan/remove.rs",
        from: "        if self.planner.stock.copied.contains(instance.seen.name.as_str()) || instance.is_anothers() {",
        to: "        if instance.is_anothers() {",
    },
    Mutant {
        rule: "a job whose runner ended is asked for before it is launched for again",
        file: "src/plan/stock.rs",
        from: "                    (Some(doubt), _) => plan.deferred.push((id, Reason::Asked(doubt.clone()))),\n",
        to: "",
    },
    Mutant {
        rule: "another daemon's idle runner does not make room",
        file: "src/plan/ready.rs",
        from: "let spared = left_alone || instance.is_anothers();",
        to: "let spared = left_alone;",
    },
    Mutant {
        rule: "another daemon's runners go by its own timeouts",
        file: "src/plan/remove.rs",
        from: "        let anothers = instance.is_anothers();",
        to: "        let anothers = false;",
    },
    Mutant {
        rule: "a job that is not listed is asked for before it is called over",
        file: "src/world/snapshot.rs",
        from: "for_each(|job| self.job_is_not_listed(job));",
        to: "for_each(|job| self.job_is_over(job, now));",
    },
];

/// Rules that the tables beside the modules hold: the simulation cannot tell a job that waits a little longer, or an alert.
const OF_TABLES: &[Mutant] = &[
    Mutant {
        rule: "where nobody could look inside, an idle runner stays",
        file: "src/steps/removal.rs",
        from: "if matches!(self.judged.reason, Idle | Stale | Unassigned | MakesRoom) || self.seems_finished() =>",
        to: "if matches!(self.judged.reason, Idle | Stale | Unassigned | MakesRoom) && self.quiet =>",
    },
    Mutant {
        rule: "another daemon has its time from its claim on",
        file: "src/plan/remove.rs",
        from: "let had = now.since(instance.begun_at);",
        to: "let had = age;",
    },
    Mutant {
        rule: "another daemon has its time from its last note of progress on",
        file: "src/world/snapshot.rs",
        from: "if seen.phase != known.seen.phase || seen.progress != known.seen.progress {",
        to: "if seen.phase != known.seen.phase {",
    },
    Mutant {
        rule: "a template goes only where its image works",
        file: "src/plan/stock.rs",
        from: "entry.failures >= BROKEN && entry.alone)",
        to: "entry.failures >= BROKEN)",
    },
    Mutant {
        rule: "a template of another class does not end the failures to bake",
        file: "src/world/templates.rs",
        from: "i.seen.phase == Phase::Template && i.seen.class == class.name && i.seen.recipe == state.wanted",
        to: "i.seen.phase == Phase::Template && i.seen.recipe == state.wanted",
    },
    Mutant {
        rule: "one launch tries for each thing that failed, whatever else is launched",
        file: "src/plan/launch.rs",
        from: "self.world.failures.is_shaky(subject) && self.stock.tried.contains(subject);",
        to: "self.world.failures.is_shaky(subject) && self.stock.launching > 0;",
    },
    Mutant {
        rule: "what fails for one scope is tried once for all its classes",
        file: "src/plan/stock.rs",
        from: "    let mut needs = vec![Subject::Host, Subject::Scope(scope.clone())];",
        to: "    let mut needs = vec![Subject::Host];\n    let _ = scope;",
    },
    Mutant {
        rule: "a removal that is under way makes room for one job of its class",
        file: "src/plan/ready.rs",
        from: "            *wanted = wanted.saturating_sub(coming);",
        to: "            *wanted = wanted.saturating_sub(coming.min(0));",
    },
    Mutant {
        rule: "making room leaves workers for launches",
        file: "src/plan/ready.rs",
        from: "            if self.stock.removing >= REMOVALS_AT_ONCE {",
        to: "            if self.stock.removing >= 100 * REMOVALS_AT_ONCE {",
    },
    Mutant {
        rule: "what is done goes before what is idle",
        file: "src/plan/remove.rs",
        from: "        RunnerState::Idle(since) => (1, since),",
        to: "        RunnerState::Idle(since) => (0, since),",
    },
    Mutant {
        rule: "an idle runner that gets no job is replaced once",
        file: "src/plan/remove.rs",
        from: "entry.is_some_and(|entry| entry.failures == 1 && was_there(entry))",
        to: "entry.is_some_and(|entry| entry.failures > 0 && (was_there(entry) || entry.failures > 1))",
    },
    Mutant {
        rule: "GitHub answers before another instance is made for a registration that failed",
        file: "src/world/failures.rs",
        from: "                entry.until.max(entry.failed_at().after(MINUTE))",
        to: "                entry.until",
    },
    Mutant {
        rule: "failures while it is paused do not move the pause",
        file: "src/world/failures.rs",
        from: "            Some(entry) if paused => entry.until,\n",
        to: "",
    },
    Mutant {
        rule: "a package that is not there is fetched before anything is made of it",
        file: "src/world/outcome.rs",
        from: "            self.packages.remove(arch);\n            self.find_recipes();",
        to: "            let _ = arch;",
    },
    Mutant {
        rule: "a template that somebody else baked ends the failures to bake it",
        file: "src/world/snapshot.rs",
        from: "        self.find_baked();\n",
        to: "",
    },
    Mutant {
        rule: "what is known of a target goes with it",
        file: "src/world/snapshot.rs",
        from: "        scopes.retain(|scope, _| served(scope));\n",
        to: "",
    },
    Mutant {
        rule: "what was told of an earlier runner of a name is not the new one's",
        file: "src/world/instance.rs",
        from: "        if earlier && !self.seen_busy {",
        to: "        if earlier & false {",
    },
    Mutant {
        rule: "an end that may be an earlier runner's removes nothing before the instance's own had time",
        file: "src/plan/remove.rs",
        from: "let after = if instance.may_be_misnamed() { config.provision_timeout } else { POWER_OFF };",
        to: "let after = POWER_OFF;",
    },
    Mutant {
        rule: "a name that a job in progress is said to run on is not given again",
        file: "src/plan/launch.rs",
        from: "    known.chain(at_work).chain(runners)",
        to: "    drop(at_work);\n    known.chain(runners)",
    },
    Mutant {
        rule: "a removal that LXD refuses for a moment is not stuck",
        file: "src/world/failures.rs",
        from: "            Subject::Removal(_) => HALF_A_MINUTE,\n",
        to: "            Subject::Removal(_) => HALF_A_MINUTE / 30,\n",
    },
    Mutant {
        rule: "packages are fetched one after the other",
        file: "src/plan/mod.rs",
        from: "                self.plan.actions.push(Action::FetchPackage { arch, scope: scope.clone() });\n                return;",
        to: "                self.plan.actions.push(Action::FetchPackage { arch, scope: scope.clone() });",
    },
    Mutant {
        rule: "a listing counts for the moment at which it was asked for",
        file: "src/world/snapshot.rs",
        from: "            let unheard = asked_at.since(job.heard_at) > LISTING_LAG;",
        to: "            let unheard = now.since(job.heard_at) > LISTING_LAG;",
    },
    Mutant {
        rule: "a late waiting takes no job out of the queue",
        file: "src/world/fold.rs",
        from: "                if !self.jobs.get(&job.id).is_some_and(heard) {",
        to: "                if self.jobs.get(&job.id).is_none_or(|j| heard(j) || !heard(j)) {",
    },
    Mutant {
        rule: "a job that waits beside an idle runner for minutes is asked for",
        file: "src/plan/mod.rs",
        from: "    actions.extend(not_taken.filter(|state| idle(Flight::Job(state.job.id))).map(look_up));",
        to: "    drop(not_taken);",
    },
    Mutant {
        rule: "a standby that works ends the trouble of those that did not",
        file: "src/world/templates.rs",
        from: "let of_class = [Subject::Standby, Subject::Template, Subject::Network, Subject::Storage];",
        to: "let of_class = [Subject::Template, Subject::Network, Subject::Storage];",
    },
    Mutant {
        rule: "a launch that works ends the trouble of its class, whatever it was made from",
        file: "src/world/outcome.rs",
        from: "        self.recovered(&Subject::Class(class()));\n        match",
        to: "        match",
    },
    Mutant {
        rule: "a runner package that is not there is trouble",
        file: "src/world/failures.rs",
        from: "            Subject::Package(_) | Subject::Storage(_) => (0, MINUTE, 1, true),",
        to: "            Subject::Package(_) => (0, MINUTE, NEVER, true),\n            Subject::Storage(_) => (0, MINUTE, 1, true),",
    },
    Mutant {
        rule: "a question of fork origin that fails is recorded",
        file: "src/world/guard.rs",
        from: "                if self.failures.failed(Subject::ForkOrigin(key.0), &reason, now).news {",
        to: "                if now.0 > 0 {",
    },
    Mutant {
        rule: "what is found to be another instance again and again is tried with growing pauses",
        file: "src/world/outcome.rs",
        from: "                        self.failures.failed(Subject::Removal(name.to_owned()), &why, now);",
        to: "                        self.failures.worked(&Subject::Removal(name.to_owned()));",
    },
    Mutant {
        rule: "a claimed standby is a supply from its claim on",
        file: "src/plan/stock.rs",
        from: "            alive && now.since(instance.begun_at) < config.provision_timeout",
        to: "            alive && now.since(instance.made_at) < config.provision_timeout",
    },
    Mutant {
        rule: "a job that names a runner group only goes to the class that has one",
        file: "src/world/matching.rs",
        from: "    if labels.is_empty() {\n        return class_of_group(classes, repo);\n    }\n",
        to: "",
    },
    Mutant {
        rule: "two virtual machines are not unpacked of one image at a time",
        file: "src/plan/ready.rs",
        from: " || self.unpacks(class) {",
        to: " {",
    },
    Mutant {
        rule: "runners that do not come online again and again are trouble",
        file: "src/world/failures.rs",
        from: "            Subject::Online(_) => (0, TEN_MINUTES, 2, false),",
        to: "            Subject::Online(_) => (0, TEN_MINUTES, NEVER, false),",
    },
    Mutant {
        rule: "the age of a look counts answers",
        file: "src/world/mod.rs",
        from: "        self.github_answered_at\n    }",
        to: "        self.github_look.ended_at\n    }",
    },
    Mutant {
        rule: "a full pool is no failure of the template",
        file: "src/steps/making.rs",
        from: "            (Fault::Storage, _) => Subject::Storage(class),\n",
        to: "            (Fault::Storage, _) => self.blame(),\n",
    },
    Mutant {
        rule: "where copies get no network the image is tried before the template is doubted",
        file: "src/plan/launch.rs",
        from: "template.filter(|_| !doubted && self.works(",
        to: "template.filter(|_| doubted | true && self.works(",
    },
];

/// The tree with one text replaced, below the directory that cargo gives tests.
fn apply(mutant: &Mutant, tree: &Path) {
    let text = std::fs::read_to_string(mutant.file).unwrap();
    std::fs::write(tree.join(mutant.file), text.replacen(mutant.from, mutant.to, 1)).unwrap();
}

/// Copies what a build of the simulation needs. Files that are the same stay as they are, so that cargo sees no change.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        let content = std::fs::read(from).unwrap();
        if std::fs::read(to).ok().as_ref() != Some(&content) {
            std::fs::write(to, content).unwrap();
        }
    }
}

fn fresh(tree: &Path) {
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "provision",
        "tests/simulation",
        "tests/standin",
        "tests/fixtures",
        "config.yml.example",
        "README.md",
    ] {
        let to = tree.join(part);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        copy(Path::new(part), &to);
    }
    // The simulation needs no program, and building one takes time.
    std::fs::remove_file(tree.join("src/main.rs")).unwrap();
}

/// Runs the simulation in `tree`: whether it passed, and its last words. What it depends on is built already.
fn simulate(tree: &Path, seeds: &str) -> (bool, String) {
    test(tree, seeds, &["--test", "simulation", "--", "every_job"])
}

/// Runs these tests in `tree`, as [`simulate`] does.
fn test(tree: &Path, seeds: &str, which: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--quiet"])
        .args(["--config", "profile.dev.package.lxdrunner.opt-level=1"])
        .args(["--config", "profile.dev.package.lxdrunner.debug=false"])
        .args(which)
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
        .env("RUST_BACKTRACE", "0")
        .env("SEEDS", seeds)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// What noticed the mutant: a seed, or a test.
fn verdict(said: &str) -> String {
    let tells = |line: &&str| line.starts_with("seed ") || line.ends_with(" stdout ----") || line.contains("error:");
    let line = said.lines().find(tells).unwrap_or("it failed without naming a seed or a test");
    line.trim_matches(['-', ' ']).trim_end_matches(" stdout").to_owned()
}

/// All of these; some, others each day; or those whose rule has these words.
fn chosen<'a>(mutants: &'a [Mutant], which: &str) -> Vec<&'a Mutant> {
    if let Ok(some) = which.parse::<usize>() {
        let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
        return mutants
            .iter()
            .cycle()
            .skip(day as usize * some % mutants.len())
            .take(some.min(mutants.len()))
            .collect();
    }
    mutants.iter().filter(|mutant| which == "all" || mutant.rule.contains(which)).collect()
}

#[test]
fn every_mutant_still_fits_the_code() {
    for mutant in MUTANTS.iter().chain(OF_TABLES) {
        let text = std::fs::read_to_string(mutant.file).unwrap_or_else(|e| panic!("{}: {e}", mutant.file));
        let places = text.matches(mutant.from).count();
        assert_eq!(places, 1, "{}: {:?} stands {places} times in {}", mutant.rule, mutant.from, mutant.file);
        assert_ne!(mutant.from, mutant.to);
    }
}

#[test]
fn every_mutant_is_caught() {
    let Ok(which) = std::env::var("LXDRUNNER_MUTANTS") else {
        println!("skipped: it takes minutes; LXDRUNNER_MUTANTS=all runs it, LXDRUNNER_MUTANTS=5 runs five of them");
        return;
    };
    let tree = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    fresh(&tree);
    let mut survivors = Vec::new();
    let mut meet = |mutant: &'static Mutant, run: &dyn Fn() -> (bool, String)| {
        fresh(&tree);
        apply(mutant, &tree);
        let begun = Instant::now();
        let (survives, said) = run();
        assert!(survives || !said.contains("could not compile"), "{}: it does not compile:\n{said}", mutant.rule);
        let verdict = if survives { "SURVIVES".to_owned() } else { verdict(&said) };
        println!("{:<80} {verdict} ({:.0} s)", mutant.rule, begun.elapsed().as_secs_f64());
        if survives {
            survivors.push(mutant.rule);
        }
    };
    let by_stories = chosen(MUTANTS, &which);
    let by_tables = chosen(OF_TABLES, if which == "tables" { "all" } else { &which });
    let met = by_stories.len() + by_tables.len();
    if !by_stories.is_empty() {
        // That all stories end well without a mutant is for others to show.
        let (passes, said) = simulate(&tree, "20");
        assert!(passes, "the simulation fails without any mutant:\n{said}");
    }
    for mutant in by_stories {
        meet(mutant, &|| simulate(&tree, SEEDS));
    }
    for mutant in by_tables {
        meet(mutant, &|| test(&tree, "1", &["--lib", "--", "plan::", "report::", "steps::", "world::"]));
    }
    fresh(&tree);
    println!("{} of {met} mutants survive", survivors.len());
    assert!(survivors.is_empty(), "nothing notices that we forget: {survivors:?}");
}
