//! Folds looks at LXD and GitHub into the World.

use std::time::Duration;

use super::jobs::runs_on;
use super::matching::scope_for;
use super::{
    Doubt, Entry, Flight, GitHubSeen, Instance, InstanceSeen, JOB_LIFETIME, JobState, LISTING_LAG, Note, Queue,
    REMEMBER_OVER, RunnerState, Snapshot, Subject, TookJob, World,
};
use crate::identity::Maker;
use crate::model::{InstanceStatus, Job, JobId, JobStatus, Phase, Runner, Scope, Timestamp};

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
        let listed: std::collections::BTreeSet<String> = seen.iter().map(|i| i.name.clone()).collect();
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
                    if seen.phase == Phase::Started {
                        known.started_at.get_or_insert(now);
                    }
                    if seen.phase != known.seen.phase || seen.progress != known.seen.progress {
                        known.begun_at = now;
                    }
                    known.runner_is_noted |= seen.runner_id.is_some();
                    let runner_id = seen.runner_id.or(known.seen.runner_id);
                    let name = seen.name.clone();
                    // Never go back from Started: writing the phase key may have failed.
                    let started = known.seen.phase == Phase::Started;
                    let phase = if started { Phase::Started } else { seen.phase };
                    known.seen = InstanceSeen { phase, ..seen };
                    if let Some(id) = runner_id {
                        known.has_runner(id);
                    }
                    known.stopped_since = match known.seen.status {
                        InstanceStatus::Stopped => known.stopped_since.or(Some(now)),
                        _ => None,
                    };
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
        let (mut ended, mut handed) = (Vec::new(), Vec::new());
        let by_name: std::collections::BTreeMap<&str, &Runner> = runners.iter().map(|r| (r.name.as_str(), r)).collect();
        let running = self.jobs.values().map(|j| &j.job).filter(|j| j.status == JobStatus::InProgress);
        let at_work: std::collections::BTreeMap<&str, &Job> =
            running.filter_map(|job| Some((job.runner_name.as_deref()?, job))).collect();
        let mut over = std::collections::BTreeSet::new();
        for instance in self.instances.values_mut() {
            if instance.seen.scope.as_ref() != Some(&scope) || instance.touched > begun {
                continue;
            }
            // Another host with our prefix may use the name of an instance that is being made or was left half-made: such a
            // runner is told by its id, which is noted before it starts.
            let making = instance.seen.phase == Phase::Provisioning;
            let ours_to_name = making && instance.seen.maker == Maker::Us;
            // A stopped instance has no online runner: the runner is a namesake on another host.
            let runs = instance.seen.status != InstanceStatus::Stopped;
            let never_started =
                |r: &Runner| making && instance.seen.runner_id.is_none() && (!runs || !r.online && !r.busy);
            // Once a runner id is noted, only that registration is the instance's. A listing may lag, and have the runner
            // that had the name before.
            let noted = instance.runner_is_noted || making && instance.seen.runner_id.is_some();
            let same =
                |r: &&&Runner| instance.seen.runner_id == Some(r.id) || !(ours_to_name || noted || never_started(r));
            let runner = by_name.get(instance.seen.name.as_str()).filter(same);
            if runner.is_some_and(|r| r.online) {
                let class = &instance.seen.class;
                over.insert(Subject::Online(class.clone()));
                if instance.seen.job.is_none() {
                    over.insert(Subject::Idle(class.clone()));
                }
            }
            if let Some(runner) = runner {
                instance.has_runner(runner.id);
                if runner.online || runner.busy {
                    instance.started_at.get_or_insert(now);
                    instance.seen.phase = Phase::Started;
                }
                if runner.busy {
                    instance.took_job = true;
                    instance.seen_busy = true;
                }
            }
            // Another host with our prefix may have had a runner of this name, and the job was that runner's.
            let idle = runner.is_some_and(|r| r.online && !r.busy) && instance.runner == RunnerState::Busy;
            let named = at_work.get(instance.seen.name.as_str()).is_some_and(|job| runs_on(job, instance));
            if idle && !instance.seen_busy && !named {
                (instance.took_job, instance.named) = (false, false);
            }
            if runner.is_some_and(|r| r.busy) && instance.runner != RunnerState::Busy && !named {
                instance.handover_since = Some(now);
                handed.extend(instance.seen.job.map(|job| (job, instance.seen.name.clone())));
            }
            instance.runner = match (runner, instance.runner) {
                (Some(r), _) if r.busy => RunnerState::Busy,
                (Some(_), RunnerState::Done(since)) if instance.took_job => RunnerState::Done(since),
                // A runner takes one job in its life: GitHub is wrong to list it as idle after that.
                (Some(_), _) if instance.took_job => RunnerState::Busy,
                (Some(r), RunnerState::Idle(since)) if r.online => RunnerState::Idle(since),
                (Some(r), _) if r.online => RunnerState::Idle(now),
                (Some(_), RunnerState::Idle(_)) => RunnerState::Awaited,
                (Some(_), before) => before,
                (None, RunnerState::Idle(_) | RunnerState::Busy) => RunnerState::Done(now),
                // It was registered before it started, and is not listed any more: it had its job between two listings.
                (None, RunnerState::Awaited) if instance.was_registered(now) => RunnerState::Done(now),
                (None, before) => before,
            };
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
        let open: std::collections::BTreeSet<JobId> = jobs.iter().map(|j| j.id).collect();
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

    /// Forgets what is too old to matter.
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
