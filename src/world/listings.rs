//! Folds looks at LXD and GitHub into the World.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::matching::scope_for;
use super::{
    Doubt, Entry, Flight, GitHubSeen, Instance, InstanceSeen, JOB_LIFETIME, JobState, LISTING_LAG, Note, Queue,
    REMEMBER_OVER, RunnerState, Snapshot, Subject, TookJob, World,
};
use crate::model::{Job, JobId, JobStatus, Phase, Runner, Scope, Timestamp};

impl World {
    pub(super) fn fold_snapshot(&mut self, snapshot: Snapshot, now: Timestamp) {
        let look = if snapshot.github.is_some() { &mut self.github_look } else { &mut self.lxd_look };
        look.under_way = false;
        look.ended_at = Some(now);
        let listed = snapshot.instances.is_some();
        match snapshot.instances {
            // A look of the other kind was begun later and came back sooner: its listing is newer.
            Some(_) if snapshot.begun <= self.listed.0 => {}
            Some(Ok(seen)) => {
                if self.recovered(&Subject::Lxd) {
                    self.recovered(&Subject::Host);
                }
                self.lxd = Some(Ok(now));
                self.fold_instances(snapshot.begun, seen, now);
                self.listed = (snapshot.begun, Some(now));
                self.deleted_instances.retain(|_, at| *at > snapshot.begun);
                self.find_other_configs(now);
            }
            Some(Err(reason)) => {
                self.trouble(Subject::Lxd, &reason, now);
                self.lxd = Some(Err(reason));
            }
            None => {}
        }
        if let Some(images) = snapshot.images {
            self.fold_images(images);
        }
        self.find_baked();
        if let Some(github) = snapshot.github {
            debug_assert!(listed, "instances are listed before runners");
            self.fold_github(snapshot.begun, github, now);
            self.find_unassigned(now);
        }
        self.forget(now);
        self.forget_failures(now);
    }

    /// Records a failure; a note tells it where it is news.
    pub(super) fn trouble(&mut self, what: Subject, reason: &str, now: Timestamp) {
        if self.failures.failed(what.clone(), reason, now).news {
            self.notes.push(Note::Trouble { what, reason: reason.to_owned() });
        }
    }

    /// Records a success; true where the subject failed before.
    pub(super) fn recovered(&mut self, what: &Subject) -> bool {
        let over = self.failures.worked(what);
        if let Some((_, true)) = over {
            self.notes.push(Note::Recovered { what: what.clone() });
        }
        over.is_some()
    }

    pub(super) fn all_recovered(&mut self, what: impl IntoIterator<Item = Subject>) {
        for what in what {
            self.recovered(&what);
        }
    }

    fn fold_instances(&mut self, begun: u64, seen: Vec<InstanceSeen>, now: Timestamp) {
        // It was made since the last look, whatever the clocks of LXD and this host say.
        let not_before = self.listed.1.unwrap_or_default();
        let listed: BTreeSet<String> = seen.iter().map(|i| i.name.clone()).collect();
        for seen in seen {
            if self.deleted_instances.get(&seen.name).is_some_and(|at| *at > begun) {
                continue;
            }
            let another = |known: &Instance| {
                known.touched <= begun && known.seen.created_at.zip(seen.created_at).is_some_and(|(was, is)| was != is)
            };
            if self.instances.get(&seen.name).is_some_and(another) {
                self.instance_is_gone(&seen.name, now);
            }
            match self.instances.get_mut(&seen.name) {
                Some(known) if known.touched > begun => {}
                Some(known) => {
                    let name = seen.name.clone();
                    known.is_listed(seen, now);
                    if known.stopped_since.is_some() {
                        self.runner_ended(&name);
                    }
                }
                None => {
                    let made_at = seen.created_at.unwrap_or(now).max(not_before).min(now);
                    let name = seen.name.clone();
                    let appeared = self.listed.1.is_some();
                    self.instances
                        .insert(name.clone(), Instance { appeared, ..Instance::new(seen, made_at, now, begun) });
                    self.may_have_a_job(&name);
                }
            }
        }
        let gone = |i: &Instance| !listed.contains(&i.seen.name) && i.touched <= begun;
        let gone: Vec<String> = self.instances.values().filter(|i| gone(i)).map(|i| i.seen.name.clone()).collect();
        for name in gone {
            if !self.flights.contains_key(&Flight::Instance(name.clone())) {
                self.idle_runner_ended(&name, now);
                self.instance_is_gone(&name, now);
            }
        }
    }

