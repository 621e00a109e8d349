//! A day of GitHub: of the deliveries one in a hundred fails, of the answers two in a hundred are 5xx, GitHub says three
//! times to slow down, and a token ends. The real budget decides what is sent, the real upkeep what is asked for again, the
//! real `World` and `plan` all the rest.

use std::collections::BTreeSet;
use std::time::Duration;

use lxdrunner::github::ledger::{Ledger, Purpose, Settlement, Told, Verdict, WindowSeen};
use lxdrunner::github::{Counts, Delivery};
use lxdrunner::model::{Hint, Timestamp};
use lxdrunner::upkeep::choose::{reaches_back, to_redeliver};
use lxdrunner::world::Event;

use crate::faults::Faults;
use crate::rng::Rng;
use crate::stage::{DAWN, Ev, Stage};
use crate::{RECOVERY, config, happen, stage, told};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// The listings' share, in percent.
const SHARE: u8 = 20;
const LIMIT: u64 = 5000;
/// Between two looks at the hook's deliveries.
const LOOK_EVERY: u64 = 60_000;

/// GitHub's side of the day, and the budget that is on ours.
pub struct Day {
    ledger: Ledger,
    rng: Rng,
    left: u64,
    resets: u64,
    /// When GitHub says to slow down, and for how many seconds; without it says nothing of the time.
    limits: Vec<(u64, Option<u64>)>,
    limited_until: u64,
    expires: u64,
    /// What was delivered, oldest first, each with what it told.
    deliveries: Vec<(Delivery, Hint)>,
    asked: BTreeSet<String>,
    looked: Option<u64>,
    pub seen: Seen,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub failed_deliveries: u64,
    pub redelivered: u64,
    pub server_errors: u64,
    pub slow_downs: u64,
    pub expired: u64,
    /// Requests that came while GitHub had said to wait.
    pub while_told_to_wait: u64,
    pub most_in_an_hour: u64,
}

impl Day {
    fn new(seed: u64) -> Day {
        let mut rng = Rng::new(seed ^ 0xDA11);
        let mut at = |hour: u64| DAWN + hour * HOUR + rng.range(0, HOUR);
        let limits = vec![(at(3), Some(90)), (at(9), None), (at(17), Some(600))];
        let expires = at(12);
        Day {
            ledger: Ledger::default(),
            rng,
            left: LIMIT,
            resets: DAWN + HOUR,
            limits,
            limited_until: 0,
            expires,
            deliveries: Vec::new(),
            asked: BTreeSet::new(),
            looked: None,
            seen: Seen::default(),
        }
    }

    /// Asks GitHub something; true where it answered as it should.
    fn request(&mut self, purpose: Purpose, now: u64) -> bool {
        let moment = Duration::from_millis(now - DAWN);
        if self.ledger.admit(purpose, moment, SHARE) != Verdict::Go {
            return false;
        }
        let came = self.answer(now);
        let die = self.rng.range(0, 999) as u32;
        self.ledger.settle(purpose, moment, &came, die);
        match came.status {
            // A fresh token, and the same once more.
            Some(401) => self.request(Purpose::Register, now) && self.request(purpose, now),
            Some(status) => status == 200,
            None => false,
        }
    }

    fn answer(&mut self, now: u64) -> Settlement {
        if now >= self.resets {
            (self.left, self.resets) = (LIMIT, now + HOUR);
        }
        self.left = self.left.saturating_sub(1);
        self.seen.most_in_an_hour = self.seen.most_in_an_hour.max(LIMIT - self.left);
        let window = WindowSeen {
            resource: "core".to_owned(),
            limit: LIMIT,
            remaining: self.left,
            resets_in: Duration::from_millis(self.resets - now),
        };
        let answer = |status, told| Settlement { status: Some(status), window: Some(window.clone()), told };
        if now < self.limited_until {
            self.seen.while_told_to_wait += 1;
            return answer(403, Some(Told::Somehow));
        }
        if let Some(&(_, seconds)) = self.limits.first().filter(|(at, _)| *at <= now) {
            self.limits.remove(0);
            self.limited_until = now + seconds.unwrap_or(60) * 1000;
            self.seen.slow_downs += 1;
            let told = seconds.map_or(Told::Somehow, |seconds| Told::For(Duration::from_secs(seconds)));
            return answer(403, Some(told));
        }
        if now >= self.expires {
            self.expires = u64::MAX;
            self.seen.expired += 1;
            return answer(401, None);
        }
        if self.rng.chance(20) {
            self.seen.server_errors += 1;
            return answer(502, None);
        }
        answer(200, None)
    }

    /// A delivery is sent; true where it arrives.
    fn deliver(&mut self, hint: &Hint, guid: Option<String>, now: u64) -> bool {
        let arrives = !self.rng.chance(10);
        self.seen.failed_deliveries += u64::from(!arrives);
        let id = self.deliveries.len() as u64;
        let delivery = Delivery {
            id,
            redelivery: guid.is_some(),
            guid: guid.unwrap_or_else(|| format!("guid-{id}")),
            at: Some(Timestamp(now)),
            status: String::new(),
            code: if arrives { 202 } else { 503 },
            event: "workflow_job".to_owned(),
        };
        self.deliveries.push((delivery, hint.clone()));
        arrives
    }

