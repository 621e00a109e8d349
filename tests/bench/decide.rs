//! One turn of the deciding thread: how long the plan and its part of the log take, and that both grow no faster than what
//! they are made from.

use std::sync::Arc;
use std::time::Instant;

use lxdrunner::config::Config;
use lxdrunner::identity::Maker;
use lxdrunner::model::{Hint, InstanceStatus, Job, JobId, JobStatus, Phase, RunnerId, Scope, Timestamp};
use lxdrunner::plan::plan as decide;
use lxdrunner::report::narrate::Narrator;
use lxdrunner::world::{Event, GitHubSeen, InstanceSeen, Snapshot, World};

use crate::figure::{Figure, Table, median};
use crate::support::Scratch;

const CLASSES: usize = 50;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub fn plan(table: &mut Table) {
    // What is logged is put into words, and goes nowhere.
    log::set_boxed_logger(Box::new(Nowhere)).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let config = config();
    let mut took = Vec::new();
    for share in [4, 2, 1] {
        let world = world(&config, 10_000 / share, 2_000 / share);
        let mut rounds = Vec::new();
        for _ in 0..15 {
            let begun = Instant::now();
            let plan = decide(&world, NOW);
            // A reason that is news for all of them: the worst of turns.
            Narrator::default().tell_deferred(&plan.deferred, &world);
            rounds.push(begun.elapsed().as_secs_f64() * 1000.0);
            assert!((plan.deferred.len() + plan.actions.len()) as u64 >= 10_000 / share, "each job has an answer");
        }
        took.push(median(&rounds));
    }
    let what = "turn: plan and log of 10,000 waiting jobs, 2,000 instances, 50 classes";
    table.add(Figure::at_most(what, "ms", took[2], 20.0));
    // Linear would be 4; what is at hand (caches, the allocator) makes more of it.
    table.add(Figure::at_most("turn: the whole, times a quarter of it", "×", took[2] / took[0], 5.0));
    table.add(Figure::plain("turn: a quarter of it", "ms", took[0]));
    table.add(Figure::plain("turn: a half of it", "ms", took[1]));
}

struct Nowhere;

impl log::Log for Nowhere {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        std::hint::black_box(record.args().to_string());
    }

    fn flush(&self) {}
}

fn config() -> Config {
    let classes: String = (0..CLASSES)
        .map(|n| format!("  - {{name: class-{n}, labels: [self-hosted, label-{n}], image: dev, max_workers: 5000}}\n"))
        .collect();
    let text = format!(
        "pat: x\nhooksecret: 0123456789abcdef0123456789abcdef\ntargets: [{{org: a}}, {{org: b}}, {{org: c}}, {{org: d}}]\n\
         socket: /nowhere\nmax_workers: 5000\nrunnermap:\n{classes}"
    );
    let scratch = Scratch::new();
    let path = scratch.0.join("config.yml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap_or_else(|errors| panic!("{errors}")).0
}

/// A busy farm: all instances run jobs, and more jobs are queued than there is room for.
fn world(config: &Config, jobs: u64, instances: u64) -> World {
    let scopes: Vec<Scope> = config.targets.clone();
    let mut world = World::new(Arc::new(config.clone()), 7, "scripts");
    let seen = |n: u64| InstanceSeen {
        name: format!("lxdrunner-{}-1", 1_000_000 + n),
        alias: None,
        project: "default".to_owned(),
        class: format!("class-{}", n % CLASSES as u64),
        scope: Some(scopes[n as usize % scopes.len()].clone()),
        job: Some(JobId(1_000_000 + n)),
        runner_id: Some(RunnerId(n)),
        phase: Phase::Started,
        recipe: None,
        status: InstanceStatus::Running,
        created_at: Some(NOW),
        maker: Maker::Us,
        progress: 0,
    };
    let instances: Vec<InstanceSeen> = (0..instances).map(seen).collect();
    let names: Vec<String> = instances.iter().map(|i| i.name.clone()).collect();
    let github = GitHubSeen { targets: Some(Ok(scopes.clone())), ..GitHubSeen::default() };
    let snapshot = Snapshot { begun: 1, instances: Some(Ok(instances)), github: Some(github), ..Snapshot::default() };
    world.fold(Event::Snapshot(Box::new(snapshot)), NOW);
    let job = |n: u64, status: JobStatus, runner: Option<&String>| {
        let org = ["a", "b", "c", "d"][n as usize % 4];
        let labels = ["self-hosted".to_owned(), format!("label-{}", n % CLASSES as u64)];
        Event::Hint(Hint::Job(Job {
            id: JobId(n),
            run_id: n,
            repo: format!("{org}/repo-{}", n % 100).parse().unwrap(),
            public: Some(false),
            labels: labels.iter().collect(),
            status,
            runner_name: runner.cloned(),
            runner_id: None,
            created_at: Some(NOW),
            name: "build".to_owned(),
        }))
    };
    for n in 0..jobs {
        world.fold(job(n, JobStatus::Queued, None), NOW);
    }
    for (n, name) in names.iter().enumerate() {
        world.fold(job(2_000_000 + n as u64, JobStatus::InProgress, Some(name)), NOW);
    }
    world
}