    pub(super) fn instance_is_gone(&mut self, name: &str, now: Timestamp) {
        self.runner_ended(name);
        let Some(gone) = self.instances.remove(name) else { return };
        if let Some((Entry { failures, .. }, true)) = self.failures.worked(&Subject::Removal(name.to_owned())) {
            self.notes.push(Note::GoneAtLast { instance: gone.label().to_owned(), failures });
        }
        self.deleted_instances.insert(name.to_owned(), self.seq);
        let took_job = match (gone.took_job, gone.started_at) {
            (true, _) => TookJob::Yes,
            (false, Some(_)) if !gone.removed_idle => TookJob::Unknown,
            (false, _) => TookJob::No,
        };
        let (job, phase) = (gone.seen.job, gone.seen.phase);
        self.notes.push(Note::InstanceGone { instance: gone.label().to_owned(), job, phase, took_job });
        if gone.started_at.is_some() || phase == Phase::Baking {
            // Another daemon may be about to remove a half-made template of this name: it must not remove the next one.
            // GitHub may list the registration for a moment longer, and late deliveries may name it.
            self.names_taken.insert(name.to_owned(), now);
        }
        if gone.took_job || gone.started_at.is_none() {
            return;
        }
        if let Some(scope) = gone.seen.scope {
            // GitHub keeps the registration of a runner that never had a job.
            self.scopes_to_recheck.insert(scope, self.seq);
        }
    }

    pub(super) fn fold_targets(&mut self, targets: Vec<Scope>) {
        self.recovered(&Subject::Targets);
        if self.targets.as_deref() != Some(&targets) {
            self.targets = Some(targets);
            self.place_again(|_| true);
        }
    }

    fn fold_github(&mut self, begun: u64, seen: GitHubSeen, now: Timestamp) {
        match seen.targets {
            Some(Ok(targets)) => {
                self.fold_targets(targets);
            }
            Some(Err(reason)) => {
                self.trouble(Subject::Targets, &reason, now);
                // Nothing else was asked either.
                self.scopes.values_mut().for_each(|view| view.runners = None);
            }
            None => {}
        }
        for (scope, runners) in seen.runners {
            match runners {
                Ok(runners) => {
                    self.github_answered_at = Some(now);
                    if self.recovered(&Subject::Runners(scope.clone())) {
                        self.recovered(&Subject::Scope(scope.clone()));
                    }
                    if self.scopes_to_recheck.get(&scope).is_some_and(|since| *since < begun) {
                        self.scopes_to_recheck.remove(&scope);
                    }
                    self.fold_runners(begun, scope, runners, now);
                }
                Err(reason) => {
                    self.trouble(Subject::Runners(scope.clone()), &reason, now);
                    self.scopes.entry(scope).or_default().runners = None;
                }
            }
        }
        for repo in seen.gone {
            // The repository was removed, or is not served any more.
            self.failures.worked(&Subject::Queue(repo.clone()));
            self.jobs.retain(|_, state| state.job.repo != repo);
        }
    }

    fn fold_runners(&mut self, begun: u64, scope: Scope, runners: Vec<Runner>, now: Timestamp) {
        let (mut ended, mut handed, mut over) = (Vec::new(), Vec::new(), BTreeSet::new());
        let by_name: BTreeMap<&str, &Runner> = runners.iter().map(|r| (r.name.as_str(), r)).collect();
        let running = self.jobs.values().map(|j| &j.job).filter(|j| j.status == JobStatus::InProgress);
        let at_work: BTreeMap<&str, &Job> =
            running.filter_map(|job| Some((job.runner_name.as_deref()?, job))).collect();
        for instance in self.instances.values_mut() {
            if instance.seen.scope.as_ref() != Some(&scope) || instance.touched > begun {
                continue;
            }
            let name = instance.seen.name.as_str();
            let runner = by_name.get(name).copied().filter(|runner| instance.owns(runner));
            let job = at_work.get(name).copied();
            if runner.is_some_and(|runner| runner.online) {
                let class = &instance.seen.class;
                over.insert(Subject::Online(class.clone()));
                if instance.seen.job.is_none() {
                    over.insert(Subject::Idle(class.clone()));
                }
            }
            if instance.runner_is_listed(runner, job, now) {
                handed.extend(instance.seen.job.map(|job| (job, instance.seen.name.clone())));
            }
            if matches!(instance.runner, RunnerState::Done(_)) {
                ended.push(instance.seen.name.clone());
            }
        }
        ended.iter().for_each(|name| self.runner_ended(name));
        for (job, instance) in handed {
            self.doubt_a_queued_job(job, Doubt::RunnerBusy { instance });
        }
        self.all_recovered(over);
        let view = self.scopes.entry(scope).or_default();
        let was = std::mem::take(&mut view.offline_since);
        for runner in runners.iter().filter(|r| !r.online && !r.busy) {
            view.offline_since.insert(runner.id, was.get(&runner.id).copied().unwrap_or(now));
        }
        view.runners = Some(runners);
        view.listed_at = Some(now);
    }

