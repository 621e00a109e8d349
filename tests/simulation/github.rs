//! GitHub as far as decisions meet it: jobs, runners, and listings that may lag or lie. Rows are never deleted, so that
//! a listing can be given as it was a while ago.

use lxdrunner::model::{Job, JobId, JobStatus, Labels, RunOrigin, Runner, RunnerId, Scope, Timestamp};

pub const REPOS: [&str; 3] = ["acme/app", "acme/lib", "alice/tool"];

pub fn scope_of(repo: usize) -> Scope {
    if repo == 2 { "repo:alice/tool".parse().unwrap() } else { Scope::Org("acme".to_owned()) }
}

pub struct JobRow {
    pub id: u64,
    /// The job that it is, or is a repetition of.
    pub run: u64,
    pub repo: usize,
    pub labels: Vec<&'static str>,
    pub created: u64,
    /// When, and by which runner.
    pub taken: Option<(u64, String, u64)>,
    pub done: Option<u64>,
    /// From a stranger's fork.
    pub fork: bool,
    /// Its run is in a state that the listings do not have.
    pub hidden: bool,
}

impl JobRow {
    pub fn ours(&self) -> bool {
        self.labels.first() == Some(&"self-hosted") && !self.fork
    }

    pub fn origin(&self) -> RunOrigin {
        match self.fork {
            true => RunOrigin::Fork { from: "bob/app".to_owned(), trust: Err("bob is a stranger".to_owned()) },
            false => RunOrigin::Own,
        }
    }

    pub fn at(&self, time: u64) -> Job {
        let taken = self.taken.as_ref().filter(|(at, ..)| *at <= time);
        Job {
            id: JobId(self.id),
            run_id: self.run,
            repo: REPOS[self.repo].parse().unwrap(),
            public: Some(false),
            labels: self.labels.iter().collect(),
            status: match (taken, self.done.is_some_and(|at| at <= time)) {
                (_, true) => JobStatus::Completed,
                (Some(_), false) => JobStatus::InProgress,
                (None, false) => JobStatus::Queued,
            },
            runner_name: taken.map(|(_, name, _)| name.clone()),
            runner_id: taken.map(|(_, _, id)| RunnerId(*id)),
            created_at: Some(Timestamp(self.created)),
            name: format!("job {}", self.id),
        }
    }
}

pub struct RunnerRow {
    pub id: u64,
    pub scope: Scope,
    pub name: String,
    pub labels: Labels,
    pub made: u64,
    /// The daemon that registered it; `None`: somebody else.
    pub by: Option<usize>,
    pub online: Option<u64>,
    pub offline: Option<u64>,
    /// From when until when it has no network.
    pub away: Option<(u64, u64)>,
    pub job: Option<(u64, u64)>,
    pub gone: Option<u64>,
    /// GitHub calls it idle whatever it does.
    pub mistaken: bool,
}

impl RunnerRow {
    pub fn busy(&self, time: u64) -> bool {
        self.job.is_some_and(|(at, _)| at <= time) && self.offline.is_none_or(|at| at > time)
    }

    pub fn is_online(&self, time: u64) -> bool {
        let away = self.away.is_some_and(|(from, until)| from <= time && time < until);
        self.online.is_some_and(|at| at <= time) && self.offline.is_none_or(|at| at > time) && !away
    }
}

#[derive(Default)]
pub struct GitHub {
    pub jobs: Vec<JobRow>,
    pub runners: Vec<RunnerRow>,
}

impl GitHub {
    pub fn job(&mut self, id: u64) -> &mut JobRow {
        self.jobs.iter_mut().find(|j| j.id == id).unwrap()
    }

    pub fn runner(&mut self, id: u64) -> &mut RunnerRow {
        self.runners.iter_mut().find(|r| r.id == id).unwrap()
    }

    pub fn named(&self, scope: &Scope, name: &str) -> Option<u64> {
        self.runners.iter().find(|r| r.gone.is_none() && r.scope == *scope && r.name == name).map(|r| r.id)
    }

    pub fn register(&mut self, scope: &Scope, name: &str, labels: &Labels, by: Option<usize>, now: u64) -> u64 {
        let id = 5000 + self.runners.len() as u64;
        let (scope, name, labels) = (scope.clone(), name.to_owned(), labels.clone());
        self.runners.push(RunnerRow {
            id,
            scope,
            name,
            labels,
            made: now,
            by,
            online: None,
            offline: None,
            away: None,
            job: None,
            gone: None,
            mistaken: false,
        });
        id
    }

    /// Every job of the repository that is open at `time`.
    pub fn open_jobs(&self, repo: usize, time: u64) -> Vec<Job> {
        let known = self.jobs.iter().filter(|j| j.repo == repo && j.created <= time && !j.hidden);
        known.map(|j| j.at(time)).filter(|j| j.status != JobStatus::Completed).collect()
    }

    /// The runners as they were at `time`. `lie`: a runner that has been busy for a while is called idle.
    pub fn list(&self, scope: &Scope, time: u64, lie: bool) -> Vec<Runner> {
        let there = |r: &&RunnerRow| r.scope == *scope && r.made <= time && r.gone.is_none_or(|at| at > time);
        let row = |r: &RunnerRow| Runner {
            id: RunnerId(r.id),
            name: r.name.clone(),
            online: r.is_online(time),
            busy: r.busy(time) && !r.mistaken && !(lie && self.may_lie(r, time)),
            labels: r.labels.clone(),
        };
        self.runners.iter().filter(there).map(row).collect()
    }

    pub fn may_lie(&self, runner: &RunnerRow, time: u64) -> bool {
        runner.job.is_some_and(|(at, _)| at + 60_000 < time)
    }

    /// Pairs of a queued job and a runner that could take it now.
    pub fn matches(&self, now: u64) -> Vec<(u64, u64)> {
        let mut pairs = Vec::new();
        for job in self.jobs.iter().filter(|j| j.taken.is_none() && j.done.is_none() && j.ours()) {
            let labels: Labels = job.labels.iter().collect();
            let able = |r: &&RunnerRow| {
                r.gone.is_none() && r.is_online(now) && r.job.is_none() && r.scope == scope_of(job.repo)
            };
            let able = self.runners.iter().filter(able).filter(|r| r.labels.can_serve(&labels));
            pairs.extend(able.map(|r| (job.id, r.id)));
        }
        pairs
    }
}
