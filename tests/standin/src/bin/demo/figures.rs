//! The demo's figures: medians over its rounds.

use std::time::{Duration, Instant};

use super::args::Options;

/// The moments of one round.
pub struct Round {
    begun: Instant,
    jobs: u32,
    /// When each runner process was first heard of.
    pub started: Vec<Instant>,
    /// When nothing was left.
    pub gone: Option<Instant>,
}

impl Round {
    /// The webhooks go out now.
    pub fn new(begun: Instant, jobs: u32) -> Round {
        Round { begun, jobs, started: Vec::new(), gone: None }
    }
}

/// All rounds so far.
#[derive(Default)]
pub struct Figures {
    first_started: Vec<Duration>,
    last_started: Vec<Duration>,
    gone: Vec<Duration>,
    jobs: u32,
}

impl Figures {
    /// One more.
    pub fn add(&mut self, round: Round) {
        let since = |at: &Instant| at.saturating_duration_since(round.begun);
        self.jobs = round.jobs;
        self.first_started.extend(round.started.iter().min().map(since));
        self.last_started.extend(round.started.iter().max().map(since));
        self.gone.extend(round.gone.as_ref().map(since));
    }

    /// Prints the medians.
    pub fn print(&self, options: &Options) {
        let many = |n: u32, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
        say!("From webhook, median of {} with {}:", many(options.rounds, "round"), many(self.jobs, "job"));
        let line = |what: &str, times: &[Duration]| {
            if let Some(median) = median(times) {
                say!("  {what:<34} {:>8.3} s", median.as_secs_f64());
            }
        };
        if self.jobs == 1 {
            line("runner process runs", &self.first_started);
        } else {
            line("first runner process runs", &self.first_started);
            line("last runner process runs", &self.last_started);
        }
        line("all gone", &self.gone);
    }
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (0, Some(upper)) => sorted.get(middle.wrapping_sub(1)).map(|lower| (*lower + *upper) / 2),
        (_, middle) => middle.copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let check = |times: &[u64], expected: Option<u64>| {
            let times: Vec<Duration> = times.iter().map(|ms| Duration::from_millis(*ms)).collect();
            assert_eq!(median(&times), expected.map(Duration::from_millis), "{times:?}");
        };
        check(&[], None);
        check(&[5], Some(5));
        check(&[9, 1, 5], Some(5));
        check(&[4, 1, 9, 2], Some(3));
    }
}