    /// Folds a repository's open jobs; GitHub is asked about known jobs that are not among them.
    pub(super) fn fold_queue(&mut self, queue: Queue, now: Timestamp) {
        let Queue { repo, begun, asked_at, jobs, unasked } = queue;
        let what = Subject::Queue(repo.clone());
        let jobs = match jobs {
            Ok(jobs) => jobs,
            Err(reason) => return self.trouble(what, &reason, now),
        };
        self.github_answered_at = self.github_answered_at.max(Some(asked_at));
        self.recovered(&what);
        let open: BTreeSet<JobId> = jobs.iter().map(|j| j.id).collect();
        for job in jobs {
            if self.jobs.get(&job.id).is_some_and(|known| known.touched > begun) {
                continue;
            }
            if job.status == JobStatus::Queued {
                self.believe_listing(job.id, asked_at);
            }
            // The listing is as old as the question.
            self.fold_job(job, asked_at);
        }
        let unlisted = |job: &&JobState| {
            let unheard = asked_at.since(job.heard_at) > LISTING_LAG;
            let asked = job.job.repo == repo && !unasked.contains(&job.job.run_id);
            asked && !open.contains(&job.job.id) && job.touched <= begun && unheard
        };
        let unlisted: Vec<JobId> = self.jobs.values().filter(unlisted).map(|j| j.job.id).collect();
        unlisted.into_iter().for_each(|job| self.job_is_not_listed(job));
    }

    /// GitHub lists a job as queued that is taken or over here. While its listings may lag, the World is right; after that,
    /// GitHub is.
    fn believe_listing(&mut self, job: JobId, asked_at: Timestamp) {
        let lagging = |at: Timestamp| asked_at.since(at) <= LISTING_LAG;
        if self.finished_jobs.get(&job).is_some_and(|at| !lagging(*at)) {
            self.finished_jobs.remove(&job);
        }
        if self.jobs.get(&job).is_some_and(|j| j.job.status != JobStatus::Queued && !lagging(j.heard_at)) {
            self.jobs.remove(&job);
        }
    }

    /// Drops failures of subjects that do not exist any more.
    fn forget_failures(&mut self, now: Timestamp) {
        let World { failures, instances, scopes, targets, runs, .. } = self;
        let served = |scope: &Scope| {
            let has_instance = || instances.values().any(|i| i.seen.scope.as_ref() == Some(scope));
            targets.as_ref().is_none_or(|targets| targets.contains(scope)) || has_instance()
        };
        let registered = |scope: &Scope, name: &String| {
            let runners = scopes.get(scope).map(|view| &view.runners);
            runners.is_some_and(|runners| runners.as_ref().is_none_or(|list| list.iter().any(|r| r.name == *name)))
        };
        failures.retain(|subject| match subject {
            Subject::Scope(scope) | Subject::Runners(scope) | Subject::Assignment(scope, _) => served(scope),
            Subject::Queue(repo) => targets.as_deref().is_none_or(|targets| scope_for(targets, repo).is_some()),
            Subject::ForkOrigin(repo) => runs.iter().any(|((of, _), run)| of == repo && run.origin.is_none()),
            Subject::Deregistration(scope, name) => served(scope) && registered(scope, name),
            Subject::Removal(name) => instances.contains_key(name),
            _ => true,
        });
        failures.forget(now);
        scopes.retain(|scope, _| served(scope));
        self.scopes_to_recheck.retain(|scope, _| served(scope));
    }

    /// Drops old entries.
    fn forget(&mut self, now: Timestamp) {
        self.finished_jobs.retain(|_, at| now.since(*at) < REMEMBER_OVER);
        self.jobs.retain(|_, job| now.since(job.heard_at.max(job.queued_at)) < JOB_LIFETIME);
        self.names_taken.retain(|_, at| now.since(*at) < Duration::from_secs(600));
        self.questions.retain(|job, _| self.jobs.contains_key(job));
        self.unknown_jobs.retain(|_, job| now.since(job.heard_at) < Duration::from_secs(600));
        self.forget_runs();
        self.repos_to_check.retain(|_, at| now.since(*at) < Duration::from_secs(600));
    }
}