    /// What a look at the hook's deliveries has us ask for again: what GitHub then sends.
    fn lost(&mut self, now: u64) -> Vec<(String, Hint)> {
        let since = self.looked.map(|at| Timestamp(at - 300_000));
        let mut listed: Vec<Delivery> = Vec::new();
        loop {
            if !self.request(Purpose::List, now) {
                return Vec::new();
            }
            let older = self.deliveries.iter().rev().skip(listed.len()).take(100);
            listed.extend(older.map(|(delivery, _)| delivery.clone()).collect::<Vec<_>>());
            if listed.len() == self.deliveries.len() || !reaches_back(&listed, since, Timestamp(now), 10) {
                break;
            }
        }
        self.looked = Some(now);
        let mut again = Vec::new();
        for lost in to_redeliver(&listed, &self.asked, Timestamp(now)) {
            if !self.request(Purpose::Ask, now) {
                break;
            }
            self.asked.insert(lost.guid.clone());
            self.seen.redelivered += 1;
            again.push((lost.guid.clone(), self.deliveries[lost.id as usize].1.clone()));
        }
        again
    }

    fn counts(&self) -> Counts {
        self.ledger.counts()
    }
}

impl Stage {
    /// On a day of GitHub: whether it answers a request as it should.
    pub fn asked_of_the_day(&mut self, purpose: Purpose) -> Option<bool> {
        let now = self.now;
        self.day.as_mut().map(|day| day.request(purpose, now))
    }

    /// On a day of GitHub: whether a delivery arrives.
    pub fn delivered_of_the_day(&mut self, hint: &Hint) -> Option<bool> {
        let now = self.now;
        self.day.as_mut().map(|day| day.deliver(hint, None, now))
    }

    pub fn redeliver(&mut self) {
        let now = self.now;
        let Some(day) = self.day.as_mut() else { return };
        let mut arrived = Vec::new();
        for (guid, hint) in day.lost(now) {
            if day.deliver(&hint, Some(guid), now) {
                arrived.push(hint);
            }
        }
        for hint in arrived {
            self.after(50, 1500, Ev::Deliver { daemon: 0, hint });
        }
        self.at(now + LOOK_EVERY, Ev::Redeliver);
    }
}

/// The day passes.
fn pass(stage: &mut Stage) {
    while let Some(((at, _), ev)) = stage.queue.pop_first() {
        stage.now = at;
        if at >= DAWN + DAY {
            stage.jobs_left = 0;
            if stage.clean().is_ok() || at >= DAWN + DAY + RECOVERY.as_millis() as u64 {
                break;
            }
        }
        let (turn, starts) = (matches!(ev, Ev::Redeliver), matches!(ev, Ev::Restart(_)));
        happen(stage, ev);
        if turn {
            stage.check_caps();
        }
        if starts {
            // Without LXD's events it would be listed every second of the day.
            stage.fold(0, Event::Listening(true));
        }
    }
    if let Err(left) = stage.clean() {
        stage.fail(&left);
    }
}

/// A day with one daemon, on which nothing goes wrong but what GitHub does.
fn day(seed: u64) -> (Seen, Counts, usize, u64) {
    let mut config = config(crate::READY[0]);
    config.max_workers = 8;
    config.classes.iter_mut().for_each(|class| class.max_workers = 6);
    let mut stage = (0..).map(|n| stage(seed + n * 1000, &config)).find(|s| s.daemons.len() == 1 && !s.token).unwrap();
    stage.faults = Faults::default();
    stage.quiet = false;
    stage.queue.retain(|_, ev| matches!(ev, Ev::JobArrives | Ev::Restart(_)));
    stage.jobs_left = u64::MAX;
    stage.day = Some(Day::new(seed));
    stage.at(DAWN + LOOK_EVERY, Ev::Redeliver);
    stage.tale.told = true;
    if let Err(failure) = told(&mut stage, pass) {
        panic!("{failure}");
    }
    let mut longest_wait = 0;
    let ours = stage.github.jobs.iter().filter(|job| job.ours());
    for job in ours.clone() {
        longest_wait = longest_wait.max(job.taken.as_ref().map_or(0, |(at, ..)| at - job.created));
    }
    let count = ours.count();
    let day = stage.day.take().unwrap();
    (day.seen, day.counts(), count, longest_wait / 1000)
}

#[test]
fn a_day_of_github_loses_no_job_and_asks_nothing_while_told_to_wait() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (seen, counts, jobs, longest_wait) = day(seed);
    println!(
        "a day, seed {seed}: {jobs} jobs, lost 0, longest wait {longest_wait} s; {} deliveries failed, {} asked for again; \
         {} requests, {} answered by 5xx, {} times told to slow down, {} held back, {} token ended, at most {} an hour; \
         requests while told to wait: {}",
        seen.failed_deliveries,
        seen.redelivered,
        counts.sent,
        seen.server_errors,
        seen.slow_downs,
        counts.held_back,
        seen.expired,
        seen.most_in_an_hour,
        seen.while_told_to_wait
    );
    assert_eq!(seen.while_told_to_wait, 0);
    assert_eq!((seen.slow_downs, seen.expired), (3, 1));
    assert!(jobs > 500 && seen.failed_deliveries > 5 && seen.server_errors > 50 && counts.held_back > 0);
    assert!(seen.redelivered > 0 && seen.redelivered <= seen.failed_deliveries);
}
