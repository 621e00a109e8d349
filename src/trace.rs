//! The times of a start's steps (`--trace`): moments on a job's way to its runner, in one log line when the runner starts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Instant;

use crate::model::JobId;
use crate::threads::lock;

/// The most jobs whose moments are kept; the oldest are dropped first.
const KEPT: usize = 4096;

/// The moments of all jobs whose runner has not started.
#[derive(Debug, Default)]
pub struct Trace {
    /// `None`: off.
    jobs: Option<Mutex<BTreeMap<JobId, Moments>>>,
}

/// The first is the one that the others are counted from.
type Moments = Vec<(&'static str, Instant)>;

/// A recorder of one job's moments.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    trace: &'a Trace,
    job: Option<JobId>,
}

impl Trace {
    /// A trace, which records if `on`.
    pub fn new(on: bool) -> Trace {
        Trace { jobs: on.then(Mutex::default) }
    }

    /// A recorder for `job`; it does nothing for `None`.
    pub fn of(&self, job: Option<JobId>) -> Mark<'_> {
        Mark { trace: self, job }
    }
}

impl Mark<'_> {
    /// Records that the job reached `moment`. The first one starts the clock and is never overwritten; later ones are.
    pub fn at(self, moment: &'static str) {
        let (Some(jobs), Some(job)) = (&self.trace.jobs, self.job) else { return };
        let now = Instant::now();
        let mut jobs = lock(jobs);
        if jobs.len() >= KEPT && !jobs.contains_key(&job) {
            jobs.pop_first();
        }
        let moments = jobs.entry(job).or_default();
        if moments.first().is_some_and(|(name, _)| *name == moment) {
            return;
        }
        moments.retain(|(name, _)| *name != moment);
        moments.push((moment, now));
    }

    /// Its runner was started: logs all moments, in milliseconds, and drops them.
    pub fn tell(self, instance: &str, from: &str) {
        let (Some(jobs), Some(job)) = (&self.trace.jobs, self.job) else { return };
        let moments = lock(jobs).remove(&job).unwrap_or_default();
        log::info!("trace job={job} instance={instance} from={from}{}", line(&moments));
    }
}

fn line(moments: &Moments) -> String {
    let mut line = String::new();
    let Some((_, begun)) = moments.first() else { return line };
    for (name, at) in moments {
        let millis = at.saturating_duration_since(*begun).as_secs_f64() * 1000.0;
        // Writing to a string does not fail.
        let _ = write!(line, " {name}={millis:.1}");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_counted_from_the_first() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let moments = vec![("accepted", at(0)), ("planned", at(2)), ("jit", at(150))];
        assert_eq!(line(&moments), " accepted=0.0 planned=2.0 jit=150.0");
        assert_eq!(line(&Vec::new()), "");
    }

    #[test]
    fn nothing_is_kept_where_nobody_asks_and_no_more_than_the_cap_where_somebody_does() {
        Trace::new(false).of(Some(JobId(1))).at("accepted");
        let trace = Trace::new(true);
        trace.of(None).at("accepted");
        (0..=KEPT as u64).for_each(|job| trace.of(Some(JobId(job))).at("accepted"));
        trace.of(Some(JobId(KEPT as u64))).at("accepted");
        let jobs = trace.jobs.as_ref().unwrap().lock().unwrap();
        assert_eq!((jobs.len(), jobs.contains_key(&JobId(0))), (KEPT, false));
    }
}
