//! A small stage for tests of decisions: a config, a world, a clock, and short ways to say what happens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{Class, Config, GitHubConfig, ImageRef, Registration};
use crate::identity::Maker;
use crate::model::{InstanceStatus, InstanceType, JobStatus, Labels, RunnerArch, Secret};

pub fn class(name: &str, labels: &[&str], max_workers: usize) -> Class {
    Class {
        name: name.to_owned(),
        labels: labels.iter().chain(&["self-hosted", "linux", "x64"]).collect(),
        image: ImageRef::Local("img".to_owned()),
        kind: InstanceType::Container,
        arch: RunnerArch::X64,
        profiles: vec!["default".to_owned()],
        inside: Default::default(),
        wait_for: Vec::new(),
        max_workers,
        template: true,
        standby: 0,
        idle: 0,
        config: BTreeMap::new(),
        devices: BTreeMap::new(),
        project: "default".to_owned(),
        target: String::new(),
        runner_group: "Default".to_owned(),
        repos: Default::default(),
    }
}

pub fn config() -> Config {
    Config {
        github: GitHubConfig {
            api: "http://127.0.0.1".to_owned(),
            api_budget: 20,
            credentials: Vec::new(),
            assigned: BTreeMap::new(),
            authorities: Vec::new(),
        },
        hooksecret: Secret::new("s"),
        webhook_url: None,
        placeholders: false,
        targets: vec![Scope::Org("acme".to_owned()), "repo:alice/tool".parse().unwrap()],
        allow_public_repos: false,
        repos: Default::default(),
        fork_policy: None,
        socket: PathBuf::from("/nowhere"),
        prefix: "lxdrunner".to_owned(),
        max_workers: 4,
        polling: false,
        listens: true,
        reconcile_interval: Duration::from_secs(60),
        provision_timeout: Duration::from_secs(300),
        idle_timeout: Duration::from_secs(600),
        ready_max_age: Duration::from_secs(3600),
        max_lifetime: Duration::from_secs(24 * 3600),
        failures_kept: 20,
        registration: Registration::Jit,
        runner_version: None,
        web_host: [127, 0, 0, 1].into(),
        web_port: 0,
        web_tls: crate::config::WebTls::Off,
        web_trusted_proxies: Vec::new(),
        web_allow: None,
        web_metrics: Vec::new(),
        cache_home: PathBuf::from("/nowhere"),
        classes: vec![class("small", &[], 10), class("gpu", &["gpu"], 2)],
    }
}

pub fn job(id: u64, repo: &str, labels: &[&str]) -> Job {
    Job {
        id: JobId(id),
        run_id: id + 1000,
        repo: repo.parse().unwrap(),
        public: Some(false),
        labels: labels.iter().collect::<Labels>(),
        status: JobStatus::Queued,
        runner_name: None,
        runner_id: None,
        created_at: None,
        name: format!("job {id}"),
    }
}

pub fn runner(id: u64, name: &str, online: bool, busy: bool) -> Runner {
    Runner { id: RunnerId(id), name: name.to_owned(), online, busy, labels: Labels::default() }
}

/// An instance that LXD lists: launched for `job` by a process that is no more, its runner started.
pub fn seen(name: &str, job: u64) -> InstanceSeen {
    InstanceSeen {
        name: name.to_owned(),
        project: "default".to_owned(),
        class: "small".to_owned(),
        scope: Some(Scope::Org("acme".to_owned())),
        job: Some(JobId(job)),
        runner_id: Some(RunnerId(job)),
        phase: Phase::Started,
        recipe: None,
        alias: None,
        status: InstanceStatus::Running,
        created_at: None,
        maker: Maker::Dead,
        progress: 0,
    }
}

pub struct Stage {
    pub world: World,
    pub now: Timestamp,
}

impl Stage {
    /// LXD lists nothing, GitHub knows no runner, and the runner package is there.
    pub fn new(config: Config) -> Stage {
        let now = Timestamp(1_000_000_000);
        let world = World::new(Arc::new(config), 1, "scripts");
        let mut stage = Stage { world, now };
        stage.lxd(vec![]);
        for scope in stage.world.config.targets.clone() {
            stage.runners(scope, vec![]);
        }
        let fetch = Action::FetchPackage { arch: RunnerArch::X64, scope: Scope::Org("acme".to_owned()) };
        stage.outcome(fetch, Outcome::PackageReady { version: "2.330.0".to_owned(), life: Default::default() });
        stage
    }

    /// The World's config, for tests that change it.
    pub fn config(&mut self) -> &mut Config {
        Arc::make_mut(&mut self.world.config)
    }

    pub fn fold(&mut self, event: Event) -> Vec<Note> {
        self.world.fold(event, self.now)
    }

    pub fn pass(&mut self, seconds: u64) -> &mut Stage {
        self.now = self.now.after(Duration::from_secs(seconds));
        self
    }

    pub fn queued(&mut self, id: u64) -> Vec<Note> {
        self.fold(Event::Hint(Hint::Job(job(id, "acme/app", &["self-hosted"]))))
    }

    pub fn told(&mut self, id: u64, status: JobStatus, runner: Option<&str>) -> Vec<Note> {
        let runner_name = runner.map(str::to_owned);
        self.fold(Event::Hint(Hint::Job(Job { status, runner_name, ..job(id, "acme/app", &["self-hosted"]) })))
    }

    pub fn snapshot(&mut self, begun: u64, list: Option<Vec<InstanceSeen>>, github: Option<GitHubSeen>) -> Vec<Note> {
        let instances = Some(list.ok_or("LXD is down".to_owned()));
        self.fold(Event::Snapshot(Box::new(Snapshot { begun, instances, images: None, github })))
    }

    pub fn lxd(&mut self, list: Vec<InstanceSeen>) -> Vec<Note> {
        self.snapshot(self.world.seq(), Some(list), None)
    }

    /// A look that finds the instances we know of, these runners and nothing else.
    pub fn runners(&mut self, scope: Scope, runners: Vec<Runner>) -> Vec<Note> {
        self.github(GitHubSeen { runners: vec![(scope, Ok(runners))], ..GitHubSeen::default() })
    }

    /// A look that finds the instances we know of, and these open jobs in acme/app.
    pub fn jobs(&mut self, jobs: Vec<Job>) -> Vec<Note> {
        self.queue(self.world.seq(), self.now, jobs)
    }

    /// The open jobs of acme/app, as they were listed then.
    pub fn queue(&mut self, begun: u64, asked_at: Timestamp, jobs: Vec<Job>) -> Vec<Note> {
        let repo = "acme/app".parse().unwrap();
        self.fold(Event::Queue(Box::new(Queue { repo, begun, asked_at, jobs: Ok(jobs), unasked: BTreeSet::new() })))
    }

    pub fn github(&mut self, github: GitHubSeen) -> Vec<Note> {
        let known = self.world.instances.values().map(|i| i.seen.clone()).collect();
        self.snapshot(self.world.seq(), Some(known), Some(github))
    }

    pub fn outcome(&mut self, action: Action, outcome: Outcome) -> Vec<Note> {
        self.fold(Event::Outcome(action, outcome))
    }

    /// When the last pause is over.
    pub fn paused_until(&self) -> Timestamp {
        self.world.failures.iter().map(|(_, entry)| entry.until).max().unwrap()
    }

    /// What is trouble now, in words.
    pub fn troubles(&self) -> Vec<String> {
        self.world.troubles().map(|(what, _)| what.to_string()).collect()
    }
}

pub fn acme() -> Scope {
    Scope::Org("acme".to_owned())
}
